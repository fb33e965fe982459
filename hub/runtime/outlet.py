"""From a capture into the log: the outlet that the engine hands to `Capture.run`.

Group commit per task: while one append is on its way to the disk, everything that is sent meanwhile
is gathered, and goes out as one transaction with the newest position. A source transaction that
outgrows `PART_BYTES` before its position comes is written in parts, which nobody sees until the
position makes them whole.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Generic

import anyio

from hub.capture import PositionT
from hub.errors import FatalError, Full, RecordError
from hub.log import LargeTransaction, Log, Schema, Transaction
from hub.record import Batch, TaskName, concat
from hub.runtime.dead_letters import dead_letters, dead_letters_of
from hub.runtime.events import Events
from hub.runtime.stage import Outcome, settled
from hub.schema import CollectionSchema
from hub.telemetry import TaskStats

QUEUE_BYTES = 16 << 20
"""What one capture may have waiting for the log. Beyond it `send` waits."""

PART_BYTES = 8 << 20
"""Pending bytes without a position beyond which a part is written; also the most one append takes."""

FULL_WAIT_S = 0.25
"""A full log is tried again after this long, or when something was let go."""

LARGE_BYTES = 32 << 20
"""One call that hands over more is written in parts even when its position is known."""

MERGED_BYTES = 256 << 10
"""Small batches are put together up to this size. Larger ones would not make any step cheaper."""

Item = Batch | Schema


class _Sent:
    """What one call handed over."""

    __slots__ = ("at", "items", "note", "position", "records", "size")

    def __init__(
        self, items: Sequence[Item], position: Any, size: int, records: int, note: bytes | None = None
    ) -> None:
        self.items = items
        self.position = position
        self.note = note
        self.size = size
        self.records = records
        self.at = time.monotonic()


class LogOutlet(Generic[PositionT]):
    """See `hub.capture.Outlet`. `pump` has to run beside the capture."""

    def __init__(
        self,
        task: TaskName,
        log: Log,
        stats: TaskStats,
        events: Events,
        *,
        resume: PositionT | None,
        note: bytes | None = None,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self.task = task
        self.durable = resume
        self.note = note
        self._log = log
        self._stats = stats
        self._events = events
        self._queue: deque[_Sent] = deque()
        self._queue_bytes_max = queue_bytes
        self._queued_bytes = 0
        self._positions_waiting = 0
        self._log_is_full = False
        self._wake = anyio.Event()
        self._moved = anyio.Event()
        self._described: dict[str, bytes] = {}
        self._large: LargeTransaction | None = None
        stats.queue_bytes_max = queue_bytes

    @property
    def full(self) -> bool:
        return self._log_is_full or self._queued_bytes >= self._queue_bytes_max

    async def describe(self, schema: CollectionSchema) -> None:
        self._check_name(schema.collection)
        text = schema.encode()
        known = self._described.get(schema.collection) or self._log.schema(schema.collection)
        if known != text:
            await self._offer(_Sent([Schema(schema.collection, text)], None, len(text), 0))
        self._described[schema.collection] = text

    async def send(
        self, batches: Sequence[Batch], position: PositionT | None, note: bytes | None = None
    ) -> None:
        assert note is None or position is not None, "a note belongs to a position"
        size = len(note) if note is not None else 0
        records = 0
        items = self._set_aside(batches) if any(batch.errors for batch in batches) else batches
        for batch in items:
            self._check_name(batch.collection)
            size += batch.size
            records += batch.count
            edge = self._stats.edge(batch.collection)
            edge.records += batch.count
            edge.bytes += batch.size
            edge.batches += 1
        await self._offer(_Sent(items, position, size, records, note))

    async def settle(self) -> None:
        while self._positions_waiting:
            await self._moved.wait()

    def progress(self, collection: str, done: int, total: int | None) -> None:
        edge = self._stats.edge(collection)
        if not edge.snapshotting and done != total:
            edge.snapshotting, edge.snapshot_since, edge.snapshot_from = True, time.monotonic(), done
        edge.rows_done, edge.rows_total = done, total
        if done == total:
            edge.snapshotting = False

    def gauge(self, name: str, value: float) -> None:
        self._stats.gauges[name] = value

    def count(self, name: str, amount: int = 1) -> None:
        self._stats.counters[name] = self._stats.counters.get(name, 0) + amount

    def notice(self, message: str, **fields: Any) -> None:
        self._events.info(message, task=self.task, **fields)

    def _set_aside(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        """The same without the flagged records, which become dead letters in the same transaction."""
        outcome = Outcome()
        kept = [settled(batch, "dead_letter", self.task, outcome) for batch in batches]
        self._stats.dead_letters += len(outcome.failures)
        letters = dead_letters(self.task, outcome.failures, (self._log.journal, None))
        return [*(batch for batch in kept if batch.count), letters]

    def _check_name(self, collection: str) -> None:
        own = collection == self.task or collection.startswith(self.task + "/")
        if not own and collection != dead_letters_of(self.task):
            raise FatalError(
                f"capture {self.task!r} sent a record of collection {collection!r}, which is not its own; "
                "this is a bug of the connector"
            )

    async def _offer(self, sent: _Sent) -> None:
        while self._queued_bytes and self._queued_bytes + sent.size > self._queue_bytes_max:
            if self._log_is_full:
                self._stats.state = "waiting"
            await self._moved.wait()
        self._queue.append(sent)
        self._queued_bytes += sent.size
        self._positions_waiting += sent.position is not None
        self._stats.queue_bytes = self._queued_bytes
        self._wake.set()

    async def pump(self) -> None:
        """Move what was sent into the log until cancelled. What is not durable then is read again.

        An open large transaction is aborted on the way out; a crash aborts it just as well.
        """
        try:
            while True:
                while not self._queue:
                    await self._wake.wait()
                    self._wake = anyio.Event()
                await self._append(self._gathered())
                self._stats.queue_bytes = self._queued_bytes
                moved, self._moved = self._moved, anyio.Event()
                moved.set()
        finally:
            if self._large is not None:
                with anyio.CancelScope(shield=True), anyio.move_on_after(ABORT_WAIT_S):
                    await self._large.abort()

    def _gathered(self) -> list[_Sent]:
        """Everything that waits, up to `PART_BYTES`, but not past the last position there is, if any."""
        size, end, last_position = 0, 0, 0
        for sent in self._queue:
            if end and size + sent.size > PART_BYTES:
                break
            size += sent.size
            end += 1
            if sent.position is not None:
                last_position = end
        return [self._queue[i] for i in range(last_position or end)]

    async def _append(self, gathered: list[_Sent]) -> None:
        position = gathered[-1].position
        size = sum(sent.size for sent in gathered)
        items = merged([item for sent in gathered for item in sent.items])
        all_of_it = len(self._queue) == len(gathered) and self._queued_bytes < self._queue_bytes_max
        if position is None and self._large is None and size < PART_BYTES and all_of_it:
            await self._more(len(gathered))
            return
        notes = [sent.note for sent in gathered if sent.note is not None]
        await self._retried(items, position, notes[-1] if notes else None)
        for sent in gathered:
            self._queue.popleft()
            self._positions_waiting -= sent.position is not None
        self._queued_bytes -= size
        if position is not None:
            self.durable = position
            now = time.monotonic()
            for sent in gathered:
                self._stats.latency.observe(now - sent.at)
            self._stats.commits += 1

    async def _more(self, have: int) -> None:
        """Wait until more was sent than `have`: the end of a source transaction that began is on its way."""
        while len(self._queue) == have:
            await self._wake.wait()
            self._wake = anyio.Event()

    async def _retried(self, items: Sequence[Item], position: PositionT | None, note: bytes | None) -> None:
        stored = position.encode() if position is not None else None
        while True:
            try:
                await self._write(items, stored, note)
            except Full as error:
                if not self._log_is_full:
                    self._events.warning("log_full", task=self.task, reason=str(error))
                self._log_is_full = True
                self._stats.state = "waiting"
                await self._log.room(FULL_WAIT_S)
            except RecordError as error:
                raise FatalError(
                    f"{error.reason}. Raise log.max_record, or leave the column or collection out"
                ) from error
            else:
                if self._log_is_full:
                    self._events.info("log_has_room", task=self.task)
                self._log_is_full = False
                self._stats.state = "running"
                return

    async def _write(self, items: Sequence[Item], stored: bytes | None, note: bytes | None) -> None:
        if self._large is None and (stored is None or _size(items) > LARGE_BYTES):
            self._large = self._log.begin(self.task)
        if stored is None:
            assert self._large is not None
            await self._large.part(items)
        elif self._large is not None:
            await self._large.commit(items, stored, note)
            self._large = None
        else:
            await self._log.append(Transaction(self.task, items, stored, note=note))


ABORT_WAIT_S = 5.0
"""How long an open large transaction may take to be aborted when its capture stops."""


def _size(items: Sequence[Item]) -> int:
    return sum(item.size if isinstance(item, Batch) else len(item.text) for item in items)


def merged(items: Sequence[Item]) -> list[Item]:
    """The same records in fewer batches: those of one collection together, as far as no schema of that
    collection stands between them and the batch stays small. The order inside a collection, which is all a
    reader relies on, stays.
    """
    groups: list[_Group | Schema] = []
    open_groups: dict[str, _Group] = {}
    for item in items:
        if isinstance(item, Schema):
            open_groups.pop(item.collection, None)
            groups.append(item)
            continue
        group = open_groups.get(item.collection)
        if group is None or group.size + item.size > MERGED_BYTES:
            group = open_groups[item.collection] = _Group()
            groups.append(group)
        group.batches.append(item)
        group.size += item.size
    return [concat(group.batches) if isinstance(group, _Group) else group for group in groups]


class _Group:
    """Batches of one collection that become one."""

    __slots__ = ("batches", "size")

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.size = 0
