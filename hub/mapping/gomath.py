"""Elementary functions to the last digit as Go computes them.

C libraries round the last digit of a sine otherwise than Go does, and documents show it. The methods and
coefficients of sine, cosine and tangent are those of Stephen Moshier's Cephes library (1989), which Go
uses too; the rest follows from Go's documented definitions on top of the natural logarithm.
"""

from __future__ import annotations

import math
from typing import Final

_PI4A: Final = 7.85398125648498535156e-1
_PI4B: Final = 3.77489470793079817668e-8
_PI4C: Final = 2.69515142907905952645e-15
_REDUCED_MAX: Final = float(1 << 29)
"""Beyond this an angle loses digits in the three-part reduction; the C library takes over."""

_SIN: Final = (
    1.58962301576546568060e-10,
    -2.50507477628578072866e-8,
    2.75573136213857245213e-6,
    -1.98412698295895385996e-4,
    8.33333333332211858878e-3,
    -1.66666666666666307295e-1,
)
_COS: Final = (
    -1.13585365213876817300e-11,
    2.08757008419747316778e-9,
    -2.75573141792967388112e-7,
    2.48015872888517045348e-5,
    -1.38888888888730564116e-3,
    4.16666666666665929218e-2,
)
_TAN_P: Final = (-1.30936939181383734205e4, 1.15351664838587416140e6, -1.79565251976484877988e7)
_TAN_Q: Final = (
    1.36812963470692954678e4,
    -1.32089234440210967447e6,
    2.50083801823357915839e7,
    -5.38695755929454629881e7,
)


def _horner(coefficients: tuple[float, ...], square: float) -> float:
    found = coefficients[0]
    for coefficient in coefficients[1:]:
        found = found * square + coefficient
    return found


def _reduced(value: float) -> tuple[int, float]:
    """The octant of a positive angle and what is left of it."""
    octant = int(value * (4 / math.pi))
    octant += octant & 1
    whole = float(octant)
    return octant & 7, ((value - whole * _PI4A) - whole * _PI4B) - whole * _PI4C


def _sine_part(rest: float) -> float:
    square = rest * rest
    return rest + rest * square * _horner(_SIN, square)


def _cosine_part(rest: float) -> float:
    square = rest * rest
    return 1.0 - 0.5 * square + square * square * _horner(_COS, square)


def sin(value: float) -> float:
    """The sine of an angle in radians."""
    if value == 0 or not math.isfinite(value) or abs(value) >= _REDUCED_MAX:
        return math.sin(value) if math.isfinite(value) else math.nan
    octant, rest = _reduced(abs(value))
    negative = (value < 0) != (octant > 3)
    found = _cosine_part(rest) if octant & 3 in (1, 2) else _sine_part(rest)
    return -found if negative else found


def cos(value: float) -> float:
    """The cosine of an angle in radians."""
    if not math.isfinite(value) or abs(value) >= _REDUCED_MAX:
        return math.cos(value) if math.isfinite(value) else math.nan
    octant, rest = _reduced(abs(value))
    negative = (octant > 3) != (octant & 3 > 1)
    found = _sine_part(rest) if octant & 3 in (1, 2) else _cosine_part(rest)
    return -found if negative else found


def tan(value: float) -> float:
    """The tangent of an angle in radians."""
    if value == 0 or not math.isfinite(value) or abs(value) >= _REDUCED_MAX:
        return math.tan(value) if math.isfinite(value) else math.nan
    octant, rest = _reduced(abs(value))
    square = rest * rest
    found = rest
    if square > 1e-14:
        below = square + _TAN_Q[0]
        for coefficient in _TAN_Q[1:]:
            below = below * square + coefficient
        found = rest + rest * (square * _horner(_TAN_P, square) / below)
    if octant & 2:
        found = -1 / found
    return -found if value < 0 else found


def log(value: float) -> float:
    """The natural logarithm; minus infinity of 0, NaN of negative numbers."""
    if value > 0:
        return math.log(value)
    return -math.inf if value == 0 else math.nan


def log10(value: float) -> float:
    """The logarithm to base ten, by way of that to base two."""
    if value <= 0 or not math.isfinite(value):
        return log(value)
    fraction, exponent = math.frexp(value)
    base_two = exponent - 1.0 if fraction == 0.5 else log(fraction) * (1 / math.log(2)) + exponent
    return base_two * (math.log(2) / math.log(10))
