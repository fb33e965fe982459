"""From the log into a destination: read, process, prepare, write, commit.

Two loops with a short queue between them: the one that reads, here, and the one that writes (`writing.py`). While
there is a backlog, the next chunk is read, processed and prepared beside the write and commit of the one before.
Without one, nothing is read before the destination is ready for it, so that each commit takes all there is. A commit
happens only where a whole transaction ends, so a destination never shows half a source transaction, and rows and
cursor go together.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import anyio
import anyio.lowlevel
from anyio.streams.memory import MemoryObjectSendStream

from hub.catalog import MaterializationTask
from hub.control import Control
from hub.errors import FatalError
from hub.log import Committed, Log, Reader, Schema
from hub.materialization import Sink
from hub.record import Batch, Cursor, Place, TaskName
from hub.runtime.events import Events
from hub.runtime.outlet import merged
from hub.runtime.replay import Replay
from hub.runtime.stage import Outcome
from hub.runtime.tree import Trees
from hub.runtime.writing import BACKLOG_BYTES, CHUNK_BYTES, NOWHERE, Backlog, Chunk, Writing
from hub.schema import CollectionSchema
from hub.telemetry import TaskStats

CHUNKS_AHEAD = 1
"""Chunks that may be ready while another is written, beside the one that is being made."""

CREDIT_BYTES = 16 << 20
"""What a reader may have handed out that is not written to the sink yet."""

DRAIN_POLL_S = 0.02


class Flow:
    """One materialization at work. `run` may be called again after it failed."""

    def __init__(
        self,
        task: MaterializationTask,
        log: Log,
        control: Control,
        trees: Trees,
        stats: TaskStats,
        events: Events,
    ) -> None:
        self._task = task
        self._name = TaskName(task.name)
        self._log = log
        self._control = control
        self._trees = trees
        self._stats = stats
        self._events = events
        self._stop_at: Place | None = None
        self._replay: Replay | None = None
        self._reading = anyio.CancelScope()
        stats.queue_bytes_max = CREDIT_BYTES

    def drain(self) -> None:
        """Finish what the log holds now, commit, and return from `run`."""
        self._stop_at = self._log.end
        self._reading.cancel()

    async def run(self) -> None:
        """Keep the destination in step until cancelled or drained."""
        self._stats.state = "starting"
        async with self._task.materialization.open(self._name) as sink:
            start, own = await self._restored(sink)
            self._trees.forget()
            writing = Writing(self._task, sink, self._log, self._control, self._stats, self._events, own=own)
            reader = self._log.reader(
                self._name, wanted=self._trees.wants, start=start, credit_bytes=CREDIT_BYTES
            )
            writing.reader, writing.replay = reader, self._replay
            backlog = Backlog(self._log, reader, self._trees.wants)
            writing.backlog = backlog
            self._stats.lag_records = backlog.records
            self._stats.state = "running"
            send, receive = anyio.create_memory_object_stream[Chunk](CHUNKS_AHEAD)
            async with anyio.create_task_group() as group:
                group.start_soon(self._read, reader, send, writing)
                await writing.run(receive)

    async def _restored(self, sink: Sink) -> tuple[Cursor, bool]:
        """Where to go on, and whether the destination keeps its own cursor."""
        kept = await sink.restore()
        asked = self._control.rewind(self._name)
        was = kept or self._control.cursor(self._name) or Cursor.START
        self._replay = await Replay.found(
            self._control,
            self._name,
            self._log.journal,
            start=was if asked is None else asked,
            was=was,
            end=self._log.end,
        )
        if asked is not None:
            self._events.warning(
                "rewound", task=self._name, to={k: list(v) for k, v in asked.journals.items()}
            )
            return asked, kept is not None
        if kept is None:
            return self._control.cursor(self._name) or Cursor.START, False
        foreign = kept.journals.keys() - {self._log.journal}
        if foreign:
            raise FatalError(
                f"{self._name}: the destination was last written from the log {', '.join(sorted(foreign))}, "
                f"this one is {self._log.journal}: the data directory was wiped or is another one. Bring the old one "
                f"back; or `hub log rewind {self._name} --to start` writes what this log holds over what is there, "
                "where rows that were deleted meanwhile stay; or drop the tables and the row of this task in the "
                "destination's cursor table to start over"
            )
        return kept, True

    async def _read(self, reader: Reader, send: MemoryObjectSendStream[Chunk], writing: Writing) -> None:
        dead_upto = writing.dead_upto.journals.get(self._log.journal)
        backlog = False
        async with send:
            while True:
                if self._replay is not None and self._at(reader) >= self._replay.upto:
                    await self._sweep(self._at(reader), send, writing)
                if not backlog:
                    await writing.demand.wait()
                committed = await self._next(reader)
                if committed is None:
                    return
                if not committed:
                    writing.demand.meet()
                    await send.send(Chunk(Outcome(), [], reader.cursor, 0, 0, 0, time.time()))
                upto = self._replay.upto if self._replay is not None else None
                for part in [p for some in cut_after(committed, dead_upto) for p in cut_after(some, upto)]:
                    if self._replay is not None and part[0].place > self._replay.upto:
                        await self._sweep(self._replay.upto, send, writing)
                    chunk = await self._processed(part)
                    self._stats.queue_bytes += chunk.size
                    if not self._stats.oldest_waiting_ts:
                        self._stats.oldest_waiting_ts = chunk.oldest_ts
                    if not writing.demand.is_there:
                        await writing.prepare(chunk)
                    # Met before the other loop runs, or this one would read on before it is asked again.
                    writing.demand.meet()
                    await send.send(chunk)
                    backlog = chunk.size >= BACKLOG_BYTES

    def _at(self, reader: Reader) -> Place:
        return reader.cursor.journals.get(self._log.journal, NOWHERE)

    async def _sweep(self, at: Place, send: MemoryObjectSendStream[Chunk], writing: Writing) -> None:
        """A backfill from the log has come to where the destination stood, and all up to `at` is handed on."""
        assert self._replay is not None
        outcome = Outcome()
        for mark in self._replay.sweeps():
            self._trees.run(mark, outcome)
        self._replay.meant(outcome)
        upto = Cursor({self._log.journal: at})
        if self._replay.is_partial:
            self._trees.describe_again()
        self._replay = None
        writing.demand.meet()
        await send.send(Chunk(outcome, outcome.writes(), upto, 0, 0, 0, time.time(), ends_replay=True))

    async def _next(self, reader: Reader) -> Sequence[Committed] | None:
        """The next transactions, or None when drained."""
        while self._stop_at is None:
            with anyio.CancelScope() as self._reading:
                return await reader.read(CHUNK_BYTES)
        while self._at(reader) < self._stop_at:
            with anyio.move_on_after(DRAIN_POLL_S):
                return await reader.read(CHUNK_BYTES)
        return None

    async def _processed(self, committed: Sequence[Committed]) -> Chunk:
        outcome = Outcome()
        size = sum(piece.size for piece in committed)
        items: Sequence[Batch | Schema] = merged([item for piece in committed for item in piece.items])
        if self._replay is not None:
            items = await self._replay.marked(items, committed[-1].place.seq)
            self._show(committed[-1].place)
        for item in items:
            if isinstance(item, Schema):
                self._trees.restart(CollectionSchema.decode(item.text))
            else:
                self._trees.run(item, outcome)
                await anyio.lowlevel.checkpoint()
        if self._replay is not None:
            self._replay.meant(outcome)
        last = committed[-1]
        upto = Cursor({self._log.journal: last.place}) if last.complete else None
        rows = sum(work.count for _, work in outcome.work if isinstance(work, Batch))
        read = sum(item.count for piece in committed for item in piece.items if isinstance(item, Batch))
        return Chunk(outcome, outcome.writes(), upto, read, rows, size, committed[0].ts_us / 1e6)

    def _show(self, place: Place) -> None:
        """How far a backfill from the log has come, in frames."""
        assert self._replay is not None
        edge = self._stats.edge("backfill from the log")
        if not edge.snapshotting:
            edge.snapshotting, edge.snapshot_since, edge.snapshot_from = True, time.monotonic(), place.seq
        edge.rows_done, edge.rows_total = place.seq, self._replay.upto.seq
        edge.snapshotting = place < self._replay.upto


def cut_after(committed: Sequence[Committed], place: Place | None) -> Sequence[Sequence[Committed]]:
    """In two where the transactions up to `place` end, so that no chunk lies on both sides of it."""
    if place is None:
        return [committed] if committed else []
    cut = sum(piece.place <= place for piece in committed)
    return [part for part in (committed[:cut], committed[cut:]) if part]
