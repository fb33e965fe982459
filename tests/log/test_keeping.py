"""Retention, fragments and compaction: what may go goes, what is read stays, and readers cannot tell the difference."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from hub.control import Control
from hub.errors import Corrupt, Full
from hub.log import Committed, Gap, Log, LogOptions, Reader, Retention, Schema, Transaction
from hub.record import Batch, Cursor, Place
from hub.schema.collection import CollectionSchema

pytestmark = pytest.mark.anyio

FOREVER = Retention(age_s=None)
QUIET = {"mark_after_s": 60.0, "keep_every_s": 3600.0, "segment_bytes": 1 << 16, "tail_bytes": 0}


@asynccontextmanager
async def opened(path: Path, **options: object) -> AsyncIterator[Log]:
    with Control(path / "control.db") as control:
        async with Log.open(path, LogOptions(**(QUIET | options)), control=control) as log:  # type: ignore[arg-type]
            yield log


def batch(collection: str, ids: Sequence[int], *, version: int = 0, ops: bytes | None = None) -> Batch:
    return Batch.of_lines(collection, [b'{"id":%d,"v":%d}' % (i, version) for i in ids], ops=ops)


def remove(path: Path, pattern: str) -> None:
    for found in path.rglob(pattern):
        found.unlink()


async def drained(reader: Reader) -> list[Committed]:
    """Everything up to the end of the log."""
    found: list[Committed] = []
    while reader.lag_frames:
        got = await reader.read()
        found += got
        reader.release(sum(c.size for c in got))
    reader.close()
    return found


def told(found: Sequence[Committed]) -> list[tuple[int, str, list[int]]]:
    """Frame, collection and ids of each batch; schemas without ids."""
    return [
        (c.place.seq, i.collection, [d["id"] for d in i.docs] if isinstance(i, Batch) else [])
        for c in found
        for i in c.items
        if c.task
    ]


async def test_fragments_read_like_the_segments_they_were_made_of(tmp_path: Path) -> None:
    async with opened(tmp_path, fragments_after_s=0.0, retention=FOREVER) as log:
        await log.append(
            Transaction("t", [Schema("a", b'{"v":1}'), batch("a", [1, 2]), batch("b", [3])], b"p")
        )
        large = log.begin("t")
        await large.part([batch("a", range(100, 150)), batch("b", [4])])
        await log.append(Transaction("t", [batch("b", [5])]))
        await large.part([batch("b", [6])])
        await large.commit([batch("a", [7])], b"q")
        await log.append(Transaction("u", [batch("c", [8]), batch("a", [9])]))
        before = await drained(log.reader("before"))
        await log.roll()
        await log.keeper.keep()
        assert log.keeper.alarms == {}
        assert log.writer.segments[0].header.base_seq > log.history.sealed_seq > 0  # type: ignore[union-attr]
        after = await drained(log.reader("after"))
        # A large transaction may come in other pieces, but in the same order and ended by the same commit.
        assert told(after) == told(before)
        assert [c.place for c in after if c.complete] == [c.place for c in before if c.complete]
        middle = Cursor({log.journal: before[0].place})
        resumed = await drained(log.reader("middle", start=middle))
        assert isinstance(resumed[0].items[0], Schema)
        assert told(resumed) == [t for t in told(before) if t[0] > before[0].place.seq]
    async with opened(tmp_path, retention=FOREVER) as log:
        assert told(await drained(log.reader("reopened"))) == told(before)
        assert log.position("t") == b"q" and log.schema("a") == b'{"v":1}'


async def test_a_segment_goes_only_when_its_rule_and_every_reader_agree(tmp_path: Path) -> None:
    async with opened(tmp_path, retention=Retention(age_s=0), fragments_after_s=None) as log:
        assert log.control is not None
        first = await log.append(Transaction("t", [batch("a", [1])]))
        second = await log.append(Transaction("t", [batch("a", [2])]))
        await log.control.hold("slow", Cursor({log.journal: first}))
        await log.control.hold("fast", Cursor({log.journal: second}))
        await log.roll()
        await log.keeper.keep()
        assert [t[2] for t in told(await drained(log.reader("r")))] == [[1], [2]]
        await log.control.hold("slow", Cursor({log.journal: second}))
        await log.keeper.keep()
        assert told(await drained(log.reader("r"))) == []
        with pytest.raises(Gap, match="let go"):
            await log.reader("late", start=Cursor({log.journal: Place(log.end.epoch, 1)})).read()
        assert log.position("t") is None and log.collections()["a"].count == 2


async def test_a_reader_paused_for_a_week_is_waited_for_and_reported(tmp_path: Path) -> None:
    """Scenario 38: retention of a day, a reader away for longer: nothing goes, an alarm is raised."""
    steady = [0]
    rule = Retention(age_s=86_400)
    with Control(tmp_path / "control.db") as control:
        options = LogOptions(retention=rule, hold_timeout_s=0.0, fragments_after_s=None, **QUIET)  # type: ignore[arg-type]
        async with Log.open(tmp_path, options, control=control, steady=lambda: steady[0]) as log:
            await control.hold("paused", Cursor.START)
            await log.append(Transaction("t", [batch("a", [1])]))
            await log.roll()
            steady[0] += 7 * 86_400 * 1_000_000
            await log.keeper.keep()
            assert [t[2] for t in told(await drained(log.reader("paused")))] == [[1]]
            assert "paused" in log.keeper.alarms["hold paused"]
            await control.release("paused")
            await log.keeper.keep()
            assert log.keeper.alarms == {}
            assert told(await drained(log.reader("paused"))) == []


async def test_retention_by_bytes_keeps_the_newest(tmp_path: Path) -> None:
    rule = Retention(age_s=None, bytes=10_000)
    async with opened(tmp_path, retention=rule, fragments_after_s=0.0) as log:
        for number in range(20):
            await log.append(Transaction("t", [batch("a", range(number * 100, number * 100 + 100))]))
            await log.roll()
            await log.keeper.keep()
        kept = [i for t in told(await drained(log.reader("r"))) for i in t[2]]
        assert kept == list(range(kept[0], 2000))
        assert 10_000 <= len(kept) * 17 < 25_000


async def test_collections_are_kept_as_long_as_each_of_them_says(tmp_path: Path) -> None:
    steady = [0]
    with Control(tmp_path / "control.db") as control:
        options = LogOptions(
            retention=FOREVER,
            collections={"short": Retention(age_s=60)},
            fragments_after_s=0.0,
            **QUIET,  # type: ignore[arg-type]
        )
        async with Log.open(tmp_path, options, control=control, steady=lambda: steady[0]) as log:
            await log.append(Transaction("t", [batch("short", [1]), batch("long", [2])]))
            await log.roll()
            steady[0] += 120_000_000
            await log.keeper.keep()
            await log.keeper.keep()
            assert [t[1:] for t in told(await drained(log.reader("r")))] == [("long", [2])]
            with pytest.raises(Gap, match="short"):
                await drained(log.reader("both", start=Cursor({log.journal: Place(log.end.epoch, 1)})))
            only_long = log.reader(
                "long",
                start=Cursor({log.journal: Place(log.end.epoch, 1)}),
                wanted=lambda name: name == "long",
            )
            assert [t[1:] for t in told(await drained(only_long))] == [("long", [2])]


async def test_the_cap_pauses_appends_and_lets_them_go_on_once_readers_have_consumed(tmp_path: Path) -> None:
    """Scenario 39. Nothing is dropped; what was consumed goes before its time."""
    options = {"cap_bytes": 400_000, "compression_level": None, "keep_every_s": 0.05}
    async with opened(tmp_path, **options) as log:
        assert log.control is not None
        await log.control.hold("reader", Cursor.START)
        documents = Batch.of_lines("a", [b'{"x":"%s"}' % (b"x" * 1000)] * 10)
        appended = 0
        with pytest.raises(Full, match="cap_bytes"):
            while True:
                await log.append(Transaction("t", [documents], b"%d" % appended))
                appended += 1
        assert 5 < appended < 60 and log.used_bytes <= 400_000 and log.fill > 0.7
        with anyio.move_on_after(0.5):
            await log.room(10)
        assert len(told_sizes(await drained(log.reader("reader")))) == appended
        with anyio.fail_after(10):
            while True:
                await log.control.hold("reader", Cursor({log.journal: log.end}))
                try:
                    await log.append(Transaction("t", [documents], b"%d" % appended))
                    break
                except Full:
                    await log.room(0.1)
        assert log.position("t") == b"%d" % appended


def told_sizes(found: Sequence[Committed]) -> list[int]:
    return [c.size for c in found if c.task]


async def test_compaction_keeps_the_newest_version_of_each_key_and_its_offset(tmp_path: Path) -> None:
    rule = Retention(age_s=None, compact=True, compact_after_s=0.0, delete_retention_s=3600.0)
    schema = CollectionSchema("a", ("/id",)).encode()
    async with opened(tmp_path, retention=rule, fragments_after_s=0.0) as log:
        await log.append(Transaction("t", [Schema("a", schema), batch("a", [1, 2, 3, 4])]))
        await log.append(Transaction("t", [batch("a", [2, 3], version=1, ops=b"uu")]))
        await log.roll()
        slow = log.reader("slow")
        assert told(await slow.read(1))[-1][2] == [1, 2, 3, 4]
        slow.release(slow.outstanding_bytes)
        await log.append(Transaction("t", [batch("a", [3], ops=b"d"), batch("a", [1], version=2, ops=b"u")]))
        await log.roll()
        await log.keeper.keep()
        (only,) = log.history.of("a")  # type: ignore[union-attr]
        assert only.compacted and log.keeper.alarms == {}
        rows = [
            (d["id"], d["v"], chr(i.op(n)))
            for c in await drained(log.reader("r"))
            for i in c.items
            if isinstance(i, Batch)
            for n, d in enumerate(i.docs)
        ]
        assert rows == [(4, 0, "c"), (2, 1, "u"), (3, 0, "d"), (1, 2, "u")]
        rest = told(await drained(slow))
        assert [t[2] for t in rest] == [[2, 3], [3], [1]] or [t[2] for t in rest] == [[2], [3], [1]]
        from hub.log.sealer import offsets_of

        history = log.history
        assert history is not None
        assert [list(offsets_of(p)) for p, _, _ in history.pieces("a", 0, 1 << 40) if p.block.count] == [
            [3],
            [4],
            [6],
            [7],
        ]


async def test_deletes_are_forgotten_once_they_were_kept_for_long_enough(tmp_path: Path) -> None:
    rule = Retention(age_s=None, compact=True, compact_after_s=0.0, delete_retention_s=3600.0)
    schema = CollectionSchema("a", ("/id",)).encode()
    steady = [0]
    with Control(tmp_path / "control.db") as control:
        options = LogOptions(retention=rule, fragments_after_s=0.0, **QUIET)  # type: ignore[arg-type]
        async with Log.open(tmp_path, options, control=control, steady=lambda: steady[0]) as log:

            async def versions() -> list[tuple[int, str]]:
                await log.roll()
                await log.keeper.keep()
                found = await drained(log.reader("r"))
                batches = [i for c in found for i in c.items if isinstance(i, Batch)]
                return [(d["id"], chr(i.op(n))) for i in batches for n, d in enumerate(i.docs)]

            await log.append(Transaction("t", [Schema("a", schema), batch("a", [1, 2])]))
            await log.append(Transaction("t", [batch("a", [1], ops=b"d")]))
            assert await versions() == [(2, "c"), (1, "d")]
            steady[0] += 7_201_000_000
            assert await versions() == [(2, "c")]
            assert log.history is not None and log.history.of("a")[0].oldest_delete_us == 0


async def test_compaction_keeps_the_values_that_later_versions_leave_as_they_were(tmp_path: Path) -> None:
    """A large column that an update does not touch is not in it, and a new reader would have it from nowhere else."""
    rule = Retention(age_s=None, compact=True, compact_after_s=0.0, delete_retention_s=3600.0)
    schema = CollectionSchema("a", ("/id",)).encode()

    def update(line: bytes, unchanged: list[str] | None) -> Transaction:
        return Transaction("t", [Batch.of_lines("a", [line], ops=b"u", columns={"unchanged": [unchanged]})])

    async with opened(tmp_path, retention=rule, fragments_after_s=0.0) as log:
        await log.append(Transaction("t", [Schema("a", schema), batch("a", [0])]))
        for line, unchanged in (
            (b'{"id":1,"n":1,"big":"x","large":"y"}', None),
            (b'{"id":1,"n":2}', ["big", "large"]),
            (b'{"id":1,"n":3,"big":"z"}', ["large"]),
            (b'{"id":1,"n":4}', ["big", "large"]),
            (b'{"id":1,"n":5}', ["big", "large"]),
            (b'{"id":2,"n":1}', ["big", "large"]),
            (b'{"id":2,"n":2,"big":"all","large":"of it"}', None),
        ):
            await log.append(update(line, unchanged))
        await log.roll()
        await log.keeper.keep()
        await log.keeper.keep()
        assert log.history is not None and all(f.compacted for f in log.history.of("a"))
        found = await drained(log.reader("r"))
        rows = [doc for c in found for i in c.items if isinstance(i, Batch) for doc in i.docs]
        assert [row.get("n") for row in rows if row["id"] == 1] == [1, 3, 5]
        assert [row.get("n") for row in rows if row["id"] == 2] == [2]


async def test_a_truncate_ends_everything_before_it_in_compaction(tmp_path: Path) -> None:
    rule = Retention(age_s=None, compact=True, compact_after_s=0.0, delete_retention_s=3600.0)
    schema = CollectionSchema("a", ("/id",)).encode()
    async with opened(tmp_path, retention=rule, fragments_after_s=0.0) as log:
        await log.append(Transaction("t", [Schema("a", schema), batch("a", [1, 2])]))
        await log.append(
            Transaction("t", [Batch.of_lines("a", [b"{}"], ops=b"t"), batch("a", [2], version=1)])
        )
        await log.roll()
        await log.keeper.keep()
        await log.keeper.keep()
        found = await drained(log.reader("r"))
        rows = [(chr(i.op(0)), i.docs[0]) for c in found for i in c.items if isinstance(i, Batch)]
        assert rows == [("t", {}), ("c", {"id": 2, "v": 1})]


async def test_small_fragments_are_merged(tmp_path: Path) -> None:
    async with opened(tmp_path, retention=FOREVER, fragments_after_s=0.0) as log:
        for number in range(10):
            await log.append(Transaction("t", [batch("a", [number])]))
            await log.roll()
        await log.keeper.keep()
        assert len(log.history.of("a")) <= 3  # type: ignore[union-attr]
        assert [t[2] for t in told(await drained(log.reader("r")))] == [[n] for n in range(10)]
        assert len(list((tmp_path / "fragments").rglob("*.frag"))) == len(log.history.of("a"))  # type: ignore[union-attr]


async def test_losing_control_db_loses_no_fragment(tmp_path: Path) -> None:
    """Scenario 31."""
    async with opened(tmp_path, retention=FOREVER, fragments_after_s=0.0) as log:
        for number in range(3):
            await log.append(Transaction("t", [batch("a", [number])], b"%d" % number))
            await log.roll()
        await log.keeper.keep()
    remove(tmp_path, "control.db*")
    async with opened(tmp_path, retention=FOREVER) as log:
        assert [t[2] for t in told(await drained(log.reader("r")))] == [[0], [1], [2]]
        assert log.position("t") == b"2"


async def test_a_missing_fragment_is_corruption(tmp_path: Path) -> None:
    async with opened(tmp_path, retention=FOREVER, fragments_after_s=0.0) as log:
        await log.append(Transaction("t", [batch("a", [1])]))
        await log.roll()
        await log.keeper.keep()
    remove(tmp_path, "*.frag")
    with pytest.raises(Corrupt, match="missing"):
        async with opened(tmp_path):
            pass


async def test_a_large_transaction_left_open_is_aborted_and_lets_its_segments_go(tmp_path: Path) -> None:
    async with opened(tmp_path, retention=Retention(age_s=0), txn_timeout_s=0.0) as log:
        large = log.begin("t")
        await large.part([batch("a", [1])])
        await log.roll()
        await log.keeper.keep()
        with pytest.raises(Exception, match="transaction_timeout"):
            await large.commit()
        await log.keeper.keep()
        assert told(await drained(log.reader("r"))) == []
        assert len(log.writer.segments) <= 2
