"""The file capture: every line once, through growth, rotation, restarts and malformed input."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import zstandard

from hub.errors import FatalError
from hub.options import Duration, Size
from hub.record import TaskName
from hub.testing.capture import check_capture
from hub.testing.outlet import MemoryOutlet
from hub_captures.file import FileCapture
from hub_captures.file.capture import FilePosition
from hub_captures.file.files import Files, Gathered, is_rotation

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Reading:
    """A capture driven by hand: each `take` is one look at the files."""

    def __init__(self, **options: Any) -> None:
        self.options = FileCapture(**options)
        self.clock = Clock()
        self.notices: list[tuple[str, str]] = []
        self.last: Gathered | None = None
        self.files = self._opened(None)

    def _opened(self, known: Any) -> Files:
        return Files(self.options, TaskName("t"), known, clock=self.clock)

    def take(self) -> list[Any]:
        """The documents that are new."""
        docs: list[Any] = []
        while True:
            self.last = self.files.gather()
            self.notices += self.last.notices
            docs += [doc for batch in self.last.batches for doc in batch.docs]
            if self.last.is_end and not self.last.moved:
                return docs

    def restart(self) -> None:
        """Go on from the stored position in a new process."""
        assert self.last is not None
        self.files.close()
        stored = FilePosition.decode(FilePosition(self.last.files, self.last.left).encode())
        self.files = self._opened((stored.files, stored.left))


@pytest.fixture
def reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Reading]]:
    monkeypatch.chdir(tmp_path)
    made: list[Reading] = []

    def reading(path: str | list[str] = "*", **options: Any) -> Reading:
        made.append(Reading(path=path, **options))
        return made[-1]

    yield reading
    for one in made:
        one.files.close()


def append(name: str, text: str | bytes) -> None:
    with Path(name).open("ab") as file:
        file.write(text.encode() if isinstance(text, str) else text)


def lines(first: int, last: int) -> str:
    return "".join(f'{{"i":{i},"pad":"{"x" * 40}"}}\n' for i in range(first, last))


def numbers(docs: list[Any]) -> list[int]:
    return [doc["i"] for doc in docs]


@pytest.mark.parametrize("format", ["ndjson", "csv"])
@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize("follow", [False, True])
async def test_keeps_the_contract_of_captures(tmp_path: Path, format: str, ending: str, follow: bool) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[ending]
    for name in "abc":
        if format == "ndjson":
            whole = lines(0, 100)
        else:
            whole = "i,text\r\n" + "".join(f'{i},"é{"x" * 30}\n""{i}"""\r\n' for i in range(100))
        half = len(whole) // 2
        frames = pack(whole[:half].encode()) + pack(whole[half:].encode())
        (tmp_path / (name + ending)).write_bytes(frames)
    capture = FileCapture(
        path=str(tmp_path / "*"), format=format, follow=follow, batch_bytes=Size(1024), poll=Duration(0.01)
    )
    seen = await check_capture(capture, records=300)
    if format == "csv":
        assert seen[101].document.decode() == f'{{"i":"1","text":"é{"x" * 30}\\n\\"1\\""}}'
    assert not any(record.error for record in seen)


async def test_follows_and_stops_only_when_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text(lines(0, 1))
    capture = FileCapture(path=str(path), poll=Duration(0.001))
    out: MemoryOutlet[FilePosition] = MemoryOutlet("t", FilePosition)
    async with anyio.create_task_group() as group:
        group.start_soon(capture.run, None, out)
        for i in range(1, 5):
            await out.until(lambda i=i: out.count_records() == i)
            with path.open("a") as file:
                file.write(lines(i, i + 1))
        await out.until(lambda: out.count_records() == 5)
        group.cancel_scope.cancel()
    assert [record.meta["path"] for record in out.records()] == [str(path)] * 5


def test_a_half_written_line_is_read_when_it_is_whole(reading: Callable[..., Reading]) -> None:
    append("a", '1\n{"i"')
    source = reading()
    assert source.take() == [1]
    append("a", ":2}")
    assert source.take() == []
    source.restart()
    append("a", "\n3\n")
    assert source.take() == [{"i": 2}, 3]


def test_without_following_the_last_line_needs_no_line_feed(reading: Callable[..., Reading]) -> None:
    append("a", "1\n2")
    append("b", "a,b\n1,2")
    assert reading("a", follow=False).take() == [1, 2]
    assert reading("b", follow=False, format="csv").take() == [{"a": "1", "b": "2"}]


