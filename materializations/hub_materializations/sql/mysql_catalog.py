"""What the catalog of MySQL and MariaDB says of a table.

The hard thing is that types do not come back as they were declared: MariaDB has no type for JSON but a check, and
neither has one for all instants. So a comment of ours on a column, or its check, says what the column is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .dialect import MARK, Dialect, ExistingColumn, ExistingTable, TableName
from .mysql_rebuild import Index, indexes_of
from .mysql_types import spelled

Fetch = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]

_KEYS = f"""
SELECT index_name, group_concat(column_name ORDER BY seq_in_index SEPARATOR 0x00), max(index_comment) = '{MARK}'
FROM information_schema.statistics
WHERE table_schema = %s AND table_name = %s AND (index_name IN ('PRIMARY', %s) OR index_comment = '{MARK}')
GROUP BY index_name ORDER BY 3 DESC
"""
"""Of a table: the primary key, and whether hub has declared it; and the index over the current versions of a history,
which an earlier hub has told by its name alone, and whose last column says that they are current."""


def existing(fetch: Fetch, table: TableName, dialect: Dialect) -> ExistingTable | None:
    """The table, if there is one."""
    place = (table.schema, table.table)
    found = fetch(
        "SELECT table_type FROM information_schema.tables WHERE table_schema = %s AND table_name = BINARY %s",
        place,
    )
    if not found:
        return None
    if found != [("BASE TABLE",)]:
        return ExistingTable((), is_view=True)
    uniques = fetch(
        "SELECT group_concat(column_name ORDER BY seq_in_index SEPARATOR 0x00) FROM information_schema.statistics "
        "WHERE table_schema = %s AND table_name = %s AND non_unique = 0 AND sub_part IS NULL "
        "GROUP BY index_name ORDER BY index_name <> 'PRIMARY', index_name",
        place,
    )
    keys = {
        name: (tuple(names.split("\0")), is_own)
        for name, names, is_own in fetch(_KEYS, (*place, table.current_index(dialect)))
    }
    declared, is_own = keys.pop("PRIMARY", ((), False))
    index, (versioned, _) = next(iter(keys.items()), ("", ((), False)))
    return ExistingTable(
        _columns(fetch, table),
        tuple(tuple(names.split("\0")) for (names,) in uniques),
        own_key=declared if is_own else (),
        current_key=versioned[:-1],
        current_index=index,
        key_name="PRIMARY" if declared else "",
    )


def _columns(fetch: Fetch, table: TableName) -> tuple[ExistingColumn, ...]:
    rows = fetch(
        "SELECT column_name, concat(column_type, if(column_comment IN ('UTC', 'JSON'), concat(' COMMENT ', quote(column_comment)), '')), is_nullable = 'YES', column_default IS NOT NULL OR "
        "extra LIKE '%%auto_increment%%', extra LIKE '%%GENERATED%%' FROM information_schema.columns "
        "WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
        (table.schema, table.table),
    )
    checked = _json_columns(fetch, table)
    return tuple(
        ExistingColumn(
            name,
            "json" if name in checked else spelled(text),
            bool(nullable),
            bool(default),
            bool(generated),
        )
        for name, text, nullable, default, generated in rows
    )


def _json_columns(fetch: Fetch, table: TableName) -> set[str]:
    """In MariaDB, a JSON column is text with the check ``json_valid(`name`)``."""
    if "MariaDB" not in fetch("SELECT version()", ())[0][0]:
        return set()
    found = fetch(
        "SELECT check_clause FROM information_schema.check_constraints "
        "WHERE constraint_schema = %s AND table_name = %s AND check_clause LIKE 'json_valid(%%'",
        (table.schema, table.table),
    )
    return {clause[12:-2].replace("``", "`") for (clause,) in found}


def indexes(fetch: Fetch, table: TableName) -> dict[str, Index]:
    """The table's indexes by name, the primary key among them."""
    return indexes_of(
        fetch(
            "SELECT index_name, non_unique, index_type, index_comment, column_name, sub_part, collation = 'D' "
            "FROM information_schema.statistics WHERE table_schema = %s AND table_name = %s "
            "ORDER BY index_name, seq_in_index",
            (table.schema, table.table),
        )
    )


def comments(fetch: Fetch, table: TableName) -> dict[str, str]:
    """The comments on the table's columns, without those that say what a column is."""
    found = fetch(
        "SELECT column_name, column_comment FROM information_schema.columns "
        "WHERE table_schema = %s AND table_name = %s AND column_comment NOT IN ('', 'UTC', 'JSON')",
        (table.schema, table.table),
    )
    return dict(found)


def spellings(fetch: Fetch, table: TableName) -> list[str]:
    """The tables whose names differ from this one's in case at most."""
    found = fetch(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = %s AND lower(table_name) = lower(%s)",
        (table.schema, table.table),
    )
    return [name for (name,) in found]
