"""PostgreSQL's text forms of compound values to JSON: arrays, composites, ranges, hstore. Pure.

The server quotes what is ambiguous, each form in its own way: arrays and hstore escape with a
backslash, composites and ranges double the quote too. The grammar is in the PostgreSQL manual,
sections 8.15.6 (arrays), 8.16.6 (composites), 8.17.5 (ranges) and F.18 (hstore).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import orjson

Convert = Callable[[bytes], bytes]
"""The text form of one value that is not null, to its JSON text."""
ConvertMany = Callable[[Sequence[bytes]], Sequence[bytes]]
"""The same for many of one column, at least one."""

_BETWEEN, _BETWEEN_IN_JSON = b"\x1f", b"\\u001f"
"""Stands between texts that are escaped together."""
FLOAT_WORDS: Mapping[bytes, bytes] = {
    b"NaN": b'"NaN"',
    b"Infinity": b'"Infinity"',
    b"-Infinity": b'"-Infinity"',
    b"-0": b"-0.0",
}
_ARRAY_BOUNDS = re.compile(rb"^(?:\[-?\d+:-?\d+\])+=")
_BACKSLASH = re.compile(rb"\\(.)", re.DOTALL)
_DOUBLED = re.compile(rb'""|\\(.)', re.DOTALL)
_FIELD = re.compile(rb'(?:"(?:[^"\\]|""|\\.)*"|[^,()"\\]|\\.)*', re.DOTALL)
_RANGE = re.compile(
    rb'([\[(])((?:"(?:[^"\\]|""|\\.)*"|[^,"])*),((?:"(?:[^"\\]|""|\\.)*"|[^\])"])*)([\])])', re.DOTALL
)
_QUOTED_PART = re.compile(rb'"((?:[^"\\]|""|\\.)*)"', re.DOTALL)
_PAIR = re.compile(rb'"((?:[^"\\]|\\.)*)"=>(?:"((?:[^"\\]|\\.)*)"|NULL)', re.DOTALL)
_BRACES_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_EMPTY_RANGE = b'{"lower":null,"upper":null,"bounds":"empty"}'


def text(value: bytes) -> bytes:
    """Any text as a JSON string. Bytes that are no UTF-8 (a SQL_ASCII database) become U+FFFD."""
    try:
        return orjson.dumps(value.decode())
    except UnicodeDecodeError:
        return orjson.dumps(value.decode(errors="replace"))


def texts(values: Sequence[bytes]) -> Sequence[bytes]:
    """Texts as what stands between the quotes of JSON strings: 0.02 µs each where nothing is to be escaped, which is known
    by the length, and 0.1 else. Raises UnicodeDecodeError for bytes that are no UTF-8."""
    joined = _BETWEEN.join(values)
    made = orjson.dumps(joined.decode())
    if len(made) == len(joined) + 2 + (len(values) - 1) * (len(_BETWEEN_IN_JSON) - 1):
        return values
    found = made[1:-1].split(_BETWEEN_IN_JSON)
    if len(found) == len(values):
        return found
    # Some text has what stands between them.
    return [orjson.dumps(value.decode())[1:-1] for value in values]


def timestamps(values: Sequence[bytes]) -> Sequence[bytes]:
    """Timestamps, with or without a zone, which is UTC, as what stands between the quotes of JSON strings."""
    joined = b"\n".join(values)
    if b"B" in joined:
        # Years before Christ have a second space.
        return [value.replace(b" ", b"T", 1).replace(b"+00", b"Z") for value in values]
    return joined.replace(b" ", b"T").replace(b"+00", b"Z").split(b"\n")


def floats(values: Sequence[bytes]) -> Sequence[bytes]:
    """Floating-point numbers, some of which are words in JSON."""
    joined = b" ".join(values)
    if b"N" in joined or b"I" in joined or b"-0" in joined:
        return [FLOAT_WORDS.get(value, value) for value in values]
    return values


def numbers(value: bytes) -> bytes:
    """An array of plain numbers, of any depth, without looking at each."""
    if value[:1] == b"[":
        value = _ARRAY_BOUNDS.sub(b"", value)
    return value.translate(_BRACES_TO_BRACKETS).replace(b"NULL", b"null")


def array(element: Convert, delimiter: bytes = b",") -> Convert:
    """Arrays of elements that `element` converts, nested as deep as they come. Lower bounds are dropped."""
    token = re.compile(
        rb'"((?:[^"\\]|\\.)*)"|([{}])|' + re.escape(delimiter) + rb'|([^{}"' + re.escape(delimiter) + rb"]+)",
        re.DOTALL,
    )

    def convert(value: bytes) -> bytes:
        if value[:1] == b"[":
            value = _ARRAY_BOUNDS.sub(b"", value)
        out: list[bytes] = []
        for found in token.finditer(value):
            quoted, brace, plain = found.groups()
            if quoted is not None:
                out.append(element(_BACKSLASH.sub(rb"\1", quoted) if b"\\" in quoted else quoted))
            elif brace is not None:
                out.append(b"[" if brace == b"{" else b"]")
            elif plain is not None:
                out.append(b"null" if plain == b"NULL" else element(plain))
            else:
                out.append(b",")
        return b"".join(out)

    return convert


def composite(fields: Sequence[tuple[str, Convert]]) -> Convert:
    """Row values, as objects by field name. An empty field is null; an empty string is quoted."""
    names = [orjson.dumps(name) + b":" for name, _ in fields]
    converts = [convert for _, convert in fields]

    def convert(value: bytes) -> bytes:
        # A composite of no field and one of a single null are written alike.
        parts = _composite_fields(value) if fields else []
        if len(parts) != len(fields):
            # The type was altered between the change and now: nothing is known about the fields.
            return text(value)
        made = [
            name + (b"null" if part is None else of_field(part))
            for name, of_field, part in zip(names, converts, parts, strict=True)
        ]
        return b"{" + b",".join(made) + b"}"

    return convert


def _composite_fields(value: bytes) -> list[bytes | None]:
    found: list[bytes | None] = []
    at, end = 1, len(value) - 1
    while True:
        match = _FIELD.match(value, at, end)
        assert match is not None
        found.append(_unquoted(match[0]) if match[0] else None)
        at = match.end() + 1
        if at > end:
            return found


def _unquoted(part: bytes) -> bytes:
    if b'"' not in part and b"\\" not in part:
        return part
    return _QUOTED_PART.sub(lambda match: _undoubled(match[1]), part)


def _undoubled(quoted: bytes) -> bytes:
    return _DOUBLED.sub(lambda match: b'"' if match[0] == b'""' else match[1], quoted)


def range_of(bound: Convert) -> Convert:
    """Ranges, as `{"lower":…,"upper":…,"bounds":"[)"}`; the empty range has bounds `empty`."""

    def convert(value: bytes) -> bytes:
        match = _RANGE.fullmatch(value)
        return _EMPTY_RANGE if match is None else _range(match, bound)

    return convert


def multirange_of(bound: Convert) -> Convert:
    """Multiranges, as arrays of ranges."""

    def convert(value: bytes) -> bytes:
        return b"[" + b",".join([_range(match, bound) for match in _RANGE.finditer(value)]) + b"]"

    return convert


def _range(match: re.Match[bytes], bound: Convert) -> bytes:
    opening, lower, upper, closing = match.groups()
    return b'{"lower":%b,"upper":%b,"bounds":"%b%b"}' % (
        bound(_unquoted(lower)) if lower else b"null",
        bound(_unquoted(upper)) if upper else b"null",
        opening,
        closing,
    )


def hstore(value: bytes) -> bytes:
    """hstore, as an object of strings and nulls."""
    made = [
        text(_BACKSLASH.sub(rb"\1", match[1]))
        + b":"
        + (b"null" if match[2] is None else text(_BACKSLASH.sub(rb"\1", match[2])))
        for match in _PAIR.finditer(value)
    ]
    return b"{" + b",".join(made) + b"}"
