"""The one table of PostgreSQL types: text form to JSON, and the column type that says what the JSON means. Pure.

Snapshot and stream both carry the text form (under the session settings of `connection.py`), so
one conversion serves both and a row reads the same either way. A conversion is a piece of Python
source, so that the decoder generated for a relation has it inline.

`FORMS` is that table: how each type is converted, and in words what becomes of it, which is what the page of the
connector shows. A test writes every value back through the PostgreSQL sink and compares.
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
from hub_captures.postgres.literals import Convert, ConvertMany


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
    column_at_once: ConvertMany | None = None
    """The same for many values, where that is faster than one after the other."""

    def function(self) -> Convert:
        """The conversion to whole JSON as a callable, which takes any bytes for text."""
        if self.source == _TEXT:
            return literals.text
        source = f"b'\"' + {self.source} + b'\"'" if self.is_quoted else self.source
        if not self.names:
            return _function(source)
        made: Convert = eval(f"lambda v: {source}", {**NAMESPACE, **self.names})
        return made

    def for_columns(self) -> ConvertMany | None:
        """The conversion of all values of a column. None when they are what they shall be as they are."""
        if self.column_at_once is not None:
            return self.column_at_once
        if self.source == _BARE:
            return None
        made: ConvertMany = eval(f"lambda vs: [{self.source} for v in vs]", {**NAMESPACE, **self.names})
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
    "FLOAT": literals.FLOAT_WORDS.get,
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
_TEXT = "DUMPS(v.decode())[1:-1]"
_FLOAT = "FLOAT(v, v)"


class Form(NamedTuple):
    """One line of the table: types, how they are converted (None where that follows from what they are made of), what
    that is in JSON, and in a PostgreSQL sink and how it is had back from there where a cast is not enough."""

    names: tuple[str, ...]
    codec: Codec | None
    json: str
    back: str
    is_extension: bool = False


_INTEGER = "number"
_FLOAT_TEXT = 'number; `"NaN"`, `"Infinity"`, `"-Infinity"`; `-0.0`'
_TEXT_FORM = "its text as a string"

FORMS: tuple[Form, ...] = (
    Form(("int2",), Codec(INT16, _BARE, is_bare=True, is_short=True), _INTEGER, "smallint"),
    Form(("int4",), Codec(INT32, _BARE, is_bare=True, is_short=True), _INTEGER, "integer"),
    Form(("int8", "oid", "xid", "cid"), Codec(INT64, _BARE, is_bare=True, is_short=True), _INTEGER, "bigint"),
    Form(
        ("numeric",),
        Codec(DECIMAL, _BARE, is_quoted=True),
        'string, exact: `"2.50"`, `"NaN"`, `"Infinity"`',
        "numeric",
    ),
    Form(
        ("money",),
        Codec(
            ColumnType("decimal", precision=19, scale=2),
            "v.translate(None, b'$,')",
            is_short=True,
            is_quoted=True,
        ),
        'string, exact: `"-1.50"`',
        "numeric(19,2)",
    ),
    Form(
        ("float4",),
        Codec(FLOAT32, _FLOAT, is_short=True, column_at_once=literals.floats),
        _FLOAT_TEXT,
        "real",
    ),
    Form(
        ("float8",),
        Codec(FLOAT64, _FLOAT, is_short=True, column_at_once=literals.floats),
        _FLOAT_TEXT,
        "double precision",
    ),
    Form(("bool",), Codec(BOOLEAN, "BOOL[v]", is_short=True), "`true`, `false`", "boolean"),
    Form(
        ("text", "varchar", "bpchar", "name", "char", "xml"),
        Codec(STRING, _TEXT, is_quoted=True, column_at_once=literals.texts),
        "string; char(n) keeps its padding",
        "text, or varchar of the same length",
    ),
    Form(("bytea",), Codec(BYTES, "BYTES(v)", is_quoted=True), "base64", "bytea"),
    Form(
        ("date",),
        Codec(DATE, _BARE, is_short=True, is_quoted=True),
        '`"2024-02-29"`, `"infinity"`, `"0044-03-15 BC"`',
        "date",
    ),
    Form(
        ("timestamp",),
        Codec(
            TIMESTAMP,
            "v.replace(b' ', b'T', 1)",
            is_short=True,
            is_quoted=True,
            column_at_once=literals.timestamps,
        ),
        '`"2024-01-01T00:00:00.123456"`; `"-infinity"`; `" BC"` at the end',
        "timestamp",
    ),
    Form(
        ("timestamptz",),
        Codec(
            TIMESTAMPTZ,
            "v.replace(b' ', b'T', 1).replace(b'+00', b'Z')",
            is_short=True,
            is_quoted=True,
            column_at_once=literals.timestamps,
        ),
        "the same in UTC, with `Z`",
        "timestamptz",
    ),
    Form(
        ("time",), Codec(TIME, _BARE, is_short=True, is_quoted=True), '`"01:02:03.5"`, `"24:00:00"`', "time"
    ),
    Form(("timetz",), Codec(TIMETZ, _BARE, is_short=True, is_quoted=True), '`"12:00:00+02"`', "timetz"),
    Form(
        ("interval",),
        Codec(INTERVAL, _BARE, is_short=True, is_quoted=True),
        'ISO 8601: `"P1Y2M3DT4H5M6.7S"`',
        "interval",
    ),
    Form(("uuid",), Codec(UUID, _BARE, is_short=True, is_quoted=True), "string", "uuid"),
    Form(
        ("json",),
        Codec(JSON, "JSON(v) if b'\\n' in v or b'\\r' in v else v"),
        "as it is, numbers and repeated keys untouched; line ends become spaces",
        "json; a JSON `null` comes back as NULL",
    ),
    Form(
        ("jsonb",),
        Codec(JSON, _BARE),
        "as it is, numbers untouched",
        "json; a JSON `null` comes back as NULL",
    ),
    Form(
        (
            *("bit", "varbit", "inet", "cidr", "macaddr", "macaddr8", "pg_lsn", "xid8", "tid"),
            *("point", "line", "lseg", "box", "path", "polygon", "circle"),
        ),
        Codec(STRING, _BARE, is_quoted=True),
        _TEXT_FORM,
        "text",
    ),
    Form(("hstore",), Codec(OBJECT, "HSTORE(v)"), "object of strings and nulls", "json", is_extension=True),
    Form(
        ("vector", "halfvec"),
        Codec(ColumnType("array", items=FLOAT32), _BARE),
        "array of numbers",
        "real[], which casts to vector",
        is_extension=True,
    ),
    Form(
        ("geometry", "geography"),
        Codec(BYTES, "GEOMETRY(v)", is_quoted=True),
        "base64 of EWKB",
        "bytea, which casts to geometry",
        is_extension=True,
    ),
    Form(("enums",), None, "string", "text"),
    Form(("domains",), None, "as their base type", "as their base type"),
    Form(
        ("arrays",),
        None,
        "arrays of the element's form, nested as deep as they are; lower bounds are dropped",
        "an array of what the element is there; json for elements that are JSON, objects or arrays",
    ),
    Form(("composites",), None, "objects by field name", "json: `json_populate_record(null::t, c)`"),
    Form(
        ("ranges",),
        None,
        '`{"lower":1,"upper":5,"bounds":"[)"}`; bounds `empty`',
        "json: `int4range((c->>'lower')::int, (c->>'upper')::int, c->>'bounds')`",
    ),
    Form(("multiranges",), None, "arrays of ranges", "json"),
    Form(("every other type",), None, _TEXT_FORM, "text"),
)
"""The one table of types. Values of types that have no line are text, and so are those of a type that was dropped."""

_BUILT_IN: Mapping[str, Codec] = {
    name: form.codec
    for form in FORMS
    for name in form.names
    if form.codec is not None and not form.is_extension
}
_EXTENSIONS: Mapping[str, Codec] = {
    name: form.codec for form in FORMS for name in form.names if form.codec is not None and form.is_extension
}
"""Types of extensions, which may be installed in any schema, by name."""

_FALLBACK = Codec(STRING, _TEXT, is_quoted=True, column_at_once=literals.texts)


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
        return _FALLBACK._replace(column=ColumnType("string", length=modifier - 4))
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
