"""The type of a key changes: its rows stay the rows they are, and all that is the table's stays with it."""

from __future__ import annotations

from typing import Any

import pytest

from hub.errors import FatalError
from hub.materialization import Binding
from hub.record import Batch, Cursor, Place, TaskName
from hub.schema import ColumnType, describe
from hub.schema.types import INT32, INT64, JSON, STRING, TIMESTAMPTZ, UUID
from hub_materializations.duckdb import DuckDBMaterialization
from hub_materializations.mysql import MySQLMaterialization
from hub_materializations.postgres import PostgresMaterialization
from hub_materializations.sql.binding import Clash, SqlBinding
from hub_materializations.sqlite import SQLiteMaterialization
from tests.materializations.sql_databases import Database


def rows(database: Database) -> list[tuple[Any, ...]]:
    text = "varchar" if isinstance(database.spec, DuckDBMaterialization) else "char(99)"
    text = "text" if isinstance(database.spec, (PostgresMaterialization, SQLiteMaterialization)) else text
    return sorted((k.strip(), n) for k, n in database.run(f"SELECT CAST(k AS {text}), n FROM t"))


@pytest.mark.anyio
async def test_a_key_that_a_source_casts_to_text_names_the_same_rows(database: Database) -> None:
    await database.write(INT32, [{"k": 1, "n": 1}, {"k": 2, "n": 2}, {"k": 3, "n": 3}])
    await database.write(STRING, [{"k": "1", "n": 10}, {"k": "a b", "n": 4}, {"k": "2"}], ops=b"uud")
    assert rows(database) == [("1", 10), ("3", 3), ("a b", 4)]


@pytest.mark.anyio
async def test_numbers_and_texts_side_by_side_are_two_keys(database: Database) -> None:
    await database.write(INT64, [{"k": 1, "n": 1}])
    await database.write(JSON, [{"k": "1", "n": 2}, {"k": 1, "n": 3}, {"k": {"a": 1}, "n": 4}])
    assert rows(database) == [('"1"', 2), ("1", 3), ('{"a": 1}', 4)] or rows(database) == [
        ('"1"', 2),
        ("1", 3),
        ('{"a":1}', 4),
    ]
    await database.write(JSON, [{"k": "1"}, {"k": {"a": 1}}], ops=b"dd")
    assert rows(database) == [("1", 3)]


@pytest.mark.anyio
async def test_a_text_key_that_becomes_json_names_the_same_rows(database: Database) -> None:
    await database.write(STRING, [{"k": 'a "b"', "n": 1}, {"k": "1", "n": 2}])
    await database.write(JSON, [{"k": 'a "b"', "n": 10}, {"k": 1, "n": 3}, {"k": "1", "n": 20}])
    assert rows(database) == [('"1"', 20), ('"a \\"b\\""', 10), ("1", 3)]
    await database.write(STRING, [{"k": "1", "n": 30}])
    assert rows(database) == [('"1"', 30), ('"a \\"b\\""', 10), ("1", 3)]


@pytest.mark.anyio
async def test_moments_and_uuids_in_a_key_become_text(database: Database) -> None:
    await database.write(TIMESTAMPTZ, [{"k": "2024-01-01T00:00:00.5Z", "n": 1}])
    await database.write(STRING, [{"k": "2024-01-01T00:00:00.5Z", "n": 10}, {"k": "tomorrow", "n": 2}])
    assert rows(database) == [("2024-01-01T00:00:00.5Z", 10), ("tomorrow", 2)]
    database.run("DROP TABLE t")
    known = "123e4567-e89b-12d3-a456-426614174000"
    await database.write(INT32, [{"k": 7, "n": 7}])
    await database.write(UUID, [{"k": known, "n": 1}])
    assert rows(database) == [(known, 1), ("7", 7)]


@pytest.mark.anyio
async def test_versions_of_a_key_go_on_when_it_becomes_text(database: Database) -> None:
    await database.write(INT32, [{"k": 1, "n": 1}], mode="history")
    await database.write(STRING, [{"k": "1", "n": 2}], mode="history")
    assert [(k, n, bool(c)) for k, n, c in database.run("SELECT k, n, _is_current FROM t ORDER BY n")] == [
        ("1", 1, False),
        ("1", 2, True),
    ]


