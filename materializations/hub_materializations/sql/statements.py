"""The statements that bring rows into a table, and the table of cursors. Pure text, one function a statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .dialect import Dialect, TableName
from .layout import Layout

CURSOR_TABLE = "hub_cursors"
"""One row for each task: its fence, the cursor that was committed with the rows, and who writes."""


def insert_row(dialect: Dialect, table: TableName, columns: tuple[str, ...]) -> str:
    """Adds one row, given as parameters."""
    listed = dialect.listed(columns)
    return f"INSERT INTO {table.sql(dialect)} ({listed}) VALUES ({dialect.parameters(len(columns))})"


def insert_ends(
    dialect: Dialect, table: TableName, columns: tuple[str, ...], key: tuple[str, ...], set_: Sequence[str]
) -> tuple[str, str]:
    """What stands before and after the rows of an INSERT of many; without a key, nothing conflicts."""
    head = f"INSERT INTO {table.sql(dialect)} ({dialect.listed(columns)}) VALUES "
    return head, _on_conflict(dialect, key, set_) if key else ""


def insert_from(dialect: Dialect, table: TableName, columns: tuple[str, ...], relation: str) -> str:
    """Adds all rows of a relation that has the same columns."""
    listed = dialect.listed(columns)
    return f"INSERT INTO {table.sql(dialect)} ({listed}) SELECT {listed} FROM {relation}"


def upsert_row(
    dialect: Dialect, table: TableName, columns: tuple[str, ...], key: tuple[str, ...], set_: Sequence[str]
) -> str:
    """Adds the row given as parameters, or sets the columns `set_` of the row with its key."""
    return insert_row(dialect, table, columns) + _on_conflict(dialect, key, set_)


def upsert_from(
    dialect: Dialect,
    table: TableName,
    columns: tuple[str, ...],
    key: tuple[str, ...],
    set_: Sequence[str],
    relation: str,
) -> str:
    """The same for all rows of a relation, in which no key occurs twice."""
    if dialect.upsert != "merge":
        conflict = _on_conflict(dialect, key, set_)
        # Without the WHERE, SQLite takes the ON of the conflict for that of a join.
        return f"{insert_from(dialect, table, columns, relation)} WHERE true{conflict}"
    quoted = dialect.quoted
    setting = ", ".join(f"{quoted(name)} = s.{quoted(name)}" for name in set_)
    matched = f"WHEN MATCHED THEN UPDATE SET {setting} " if set_ else ""
    values = ", ".join(f"s.{quoted(name)}" for name in columns)
    return (
        f"MERGE INTO {table.sql(dialect)} AS t USING {relation} AS s ON {joined(dialect, key)} {matched}"
        f"WHEN NOT MATCHED THEN INSERT ({dialect.listed(columns)}) VALUES ({values})"
    )


def _on_conflict(dialect: Dialect, key: tuple[str, ...], set_: Sequence[str]) -> str:
    quoted = dialect.quoted
    if dialect.upsert == "on_duplicate_key":
        setting = [f"{quoted(name)} = VALUES({quoted(name)})" for name in set_]
        first = quoted(key[0])
        return f" ON DUPLICATE KEY UPDATE {', '.join(setting) or f'{first} = VALUES({first})'}"
    target = f" ON CONFLICT ({dialect.listed(key)})"
    if not set_:
        return f"{target} DO NOTHING"
    setting = [f"{quoted(name)} = excluded.{quoted(name)}" for name in set_]
    return f"{target} DO UPDATE SET {', '.join(setting)}"


def joined(dialect: Dialect, key: tuple[str, ...]) -> str:
    """That the relations `t` and `s` have the same key."""
    return " AND ".join(f"t.{dialect.quoted(name)} = s.{dialect.quoted(name)}" for name in key)


def _key_given(dialect: Dialect, key: tuple[str, ...], first: int) -> str:
    return " AND ".join(
        f"{dialect.quoted(name)} = {dialect.parameter_at(first + i)}" for i, name in enumerate(key)
    )


def delete_row(dialect: Dialect, table: TableName, key: tuple[str, ...]) -> str:
    """Deletes the row whose key is given as parameters."""
    return f"DELETE FROM {table.sql(dialect)} WHERE {_key_given(dialect, key, 1)}"


def delete_from(dialect: Dialect, table: TableName, key: tuple[str, ...], relation: str) -> str:
    """Deletes the rows whose keys are in a relation."""
    same_key = joined(dialect, key)
    if dialect.upsert == "on_duplicate_key":
        return f"DELETE t FROM {table.sql(dialect)} AS t JOIN {relation} AS s ON {same_key}"
    return f"DELETE FROM {table.sql(dialect)} AS t USING {relation} AS s WHERE {same_key}"


@dataclass(frozen=True, slots=True)
class Mark:
    """A time that is set once in a row: when it was deleted, or when a version ended.

    `current` is the column that says whether a version holds; it becomes false with the mark.
    """

    column: str
    current: str | None = None

    def setting(self, dialect: Dialect, value: str, prefix: str = "") -> str:
        also = f", {prefix}{dialect.quoted(self.current)} = false" if self.current is not None else ""
        return f"{prefix}{dialect.quoted(self.column)} = {value}{also}"

    def unset(self, dialect: Dialect, prefix: str = "") -> str:
        """What holds for a row that is not marked yet."""
        if self.current is not None:
            return f"{prefix}{dialect.quoted(self.current)}"
        return f"{prefix}{dialect.quoted(self.column)} IS NULL"


def mark_row(dialect: Dialect, table: TableName, key: tuple[str, ...], mark: Mark) -> str:
    """Marks the row whose key follows the time in the parameters."""
    return (
        f"UPDATE {table.sql(dialect)} SET {mark.setting(dialect, dialect.parameter_at(1))} "
        f"WHERE {mark.unset(dialect)} AND {_key_given(dialect, key, 2)}"
    )


def mark_from(dialect: Dialect, table: TableName, key: tuple[str, ...], mark: Mark, relation: str) -> str:
    """Marks the rows whose keys are in a relation, with the time beside each."""
    value = f"s.{dialect.quoted(mark.column)}"
    same_key = joined(dialect, key)
    target = table.sql(dialect)
    if dialect.upsert == "on_duplicate_key":
        setting = mark.setting(dialect, value, "t.")
        return f"UPDATE {target} AS t JOIN {relation} AS s ON {same_key} SET {setting} WHERE {mark.unset(dialect, 't.')}"
    return (
        f"UPDATE {target} AS t SET {mark.setting(dialect, value)} FROM {relation} AS s "
        f"WHERE {same_key} AND {mark.unset(dialect, 't.')}"
    )


def any_between(dialect: Dialect, table: TableName, key: str) -> str:
    """One row if there is any whose key is not below the first parameter and not above the second."""
    return (
        f"SELECT 1 FROM {table.sql(dialect)} WHERE {dialect.quoted(key)} "
        f"BETWEEN {dialect.parameter_at(1)} AND {dialect.parameter_at(2)} LIMIT 1"
    )


def mark_all(dialect: Dialect, table: TableName, mark: Mark) -> str:
    """Marks all rows that are not, with the time given as a parameter."""
    setting = mark.setting(dialect, dialect.parameter_at(1))
    return f"UPDATE {table.sql(dialect)} SET {setting} WHERE {mark.unset(dialect)}"


def current_version(dialect: Dialect, layout: Layout) -> str:
    """The field columns of a key's current version, readable. The key's cells are the parameters."""
    cells = ", ".join(
        dialect.readable(dialect.quoted(c.name), c.type) for c in layout.columns if c.origin == "field"
    )
    where = " AND ".join(
        f"{dialect.quoted(column.name)} = {dialect.parameter_at(n)}" for n, column in enumerate(layout.key, 1)
    )
    current = layout.columns[layout.index("is_current")].name
    return f"SELECT {cells} FROM {layout.table.sql(dialect)} WHERE {dialect.quoted(current)} AND {where}"


def sweep(
    dialect: Dialect, table: TableName, key: tuple[str, ...], mark: Mark | None, seen: TableName
) -> str:
    """Deletes the rows whose keys are not in the table `seen`, or marks them with the time in the parameter."""
    target = table.sql(dialect)
    unseen = f"NOT EXISTS (SELECT 1 FROM {seen.sql(dialect)} AS s WHERE {joined(dialect, key)})"
    if mark is None:
        deleted = "DELETE t FROM" if dialect.upsert == "on_duplicate_key" else "DELETE FROM"
        return f"{deleted} {target} AS t WHERE {unseen}"
    setting = mark.setting(dialect, dialect.parameter_at(1))
    return f"UPDATE {target} AS t SET {setting} WHERE {mark.unset(dialect, 't.')} AND {unseen}"


def truncate(dialect: Dialect, table: TableName) -> str:
    """Empties the table. Not TRUNCATE: that fails where foreign keys refer to it, and commits in MySQL."""
    return f"DELETE FROM {table.sql(dialect)}"


def cursor_table(schema: str | None) -> TableName:
    """Where the table of cursors is."""
    return TableName(schema, CURSOR_TABLE)


def create_cursor_table(dialect: Dialect, schema: str | None) -> str:
    """Makes the table of cursors, if it is not there."""
    key, number, text = dialect.cursor_types
    quoted = dialect.quoted
    return (
        f"CREATE TABLE IF NOT EXISTS {cursor_table(schema).sql(dialect)} ("
        f"{quoted('task')} {key} NOT NULL PRIMARY KEY, {quoted('fence')} {number} NOT NULL, "
        f"{quoted('cursor')} {text}, {quoted('holder')} {text}){dialect.table_options}"
    )


def read_cursor(dialect: Dialect, schema: str | None) -> str:
    """Fence, cursor and holder of a task."""
    quoted = dialect.quoted
    return (
        f"SELECT {quoted('fence')}, {quoted('cursor')}, {quoted('holder')} "
        f"FROM {cursor_table(schema).sql(dialect)} WHERE {quoted('task')} = {dialect.parameter_at(1)}"
    )


def add_task(dialect: Dialect, schema: str | None) -> str:
    """The first row of a task: fence 0, nothing committed."""
    quoted = dialect.quoted
    columns = f"{quoted('task')}, {quoted('fence')}"
    into = cursor_table(schema).sql(dialect)
    if dialect.upsert == "on_duplicate_key":
        fence = quoted("fence")
        return f"INSERT INTO {into} ({columns}) VALUES ({dialect.parameter_at(1)}, 0) ON DUPLICATE KEY UPDATE {fence} = {fence}"
    return (
        f"INSERT INTO {into} ({columns}) VALUES ({dialect.parameter_at(1)}, 0) "
        f"ON CONFLICT ({quoted('task')}) DO NOTHING"
    )


def raise_fence(dialect: Dialect, schema: str | None) -> str:
    """Makes every older writer of a task harmless. Parameters: holder, task."""
    quoted = dialect.quoted
    fence = quoted("fence")
    return (
        f"UPDATE {cursor_table(schema).sql(dialect)} SET {fence} = {fence} + 1, "
        f"{quoted('holder')} = {dialect.parameter_at(1)} WHERE {quoted('task')} = {dialect.parameter_at(2)}"
    )


def move_cursor(dialect: Dialect, schema: str | None) -> str:
    """Part of every commit. Must hit one row. Parameters: cursor, task, fence.

    It writes the fence as well, unchanged: DuckDB looks for conflicts column by column, and would let
    a writer pass whose transaction began before the fence was raised.
    """
    quoted = dialect.quoted
    return (
        f"UPDATE {cursor_table(schema).sql(dialect)} "
        f"SET {quoted('cursor')} = {dialect.parameter_at(1)}, {quoted('fence')} = {quoted('fence')} "
        f"WHERE {quoted('task')} = {dialect.parameter_at(2)} AND {quoted('fence')} = {dialect.parameter_at(3)}"
    )
