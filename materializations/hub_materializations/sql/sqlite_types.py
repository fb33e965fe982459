"""Types of SQLite, and what else sets it apart.

The hard thing is that SQLite's types are only a leaning: a column declared DECIMAL would turn `2.50`
into a float. So columns for values that must keep their text are declared with names that lean to
text, such as `DECIMAL_TEXT(10,2)`, and say what they hold to whoever reads the schema, us included.
"""

from __future__ import annotations

import re
from base64 import b64decode

from hub.schema import ColumnType
from hub.schema.types import (
    BOOLEAN,
    BYTES,
    DATE,
    DECIMAL,
    FLOAT32,
    FLOAT64,
    INT16,
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
from .table_text import OWN_KEY

_INTEGERS = {16: "SMALLINT", 32: "INTEGER", 53: "BIGINT", 64: "BIGINT"}
_TYPES = {
    "boolean": "BOOLEAN",
    "date": "DATE_TEXT",
    "timestamp": "TIMESTAMP_TEXT",
    "timestamptz": "TIMESTAMPTZ_TEXT",
    "time": "TIME_TEXT",
    "timetz": "TIMETZ_TEXT",
    "interval": "DURATION_TEXT",
    "uuid": "UUID_TEXT",
    "bytes": "BLOB",
    "json": "JSON_TEXT",
    "object": "JSON_TEXT",
    "array": "JSON_TEXT",
}
_COLUMN_TYPES = {
    "BOOLEAN": BOOLEAN,
    "SMALLINT": INT16,
    "INTEGER": INT64,
    "INT": INT64,
    "BIGINT": INT64,
    "REAL": FLOAT64,
    "DOUBLE": FLOAT64,
    "FLOAT": FLOAT32,
    "DECIMAL_TEXT": DECIMAL,
    "TEXT": STRING,
    "DATE_TEXT": DATE,
    "TIMESTAMP_TEXT": TIMESTAMP,
    "TIMESTAMPTZ_TEXT": TIMESTAMPTZ,
    "TIME_TEXT": TIME,
    "TIMETZ_TEXT": TIMETZ,
    "DURATION_TEXT": INTERVAL,
    "UUID_TEXT": UUID,
    "BLOB": BYTES,
    "JSON_TEXT": JSON,
}
_WITH_NUMBERS = re.compile(r"(DECIMAL_TEXT|VARCHAR)\((\d+)(?:,(\d+))?\)")


def _sql_type(column: ColumnType) -> str:
    match column.kind:
        case "integer":
            return "DECIMAL_TEXT(20,0)" if column.unsigned else _INTEGERS[column.bits or 64]
        case "float":
            return "FLOAT" if column.bits == 32 else "DOUBLE"
        case "decimal":
            bounded = column.precision is not None and (column.scale or 0) >= 0
            return f"DECIMAL_TEXT({column.precision},{column.scale or 0})" if bounded else "DECIMAL_TEXT"
        case "string":
            return f"VARCHAR({column.length})" if column.length is not None else "TEXT"
        case _:
            return _TYPES[column.kind]


def _column_type(text: str) -> ColumnType | None:
    if match := _WITH_NUMBERS.fullmatch(text.upper()):
        if match[1] == "VARCHAR":
            return ColumnType("string", length=int(match[2]))
        return ColumnType("decimal", precision=int(match[2]), scale=int(match[3] or 0))
    return _COLUMN_TYPES.get(text.upper())


def _converted(column: str, held: ColumnType, wide: ColumnType) -> str:
    """A column's values as the new type has them: in their JSON form where they become text or JSON."""
    if wide.kind == "json":
        match held.kind:
            case "boolean":
                return f"CASE {column} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END"
            case "integer" | "json":
                return f"CAST({column} AS TEXT)"
            case "float":
                return f"CASE typeof({column}) WHEN 'text' THEN json_quote({column}) ELSE printf('%!.17g', {column}) END"
            case _:
                return f"CASE WHEN {column} IS NOT NULL THEN json_quote(CAST({column} AS TEXT)) END"
    if wide.kind in ("string", "decimal") and held.kind in ("integer", "float"):
        return f"CAST({column} AS TEXT)"
    return column


def _boolean(value: bool) -> int:
    return int(value)


_INDEX_CURRENT = f"CREATE UNIQUE INDEX {{name}} /* {MARK} */ ON {{table}} ({{key}}) WHERE {{current}}"

DIALECT = Dialect(
    name="SQLite",
    sql_type=_sql_type,
    key_type=_sql_type,
    column_type=_column_type,
    alter=lambda _held, _wide: None,
    converted=_converted,
    converters={
        "bytes": Converter(lambda text: b64decode(text, validate=True)),
        "decimal": Converter(str),
        "boolean": Converter(_boolean),
    },
    begin="BEGIN IMMEDIATE",
    prepares=False,
    names=NameRule(folds_case=True),
    drop_not_null=None,
    copies_types=False,
    same=lambda one, other, _type: f"{one} IS {other}",
    cursor_types=("TEXT", "BIGINT", "TEXT"),
    index_current=(_INDEX_CURRENT,),
    move_current=("DROP INDEX IF EXISTS {name}", _INDEX_CURRENT),
    key_clause=f"CONSTRAINT {OWN_KEY} PRIMARY KEY ({{key}})",
)
