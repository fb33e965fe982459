"""Reading chunks of tables: the rows after the cursor, and which transactions they show.

Everything happens in a short transaction that sees one state of the database; between chunks nothing
is held. The decision which changes of the stream a chunk makes superfluous is in `handover.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from hub import cdc
from hub.errors import HubError
from hub.record import BACKFILL, READ, SWEEP, Batch
from hub_captures.postgres import catalog, running
from hub_captures.postgres.catalog import Table
from hub_captures.postgres.cells import QUOTE, UNCHANGED, copied_cells, text_of
from hub_captures.postgres.connection import (
    GONE,
    LOCK_NOT_AVAILABLE,
    LOCK_WAIT_MS,
    Connection,
    execute,
    quoted,
    rows,
    sqlstate_of,
)
from hub_captures.postgres.handover import must_see
from hub_captures.postgres.keys import row_of, values_of
from hub_captures.postgres.layout import Layout
from hub_captures.postgres.oversized import Buffer, copied_without_largest, oversized_error
from hub_captures.postgres.position import Key, Visibility
from hub_captures.postgres.wire import CopyOut

_WAL_PAGE = 8192
_PAGE_HEADERS = (24, 40)
QUERY_CANCELED = "57014"


class Moment(NamedTuple):
    """What a snapshot sees, an LSN before which all of that has committed, and the server's clock."""

    visibility: Visibility
    fence: int
    ts_ms: int


class Read(NamedTuple):
    """Rows as JSON lines. `oversized` names the fields that some of them, by index, go without. `largest` is the size in
    which the largest of those has come that came alone; libpq keeps a buffer of that size."""

    ndjson: bytes
    rows: int
    oversized: dict[int, list[str]]
    largest: int


class Rows:
    """Gathers rows, in the order of their key where they have one."""

    def __init__(self, layout: Layout, record_bytes_max: int, *, may_omit: bool) -> None:
        self.count = 0
        self.bytes = 0
        self.last: bytes | None = None
        self._lines: list[bytes] = []
        """One or more in each part."""
        self._oversized: dict[int, list[str]] = {}
        self._largest = 0
        self._layout = layout
        self._record_bytes_max = record_bytes_max
        self._may_omit = may_omit

    def add(self, found: Sequence[bytes]) -> None:
        """Take rows as COPY writes them."""
        if not found:
            return
        if max(map(len, found)) <= self._record_bytes_max:
            self._add_lines(self._lines_of(found), len(found))
            self.last = found[-1]
            return
        for row in found:
            if len(row) > self._record_bytes_max:
                self.add_large(row)
            else:
                self.add([row])

    def _lines_of(self, found: Sequence[bytes]) -> bytes:
        """Rows with quotes take the careful way, one by one."""
        decoder = self._layout.decoder
        plain = [row for row in found if QUOTE not in row]
        lines = decoder.whole.of_copied(plain)
        if lines is None:
            return b"".join([decoder.document(copied_cells(row)) for row in found])
        if len(plain) == len(found):
            return lines
        quick = iter(lines.split(b"\n"))
        return b"".join(
            [decoder.document(copied_cells(row)) if QUOTE in row else next(quick) + b"\n" for row in found]
        )

    def _add_lines(self, lines: bytes, count: int) -> None:
        self._lines.append(lines)
        self.count += count
        self.bytes += len(lines)

    def add_large(self, row: Buffer) -> None:
        """Take a row that is not to be copied needlessly. Beyond the limit it goes without its largest fields, where
        that is allowed."""
        self._largest = max(self._largest, len(row))
        if len(row) <= self._record_bytes_max:
            self.add([bytes(row)])
            return
        if not self._may_omit:
            raise oversized_error(self._layout.schema.collection, len(row), self._record_bytes_max)
        self.last, omitted = copied_without_largest(row, self._layout.key_indexes, self._record_bytes_max)
        cells = copied_cells(self.last)
        for index in omitted:
            cells[index] = UNCHANGED
        self._oversized[self.count] = sorted([self._layout.decoder.names[index] for index in omitted])
        self._add_lines(self._layout.decoder.document(cells), 1)

    def take(self) -> Read:
        """What was gathered."""
        return Read(b"".join(self._lines), self.count, self._oversized, self._largest)

    def key(self) -> Key:
        """The key of the last row."""
        assert self.last is not None
        cells = copied_cells(self.last)
        return tuple([text_of(cells[index]) for index in self._layout.key_indexes])


