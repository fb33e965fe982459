"""The types of MySQL and MariaDB: which column holds a field, what one that is there can hold, how one becomes another."""

from __future__ import annotations

import re
from base64 import b64decode
from datetime import UTC, datetime

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
    JSON,
    STRING,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    UINT64,
)

from .dialect import MARK, Converter, Dialect
from .names import NameRule

_INTEGERS = {16: "smallint", 32: "int", 53: "bigint", 64: "bigint"}
_TYPES = {
    "boolean": "tinyint(1)",
    "date": "date",
    "timestamp": "datetime(6)",
    "timestamptz": "datetime(6) COMMENT 'UTC'",
    "time": "time(6)",
    "timetz": "varchar(32)",
    "interval": "varchar(64)",
    "uuid": "varchar(36)",
    "bytes": "longblob",
    "json": "json",
    "object": "json",
    "array": "json",
}
_COLUMN_TYPES = {
    "tinyint(1)": BOOLEAN,
    "tinyint": INT16,
    "smallint": INT16,
    "mediumint": INT32,
    "int": INT32,
    "bigint": INT64,
    "bigint unsigned": UINT64,
    "float": FLOAT32,
    "double": FLOAT64,
    "longtext": STRING,
    "date": DATE,
    "datetime(6)": TIMESTAMP,
    "datetime(6) COMMENT 'UTC'": TIMESTAMPTZ,
    "time(6)": TIME,
    "longblob": BYTES,
    "varbinary(255)": BYTES,
    "json": JSON,
}
_WITH_NUMBERS = re.compile(r"(decimal|varchar|char)\((\d+)(?:,(\d+))?\)")
_WIDTH = re.compile(r"^(smallint|mediumint|int|bigint|tinyint(?!\(1\)))\(\d+\)")
DECIMAL_DIGITS_MAX = 65
DECIMAL_SCALE_MAX = 30
VARCHAR_LENGTH_MAX = 1000
KEY_LENGTH = 255
"""Characters of a text in a key: InnoDB indexes 3072 bytes, and a character may take four."""

KEY_JSON = f"varchar({KEY_LENGTH}) COMMENT 'JSON'"
"""JSON in a key, where the type `json` cannot stand."""


def _sql_type(column: ColumnType) -> str:
    match column.kind:
        case "integer":
            return "bigint unsigned" if column.unsigned else _INTEGERS[column.bits or 64]
        case "float":
            return "float" if column.bits == 32 else "double"
        case "decimal":
            precision, scale = column.precision or 0, column.scale or 0
            fits = 0 < precision <= DECIMAL_DIGITS_MAX and 0 <= scale <= min(precision, DECIMAL_SCALE_MAX)
            return f"decimal({precision},{scale})" if fits else "longtext"
        case "string":
            short = column.length is not None and 0 < column.length <= VARCHAR_LENGTH_MAX
            return f"varchar({column.length})" if short else "longtext"
        case _:
            return _TYPES[column.kind]


def _key_type(column: ColumnType) -> str:
    found = _sql_type(column)
    if found == "json":
        return KEY_JSON
    if found == "longtext" or (column.kind == "string" and (column.length or 0) > KEY_LENGTH):
        return f"varchar({KEY_LENGTH})"
    return f"varbinary({KEY_LENGTH})" if found == "longblob" else found


def _column_type(text: str) -> ColumnType | None:
    if text == KEY_JSON:
        return JSON
    if match := _WITH_NUMBERS.fullmatch(text):
        if match[1] == "decimal":
            return ColumnType("decimal", precision=int(match[2]), scale=int(match[3] or 0))
        return ColumnType("string", length=int(match[2]))
    if text in ("text", "mediumtext", "tinytext"):
        return ColumnType("string", length={"tinytext": 63, "text": 16_383, "mediumtext": 4_194_303}[text])
    return _COLUMN_TYPES.get(text)


def _accepts(text: str, wanted: ColumnType) -> bool:
    """A moment in a column without a zone is in UTC."""
    return text == "datetime(6)" and wanted.kind == "timestamptz"


def _alter(held: ColumnType, wide: ColumnType) -> str | None:
    if held.kind == wide.kind or (held.kind, wide.kind) in (("integer", "decimal"), ("integer", "string")):
        return "ALTER TABLE {table} MODIFY COLUMN {column} {type}{null}"
    return None


def _converted(column: str, held: ColumnType, wide: ColumnType) -> str:
    """A column's values as the new type has them: in their JSON form where they become text or JSON."""
    if wide.kind == "json":
        match held.kind:
            case "boolean":
                return f"IF({column} IS NULL, NULL, IF({column}, 'true', 'false'))"
            case "integer" | "float":
                return f"CAST({column} AS CHAR)"
            case _:
                return f"IF({column} IS NULL, NULL, JSON_QUOTE({_as_text(column, held)}))"
    return _as_text(column, held) if wide.kind == "string" else column


def _as_text(column: str, held: ColumnType) -> str:
    match held.kind:
        case "timestamp" | "timestamptz":
            digits = f"TRIM(TRAILING '0' FROM REPLACE(CAST({column} AS CHAR), ' ', 'T'))"
            zone = "Z" if held.kind == "timestamptz" else ""
            return f"CONCAT(TRIM(TRAILING '.' FROM {digits}), '{zone}')"
        case "bytes":
            return f"REPLACE(TO_BASE64({column}), '\\n', '')"
        case _:
            return f"CAST({column} AS CHAR)"


def _instant(text: str) -> str:
    """A moment as UTC without an offset, which MariaDB does not read."""
    if text[-1:] == "Z" and text[10:11] == "T" and len(text) <= len("2024-01-01T00:00:00.000000Z"):
        return text[:-1]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"MySQL cannot hold the moment {text!r}") from None
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ")


def _indexed(column: str, held: ColumnType) -> str:
    return f"{column}({KEY_LENGTH})" if _sql_type(held).startswith("long") else column


_INDEX_CURRENT = f"({{key}}, {{current}}) COMMENT '{MARK}'"

DIALECT = Dialect(
    name="MySQL",
    sql_type=_sql_type,
    key_type=_key_type,
    column_type=_column_type,
    alter=_alter,
    converted=_converted,
    converters={
        "timestamptz": Converter(_instant),
        "bytes": Converter(lambda text: b64decode(text, validate=True)),
        "boolean": Converter(int),
        "decimal": Converter(str),
    },
    upsert="on_duplicate_key",
    quote="`",
    parameter="%s",
    names=NameRule(64, folds_case=True, basic_plane=True),
    ddl_in_transaction=False,
    same=lambda one, other, _type: f"{one} <=> {other}",
    temporary="TEMPORARY TABLE",
    accepts=_accepts,
    drop_not_null="ALTER TABLE {table} MODIFY COLUMN {column} {type} NULL",
    cursor_types=("varchar(255)", "bigint", "longtext"),
    index_current=(f"CREATE INDEX {{name}} ON {{table}} {_INDEX_CURRENT}",),
    indexed=_indexed,
    move_current=(f"ALTER TABLE {{table}} DROP INDEX {{name}}, ADD INDEX {{name}} {_INDEX_CURRENT}",),
    key_clause=f"PRIMARY KEY ({{key}}) COMMENT '{MARK}'",
    drop_key="DROP PRIMARY KEY",
)


def spelled(text: str) -> str:
    """A type as `sql_type` spells it: MariaDB still gives integers a display width."""
    return _WIDTH.sub(r"\1", text)
