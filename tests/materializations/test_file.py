"""The file materialization: whole commits, whatever dies, and nothing outside its root."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard

from hub.errors import FatalError, Fenced, TransientError
from hub.materialization import Binding, Rejected
from hub.options import Interpolated
from hub.record import Batch, Cursor, Place, TaskName
from hub_materializations.file import FileMaterialization
from hub_materializations.file import sink as sink_module
from hub_materializations.file import staging as staging_module
from hub_materializations.file.sink import FileBinding, FileSink

pytestmark = pytest.mark.anyio

Opened = Callable[..., AbstractAsyncContextManager[FileSink]]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    @asynccontextmanager
    async def opened(task: str = "t", **options: Any) -> AsyncIterator[FileSink]:
        made = FileMaterialization(root=str(tmp_path / "out"), **options)
        async with made.open(TaskName(task)) as sink:
            yield sink

    return opened


def binding(path: str = "a.ndjson", *, envelope: bool = False, collection: str = "c/x") -> Binding:
    return Binding(collection, path, FileBinding(source="*", path=Interpolated(path), envelope=envelope))


def batch(*docs: Any, **rest: Any) -> Batch:
    return Batch.of_docs("c/x", docs, **rest)


def cursor(seq: int) -> Cursor:
    return Cursor({"j": Place(1, seq)})


def manifest(root: Path, task: str = "t") -> Any:
    return json.loads((root / "out/.hub" / f"{task}.json").read_bytes())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def committed(root: Path) -> dict[str, bytes]:
    """What a reader of the manifest sees."""
    found = {}
    for part in manifest(root)["files"]:
        assert part["number"] == 0
        found[part["path"]] = (root / "out" / part["path"]).read_bytes()[: part["bytes"]]
    return found


async def test_shows_whole_commits_with_their_cursor(opened: Opened, tmp_path: Path) -> None:
    async with opened() as sink:
        assert await sink.restore() is None
        await sink.write(binding(), batch({"a": 1}))
        assert committed(tmp_path) == {}
        await sink.write(binding(), batch({"a": 2}))
        await sink.write(binding("dir/b.ndjson"), batch([1.10]))
        await sink.commit(cursor(7))
        assert committed(tmp_path) == {"a.ndjson": b'{"a":1}\n{"a":2}\n', "dir/b.ndjson": b"[1.1]\n"}
    async with opened() as sink:
        assert await sink.restore() == cursor(7)
        await sink.write(binding(), batch({"a": 3}))
        await sink.commit(cursor(8))
    assert (tmp_path / "out/a.ndjson").read_bytes() == b'{"a":1}\n{"a":2}\n{"a":3}\n'
    assert manifest(tmp_path)["epoch"] == 2


async def test_a_writer_that_was_overtaken_touches_nothing(opened: Opened, tmp_path: Path) -> None:
    async with opened() as old, opened() as new:
        await old.restore()
        await old.write(binding(), batch({"a": 1}))
        await new.restore()
        await new.write(binding(), batch({"a": 2}))
        await new.commit(cursor(1))
        with pytest.raises(Fenced):
            await old.commit(cursor(2))
    assert committed(tmp_path) == {"a.ndjson": b'{"a":2}\n'}
    assert (tmp_path / "out/a.ndjson").stat().st_size == 8


class Dies(BaseException):
    """A death in the middle: nothing may catch it and tidy up."""


def _dies_at(patch: pytest.MonkeyPatch, count: int) -> None:
    """Let the process die before its `count`th change of what is on disk."""
    left = [count]
    real: dict[str, Callable[..., Any]] = {
        "fsync": os.fsync,
        "fdatasync": os.fdatasync,
        "replace": os.replace,
    }

    def dying(name: str) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Dies
            return real[name](*arguments)

        return run

    for name in real:
        patch.setattr(os, name, dying(name))
    patch.setattr(Path, "replace", lambda self, to: os.replace(self, to))  # noqa: PTH105


@pytest.mark.parametrize("compression", ["none", "zstd"])
async def test_a_death_at_any_step_leaves_the_commit_whole_or_absent(
    opened: Opened, tmp_path: Path, compression: str
) -> None:
    steps = 0
    while True:
        steps += 1
        root = tmp_path / "out"
        for path in [*root.rglob("*")][::-1] if root.exists() else []:
            path.rmdir() if path.is_dir() else path.unlink()
        async with opened(compression=compression) as sink:
            await sink.restore()
            await sink.write(binding("a"), batch("one"))
            await sink.commit(cursor(1))
        died = False
        with pytest.MonkeyPatch.context() as patch:
            _dies_at(patch, steps)
            try:
                async with opened(compression=compression) as sink:
                    await sink.restore()
                    await sink.write(binding("a"), batch("two"))
                    await sink.write(binding("b/c"), batch("two"))
                    await sink.commit(cursor(2))
            except Dies:
                died = True
        async with opened(compression=compression) as sink:
            stood = await sink.restore()
            assert stood in (cursor(1), cursor(2))
            if stood == cursor(1):
                assert not (root / "b/c").exists()
                await sink.write(binding("a"), batch("two"))
                await sink.write(binding("b/c"), batch("two"))
                await sink.commit(cursor(2))
        plain = {"none": bytes, "zstd": unzstd}[compression]
        assert plain((root / "a").read_bytes()) == b'"one"\n"two"\n'
        assert plain((root / "b/c").read_bytes()) == b'"two"\n'
        if not died:
            break
    assert steps > 10


def unzstd(text: bytes) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(text, read_across_frames=True).read()


async def test_what_a_torn_append_left_is_cut_off(opened: Opened, tmp_path: Path) -> None:
    async with opened() as sink:
        await sink.restore()
        await sink.write(binding(), batch(1))
        await sink.commit(cursor(1))
    with (tmp_path / "out/a.ndjson").open("ab") as file:
        file.write(b'{"torn":')
    async with opened() as sink:
        await sink.restore()
        assert (tmp_path / "out/a.ndjson").read_bytes() == b"1\n"


async def test_a_file_shorter_than_what_was_committed_is_not_gone_on_with(
    opened: Opened, tmp_path: Path
) -> None:
    async with opened() as sink:
        await sink.restore()
        await sink.write(binding(), batch(12345))
        await sink.commit(cursor(1))
    (tmp_path / "out/a.ndjson").write_bytes(b"12")
    async with opened() as sink:
        with pytest.raises(FatalError, match=r"a\.ndjson: 2 bytes, but 6 were committed"):
            await sink.restore()


async def test_a_finished_file_may_be_taken_away(opened: Opened, tmp_path: Path) -> None:
    path = tmp_path / "out/a.ndjson"
    async with opened() as sink:
        await sink.restore()
        await sink.write(binding(), batch(1))
        await sink.commit(cursor(1))
        path.rename(tmp_path / "taken")
        await sink.write(binding(), batch(2))
        with pytest.raises(TransientError, match="taken away"):
            await sink.commit(cursor(2))
    async with opened() as sink:
        assert await sink.restore() == cursor(1)
        await sink.write(binding(), batch(2))
        await sink.commit(cursor(2))
    assert path.read_bytes() == b"2\n"


async def test_a_file_of_somebody_else_is_not_touched(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.ndjson").write_text("precious")
    async with opened() as sink:
        await sink.restore()
        await sink.write(binding(), batch(1))
        with pytest.raises(FatalError, match="was not written by this task"):
            await sink.commit(cursor(1))
    assert (tmp_path / "out/a.ndjson").read_text() == "precious"


async def test_parts_are_numbered_and_their_concatenation_is_everything(
    opened: Opened, tmp_path: Path
) -> None:
    for first in (0, 5):
        async with opened(part_bytes=10) as sink:
            await sink.restore()
            for i in range(first, first + 5):
                await sink.write(binding("d.x/a.ndjson.q"), batch({"i": i}))
                await sink.commit(cursor(i))
    parts = names(tmp_path / "out/d.x")
    assert parts == [f"a-00000{n}.ndjson.q" for n in range(1, 6)]
    whole = b"".join((tmp_path / "out/d.x" / part).read_bytes() for part in parts)
    assert whole == b"".join(b'{"i":%d}\n' % i for i in range(10))


async def test_compressed_files_are_read_as_one(opened: Opened, tmp_path: Path) -> None:
    lines = [{"line": "x" * 100, "i": i} for i in range(1000)]
    for compression, plain in (("gzip", gzip.decompress), ("zstd", unzstd)):
        path = f"a.{compression}"
        async with opened(compression, compression=compression) as sink:
            await sink.restore()
            for at in range(0, 1000, 250):
                await sink.write(binding(path), batch(*lines[at : at + 250]))
                await sink.commit(cursor(at))
        packed = (tmp_path / "out" / path).read_bytes()
        assert [json.loads(line) for line in plain(packed).splitlines()] == lines
        assert len(packed) < 20_000


async def test_a_transaction_beyond_memory_waits_on_disk(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging_module, "MEMORY_BYTES", 100)
    monkeypatch.setattr(staging_module, "PIECE_BYTES", 64)
    expected: dict[str, bytes] = {"a": b"", "b": b""}
    async with opened() as sink:
        await sink.restore()
        for i in range(100):
            target = "ab"[i % 3 == 0]
            await sink.write(binding(target), batch({"i": i}, {"text": "y" * i}))
            expected[target] += batch({"i": i}, {"text": "y" * i}).ndjson
        await sink.commit(cursor(1))
        assert committed(tmp_path) == expected
        await sink.write(binding("a"), batch(1))
        await sink.commit(cursor(2))
    assert (tmp_path / "out/a").read_bytes() == expected["a"] + b"1\n"


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../../x",
        "/etc/x",
        "a//b",
        ".",
        "",
        "a/",
        ".hub/t.json",
        ".HUB/x",
        "a\x00b",
        "a\nb",
        "\udc80",
        "n" * 300,
    ],
)
async def test_a_path_from_a_document_stays_below_the_root(opened: Opened, tmp_path: Path, path: str) -> None:
    hostile = Binding("c\x00" if not path else "c", path, FileBinding(source="*"))
    async with opened() as sink:
        await sink.restore()
        with pytest.raises(Rejected):
            await sink.write(hostile, batch(1, 2))
        await sink.commit(cursor(1))
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == [".hub"]


async def test_a_link_out_of_the_root_is_not_followed(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/link").symlink_to(tmp_path / "elsewhere")
    async with opened() as sink:
        await sink.restore()
        await sink.write(binding("link/x/y"), batch(1))
        with pytest.raises(FatalError, match="leads out of"):
            await sink.commit(cursor(1))
    assert names(tmp_path / "elsewhere") == []


async def test_a_path_that_is_file_and_folder_at_once_is_refused(opened: Opened) -> None:
    async with opened() as sink:
        await sink.restore()
        await sink.write(binding("a/b"), batch(1))
        for path in ("a", "a/b/c"):
            with pytest.raises(Rejected, match="file and a folder"):
                await sink.write(binding(path), batch(1))
        await sink.commit(cursor(1))


async def test_deletes_need_the_envelope(opened: Opened, tmp_path: Path) -> None:
    changes = batch({"a": 1}, {"a": 2}, ops=b"cd", shared={"table": "x"}, columns={"lsn": [5, None]})
    async with opened() as sink:
        await sink.restore()
        with pytest.raises(Rejected) as refused:
            await sink.write(binding(), changes)
        assert list(refused.value.reasons) == [1]
        await sink.write(binding(envelope=True), changes)
        await sink.commit(cursor(1))
    assert [json.loads(line) for line in (tmp_path / "out/a.ndjson").read_bytes().splitlines()] == [
        {
            "collection": "c/x",
            "operation": "create",
            "metadata": {"table": "x", "lsn": 5},
            "document": {"a": 1},
        },
        {"collection": "c/x", "operation": "delete", "metadata": {"table": "x"}, "document": {"a": 2}},
    ]


async def test_the_default_path_is_the_name_of_the_collection(opened: Opened, tmp_path: Path) -> None:
    async with opened(compression="gzip") as sink:
        await sink.restore()
        await sink.write(Binding("shop/public.orders", "", FileBinding(source="*")), batch(1))
        await sink.commit(cursor(1))
    assert (tmp_path / "out/shop/public.orders.ndjson.gz").exists()


async def test_too_many_files_stop_the_task(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "FILES_MAX", 2)
    async with opened() as sink:
        await sink.restore()
        for name in "abc":
            await sink.write(binding(name), batch(1))
        with pytest.raises(FatalError, match="more than 2 files"):
            await sink.commit(cursor(1))


async def test_check_names_what_cannot_be_written_and_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    cases: Sequence[tuple[str, bool]] = [("new/deep", True), ("plain", False)]
    for root, ok in cases:
        (finding,) = await FileMaterialization(root=str(tmp_path / root)).check(TaskName("t"))
        assert finding.ok is ok
        assert ok or finding.cure
    assert names(tmp_path) == ["plain"]
