"""Number methods: rounding, powers, angles, bits, widths."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from hub.mapping import gomath
from hub.mapping.conversions import finite, to_float, to_signed, to_unsigned
from hub.mapping.receivers import as_array, as_float, as_int, as_number
from hub.mapping.registry import Example, Param, method
from hub.mapping.values import (
    INT64_MAX,
    INT64_MIN,
    EvaluationError,
    Float32,
    Number,
    Value,
    int64,
    real,
    wrong_type,
)

CATEGORY: Final = "Number Manipulation"


@method(
    "abs",
    category=CATEGORY,
    annotate=False,
    doc="The number without its sign.",
    examples=[Example("root.d = this.d.abs()", (('{"d":-5.5}', '{"d":5.5}'), ('{"d":3}', '{"d":3}')))],
)
def _abs(target: Value) -> Value:
    try:
        number = as_number(target)
    except EvaluationError as error:
        raise wrong_type(target, "number", "integer") from error
    if isinstance(number, int):
        return abs(number) if number != INT64_MIN else INT64_MAX
    return real(abs(number))


def _rounding(
    name: str, doc: str, example: tuple[tuple[str, str], ...], change: Callable[[float], float]
) -> None:
    """A method that answers with an int64 where one can hold the result, else with the float."""

    def run(target: Value) -> Value:
        try:
            number = as_number(target)
        except EvaluationError as error:
            if isinstance(target, Number):
                raise error.within("failed to parse number: ") from error
            raise
        if isinstance(number, int):
            return number
        found = change(number)
        return int(found) if INT64_MIN <= found < INT64_MAX else finite(found)

    method(
        name, category=CATEGORY, doc=doc, examples=[Example(f"root.v = this.v.{name}()", example)]
    )(run)  # fmt: skip


def _half_away(value: float) -> float:
    """Rounds halves away from zero."""
    whole = math.trunc(value)
    return float(whole + (1 if value > 0 else -1)) if abs(value - whole) >= 0.5 else float(whole)


_rounding("ceil", "The smallest whole number that is not less.", (('{"v":5.3}', '{"v":6}'), ('{"v":-5.9}', '{"v":-5}')), lambda v: float(math.ceil(v)))  # fmt: skip
_rounding("floor", "The largest whole number that is not greater.", (('{"v":5.7}', '{"v":5}'), ('{"v":-3.2}', '{"v":-4}')), lambda v: float(math.floor(v)))  # fmt: skip
_rounding("round", "The nearest whole number; halves go away from zero.", (('{"v":2.5}', '{"v":3}'), ('{"v":-0.4}', '{"v":0}')), _half_away)  # fmt: skip


def _function(
    name: str, doc: str, example: tuple[str, str], change: Callable[[float], float], *, annotate: bool
) -> None:
    def run(target: Value) -> float:
        return finite(change(as_float(target)))

    method(
        name,
        category=CATEGORY,
        annotate=annotate,
        doc=doc,
        examples=[Example(f"root.v = this.v.{name}()", (example,))],
    )(run)


_function("log", "The natural logarithm.", ('{"v":1}', '{"v":0}'), gomath.log, annotate=True)
_function("log10", "The logarithm to base ten.", ('{"v":1000}', '{"v":3}'), gomath.log10, annotate=True)
_function("sin", "The sine of an angle in radians.", ('{"v":0}', '{"v":0}'), gomath.sin, annotate=False)
_function("cos", "The cosine of an angle in radians.", ('{"v":0}', '{"v":1}'), gomath.cos, annotate=False)
_function("tan", "The tangent of an angle in radians.", ('{"v":0}', '{"v":0}'), gomath.tan, annotate=False)


@method(
    "pow",
    category=CATEGORY,
    annotate=False,
    params=[Param("exponent", "float", doc="The exponent.")],
    doc="The number to the power of an exponent, as a float.",
    examples=[Example("root.v = this.v.pow(-2)", (('{"v":2}', '{"v":0.25}'),))],
)
def _pow(target: Value, exponent: float) -> float:
    return finite(gomath.power(as_float(target), exponent))


def _bits(name: str, doc: str, example: tuple[str, str], change: Callable[[int, int], int]) -> None:
    method(
        name,
        category=CATEGORY,
        params=[Param("value", "integer", doc="The other number.")],
        doc=doc,
        examples=[Example(f"root.v = this.v.{name}(6)", (example,))],
    )(lambda target, value: int64(change(as_int(target), value)))


_bits(
    "bitwise_and", "The bits that are set in both whole numbers.", ('{"v":12}', '{"v":4}'), lambda a, b: a & b
)
_bits(
    "bitwise_or",
    "The bits that are set in either whole number.",
    ('{"v":12}', '{"v":14}'),
    lambda a, b: a | b,
)
_bits("bitwise_xor", "The bits that are set in one of two whole numbers only.", ('{"v":12}', '{"v":10}'), lambda a, b: a ^ b)  # fmt: skip


def _widths() -> None:
    for bits in (8, 16, 32, 64):
        low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        method(
            f"int{bits}",
            category=CATEGORY,
            annotate=False,
            lexemes=True,
            doc=f"The value as a signed integer of {bits} bits, from {low} to {high}. Strings may have a prefix "
            "(`0x`, `0o`, `0b`); numbers must be whole, so call `.round()` first where they are not.",
            examples=[
                Example(
                    f"root.v = this.v.int{bits}()", (('{"v":"0x1f"}', '{"v":31}'), ('{"v":-7}', '{"v":-7}'))
                )
            ],
        )(_caster(to_signed, bits))
        method(
            f"uint{bits}",
            category=CATEGORY,
            annotate=False,
            lexemes=True,
            doc=f"The value as an unsigned integer of {bits} bits, from 0 to {(1 << bits) - 1}. Strings may have "
            "a prefix (`0x`, `0o`, `0b`); numbers must be whole, so call `.round()` first where they are not.",
            examples=[
                Example(
                    f"root.v = this.v.uint{bits}()", (('{"v":"0x1f"}', '{"v":31}'), ('{"v":7}', '{"v":7}'))
                )
            ],
        )(_caster(to_unsigned, bits))


def _caster(cast: Callable[[Value, int], int], bits: int) -> Callable[[Value], int]:
    return lambda target: cast(target, bits)


_widths()


@method(
    "float64",
    category=CATEGORY,
    annotate=False,
    doc="The value as a float of 64 bits, from a number or the text of one.",
    examples=[
        Example(
            "root.v = this.v.float64()", (('{"v":"6.674282313423543e-11"}', '{"v":6.674282313423543e-11}'),)
        )
    ],
)
def _float64(target: Value) -> float:
    return finite(to_float(target))


@method(
    "float32",
    category=CATEGORY,
    annotate=False,
    doc="The value as a float of 32 bits, from a number or the text of one; it keeps about seven digits.",
    examples=[
        Example("root.v = this.v.float32()", (('{"v":"6.674282313423543e-11"}', '{"v":6.674283e-11}'),))
    ],
)
def _float32(target: Value) -> float:
    found = to_float(target, 32)
    finite(found)
    return Float32(found)


def _extreme(name: str, doc: str, example: tuple[str, str], choose: Callable[[list[float]], float]) -> None:
    def run(target: Value) -> float:
        items = as_array(target)
        if not items:
            raise EvaluationError("the array was empty")
        numbers = []
        for index, item in enumerate(items):
            try:
                numbers.append(as_float(item))
            except EvaluationError as error:
                raise error.within(f"index {index} of array: ") from error
        return real(choose(numbers))

    method(
        name, category=CATEGORY, doc=doc, examples=[Example(f"root.v = this.v.{name}()", (example,))]
    )(run)  # fmt: skip


_extreme("max", "The largest number of an array.", ('{"v":[3,7.5,2]}', '{"v":7.5}'), max)
_extreme("min", "The smallest number of an array.", ('{"v":[3,7.5,2]}', '{"v":2}'), min)


@method(
    "sum",
    category="Object & Array Manipulation",
    doc="The sum of an array of numbers; a number alone is its own sum.",
    examples=[Example("root.total = this.prices.sum()", (('{"prices":[1.5,2,3]}', '{"total":6.5}'),))],
)
def _sum(target: Value) -> Value:
    if isinstance(target, int | float | Number) and not isinstance(target, bool):
        return target
    total = 0.0
    items: list[Any] = as_array(target)
    failure: EvaluationError | None = None
    for index, item in enumerate(items):
        try:
            total += as_float(item)
        except EvaluationError as error:
            # As in the engine, the last item that is no number is the one that is told.
            failure = EvaluationError(f"index {index}: {error.text}", placed=True)
    if failure is not None:
        raise failure
    return finite(total)
