"""What a method makes of its receiver, or the error that names the type it needs instead.

Two families of methods take text: most take a string or bytes and answer with the same type; the
others make a string of either, and of a timestamp. Which is which is the engine's choice, not ours.
"""

from __future__ import annotations

from typing import Any

from hub.errors import RecordError
from hub.mapping.registry import timestamp_of
from hub.mapping.timestamp import Timestamp
from hub.mapping.values import (
    INT64_MAX,
    INT64_MIN,
    EvaluationError,
    Float32,
    Number,
    Value,
    float32_shortest,
    int64,
    real,
    text,
    utf8,
    wrong_type,
)


def as_string(value: Value) -> str:
    """Text of a string, bytes or a timestamp."""
    if type(value) is str:
        return value
    if type(value) is bytes:
        return text(value)
    if type(value) is Timestamp:
        return value.rfc3339()
    raise wrong_type(value, "string")


def as_text(value: Value) -> str:
    """Text of a string or bytes."""
    if type(value) is str:
        return value
    if type(value) is bytes:
        return text(value)
    raise wrong_type(value, "string")


def as_data(value: Value) -> bytes:
    """The bytes of a string or bytes."""
    if type(value) is bytes:
        return value
    if type(value) is str:
        return utf8(value)
    raise wrong_type(value, "string")


def as_bytes(value: Value) -> bytes:
    """The bytes of a string, bytes or a timestamp, for methods that name bytes as what they need."""
    if type(value) is bytes:
        return value
    if type(value) is str:
        return utf8(value)
    if type(value) is Timestamp:
        return value.rfc3339().encode()
    raise wrong_type(value, "bytes")


def as_array(value: Value) -> list[Any]:
    """An array."""
    if type(value) is list:
        return value
    raise wrong_type(value, "array")


def as_object(value: Value) -> dict[str, Any]:
    """An object."""
    if type(value) is dict:
        return value
    raise wrong_type(value, "object")


def as_number(value: Value) -> int | float:
    """A number as int64 or float64; the number of a document becomes the one it spells."""
    kind = type(value)
    if kind is float or (kind is int and INT64_MIN <= value <= INT64_MAX):
        found: int | float = value
        return found
    if kind is bool or not isinstance(value, int | float | Number):
        raise wrong_type(value, "number")
    if isinstance(value, Number):
        try:
            return value.plain()
        except RecordError as error:
            raise EvaluationError(error.reason) from error
    if kind is int:
        return real(float(value))
    if isinstance(value, Float32):
        return float32_shortest(value)
    return value


def as_float(value: Value) -> float:
    """A number as float64."""
    return float(as_number(value))


def as_int(value: Value) -> int:
    """A number as int64; decimals are cut off."""
    found = value
    if isinstance(found, Number):
        found = found.plain()
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise wrong_type(value, "integer")
    if isinstance(found, int):
        return int64(int(found))
    if not INT64_MIN <= found <= INT64_MAX:
        return INT64_MIN
    return int(found)


as_moment = timestamp_of
"""A timestamp: one already, a number of seconds since 1970, or RFC 3339 text."""
