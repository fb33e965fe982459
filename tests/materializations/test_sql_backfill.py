"""A backfill that is killed: the table is swept as a whole or not at all, and what was seen is not forgotten. From the
log, a table that only grows is filled anew as a whole or not at all."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from hub.errors import FatalError
from hub.materialization import Binding, Materialization
from hub.record import Batch, Cursor, Place, TaskName
from hub.schema import CollectionSchema, describe
from hub.schema.types import INT64, STRING
from hub.spec import Secret
from hub.testing.mariadb import MariaDBServer
from hub.testing.postgres import PostgresServer
from hub_materializations.duckdb import DuckDBMaterialization
from hub_materializations.mysql import MySQLMaterialization
from hub_materializations.postgres import PostgresMaterialization
from hub_materializations.sql.binding import SqlBinding
from hub_materializations.sql.dialect import TableName
from hub_materializations.sql.sink import SqlSink
from hub_materializations.sqlite import SQLiteMaterialization

READS = 40
ROWS = 20 * READS
END = READS + 3
"""The transaction with the last mark."""
MODES = {"hard": {}, "soft": {"deletes": "soft"}, "versions": {"mode": "history"}}
ANEW = {"added": {"mode": "append"}, "versions_anew": {"mode": "history"}}
"""Read again from the log."""

LIVE = {"hard": "1 = 1", "soft": "_deleted_at IS NULL", "versions": "_is_current"}
LIVE |= {"added": "1 = 1", "versions_anew": "_is_current"}

WRITER = """
import sys, anyio, msgspec
from hub.errors import TransientError
from hub.registry import connector
from hub.materialization import Binding
from hub.record import Batch, Cursor, Place, TaskName
from hub.schema import describe
from hub.schema.types import INT64, STRING

READS, ROWS, MODES, MARKED = msgspec.json.decode(sys.argv[3])

def transaction(seq):
    if seq == 1:
        return [([{"id": i, "text": f"row {i}"} for i in range(ROWS)], b"c" * ROWS)]
    if seq == 2:
        return [([{}], b"b")]
    if seq == READS + 3:
        return [([{}], b"s")]
    # Every second row is still there; one of them is written, and not read.
    ids = range((seq - 3) * 20, (seq - 2) * 20, 2)
    docs = [{"id": i, "text": f"row {i}"} for i in ids]
    return [(docs[1:], b"r" * (len(docs) - 1)), ([dict(docs[0], text="written")], b"u")]

async def main():
    name, options = sys.argv[1], msgspec.json.decode(sys.argv[2])
    spec = connector("materialization", name)
    made = spec.parse(options, lambda path, message, **_: sys.exit(f"{path}: {message}"))
    async with made.open(TaskName("killed")) as sink:
        cursor = await sink.restore()
        seq = cursor.journals["j"].seq if cursor.journals else 0
        bindings = []
        for table, chosen in MODES.items():
            options = spec.binding_type.parse({"from": table, "table": table, **chosen}, print)
            bindings.append(Binding(table, table, options))
            await sink.describe(bindings[-1], describe(table, {"id": INT64.null(False), "text": STRING}, ("id",)))
        while seq < READS + 3:
            seq += 1
            print("writing", seq, flush=True)
            for docs, ops in transaction(seq):
                for binding in bindings:
                    shared = MARKED if ops in (b"b", b"s") else {}
                    await sink.write(binding, Batch.of_docs(binding.collection, docs, ops=ops, shared=shared))
            print("written", seq, flush=True)
            await sink.commit(Cursor({"j": Place(1, seq)}))
            print("committed", seq, flush=True)

while True:
    try:
        anyio.run(main)
        break
    except TransientError:
        # MySQL makes tables outside of transactions, and asks for the transaction again.
        continue
