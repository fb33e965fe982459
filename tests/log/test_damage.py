"""Damage to acknowledged data is told from a torn tail: reported, never served, never cut away in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hub.control import Control
from hub.errors import Corrupt, FatalError, LogError
from hub.log import Log, LogOptions, LostData, Transaction
from hub.log.frame import SEGMENT_HEADER_BYTES, SegmentHeader, pack_segment_header, unpack_segment_header
from hub.record import Batch, Cursor, Place


def documents(count: int = 1) -> Batch:
    return Batch.of_lines("a", [b'{"n":%d}' % n for n in range(count)])


@pytest.mark.rig
def test_no_damage_of_any_byte_of_a_segment_is_served_or_cut_away(
    tell_damage_stories: Callable[..., Any], soak_factor: int
) -> None:
    """Scenarios 24, 26, 27: every byte flipped, every file cut at every third length, sectors zeroed."""
    found = tell_damage_stories(marked=True)
    print(
        f"{found.cases} cases, {found.detected} detected, {found.harmless} harmless, {len(found.lost)} lost"
    )
    assert found.wrong == []
    # What no checksum can see is that the last sectors, marker and all, were never written: the witness does.
    assert all("zeroed" in name for name in found.lost) and len(found.lost) <= 4
    assert found.detected > 7_000


@pytest.mark.rig
def test_without_a_marker_damage_to_the_last_group_is_a_torn_tail_and_never_wrong_data(
    tell_damage_stories: Callable[..., Any],
) -> None:
    """Scenario 25."""
    found = tell_damage_stories(marked=False, step=3)
    assert found.wrong == []
    assert all(name.startswith("000000000003.seg") for name in found.lost)


async def written(path: Path, control: Control | None = None, count: int = 3) -> Place:
    async with Log.open(path, LogOptions(mark_after_s=60), control=control) as log:
        for _ in range(count):
            await log.append(Transaction("t", [documents()], b"p"))
        return log.end


def segments(path: Path) -> list[Path]:
    return sorted((path / "journal").glob("*/*.seg"))


@pytest.mark.anyio
async def test_a_log_that_ends_before_its_witness_is_refused(tmp_path: Path) -> None:
    """Scenario 28: the newest segment is gone without a trace; control.db remembers."""
    with Control(tmp_path / "control.db") as control:
        await written(tmp_path, control)
        await written(tmp_path, control)
        segments(tmp_path)[-1].unlink()
        with pytest.raises(LogError, match="lost acknowledged data"):
            await written(tmp_path, control)


@pytest.mark.anyio
async def test_a_reader_beyond_the_end_is_refused_naming_both_positions(tmp_path: Path) -> None:
    """Scenario 36."""
    end = await written(tmp_path)
    async with Log.open(tmp_path) as log:
        with pytest.raises(LostData, match=r"frame 900 .* last is "):
            log.reader("sink", start=Cursor({log.journal: Place(end.epoch, 900)}))
        with pytest.raises(LostData, match="of epoch 7"):
            log.reader("sink", start=Cursor({log.journal: Place(7, end.seq - 1)}))


@pytest.mark.anyio
@pytest.mark.parametrize("what", ["deleted", "duplicated", "renamed", "foreign"])
async def test_a_segment_that_is_not_in_its_place_is_corruption(tmp_path: Path, what: str) -> None:
    """Scenario 29."""
    for _ in range(3):
        await written(tmp_path)
    _, second, third = segments(tmp_path)
    if what == "deleted":
        second.unlink()
    elif what == "duplicated":
        third.with_name("000000000004.seg").write_bytes(third.read_bytes())
    elif what == "renamed":
        third.rename(third.with_name("000000000007.seg"))
    else:
        other = tmp_path / "other"
        for _ in range(3):
            await written(other)
        second.write_bytes(segments(other)[1].read_bytes())
    with pytest.raises(Corrupt):
        await written(tmp_path)


@pytest.mark.anyio
async def test_a_later_format_is_refused_and_not_guessed_at(tmp_path: Path) -> None:
    """Scenario 33."""
    await written(tmp_path)
    (only,) = segments(tmp_path)
    data = only.read_bytes()
    header = unpack_segment_header(data, "x")._replace(version=2)
    only.write_bytes(pack_segment_header(SegmentHeader(*header)) + data[SEGMENT_HEADER_BYTES:])
    with pytest.raises(FatalError, match="format version 2"):
        await written(tmp_path)


@pytest.mark.anyio
async def test_a_damaged_control_db_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "control.db").write_bytes(b"no database at all" * 300)
    with pytest.raises(FatalError, match="move it away"):
        Control(tmp_path / "control.db")
