"""The SQL materializations through the conformance kit, against real databases."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest

from hub.schema import ColumnType
from hub.spec import Duration, Secret
from hub.testing.mariadb import MariaDBMissing, MariaDBServer
from hub.testing.materialization import check_materialization
from hub.testing.postgres import PostgresServer
from hub.testing.values import Exact
from hub_materializations.duckdb import DuckDBMaterialization
from hub_materializations.mysql import MySQLMaterialization
from hub_materializations.postgres import PostgresMaterialization
from hub_materializations.sql.names import NameRule, assigned
from hub_materializations.sqlite import SQLiteMaterialization

SEEDS = range(int(os.environ.get("HUB_HISTORIES", "40")))


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def columns_of(wanted: Mapping[str, ColumnType], there: list[str], rule: NameRule) -> dict[str, str]:
    """The column of each field, found by the rule for names."""
    found = assigned({("field", (name,)): name for name in wanted}, there, rule)
    return {name: found["field", (name,)] for name in wanted}


class DuckDBSubject:
    holds_extremes = True

    def __init__(self, path: Path) -> None:
        self.materialization = DuckDBMaterialization(path=str(path))
        self._path = path

    def read(self, table: str, columns: Mapping[str, ColumnType]) -> list[dict[str, Any]]:
        with contextlib.closing(duckdb.connect(str(self._path))) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            there = [name for (name, *_) in connection.execute(f"DESCRIBE {table}").fetchall()]
            names = columns_of(columns, there, NameRule(folds_case=True))
            cells = ", ".join(self._cell(quoted(names[name]), column) for name, column in columns.items())
            rows = connection.execute(f"SELECT {cells} FROM {table}").fetchall()
        return [dict(zip(columns, map(marked, row, columns.values()), strict=True)) for row in rows]

    def _cell(self, name: str, column: ColumnType) -> str:
        if column.kind == "bytes":
            return name
        return f"to_json({name})::VARCHAR" if column.kind in ("array", "json") else f"{name}::VARCHAR"


class PostgresSubject:
    holds_extremes = True

    def __init__(self, server: PostgresServer, schema: str) -> None:
        self.materialization = PostgresMaterialization(dsn=Secret(server.dsn), schema=schema)
        self._server = server
        self._schema = schema

    def read(self, table: str, columns: Mapping[str, ColumnType]) -> list[dict[str, Any]]:
        with self._server.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET IntervalStyle = 'iso_8601'")
            there = [
                row[0]
                for row in connection.execute(
                    "SELECT attname FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped AND attrelid = %s::regclass",
                    (f"{self._schema}.{table}",),
                )
            ]
            names = columns_of(columns, there, NameRule(63))
            cells = ", ".join(self._cell(quoted(names[name]), column) for name, column in columns.items())
            rows = connection.execute(f"SELECT {cells} FROM {self._schema}.{table}".encode()).fetchall()
        return [dict(zip(columns, map(marked, row, columns.values()), strict=True)) for row in rows]

    def _cell(self, name: str, column: ColumnType) -> str:
        if column.kind == "bytes":
            return name
        return f"to_json({name})::text" if column.kind == "array" else f"{name}::text"


class SQLiteSubject:
    holds_extremes = True

    def __init__(self, path: Path) -> None:
        self.materialization = SQLiteMaterialization(path=str(path), lock_timeout=Duration(0.02))
        self._path = path

    def read(self, table: str, columns: Mapping[str, ColumnType]) -> list[dict[str, Any]]:
        with contextlib.closing(sqlite3.connect(self._path)) as connection:
            there = [name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", [table])]
            names = columns_of(columns, there, NameRule(folds_case=True))
            cells = ", ".join(quoted(names[name]) for name in columns)
            rows = connection.execute(f"SELECT {cells} FROM {table}").fetchall()
        return [dict(zip(columns, map(marked, row, columns.values()), strict=True)) for row in rows]


class MySQLSubject:
    holds_extremes = False

    def __init__(self, server: MariaDBServer, database: str) -> None:
        with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {database}")
        self.materialization = MySQLMaterialization(
            port=server.port, user=server.user, password=Secret(server.password), database=database
        )
        self._server = server
        self._database = database

    def read(self, table: str, columns: Mapping[str, ColumnType]) -> list[dict[str, Any]]:
        with contextlib.closing(self._server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = %s",
                (self._database, table),
            )
            rule = NameRule(64, folds_case=True, basic_plane=True)
            names = columns_of(columns, [name for (name,) in cursor.fetchall()], rule)
            cells = ", ".join(self._cell(names[name].replace("`", "``"), c) for name, c in columns.items())
            cursor.execute(f"SELECT {cells} FROM {self._database}.{table}")
            rows = cursor.fetchall()
        return [dict(zip(columns, map(marked, row, columns.values()), strict=True)) for row in rows]

    def _cell(self, name: str, column: ColumnType) -> str:
        return f"`{name}`" if column.kind in ("bytes", "boolean") else f"CAST(`{name}` AS CHAR)"


def marked(value: Any, column: ColumnType) -> Any:
    if value is None:
        return None
    if column.kind in ("json", "object"):
        return Exact(value)
    return value if isinstance(value, (bytes, bool)) else str(value)


@pytest.fixture(scope="module")
def mariadb_server() -> Iterator[MariaDBServer]:
    try:
        server = MariaDBServer()
    except MariaDBMissing as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture
def files() -> Iterator[Callable[[], Path]]:
    """New paths, in memory where there is such a place: the kit's accidents are not power cuts."""
    numbers = itertools.count()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield lambda: Path(folder) / f"{next(numbers)}.db"