@pytest.mark.anyio
async def test_what_is_the_users_stays_when_a_key_is_rebuilt(database: Database) -> None:
    kind = database.spec.__class__
    made = {
        SQLiteMaterialization: (
            "CREATE TABLE t (mine VARCHAR(9) DEFAULT '(,' COLLATE NOCASE, k INTEGER PRIMARY KEY AUTOINCREMENT, n BIGINT "
            "CHECK (n < 100) -- a, comment\n, twice INT AS (n * 2) STORED)",
        ),
        DuckDBMaterialization: (
            "CREATE TABLE t (mine VARCHAR DEFAULT '(,', k BIGINT PRIMARY KEY, n BIGINT CHECK (n < 100))",
        ),
        PostgresMaterialization: (
            "CREATE TABLE t (mine varchar(9) DEFAULT '(,', k bigint PRIMARY KEY, n bigint CHECK (n < 100), "
            "twice bigint GENERATED ALWAYS AS (n * 2) STORED)",
            "DROP ROLE IF EXISTS reader",
            "CREATE ROLE reader",
            "GRANT SELECT ON t TO reader",
        ),
        MySQLMaterialization: (
            "CREATE TABLE t (mine varchar(9) DEFAULT '(,', k datetime(6) COMMENT 'UTC', n bigint CHECK (n < 100), "
            "twice bigint AS (n * 2) STORED, PRIMARY KEY (k))",
            "CREATE TABLE told (n bigint)",
            "CREATE TRIGGER tells AFTER INSERT ON t FOR EACH ROW INSERT INTO told VALUES (NEW.n)",
        ),
    }[kind]
    before, key = ("'2024-01-01'", "2024-01-01T00:00:00Z") if kind is MySQLMaterialization else ("1", "1")
    database.run(
        *made,
        f"INSERT INTO t (mine, k, n) VALUES ('theirs', {before}, 1)",
        "CREATE INDEX both_of ON t (mine, k)",
        "CREATE VIEW v AS SELECT mine, k, n FROM t",
    )
    await database.write(STRING, [{"k": key, "n": 2}, {"k": "b", "n": 3}])
    assert sorted(database.run("SELECT mine, k, n FROM v")) == [("(,", "b", 3), ("theirs", key, 2)]
    await database.write(STRING, [{"k": "c", "n": 4}], evolution="stop")
    if kind is not DuckDBMaterialization:
        assert sorted(database.run("SELECT twice FROM t")) == [(4,), (6,), (8,)]
    indexes = {
        SQLiteMaterialization: "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
        DuckDBMaterialization: "SELECT index_name FROM duckdb_indexes()",
        PostgresMaterialization: "SELECT indexname FROM pg_indexes WHERE indexname = 'both_of'",
        MySQLMaterialization: "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_schema = "
        "database() AND table_name = 't' AND index_name <> 'PRIMARY'",
    }[kind]
    assert database.run(indexes) == [("both_of",)]
    if kind is PostgresMaterialization:
        assert database.run("SELECT has_table_privilege('reader', 't', 'SELECT')") == [(True,)]
        database.run("DROP OWNED BY reader", "DROP ROLE reader")
    if kind is MySQLMaterialization:
        assert sorted(database.run("SELECT n FROM told")) == [(1,), (3,), (4,)]
    tables = {
        SQLiteMaterialization: "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'hub_new%'",
        DuckDBMaterialization: "SELECT table_name FROM duckdb_tables() WHERE table_name LIKE 'hub_new%'",
    }.get(kind)
    assert tables is None or database.run(tables) == []
    with pytest.raises(Exception, match=r"(?i)check|constraint"):
        database.run("INSERT INTO t (k, n) VALUES ('z', 1000)")


@pytest.mark.anyio
async def test_a_clash_goes_where_the_binding_says(database: Database) -> None:
    """Not in the key: into one column that holds both, into a column beside it, or it stops the task."""

    async def write(kind: ColumnType, value: Any, seq: int, clash: Clash) -> None:
        binding = Binding("c/t", "t", SqlBinding(source="c/t", clash=clash))
        async with database.spec.open(TaskName("keys")) as sink:
            await sink.restore()
            await sink.describe(binding, describe("c/t", {"k": INT64.null(False), "n": kind}, ("k",)))
            await sink.write(binding, Batch.of_docs("c/t", [{"k": seq, "n": value}]))
            await sink.commit(Cursor({"j": Place(1, seq)}))

    await write(INT32, 1, 1, "stop")
    await write(INT64, 1 << 40, 2, "stop")
    with pytest.raises(FatalError, match=r"column n is \w+ and the field n needs .* `clash: stop` forbids"):
        await write(STRING, "three", 3, "stop")
    short = ColumnType("string", length=9)
    await write(short, "three", 3, "new_column")
    await write(STRING, "four" * 9, 4, "new_column")
    await write(INT64, 5, 5, "new_column")
    found = sorted(database.run("SELECT * FROM t"))
    assert found == [
        (1, 1, None),
        (2, 1 << 40, None),
        (3, None, "three"),
        (4, None, "four" * 9),
        (5, 5, None),
    ]
    await write(STRING, "six", 6, "rebuild")
    shown = [
        (k, str(n), beside)
        for k, n, beside in sorted(database.run("SELECT * FROM t"), key=lambda row: row[0])
    ]
    assert shown[1] == (2, str(1 << 40), None)
    assert shown[5][2] is None
    assert "six" in shown[5][1]