class Piece(NamedTuple):
    """Rows that were read. `upper` is the last key, None when the end of the table was reached. `is_cut` says
    that reading was broken off, which ends the transaction; `rows_before` counts rows delivered already."""

    table: Table
    layout: Layout
    moment: Moment
    reads: tuple[Read, ...]
    upper: Key | None
    is_cut: bool = False
    rows_before: int = 0

    @property
    def rows(self) -> int:
        """How many rows are in it."""
        return sum([read.rows for read in self.reads])

    @property
    def bytes(self) -> int:
        """How many bytes of documents are in it."""
        return sum([len(read.ndjson) for read in self.reads])


class NotYet(Exception):
    """A chunk may not be read now: some transaction that the stream has shown is still invisible, or the copy `waits_for`
    something that may take longer, or it is to begin and transactions are open that may have written to the table before
    (`is_early`). Try again a little later."""

    def __init__(self, waits_for: str = "", *, is_early: bool = False) -> None:
        super().__init__()
        self.waits_for = waits_for
        self.is_early = is_early


class Moved(Exception):
    """A table is not where it was: dropped, renamed, or taken out of the publication."""


class ChunkQuery(msgspec.Struct, frozen=True):
    """What to read: the table as it was last seen, after which key, how much."""

    table: Table
    cursor: Key | None
    where: str
    rows_max: int
    bytes_max: int
    record_bytes_max: int
    may_omit: bool

    def after(self, cursor: Key | None) -> ChunkQuery:
        """The same from another key on."""
        return msgspec.structs.replace(self, cursor=cursor)

    def rows(self, layout: Layout) -> Rows:
        """Where rows of this layout are gathered."""
        return Rows(layout, self.record_bytes_max, may_omit=self.may_omit)


_MOMENT = """select pg_current_snapshot()::text,
  (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end - '0/0')::bigint,
  (extract(epoch from clock_timestamp()) * 1000)::bigint"""


@contextlib.asynccontextmanager
async def one_state(
    connection: Connection, tables: Sequence[Table], must: Iterable[int], *, is_standby: bool
) -> AsyncIterator[Moment]:
    """A transaction in which the database does not change. Raises what `begin_state` does, and the same of what is
    read inside."""
    try:
        with _told_apart():
            yield await begin_state(connection, tables, must, is_standby=is_standby)
    finally:
        await end_state(connection)


async def begin_state(
    connection: Connection, tables: Sequence[Table], must: Iterable[int], *, is_standby: bool
) -> Moment:
    """Begin a transaction in which the database does not change. Raises NotYet when it does not see all it must, Moved
    when a table is not there; `end_state` then is still to be called.

    The tables are locked before the snapshot is taken: to an older snapshot, a table that was rewritten or
    truncated meanwhile would look empty. The lock is the weakest there is, that of every SELECT.
    """
    names = ", ".join([table.sql for table in tables])
    with _told_apart():
        before = await running.look(connection) if is_standby else None
        await execute(
            connection,
            "copying",
            f"begin isolation level repeatable read read only; set local lock_timeout = '{LOCK_WAIT_MS}ms'; "
            f"lock table {names} in access share mode",
        )
        ((text, fence, ts_ms),) = await rows(connection, "taking a snapshot", _MOMENT)
    visibility = Visibility.parse(text)
    if before is not None:
        after = await running.look(connection)
        if before.xids is None or after.xids is None:
            raise NotYet("a transaction of the primary to end that is older than half a million others")
        found = running.as_of(visibility, before, after)
        if found is None:
            raise NotYet
        visibility = found
    if not must_see(visibility, must):
        raise NotYet
    return Moment(visibility, without_page_header(fence), ts_ms)


async def end_state(connection: Connection) -> None:
    """End the transaction, whatever has become of it."""
    if not connection.closed and not connection.broken:
        with contextlib.suppress(HubError):
            await execute(connection, "copying", "rollback")


@contextlib.contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except HubError as error:
        state = sqlstate_of(error)
        if state == LOCK_NOT_AVAILABLE:
            raise NotYet("a lock on the table") from error
        if state in GONE:
            raise Moved from error
        raise


async def as_locked(connection: Connection, publication: str, wanted: Sequence[Table]) -> list[Table]:
    """The locked tables as this snapshot sees them. Raises Moved when one is not there, or not under its name."""
    found = {t.oid: t for t in await catalog.tables(connection, publication, oids=[t.oid for t in wanted])}
    for table in wanted:
        there = found.get(table.oid)
        if there is None or not there.in_publication or there.full_name != table.full_name:
            raise Moved
    return [found[table.oid] for table in wanted]


