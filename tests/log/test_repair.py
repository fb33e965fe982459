"""`verify` names what is damaged; `repair` copies first, keeps all that is whole, and says what is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
import pytest

from hub.control import Control
from hub.errors import Corrupt
from hub.log import Log, LogOptions, OsFS, Retention, Transaction
from hub.log.anew import Gone, padded_array
from hub.log.browse import browse
from hub.log.frame import pack_frame_header, unpack_frame_header, with_crc
from hub.log.identity import journals
from hub.log.repair import repair_journal
from hub.log.salvage import repair_fragments
from hub.log.verify import Damage, verify
from hub.record import Batch

OPTIONS = LogOptions(
    segment_bytes=8192, retention=Retention(age_s=None), mark_after_s=60, compression_level=None
)

Change = Callable[[bytearray], None]


def write(path: Path, count: int = 40, options: LogOptions = OPTIONS, *, keep: bool = False) -> None:
    """Transactions of one record of collection `a`, and every third also of two records of `b`."""

    async def run() -> None:
        with Control(path / "control.db") as control:
            async with Log.open(path, options, control=control) as log:
                for number in range(count):
                    items = [Batch.of_lines("a", [b'{"n":%d,"pad":"%s"}' % (number, b"x" * 700)])]
                    if number % 3 == 0:
                        items.append(Batch.of_lines("b", [b'{"n":%d}' % number] * 2))
                    await log.append(Transaction("t", items, b"%d" % number))
                if keep:
                    await log.roll()
                    await log.keeper.keep()

    anyio.run(run)


def read(path: Path, collection: str = "a") -> list[tuple[int, int]]:
    """Offset and number of all records of a collection, by a reader's order."""

    async def run() -> list[tuple[int, int]]:
        with Control(path / "control.db") as control:
            async with Log.open(path, OPTIONS, control=control) as log:
                by_reader: list[int] = []
                reader = log.reader("r", wanted=lambda name: name == collection)
                while reader.lag_frames:
                    for committed in await reader.read():
                        by_reader += [d["n"] for i in committed.items if isinstance(i, Batch) for d in i.docs]
                        reader.release(committed.size)
                rows = [
                    (offset, document["n"])
                    for row in browse(log, lambda name: name == collection)
                    for offset, document in zip(row.offsets, row.batch.docs, strict=True)
                ]
        assert [number for _, number in rows] == by_reader
        return rows

    return anyio.run(run)


def segments(path: Path) -> list[Path]:
    return sorted((path / "journal").glob("*/*.seg"))


def damage_of(path: Path) -> Sequence[Damage]:
    (name,) = journals(path)
    return verify(OsFS(), path, name).damage


def mend(path: Path) -> list[Gone]:
    (name,) = journals(path)
    with Control(path / "control.db") as control:
        gone = repair_journal(OsFS(), path / "journal" / name)
        repair_fragments(OsFS(), path / "fragments" / name, name, control)
    assert damage_of(path) == []
    assert repair_journal(OsFS(), path / "journal" / name) == []
    return gone


def spoil(file: Path, change: Change) -> bytes:
    before = file.read_bytes()
    data = bytearray(before)
    change(data)
    file.write_bytes(data)
    return before


def flip(at: int) -> Change:
    def change(data: bytearray) -> None:
        data[at] ^= 1

    return change


def zero(start: int, end: int) -> Change:
    def change(data: bytearray) -> None:
        end_ = min(end, len(data))
        data[start:end_] = bytes(end_ - start)

    return change


def cut(at: int) -> Change:
    return lambda data: data.__delitem__(slice(at, None))


def test_a_whole_log_verifies(tmp_path: Path) -> None:
    write(tmp_path)
    checked = verify(OsFS(), tmp_path, *journals(tmp_path))
    assert checked.damage == [] and checked.segments >= 4 and checked.blocks == 54
    before = {path: path.read_bytes() for path in segments(tmp_path)}
    assert mend(tmp_path) == []
    assert before == {path: path.read_bytes() for path in segments(tmp_path)}


