"""PostgreSQL's types: which column holds a field, what a column that is there can hold, how one becomes another."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable, Hashable
from decimal import Decimal
from functools import cache
from typing import Any, cast

import orjson
from msgspec import Raw

from hub.schema import ColumnType
from hub.schema.types import (
    BOOLEAN,
    BYTES,
    DATE,
    FLOAT32,
    FLOAT64,
    INT16,
    INT32,
    INT64,
    INTERVAL,
    JSON,
    STRING,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    TIMETZ,
    UUID,
)

from .dialect import MARK, Converter, Dialect
from .names import NameRule
from .postgres_key import DROP_KEY, marked

NAME_BYTES_MAX = 63
NUMERIC_DIGITS_MAX = 1000
VARCHAR_LENGTH_MAX = 10_485_760

_INTEGERS = {16: "smallint", 32: "integer", 53: "bigint", 64: "bigint"}
_TYPES = {
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "time": "time without time zone",
    "timetz": "time with time zone",
    "interval": "interval",
    "uuid": "uuid",
    "bytes": "bytea",
}
_COLUMN_TYPES = {
    "boolean": BOOLEAN,
    "smallint": INT16,
    "integer": INT32,
    "bigint": INT64,
    "real": FLOAT32,
    "double precision": FLOAT64,
    "numeric": ColumnType("decimal"),
    "text": STRING,
    "character varying": STRING,
    "date": DATE,
    "timestamp without time zone": TIMESTAMP,
    "timestamp with time zone": TIMESTAMPTZ,
    "time without time zone": TIME,
    "time with time zone": TIMETZ,
    "interval": INTERVAL,
    "uuid": UUID,
    "bytea": BYTES,
    "json": JSON,
    "jsonb": JSON,
}
_WITH_NUMBERS = re.compile(r"(numeric|character varying)\((\d+)(?:,(-?\d+))?\)")
_ARRAY_ITEMS = frozenset(_TYPES) | {"integer", "float", "decimal", "string"}


_INDEX_CURRENT = (
    "CREATE UNIQUE INDEX {name} ON {table} ({key}) WHERE {current}",
    f"COMMENT ON INDEX {{place}} IS '{MARK}'",
)


@cache
def dialect_of(json_type: str) -> Dialect:
    """The dialect, with new columns for JSON of this type."""
    sql_type = _sql_type_with(json_type)

    def key_type(column: ColumnType) -> str:
        found = sql_type(column)
        # Values of json cannot be compared.
        return "jsonb" if found == "json" else found

    return Dialect(
        name="PostgreSQL",
        sql_type=sql_type,
        key_type=key_type,
        column_type=_column_type,
        converted=lambda column, held, wide: _converted(column, held, wide, sql_type),
        readable=lambda column, _type: f"{column}::text",
        json_key=comparable,
        same=_same,
        index_current=_INDEX_CURRENT,
        move_current=("DROP INDEX {place}", *_INDEX_CURRENT),
        key_mark=marked,
        drop_key=DROP_KEY,
        converters={"bytes": Converter(_bytes)},
        converter_of_array=_array_converter,
        parameter="${n}",
        names=NameRule(NAME_BYTES_MAX),
        holds_nul=False,
    )


def _sql_type_with(json_type: str) -> Callable[[ColumnType], str]:
    def sql_type(column: ColumnType) -> str:
        match column.kind:
            case "integer":
                return "numeric(20,0)" if column.unsigned else _INTEGERS[column.bits or 64]
            case "float":
                return "real" if column.bits == 32 else "double precision"
            case "decimal":
                fits = column.precision is not None and column.precision <= NUMERIC_DIGITS_MAX
                return f"numeric({column.precision},{column.scale or 0})" if fits else "numeric"
            case "string":
                bounded = column.length is not None and 0 < column.length <= VARCHAR_LENGTH_MAX
                return f"character varying({column.length})" if bounded else "text"
            case "json" | "object":
                return json_type
            case "array":
                if column.items is None or column.items.kind not in _ARRAY_ITEMS:
                    return json_type
                return f"{sql_type(column.items)}[]"
            case _:
                return _TYPES[column.kind]

    return sql_type


def comparable(text: bytes) -> Hashable:
    """JSON as `jsonb` compares it: numbers by value, objects whatever the order of their keys."""
    try:
        return _comparable(json.loads(text, parse_int=Decimal, parse_float=Decimal))
    except (ValueError, RecursionError):
        return text


def _comparable(value: Any) -> Hashable:
    match value:
        case dict():
            return "object", frozenset((name, _comparable(item)) for name, item in value.items())
        case list():
            return "array", tuple(map(_comparable, value))
        case bool():
            return "boolean", value
        case _:
            return cast("Hashable", value)


def _same(one: str, other: str, column: ColumnType) -> str:
    """Values of json have no equality, but their text has."""
    text = "::text" if column.kind in ("json", "object") or (column.items or column).kind == "json" else ""
    return f"{one}{text} IS NOT DISTINCT FROM {other}{text}"


def _column_type(text: str) -> ColumnType | None:
    if text.endswith("[]"):
        items = _column_type(text[:-2])
        return None if items is None else ColumnType("array", items=items)
    if match := _WITH_NUMBERS.fullmatch(text):
        if match[1] == "numeric":
            return ColumnType("decimal", precision=int(match[2]), scale=int(match[3] or 0))
        return ColumnType("string", length=int(match[2]))
    return _COLUMN_TYPES.get(text)


def _converted(column: str, held: ColumnType, wide: ColumnType, sql_type: Callable[[ColumnType], str]) -> str:
    """A column's values as the new type has them: in their JSON form where they become text or JSON."""
    if wide.kind in ("json", "object") or sql_type(wide) in ("json", "jsonb"):
        value = f"encode({column}, 'base64')" if held.kind == "bytes" else column
        return f"to_{sql_type(wide)}({value})"
    if wide.kind == "string":
        match held.kind:
            case "bytes":
                return f"replace(encode({column}, 'base64'), E'\\n', '')"
            case "timestamptz":
                return f"replace(to_json({column}) #>> '{{}}', '+00:00', 'Z')"
            case "timestamp" | "array" | "json":
                return f"to_json({column}) #>> '{{}}'"
            case _:
                return f"{column}::text"
    return f"{column}::{sql_type(wide)}"


def _bytes(text: str) -> str:
    return "\\x" + b64decode(text, validate=True).hex()


def _array_converter(column: ColumnType) -> Converter:
    convert = _item_converter(column.items)

    def literal(raw: Raw) -> str | None:
        value = orjson.loads(bytes(raw))
        if value is None:
            return None
        if not isinstance(value, list):
            raise ValueError(f"expected an array, got {type(value).__name__}")  # noqa: TRY004  one error for values
        return _literal(value, convert)

    return Converter(literal)


def _item_converter(column: ColumnType | None) -> Callable[[Any], str]:
    return _bytes if column is not None and column.kind == "bytes" else _item


def _item(value: Any) -> str:
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode()


def _literal(values: list[Any], convert: Callable[[Any], str]) -> str:
    """An array as PostgreSQL reads it, of any number of dimensions."""
    items = []
    for value in values:
        if value is None:
            items.append("NULL")
        elif isinstance(value, list):
            items.append(_literal(value, convert))
        else:
            text = convert(value).replace("\\", "\\\\").replace('"', '\\"')
            items.append(f'"{text}"')
    return "{" + ",".join(items) + "}"
