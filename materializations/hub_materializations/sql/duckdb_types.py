"""DuckDB's types: which column holds a field, what a column that is there can hold, how one becomes another."""

from __future__ import annotations

import re

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
    UINT64,
    UUID,
)

from .dialect import MARK, Converter, Dialect
from .durations import in_words
from .names import NameRule


def sql_type(column: ColumnType) -> str:
    """The type of a column for this field."""
    match column.kind:
        case "integer":
            return "UBIGINT" if column.unsigned else _INTEGERS[column.bits or 64]
        case "float":
            return "FLOAT" if column.bits == 32 else "DOUBLE"
        case "decimal":
            precision, scale = column.precision, column.scale or 0
            fits = precision is not None and precision <= DECIMAL_DIGITS_MAX and 0 <= scale <= precision
            return f"DECIMAL({precision},{scale})" if fits else "VARCHAR"
        case "array":
            plain = column.items is not None and column.items.kind in _ARRAY_ITEMS
            item = sql_type(column.items) if plain and column.items is not None else ""
            return f"{item}[]" if plain and (item != "VARCHAR" or column.items == STRING) else "JSON"
        case _:
            return _TYPES[column.kind]


DECIMAL_DIGITS_MAX = 38
"""DuckDB's. A decimal that is wider or has no bound is kept as text, which loses nothing."""

_INTEGERS = {16: "SMALLINT", 32: "INTEGER", 53: "BIGINT", 64: "BIGINT"}
_TYPES = {
    "boolean": "BOOLEAN",
    "string": "VARCHAR",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "time": "TIME",
    "timetz": "TIME WITH TIME ZONE",
    "interval": "INTERVAL",
    "uuid": "UUID",
    "bytes": "BLOB",
    "json": "JSON",
    "object": "JSON",
}
_ARRAY_ITEMS = (
    "boolean",
    "integer",
    "float",
    "decimal",
    "string",
    "date",
    "timestamp",
    "timestamptz",
    "uuid",
)

_COLUMN_TYPES = {
    "BOOLEAN": BOOLEAN,
    "SMALLINT": INT16,
    "INTEGER": INT32,
    "BIGINT": INT64,
    "HUGEINT": ColumnType("decimal", precision=38, scale=0),
    "UBIGINT": UINT64,
    "FLOAT": FLOAT32,
    "DOUBLE": FLOAT64,
    "VARCHAR": STRING,
    "DATE": DATE,
    "TIMESTAMP": TIMESTAMP,
    "TIMESTAMP WITH TIME ZONE": TIMESTAMPTZ,
    "TIME": TIME,
    "TIME WITH TIME ZONE": TIMETZ,
    "INTERVAL": INTERVAL,
    "UUID": UUID,
    "BLOB": BYTES,
    "JSON": JSON,
}
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")


def _column_type(text: str) -> ColumnType | None:
    if text.endswith("[]"):
        items = _column_type(text[:-2])
        return None if items is None else ColumnType("array", items=items)
    if match := _DECIMAL.fullmatch(text):
        return ColumnType("decimal", precision=int(match[1]), scale=int(match[2]))
    return _COLUMN_TYPES.get(text)


def _converted(column: str, held: ColumnType, wide: ColumnType) -> str:
    """A column's values as the new type has them: in their JSON form where they become text or JSON."""
    if wide.kind in ("string", "json") or (wide.kind == "decimal" and sql_type(wide) == "VARCHAR"):
        return _as_json(column, held) if wide.kind == "json" else _as_text(column, held)
    if held.kind == "integer" and wide.kind == "float":
        beyond = f"error('{column_text(column)}: an integer beyond 2^53 cannot become a float; name a type that holds both')"
        return f"CASE WHEN abs({column}) > {1 << 53} THEN {beyond} ELSE CAST({column} AS DOUBLE) END"
    return f"CAST({column} AS {sql_type(wide)})"


def column_text(column: str) -> str:
    """A quoted name inside a text."""
    return column.replace("'", "''")


def _readable(column: str, held: ColumnType) -> str:
    match held.kind:
        case "boolean" | "integer":
            return column
        case "bytes":
            return f"to_base64({column})"
        case "array":
            return f"CAST(to_json({column}) AS VARCHAR)"
        case _:
            return f"CAST({column} AS VARCHAR)"


def _as_json(column: str, held: ColumnType) -> str:
    plain = held.kind in ("boolean", "integer", "array", "json", "object")
    return f"to_json({column})" if plain else f"to_json({_as_text(column, held)})"


def _as_text(column: str, held: ColumnType) -> str:
    text = f"CAST({column} AS VARCHAR)"
    match held.kind:
        case "date" | "timestamp" | "timestamptz":
            iso = f"regexp_replace({text}, '^(\\S+)( \\(BC\\))? (\\d.*)$', '\\1T\\3\\2')"
            era = f"regexp_replace({iso}, ' \\(BC\\)$', ' BC')"
            return f"replace({era}, '+00', 'Z')" if held.kind == "timestamptz" else era
        case "bytes":
            return f"to_base64({column})"
        case "array":
            return f"CAST(to_json({column}) AS VARCHAR)"
        case _:
            return text


def _with_era(text: str) -> str:
    """`0044-03-15 BC` as DuckDB writes it: the era follows the date."""
    if not text.endswith(" BC"):
        return text
    date, separator, rest = text[:-3].replace("T", " ").partition(" ")
    return f"{date} (BC){separator}{rest}"


_ERA = Converter(_with_era, b' BC"')

DIALECT = Dialect(
    name="DuckDB",
    sql_type=sql_type,
    key_type=sql_type,
    column_type=_column_type,
    converted=_converted,
    readable=_readable,
    converters={"date": _ERA, "timestamp": _ERA, "timestamptz": _ERA, "interval": Converter(in_words)},
    upsert="merge",
    integers_become_floats=True,
    primary_key=False,
    key_mark=f"COMMENT ON TABLE {{}} IS '{MARK}'".format,
    names=NameRule(folds_case=True),
    savepoints=False,
    cursor_types=("VARCHAR", "BIGINT", "VARCHAR"),
)
