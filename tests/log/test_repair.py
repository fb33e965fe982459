"""`verify` names what is damaged; `repair` copies first, keeps all that is whole, and says what is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from hub.errors import Corrupt
from hub.log import Log, LogOptions, OsFS, Retention, Transaction
from hub.log.identity import journals
from hub.log.verify import repair, verify
from hub.record import Batch

OPTIONS = LogOptions(
    segment_bytes=8192, retention=Retention(age_s=None), mark_after_s=60, compression_level=None
)


def write(path: Path, count: int = 40) -> None:
    async def run() -> None:
        async with Log.open(path, OPTIONS) as log:
            for number in range(count):
                batch = Batch.of_lines("a", [b'{"n":%d,"pad":"%s"}' % (number, b"x" * 700)])
                await log.append(Transaction("t", [batch], b"%d" % number))

    anyio.run(run)


def numbers(path: Path) -> list[int]:
    async def run() -> list[int]:
        found: list[int] = []
        async with Log.open(path, OPTIONS) as log:
            reader = log.reader("r")
            while reader.lag_frames:
                for committed in await reader.read():
                    found += [d["n"] for i in committed.items if isinstance(i, Batch) for d in i.docs]
                    reader.release(committed.size)
        return found

    return anyio.run(run)


def segments(path: Path) -> list[Path]:
    return sorted((path / "journal").glob("*/*.seg"))


def spoil(file: Path, change: Callable[[bytearray], None]) -> bytes:
    before = file.read_bytes()
    data = bytearray(before)
    change(data)
    file.write_bytes(data)
    return before


def test_a_whole_log_verifies(tmp_path: Path) -> None:
    write(tmp_path)
    checked = verify(OsFS(), tmp_path, *journals(tmp_path))
    assert checked.damage == [] and checked.segments >= 4 and checked.blocks == 40
    assert repair(OsFS(), tmp_path, *journals(tmp_path)) == []


def test_repair_keeps_every_whole_frame_and_names_the_lost_ones(tmp_path: Path) -> None:
    """Scenario 32."""
    write(tmp_path)
    victim = segments(tmp_path)[1]

    def flip(data: bytearray) -> None:
        data[2000] ^= 1

    before = spoil(victim, flip)
    (damage,) = verify(OsFS(), tmp_path, *journals(tmp_path)).damage
    assert damage.file == str(victim) and damage.first_seq == damage.last_seq
    with pytest.raises(Corrupt):
        numbers(tmp_path)
    said = repair(OsFS(), tmp_path, *journals(tmp_path))
    assert f"frames {damage.first_seq} to {damage.last_seq} are lost" in said[-1]
    assert (victim.parent / "broken" / f"{victim.name}.broken").read_bytes() != before
    assert verify(OsFS(), tmp_path, *journals(tmp_path)).damage == []
    found = numbers(tmp_path)
    assert len(found) == 39 and set(found) <= set(range(40))
    write(tmp_path, 3)
    assert len(numbers(tmp_path)) == 42


def test_a_segment_that_was_cut_off_is_ended_where_it_is_whole(tmp_path: Path) -> None:
    write(tmp_path)
    victim = segments(tmp_path)[2]

    def cut(data: bytearray) -> None:
        del data[3000:]

    spoil(victim, cut)
    damage = verify(OsFS(), tmp_path, *journals(tmp_path)).damage
    assert damage and damage[0].last_seq is None
    repair(OsFS(), tmp_path, *journals(tmp_path))
    assert verify(OsFS(), tmp_path, *journals(tmp_path)).damage == []
    found = numbers(tmp_path)
    assert 20 < len(found) < 40 and found == sorted(found)


def test_what_cannot_be_mended_in_place_is_refused_untouched(tmp_path: Path) -> None:
    write(tmp_path)
    victim = segments(tmp_path)[1]

    def behead(data: bytearray) -> None:
        data[20] ^= 1

    spoil(victim, behead)
    spoiled = victim.read_bytes()
    with pytest.raises(Corrupt, match="backup"):
        repair(OsFS(), tmp_path, *journals(tmp_path))
    assert victim.read_bytes() == spoiled
