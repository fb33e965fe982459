"""A table's key goes over to other columns: its rows stay, and what the key of before forbade may come."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from hub.errors import FatalError
from hub.materialization import Binding
from hub.record import TaskName
from hub.schema import CollectionSchema, ColumnType, describe
from hub.schema.types import INT64, JSON, STRING
from hub_materializations.sql.binding import SqlBinding
from hub_materializations.sqlite import SQLiteMaterialization
from tests.materializations.sql_databases import DATABASES, Database

FIELDS = {"id": INT64.null(False), "code": STRING.null(False), "n": INT64}
BEFORE: Sequence[dict[str, Any]] = [{"id": 1, "code": "a", "n": 1}, {"id": 2, "code": "b", "n": 2}]


def keyed(*key: str, **changed: ColumnType | None) -> CollectionSchema:
    fields = {name: kind for name, kind in {**FIELDS, **changed}.items() if kind is not None}
    return describe("c/t", fields, key)


def rows(database: Database, columns: str = "id, code, n") -> list[tuple[Any, ...]]:
    return sorted(database.run(f"SELECT {columns} FROM t"), key=repr)


@pytest.mark.anyio
async def test_rows_go_by_the_new_key_from_the_row_on_that_needs_it(database: Database) -> None:
    await database.write_as(keyed("id"), BEFORE)
    later = [{"id": 1, "code": "c", "n": 3}, {"id": 9, "code": "a", "n": 4}, {"code": "b"}]
    await database.write_as(keyed("code"), later, ops=b"cud")
    assert rows(database) == [(1, "c", 3), (9, "a", 4)]
    await database.write_as(keyed("id", "code"), [{"id": 1, "code": "a", "n": 5}])
    assert rows(database) == [(1, "a", 5), (1, "c", 3), (9, "a", 4)]
    await database.write_as(keyed("code", "id"), [{"id": 1, "code": "c", "n": 6}])
    assert (1, "c", 6) in rows(database)


@pytest.mark.anyio
async def test_a_column_that_was_the_key_may_go_and_be_null(database: Database) -> None:
    await database.write_as(keyed("id"), BEFORE)
    await database.write_as(keyed("code", id=None), [{"code": "c", "n": 3}, {"code": "a", "n": 4}])
    assert rows(database) == [(1, "a", 4), (2, "b", 2), (None, "c", 3)]


@pytest.mark.anyio
async def test_rows_marked_as_deleted_give_way(database: Database) -> None:
    await database.write_as(keyed("id"), BEFORE, deletes="soft")
    gone = [{"id": 1}, {"id": 3, "code": "a", "n": 3}, {"id": 2}]
    await database.write_as(keyed("id"), gone, ops=b"dcd", deletes="soft")
    await database.write_as(keyed("code"), [{"id": 4, "code": "a", "n": 4}], deletes="soft")
    assert rows(database, "id, code, n, _deleted_at IS NULL") == [(2, "b", 2, False), (4, "a", 4, True)]


@pytest.mark.anyio
async def test_rows_with_one_key_stop_the_task_and_are_kept(database: Database) -> None:
    twice = [*BEFORE, {"id": 3, "code": "a", "n": 3}, {"id": 4, "n": 4}]
    await database.write_as(keyed("id", code=STRING), twice)
    with pytest.raises(FatalError, match=r"(?s)1 rows have NULL.* several rows have the same one: \(a\);"):
        await database.write_as(keyed("code"), [{"id": 1, "code": "c", "n": 3}])
    assert len(rows(database)) == 4
    database.run("DELETE FROM t WHERE id > 2")
    await database.write_as(keyed("code"), [{"id": 1, "code": "c", "n": 3}])
    assert rows(database) == [(1, "a", 1), (1, "c", 3), (2, "b", 2)]


# DuckDB needs no declared key.
@pytest.mark.parametrize("database", [name for name in DATABASES if name != "duckdb"], indirect=True)
@pytest.mark.anyio
async def test_a_key_of_the_users_is_left_and_what_mends_it_does(database: Database) -> None:
    database.run("CREATE TABLE t (id bigint PRIMARY KEY, code varchar(9), n bigint)")
    await database.write_as(keyed("id"), BEFORE)
    with pytest.raises(FatalError, match="its primary key is yours") as caught:
        await database.write_as(keyed("code"), [{"id": 1, "code": "c", "n": 3}])
    if isinstance(database.spec, SQLiteMaterialization):
        return
    found = re.search(r"mend it with: (ALTER .*)", str(caught.value))
    assert found is not None
    database.run(*found[1].split("; "))
    await database.write_as(keyed("code"), [{"id": 1, "code": "c", "n": 3}])
    assert rows(database) == [(1, "a", 1), (1, "c", 3), (2, "b", 2)]


@pytest.mark.anyio
async def test_a_key_column_that_was_renamed_stops_the_task_until_it_is_renamed_here(
    database: Database,
) -> None:
    await database.write_as(keyed("id"), BEFORE)
    renamed = keyed("ident", id=None, ident=INT64.null(False))
    later = [{"ident": 1, "code": "c", "n": 3}, {"ident": 3, "code": "d", "n": 4}]
    with pytest.raises(FatalError, match="no column ident for the key's field ident") as caught:
        await database.write_as(renamed, later)
    found = re.search(r"rename it here, too: (ALTER .*?);", str(caught.value))
    assert found is not None
    database.run(found[1])
    await database.write_as(renamed, later)
    assert rows(database, "ident, code, n") == [(1, "c", 3), (2, "b", 2), (3, "d", 4)]
    await database.write_as(keyed("code", id=None, ident=INT64), [{"ident": 3, "code": "b", "n": 5}])
    assert rows(database, "ident, code, n") == [(1, "c", 3), (3, "b", 5), (3, "d", 4)]


@pytest.mark.anyio
async def test_a_key_column_that_is_new_stops_the_task_until_every_row_has_its_value(
    database: Database,
) -> None:
    await database.write_as(keyed("id"), BEFORE)
    grown = keyed("id", "part", part=INT64.null(False))
    later = [{"id": 1, "part": 7, "n": 3}, {"id": 1, "part": 8, "n": 4}]
    with pytest.raises(FatalError, match="no column part for the key's field part") as caught:
        await database.write_as(grown, later)
    database.run(str(caught.value).rpartition("give every row its value: ")[2], "UPDATE t SET part = 7")
    await database.write_as(grown, later)
    assert rows(database, "id, part, n") == [(1, 7, 3), (1, 8, 4), (2, 7, 2)]


@pytest.mark.anyio
async def test_versions_go_by_the_new_key(database: Database) -> None:
    await database.write_as(keyed("id"), BEFORE, mode="history")
    later = [{"id": 1, "code": "c", "n": 3}, {"id": 2, "code": "a", "n": 4}]
    await database.write_as(keyed("code", id=None), later, mode="history")
    found = rows(database, "code, n, CASE WHEN _is_current THEN 1 ELSE 0 END")
    assert found == [("a", 1, 0), ("a", 4, 1), ("b", 2, 1), ("c", 3, 1)]


@pytest.mark.anyio
async def test_a_column_of_json_becomes_the_key_while_others_change(database: Database) -> None:
    await database.write_as(
        keyed("id", code=JSON), [{"id": 1, "code": {"a": 1}, "n": 1}, {"id": 2, "code": "a"}]
    )
    await database.write_as(
        keyed("code", code=JSON.null(False), n=STRING, id=STRING, more=INT64),
        [{"id": "x", "code": "a", "n": "two", "more": 2}, {"id": "x", "code": {"b": 1}, "n": "three"}],
    )
    assert len(rows(database)) == 3
    await database.write_as(
        keyed("code", code=JSON.null(False)), [{"code": {"b": 1}}, {"code": {"a": 1}}], ops=b"dd"
    )
    assert rows(database, "more") == [(2,)]


@pytest.mark.anyio
async def test_a_plan_shows_the_new_key_and_other_policies_leave_the_old_one(database: Database) -> None:
    await database.write_as(keyed("id"), BEFORE)
    binding = Binding("c/t", "t", SqlBinding(source="c/t"))
    texts = await database.spec.plan(TaskName("keys"), [(binding, keyed("code"))])
    assert any("PRIMARY KEY" in text or "SET NOT NULL" in text for text in texts), texts
    with pytest.raises(FatalError, match="`evolution: evolve` lets hub replace the key"):
        await database.write_as(keyed("code"), BEFORE, evolution="stop")
    assert await database.spec.plan(TaskName("keys"), [(binding, keyed("code"))]) == texts


@pytest.mark.anyio
async def test_what_is_the_users_stays_when_the_key_is_replaced(database: Database) -> None:
    await database.write_as(keyed("id"), BEFORE)
    length = "(9)" if database.spec.__class__.__name__.startswith("MySQL") else ""
    database.run(
        "ALTER TABLE t ADD COLUMN mine varchar(9) DEFAULT 'me'",
        f"CREATE INDEX by_mine ON t (mine{length})",
        "CREATE VIEW v AS SELECT id, code, mine FROM t",
    )
    await database.write_as(keyed("code"), [{"id": 1, "code": "c", "n": 3}])
    assert sorted(database.run("SELECT id, code, mine FROM v")) == [
        (1, "a", "me"),
        (1, "c", "me"),
        (2, "b", "me"),
    ]
    with pytest.raises(Exception, match=r"(?i)exist|duplicate"):
        database.run("CREATE INDEX by_mine ON t (n)")


@pytest.mark.anyio
async def test_an_index_of_the_users_is_no_key_whatever_its_name(database: Database) -> None:
    database.run("CREATE TABLE t (id bigint PRIMARY KEY, code varchar(9), n bigint)")
    database.run("CREATE UNIQUE INDEX t_current ON t (n)")
    await database.write_as(keyed("id", code=ColumnType("string", length=9)), BEFORE)
    assert rows(database) == [(1, "a", 1), (2, "b", 2)]
    with pytest.raises(Exception, match=r"(?i)exist|duplicate"):
        database.run("CREATE INDEX t_current ON t (code)")


@pytest.mark.anyio
async def test_a_history_that_was_renamed_and_one_of_its_former_name_each_follow_their_keys(
    database: Database,
) -> None:
    """An index keeps its name when its table gets another, and in some databases no two in a schema share one."""
    moved = "ALTER TABLE t RENAME TO {}"
    await database.write_as(keyed("id"), BEFORE, mode="history")
    database.run(moved.format("t_of_may"))
    await database.write_as(keyed("id"), BEFORE, mode="history")
    database.run(moved.format("t_of_june"))
    await database.write_as(keyed("id"), BEFORE, mode="history")
    later = [{"id": 2, "code": "c", "n": 3}, {"id": 9, "code": "a", "n": 4}]
    for table in ("t_of_may", "t_of_june", "t"):
        database.table = table
        await database.write_as(keyed("code"), later, mode="history")
        found = database.run(f"SELECT id, code, n FROM {table} WHERE _is_current ORDER BY code")
        assert found == [(9, "a", 4), (2, "b", 2), (2, "c", 3)]


@pytest.mark.anyio
async def test_an_index_over_current_versions_that_has_only_its_name_is_followed(database: Database) -> None:
    """As an earlier hub has made it."""
    await database.write_as(keyed("id"), BEFORE, mode="history")
    kind = database.spec.__class__.__name__
    if kind.startswith("MySQL"):
        database.run("DROP INDEX t_current ON t", "CREATE INDEX t_current ON t (id, _is_current)")
    elif not kind.startswith("DuckDB"):
        database.run("DROP INDEX t_current", "CREATE UNIQUE INDEX t_current ON t (id) WHERE _is_current")
    await database.write_as(keyed("code"), [{"id": 2, "code": "c", "n": 3}], mode="history")
    assert rows(database) == [(1, "a", 1), (2, "b", 2), (2, "c", 3)]