def test_a_renamed_file_keeps_its_place(reading: Callable[..., Reading]) -> None:
    source = reading("log*")
    append("log", lines(0, 3))
    assert numbers(source.take()) == [0, 1, 2]
    append("log", lines(3, 4))
    Path("log").rename("log.1")
    append("log", lines(4, 6))
    assert sorted(numbers(source.take())) == [3, 4, 5]
    Path("log.1").rename("log.2")
    Path("log").rename("log.1")
    source.restart()
    append("log.1", lines(6, 7))
    assert numbers(source.take()) == [6]


def test_a_file_renamed_out_of_sight_is_read_to_its_end(reading: Callable[..., Reading]) -> None:
    source = reading("log", rotate_wait=Duration(5))
    append("log", lines(0, 1))
    assert numbers(source.take()) == [0]
    Path("log").rename("old")
    append("old", lines(1, 2))
    append("log", lines(10, 11))
    assert sorted(numbers(source.take())) == [1, 10]
    source.clock.now = 4
    append("old", '{"i":2}')
    assert source.take() == []
    source.clock.now = 8
    assert source.take() == []
    source.clock.now = 9.5
    assert numbers(source.take()) == [2]
    append("old", "\n" + lines(3, 4))
    assert source.take() == []


def test_a_copy_that_replaces_a_cut_file_goes_on_where_that_stopped(reading: Callable[..., Reading]) -> None:
    source = reading("log*")
    append("log", lines(0, 50))
    assert numbers(source.take()) == list(range(50))
    append("log", lines(50, 60))
    shutil.copy("log", "log.1")
    os.truncate("log", 0)
    append("log", lines(60, 61))
    assert sorted(numbers(source.take())) == list(range(50, 61))
    assert any("goes on with log at byte" in message for message, _ in source.notices)


def test_a_copy_waits_for_the_cut_of_its_original(reading: Callable[..., Reading]) -> None:
    source = reading("log*", rotate_wait=Duration(5))
    append("log", lines(0, 50))
    assert len(source.take()) == 50
    shutil.copy("log", "log.1")
    assert source.take() == []
    source.clock.now = 4
    assert source.take() == []
    os.truncate("log", 0)
    append("log", lines(100, 200))  # grown beyond the place that was reached
    assert numbers(source.take()) == list(range(100, 200))
    assert source.take() == []


def test_a_file_that_begins_like_another_is_read_after_the_wait(reading: Callable[..., Reading]) -> None:
    source = reading("log*", rotate_wait=Duration(5))
    append("log", lines(0, 50))
    source.take()
    append("log.1", lines(0, 50))
    assert source.take() == []
    source.clock.now = 6
    assert numbers(source.take()) == list(range(50))


def test_equal_files_with_names_of_their_own_are_all_read(reading: Callable[..., Reading]) -> None:
    source = reading("in/*")
    Path("in").mkdir()
    for name in ("monday", "tuesday"):
        append(f"in/{name}", lines(0, 40))
        assert len(source.take()) == 40
        Path(f"in/{name}").unlink()
        append("in/keeps-the-folder", "")


def test_a_rotated_file_may_be_compressed(reading: Callable[..., Reading]) -> None:
    source = reading("log*")
    append("log", lines(0, 50))
    assert len(source.take()) == 50
    append("log", lines(50, 55))
    Path("log.1.gz").write_bytes(gzip.compress(Path("log").read_bytes()))
    Path("log").unlink()
    assert numbers(source.take()) == list(range(50, 55))
    source.restart()
    assert source.take() == []


def test_a_file_written_anew_starts_over(reading: Callable[..., Reading]) -> None:
    source = reading("a")
    append("a", lines(0, 30))
    source.take()
    Path("a").write_text(lines(100, 200))
    assert numbers(source.take()) == list(range(100, 200))
    source.restart()
    Path("a").write_text(lines(200, 201))
    assert numbers(source.take()) == [200]


def test_files_that_are_all_gone_for_a_while_are_not_read_twice(reading: Callable[..., Reading]) -> None:
    Path("disk").mkdir()
    source = reading("disk/*")
    for i in range(5):
        append(f"disk/{i}", lines(i, i + 1))
    assert numbers(source.take()) == list(range(5))
    Path("disk").rename("away")
    source.restart()
    assert source.take() == []
    Path("away").rename("disk")
    assert source.take() == []


def test_starts_at_the_last_whole_line_when_told(reading: Callable[..., Reading]) -> None:
    append("a", lines(0, 40) + '{"i":')
    append("b.gz", gzip.compress(lines(0, 40).encode()))
    source = reading(start="end")
    assert source.take() == []
    source.restart()
    append("a", "40}\n")
    append("b.gz", gzip.compress(b'{"i":41}\n'))
    assert numbers(source.take()) == [40, 41]


