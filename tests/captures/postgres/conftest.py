"""A database for each test, and a capture running against an outlet in memory."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import psycopg
import pytest

from hub.errors import FatalError, TransientError
from hub.options import Secret
from hub.testing.outlet import MemoryOutlet, Record, Replica
from hub.testing.postgres import PostgresServer, temporary_database
from hub_captures.postgres import PostgresCapture, session
from hub_captures.postgres.position import PostgresPosition

Out = MemoryOutlet[PostgresPosition]

_numbers = itertools.count()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Source:
    """One database, and captures of it."""

    def __init__(self, server: PostgresServer, name: str, dsn: str) -> None:
        self.server = server
        self.name = name
        self.dsn = dsn
        self.task = name

    def run(self, *statements: str) -> None:
        """Run statements, each in a transaction of its own."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def transaction(self, *statements: str) -> None:
        """Run statements in one transaction."""
        with psycopg.connect(self.dsn) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn, autocommit=True, **options)

    def collection(self, table: str) -> str:
        return f"{self.task}/{table}"

    def capture(self, **options: Any) -> PostgresCapture:
        if "two_phase" in options and self.server.version == 17:
            # Together with failover it is refused there, also when the slot once was made so.
            options = {"failover": False, **options}
        return PostgresCapture(**{"dsn": Secret(self.dsn), "tables": ["public.*"], **options})

    def outlet(self, resume: PostgresPosition | None = None, *, auto_sync: bool = True) -> Out:
        return MemoryOutlet(self.task, PostgresPosition, resume, auto_sync=auto_sync)

    @contextlib.asynccontextmanager
    async def capturing(self, out: Out | None = None, **options: Any) -> AsyncIterator[Out]:
        """A capture that runs during the block, from where the outlet stands."""
        out = out or self.outlet()
        capture = self.capture(**options)
        async with anyio.create_task_group() as group:
            group.start_soon(capture.run, out.crash(), out)
            yield out
            group.cancel_scope.cancel()
        await self.released()

    async def released(self) -> None:
        """Wait until the server has noticed that nobody reads from the slot any more."""
        with anyio.fail_after(30):
            while self.rows(
                f"select from pg_replication_slots where active and slot_name = 'hub_{self.task}'"
            ):
                await anyio.lowlevel.checkpoint()

    async def started(self, **options: Any) -> Out:
        """An outlet after a first run that has copied `t`."""
        self.run("create table t (id int primary key, b text)", "insert into t values (1, 'a')")
        async with self.capturing(**options) as out:
            await self.copied(out, "public.t")
            await self.caught_up(out)
            await self.settled(out)
        return out

    async def fails(self, out: Out, **options: Any) -> BaseException:
        """The error that a run ends with."""
        with anyio.fail_after(30):
            try:
                await self.capture(**options).run(out.crash(), out)
            except (FatalError, TransientError) as error:
                return error
        raise AssertionError("the capture ended without an error")

    async def settled(self, out: Out) -> None:
        """Wait until nothing is under copy any more."""

        def claim() -> bool:
            position = out.frames[-1].position if out.frames else None
            return isinstance(position, PostgresPosition) and position.is_settled

        await out.until(claim)

    async def copied(self, out: Out, *tables: str) -> None:
        """Wait until these tables are copied."""
        names = [self.collection(table) for table in tables]

        def claim() -> bool:
            return all(
                name in out.snapshots and out.snapshots[name][0] == out.snapshots[name][1] for name in names
            )

        await out.until(claim)

    async def caught_up(self, out: Out, *, timeout_s: float = 60) -> None:
        """Wait until everything that is committed now was sent, by sending a mark after it."""
        mark = f"mark {next(_numbers)}"
        self.run(
            "create table if not exists public.marks (id text primary key)",
            f"insert into public.marks values ('{mark}')",
        )
        await out.until(
            lambda: any(
                doc.get("id") == mark
                for batch in out.batches(self.collection("public.marks"))
                for doc in batch.docs
            ),
            timeout_s=timeout_s,
        )

    def replica(self, out: Out, table: str, key: tuple[str, ...] = ("id",)) -> Replica:
        return Replica.of(out.records(self.collection(table)), key)

    def changes(self, out: Out, table: str) -> list[Record]:
        """What came by the stream."""
        return [record for record in out.records(self.collection(table)) if not record.meta.get("snapshot")]


@pytest.fixture
def source(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    for waits, seconds in {
        "FEEDBACK_POLL_S": 0.05,
        "COPY_STATUS_S": 0.1,
        "MARK_S": 0.1,
        "IDLE_POSITION_S": 0.5,
    }.items():
        monkeypatch.setattr(session, waits, seconds)
    name = f"shop_{next(_numbers)}"
    with temporary_database(postgres_server, name) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("create table public.marks (id text primary key)")
        yield Source(postgres_server, name, dsn)