def test_repair_keeps_every_whole_frame_and_names_the_lost_ones(tmp_path: Path) -> None:
    """Scenario 32."""
    write(tmp_path)
    victim = segments(tmp_path)[1]
    others = {path: path.read_bytes() for path in segments(tmp_path) if path != victim}
    whole = read(tmp_path)
    spoil(victim, flip(2000))
    (damage,) = damage_of(tmp_path)
    assert damage.file == str(victim) and damage.first_seq == damage.last_seq
    spoiled = victim.read_bytes()
    with pytest.raises(Corrupt):
        read(tmp_path)
    (gone,) = mend(tmp_path)
    assert (gone.first_seq, gone.last_seq) == (damage.first_seq, damage.last_seq)
    assert gone.collections is not None and gone.collections[0][:2] == ("a", 1)
    assert f"frames {damage.first_seq} to {damage.last_seq} are lost: 1 records of a" in str(gone)
    assert (victim.parent / "broken" / f"{victim.name}.broken").read_bytes() == spoiled
    assert others == {path: path.read_bytes() for path in others}
    found = read(tmp_path)
    assert len(found) == len(whole) - 1 and set(found) < set(whole)
    write(tmp_path, 3)
    assert [offset for offset, _ in read(tmp_path)][-3:] == [40, 41, 42]


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("its header", flip(20)),
        ("header and checkpoint", zero(0, 256)),
        ("the checkpoint", flip(210)),
        ("the beginning", zero(0, 3000)),
        ("the middle", zero(2500, 5000)),
        ("middle and seal", zero(2500, 1 << 20)),
        ("the seal", lambda data: data.__setitem__(slice(len(data) - 40, None), bytes(40))),
        ("the end", cut(3000)),
        ("all but a stump", cut(50)),
        ("everything", cut(0)),
        ("all bytes", lambda data: data.__setitem__(slice(None), b"\xa5" * len(data))),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
@pytest.mark.parametrize("place", ["oldest", "between"])
def test_whatever_is_lost_of_a_segment_the_rest_stays_with_its_offsets(
    tmp_path: Path, what: str, change: Change, place: str
) -> None:
    write(tmp_path)
    whole = {name: read(tmp_path, name) for name in "ab"}
    spoil(segments(tmp_path)[0 if place == "oldest" else 2], change)
    assert damage_of(tmp_path)
    gone = mend(tmp_path)
    told = dict.fromkeys("ab", 0)
    for name, count, first, end in (one for lost in gone for one in lost.collections or ()):
        told[name] += count
        missing = {offset for offset, _ in whole[name]} - {offset for offset, _ in read(tmp_path, name)}
        assert missing <= set(range(first, end))
    for name in "ab":
        found = read(tmp_path, name)
        assert set(found) <= set(whole[name])
        assert len(whole[name]) - len(found) == told[name]
        # What is in other segments, at least, is there.
        assert len(found) > len(whole[name]) // 2
    write(tmp_path, 1)
    assert read(tmp_path)[-1][0] == 40


def test_missing_segments_are_stood_in_for(tmp_path: Path) -> None:
    write(tmp_path)
    whole = read(tmp_path)
    for victim in segments(tmp_path)[1:3]:
        victim.unlink()
    assert ["is missing" in damage.what for damage in damage_of(tmp_path)] == [True, True]
    gone = mend(tmp_path)
    found = read(tmp_path)
    assert set(found) < set(whole)
    assert sum(n for lost in gone for name, n, _, _ in lost.collections or () if name == "a") == 40 - len(
        found
    )
    write(tmp_path, 2)
    assert [offset for offset, _ in read(tmp_path)][-2:] == [40, 41]


def test_a_segment_that_was_renamed_gets_its_name_back(tmp_path: Path) -> None:
    write(tmp_path)
    whole = read(tmp_path)
    victim = segments(tmp_path)[1]
    victim.rename(victim.with_name("000000000099.seg"))
    assert mend(tmp_path) == [] and read(tmp_path) == whole


def test_a_segment_of_another_log_is_put_aside(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path / "other", 50)
    whole = read(tmp_path)
    segments(tmp_path)[1].write_bytes(segments(tmp_path / "other")[1].read_bytes())
    (gone,) = mend(tmp_path)
    found = read(tmp_path)
    assert gone.collections is not None and gone.collections[0][1] == len(whole) - len(found)
    assert set(found) < set(whole)


def test_the_newest_segment_is_ended_where_it_is_whole(tmp_path: Path) -> None:
    write(tmp_path)
    whole = read(tmp_path)
    segments(tmp_path)[-1].unlink()
    spoil(segments(tmp_path)[-1], cut(2000))
    gone = mend(tmp_path)
    assert "whatever came after frame" in str(gone[-1]) and gone[-1].collections is None
    with Control(tmp_path / "control.db") as control:
        control.forget_witness_now(*journals(tmp_path))
    found = read(tmp_path)
    assert whole[: len(found)] == found


