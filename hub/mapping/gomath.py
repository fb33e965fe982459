"""Elementary functions to the last digit as Go computes them.

C libraries round the last digit of a sine otherwise than Go does, and documents show it. The methods and
coefficients of sine, cosine and tangent are those of Stephen Moshier's Cephes library (1989), which Go
uses too; the rest follows from Go's documented definitions on top of the natural logarithm.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

_PI4A: Final = 7.85398125648498535156e-1
_PI4B: Final = 3.77489470793079817668e-8
_PI4C: Final = 2.69515142907905952645e-15
_REDUCED_MAX: Final = float(1 << 29)
"""Beyond this an angle loses digits in the three-part reduction, and is multiplied by all of 4/π instead."""

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
    if value >= _REDUCED_MAX:
        return _reduced_large(value)
    octant = int(value * (4 / math.pi))
    octant += octant & 1
    whole = float(octant)
    return octant & 7, ((value - whole * _PI4A) - whole * _PI4B) - whole * _PI4C


_BITS: Final = 1200
"""Binary digits of 4/π: enough for the largest float64 and 53 digits of what is left."""


@lru_cache(maxsize=1)
def _four_over_pi() -> int:
    """4/π times 2^1200, by Machin's formula."""
    guard = _BITS + 64

    def arc_tangent(inverse: int) -> int:
        term = (1 << guard) // inverse
        total, divisor, sign = term, 3, -1
        while term:
            term //= inverse * inverse
            total += sign * (term // divisor)
            divisor, sign = divisor + 2, -sign
        return total

    pi = 4 * (4 * arc_tangent(5) - arc_tangent(239))
    return (4 << (guard + _BITS)) // pi


def _reduced_large(value: float) -> tuple[int, float]:
    """As `_reduced`, after Payne and Hanek: the product with all digits of 4/π, cut to a float64."""
    mantissa, exponent = math.frexp(value)
    product = int(math.ldexp(mantissa, 53)) * _four_over_pi()
    shift = _BITS - (exponent - 53)
    octant, rest = product >> shift, product & ((1 << shift) - 1)
    extra = max(rest.bit_length() - 53, 0)
    fraction = math.ldexp(rest >> extra, extra - shift)
    if octant & 1:
        octant, fraction = octant + 1, fraction - 1
    return octant & 7, fraction * (math.pi / 4)


def _sine_part(rest: float) -> float:
    square = rest * rest
    return rest + rest * square * _horner(_SIN, square)


def _cosine_part(rest: float) -> float:
    square = rest * rest
    return 1.0 - 0.5 * square + square * square * _horner(_COS, square)


def sin(value: float) -> float:
    """The sine of an angle in radians."""
    if value == 0 or not math.isfinite(value):
        return value if value == 0 else math.nan
    octant, rest = _reduced(abs(value))
    negative = (value < 0) != (octant > 3)
    found = _cosine_part(rest) if octant & 3 in (1, 2) else _sine_part(rest)
    return -found if negative else found


def cos(value: float) -> float:
    """The cosine of an angle in radians."""
    if not math.isfinite(value):
        return math.nan
    octant, rest = _reduced(abs(value))
    negative = (octant > 3) != (octant & 3 > 1)
    found = _sine_part(rest) if octant & 3 in (1, 2) else _cosine_part(rest)
    return -found if negative else found


def tan(value: float) -> float:
    """The tangent of an angle in radians."""
    if value == 0 or not math.isfinite(value):
        return value if value == 0 else math.nan
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


_LN2_HIGH: Final = 6.93147180369123816490e-01
_LN2_LOW: Final = 1.90821492927058770002e-10
_LOG10_OF_E: Final = 0.43429448190325182765112891891660508229
_LOG_ODD: Final = (
    1.479819860511658591e-01,
    1.818357216161805012e-01,
    2.857142874366239149e-01,
    6.666666666666735130e-01,
)
_LOG_EVEN: Final = (1.531383769920937332e-01, 2.222219843214978396e-01, 3.999999999940941908e-01)


def log(value: float) -> float:
    """The natural logarithm, by FreeBSD's `e_log.c`; minus infinity of 0, NaN of negative numbers."""
    if value <= 0 or not math.isfinite(value):
        return -math.inf if value == 0 else math.inf if value == math.inf else math.nan
    fraction, exponent = math.frexp(value)
    if fraction < math.sqrt(0.5):
        fraction, exponent = fraction * 2, exponent - 1
    rest = fraction - 1
    ratio = rest / (2 + rest)
    square = ratio * ratio
    fourth = square * square
    series = square * _horner(_LOG_ODD, fourth) + fourth * _horner(_LOG_EVEN, fourth)
    half = 0.5 * rest * rest
    return exponent * _LN2_HIGH - ((half - (ratio * (half + series) + exponent * _LN2_LOW)) - rest)


def log10(value: float) -> float:
    """The logarithm to base ten."""
    return log(value) * _LOG10_OF_E


def power(base: float, exponent: float) -> float:
    """A number to a power: its fraction by the exponential, whole powers by squaring; NaN where there is none."""
    if exponent == 0 or base == 1:
        return 1.0
    if exponent == 1:
        return base
    if exponent == 0.5 and base >= 0:
        return math.sqrt(base)
    if exponent == -0.5 and base > 0:
        return 1 / math.sqrt(base)
    if base == 0 or not math.isfinite(base) or not math.isfinite(exponent) or abs(exponent) >= 1 << 63:
        return _limit(base, exponent)
    fraction, whole = math.modf(abs(exponent))
    if fraction and base < 0:
        return math.nan
    answer, binary = 1.0, 0
    if fraction:
        if fraction > 0.5:
            fraction, whole = fraction - 1, whole + 1
        answer = math.exp(fraction * log(base))
    mantissa, shift = math.frexp(base)
    times = int(whole)
    while times:
        if abs(shift) > 1 << 12:
            binary += shift
            break
        if times & 1:
            answer, binary = answer * mantissa, binary + shift
        mantissa, shift = mantissa * mantissa, shift << 1
        if mantissa < 0.5:
            mantissa, shift = mantissa + mantissa, shift - 1
        times >>= 1
    if exponent < 0:
        answer, binary = 1 / answer, -binary
    try:
        return math.ldexp(answer, binary)
    except OverflowError:
        return math.copysign(math.inf, answer)


def _limit(base: float, exponent: float) -> float:
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.inf if base == 0 else math.nan
