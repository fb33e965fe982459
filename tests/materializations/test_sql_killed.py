"""SIGKILL at any moment: what the tables hold is what the cursor says, across tables, and nothing twice."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from hub.materialization import Materialization
from hub.record import TaskName
from hub.spec import Secret
from hub.testing.mariadb import MariaDBMissing, MariaDBServer
from hub.testing.postgres import PostgresServer
from hub_materializations.duckdb import DuckDBMaterialization
from hub_materializations.mysql import MySQLMaterialization
from hub_materializations.postgres import PostgresMaterialization
from hub_materializations.sql.dialect import TableName
from hub_materializations.sql.sink import SqlSink
from hub_materializations.sqlite import SQLiteMaterialization

KILLS = 6
WRITER = """
import sys, anyio, msgspec
from hub.registry import connector
from hub.materialization import Binding
from hub.record import Batch, Cursor, Place, TaskName
from hub.schema import describe
from hub.schema.types import INT64, STRING

async def main():
    name, options = sys.argv[1], msgspec.json.decode(sys.argv[2])
    spec = connector("materialization", name)
    made = spec.parse(options, lambda path, message, **_: sys.exit(f"{path}: {message}"))
    async with made.open(TaskName("killed")) as sink:
        cursor = await sink.restore()
        seq = cursor.journals["j"].seq if cursor.journals else 0
        columns = {"id": INT64.null(False), "seq": INT64, "text": STRING}
        bindings = []
        for table, mode in (("left", "upsert"), ("right", "append")):
            options = spec.binding_type.parse({"from": table, "table": table, "mode": mode}, print)
            bindings.append(Binding(table, table, options))
            await sink.describe(bindings[-1], describe(table, columns, ("id",)))
        while True:
            seq += 1
            docs = [{"id": i, "seq": seq, "text": "x" * 100} for i in range(seq % 7 + (300 if seq % 5 == 0 else 1))]
            for binding in bindings:
                await sink.write(binding, Batch.of_docs(binding.collection, docs))
            await sink.commit(Cursor({"j": Place(1, seq)}))
            print(seq, flush=True)

anyio.run(main)
"""


def rows_of(seq: int) -> int:
    """Rows of the transaction with this number; as the writer makes them."""
    return seq % 7 + (300 if seq % 5 == 0 else 1)


async def state(materialization: Materialization) -> tuple[int, list[Any], list[Any]]:
    """The cursor and the newest transaction in each table, as a new sink finds them."""
    async with materialization.open(TaskName("killed")) as sink:
        assert isinstance(sink, SqlSink)
        cursor = await sink.restore()
        assert cursor is not None
        driver = sink._driver
        left, right = (TableName(driver.default_schema, t).sql(driver.dialect) for t in ("left", "right"))
        newest = driver.fetch(
            f"SELECT max(seq), count(*) FROM {left} WHERE seq = (SELECT max(seq) FROM {left})"
        )
        all_ = driver.fetch(f"SELECT max(seq), count(*), count(DISTINCT seq) FROM {right}")
        return (cursor.journals["j"].seq if cursor.journals else 0), list(newest[0]), list(all_[0])


def kill_and_look(name: str, options: Mapping[str, Any], materialization: Materialization, seed: int) -> None:
    """Kill the writer after some commits, wherever it is in the transaction that follows."""
    chance = random.Random(seed)
    for _ in range(KILLS):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, name, msgspec.json.encode(options).decode()],
            stdout=subprocess.PIPE,
        )
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(chance.randint(1, 25))]
        time.sleep(chance.random() * 0.02)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        seq, left, right = anyio.run(state, materialization)
        assert seq >= told[-1], "what a commit has returned for stays"
        assert left == [seq, rows_of(seq)], "the tables and the cursor belong together"
        assert right == [seq, sum(map(rows_of, range(1, seq + 1))), seq], "each transaction once"


def test_duckdb_survives_kills(tmp_path: Path) -> None:
    options = {"path": str(tmp_path / "w.duckdb")}
    kill_and_look("duckdb", options, DuckDBMaterialization(**options), 1)


def test_sqlite_survives_kills(tmp_path: Path) -> None:
    options = {"path": str(tmp_path / "w.db")}
    kill_and_look("sqlite", options, SQLiteMaterialization(**options), 2)


def test_postgres_survives_kills(postgres_server: PostgresServer) -> None:
    options = {"dsn": postgres_server.dsn, "schema": "killed"}
    spec = PostgresMaterialization(dsn=Secret(postgres_server.dsn), schema="killed")
    kill_and_look("postgres", options, spec, 3)


def test_mysql_survives_kills() -> None:
    try:
        server = MariaDBServer()
    except MariaDBMissing as error:
        pytest.skip(str(error))
    with server:
        options = {
            "port": server.port,
            "user": server.user,
            "password": server.password,
            "database": server.database,
        }
        spec = MySQLMaterialization(
            port=server.port, user=server.user, password=Secret(server.password), database=server.database
        )
        kill_and_look("mysql", options, spec, 4)
