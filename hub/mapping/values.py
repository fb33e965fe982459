"""The values that mappings compute with, and how each Go value is carried in Python.

| Go                | here                                                                        |
|-------------------|-----------------------------------------------------------------------------|
| string            | `str`. Bytes that are not UTF-8 are carried as `surrogateescape` code points. Lengths and positions count UTF-8 bytes: use `utf8` and `text` |
| []byte            | `bytes`                                                                     |
| int64             | `int` (always within int64: `int64()` wraps)                                |
| uint64            | `Uint64`, a subclass of `int`                                               |
| float64           | `float` when orjson prints it as Go does, else `Real`, a subclass           |
| float32           | `Float32`, a subclass of `Real`                                             |
| json.Number       | `int` or `float` when Python prints the same text again, else `Number`      |
| time.Time         | `Timestamp`                                                                 |
| bool, nil         | `bool`, `None`                                                              |
| []any, map        | `list`, `dict`: never changed in place, always built anew                   |
| Delete, Nothing   | `DELETE`, `NOTHING`: compare with `is`                                      |

The hard part is numbers. Go prints the float 2 as `2` and 1e21 as `1e+21`, orjson as `2.0` and
`1e21`; a document's own number keeps its text whatever it is. So a plain `float` always means "orjson
prints the right text", and every float that is computed goes through `real()`, which wraps the few
that orjson would print otherwise. `type(x) is bool` must be asked before `isinstance(x, int)`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from hub.errors import RecordError
from hub.mapping.timestamp import Timestamp

Value: TypeAlias = Any
"""One of the values in the table above."""

Lambda: TypeAlias = Callable[[Any], Any]
"""A query handed to a method: evaluates with the given value as its context."""

INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1
UINT64_MAX: Final = (1 << 64) - 1


class Sentinel:
    """`deleted()` or `nothing()`."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return self.kind.upper()

    def __copy__(self) -> Sentinel:
        return self

    def __deepcopy__(self, memo: object) -> Sentinel:
        return self


DELETE: Final = Sentinel("delete")
NOTHING: Final = Sentinel("nothing")


class Number:
    """A number of a document whose text Python would not print again: `1.10`, `1e400`, 20 digits.

    Copies keep the text. Whoever computes with it calls `plain()` first.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def plain(self) -> int | float:
        """The int64 it spells, else the float64. Beyond float64's range an EvaluationError."""
        try:
            whole = int(self.text)
        except ValueError:
            pass
        else:
            if INT64_MIN <= whole <= INT64_MAX:
                return whole
        found = float(self.text)
        if math.isinf(found):
            raise EvaluationError(f'strconv.ParseFloat: parsing "{self.text}": value out of range')
        return real(found)

    def __repr__(self) -> str:
        return f"Number({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


class Uint64(int):
    """An unsigned integer, as `.uint64()` makes it. Computing with an int64 gives an int64."""

    __slots__ = ()


class Real(float):
    """A computed float that Go prints otherwise than orjson: `2`, `1e+21`, `0.000001`."""

    __slots__ = ()


class Float32(Real):
    """A float of 32 bits: prints with as many digits as float32 needs."""

    __slots__ = ()

    def __new__(cls, value: float) -> Float32:
        return super().__new__(cls, struct.unpack("<f", struct.pack("<f", value))[0])


def real(value: float) -> float:
    """A computed float as documents carry it. Every float an implementation makes passes through here."""
    if value.is_integer() or not 1e-5 <= (value if value >= 0 else -value) < 1e16:
        return Real(value)
    return value


def int64(value: int) -> int:
    """The low 64 bits of an integer, signed: overflow wraps as in Go."""
    if INT64_MIN <= value <= INT64_MAX:
        return value
    return ((value + (1 << 63)) & UINT64_MAX) - (1 << 63)


def uint64(value: int) -> Uint64:
    """The low 64 bits of an integer, unsigned."""
    return Uint64(value & UINT64_MAX)


def utf8(value: str) -> bytes:
    """The bytes of a string: what Go counts, slices and searches."""
    return value.encode("utf-8", "surrogateescape")


def text(value: bytes) -> str:
    """The string of these bytes; any bytes will do, `utf8` gives them back."""
    return value.decode("utf-8", "surrogateescape")


_KINDS: dict[type, str] = {
    str: "string",
    bytes: "bytes",
    bool: "bool",
    int: "number",
    float: "number",
    Uint64: "number",
    Real: "number",
    Float32: "number",
    Number: "number",
    Timestamp: "timestamp",
    list: "array",
    dict: "object",
    type(None): "null",
}


def kind(value: Value) -> str:
    """The language's name for a value's type, as `.type()` and error texts show it."""
    found = _KINDS.get(type(value))
    if found is not None:
        return found
    if isinstance(value, Sentinel):
        return value.kind
    return "query expression" if callable(value) else "unknown"


