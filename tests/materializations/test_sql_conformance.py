"""The SQL materializations through the conformance kit, against real databases."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hub_materializations.duckdb import DuckDBMaterialization
from hub_materializations.postgres import PostgresMaterialization

from hub.schema import ColumnType
from hub.spec import Secret
from hub.testing.materialization import Subject, check_materialization
from hub.testing.postgres import PostgresServer
from hub.testing.values import Exact

SEEDS = range(200)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def columns_of(wanted: Mapping[str, ColumnType], there: list[str], *, folds: bool) -> dict[str, str]:
    """The column of each field, found by the rule for names."""
    from hub_materializations.sql.names import assigned

    ids = {("field", (name,)): name for name in wanted}
    found = assigned(ids, there, folds_case=folds, bytes_max=None if folds else 63)
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
            names = columns_of(columns, there, folds=True)
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
            names = columns_of(columns, there, folds=False)
            cells = ", ".join(self._cell(quoted(names[name]), column) for name, column in columns.items())
            rows = connection.execute(f"SELECT {cells} FROM {self._schema}.{table}".encode()).fetchall()
        return [dict(zip(columns, map(marked, row, columns.values()), strict=True)) for row in rows]

    def _cell(self, name: str, column: ColumnType) -> str:
        if column.kind == "bytes":
            return name
        return f"to_json({name})::text" if column.kind == "array" else f"{name}::text"


def marked(value: Any, column: ColumnType) -> Any:
    if value is None:
        return None
    return Exact(value) if column.kind in ("json", "object") else value


@pytest.fixture
def duckdb_subjects() -> Iterator[Callable[[], Subject]]:
    """Files in memory where there is such a place: the kit's kills are not power cuts."""
    numbers = itertools.count()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield lambda: DuckDBSubject(Path(folder) / f"{next(numbers)}.duckdb")


@pytest.mark.anyio
@pytest.mark.timeout(600)
async def test_duckdb_equals_the_model_after_any_history(duckdb_subjects: Callable[[], Subject]) -> None:
    await check_materialization(duckdb_subjects, seeds=SEEDS)


@pytest.mark.anyio
@pytest.mark.timeout(600)
async def test_postgres_equals_the_model_after_any_history(postgres_server: PostgresServer) -> None:
    numbers = itertools.count()
    await check_materialization(
        lambda: PostgresSubject(postgres_server, f"kit_{next(numbers)}"), seeds=SEEDS
    )
