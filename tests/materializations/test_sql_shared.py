"""Commits that nobody saw the end of, and tasks that share a database: MySQL and SQLite."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hub.errors import Fenced, TransientError
from hub.materialization import Binding, Materialization, Sink
from hub.record import Batch, Cursor, Place, TaskName
from hub.schema import describe
from hub.schema.types import INT64, STRING
from hub.spec import Duration, Interpolated, Secret
from hub.testing.mariadb import MariaDBServer
from hub_materializations.mysql import MySQLMaterialization
from hub_materializations.sql.binding import SqlBinding
from hub_materializations.sqlite import SQLiteMaterialization
from tests.materializations.cut import cutting

BINDING = Binding("c/t", "t", SqlBinding(source="c/t", table=Interpolated("t")))
SCHEMA = describe("c/t", {"id": INT64.null(False), "name": STRING}, ("id",))
WIDER = describe("c/t", {"id": INT64.null(False), "name": STRING, "more": STRING}, ("id",))
Run = Callable[[str], Sequence[tuple[Any, ...]]]


def at(seq: int) -> Cursor:
    return Cursor({"j": Place(1, seq)})


@asynccontextmanager
async def opened(spec: Materialization, task: str) -> AsyncIterator[Sink]:
    async with spec.open(TaskName(task)) as sink:
        await sink.restore()
        yield sink


async def write(sink: Sink, key: int, name: str) -> None:
    await sink.describe(BINDING, SCHEMA)
    await sink.write(BINDING, Batch.of_docs("c/t", [{"id": key, "name": name}]))


def mysql(server: MariaDBServer, database: str, port: int = 0) -> tuple[MySQLMaterialization, Run]:
    def run(text: str) -> Sequence[tuple[Any, ...]]:
        with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE IF NOT EXISTS {database}")
            cursor.execute(f"USE {database}")
            cursor.execute(text)
            return list(cursor.fetchall())

    run("SELECT 1")
    return MySQLMaterialization(
        port=port or server.port,
        user=server.user,
        password=Secret(server.password),
        database=database,
        lock_timeout=Duration(1),
    ), run


@pytest.fixture(params=["mysql", "sqlite"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Materialization, Run]:
    """A database whose locks are not waited for long, and a look into it."""
    if request.param == "mysql":
        server: MariaDBServer = request.getfixturevalue("mariadb_server")
        return mysql(server, f"shared_{abs(hash(request.node.name)):x}")
    path = str(tmp_path / "w.db")

    def run(text: str) -> Sequence[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return connection.execute(text).fetchall()

    return SQLiteMaterialization(path=path, lock_timeout=Duration(0.1)), run


@pytest.mark.anyio
@pytest.mark.parametrize("arrives", [True, False], ids=["answer lost", "commit lost"])
async def test_mysql_reads_back_a_commit_that_nobody_saw_the_end_of(
    mariadb_server: MariaDBServer, arrives: bool
) -> None:
    async with cutting(mariadb_server.port, arrives=arrives) as (port, armed):
        through, run = mysql(mariadb_server, f"lost_{'answer' if arrives else 'commit'}", port)
        async with opened(through, "lost") as sink:
            await write(sink, 1, "kept")
            await sink.commit(at(1))
            await write(sink, 2, "unknown")
            armed.set()
            with pytest.raises(TransientError):
                await sink.commit(at(2))
        armed.clear()
        async with through.open(TaskName("lost")) as sink:
            assert await sink.restore() == at(2 if arrives else 1)
        assert sorted(run("SELECT id FROM t")) == ([(1,), (2,)] if arrives else [(1,)])


@pytest.mark.anyio
async def test_tasks_that_share_a_database_have_cursors_and_fences_of_their_own(
    shared: tuple[Materialization, Run],
) -> None:
    spec, run = shared
    async with opened(spec, "one") as one:
        await write(one, 1, "one")
        await one.commit(at(5))
        async with opened(spec, "two") as two:
            await write(two, 2, "two")
            await two.commit(at(3))
        async with spec.open(TaskName("two")) as two:
            assert await two.restore() == at(3)
            await write(one, 3, "one")
            await one.commit(at(6))
            async with spec.open(TaskName("one")) as newer:
                assert await newer.restore() == at(6)
                with pytest.raises((Fenced, TransientError)):
                    await one.commit(at(7))
                await write(two, 4, "two")
                await two.commit(at(4))
                await newer.commit(at(8))
    assert sorted(run("SELECT id, name FROM t")) == [(1, "one"), (2, "two"), (3, "one"), (4, "two")]
    assert sorted(run("SELECT task FROM hub_cursors")) == [("one",), ("two",)]


@pytest.mark.anyio
async def test_a_lock_of_another_task_is_waited_for_and_then_tried_anew(
    shared: tuple[Materialization, Run],
) -> None:
    spec, run = shared
    async with opened(spec, "one") as one:
        await write(one, 1, "first")
        await one.commit(at(1))
        await write(one, 1, "one")
        with pytest.raises(TransientError, match=r"(?i)lock"):
            async with opened(spec, "two") as two:
                await write(two, 1, "two")
        if isinstance(spec, MySQLMaterialization):
            # A change of schema waits for whoever uses the table, which may be for a day unless it is told.
            with pytest.raises(TransientError, match=r"(?i)lock"):
                async with opened(spec, "two") as two:
                    await two.describe(BINDING, WIDER)
        await one.commit(at(2))
        assert run("SELECT id, name FROM t") == [(1, "one")]
        async with opened(spec, "two") as two:
            await write(two, 1, "two")
            await two.commit(at(1))
    assert run("SELECT id, name FROM t") == [(1, "two")]
