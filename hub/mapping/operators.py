"""What the operators compute, on any two values: the slow and complete form.

Generated code does the frequent pairs itself (two floats, two small integers, equal types) and calls
these for all others. The left operand picks the rule; integers wrap at 64 bits; a number that is out of
float64's range counts as its text, as in the engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from hub.errors import RecordError
from hub.mapping.timestamp import Timestamp
from hub.mapping.values import (
    DELETE,
    INT64_MAX,
    INT64_MIN,
    NOTHING,
    EvaluationError,
    Number,
    Uint64,
    Value,
    int64,
    kind,
    real,
    text,
    uint64,
    utf8,
    wrong_type,
)

TEXT_MAX: Final = 64 << 20
"""Characters that a string made by `+` may have."""


class OperatorMismatch(EvaluationError):
    """`cannot add types string (from field `this.s`) and number (from number literal)`."""

    def __init__(self, verb: str, left: str, right: str, sources: tuple[str, str] | None = None) -> None:
        self.verb = verb
        self.kinds = (left, right)
        self.sources = sources
        a, b = sources or ("left operand", "right operand")
        super().__init__(f"cannot {verb} types {left} (from {a}) and {right} (from {b})")

    def annotated(self, source: str) -> OperatorMismatch:
        """This error: it names its sources. With words before it, it is an error like any other."""
        return self

    def between(self, left: str, right: str) -> OperatorMismatch:
        """The error with the sources of both operands, unless it has them."""
        return self if self.sources else OperatorMismatch(self.verb, *self.kinds, (left, right))


DIVIDED_BY_ZERO: Final = "attempted to divide by zero"


def plain(value: Value) -> Value:
    """A value as arithmetic sees it: numbers as int64, uint64 or float64, timestamps as text."""
    actual = type(value)
    if actual is int:
        return value if INT64_MIN <= value <= INT64_MAX else float(value)
    if actual is Number:
        try:
            return value.plain()
        except RecordError:
            return value.text
    if actual is Timestamp:
        return value.rfc3339()
    return value


def _mismatch(verb: str, left: Value, right: Value) -> OperatorMismatch:
    return OperatorMismatch(verb, kind(left), kind(right))


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and type(value) is not bool


def add(left: Value, right: Value) -> Value:
    """`+`: numbers, or strings and bytes to a string."""
    if isinstance(left, str | bytes):
        other = right.rfc3339() if type(right) is Timestamp else right
        if not isinstance(other, str | bytes):
            raise _mismatch("add", left, right)
        if len(left) + len(other) > TEXT_MAX:
            raise EvaluationError(f"string would be longer than {TEXT_MAX} characters")
        return joined(left, other)
    if type(left) is bool or not isinstance(left, int | float | Number):
        raise _mismatch("add", left, right)
    return _number("add", left, right, lambda a, b: a + b)


def joined(left: str | bytes, right: str | bytes) -> str:
    """Two strings in one. Halves of a character become one when they meet."""
    if type(left) is str and type(right) is str:
        whole = left + right
        if whole.isascii():
            return whole
    return text(
        (utf8(left) if isinstance(left, str) else left) + (utf8(right) if isinstance(right, str) else right)
    )


def subtract(left: Value, right: Value) -> Value:
    """`-`."""
    return _number("subtract", left, right, lambda a, b: a - b)


def multiply(left: Value, right: Value) -> Value:
    """`*`."""
    return _number("multiply", left, right, lambda a, b: a * b)


def _number(verb: str, left: Value, right: Value, compute: Callable[[Value, Value], Value]) -> Value:
    a, b = plain(left), plain(right)
    if not (_is_number(a) and _is_number(b)):
        raise _mismatch(verb, a, b)
    if isinstance(a, float) or isinstance(b, float):
        return real(compute(float(a), float(b)))
    if type(a) is Uint64 and type(b) is Uint64:
        return uint64(compute(int(a), int(b)))
    return int64(compute(int64(int(a)), int64(int(b))))


def divide(left: Value, right: Value) -> Value:
    """`/`: always a float64."""
    a, b = _float_of(left), _float_of(right)
    if a is None or b is None:
        raise _mismatch("divide", left, right)
    if b == 0:
        raise EvaluationError(DIVIDED_BY_ZERO)
    return real(a / b)


def _float_of(value: Value) -> float | None:
    found = plain(value) if type(value) is not Timestamp else None
    return float(found) if found is not None and _is_number(found) else None


def modulo(left: Value, right: Value) -> Value:
    """`%`: both cut to int64; the sign is the left one's."""
    a, b = _int_of(left), _int_of(right)
    if a is None or b is None:
        raise _mismatch("modulo", left, right)
    if b == 0:
        raise EvaluationError(DIVIDED_BY_ZERO)
    return int64(int(math.copysign(1, a)) * (abs(a) % abs(b)))


