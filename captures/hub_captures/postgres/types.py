"""The one table of PostgreSQL types: text form to JSON, and the column type that says what the JSON means. Pure.

Snapshot and stream both carry the text form (under the session settings of `connection.py`), so
one conversion serves both and a row reads the same either way. A conversion is a piece of Python
source, so that the decoder generated for a relation has it inline.

| types                                             | JSON                                                |
|---------------------------------------------------|-----------------------------------------------------|
| int2, int4, int8, oid, xid, cid                   | number                                              |
| numeric, money                                    | string, exact: `"2.50"`, `"NaN"`, `"Infinity"`      |
| float4, float8                                    | number; `"NaN"`, `"Infinity"`, `"-Infinity"`        |
| bool                                              | `true`, `false`                                     |
| text, varchar, char(n), name, citext, enums, xml  | string; char(n) keeps its padding                   |
| bytea, PostGIS geometry and geography             | base64 (of EWKB)                                    |
| date, time, timetz, interval, uuid                | string as PostgreSQL prints it, ISO 8601            |
| timestamp                                         | `"2024-01-01T00:00:00.123456"`; `"infinity"`; `BC`  |
| timestamptz                                       | the same in UTC with `Z`                            |
| json, jsonb                                       | as it is, numbers and duplicate keys untouched      |
| arrays                                            | arrays of the element's form; lower bounds dropped  |
| composites                                        | objects by field name                               |
| domains                                           | as their base type                                  |
| ranges                                            | `{"lower":1,"upper":5,"bounds":"[)"}`               |
| multiranges                                       | arrays of ranges                                    |
| hstore                                            | object of strings and nulls                         |
| vector, halfvec                                   | array of numbers                                    |
| inet, cidr, macaddr, bit, pg_lsn, geometric types | string                                              |
| every other type                                  | its text form, as a string                          |
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import orjson

from hub.schema.types import (
    BOOLEAN,
    BYTES,
    DATE,
    DECIMAL,
    FLOAT32,
    FLOAT64,
    INT16,
    INT32,
    INT64,
    INTERVAL,
    JSON,
    OBJECT,
    STRING,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    TIMETZ,
    UUID,
    ColumnType,
)
from hub_captures.postgres import literals
from hub_captures.postgres.literals import Convert


class PgType(msgspec.Struct, frozen=True):
    """What the catalog says of one type. `fields` are those of a composite: name, type, type modifier."""

    oid: int
    schema: str
    name: str
    kind: str
    """`b` base, `c` composite, `d` domain, `e` enum, `r` range, `m` multirange, `p` pseudo; `a` array."""
    related: int = 0
    """The element of an array, the base of a domain, the bound's type of a range or multirange."""
    modifier: int = -1
    delimiter: str = ","
    fields: tuple[tuple[str, int, int], ...] = ()


class Codec(NamedTuple):
    """How one column's text becomes JSON. `source` is a Python expression over `v`, the text as bytes,
    and the names in `names`. With `is_quoted` its value stands inside of quotes, which the template of a
    whole row has already: putting them on each value would be a fifth of a row's cost."""

    column: ColumnType
    source: str
    names: Mapping[str, Any] = {}
    is_bare: bool = False
    """True when the text form is a JSON number as it is."""
    is_short: bool = False
    """True when the text form never has more than 255 bytes, so that one byte tells its length."""
    is_quoted: bool = False

    def function(self) -> Convert:
        """The conversion to whole JSON as a callable, which takes any bytes for text."""
        if self.source == _TEXT:
            return literals.text
        source = f"b'\"' + {self.source} + b'\"'" if self.is_quoted else self.source
        if not self.names:
            return _function(source)
        made: Convert = eval(f"lambda v: {source}", {**NAMESPACE, **self.names})
        return made


def _json(value: bytes) -> bytes:
    """`json` keeps the white space it was written with; a document stands on one line."""
    return value.replace(b"\n", b" ").replace(b"\r", b" ")


def _bytes(value: bytes) -> bytes:
    return binascii.b2a_base64(binascii.a2b_hex(value[2:]), newline=False)


def _geometry(value: bytes) -> bytes:
    return binascii.b2a_base64(binascii.a2b_hex(value), newline=False)


NAMESPACE: Mapping[str, Any] = {
    "DUMPS": orjson.dumps,
    "BOOL": {b"t": b"true", b"f": b"false"},
    "FLOAT": {b"NaN": b'"NaN"', b"Infinity": b'"Infinity"', b"-Infinity": b'"-Infinity"'}.get,
    "JSON": _json,
    "BYTES": _bytes,
    "GEOMETRY": _geometry,
    "HSTORE": literals.hstore,
    "NUMBERS": literals.numbers,
}
"""What the source of a conversion may name."""


@lru_cache(maxsize=256)
def _function(source: str) -> Convert:
    made: Convert = eval(f"lambda v: {source}", dict(NAMESPACE))
    return made


_BARE = "v"
_TEXT = "DUMPS(v.decode())"
_FLOAT = "FLOAT(v, v)"