class EvaluationError(RecordError):
    """A mapping cannot be evaluated. Implementations raise it with Go's text and nothing else; the
    compiler puts the value's source in front: ``field `this.a`: <text>``. `placed` tells that the text
    names its source already.
    """

    def __init__(self, reason: str, *, placed: bool = False) -> None:
        super().__init__(reason, component="mapping")
        self.placed = placed

    @property
    def text(self) -> str:
        return self.reason

    def annotated(self, source: str) -> EvaluationError:
        """This error, naming where the value came from."""
        return self if self.placed else EvaluationError(f"{source}: {self.text}", placed=True)

    def within(self, prefix: str) -> EvaluationError:
        """This error with words before it that are not its source."""
        return EvaluationError(f"{prefix}{self.text}", placed=self.placed)

    def __str__(self) -> str:
        return self.text


class TypeMismatch(EvaluationError):
    """`expected string value, got number from field `this.a` (5)`. Raise it through `wrong_type`.

    `source` is filled by the compiler, unless the implementation knows better.
    """

    def __init__(self, expected: tuple[str, ...], actual: str, shown: str = "", source: str = "") -> None:
        found = f"expected {_alternatives(expected)} value, got {actual}"
        if source:
            found += f" from {source}"
        super().__init__(f"{found} ({shown})" if shown else found)
        self.expected = expected
        self.actual = actual
        self.shown = shown
        self.source = source

    def annotated(self, source: str) -> EvaluationError:
        if self.source:
            return self
        return TypeMismatch(self.expected, self.actual, self.shown, source)


class NoContext(EvaluationError):
    """`this` was asked for where there is none: the message is no JSON. `field` is what was wanted of it."""

    def __init__(self, field: str) -> None:
        wanted = f", unable to reference `{field}`" if field else ""
        super().__init__(f"context was undefined{wanted}", placed=True)
        self.field = field

    def within(self, prefix: str) -> EvaluationError:
        return self


def wrong_type(value: Value, *expected: str, source: str = "") -> TypeMismatch:
    """The error for a value of the wrong type: `raise wrong_type(target, "string", "bytes")`."""
    return TypeMismatch(expected, kind(value), shown(value), source)


def shown(value: Value) -> str:
    """A scalar as error texts show it in parentheses; empty for the rest."""
    if isinstance(value, str):
        return f'"{value}"'
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, Number):
        return value.text
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return float_g(value) if isinstance(value, Real) else repr(value)
    return ""


def _alternatives(names: tuple[str, ...]) -> str:
    if len(names) < 3:
        return " or ".join(names)
    return ", ".join(names[:-1]) + " or " + names[-1]


def float_text(value: float) -> str:
    """A float as Go's encoding/json prints it: shortest digits, exponent outside 1e-6 … 1e21."""
    if isinstance(value, Float32):
        value = float32_shortest(value)
    if math.isnan(value) or math.isinf(value):
        return "NaN" if value != value else ("+Inf" if value > 0 else "-Inf")
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    sign, digits, exponent = _shortest(value)
    if 1e-6 <= abs(value) < 1e21:
        return sign + _positional(digits, exponent)
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    power = exponent - 1
    return f"{sign}{mantissa}e{'-' if power < 0 else '+'}{abs(power)}"


def float_g(value: float) -> str:
    """A float as Go's `strconv.FormatFloat(f, 'g', -1, 64)` prints it: `1e+06`, exponents of two digits."""
    if isinstance(value, Float32):
        value = float32_shortest(value)
    if math.isnan(value) or math.isinf(value):
        return "NaN" if value != value else ("+Inf" if value > 0 else "-Inf")
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    sign, digits, exponent = _shortest(value)
    power = exponent - 1
    if -4 <= power < 6:
        return sign + _positional(digits, exponent)
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"


def float32_shortest(value: float) -> float:
    """The float64 with the fewest digits that reads back as the same float32."""
    for digits in range(6, 10):
        candidate = float(f"{value:.{digits}g}")
        if struct.pack("<f", candidate) == struct.pack("<f", value):
            return candidate
    return float(value)


def _shortest(value: float) -> tuple[str, str, int]:
    """Sign, digits d₁d₂… and exponent such that the value is 0.d₁d₂… × 10^exponent."""
    printed = float.__repr__(value)
    sign = "-" if printed[0] == "-" else ""
    mantissa, _, power = printed.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    if fraction == "0":
        fraction = ""
    digits = (whole + fraction).lstrip("0")
    exponent = len(whole) + int(power or 0) if whole != "0" else len(digits) - len(fraction) + int(power or 0)
    return sign, digits.rstrip("0") or "0", exponent


def _positional(digits: str, exponent: int) -> str:
    if exponent <= 0:
        return "0." + "0" * -exponent + digits
    if exponent >= len(digits):
        return digits + "0" * (exponent - len(digits))
    return digits[:exponent] + "." + digits[exponent:]


_QUOTED = {
    "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
    '"': '\\"', "\\": "\\\\",
}  # fmt: skip


def go_quote(value: str) -> str:
    """A string as Go's `strconv.Quote` prints it."""
    out = ['"']
    for char in value:
        if char in _QUOTED:
            out.append(_QUOTED[char])
        elif " " <= char < "\x7f" or (char > "\xa0" and char.isprintable()):
            out.append(char)
        elif "\udc80" <= char <= "\udcff":
            out.append(f"\\x{ord(char) - 0xDC00:02x}")
        elif char < " " or char == "\x7f":
            out.append(f"\\x{ord(char):02x}")
        else:
            code = ord(char)
            out.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    out.append('"')
    return "".join(out)