def test_a_large_transaction_of_which_a_part_is_lost_is_lost_whole(tmp_path: Path) -> None:
    async def run() -> None:
        with Control(tmp_path / "control.db") as control:
            async with Log.open(tmp_path, OPTIONS, control=control) as log:
                large = log.begin("t")
                for number in range(20):
                    await large.part([Batch.of_lines("a", [b'{"n":%d,"pad":"%s"}' % (number, b"x" * 700)])])
                await log.append(Transaction("u", [Batch.of_lines("a", [b'{"n":100}'])]))
                await large.commit([], b"done")
                await log.append(Transaction("u", [Batch.of_lines("a", [b'{"n":101}'])]))

    anyio.run(run)
    assert len(read(tmp_path)) == 22
    spoil(segments(tmp_path)[1], flip(2000))
    mend(tmp_path)
    assert [number for _, number in read(tmp_path)] == [100, 101]


def test_nothing_left_to_go_by_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 2)
    for file in segments(tmp_path):
        spoil(file, cut(40))
    with pytest.raises(Corrupt, match="backup"):
        mend(tmp_path)
    assert list((segments(tmp_path)[0].parent / "broken").iterdir())


def test_readers_are_told_when_they_pass_what_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also once the segment has been taken apart into fragments."""
    write(tmp_path)
    segments(tmp_path)[1].unlink()
    mend(tmp_path)
    for kept_in in ("segments", "fragments"):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "hub.log"):
            read(tmp_path)
        assert "reader 'r' passes the place of" in caplog.text and "records of 'a'" in caplog.text, kept_in
        options = LogOptions(
            segment_bytes=8192, retention=Retention(age_s=None), fragments_after_s=0.0, keep_every_s=3600
        )
        write(tmp_path, 1, options, keep=True)


@pytest.mark.parametrize("what", ["block", "head", "index", "missing", "cut"])
def test_what_is_whole_of_a_fragment_stays(tmp_path: Path, what: str) -> None:
    options = LogOptions(
        segment_bytes=1 << 20,
        retention=Retention(age_s=None),
        fragments_after_s=0.0,
        keep_every_s=3600,
        compression_level=None,
        fragment_bytes=1 << 20,
    )
    for _ in range(2):
        write(tmp_path, 300, options, keep=True)
    whole = {name: read(tmp_path, name) for name in "ab"}
    victim = max((tmp_path / "fragments").rglob("*.frag"), key=lambda found: found.stat().st_size)
    size = victim.stat().st_size
    if what == "missing":
        victim.unlink()
    else:
        spoil(
            victim,
            {"block": flip(5_000), "head": zero(16, 40), "index": flip(size - 100), "cut": cut(size // 2)}[
                what
            ],
        )
    assert damage_of(tmp_path) or what == "missing"
    assert mend(tmp_path) == []
    found = read(tmp_path)
    assert read(tmp_path, "b") == whole["b"] and set(found) <= set(whole["a"])
    least = {"block": 599, "head": 500, "index": 600, "missing": 1, "cut": 100}[what]
    assert len(found) >= least and (what == "index" or len(found) < 600)
    assert list((tmp_path / "fragments").rglob("*.broken")) or what == "missing"
    write(tmp_path, 1)
    assert read(tmp_path)[-1][0] == 600


def test_a_header_can_be_given_any_checksum() -> None:
    plain, crc = pack_frame_header(2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
    assert with_crc(plain, crc) == plain
    for wanted in (0, 1, 0xFFFFFFFF, 0x12345678):
        found = unpack_frame_header(with_crc(plain, wanted), 0)
        assert found is not None and found == unpack_frame_header(plain, 0)._replace(crc=wanted)  # type: ignore[union-attr]


def test_a_checkpoint_can_be_padded_to_any_length() -> None:
    import msgspec

    from hub.log.state import Checkpoint

    text = msgspec.msgpack.encode(Checkpoint({"t": b"1"}, {}, {}))
    for extra in (0, 1, 4, 5, 6, 300):
        padded = padded_array(text, len(text) + extra)
        assert len(padded) == len(text) + extra
        assert msgspec.msgpack.decode(padded, type=Checkpoint).positions == {"t": b"1"}