_BUILT_IN: dict[str, Codec] = {
    "int2": Codec(INT16, _BARE, is_bare=True, is_short=True),
    "int4": Codec(INT32, _BARE, is_bare=True, is_short=True),
    "int8": Codec(INT64, _BARE, is_bare=True, is_short=True),
    "oid": Codec(INT64, _BARE, is_bare=True, is_short=True),
    "xid": Codec(INT64, _BARE, is_bare=True, is_short=True),
    "cid": Codec(INT64, _BARE, is_bare=True, is_short=True),
    "numeric": Codec(DECIMAL, _BARE, is_quoted=True),
    "money": Codec(
        ColumnType("decimal", precision=19, scale=2),
        "v.translate(None, b'$,')",
        is_short=True,
        is_quoted=True,
    ),
    "float4": Codec(FLOAT32, _FLOAT, is_short=True),
    "float8": Codec(FLOAT64, _FLOAT, is_short=True),
    "bool": Codec(BOOLEAN, "BOOL[v]", is_short=True),
    "bytea": Codec(BYTES, "BYTES(v)", is_quoted=True),
    "date": Codec(DATE, _BARE, is_short=True, is_quoted=True),
    "timestamp": Codec(TIMESTAMP, "v.replace(b' ', b'T', 1)", is_short=True, is_quoted=True),
    "timestamptz": Codec(
        TIMESTAMPTZ, "v.replace(b' ', b'T', 1).replace(b'+00', b'Z')", is_short=True, is_quoted=True
    ),
    "time": Codec(TIME, _BARE, is_short=True, is_quoted=True),
    "timetz": Codec(TIMETZ, _BARE, is_short=True, is_quoted=True),
    "interval": Codec(INTERVAL, _BARE, is_short=True, is_quoted=True),
    "uuid": Codec(UUID, _BARE, is_short=True, is_quoted=True),
    "json": Codec(JSON, "JSON(v) if b'\\n' in v or b'\\r' in v else v"),
    "jsonb": Codec(JSON, _BARE),
}
_BUILT_IN |= dict.fromkeys(
    [
        "bit",
        "varbit",
        "inet",
        "cidr",
        "macaddr",
        "macaddr8",
        "pg_lsn",
        "xid8",
        "tid",
        "point",
        "line",
        "lseg",
        "box",
        "path",
        "polygon",
        "circle",
    ],
    Codec(STRING, _BARE, is_quoted=True),
)

_EXTENSIONS: Mapping[str, Codec] = {
    "hstore": Codec(OBJECT, "HSTORE(v)"),
    "vector": Codec(ColumnType("array", items=FLOAT32), _BARE),
    "halfvec": Codec(ColumnType("array", items=FLOAT32), _BARE),
    "geometry": Codec(BYTES, "GEOMETRY(v)", is_quoted=True),
    "geography": Codec(BYTES, "GEOMETRY(v)", is_quoted=True),
}
"""Types of extensions, which may be installed in any schema, by name."""

_FALLBACK = Codec(STRING, _TEXT)


def codec(oid: int, modifier: int, types: Mapping[int, PgType]) -> Codec:
    """How values of a type are converted. A type that is not in `types` (dropped since) is text."""
    found = types.get(oid)
    if found is None:
        return _FALLBACK
    match found.kind:
        case "d":
            return codec(found.related, found.modifier if modifier < 0 else modifier, types)
        case "a":
            return _array(found, codec(found.related, modifier, types))
        case "r" | "m":
            return _range(found, codec(found.related, -1, types))
        case "c":
            return _composite(found, types)
        case "b" if found.schema == "pg_catalog":
            return _modified(found.name, modifier)
        case "b":
            return _EXTENSIONS.get(found.name, _FALLBACK)
    return _FALLBACK


def _modified(name: str, modifier: int) -> Codec:
    """A built-in type with its modifier: precision and scale, or length."""
    if name == "numeric" and modifier >= 4:
        precision, scale = (modifier - 4) >> 16 & 0xFFFF, (((modifier - 4) & 0x7FF) ^ 1024) - 1024
        if 0 <= scale <= precision:
            is_short = precision < 250
            return Codec(
                ColumnType("decimal", precision=precision, scale=scale),
                _BARE,
                is_short=is_short,
                is_quoted=True,
            )
    if name in ("varchar", "bpchar") and modifier >= 4:
        return Codec(ColumnType("string", length=modifier - 4), _TEXT)
    return _BUILT_IN.get(name, _FALLBACK)


def _array(found: PgType, element: Codec) -> Codec:
    column = ColumnType("array", items=element.column)
    if element.is_bare:
        return Codec(column, "NUMBERS(v)")
    return _called(column, literals.array(element.function(), found.delimiter.encode()))


def _range(found: PgType, bound: Codec) -> Codec:
    column = ColumnType(
        "object", properties={"lower": bound.column, "upper": bound.column, "bounds": STRING.null(False)}
    )
    if found.kind == "r":
        return _called(column, literals.range_of(bound.function()))
    return _called(ColumnType("array", items=column), literals.multirange_of(bound.function()))


def _composite(found: PgType, types: Mapping[int, PgType]) -> Codec:
    fields = [(name, codec(oid, modifier, types)) for name, oid, modifier in found.fields]
    column = ColumnType("object", properties={name: each.column for name, each in fields})
    return _called(column, literals.composite([(name, each.function()) for name, each in fields]))


def _called(column: ColumnType, convert: Callable[[bytes], bytes]) -> Codec:
    name = f"CONVERT_{id(convert)}"
    return Codec(column, f"{name}(v)", {name: convert})
