"""Values to JSON text as Go's encoding/json writes it: keys sorted, `<` as `\u003c`, indents of any text.

orjson writes the compact text; what only Go does is applied to that text. The hard part is strings
that are not UTF-8, which orjson refuses and Go prints with U+FFFD: they are mended first, and only then.
"""

from __future__ import annotations

import base64
import re
from typing import Any, Final

import orjson

from hub.mapping.timestamp import Timestamp
from hub.mapping.values import (
    EvaluationError,
    Number,
    Sentinel,
    Value,
    float_g,
    float_text,
    kind,
    text,
    utf8,
)

INDENTED_BYTES_MAX: Final = 64 << 20
"""An indented text longer than this is refused: indents multiply what a document weighs."""

_NOT_UTF8: Final = re.compile("[\ud800-\udfff]")
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\[\]{},:"]+')


def compact(value: Value, *, escape_html: bool = True) -> bytes:
    """A value as one line of JSON."""
    try:
        found = orjson.dumps(value, default=_default, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONEncodeError, UnicodeEncodeError):
        try:
            found = orjson.dumps(_mended(value), default=_default, option=orjson.OPT_SORT_KEYS)
        except (orjson.JSONEncodeError, RecursionError) as error:
            why = error.__cause__ if isinstance(error.__cause__, EvaluationError) else error
            raise EvaluationError(f"failed to encode value as JSON: {why}") from error
    if escape_html and (b"<" in found or b">" in found or b"&" in found):
        found = found.replace(b"<", rb"\u003c").replace(b">", rb"\u003e").replace(b"&", rb"\u0026")
    if b"\xe2\x80" in found:
        found = found.replace(b"\xe2\x80\xa8", rb"\u2028").replace(b"\xe2\x80\xa9", rb"\u2029")
    return found


def indented(value: Value, indent: str, *, escape_html: bool = True) -> bytes:
    """A value as JSON over several lines, each level one `indent` deeper; empty ones stay `{}` and `[]`."""
    step = utf8(indent)
    out: list[bytes] = []
    depth = size = 0
    tokens = _TOKENS.findall(compact(value, escape_html=escape_html))
    for index, token in enumerate(tokens):
        if token in (b"{", b"["):
            depth += 1
            out.append(token)
            if tokens[index + 1] not in (b"}", b"]"):
                out.append(b"\n" + step * depth)
        elif token in (b"}", b"]"):
            depth -= 1
            if tokens[index - 1] not in (b"{", b"["):
                out.append(b"\n" + step * depth)
            out.append(token)
        elif token == b",":
            out.append(b",\n" + step * depth)
        else:
            out.append(b": " if token == b":" else token)
        size += len(out[-1])
        if size > INDENTED_BYTES_MAX:
            raise EvaluationError(f"indented text would be larger than {INDENTED_BYTES_MAX} bytes")
    return b"".join(out)


def _default(value: Any) -> Any:
    if isinstance(value, float):
        return orjson.Fragment(float_text(value))
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Timestamp):
        return value.rfc3339()
    if isinstance(value, Number):
        return orjson.Fragment(value.text)
    if isinstance(value, Sentinel):
        return None
    raise EvaluationError(f"values of type {kind(value)} have no JSON form")


def _mended(value: Value) -> Value:
    """The value with every byte that is no UTF-8 as Go prints it."""
    if isinstance(value, str):
        return value if value.isascii() else _NOT_UTF8.sub("\ufffd", value)
    if isinstance(value, list):
        return [_mended(item) for item in value]
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    return value


def scalar_text(value: Value) -> str:
    """A value as `.string()` gives it: strings as they are, floats as Go's `%g`, the rest as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return text(value)
    if type(value) is int:
        return str(value)
    if isinstance(value, Number):
        return value.text
    if isinstance(value, float):
        return float_g(value)
    if isinstance(value, Timestamp):
        return value.rfc3339()
    return text(compact(value))
