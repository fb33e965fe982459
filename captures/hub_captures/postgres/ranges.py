"""One chunk of a table read by several processes, each a range of its keys, all under one snapshot.

Making JSON of rows costs more than carrying it, and one Python process makes it on one core. So the process that
holds the snapshot exports it, and worker processes read adjoining ranges as that one transaction sees
them. Together they are one chunk, and the hand-over to the stream need not know how it was read.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import psycopg
from psycopg import pq

from hub.errors import FatalError, TransientError
from hub.record import TaskName
from hub_captures.postgres.connection import Connection, Server, error_of, rows, settings_since
from hub_captures.postgres.keys import bounds_query
from hub_captures.postgres.layout import ColumnOf, Layout, layout
from hub_captures.postgres.position import Key
from hub_captures.postgres.snapshot import QUERY_CANCELED, ChunkQuery, Moment, Piece, Read, Rows, chunk_sql
from hub_captures.postgres.types import PgType
from hub_captures.postgres.wire import CALLBACK_BYTES_MAX

_ROWS_AT_ONCE = 500


class RangeJob(NamedTuple):
    """All that a worker has to know: where, under which snapshot, what, and how rows are laid out."""

    parameters: Mapping[str, Any]
    snapshot: str
    wanted: ChunkQuery
    upper: Key | None
    task: TaskName
    columns: Sequence[ColumnOf]
    types: Mapping[int, PgType]


class RangeRead(NamedTuple):
    """What a worker has read. `last` is where it was cut off, None for a whole range. An `error` has the server's
    state and message; a message alone says that a row is not to be taken."""

    read: Read | None
    last: Key | None = None
    error: tuple[str | None, str] | None = None
    refused: str = ""


class Ranges:
    """The worker processes of one capture. They are started when they are first needed and end with `close`."""

    def __init__(self, server: Server, task: TaskName, workers: int) -> None:
        self.workers = workers
        self._server = server
        self._task = task
        self._pool: ProcessPoolExecutor | None = None
        self._parameters: Mapping[str, Any] = {}

    async def read(
        self,
        connection: Connection,
        wanted: ChunkQuery,
        made: Layout,
        moment: Moment,
        types: Mapping[int, PgType],
    ) -> Piece:
        """The next rows in key order: a range for each worker, of `rows_max` rows each. The connection is inside the
        transaction that sees the moment."""
        if self._pool is None:
            self._parameters = await self._server.parameters()
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=_begin)
        query = bounds_query(wanted.table, wanted.cursor, wanted.where, wanted.rows_max, self.workers)
        bounds = [tuple(row) for row in await rows(connection, "dividing a table", query)]
        ((snapshot,),) = await rows(connection, "exporting a snapshot", "select pg_export_snapshot()")
        has_more = len(bounds) == self.workers
        edges = [wanted.cursor, *bounds, *([] if has_more else [None])]
        columns = [(column.name, column.type_oid, column.modifier) for column in wanted.table.columns]
        needed = _needed(types, [type_oid for _, type_oid, _ in columns])
        jobs = [
            RangeJob(self._parameters, snapshot, wanted.after(lower), upper, self._task, columns, needed)
            for lower, upper in pairwise(edges)
        ]
        found = await self._done(jobs)
        reads: list[Read] = []
        for each in found:
            if each.refused:
                raise FatalError(each.refused)
            if each.error is not None:
                raise error_of(each.error[0], f"copying rows: {each.error[1]}")
            assert each.read is not None
            reads.append(each.read)
            if each.last is not None:
                # What the workers behind it have read is read again from there.
                return Piece(wanted.table, made, moment, tuple(reads), each.last)
        return Piece(wanted.table, made, moment, tuple(reads), jobs[-1].upper)

    async def _done(self, jobs: Sequence[RangeJob]) -> list[RangeRead]:
        assert self._pool is not None
        try:
            # All of them first: one that breaks off the others would leave behind what nobody waits for.
            given = [self._pool.submit(read_range, job) for job in jobs]
            return await asyncio.gather(*map(asyncio.wrap_future, given))
        except BrokenExecutor as error:
            self.close()
            raise TransientError("a process that reads for the snapshot has ended") from error

    def close(self) -> None:
        """End the processes. What they are at is thrown away."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def _needed(types: Mapping[int, PgType], oids: Iterable[int]) -> dict[int, PgType]:
    """These types and all that they are made of."""
    found: dict[int, PgType] = {}
    left = list(oids)
    while left:
        each = types.get(left.pop())
        if each is not None and each.oid not in found:
            found[each.oid] = each
            left += [each.related, *[oid for _, oid, _ in each.fields]]
    return found