@pytest.mark.anyio
@pytest.mark.timeout(600)
async def test_duckdb_equals_the_model_after_any_history(files: Callable[[], Path]) -> None:
    await check_materialization(lambda: DuckDBSubject(files()), seeds=SEEDS)


@pytest.mark.anyio
@pytest.mark.timeout(600)
async def test_sqlite_equals_the_model_after_any_history(files: Callable[[], Path]) -> None:
    await check_materialization(lambda: SQLiteSubject(files()), seeds=SEEDS)


@pytest.mark.anyio
@pytest.mark.timeout(600)
async def test_postgres_equals_the_model_after_any_history(postgres_server: PostgresServer) -> None:
    numbers = itertools.count()
    await check_materialization(lambda: PostgresSubject(postgres_server, f"kit_{next(numbers)}"), seeds=SEEDS)


@pytest.mark.anyio
@pytest.mark.timeout(600)
async def test_mysql_equals_the_model_after_any_history(mariadb_server: MariaDBServer) -> None:
    numbers = itertools.count()
    await check_materialization(lambda: MySQLSubject(mariadb_server, f"kit_{next(numbers)}"), seeds=SEEDS)


@pytest.mark.anyio
@pytest.mark.timeout(600)
async def test_postgres_in_bulk_equals_the_model_after_any_history(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every load by COPY, straight into the table where rows should be new, else through a temporary one."""
    monkeypatch.setattr("hub_materializations.postgres.ROWS_SMALL", 0)
    monkeypatch.setattr("hub_materializations.postgres.DIRECT_OFF", 0)
    numbers = itertools.count()
    await check_materialization(
        lambda: PostgresSubject(postgres_server, f"bulk_{next(numbers)}"), seeds=SEEDS
    )


@pytest.mark.anyio
@pytest.mark.timeout(600)
async def test_mysql_in_bulk_equals_the_model_after_any_history(
    mariadb_server: MariaDBServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every load by LOAD DATA LOCAL, straight into the table where rows should be new, else through a temporary one."""
    monkeypatch.setattr("hub_materializations.mysql.ROWS_SMALL", 0)
    monkeypatch.setattr("hub_materializations.mysql.DIRECT_OFF", 0)
    numbers = itertools.count()
    await check_materialization(lambda: MySQLSubject(mariadb_server, f"bulk_{next(numbers)}"), seeds=SEEDS)
