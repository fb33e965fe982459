"""Binary and markup formats: MessagePack, Parquet, XML."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from hub.mapping.limits import check_bytes, check_depth, check_items
from hub.mapping.receivers import as_bytes, as_string
from hub.mapping.registry import Example, Param, method
from hub.mapping.timestamp import Timestamp
from hub.mapping.values import (
    INT64_MAX,
    INT64_MIN,
    EvaluationError,
    Float32,
    Number,
    Value,
    kind,
    real,
    text,
    utf8,
    wrong_type,
)
from hub.mapping.xmltext import format_xml, parse_xml

CATEGORY: Final = "Parsing"
_TRAILING: Final = re.compile(r"trailing characters \(byte (\d+)\)")


@method(
    "parse_msgpack",
    category=CATEGORY,
    annotate=False,
    doc="The value that bytes begin with in MessagePack.",
    examples=[
        Example(
            'root.v = this.v.decode("base64").parse_msgpack()',
            (('{"v":"gaNmb2+jYmFy"}', '{"v":{"foo":"bar"}}'),),
        )
    ],
)
def _parse_msgpack(target: Value) -> Value:
    data = as_bytes(target)
    try:
        return _from_python(msgspec.msgpack.decode(data), 0)
    except msgspec.DecodeError as error:
        # What follows the first value is not looked at, as in the engine.
        trailing = _TRAILING.search(str(error))
        if trailing is None:
            raise EvaluationError(f"failed to convert MsgPack document to JSON: {error}") from error
    try:
        return _from_python(msgspec.msgpack.decode(data[: int(trailing.group(1))]), 0)
    except msgspec.DecodeError as error:
        raise EvaluationError(f"failed to convert MsgPack document to JSON: {error}") from error


def _from_python(value: Any, depth: int) -> Value:
    """A value of a Python library as the language has it."""
    check_depth(depth)
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else str(key): _from_python(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_from_python(item, depth + 1) for item in value]
    if value is None or isinstance(value, bool | str | bytes):
        return value
    if isinstance(value, int):
        return value if INT64_MIN <= value <= INT64_MAX else Number(str(value))
    if isinstance(value, float):
        return real(value)
    if isinstance(value, Decimal):
        return Number(f"{value:f}")
    if isinstance(value, datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND
        return Timestamp(micros * 1000)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, memoryview | bytearray):
        return bytes(value)
    return str(value)


_MICROSECOND: Final = datetime.resolution


@method(
    "format_msgpack",
    category=CATEGORY,
    annotate=False,
    doc="The value in MessagePack, as bytes.",
    examples=[
        Example(
            'root.v = this.v.format_msgpack().encode("hex")',
            (('{"v":{"foo":"bar"}}', '{"v":"81a3666f6fa3626172"}'),),
        )
    ],
)
def _format_msgpack(target: Value) -> bytes:
    return msgspec.msgpack.encode(_to_python(target, 0), order="sorted")


def _to_python(value: Value, depth: int) -> Any:
    check_depth(depth)
    if isinstance(value, dict):
        return {_utf8_only(key): _to_python(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_python(item, depth + 1) for item in value]
    if isinstance(value, str):
        return _utf8_only(value)
    if isinstance(value, Number):
        value = value.plain()
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, Timestamp):
        return value.rfc3339()
    if isinstance(value, Float32):
        return float(value)
    if value is None or isinstance(value, bool | int | float | bytes):
        return float(value) if isinstance(value, float) else value
    raise EvaluationError(f"values of type {kind(value)} have no MessagePack form")


def _utf8_only(value: str) -> str:
    return value if value.isascii() else text(utf8(value)).encode("utf-8", "replace").decode()


@method(
    "parse_parquet",
    category=CATEGORY,
    annotate=False,
    params=[Param("byte_array_as_string", "bool", False, "Give byte arrays as strings.")],
    doc="The rows of a Parquet file, given as bytes, as an array of objects.",
)
def _parse_parquet(target: Value, byte_array_as_string: bool) -> list[Any]:
    import duckdb

    if type(target) is not bytes and type(target) is not str:
        raise wrong_type(target, "bytes")
    data = as_bytes(target)
    check_bytes(len(data))
    with TemporaryDirectory(prefix="hub-parquet-") as folder:
        path = Path(folder) / "rows.parquet"
        path.write_bytes(data)
        try:
            with duckdb.connect(":memory:", config={"threads": "1"}) as connection:
                found = connection.execute("SELECT * FROM read_parquet(?)", [str(path)])
                names = [column[0] for column in found.description or ()]
                rows = found.fetchmany(_ROWS_MAX + 1)
        except duckdb.Error as error:
            raise EvaluationError(f"failed to read parquet: {error}") from error
    check_items(len(rows))
    made = [{name: _from_python(cell, 0) for name, cell in zip(names, row, strict=True)} for row in rows]
    if byte_array_as_string:
        return [{k: text(v) if isinstance(v, bytes) else v for k, v in row.items()} for row in made]
    return made


_ROWS_MAX: Final = 1_000_000


@method(
    "parse_xml",
    category=CATEGORY,
    params=[Param("cast", "bool", False, "Make numbers and booleans of texts that look like them.")],
    doc="An XML document as an object: attributes under `-name`, text beside attributes or elements under `#text`, "
    "elements that come more than once as an array.",
    examples=[
        Example(
            "root.v = this.v.parse_xml()",
            (('{"v":"<r><n id=\\"9\\">1</n></r>"}', '{"v":{"r":{"n":{"#text":"1","-id":"9"}}}}'),),
        ),
        Example(
            "root.v = this.v.parse_xml(cast: true)",
            (('{"v":"<r><n>1</n><n>2</n></r>"}', '{"v":{"r":{"n":[1,2]}}}'),),
        ),
    ],
)
def _parse_xml(target: Value, cast: bool) -> dict[str, Any]:
    return parse_xml(as_string(target), cast=cast)


@method(
    "format_xml",
    category=CATEGORY,
    params=[
        Param("indent", "string", "    ", "What each level is indented by."),
        Param("no_indent", "bool", False, "Write everything on one line."),
        Param("root_tag", "string", None, "The name of the root element; by default the object's only key."),
    ],
    doc="An object as XML, in bytes; the counterpart of `parse_xml`.",
    examples=[
        Example(
            "root.v = this.v.format_xml(no_indent: true).string()",
            (('{"v":{"a":{"b":["x","y"]}}}', '{"v":"<a><b>x</b><b>y</b></a>"}'),),
        )
    ],
)
def _format_xml(target: Value, indent: str, no_indent: bool, root_tag: str | None) -> bytes:
    return format_xml(target, "" if no_indent else indent, root_tag)
