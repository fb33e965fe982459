"""What stands on a column survives that its type changes, and so do its values when that is cut short."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from hub.errors import TransientError
from hub.materialization import Binding, Materialization
from hub.record import Batch, Cursor, Place, TaskName
from hub.schema import ColumnType, describe
from hub.schema.types import BOOLEAN, INT32, INT64, JSON, STRING
from hub.spec import Secret
from hub.testing.mariadb import MariaDBServer
from hub.testing.postgres import PostgresServer, temporary_database
from hub_materializations.duckdb import DuckDBMaterialization
from hub_materializations.mysql import MySQLMaterialization
from hub_materializations.postgres import PostgresMaterialization
from hub_materializations.sql.binding import SqlBinding
from hub_materializations.sql.sink import SqlSink
from hub_materializations.sqlite import SQLiteMaterialization

BINDING = Binding("c/public.t", "t", SqlBinding(source="c/public.t"))


async def written(materialization: Materialization, kind: ColumnType, value: Any, seq: int) -> None:
    """One more row of the table, whose field `n` is of this kind now."""
    async with materialization.open(TaskName("evolution")) as sink:
        await sink.restore()
        await sink.describe(BINDING, describe("c/public.t", {"id": INT64.null(False), "n": kind}, ("id",)))
        await sink.write(BINDING, Batch.of_docs("c/public.t", [{"id": seq, "n": value}]))
        await sink.commit(Cursor({"j": Place(1, seq)}))


@pytest.mark.anyio
async def test_views_make_way_and_come_back_with_all_that_is_theirs(postgres_server: PostgresServer) -> None:
    with (
        temporary_database(postgres_server, "evolution") as dsn,
        psycopg.connect(dsn, autocommit=True) as connection,
    ):
        spec = PostgresMaterialization(dsn=Secret(dsn))
        await written(spec, INT32, 1, 1)
        for text in (
            "CREATE INDEX by_n ON t (n)",
            "CREATE VIEW simple WITH (security_barrier) AS SELECT id, n FROM t WHERE n IS NOT NULL",
            "COMMENT ON VIEW simple IS 'it''s theirs'",
            "COMMENT ON COLUMN simple.n IS 'a number'",
            'CREATE VIEW "on \'it" AS SELECT s.n, t.id FROM simple s JOIN t USING (id)',
            "CREATE MATERIALIZED VIEW kept AS SELECT n, count(*) AS c FROM simple GROUP BY n",
            "CREATE UNIQUE INDEX of_kept ON kept (n)",
            "CREATE VIEW beside AS SELECT id FROM t",
            "DROP ROLE IF EXISTS analyst",
            "CREATE ROLE analyst",
            "GRANT SELECT ON simple TO analyst WITH GRANT OPTION",
            'GRANT SELECT (n) ON "on \'it" TO analyst',
            "GRANT SELECT ON t TO analyst",
        ):
            connection.execute(text.encode())

        def theirs() -> list[Any]:
            return connection.execute(
                "SELECT relname::text, relkind, relacl::text, reloptions, obj_description(oid), "
                "(SELECT array_agg(attacl::text) FROM pg_attribute WHERE attrelid = c.oid AND attacl IS NOT NULL), "
                "(SELECT array_agg(col_description(c.oid, attnum) ORDER BY attnum) FROM pg_attribute "
                " WHERE attrelid = c.oid AND attnum > 0) "
                "FROM pg_class c WHERE relnamespace = 'public'::regnamespace ORDER BY relname"
            ).fetchall()

        before = theirs()
        oid = connection.execute("SELECT 'beside'::regclass::oid").fetchone()
        await written(spec, INT64, 1 << 40, 2)
        assert theirs() == before
        assert connection.execute('SELECT n, id FROM "on \'it" ORDER BY id').fetchall() == [
            (1, 1),
            (1 << 40, 2),
        ]
        assert connection.execute("SELECT * FROM kept").fetchall() == [(1, 1)]
        assert connection.execute("SELECT 'beside'::regclass::oid").fetchone() == oid
        connection.execute("DROP OWNED BY analyst CASCADE")
        connection.execute("DROP ROLE analyst")


@pytest.mark.anyio
async def test_sqlite_makes_indexes_views_and_triggers_again(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    spec = SQLiteMaterialization(path=str(path))
    await written(spec, INT32, 1, 1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for text in (
            "CREATE INDEX by_n ON t (n)",
            "CREATE VIEW v AS SELECT n FROM t",
            "CREATE VIEW w AS SELECT n FROM v",
            "CREATE TABLE told (n)",
            "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO told VALUES (new.n); END",
            "CREATE TRIGGER h INSTEAD OF INSERT ON v BEGIN SELECT new.n; END",
        ):
            connection.execute(text)
        names = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite%' ORDER BY name"
        before = connection.execute(names).fetchall()
    await written(spec, STRING, "two", 2)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute(names).fetchall() == before
        assert sorted(connection.execute("SELECT n FROM w")) == [('"two"',), ("1",)]
        assert connection.execute("SELECT n FROM told").fetchall() == [('"two"',)]


@pytest.mark.anyio
async def test_duckdb_rebuilds_a_table_with_its_indexes_checks_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with contextlib.closing(duckdb.connect(str(path))) as connection:
        for text in (
            "CREATE TABLE t (id BIGINT PRIMARY KEY, mine VARCHAR DEFAULT 'me', n INTEGER, CHECK (mine <> ''))",
            "INSERT INTO t VALUES (1, 'theirs', 1)",
            "CREATE INDEX by_n ON t (n, mine)",
            "CREATE VIEW v AS SELECT mine, n FROM t ORDER BY id",
            "COMMENT ON TABLE t IS 'it''s theirs'",
            "COMMENT ON COLUMN t.mine IS 'also'",
        ):
            connection.execute(text)
    spec = DuckDBMaterialization(path=str(path))
    await written(spec, INT64, 1 << 40, 2)
    await written(spec, STRING, "text", 3)
    with contextlib.closing(duckdb.connect(str(path))) as connection:
        assert connection.execute("FROM v").fetchall() == [
            ("theirs", "1"),
            ("me", str(1 << 40)),
            ("me", '"text"'),
        ]
        (text, comment) = connection.execute(
            "SELECT sql, comment FROM duckdb_tables() WHERE table_name = 't'"
        ).fetchall()[0]
        assert "PRIMARY KEY" in text and "CHECK((mine != ''))" in text and comment == "it's theirs"
        kept = "SELECT comment FROM duckdb_columns() WHERE column_name = 'mine' AND comment IS NOT NULL"
        assert connection.execute(kept).fetchall() == [("also",)]
        assert connection.execute("SELECT index_name FROM duckdb_indexes()").fetchall() == [("by_n",)]


@pytest.mark.anyio
async def test_mysql_keeps_the_values_when_a_change_of_type_is_cut_short_anywhere(
    mariadb_server: MariaDBServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = mariadb_server
    for cut in range(5):
        name = f"cut_{cut}"
        with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
            cursor.execute(f"USE {name}")
            spec = MySQLMaterialization(
                port=server.port, user=server.user, password=Secret(server.password), database=name
            )
            await written(spec, BOOLEAN, True, 1)
            for text in (
                "ALTER TABLE t ADD COLUMN mine varchar(9) DEFAULT 'me', ADD COLUMN at timestamp NULL ON UPDATE "
                "current_timestamp, ADD INDEX both_of (n DESC, mine(4)), MODIFY COLUMN n tinyint(1) COMMENT 'a % flag'",
                "UPDATE t SET mine = 'theirs', at = '2001-02-03'",
                "CREATE TRIGGER stamp BEFORE UPDATE ON t FOR EACH ROW SET NEW.mine = 'touched'",
                "CREATE VIEW v AS SELECT n, mine, cast(at AS char) FROM t",
            ):
                cursor.execute(text)
            done = itertools.count()
            run_all = SqlSink._run_all

            def cut_short(self: SqlSink, texts: Any, cut: int = cut, done: Any = done) -> None:
                for text in texts:
                    if next(done) == cut:
                        raise TransientError("the connection is gone")
                    run_all(self, [text])  # noqa: B023  the same in every turn

            with monkeypatch.context() as patched, contextlib.suppress(TransientError):
                patched.setattr(SqlSink, "_run_all", cut_short)
                await written(spec, JSON, {"now": "an object"}, 2)
            cursor.execute("SELECT count(*) FROM v")
            await written(spec, JSON, {"now": "an object"}, 2)
            cursor.execute("SELECT * FROM v ORDER BY n DESC")
            assert list(cursor.fetchall()) == [
                ('{"now":"an object"}', "me", None),
                ("true", "theirs", "2001-02-03 00:00:00"),
            ]
            cursor.execute("SHOW CREATE TABLE t")
            made = cursor.fetchall()[0][1]
            columns = [line.split("`")[1] for line in made.splitlines() if line.startswith("  `")]
            assert columns == ["id", "n", "mine", "at"]
            assert "COMMENT 'a % flag'" in made


@pytest.mark.anyio
async def test_a_plan_says_what_a_change_of_schema_would_do_and_does_nothing(
    mariadb_server: MariaDBServer, tmp_path: Path
) -> None:
    server = mariadb_server
    with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE planned")
    path = tmp_path / "w.db"
    specs: tuple[Materialization, ...] = (
        SQLiteMaterialization(path=str(path)),
        MySQLMaterialization(
            port=server.port, user=server.user, password=Secret(server.password), database="planned"
        ),
    )
    for spec in specs:
        first = describe("c/public.t", {"id": INT64.null(False), "n": BOOLEAN}, ("id",))
        made = await spec.plan(TaskName("evolution"), [(BINDING, first)])
        assert [text[:12] for text in made if not text.startswith("--")] == ["CREATE TABLE"] * 2
        await written(spec, BOOLEAN, True, 1)
        grown = describe("c/public.t", {"id": INT64.null(False), "n": JSON, "more": STRING}, ("id",))
        wanted = [(BINDING, grown)]
        planned = await spec.plan(TaskName("evolution"), wanted)
        assert any("ADD COLUMN" in text and "more" in text for text in planned)
        assert any("DROP TABLE" in text or "LOCK TABLES" in text for text in planned)
        assert await spec.plan(TaskName("evolution"), wanted) == planned
