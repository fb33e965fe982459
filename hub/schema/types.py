"""Column types: what a field of a document holds, beyond what JSON can say.

A document is JSON, so a decimal, a date or a byte string is text in it. The JSON Schema of the
collection says what the text stands for (`format`), and a sink restores the type from there. This
file is the one table of types: their JSON form, their schema, and the way back.

| kind        | JSON form                                   | schema                                       |
|-------------|---------------------------------------------|----------------------------------------------|
| boolean     | `true`                                      | `boolean`                                    |
| integer     | `5`                                         | `integer`, format `int16/32/53/64`, `uint64` |
| float       | `1.5`; `"NaN"`, `"Infinity"`, `"-Infinity"` | `number`, format `float` or `double`         |
| decimal     | `"2.50"`; `"NaN"`, `"Infinity"`             | `string`, format `decimal`, precision, scale |
| string      | `"ab"`                                      | `string`, maxLength                          |
| date        | `"2024-02-29"`; `"infinity"`, `… BC`        | `string`, format `date`                      |
| timestamp   | `"2024-01-01T00:00:00.123456"`              | `string`, format `date-time-local`           |
| timestamptz | `"2024-01-01T00:00:00.1Z"`                  | `string`, format `date-time`                 |
| time        | `"23:59:59.5"`; `"24:00:00"`                | `string`, format `time-local`                |
| timetz      | `"12:00:00+02"`                             | `string`, format `time`                      |
| interval    | `"P1Y2M3DT4H5M6.7S"`                        | `string`, format `duration`                  |
| uuid        | `"…"`                                       | `string`, format `uuid`                      |
| bytes       | base64                                      | `string`, contentEncoding `base64`           |
| json        | any                                         | no `type`                                    |
| array       | `[…]`                                       | `array`, items                               |
| object      | `{…}`                                       | `object`, properties                         |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

Kind = Literal[
    "boolean",
    "integer",
    "float",
    "decimal",
    "string",
    "date",
    "timestamp",
    "timestamptz",
    "time",
    "timetz",
    "interval",
    "uuid",
    "bytes",
    "json",
    "array",
    "object",
]

KINDS: tuple[Kind, ...] = get_args(Kind)


class ColumnType(msgspec.Struct, frozen=True, omit_defaults=True):
    """The type of one field.

    `bits` is 16, 32, 53 or 64 for integers (`unsigned` with 64) and 32 or 64 for floats. An integer of 53 bits
    is one that a double holds exactly, which is what is learnt from documents: JSON does not tell integers
    from other numbers, so a column of them may become a float without losing anything. `precision` and
    `scale` bound a decimal; None is any. `length` bounds a string in characters. `items` types the
    elements of an array. `nullable` says that null or absence is legal.
    """

    kind: Kind
    nullable: bool = True
    bits: int | None = None
    unsigned: bool = False
    precision: int | None = None
    scale: int | None = None
    length: int | None = None
    items: ColumnType | None = None
    properties: Mapping[str, ColumnType] | None = None

    def null(self, nullable: bool = True) -> ColumnType:
        """The same type with the given nullability."""
        return msgspec.structs.replace(self, nullable=nullable)


BOOLEAN = ColumnType("boolean")
INT16 = ColumnType("integer", bits=16)
INT32 = ColumnType("integer", bits=32)
INT53 = ColumnType("integer", bits=53)
INT64 = ColumnType("integer", bits=64)
UINT64 = ColumnType("integer", bits=64, unsigned=True)
FLOAT32 = ColumnType("float", bits=32)
FLOAT64 = ColumnType("float", bits=64)
DECIMAL = ColumnType("decimal")
STRING = ColumnType("string")
DATE = ColumnType("date")
TIMESTAMP = ColumnType("timestamp")
TIMESTAMPTZ = ColumnType("timestamptz")
TIME = ColumnType("time")
TIMETZ = ColumnType("timetz")
INTERVAL = ColumnType("interval")
UUID = ColumnType("uuid")
BYTES = ColumnType("bytes")
JSON = ColumnType("json")
OBJECT = ColumnType("object")

_TEXT_FORMATS: dict[str, Kind] = {
    "decimal": "decimal",
    "date": "date",
    "date-time-local": "timestamp",
    "date-time": "timestamptz",
    "time-local": "time",
    "time": "timetz",
    "duration": "interval",
    "uuid": "uuid",
}
_FORMAT_OF_KIND = {kind: name for name, kind in _TEXT_FORMATS.items()}
_INTEGER_FORMATS = {"int16": INT16, "int32": INT32, "int53": INT53, "int64": INT64, "uint64": UINT64}


def to_json_schema(column: ColumnType) -> dict[str, Any]:
    """The JSON Schema of one field. `of_json_schema` reads it back to an equal type."""
    found: dict[str, Any] = {}
    types: list[str] = []
    match column.kind:
        case "boolean":
            types = ["boolean"]
        case "integer":
            types = ["integer"]
            found["format"] = ("uint" if column.unsigned else "int") + str(column.bits or 64)
        case "float":
            types = ["number", "string"]
            found["format"] = "float" if column.bits == 32 else "double"
        case "string":
            types = ["string"]
            if column.length is not None:
                found["maxLength"] = column.length
        case "bytes":
            types = ["string"]
            found["contentEncoding"] = "base64"
        case "json":
            return {} if column.nullable else {"not": {"type": "null"}}
        case "array":
            types = ["array"]
            if column.items is not None:
                found["items"] = to_json_schema(column.items)
        case "object":
            types = ["object"]
            if column.properties is not None:
                found["properties"] = {k: to_json_schema(v) for k, v in column.properties.items()}
        case _:
            types = ["string"]
            found["format"] = _FORMAT_OF_KIND[column.kind]
            if column.precision is not None:
                found["precision"] = column.precision
            if column.scale is not None:
                found["scale"] = column.scale
    if column.nullable:
        types = [*types, "null"]
    return {"type": types[0] if len(types) == 1 else types} | found


def of_json_schema(schema: Mapping[str, Any] | bool) -> ColumnType:
    """The type that a JSON Schema describes; `json` where it describes none of ours."""
    if isinstance(schema, bool):
        return JSON
    declared = schema.get("type")
    if declared is None:
        return JSON.null(schema.get("not") != {"type": "null"})
    types = {declared} if isinstance(declared, str) else set(declared)
    nullable = "null" in types
    types.discard("null")
    return _of_types(types, schema).null(nullable)


def _of_types(types: set[str], schema: Mapping[str, Any]) -> ColumnType:
    name = schema.get("format")
    if types == {"boolean"}:
        return BOOLEAN
    if types == {"integer"}:
        return _INTEGER_FORMATS.get(str(name), INT64)
    if "number" in types and types <= {"number", "integer"}:
        return FLOAT32 if name == "float" else FLOAT64
    if types == {"number", "string"} and name in ("float", "double"):
        return FLOAT32 if name == "float" else FLOAT64
    if types == {"string"}:
        if schema.get("contentEncoding") == "base64":
            return BYTES
        if name in _TEXT_FORMATS:
            kind = _TEXT_FORMATS[name]
            return ColumnType(kind, precision=schema.get("precision"), scale=schema.get("scale"))
        return ColumnType("string", length=schema.get("maxLength"))
    if types == {"array"}:
        items = schema.get("items")
        return ColumnType("array", items=of_json_schema(items) if items is not None else None)
    if types == {"object"}:
        properties = schema.get("properties")
        if properties is None:
            return OBJECT
        return ColumnType("object", properties={k: of_json_schema(v) for k, v in properties.items()})
    return JSON