"""


async def state(
    materialization: Materialization, tables: Mapping[str, Any]
) -> tuple[int, list[int], list[tuple[str, ...]]]:
    """The cursor, how many rows live in each table, and the tables of hub's own that are left."""
    async with materialization.open(TaskName("killed")) as sink:
        assert isinstance(sink, SqlSink)
        cursor = await sink.restore()
        assert cursor is not None
        driver = sink._driver
        live = []
        for table in tables:
            where = LIVE[table]
            name = TableName(driver.default_schema, table)
            there = driver.existing(name) is not None
            query = f"SELECT count(*) FROM {name.sql(driver.dialect)} WHERE {where}"
            live.append(int(driver.fetch(query)[0][0]) if there else 0)
        name = TableName(driver.default_schema, "hub_backfills")
        there = driver.existing(name) is not None
        going_on = driver.fetch(f"SELECT target FROM {name.sql(driver.dialect)}") if there else []
        return (cursor.journals["j"].seq if cursor.journals else 0), live, going_on


def kill_and_look(
    name: str,
    options: Mapping[str, Any],
    materialization: Materialization,
    modes: Mapping[str, Any] = MODES,
    marked: Mapping[str, Any] = {},
) -> None:
    """Kill the writer as soon as it says each of these: around the first mark, between, around the last."""
    plan = msgspec.json.encode((READS, ROWS, modes, marked)).decode()
    for moment in (
        "writing 2",
        "written 2",
        "committed 2",
        "written 20",
        f"written {END}",
        f"committed {END}",
    ):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, name, msgspec.json.encode(options).decode(), plan],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        with writer.stdout as said:
            reached = any(line == f"{moment}\n" for line in said)
        writer.kill()
        assert reached or writer.wait() == 0
        writer.wait()
        seq, live, going_on = anyio.run(state, materialization, modes)
        assert live == [0 if not seq else ROWS // 2 if seq == END else ROWS] * len(modes), f"at {seq}"
        assert len(going_on) == (len(modes) if 1 < seq < END else 0)
    assert seq == END


def test_duckdb_sweeps_once_and_as_a_whole(tmp_path: Path) -> None:
    options = {"path": str(tmp_path / "w.duckdb")}
    kill_and_look("duckdb", options, DuckDBMaterialization(**options))


def test_duckdb_is_filled_anew_once_and_as_a_whole(tmp_path: Path) -> None:
    options = {"path": str(tmp_path / "w.duckdb")}
    kill_and_look("duckdb", options, DuckDBMaterialization(**options), ANEW, {"from_log": "this"})


def test_sqlite_sweeps_once_and_as_a_whole(tmp_path: Path) -> None:
    options = {"path": str(tmp_path / "w.db")}
    kill_and_look("sqlite", options, SQLiteMaterialization(**options))


def test_sqlite_is_filled_anew_once_and_as_a_whole(tmp_path: Path) -> None:
    options = {"path": str(tmp_path / "w.db")}
    kill_and_look("sqlite", options, SQLiteMaterialization(**options), ANEW, {"from_log": "this"})


def test_postgres_sweeps_once_and_as_a_whole(postgres_server: PostgresServer) -> None:
    options = {"dsn": postgres_server.dsn, "schema": "swept"}
    spec = PostgresMaterialization(dsn=Secret(postgres_server.dsn), schema="swept")
    kill_and_look("postgres", options, spec)


def test_postgres_is_filled_anew_once_and_as_a_whole(postgres_server: PostgresServer) -> None:
    options = {"dsn": postgres_server.dsn, "schema": "anew"}
    spec = PostgresMaterialization(dsn=Secret(postgres_server.dsn), schema="anew")
    kill_and_look("postgres", options, spec, ANEW, {"from_log": "this"})


def mysql(server: MariaDBServer, database: str) -> tuple[dict[str, Any], Materialization]:
    with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {database}")
    options = {"port": server.port, "user": server.user, "password": server.password, "database": database}
    return options, MySQLMaterialization(
        port=server.port, user=server.user, password=Secret(server.password), database=database
    )


def test_mysql_sweeps_once_and_as_a_whole(mariadb_server: MariaDBServer) -> None:
    kill_and_look("mysql", *mysql(mariadb_server, "swept"))


def test_mysql_is_filled_anew_once_and_as_a_whole(mariadb_server: MariaDBServer) -> None:
    kill_and_look("mysql", *mysql(mariadb_server, "anew"), ANEW, {"from_log": "this"})


@pytest.mark.anyio
async def test_a_table_that_is_first_filled_from_the_log_keeps_all_of_it_when_another_restarts(
    tmp_path: Path,
) -> None:
    """Its mark comes before its first document, when there is no table yet that rows could go beside."""
    spec = SQLiteMaterialization(path=str(tmp_path / "w.db"))
    old, new = (Binding(name, name, SqlBinding(source=name, mode="append")) for name in ("old", "new"))
    known = describe("old", {"id": INT64, "text": STRING})
    unknown = CollectionSchema("new", ("/id",), is_open=True)
    learnt = describe("new", {"id": INT64, "text": STRING}, ("id",))
    mark = {"from_log": "this"}

    async def run(seq: int, *work: tuple[Binding, CollectionSchema | Batch]) -> None:
        async with spec.open(TaskName("restarts")) as sink:
            await sink.restore()
            for binding, item in work:
                if isinstance(item, CollectionSchema):
                    await sink.describe(binding, item)
                else:
                    await sink.write(binding, item)
            await sink.commit(Cursor({"j": Place(1, seq)}))

    def rows(name: str, *ids: int) -> Batch:
        return Batch.of_docs(name, [{"id": i, "text": "t"} for i in ids])

    def marked(name: str, op: bytes) -> Batch:
        return Batch.of_docs(name, [{}], ops=op, shared=mark)

    await run(9, (old, known), (old, rows("old", 1, 2)))
    await run(1, (new, unknown), (new, marked("new", b"b")))
    await run(2, (new, learnt), (new, rows("new", 1)))
    await run(3, (old, known), (old, marked("old", b"b")), (old, rows("old", 1)))
    await run(4, (new, learnt), (new, rows("new", 2)), (old, known), (old, rows("old", 2)))
    with contextlib.closing(sqlite3.connect(tmp_path / "w.db")) as connection:
        assert connection.execute("SELECT count(*) FROM old").fetchall() == [(2,)]
    await run(5, (old, known), (old, marked("old", b"s")), (new, learnt), (new, marked("new", b"s")))
    await run(6, (new, learnt), (new, rows("new", 3)), (old, known), (old, rows("old", 3)))
    with contextlib.closing(sqlite3.connect(tmp_path / "w.db")) as connection:
        for name in ("old", "new"):
            found = connection.execute(f"SELECT id FROM {name} ORDER BY id").fetchall()
            assert found == [(1,), (2,), (3,)], name
        assert connection.execute("SELECT count(*) FROM hub_backfills").fetchall() == [(0,)]


@pytest.mark.anyio
async def test_values_of_a_users_column_that_the_log_does_not_have_are_not_lost(tmp_path: Path) -> None:
    spec = SQLiteMaterialization(path=str(tmp_path / "w.db"))
    binding = Binding("old", "old", SqlBinding(source="old", mode="append"))

    async def run(seq: int, *work: Batch) -> None:
        async with spec.open(TaskName("columns")) as sink:
            await sink.restore()
            await sink.describe(binding, describe("old", {"id": INT64}))
            for batch in work:
                await sink.write(binding, batch)
            await sink.commit(Cursor({"j": Place(1, seq)}))

    mark = {"from_log": "this"}
    await run(9, Batch.of_docs("old", [{"id": 1}]))
    with contextlib.closing(sqlite3.connect(tmp_path / "w.db")) as connection, connection:
        connection.execute("ALTER TABLE old ADD COLUMN mine TEXT")
        connection.execute("ALTER TABLE old ADD COLUMN kind TEXT DEFAULT 'plain'")
        connection.execute("UPDATE old SET mine = 'a note'")
    await run(1, Batch.of_docs("old", [{}], ops=b"b", shared=mark), Batch.of_docs("old", [{"id": 1}]))
    sweep = Batch.of_docs("old", [{}], ops=b"s", shared=mark)
    with pytest.raises(FatalError, match="column mine of old holds values"):
        await run(2, sweep)
    with contextlib.closing(sqlite3.connect(tmp_path / "w.db")) as connection, connection:
        assert connection.execute("SELECT * FROM old").fetchall() == [(1, "create", None, "a note", "plain")]
        connection.execute("UPDATE old SET mine = NULL")
    await run(2, sweep)
    with contextlib.closing(sqlite3.connect(tmp_path / "w.db")) as connection:
        assert connection.execute("SELECT * FROM old").fetchall() == [(1, "create", None, None, "plain")]
