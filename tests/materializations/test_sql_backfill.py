"""A backfill that is killed: the table is swept as a whole or not at all, and what was seen is not forgotten. From the
log, a table that only grows is filled anew as a whole or not at all."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import msgspec

from hub.materialization import Materialization
from hub.record import TaskName
from hub.spec import Secret
from hub.testing.mariadb import MariaDBServer
from hub.testing.postgres import PostgresServer
from hub_materializations.duckdb import DuckDBMaterialization
from hub_materializations.mysql import MySQLMaterialization
from hub_materializations.postgres import PostgresMaterialization
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
