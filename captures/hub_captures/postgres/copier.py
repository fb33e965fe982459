"""The copy of tables beside the stream: which chunk next, how large, and what it leaves behind.

The stream is held, between two transactions, while a chunk is read. That is what makes a chunk exact, so
chunks are kept short: their size follows from how long the last one took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from hub.capture import Outlet
from hub_captures.postgres.capture import PostgresCapture
from hub_captures.postgres.connection import Connection
from hub_captures.postgres.keys import has_plain_order, sort_key
from hub_captures.postgres.position import Chunk, PostgresPosition
from hub_captures.postgres.snapshot import (
    ChunkQuery,
    LayoutOf,
    Piece,
    batches_of,
    read_chunk,
    read_whole,
)
from hub_captures.postgres.tables import Tracked
from hub_captures.postgres.types import PgType

CHUNK_S = 0.25
"""A chunk should take so long."""
CHUNK_ROWS_FIRST = 2_000
CHUNK_ROWS_MIN = 100
CHUNK_ROWS_MAX = 500_000


class Copier:
    """Reads chunks over a connection of its own."""

    def __init__(
        self,
        capture: PostgresCapture,
        out: Outlet[PostgresPosition],
        connection: Connection,
        types: dict[int, PgType],
    ) -> None:
        self._capture = capture
        self._out = out
        self._connection = connection
        self._publication = capture.publication_name(out.task)
        self._types = types
        self._rows: dict[int, int] = {}

    async def step(
        self,
        oid: int,
        tracked: Tracked,
        must: Iterable[int],
        layout_of: LayoutOf,
        position: Callable[[], PostgresPosition],
    ) -> None:
        """Read the next chunk of a table and send it. `position` is asked once the chunk is accounted for.
        Raises NotYet, Gone."""
        handover = tracked.handover
        assert handover is not None
        state = handover.state
        wanted = ChunkQuery(
            oid=oid,
            cursor=handover.cursor,
            where=state.where,
            rows_max=self._rows.get(oid, CHUNK_ROWS_FIRST),
            bytes_max=self._capture.chunk,
            record_bytes_max=self._capture.max_record,
            may_omit=self._capture.on_oversized == "omit",
        )
        truncates = state.replace and not state.began
        rows_before = 0

        async def deliver(piece: Piece) -> None:
            nonlocal truncates, rows_before
            await self._out.send(batches_of(piece, truncates=truncates), None)
            truncates = False
            rows_before += len(piece.rows.lines)
            self._out.progress(piece.layout.schema.collection, rows_before, piece.table.rows_estimate)

        began = time.monotonic()
        assert tracked.table is not None
        if has_plain_order(tracked.table, self._types):
            piece = await read_chunk(self._connection, self._publication, wanted, must, layout_of)
        else:
            piece = await read_whole(self._connection, self._publication, wanted, must, layout_of, deliver)
        self._adapt(oid, len(piece.rows.lines), wanted.rows_max, time.monotonic() - began)
        tracked.table = piece.table
        handover.order(sort_key(piece.table, self._types))
        moment = piece.moment
        handover.read(
            Chunk(piece.upper, moment.visibility, moment.fence), rows_before + len(piece.rows.lines)
        )
        await self._out.send(batches_of(piece, truncates=truncates), position())
        done = handover.state.rows
        total = done if handover.is_complete else max(done + 1, piece.table.rows_estimate)
        self._out.progress(piece.layout.schema.collection, done, total)

    def _adapt(self, oid: int, rows: int, wanted: int, took_s: float) -> None:
        if rows >= wanted:
            factor = min(4.0, max(0.25, CHUNK_S / max(took_s, 0.001)))
            self._rows[oid] = int(min(CHUNK_ROWS_MAX, max(CHUNK_ROWS_MIN, wanted * factor)))
