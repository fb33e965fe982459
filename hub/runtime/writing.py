"""Chunks of a flow into the sink, and the commits between them.

The hard thing is when to commit. A destination that keeps up gets each chunk as a commit of its own; one that lags gets
larger ones, which work a backlog off faster, until one of the limits of `commit` is met. And a commit may fall due
while the next chunk is waited for, so the wait is no longer than that.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from hub.catalog import MaterializationTask
from hub.control import Control
from hub.log import Log, Reader, Transaction
from hub.materialization import Binding, Preparing, Rejected, Sink
from hub.record import Batch, Cursor, Place
from hub.runtime.dead_letters import DeadLetterNotice, dead_letters, dead_letters_of, rejected
from hub.runtime.events import Events
from hub.runtime.replay import Replay
from hub.runtime.stage import Outcome
from hub.schema import CollectionSchema
from hub.telemetry import TaskStats

CHUNK_BYTES = 4 << 20
"""Documents that are written in one go, processed batch by batch with a chance for others in between."""

BACKLOG_BYTES = CHUNK_BYTES // 2
"""A chunk of this size says that there is more where it came from."""

NEXT_CHUNK_S = 0.5
"""How long a commit is put off for the next chunk of a backlog. What follows in the log may be for others."""

PREPARED_BYTES_MIN = 64 << 10
"""Batches below this are not worth a thread's while."""

IDLE_COMMIT_S = 5.0
"""How often the cursor is committed while nothing of what passes in the log is for this destination."""

NOWHERE = Place(0, 0)


@dataclass(slots=True)
class Chunk:
    """What one read of the log became: `read` records in, `rows` records out. `upto` is None inside a large
    transaction: nothing to commit yet."""

    outcome: Outcome
    writes: list[tuple[Binding, CollectionSchema | Batch]]
    upto: Cursor | None
    read: int
    rows: int
    size: int
    oldest_ts: float
    ends_replay: bool = False


class Demand:
    """Whether the writing loop waits for a chunk."""

    def __init__(self) -> None:
        self._asked = anyio.Event()

    @property
    def is_there(self) -> bool:
        return self._asked.is_set()

    def ask(self) -> None:
        self._asked.set()

    def meet(self) -> None:
        # An event that somebody waits for must stay the one that is set.
        if self._asked.is_set():
            self._asked = anyio.Event()

    async def wait(self) -> None:
        await self._asked.wait()


