"""An outlet in memory, for the tests of captures: it keeps what the log would keep.

Records sent inside a source transaction stay invisible until a position comes, and only what was
synced survives `crash`. Positions pass through their stored form, as they do in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import anyio
import anyio.lowlevel

from hub.record import (
    BACKFILL,
    CREATE,
    DELETE,
    READ,
    SWEEP,
    TRUNCATE,
    UPDATE,
    Batch,
    Document,
    Position,
    TaskName,
)
from hub.schema import CollectionSchema

PositionT = TypeVar("PositionT", bound=Position)


class Frame(NamedTuple):
    """One transaction of the log: what was sent up to a position, in order."""

    items: tuple[Batch | CollectionSchema, ...]
    position: Position
    note: bytes | None = None


class Record(NamedTuple):
    """One record as a mapping would see it."""

    collection: str
    op: int
    doc: Document
    meta: dict[str, Any]


class MemoryOutlet(Generic[PositionT]):
    """Keeps frames. With `auto_sync` (the default) a frame is durable as soon as it is complete;
    else `sync()` makes everything so far durable, and `settle` waits for that."""

    def __init__(
        self,
        task: str,
        position_type: type[PositionT],
        resume: PositionT | None = None,
        *,
        auto_sync: bool = True,
        note: bytes | None = None,
    ) -> None:
        self.task = TaskName(task)
        self.durable: PositionT | None = resume
        self.note = note
        self.full = False
        self.keeps_records = True
        """False lets records go once they were shown to `on_send`: for more of them than fit in memory."""
        self.frames: list[Frame] = []
        self.synced = 0
        self.gauges: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.notices: list[tuple[str, dict[str, Any]]] = []
        self.snapshots: dict[str, tuple[int, int | None]] = {}
        self.on_send: Callable[[Sequence[Batch], PositionT | None], None] = lambda batches, position: None
        """Called before each `send`; may raise to fail it."""
        self._position_type = position_type
        self._part: list[Batch | CollectionSchema] = []
        self._auto_sync = auto_sync
        self._changed = anyio.Event()
        self._gate = anyio.Event()
        self._gate.set()

    async def describe(self, schema: CollectionSchema) -> None:
        self._part.append(CollectionSchema.decode(schema.encode()))

    async def send(
        self, batches: Sequence[Batch], position: PositionT | None, note: bytes | None = None
    ) -> None:
        self.on_send(batches, position)
        await self._gate.wait()
        if self.keeps_records:
            self._part.extend(batches)
        if position is not None:
            stored = self._position_type.decode(position.encode())
            self.frames.append(Frame(tuple(self._part), stored, note))
            self._part = []
            if self._auto_sync:
                self.sync()
        self._notify()
        await anyio.lowlevel.checkpoint()

    async def settle(self) -> None:
        await self.until(lambda: self.synced == len(self.frames))

    def sync(self) -> None:
        """Everything sent so far with a position is on disk."""
        self.synced = len(self.frames)
        if self.frames:
            self.durable = self.frames[-1].position  # type: ignore[assignment]
        self._notify()

    def crash(self) -> PositionT | None:
        """Forget what was not synced, as a lost process would. The position to resume from."""
        del self.frames[self.synced :]
        self._part = []
        kept = [frame.note for frame in self.frames if frame.note is not None]
        self.note = kept[-1] if kept else self.note
        return self.durable

    def block(self) -> None:
        """Let `send` wait, as it does when the log is at its cap."""
        self.full = True
        self._gate = anyio.Event()

    def unblock(self) -> None:
        """Let `send` go on."""
        self.full = False
        self._gate.set()

    async def until(self, claim: Callable[[], bool], *, timeout_s: float = 60) -> None:
        """Wait until the claim holds. It is looked at after every change of the outlet."""
        with anyio.fail_after(timeout_s):
            while not claim():
                await self._changed.wait()

    def progress(self, collection: str, done: int, total: int | None) -> None:
        self.snapshots[collection] = (done, total)
        self._notify()

    def gauge(self, name: str, value: float) -> None:
        self.gauges[name] = value
        self._notify()

    def count(self, name: str, amount: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount
        self._notify()

    def notice(self, message: str, **fields: Any) -> None:
        self.notices.append((message, fields))
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def batches(self, collection: str | None = None) -> Iterator[Batch]:
        """The visible batches of one collection, or of all."""
        for frame in self.frames:
            for item in frame.items:
                if isinstance(item, Batch) and collection in (None, item.collection):
                    yield item

    def records(self, collection: str | None = None) -> list[Record]:
        """The visible records, decoded."""
        return [
            Record(batch.collection, batch.op(index), doc, batch.metadata(index))
            for batch in self.batches(collection)
            for index, doc in enumerate(batch.docs)
        ]

    def count_records(self, collection: str | None = None) -> int:
        """How many records are visible."""
        return sum(batch.count for batch in self.batches(collection))

    def schemas(self, collection: str) -> list[CollectionSchema]:
        """The schemas that a collection has had, without repetitions."""
        found: list[CollectionSchema] = []
        for frame in [*self.frames, Frame(tuple(self._part), Position())]:
            for item in frame.items:
                if isinstance(item, CollectionSchema) and item.collection == collection:
                    found += [] if found and found[-1] == item else [item]
        return found


class Replica:
    """The table that a careful sink would hold, and what was wrong with the records that made it.

    `faults` names every record that does not fit the state before it: a create or read of a key that is
    there, an update or delete of one that is not. A correct capture of a table with a key makes none, but in
    and after a backfill, which may repeat what was there.
    """

    def __init__(self, key: Sequence[str]) -> None:
        self.key = tuple(key)
        self.rows: dict[tuple[Any, ...], Document] = {}
        self.faults: list[str] = []
        self.repeats = False
        self._seen: set[tuple[Any, ...]] | None = None

    def apply(self, record: Record) -> None:
        """Apply one record."""
        if record.op == TRUNCATE:
            self.rows.clear()
            return
        if record.op == BACKFILL:
            self.repeats, self._seen = True, set()
            return
        if record.op == SWEEP:
            if self._seen is not None:
                self.rows = {key: row for key, row in self.rows.items() if key in self._seen}
            self._seen = None
            return
        key = tuple(record.doc[name] for name in self.key)
        if not self.repeats:
            self._check(record, key)
        if record.op == DELETE:
            self.rows.pop(key, None)
            return
        if self._seen is not None:
            self._seen.add(key)
        row = dict(record.doc)
        for name in record.meta.get("unchanged") or ():
            row[name] = self.rows.get(key, {}).get(name)
        self.rows[key] = row

    def _check(self, record: Record, key: tuple[Any, ...]) -> None:
        there = key in self.rows
        if record.op in (CREATE, READ) and there:
            self.faults.append(f"{chr(record.op)} of {key}, which is there: {record}")
        if record.op in (UPDATE, DELETE) and not there:
            self.faults.append(f"{chr(record.op)} of {key}, which is not there: {record}")

    @classmethod
    def of(cls, records: Sequence[Record], key: Sequence[str]) -> Replica:
        """The table after these records."""
        replica = cls(key)
        for record in records:
            replica.apply(record)
        return replica