_connections: dict[str, psycopg.Connection[Any]] = {}
"""The worker's own connection, by what it was made with."""


def _begin() -> None:
    """A worker ends when the process that it works for does, and not at a Ctrl-C that is meant for that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def read_range(job: RangeJob) -> RangeRead:
    """Read one range. Runs in a worker, where nobody minds that it waits."""
    table = job.wanted.table
    made = layout(job.task, table.schema, table.name, job.columns, table.key, job.types)
    found = job.wanted.rows(made)
    try:
        connection = _connected(job.parameters)
        with contextlib.suppress(psycopg.Error):
            connection.execute("rollback")
        connection.execute("begin isolation level repeatable read read only")
        connection.execute(f"set transaction snapshot '{job.snapshot}'".encode())
        is_cut = _copied(connection.pgconn, chunk_sql(job.wanted, job.upper).encode(), job.wanted, found)
        connection.execute("rollback")
    except psycopg.Error as error:
        return RangeRead(None, error=(error.sqlstate, " ".join(str(error).split())))
    except FatalError as error:
        return RangeRead(None, refused=str(error))
    return RangeRead(found.take(), found.key() if is_cut else None)


def _connected(parameters: Mapping[str, Any]) -> psycopg.Connection[Any]:
    name = repr(sorted(parameters.items()))
    known = _connections.get(name)
    if known is None or known.closed:
        known = psycopg.connect(**parameters, autocommit=True, prepare_threshold=None)
        known.execute(settings_since(known.info.server_version).encode())
        _connections[name] = known
    return known


def _copied(pgconn: pq.abc.PGconn, query: bytes, wanted: ChunkQuery, into: Rows) -> bool:
    """Gather the rows of a COPY. True when it was cut off: too many bytes, or a timeout that came after some rows."""
    pgconn.send_query(query)
    result = pgconn.get_result()
    if result is None or result.status != pq.ExecStatus.COPY_OUT:
        _finish(pgconn)
        raise _error(result)
    is_cut, waiting = False, []
    while True:
        size, view = pgconn.get_copy_data(0)
        if size < 0:
            break
        is_large = size > CALLBACK_BYTES_MAX
        if not is_large:
            waiting.append(view.tobytes())
        if is_large or len(waiting) == _ROWS_AT_ONCE:
            into.add(waiting)
            waiting = []
            if is_large:
                into.add_large(view)
            if into.bytes >= wanted.bytes_max:
                is_cut = True
                pgconn.get_cancel().cancel()
                break
    into.add(waiting)
    while is_cut and pgconn.get_copy_data(0)[0] > 0:
        pass
    last = pgconn.get_result()
    _finish(pgconn)
    if is_cut or (last is not None and last.status == pq.ExecStatus.COMMAND_OK):
        return is_cut
    error = _error(last)
    if error.sqlstate == QUERY_CANCELED and into.last is not None:
        return True
    raise error


def _finish(pgconn: pq.abc.PGconn) -> None:
    while pgconn.get_result() is not None:
        pass


def _error(result: pq.abc.PGresult | None) -> psycopg.Error:
    if result is None:
        return psycopg.OperationalError("the connection was lost")
    state = result.error_field(pq.DiagnosticField.SQLSTATE)
    made = psycopg.errors.lookup(state.decode()) if state else psycopg.OperationalError
    return made(result.error_message.decode(errors="replace") if result.error_message else "no reason given")
