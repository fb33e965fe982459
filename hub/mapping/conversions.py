"""Text and numbers to integers and floats of a given width, with the refusals of Go's strconv.

The hard part is which refusal: a document's number is parsed as the text it is, a computed float must
be whole, a string may have a prefix (`0x`), and only then is the width looked at.
"""

from __future__ import annotations

import math
import re
from typing import Final

from hub.mapping.values import (
    INT64_MAX,
    INT64_MIN,
    UINT64_MAX,
    EvaluationError,
    Number,
    Uint64,
    Value,
    float32_shortest,
    go_quote,
    real,
    text,
    wrong_type,
)

_INTEGER: Final = re.compile(
    r"([-+]?)(?:0[xX]((?:_?[0-9a-fA-F])+)|0[bB]((?:_?[01])+)|0[oO]((?:_?[0-7])+)|(0(?:_?[0-7])+)|([0-9](?:_?[0-9])*))",
    re.ASCII,
)
_FLOAT: Final = re.compile(
    r"[-+]?(?:[0-9](?:_?[0-9])*\.?(?:[0-9](?:_?[0-9])*)?|\.[0-9](?:_?[0-9])*)(?:[eE][-+]?[0-9]+)?"
)
_HEX_FLOAT: Final = re.compile(r"[-+]?0[xX][0-9a-fA-F_]*\.?[0-9a-fA-F_]*[pP][-+]?[0-9]+")
_INFINITE: Final = re.compile(r"[-+]?(?:inf(?:inity)?|nan)", re.IGNORECASE)

_ARTICLES: Final = {8: "an 8-bit", 16: "a 16-bit", 32: "a 32-bit", 64: "a 64-bit"}


def _refused(function: str, value: str, why: str) -> EvaluationError:
    return EvaluationError(f"strconv.{function}: parsing {go_quote(value)}: {why}")


def parse_integer(value: str, *, prefixes: bool, function: str = "ParseInt") -> int:
    """An integer of any sign, without limits; prefixes and underscores only in strings."""
    match = _INTEGER.fullmatch(value)
    if match is None or (not prefixes and match.group(6) is None):
        if not prefixes and match is not None and match.group(5):
            return int(value, 10)
        raise _refused(function, value, "invalid syntax")
    sign, *digits = match.groups()
    if not prefixes and "_" in value:
        raise _refused(function, value, "invalid syntax")
    for base, found in zip((16, 2, 8, 8, 10), digits, strict=True):
        if found:
            if len(found) > 100:
                raise _refused(function, value, "value out of range")
            return int(sign + found.replace("_", ""), base)
    raise _refused(function, value, "invalid syntax")


def parse_float(value: str, *, bits: int = 64) -> float:
    """A float as `strconv.ParseFloat` reads it: decimal, hexadecimal with an exponent, infinities."""
    if _FLOAT.fullmatch(value):
        found = float(value)
    elif ("p" in value or "P" in value) and _HEX_FLOAT.fullmatch(value) and "_" not in value:
        found = float.fromhex(value)
    elif ("n" in value or "N" in value) and _INFINITE.fullmatch(value):
        return float(value)
    else:
        raise _refused("ParseFloat", value, "invalid syntax")
    if math.isinf(found) or (bits == 32 and abs(found) > 3.4028235677973366e38):
        raise _refused("ParseFloat", value, "value out of range")
    return found


def finite(value: float) -> float:
    """A computed float as documents carry it; NaN and infinities, which JSON has no form for, are refused."""
    if math.isfinite(value):
        return real(value)
    shown = "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    raise EvaluationError(f"the result is {shown}, which a document cannot hold")


def to_signed(value: Value, bits: int) -> int:
    """A value as a signed integer of so many bits."""
    if isinstance(value, bool):
        raise wrong_type(value, "number")
    if isinstance(value, Number):
        found = _ranged(
            parse_integer(value.text, prefixes=False), value.text, "ParseInt", INT64_MIN, INT64_MAX
        )
    elif isinstance(value, str | bytes):
        given = value if isinstance(value, str) else text(value)
        found = _ranged(parse_integer(given, prefixes=True), given, "ParseInt", INT64_MIN, INT64_MAX)
    elif isinstance(value, int):
        found = int(value)
        if found > INT64_MAX:
            raise EvaluationError("unsigned integer value is too large to be cast as a signed integer")
    elif isinstance(value, float):
        found = _whole(value, "a signed")
        if not INT64_MIN <= found <= INT64_MAX:
            size = "large" if found > 0 else "small"
            raise EvaluationError(f"float value is too {size} to be cast as a signed integer")
    else:
        raise wrong_type(value, "number")
    return _fitting(found, -(1 << (bits - 1)), (1 << (bits - 1)) - 1, f"{_ARTICLES[bits]} signed integer")


def to_unsigned(value: Value, bits: int) -> int:
    """A value as an unsigned integer of so many bits."""
    if isinstance(value, bool):
        raise wrong_type(value, "number")
    if isinstance(value, str | bytes):
        given = value if isinstance(value, str) else text(value)
        if given[:1] in ("-", "+"):
            raise _refused("ParseUint", given, "invalid syntax")
        found = parse_integer(given, prefixes=True, function="ParseUint")
        _ranged(found, given, "ParseUint", 0, UINT64_MAX)
    elif isinstance(value, float):
        found = _whole(value, "an unsigned")
        if value < 0:
            raise EvaluationError("float value is negative and cannot be cast as an unsigned integer")
        if found > UINT64_MAX:
            raise EvaluationError("float value is too large to be cast as an unsigned integer")
    elif isinstance(value, int | Number):
        found = int(value) if isinstance(value, int) else to_signed(value, 64)
        if found < 0:
            raise EvaluationError(
                "signed integer value is negative and cannot be cast as an unsigned integer"
            )
    else:
        raise wrong_type(value, "number")
    found = _fitting(found, 0, (1 << bits) - 1, f"{_ARTICLES[bits]} unsigned integer")
    return Uint64(found) if bits == 64 else found


def to_float(value: Value, bits: int = 64) -> float:
    """A value as a float of 32 or 64 bits."""
    if isinstance(value, bool):
        raise wrong_type(value, "number")
    if isinstance(value, Number):
        return parse_float(value.text, bits=bits)
    if isinstance(value, str | bytes):
        return parse_float(value if isinstance(value, str) else text(value), bits=bits)
    if isinstance(value, int | float):
        return float(value) if bits == 64 else float32_shortest(value)
    raise wrong_type(value, "number")


def _ranged(found: int, given: str, function: str, low: int, high: int) -> int:
    if low <= found <= high:
        return found
    raise _refused(function, given, "value out of range")


def _whole(value: float, sign: str) -> int:
    if not value.is_integer():
        raise EvaluationError(
            f"float value contains decimals and therefore cannot be cast as {sign} integer, if you intend "
            "to round the value then call `.round()` explicitly before this cast"
        )
    return int(value)


def _fitting(found: int, low: int, high: int, wanted: str) -> int:
    if found > high:
        raise EvaluationError(f"value is too large to be cast as {wanted}")
    if found < low:
        raise EvaluationError(f"value is too small to be cast as {wanted}")
    return found