def test_files_that_come_later_are_read_from_their_beginning(reading: Callable[..., Reading]) -> None:
    append("a", "1\n")
    source = reading(start="end")
    assert source.take() == []
    append("b", "2\n")
    assert source.take() == [2]


def test_start_at_the_end_knows_a_csv_header(reading: Callable[..., Reading]) -> None:
    append("a", "x,y\n1,2\n")
    source = reading("a", format="csv", start="end")
    assert source.take() == []
    append("a", "3,4\n")
    assert source.take() == [{"x": "3", "y": "4"}]


@pytest.mark.parametrize("policy", ["dead_letter", "skip", "stop"])
async def test_a_malformed_line_is_dealt_with_as_told(tmp_path: Path, policy: Any) -> None:
    path = tmp_path / "a"
    path.write_bytes(b'{"a":1}\n\n{"b":\xff}\n{"a" 2}\r\n{"a":3} {}\n{"a":4}\r\n')
    capture = FileCapture(path=str(path), follow=False, on_error=policy)
    out: MemoryOutlet[FilePosition] = MemoryOutlet("t", FilePosition)
    if policy == "stop":
        with pytest.raises(FatalError, match=r"a: line at byte 9: not UTF-8 \(byte 5 of the line\)"):
            await capture.run(None, out)
        return
    await capture.run(None, out)
    (batch,) = out.batches()
    if policy == "skip":
        assert batch.docs == [{"a": 1}, {"a": 4}]
        assert out.counts == {"skipped_records": 3}
        return
    assert batch.docs == [{"a": 1}, '{"b":\\xff}', '{"a" 2}', '{"a":3} {}', {"a": 4}]
    assert {i: e.reason.split(": ", 1)[1] for i, e in (batch.errors or {}).items()} == {
        1: "line at byte 9: not UTF-8 (byte 5 of the line)",
        2: "line at byte 17: not JSON: expected ':' (byte 5)",
        3: "line at byte 26: not JSON: trailing characters (byte 9)",
    }


def test_malformed_rows_are_flagged_in_their_place(reading: Callable[..., Reading]) -> None:
    append("a", b'\xef\xbb\xbfx,y\n1,2\n\n3\n"4"z,5\n6,\xff\n"7\n",8\n"9')
    source = reading("a", format="csv", follow=False)
    gathered = source.files.gather()
    (batch,) = gathered.batches
    assert batch.docs == [
        {"x": "1", "y": "2"},
        "3",
        '"4"z,5',
        "6,\\xff",
        {"x": "7\n", "y": "8"},
        '"9',
    ]
    reasons = {i: e.reason for i, e in (batch.errors or {}).items()}
    assert list(reasons) == [1, 2, 3, 5]
    assert reasons[1] == "a: line at byte 12: the row has 1 fields, the header 2"
    assert reasons[3].endswith("byte 21: not UTF-8")


@pytest.mark.parametrize(
    ("header", "message"),
    [("a,b,a\n", "'a' twice"), ("\n1,2\n", "first line is empty"), ('a,"b', "no CSV")],
)
def test_a_csv_header_that_cannot_be_used_stops_the_capture(
    reading: Callable[..., Reading], header: str, message: str
) -> None:
    append("a", header)
    with pytest.raises(FatalError, match=message):
        reading("a", format="csv", follow=False).take()


def test_text_lines_become_strings(reading: Callable[..., Reading]) -> None:
    append("a", b'one "1"\r\n\nth\xffree\n')
    assert reading("a", format="text").take() == ['one "1"', "", "th\\xffree"]


def test_a_line_beyond_the_limit_stops_the_capture(reading: Callable[..., Reading]) -> None:
    append("a", "1\n" + '"' + "x" * 2000 + '"\n')
    with pytest.raises(FatalError, match=r"a: the line at byte 2 is longer than batch_bytes"):
        reading("a", batch_bytes=Size(1024)).take()


def test_a_line_as_long_as_the_limit_is_read_wherever_it_stands(reading: Callable[..., Reading]) -> None:
    append("a", "".join("1" * size + "\n" for size in (1023, 10, 1023, 500, 1023)))
    append("b", "2" * 1023 + "\n")
    assert [len(str(doc)) if isinstance(doc, int) else 0 for doc in reading(format="text").take()] == [0] * 6
    assert len(reading(format="text", batch_bytes=Size(1024)).take()) == 6


