"""SIGKILL while a table is rebuilt: the old table or the new one is there, whole, and nothing is left over."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import psycopg

from hub.testing.mariadb import MariaDBServer
from hub.testing.postgres import PostgresServer, temporary_database

ROWS = 3000
WRITER = """
import sys, anyio, msgspec
from hub.registry import connector
from hub.materialization import Binding
from hub.record import Batch, Cursor, Place, TaskName
from hub.schema import describe
from hub.schema.types import BOOLEAN, INT64, JSON, STRING
from hub_materializations.sql.sink import SqlSink

name, options, rows, step = sys.argv[1], *map(msgspec.json.decode, sys.argv[2:])
spec = connector("materialization", name)
made = spec.parse(options, lambda path, message, **_: sys.exit(f"{path}: {message}"))
binding = Binding("c/t", "t", spec.binding_type.parse({"from": "c/t"}, print))
run_all = SqlSink._run_all

def one_by_one(self, texts):
    for text in texts:
        if step:
            # Whoever reads this may kill, or say go on.
            print("about to", text, flush=True)
            sys.stdin.readline()
        run_all(self, [text])

SqlSink._run_all = one_by_one

async def main():
    async with made.open(TaskName("rebuilt")) as sink:
        cursor = await sink.restore()
        if not cursor.journals:
            await sink.describe(binding, describe("c/t", {"k": INT64.null(False), "n": BOOLEAN}, ("k",)))
            await sink.write(binding, Batch.of_docs("c/t", [{"k": k, "n": True} for k in range(rows)]))
            await sink.commit(Cursor({"j": Place(1, 1)}))
        if step is None:
            return
        await sink.describe(binding, describe("c/t", {"k": STRING.null(False), "n": JSON}, ("k",)))
        await sink.write(binding, Batch.of_docs("c/t", [{"k": "new", "n": "text"}]))
        print("about to commit", flush=True)
        if step:
            sys.stdin.readline()
        await sink.commit(Cursor({"j": Place(1, 2)}))

anyio.run(main)
"""


def finished(name: str, options: Mapping[str, Any], step: bool | None) -> bool:
    """A writer that nobody kills ends well."""
    with writer(name, options, step) as process:
        assert process.stdout is not None
        process.stdout.read()
    return process.returncode == 0


def writer(name: str, options: Mapping[str, Any], step: bool | None) -> subprocess.Popen[str]:
    arguments = [msgspec.json.encode(value).decode() for value in (options, ROWS, step)]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, name, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def kill_and_look(
    name: str, options: Mapping[str, Any], run: Callable[[str], Sequence[tuple[Any, ...]]], tables: str
) -> None:
    """Kill the writer before a statement and inside of it, for those around the swap."""
    assert finished(name, options, None)
    there = sorted(run(tables))
    for at, inside in ((1, False), (1, True), (2, True), (3, True), (4, False), (99, True)):
        with writer(name, options, True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for number, line in enumerate(process.stdout):
                last = number == at or line == "about to commit\n"
                if not last or inside:
                    process.stdin.write("\n")
                    process.stdin.flush()
                if last:
                    break
            process.kill()
        ((count, distinct),) = run("SELECT count(*), count(DISTINCT k) FROM t")
        # Killed inside of the commit, it may have come about.
        assert count == distinct
        assert count in (ROWS, ROWS + (at == 99))
    assert finished(name, options, False)
    ((count, true),) = run(
        "SELECT count(*), sum(CASE WHEN CAST(n AS char(9)) LIKE '%true%' THEN 1 ELSE 0 END) FROM t"
    )
    assert (count, true) == (ROWS + 1, ROWS)
    assert sorted(run(tables)) == there


def test_duckdb_is_rebuilt_as_a_whole_or_not(tmp_path: Path) -> None:
    path = str(tmp_path / "w.duckdb")

    def run(text: str) -> Sequence[tuple[Any, ...]]:
        with contextlib.closing(duckdb.connect(path)) as connection:
            return connection.execute(text).fetchall()

    run("CREATE TABLE t (k BIGINT PRIMARY KEY, n BOOLEAN)")
    run("CREATE INDEX by_n ON t (n)")
    tables = "SELECT table_name FROM duckdb_tables() UNION ALL SELECT index_name FROM duckdb_indexes()"
    kill_and_look("duckdb", {"path": path}, run, tables)


def test_sqlite_is_rebuilt_as_a_whole_or_not(tmp_path: Path) -> None:
    path = str(tmp_path / "w.db")

    def run(text: str) -> Sequence[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            return connection.execute(text).fetchall()

    run("CREATE TABLE t (k BIGINT PRIMARY KEY, n BOOLEAN)")
    run("CREATE INDEX by_n ON t (n)")
    run("CREATE VIEW v AS SELECT n FROM t")
    kill_and_look("sqlite", {"path": path}, run, "SELECT name FROM sqlite_master")


def test_postgres_is_rebuilt_as_a_whole_or_not(postgres_server: PostgresServer) -> None:
    with temporary_database(postgres_server, "rebuilt") as dsn:

        def run(text: str) -> Sequence[tuple[Any, ...]]:
            with psycopg.connect(dsn, autocommit=True) as connection:
                cursor = connection.execute(text.encode())
                return cursor.fetchall() if cursor.description else []

        run("CREATE TABLE t (k bigint PRIMARY KEY, n boolean)")
        run("CREATE VIEW v AS SELECT n FROM t")
        kill_and_look("postgres", {"dsn": dsn}, run, "SELECT relname FROM pg_class WHERE relnamespace = 2200")


def test_mysql_is_rebuilt_as_a_whole_or_not(mariadb_server: MariaDBServer) -> None:
    server = mariadb_server

    def run(text: str) -> Sequence[tuple[Any, ...]]:
        with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE IF NOT EXISTS rebuilt")
            cursor.execute("USE rebuilt")
            cursor.execute(text)
            return list(cursor.fetchall())

    run("CREATE TABLE t (k bigint PRIMARY KEY, n tinyint(1), INDEX by_n (n))")
    options = {"port": server.port, "user": server.user, "password": server.password, "database": "rebuilt"}
    tables = "SELECT column_name FROM information_schema.columns WHERE table_schema = 'rebuilt'"
    kill_and_look("mysql", options, run, tables)
