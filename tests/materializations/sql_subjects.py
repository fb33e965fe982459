"""The SQL databases as subjects of the conformance kit, each with a way to look into it that is not the sink's."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb

from hub.schema import ColumnType
from hub.spec import Duration, Secret
from hub.testing.histories import history
from hub.testing.mariadb import MariaDBServer
from hub.testing.materialization import Plan, Subject, compare, run_history
from hub.testing.postgres import PostgresServer
from hub.testing.values import Exact
from hub_materializations.duckdb import DuckDBMaterialization
from hub_materializations.mysql import MySQLMaterialization
from hub_materializations.postgres import PostgresMaterialization
from hub_materializations.sql.names import NameRule, assigned
from hub_materializations.sqlite import SQLiteMaterialization

HISTORIES = int(os.environ.get("HUB_HISTORIES", "200"))
RUNS = [range(start, min(start + 50, HISTORIES)) for start in range(0, HISTORIES, 50)]
"""The seeds of the histories that each database is put through, in runs that a timeout suits."""


async def check_changing_schema(subject: Subject, seed: int) -> None:
    """A schema that changes fifty times under load, with sinks that are dropped, cut short and replaced."""
    modes: tuple[dict[str, str], ...] = ({}, {"deletes": "soft"}, {"mode": "history"}, {"mode": "append"})
    plan = Plan(seed, modes[seed % len(modes)])
    told = history(
        seed,
        extremes=subject.holds_extremes,
        keyed=plan.options.get("mode") != "append",
        transactions=25,
        schema_changes=50,
    )
    await run_history(subject, told, plan)
    compare(subject, told, plan)


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