def _int_of(value: Value) -> int | None:
    found = plain(value) if type(value) is not Timestamp else None
    return truncated(found) if found is not None and _is_number(found) else None


def truncated(value: int | float) -> int:
    """A number cut to int64 as amd64 converts: what does not fit becomes the smallest integer."""
    if isinstance(value, int):
        return int64(int(value))
    if not math.isfinite(value):
        return INT64_MIN
    whole = int(value)
    return whole if INT64_MIN <= whole <= INT64_MAX else INT64_MIN


def negate(value: Value) -> Value:
    """Unary minus: 0 - value."""
    return subtract(0, value)


# Comparison


def equal(left: Value, right: Value) -> bool:
    """`==`."""
    a = plain(left)
    if isinstance(a, bytes):
        a = text(a)
    if isinstance(a, str):
        other = _text_of(plain(right))
        return a == other if other is not None else deep_equal(a, right)
    if type(a) is bool:
        truth = truth_of(right)
        return a is truth if truth is not None else False
    if _is_number(a):
        b = plain(right)
        return _is_number(b) and _same_number(a, b)
    return deep_equal(left, right)


def _same_number(a: Value, b: Value) -> bool:
    if isinstance(a, float) or isinstance(b, float):
        return float(a) == float(b)
    return bool(a == b)


def not_equal(left: Value, right: Value) -> bool:
    """`!=`."""
    return not equal(left, right)


def _text_of(value: Value) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return text(value)
    return value.rfc3339() if type(value) is Timestamp else None


def truth_of(value: Value) -> bool | None:
    """A bool, or a number that is not 0; None for the rest. A number of a document is 0 only when it is
    spelt `0`: a plain float was spelt `0.0`."""
    if type(value) is bool:
        return value
    if type(value) is Number or type(value) is float:
        return True
    return value != 0 if isinstance(value, int | float) else None


def deep_equal(left: Value, right: Value) -> bool:
    """Equality of whole values: numbers by value, bytes as strings."""
    if left is None and right is None:
        return True
    a = plain(left)
    if isinstance(a, list):
        return isinstance(right, list) and len(a) == len(right) and all(map(deep_equal, a, right))
    if isinstance(a, dict):
        return (
            isinstance(right, dict)
            and len(a) == len(right)
            and all(deep_equal(value, right.get(key)) for key, value in a.items())
        )
    if isinstance(a, bytes):
        a = text(a)
    if isinstance(a, str):
        return a == _text_of(right)
    if type(a) is bool:
        return a is truth_of(right)
    if _is_number(a):
        b = _float_of(right)
        return b is not None and float(a) == b
    return False


def less(left: Value, right: Value) -> bool:
    """`<`."""
    return _ordered(left, right, lambda a, b: a < b)


def less_equal(left: Value, right: Value) -> bool:
    """`<=`."""
    return _ordered(left, right, lambda a, b: a <= b)


def greater(left: Value, right: Value) -> bool:
    """`>`."""
    return _ordered(left, right, lambda a, b: a > b)


def greater_equal(left: Value, right: Value) -> bool:
    """`>=`."""
    return _ordered(left, right, lambda a, b: a >= b)


def _ordered(left: Value, right: Value, compare: Callable[[Value, Value], bool]) -> bool:
    a = plain(left)
    if isinstance(a, bytes):
        a = text(a)
    if isinstance(a, str):
        other = _text_of(right)
        if other is None:
            raise _mismatch("compare", left, right)
        return compare(utf8(a), utf8(other))
    if _is_number(a):
        b = plain(right)
        if not _is_number(b):
            raise _mismatch("compare", a, b)
        if isinstance(a, float) or isinstance(b, float):
            return compare(float(a), float(b))
        return compare(int(a), int(b))
    raise _mismatch("compare", left, right)


def truth(value: Value) -> bool:
    """An operand of `&&` and `||`."""
    found = truth_of(value)
    if found is None:
        raise wrong_type(value, "bool")
    return found


def absent(value: Value) -> bool:
    """What `|` and `.or()` pass over."""
    return value is None or value is DELETE or value is NOTHING


ARITHMETIC: Final[dict[str, Callable[[Value, Value], Value]]] = {
    "+": add, "-": subtract, "*": multiply, "/": divide, "%": modulo,
    "==": equal, "!=": not_equal, "<": less, "<=": less_equal, ">": greater, ">=": greater_equal,
}  # fmt: skip
"""The operators that fold when both sides are literals."""