class Writing:
    """One opening of a sink, and what is written into it."""

    def __init__(
        self,
        task: MaterializationTask,
        sink: Sink,
        log: Log,
        control: Control,
        stats: TaskStats,
        events: Events,
        *,
        own: bool,
    ) -> None:
        self.reader: Reader
        self.backlog: Backlog
        self._task = task
        self.demand = Demand()
        self._sink = sink
        self._prepare = sink.prepare if isinstance(sink, Preparing) else None
        self._log = log
        self._control = control
        self._stats = stats
        self._events = events
        self._own = own
        self._dead_task = dead_letters_of(task.name)
        stored = log.position(self._dead_task)
        self.dead_upto = Cursor.decode(stored) if stored else Cursor.START
        self._dead: list[Batch] = []
        self._dead_reason = ""
        self._dead_notice = DeadLetterNotice(events, task.name)
        self._pending = Pending()
        self.replay: Replay | None = None
        self._swept = False

    async def run(self, receive: MemoryObjectReceiveStream[Chunk]) -> None:
        """Write and commit until there is nothing more to receive."""
        async with receive:
            while True:
                try:
                    chunk = await self._chunk(receive)
                except anyio.EndOfStream:
                    break
                if chunk is not None:
                    await self._write(chunk)
                if self._due(receive):
                    await self._commit()
            if self._pending.upto is not None:
                await self._commit()

    async def prepare(self, chunk: Chunk) -> None:
        """Give the sink a head start with a chunk that has to wait."""
        if self._prepare is not None:
            for binding, work in chunk.writes:
                if isinstance(work, Batch) and work.size >= PREPARED_BYTES_MIN:
                    await self._prepare(binding, work)

    async def _chunk(self, receive: MemoryObjectReceiveStream[Chunk]) -> Chunk | None:
        """The next chunk; None when a commit falls due before there is one."""
        with contextlib.suppress(anyio.WouldBlock):
            return receive.receive_nowait()
        remaining_s = math.inf if self._pending.upto is None else self._remaining_s(receive)
        if remaining_s > 0:
            self.demand.ask()
            try:
                with anyio.move_on_after(remaining_s):
                    return await receive.receive()
            finally:
                self.demand.meet()
        return None

    def _due(self, receive: MemoryObjectReceiveStream[Chunk]) -> bool:
        pending, commit = self._pending, self._task.commit
        if pending.upto is None:
            return False
        if self._swept:
            return True
        if pending.rows >= commit.rows or pending.size >= commit.bytes:
            return True
        return self._remaining_s(receive) <= 0

    def _remaining_s(self, receive: MemoryObjectReceiveStream[Chunk]) -> float:
        """Until a commit is due if nothing more comes. While chunks come full there is a backlog, which larger commits
        work off faster, so the next chunk is waited for; else every chunk is committed at once."""
        pending = self._pending
        remaining_s = pending.remaining_s(self._task.commit.every)
        coming = receive.statistics().current_buffer_used > 0 or self.reader.lag_frames > 0
        if pending.last_size >= BACKLOG_BYTES and coming:
            remaining_s = max(remaining_s, pending.added_at + NEXT_CHUNK_S - time.monotonic())
        return remaining_s

    async def _write(self, chunk: Chunk) -> None:
        for binding, work in chunk.writes:
            if isinstance(work, CollectionSchema):
                await self._sink.describe(binding, work)
            else:
                await self._write_batch(binding, work, chunk.outcome)
        if chunk.outcome.failures:
            at = self._log.journal, chunk.upto
            self._dead.append(dead_letters(self._task.name, chunk.outcome.failures, at))
            self._dead_reason = chunk.outcome.failures[0].error.reason
        for what, why in chunk.outcome.unswept.items():
            self._events.warning("not_swept", task=self._task.name, what=what, reason=why)
        self._stats.skipped += chunk.outcome.skipped
        self._stats.queue_bytes -= chunk.size
        self._swept |= chunk.ends_replay
        self.reader.release(chunk.size)
        self._pending.add(chunk)

    async def _write_batch(self, binding: Binding, batch: Batch, outcome: Outcome) -> None:
        while batch.count:
            try:
                await self._sink.write(binding, batch)
            except Rejected as refusal:
                batch = rejected(batch, refusal, binding, outcome)
            else:
                edge = self._stats.edge(binding.target or binding.collection)
                edge.records += batch.count
                edge.bytes += batch.size
                edge.batches += 1
                return

    async def _commit(self) -> None:
        done, self._pending = self._pending, Pending()
        upto = done.upto
        assert upto is not None
        await self._keep_dead_letters(upto)
        await self._sink.commit(upto)
        if self._swept and self.replay is not None:
            await self.replay.over()
            self._events.info("backfilled_from_the_log", task=self._task.name)
            self.replay, self._swept = None, False
        now = time.time()
        for oldest_ts in done.oldest_ts:
            self._stats.latency.observe(max(now - oldest_ts, 0.0))
        self.backlog.consumed(done.read)
        self._stats.commits += 1
        self._stats.oldest_waiting_ts = 0.0
        if self._control.rewind(self._task.name) is not None:
            await self._control.rewound(self._task.name)
        if not self._own:
            await self._control.set_cursor(self._task.name, upto)
        await self._control.hold(self._task.name, upto)

    async def _keep_dead_letters(self, upto: Cursor) -> None:
        """Into the log, with the cursor as their position: replayed after a crash they are not kept twice."""
        if self._dead and not _covers(self.dead_upto, upto):
            await self._log.append(Transaction(self._dead_task, self._dead, upto.encode()))
            self.dead_upto = upto
            self._stats.dead_letters += sum(batch.count for batch in self._dead)
            self._dead_notice.say(self._stats.dead_letters, self._dead_reason)
        self._dead = []


class Pending:
    """What the sink was given since the last commit. `upto` is None while no transaction has ended."""

    __slots__ = ("added_at", "last_size", "oldest_ts", "read", "rows", "since", "size", "upto")

    def __init__(self) -> None:
        self.read = 0
        self.rows = 0
        self.size = 0
        self.last_size = 0
        self.upto: Cursor | None = None
        self.oldest_ts: list[float] = []
        self.since = self.added_at = time.monotonic()

    def add(self, chunk: Chunk) -> None:
        self.added_at = time.monotonic()
        if chunk.size and not self.size:
            self.since = self.added_at
        self.read += chunk.read
        self.rows += chunk.rows
        self.size += chunk.size
        self.last_size = chunk.size
        self.upto = chunk.upto
        if chunk.size:
            self.oldest_ts.append(chunk.oldest_ts)

    def remaining_s(self, every_s: float) -> float:
        """Until a commit is due: `every_s` after the first record, or longer when there is no record."""
        wait_s = every_s if self.size else IDLE_COMMIT_S
        return max(self.since + wait_s - time.monotonic(), 0.0)


class Backlog:
    """Records in the log that a reader's destination does not show yet.

    An estimate, by the share of frames behind it, until the destination has caught up once; exact from then on.
    """

    def __init__(self, log: Log, reader: Reader, wanted: Callable[[str], bool]) -> None:
        self._log = log
        self._reader = reader
        self._wanted = wanted
        behind = reader.lag_frames / max(log.end.seq, 1)
        self._consumed = round(self._appended() * (1 - behind))

    def consumed(self, count: int) -> None:
        """So many more are committed."""
        self._consumed += count
        if self._reader.lag_frames == 0 and self._reader.outstanding_bytes == 0:
            self._consumed = self._appended()

    def records(self) -> int:
        return max(self._appended() - self._consumed, 0)

    def _appended(self) -> int:
        return sum(info.count for name, info in self._log.collections().items() if self._wanted(name))


def _covers(one: Cursor, other: Cursor) -> bool:
    return all(one.journals.get(journal, NOWHERE) >= place for journal, place in other.journals.items())
