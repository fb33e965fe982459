"""The order of keys: where Python compares as the server does, and how to ask the server where it does not. Pure.

A change must be placed before or behind the cursor of a copy in exactly the order in which the copy
reads. Integers, uuids, bytes, dates and text under the C collation are compared here; for anything
else (linguistic collations, numeric, enums) the server is asked, one key at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hub_captures.postgres.catalog import Table
from hub_captures.postgres.connection import literal, quoted
from hub_captures.postgres.handover import Incomparable, SortKey
from hub_captures.postgres.position import Key
from hub_captures.postgres.types import PgType

_COMMON_DATE = re.compile(r"\d{4}-\d\d-\d\d(?: [\d:.+]+)?")
"""Dates and timestamps whose text sorts as they do: four digits of year, neither BC nor infinity."""


def sort_key(table: Table, types: Mapping[int, PgType]) -> SortKey | None:
    """How Python compares keys of a table; None when only the server can."""
    columns = {column.name: column for column in table.columns}
    parts: list[Callable[[str], Any]] = []
    for name in table.key:
        column = columns[name]
        part = _part(_base(column.type_oid, types), column.collation)
        if part is None:
            return None
        parts.append(part)
    if len(parts) == 1:
        only = parts[0]
        return lambda key: only(key[0])
    return lambda key: tuple([part(value) for part, value in zip(parts, key, strict=True)])


def _base(oid: int, types: Mapping[int, PgType]) -> PgType | None:
    found = types.get(oid)
    while found is not None and found.kind == "d":
        found = types.get(found.related)
    return found


def _part(column: PgType | None, collation: str) -> Callable[[str], Any] | None:
    if column is None or column.schema != "pg_catalog" or column.kind != "b":
        return None
    match column.name:
        case "int2" | "int4" | "int8" | "oid":
            return int
        case "uuid" | "bytea" | "bool":
            return str
        case "text" | "varchar" | "name" if collation == "C":
            return str.encode
        case "date" | "timestamp" | "timestamptz":
            return _date
    return None


def _date(value: str) -> str:
    if _COMMON_DATE.fullmatch(value) is None:
        raise Incomparable
    return value


def has_plain_order(table: Table, types: Mapping[int, PgType]) -> bool:
    """Whether `>` between key columns and constants means the order of their index. Operators of an
    extension's type (citext) may stand in a schema that is not searched, and would quietly mean another order."""
    columns = {column.name: column for column in table.columns}
    for name in table.key:
        base = _base(columns[name].type_oid, types)
        if base is None or (base.schema != "pg_catalog" and base.kind != "e"):
            return False
    return bool(table.key)


def row_of(names: Sequence[str]) -> str:
    """Key columns as SQL: `("a", "b")`."""
    return "(" + ", ".join([quoted(name) for name in names]) + ")"


def values_of(key: Key) -> str:
    """A key as SQL; the server takes the types from what it is compared with."""
    return "(" + ", ".join([literal(value) for value in key]) + ")"


def bounds_query(table: Table, cursor: Key | None, where: str, rows: int, count: int) -> str:
    """SQL for up to `count` keys, each `rows` rows behind the one before, the first behind the cursor."""
    key = ", ".join([quoted(name) for name in table.key])
    conditions = [f"({condition}\n)" for condition in (table.row_filter, where) if condition]
    if cursor is not None:
        conditions.append(f"{row_of(table.key)} > {values_of(cursor)}")
    restricted = f"where {' and '.join(conditions)}" if conditions else ""
    # Not a cast to text, which is another form than the output's for some types.
    texts = ", ".join([f"format('%s', {quoted(name)})" for name in table.key])
    return (
        f"select {texts} from (select {key}, row_number() over (order by {key}) from "
        f"(select {key} from {table.sql} {restricted} order by {key} limit {rows * count}) k) "
        f"n where row_number % {rows} = 0 order by row_number"
    )


def rank_query(table: Table, key: Key, bounds: Sequence[Key]) -> str:
    """SQL that counts the bounds that lie before a key, in the order of the table's own columns.

    The union gives the constants the types and the collations of the columns.
    """
    names = [f"k{index}" for index in range(len(key))]
    columns = ", ".join(
        [f"{quoted(column)} as {name}" for column, name in zip(table.key, names, strict=True)]
    )
    made = ", ".join([literal(value) for value in key])
    row = "(" + ", ".join([f"t.{name}" for name in names]) + ")"
    before = " + ".join([f"({row} > {values_of(bound)})::int" for bound in bounds])
    return f"select {before} from (select {columns} from {table.sql} where false union all select {made}) t"