async def read_chunk(connection: Connection, wanted: ChunkQuery, layout: Layout, moment: Moment) -> Piece:
    """The next rows in key order."""
    found = wanted.rows(layout)
    is_cut = await _copy(connection, chunk_sql(wanted), wanted.bytes_max, found)
    has_more = found.last is not None and (is_cut or found.count >= wanted.rows_max)
    return Piece(wanted.table, layout, moment, (found.take(),), found.key() if has_more else None, is_cut)


async def read_whole(
    connection: Connection,
    wanted: ChunkQuery,
    layout: Layout,
    moment: Moment,
    deliver: Callable[[Piece], Awaitable[None]],
) -> Piece:
    """All rows of a table without a usable key, in pieces of one state; returns the last."""
    copy = CopyOut(connection)
    await copy.start(_whole_sql(wanted))
    gathered = wanted.rows(layout)
    while await copy.into(gathered):
        if gathered.bytes >= wanted.bytes_max:
            await deliver(Piece(wanted.table, layout, moment, (gathered.take(),), None))
            gathered = wanted.rows(layout)
    return Piece(wanted.table, layout, moment, (gathered.take(),), None)


def without_page_header(lsn: int) -> int:
    """The insert position stands behind the header of a page that is still empty; the end of the WAL that the
    stream reports, before it. Without this an idle server would never be seen to pass a fence."""
    return lsn - lsn % _WAL_PAGE if lsn % _WAL_PAGE in _PAGE_HEADERS else lsn


async def _copy(connection: Connection, query: str, bytes_max: int, into: Rows) -> bool:
    """Read rows up to a limit. True when there would have been more."""
    copy = CopyOut(connection)
    await copy.start(query)
    try:
        while await copy.into(into):
            if into.bytes >= bytes_max:
                await copy.cancel()
                return True
    except HubError as error:
        # Rows come in the order of the key, so what came before a timeout is as good as a chunk.
        if sqlstate_of(error) != QUERY_CANCELED or not into.count:
            raise
        return True
    return False


def chunk_sql(wanted: ChunkQuery, upper: Key | None = None) -> str:
    """The rows behind the cursor: up to a key where one is given, else as many as are wanted."""
    conditions = _conditions(wanted)
    key = wanted.table.key
    if wanted.cursor is not None:
        conditions.append(f"{row_of(key)} > {values_of(wanted.cursor)}")
    if upper is not None:
        conditions.append(f"{row_of(key)} <= {values_of(upper)}")
    limit = f" LIMIT {wanted.rows_max}" if upper is None else ""
    order = ", ".join([quoted(name) for name in key])
    return _copy_sql(wanted.table, f"{_where(conditions)} ORDER BY {order}{limit}")


def _whole_sql(wanted: ChunkQuery) -> str:
    return _copy_sql(wanted.table, _where(_conditions(wanted)))


def _conditions(wanted: ChunkQuery) -> list[str]:
    return [f"({condition}\n)" for condition in (wanted.table.row_filter, wanted.where) if condition]


def _where(conditions: list[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _copy_sql(table: Table, rest: str) -> str:
    columns = ", ".join([quoted(column.name) for column in table.columns])
    return (
        f"COPY (SELECT {columns} FROM {table.sql}{rest}) TO STDOUT "
        r"(FORMAT csv, DELIMITER E'\x02', QUOTE E'\x01', NULL E'\x03')"
    )


def batches_of(piece: Piece, *, begins: bool, ends: bool) -> list[Batch]:
    """The rows as a batch of reads, with the mark that begins a backfill before it and the one that ends it after."""
    shared = {
        cdc.SCHEMA: piece.table.schema,
        cdc.TABLE: piece.table.name,
        cdc.LSN: piece.moment.fence,
        cdc.TS_MS: piece.moment.ts_ms,
        cdc.SNAPSHOT: True,
    }
    collection = piece.layout.schema.collection
    made = []
    if begins:
        made.append(Batch(collection, 1, ndjson=b"{}\n", ops=bytes([BACKFILL]), shared=shared))
    for read in piece.reads:
        if read.rows:
            columns = {cdc.OVERSIZED: cdc.sparse(read.oversized, read.rows)} if read.oversized else None
            ops = bytes([READ]) * read.rows
            made.append(
                Batch(collection, read.rows, ndjson=read.ndjson, ops=ops, shared=shared, columns=columns)
            )
    if ends:
        made.append(Batch(collection, 1, ndjson=b"{}\n", ops=bytes([SWEEP]), shared=shared))
    return made
