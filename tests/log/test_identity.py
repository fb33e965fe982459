"""A log that is not the one a reader knows is noticed with certainty: wiped, put back from an old copy, or doubled."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hub.control import Control
from hub.errors import FatalError, LogError
from hub.log import Follower, Log, LogOptions, LostData, Retention, Transaction
from hub.log.identity import journals, readable, writable
from hub.record import Batch, Cursor, Place

pytestmark = pytest.mark.anyio

OPTIONS = LogOptions(
    segment_bytes=1 << 16, retention=Retention(age_s=None), mark_after_s=60, fragments_after_s=0.0
)


async def append(path: Path, count: int, *, wall_s: int = 1_000_000_000, **rest: object) -> tuple[str, Place]:
    async with Log.open(path, OPTIONS, wall=lambda: wall_s * 1_000_000, **rest) as log:  # type: ignore[arg-type]
        for number in range(count):
            await log.append(Transaction("t", [Batch.of_lines("a", [b"%d" % number])], b"p"))
        if log.control is not None:
            await log.roll()
            await log.keeper.keep()
        return log.journal, log.end


async def test_a_log_begun_anew_has_another_name(tmp_path: Path) -> None:
    before, _ = await append(tmp_path, 1)
    assert (await append(tmp_path, 1))[0] == before and before.startswith("main-")
    shutil.rmtree(tmp_path)
    assert (await append(tmp_path, 1))[0] != before


@pytest.mark.parametrize("kept", ["control.db", "fragments"])
async def test_a_journal_whose_files_are_gone_is_missed_by_what_stands_beside_it(
    tmp_path: Path, kept: str
) -> None:
    with Control(tmp_path / "control.db") as control:
        name, _ = await append(tmp_path, 3, control=control)
    shutil.rmtree(tmp_path / "journal")
    if kept == "fragments":
        (tmp_path / "control.db").unlink()
    else:
        shutil.rmtree(tmp_path / "fragments")
    with (
        Control(tmp_path / "control.db") as control,
        pytest.raises(LogError, match=f"lost acknowledged data: the files of journal '{name}' are gone"),
    ):
        await append(tmp_path, 1, control=control)


async def test_an_old_copy_that_was_put_back_and_written_on_is_told_from_what_it_stands_for(
    tmp_path: Path,
) -> None:
    """Also where the frame that the reader stands at went into fragments long ago."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    with Control(data / "control.db") as control:
        await append(data, 5, control=control)
    shutil.copytree(data, copy)
    name, place = await append(data, 5, wall_s=1_000_000_100)
    with Control(copy / "control.db") as control:
        for later_s in (200, 300):
            await append(copy, 20, wall_s=1_000_000_000 + later_s, control=control)
        async with Log.open(copy, OPTIONS, control=control) as log:
            assert log.journal == name and log.end.seq > place.seq
            assert log.writer.segments[0].header.base_seq > place.seq
            with pytest.raises(LostData, match="written on"):
                log.reader("warehouse", start=Cursor({name: place}))
        async with Follower.open(copy) as follower:
            with pytest.raises(LostData, match="written on"):
                follower.reader("warehouse", start=Cursor({name: place}))


async def test_a_directory_from_before_names_had_a_part_of_their_own_keeps_its_name(tmp_path: Path) -> None:
    name, place = await append(tmp_path, 1)
    (tmp_path / "journal" / name).rename(tmp_path / "journal" / "main")
    async with Log.open(tmp_path, OPTIONS) as log:
        assert log.journal == "main"
        log.reader("r", start=Cursor({"main": place}))


async def test_two_journals_of_a_name_are_refused(tmp_path: Path) -> None:
    name, _ = await append(tmp_path, 1)
    shutil.copytree(tmp_path / "journal" / name, tmp_path / "journal" / "main-00000000")
    with pytest.raises(LogError, match="2 journals"):
        await append(tmp_path, 1)


def test_names_are_matched_whole() -> None:
    present = ["main-00000001", "mainly-00000001", "main-worker-00000001"]
    assert writable(present, (), "main", lambda n: b"\1" * n) == "main-00000001"
    assert writable(present, (), "other", lambda n: b"\1" * n) == "other-01010101"
    with pytest.raises(LogError, match="'gone-00000001' are gone"):
        writable(present, ["gone-00000001"], "gone", lambda n: b"\1" * n)


def test_the_journal_to_read_is_the_only_one_or_the_one_that_is_named(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match="there is none"):
        readable(tmp_path, None)
    (tmp_path / "journal" / "main-00000001").mkdir(parents=True)
    assert readable(tmp_path, None) == readable(tmp_path, "main") == journals(tmp_path)[0]
    (tmp_path / "journal" / "worker-00000001").mkdir()
    assert readable(tmp_path, "worker") == "worker-00000001"
    with pytest.raises(FatalError, match="there are main-00000001, worker-00000001"):
        readable(tmp_path, None)
    with pytest.raises(FatalError, match="no journal 'x'"):
        readable(tmp_path, "x")