def test_damaged_or_short_compressed_data_stop_the_capture(reading: Callable[..., Reading]) -> None:
    packed = gzip.compress(lines(0, 100).encode())
    append("a.gz", packed[:-10])
    with pytest.raises(FatalError, match=r"a\.gz: compressed data end too early"):
        reading("a.gz", follow=False).take()
    source = reading("a.gz")
    first = len(source.take())
    append("a.gz", packed[-10:])
    assert first + len(source.take()) == 100
    append("b.zst", zstandard.compress(b"1\n") + b"junk")
    with pytest.raises(FatalError, match=r"b\.zst: zstd data are damaged behind byte 2"):
        reading("b.zst").take()


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_a_bomb_fills_no_memory(reading: Callable[..., Reading], kind: str) -> None:
    import tracemalloc

    pack = {"gz": gzip.compress, "zst": zstandard.compress}[kind]
    append(f"a.{kind}", pack(bytes(256 << 20)))
    source = reading(f"a.{kind}", follow=False)
    tracemalloc.start()
    with pytest.raises(FatalError, match="longer than batch_bytes"):
        source.take()
    assert tracemalloc.get_traced_memory()[1] < 80 << 20
    tracemalloc.stop()


def test_more_files_than_the_limit_are_refused(reading: Callable[..., Reading]) -> None:
    for name in "abc":
        append(name, "1\n")
    with pytest.raises(FatalError, match="3 files match, files_max is 2"):
        reading(files_max=2).take()


def test_more_open_files_than_the_limit_are_read_all(reading: Callable[..., Reading]) -> None:
    for i in range(150):
        append(f"f{i:03}", f"{i}\n")
    source = reading()
    assert source.take() == list(range(150))
    for i in range(150):
        append(f"f{i:03}", f"{i}\n")
    assert source.take() == list(range(150))
    assert len(source.files._readers) <= 64


def test_without_following_a_pattern_must_match(reading: Callable[..., Reading]) -> None:
    append("a", "1\n")
    with pytest.raises(FatalError, match=r"no file matches 'b\*'"):
        reading(["a", "b*"], follow=False).take()


def test_a_file_is_read_once_whatever_its_names(reading: Callable[..., Reading]) -> None:
    append("a", "1\n")
    os.link("a", "b")
    Path("c").symlink_to("a")
    assert reading(["a", "*"]).take() == [1]


def test_a_name_that_is_no_text_is_read(reading: Callable[..., Reading]) -> None:
    append(os.fsdecode(b"\xff.log"), "1\n")
    source = reading("*.log")
    assert source.take() == [1]
    source.restart()
    assert source.take() == []
    assert source.last is not None
    assert source.last.files[0].path == "\\xff.log"


def test_files_are_read_in_the_order_asked_for(reading: Callable[..., Reading]) -> None:
    for age, name in enumerate("cab"):
        append(name, f'"{name}"\n')
        os.utime(name, (age, age))
    assert reading().take() == ["a", "b", "c"]
    assert reading(order="modified").take() == ["c", "a", "b"]
    assert reading(exclude=["[ab]"]).take() == ["c"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("app.log", "app.log.1", True),
        ("app.log", "app.log.1.gz", True),
        ("app.log", "app.log-20240131", True),
        ("app.log", "app.log-2024-01-31.zst", True),
        ("app.log", "app.log", True),
        ("app.log.1", "app.log.2.gz", True),
        ("app.log.1", "app.log.1.gz", True),
        ("app.log.2", "app.log.1", False),
        ("app.log-20240131", "app.log-20240207", False),
        ("app.log", "app.logs", False),
        ("a.ndjson", "b.ndjson", False),
        ("x/app.log", "y/app.log.1", False),
    ],
)
def test_tells_rotation_from_names_of_their_own(old: str, new: str, expected: bool) -> None:
    assert is_rotation(old, new) is expected


async def test_discovers_the_fields(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"id":1,"name":"x"}\n{"id":2,"price":1.5}\n')
    (found,) = await FileCapture(path=str(tmp_path / "*")).discover(TaskName("t"))
    assert {column.name: column.type.kind for column in found.schema.columns()} == {
        "id": "integer",
        "name": "string",
        "price": "float",
    }
    assert found.schema.is_open


async def test_check_says_what_is_wrong(tmp_path: Path) -> None:
    (finding,) = await FileCapture(path=str(tmp_path / "x*"), follow=False).check(TaskName("t"))
    assert not finding.ok
    assert "no file matches" in finding.what
    (finding,) = await FileCapture(path=str(tmp_path / "x*")).check(TaskName("t"))
    assert finding.ok
