"""The copy of tables beside the stream: which chunks next, how large, and what they leave behind.

The stream is held, between two transactions, while chunks are read. That is what makes them exact, so they are
kept short: their size follows from how long the last one took. Small tables are read many at a time,
under one snapshot, so that a database of ten thousand of them is not ten thousand transactions.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from hub.capture import Outlet
from hub.record import Batch
from hub_captures.postgres import catalog, server
from hub_captures.postgres.capture import PostgresCapture
from hub_captures.postgres.catalog import Table
from hub_captures.postgres.connection import Connection
from hub_captures.postgres.feed import Feed
from hub_captures.postgres.keys import has_plain_order, sort_key
from hub_captures.postgres.layout import Layout
from hub_captures.postgres.position import Chunk, PostgresPosition
from hub_captures.postgres.ranges import Ranges
from hub_captures.postgres.snapshot import (
    ChunkQuery,
    Moment,
    Moved,
    NotYet,
    Piece,
    as_locked,
    batches_of,
    begin_state,
    end_state,
    one_state,
    read_chunk,
    read_whole,
)
from hub_captures.postgres.tables import Tables, Tracked, is_altered
from hub_captures.postgres.types import PgType

CHUNK_S = 0.25
"""A chunk should take so long."""
CHUNK_ROWS_FIRST = 2_000
CHUNK_ROWS_MIN = 100
CHUNK_ROWS_MAX = 500_000
TABLES_AT_ONCE = 100
"""So many tables are begun under one snapshot at most: as many locks, and as many of their indexes."""

DEFER_S = 1.0
DEFER_MAX_S = 60.0
"""A table that somebody has locked is left alone for so long, longer each time."""
EARLY_S = 0.05
EARLY_MAX_S = 5.0
"""Tables whose copy begins wait so long, longer each time, for the transactions that were open when it was decided on."""

LayoutsOf = Callable[[Sequence[Table]], Awaitable[list[Layout]]]


class _Held(NamedTuple):
    """The snapshot under which all tables are read (`consistent_snapshot`), and how they look in it."""

    moment: Moment
    tables: Mapping[int, Table]


class Copier:
    """Reads chunks over a connection of its own."""

    def __init__(
        self,
        capture: PostgresCapture,
        out: Outlet[PostgresPosition],
        connection: Connection,
        tables: Tables,
        feed: Feed,
        types: dict[int, PgType],
        layouts_of: LayoutsOf,
        altered: Callable[[Tracked, Table], Awaitable[None]],
        ranges: Ranges | None,
        *,
        is_standby: bool,
    ) -> None:
        self._capture = capture
        self._out = out
        self._connection = connection
        self._publication = capture.publication_name(out.task)
        self._tables = tables
        self._feed = feed
        self._types = types
        self._layouts_of = layouts_of
        self._altered = altered
        self._ranges = ranges
        self._is_standby = is_standby
        self._held: _Held | None = None
        self._hold_from = 0.0
        self._rows: dict[int, int] = {}
        self._early_s = EARLY_S
        self._largest = 0
        self._singly = 0
        """So many turns read one table each, since one of several stood in the way of the others."""

    def next(self) -> list[tuple[int, Tracked]]:
        """The tables whose turn it is; none when there is nothing to do yet."""
        if self._held is not None:
            return [(oid, tracked) for oid, tracked in self._tables.unread() if oid in self._held.tables][:1]
        if self._capture.consistent_snapshot:
            return [] if time.monotonic() < self._hold_from else self._tables.unread()
        return self._tables.next_to_copy(1 if self._singly else TABLES_AT_ONCE, time.monotonic())

    @property
    def holds(self) -> bool:
        """A snapshot is held for all tables, and the stream has to wait until they are read."""
        return self._held is not None

    async def turn(
        self, chosen: Sequence[tuple[int, Tracked]], position: Callable[[], PostgresPosition]
    ) -> bool:
        """Read on in these tables, with the stream held. `position` is asked once what was read is accounted for.
        False when nothing could be read."""
        self._singly = max(0, self._singly - 1)
        there = [(oid, tracked, tracked.table) for oid, tracked in chosen if tracked.table is not None]
        for oid, tracked in chosen:
            if tracked.table is None:
                self._tables.forget(oid)
        try:
            if there and self._capture.consistent_snapshot:
                await self._step_held(there, position)
            elif there:
                await self._step(there, position)
        except NotYet as error:
            self._out.count("snapshot_chunk_retries")
            if error.waits_for:
                self._defer(there, error.waits_for)
            elif error.is_early:
                await self._defer_all()
            return False
        except Moved:
            await self._look_again(there)
            return False
        for oid, tracked, _ in there:
            gathered = self._feed.tables.get(oid.to_bytes(4))
            if gathered is not None:
                gathered.handover = tracked.handover
        return True

    def _defer(self, chosen: Sequence[tuple[int, Tracked, Table]], waits_for: str) -> None:
        """One of these tables has to wait: find out which, and leave it alone for a while."""
        if self._capture.consistent_snapshot:
            self._hold_from = time.monotonic() + DEFER_S
            self._out.notice(f"the copy waits for {waits_for}", tables=len(chosen))
            return
        if len(chosen) > 1:
            self._singly = len(chosen)
            return
        ((_, tracked, table),) = chosen
        tracked.deferred_s = min(DEFER_MAX_S, max(DEFER_S, tracked.deferred_s * 2))
        tracked.deferred_until = time.monotonic() + tracked.deferred_s
        self._out.notice(f"the copy waits for {waits_for}", table=table.full_name)

    async def _defer_all(self) -> None:
        """Transactions are open that may have written to new tables before the publication had them, or whose commits the
        stream has shown already."""
        until = time.monotonic() + self._early_s
        self._tables.begin_not_before = self._hold_from = until
        if self._early_s > 1.0:
            for what, about in await server.holdups(self._connection, 1):
                self._out.notice(f"the copy waits for {what}", **about)
        self._early_s = min(EARLY_MAX_S, self._early_s * 2)

    def _require_sight(self, chosen: Sequence[tuple[int, Tracked, Table]], moment: Moment) -> None:
        """Tables are begun only under a snapshot that sees all that the stream has not brought of them. Raises NotYet."""
        begins = any(tracked.handover and not tracked.handover.state.began for _, tracked, _ in chosen)
        if begins and moment.visibility.xmin < self._tables.begin_after:
            raise NotYet(is_early=True)
        self._early_s = EARLY_S

    async def _look_again(self, chosen: Sequence[tuple[int, Tracked, Table]]) -> None:
        """Tables are not where they were: renamed, taken out of the publication, or gone."""
        oids = [oid for oid, _, _ in chosen]
        found = {t.oid: t for t in await catalog.tables(self._connection, self._publication, oids=oids)}
        for oid, tracked, table in chosen:
            there = found.get(oid)
            if there is not None and there.in_publication:
                tracked.table = there
            else:
                self._out.notice("table gone before it was copied", table=table.full_name)
                self._tables.forget(oid)

    async def _step_held(
        self, chosen: Sequence[tuple[int, Tracked, Table]], position: Callable[[], PostgresPosition]
    ) -> None:
        """Hold one snapshot for all tables, unless it is held already, and read on in the first of them."""
        if self._held is None:
            tables = [table for _, _, table in chosen]
            try:
                moment = await begin_state(
                    self._connection, tables, self._feed.judge.undecided, is_standby=self._is_standby
                )
                self._require_sight(chosen, moment)
                there = await as_locked(self._connection, self._publication, tables)
            except (NotYet, Moved):
                await end_state(self._connection)
                raise
            self._held = _Held(moment, {table.oid: table for table in there})
            self._out.notice("one snapshot is held for all tables", tables=len(there))
        await self._step(chosen[:1], position)
        if not self.next():
            self._held = None
            await end_state(self._connection)

    @contextlib.asynccontextmanager
    async def _state(self, tables: Sequence[Table]) -> AsyncIterator[tuple[Moment, list[Table]]]:
        """One state of the database to read tables in, and how they look there."""
        if self._held is not None:
            yield self._held.moment, [self._held.tables[table.oid] for table in tables]
        else:
            must = self._feed.judge.undecided
            async with one_state(self._connection, tables, must, is_standby=self._is_standby) as moment:
                yield moment, await as_locked(self._connection, self._publication, tables)

    async def _step(
        self, chosen: Sequence[tuple[int, Tracked, Table]], position: Callable[[], PostgresPosition]
    ) -> None:
        """Read the next chunk of a table, or of several under one snapshot, and send them. Raises NotYet, Moved."""
        began = time.monotonic()
        tables = [table for _, _, table in chosen]
        read: list[tuple[int, Tracked, Piece]] = []
        batches: list[Batch] = []
        left: int = self._capture.chunk
        async with self._state(tables) as (moment, there):
            self._require_sight(chosen, moment)
            layouts = await self._layouts_of(there)
            for (oid, tracked, _), table, layout in zip(chosen, there, layouts, strict=True):
                handover = tracked.handover
                assert handover is not None
                if not handover.state.began:
                    tracked.followed = table.followed
                elif is_altered(tracked.followed, table.followed):
                    await self._altered(tracked, table)
                    if tracked.handover is not handover:
                        # Rows that were read say something else by now.
                        continue
                if read and (left < self._capture.chunk // 4 or time.monotonic() - began > CHUNK_S):
                    break
                piece, made = await self._read(oid, tracked, table, layout, moment, left, position)
                read.append((oid, tracked, piece))
                batches += made
                left -= piece.bytes
                if piece.is_cut:
                    break
        for oid, tracked, piece in read:
            handover = tracked.handover
            assert handover is not None
            tracked.table = piece.table
            handover.order(sort_key(piece.table, self._types))
            handover.read(Chunk(piece.upper, moment.visibility, moment.fence), piece.rows_before + piece.rows)
            self._tables.began(oid)
        self._feed.judge.undecided.clear()
        if not self._tables.unread_count:
            # Not before all is read, or there would be a new connection for each large row.
            self._feed.judge.largest = max(self._feed.judge.largest, self._largest)
        await self._out.send(batches, position(), self._tables.due_note())
        self._out.gauge("snapshot_tables_left", self._tables.unread_count)
        for _, tracked, piece in read:
            assert tracked.handover is not None
            done = tracked.handover.state.rows
            total = done if tracked.handover.is_complete else max(done + 1, piece.table.rows_estimate)
            self._out.progress(piece.layout.schema.collection, done, total)

    async def _read(
        self,
        oid: int,
        tracked: Tracked,
        table: Table,
        layout: Layout,
        moment: Moment,
        bytes_max: int,
        position: Callable[[], PostgresPosition],
    ) -> tuple[Piece, list[Batch]]:
        """One table's next rows, and the batches of them that are still to be sent."""
        handover = tracked.handover
        assert handover is not None
        state = handover.state
        has_order = has_plain_order(table, self._types)
        wanted = ChunkQuery(
            table=table,
            cursor=handover.cursor,
            where=state.where,
            rows_max=self._rows.get(oid, CHUNK_ROWS_FIRST),
            bytes_max=bytes_max if has_order and not self.holds else self._capture.chunk,
            record_bytes_max=self._capture.max_record,
            may_omit=self._capture.on_oversized == "omit",
        )
        # Also when a restart reads from the start once more: what was seen then may be gone by now.
        begins = state.replace and handover.cursor is None
        began, rows_before = time.monotonic(), 0

        async def deliver(piece: Piece) -> None:
            nonlocal begins, rows_before
            if self.holds:
                # Read anew after a restart whatever stands here, so that sinks need not wait for its end.
                handover.begin()
                self._tables.began(oid)
            await self._out.send(
                batches_of(piece, begins=begins, ends=False), position() if self.holds else None
            )
            begins = False
            rows_before += piece.rows
            self._note_largest(piece)
            self._out.progress(piece.layout.schema.collection, rows_before, piece.table.rows_estimate)

        if has_order and self._ranges is not None and (handover.cursor is not None or self.holds):
            piece = await self._ranges.read(self._connection, wanted, layout, moment, self._types)
            self._adapt(oid, piece, len(piece.reads) * wanted.rows_max, time.monotonic() - began)
        elif has_order and not self.holds:
            piece = await read_chunk(self._connection, wanted, layout, moment)
            self._adapt(oid, piece, wanted.rows_max, time.monotonic() - began)
        else:
            piece = await read_whole(self._connection, wanted, layout, moment, deliver)
        self._note_largest(piece)
        piece = piece._replace(rows_before=rows_before)
        return piece, batches_of(piece, begins=begins, ends=state.replace and piece.upper is None)

    def _note_largest(self, piece: Piece) -> None:
        self._largest = max([self._largest, *[read.largest for read in piece.reads]])

    def _adapt(self, oid: int, piece: Piece, wanted: int, took_s: float) -> None:
        """How many rows to read next time, in one process: as many as take the time of a chunk, and not more than
        fit into one."""
        if piece.rows >= wanted:
            rows = self._rows.get(oid, CHUNK_ROWS_FIRST)
            factor = min(4.0, max(0.25, CHUNK_S / max(took_s, 0.001)))
            fitting = self._capture.chunk * piece.rows // max(1, piece.bytes)
            self._rows[oid] = int(min(CHUNK_ROWS_MAX, fitting, max(CHUNK_ROWS_MIN, rows * factor)))
