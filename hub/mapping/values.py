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

import orjson

from hub import document
from hub.document import INT64_MAX, INT64_MIN, Number, Real, real
from hub.errors import RecordError
from hub.mapping.timestamp import Timestamp

Value: TypeAlias = Any
"""One of the values in the table above."""

Lambda: TypeAlias = Callable[[Any], Any]
"""A query handed to a method: evaluates with the given value as its context."""

__all__ = [
    "DELETE", "INT64_MAX", "INT64_MIN", "NOTHING", "UINT64_MAX", "EvaluationError", "Float32", "Lambda",
    "NoContext", "Number", "Real", "Sentinel", "TypeMismatch", "Uint64", "Value", "float32_shortest", "float_g",
    "float_text", "go_quote", "int64", "kind", "real", "shown", "text", "uint64", "utf8", "wrong_type",
]  # fmt: skip

UINT64_MAX: Final = (1 << 64) - 1


class Sentinel:
    """`deleted()` or `nothing()`."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return self.kind.upper()

    def json_text(self) -> str:
        """What an array shows that was made of one by a method; literals leave them out."""
        return "null"

    def __copy__(self) -> Sentinel:
        return self

    def __deepcopy__(self, memo: object) -> Sentinel:
        return self


DELETE: Final = Sentinel("delete")
NOTHING: Final = Sentinel("nothing")


class Uint64(int):
    """An unsigned integer, as `.uint64()` makes it. Computing with an int64 gives an int64."""

    __slots__ = ()


class Float32(Real):
    """A float of 32 bits: prints with as many digits as float32 needs."""

    __slots__ = ()

    def __new__(cls, value: float) -> Float32:
        return super().__new__(cls, struct.unpack("<f", struct.pack("<f", value))[0])

    def json_text(self) -> str:
        return float_text(self)


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
        # Not through the bases: a `catch` may make one for each record, and this halves it.
        self.reason = reason
        self.component = "mapping"
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
        found = NoContext(self.field)
        found.reason = prefix + self.reason
        return found


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
        return float_g(value) if isinstance(value, Real) else orjson.dumps(value).decode()
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
    return document.float_text(value)


def float_g(value: float) -> str:
    """A float as Go's `strconv.FormatFloat(f, 'g', -1, 64)` prints it: `1e+06`, exponents of two digits."""
    if isinstance(value, Float32):
        value = float32_shortest(value)
    if math.isnan(value) or math.isinf(value):
        return "NaN" if value != value else ("+Inf" if value > 0 else "-Inf")
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    sign, digits, exponent = document.shortest(value)
    power = exponent - 1
    if -4 <= power < 6:
        return sign + document.positional(digits, exponent)
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"


def float32_shortest(value: float) -> float:
    """The float64 with the fewest digits that reads back as the same float32."""
    for digits in range(6, 10):
        candidate = float(f"{value:.{digits}g}")
        if struct.pack("<f", candidate) == struct.pack("<f", value):
            return candidate
    return float(value)


_QUOTED = {
    "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
    '"': '\\"', "\\": "\\\\",
}  # fmt: skip


def go_quote(value: str) -> str:
    """A string as Go's `strconv.Quote` prints it."""
    if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
        return f'"{value}"'
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
