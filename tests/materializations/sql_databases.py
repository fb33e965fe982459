"""An empty database of each kind, to write to through its sink and to look into past it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from hub.materialization import Binding, Materialization
from hub.record import Batch, Cursor, Place, TaskName
from hub.schema import CollectionSchema, ColumnType, describe
from hub.schema.types import INT64
from hub.spec import Secret
from hub.testing.mariadb import MariaDBServer
from hub.testing.postgres import PostgresServer, temporary_database
from hub_materializations.duckdb import DuckDBMaterialization
from hub_materializations.mysql import MySQLMaterialization
from hub_materializations.postgres import PostgresMaterialization
from hub_materializations.sql.binding import SqlBinding
from hub_materializations.sqlite import SQLiteMaterialization

Run = Callable[[str], Sequence[tuple[Any, ...]]]
DATABASES = ("duckdb", "postgres", "mysql", "sqlite")


class Database:
    """An empty database, and how to look into it past the sink."""

    def __init__(
        self, spec: Materialization, connect: Callable[[], contextlib.AbstractContextManager[Run]]
    ) -> None:
        self.spec = spec
        self.connect = connect
        self.table = "t"
        self._seq = 0

    def run(self, *texts: str) -> list[tuple[Any, ...]]:
        """What the last of these statements gives."""
        with self.connect() as run:
            found: Sequence[tuple[Any, ...]] = []
            for text in texts:
                found = run(text)
        return list(found)

    async def write(
        self, kind: ColumnType, docs: Sequence[dict[str, Any]], *, ops: bytes | None = None, **options: Any
    ) -> None:
        """A transaction of documents `{k, n}` whose key `k` is of this kind now."""
        schema = describe("c/t", {"k": kind.null(False), "n": INT64}, ("k",))
        await self.write_as(schema, docs, ops=ops, **options)

    async def write_as(
        self,
        schema: CollectionSchema,
        docs: Sequence[dict[str, Any]],
        *,
        ops: bytes | None = None,
        **options: Any,
    ) -> None:
        """A transaction of documents of this schema."""
        binding = Binding("c/t", self.table, SqlBinding(source="c/t", **options))
        self._seq += 1
        async with self.spec.open(TaskName("keys")) as sink:
            await sink.restore()
            await sink.describe(binding, schema)
            await sink.write(binding, Batch.of_docs("c/t", docs, ops=ops))
            await sink.commit(Cursor({"j": Place(1, self._seq)}))


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    kind = request.param

    @contextlib.contextmanager
    def in_file(connect: Callable[[], Any]) -> Iterator[Run]:
        with contextlib.closing(connect()) as connection:
            yield lambda text: connection.execute(text).fetchall()

    if kind == "duckdb":
        path = str(tmp_path / "w.duckdb")
        yield Database(DuckDBMaterialization(path=path), lambda: in_file(lambda: duckdb.connect(path)))
    elif kind == "sqlite":
        path = str(tmp_path / "w.db")
        connect = lambda: sqlite3.connect(path, isolation_level=None)  # noqa: E731
        yield Database(SQLiteMaterialization(path=path), lambda: in_file(connect))
    elif kind == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        with temporary_database(server, "keys") as dsn:

            @contextlib.contextmanager
            def in_postgres() -> Iterator[Run]:
                with psycopg.connect(dsn, autocommit=True) as connection:

                    def run(text: str) -> Sequence[tuple[Any, ...]]:
                        cursor = connection.execute(text.encode())
                        return cursor.fetchall() if cursor.description else []

                    yield run

            yield Database(PostgresMaterialization(dsn=Secret(dsn)), in_postgres)
    else:
        mariadb: MariaDBServer = request.getfixturevalue("mariadb_server")
        name = f"keys_{abs(hash(request.node.name)):x}"

        @contextlib.contextmanager
        def in_mysql() -> Iterator[Run]:
            with contextlib.closing(mariadb.connect()) as connection, connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE IF NOT EXISTS {name}")
                cursor.execute(f"USE {name}")

                def run(text: str) -> Sequence[tuple[Any, ...]]:
                    cursor.execute(text)
                    return list(cursor.fetchall())

                yield run

        with in_mysql():
            pass
        spec = MySQLMaterialization(
            port=mariadb.port, user=mariadb.user, password=Secret(mariadb.password), database=name
        )
        yield Database(spec, in_mysql)
