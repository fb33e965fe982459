"""Lengths of time: Go's `1h5m` and ISO 8601's `P1Y2M3DT4H`.

The hard part is ISO's years and months, which have no fixed length: converted to nanoseconds they
count as 365.2425 days and a twelfth of that; added to a date, whole ones move the calendar.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple

from hub.mapping.gotime import instant, time_quote
from hub.mapping.timestamp import Timestamp
from hub.mapping.values import INT64_MAX, EvaluationError, int64

_UNITS_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_TERM: Final = re.compile(r"([0-9]*)(\.[0-9]*)?([^0-9.]*)", re.DOTALL)


def parse_go_duration(text: str) -> int:
    """Nanoseconds of `-1h5m`, `1.5s`, `0`; errors are worded as Go's `time.ParseDuration` words them."""
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    if not rest:
        raise EvaluationError(f"time: invalid duration {time_quote(text)}")
    total = 0
    while rest:
        match = _TERM.match(rest)
        assert match is not None
        whole, fraction, unit = match.groups()
        if not whole and (fraction is None or fraction == "."):
            raise EvaluationError(f"time: invalid duration {time_quote(text)}")
        if not unit:
            raise EvaluationError(f"time: missing unit in duration {time_quote(text)}")
        scale = _UNITS_NS.get(unit)
        if scale is None:
            raise EvaluationError(f"time: unknown unit {time_quote(unit)} in duration {time_quote(text)}")
        total += int(whole or 0) * scale
        if fraction is not None and len(fraction) > 1:
            total += int(int(fraction[1:19]) * (scale / 10 ** len(fraction[1:19])))
        if total > INT64_MAX + (sign < 0):
            raise EvaluationError(f"time: invalid duration {time_quote(text)}")
        rest = rest[match.end() :]
    return sign * total


_FIELDS: Final = "YMWDhms"
"""Designators in order: years, months, weeks, days | hours, minutes, seconds. Lower case after the `T`."""

_SHOWN: Final = {"h": "H", "m": "M", "s": "S"}
_YEAR_NS: Final = 31_556_952 * 1_000_000_000
_FIELD_NS: Final = {
    "Y": _YEAR_NS,
    "M": _YEAR_NS // 12,
    "W": 7 * 86_400 * 1_000_000_000,
    "D": 86_400 * 1_000_000_000,
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
}
_BILLIONTH_DAY_NS: Final = 86_400
_NUMBER: Final = re.compile(r"[-+]?[0-9.,]*")


class Period(NamedTuple):
    """An ISO 8601 period. Only the last field that is given can have a fraction."""

    years: Decimal
    months: Decimal
    weeks: Decimal
    days: Decimal
    hours: Decimal
    minutes: Decimal
    seconds: Decimal

    def nanoseconds(self) -> int:
        """Its length, with years of 365.2425 days; wraps beyond int64 as the engine does.

        The engine reckons in billionths of a day, and takes days or seconds with more than nine
        decimals for none at all.
        """
        total = Fraction(0)
        for amount, field in zip(self, _FIELDS, strict=True):
            length = Fraction(amount) * _FIELD_NS[field]
            if field in "YM":
                length = Fraction(int(length / _BILLIONTH_DAY_NS)) * _BILLIONTH_DAY_NS
            elif field in "Ds" and int(amount.as_tuple().exponent) < -9:
                continue
            total += length
        return int64(int(total))

    def added_to(self, moment: Timestamp, *, sign: int = 1) -> Timestamp:
        """A timestamp moved by it: by the calendar where years to days are whole, else by its length."""
        if any(amount != int(amount) for amount in self[:4]):
            return Timestamp(moment.nanos + sign * self.nanoseconds(), moment.zone)
        years, months, weeks, days = (sign * int(amount) for amount in self[:4])
        civil = moment.civil()
        moved = instant(
            civil.year + years,
            civil.month + months,
            civil.day + weeks * 7 + days,
            civil.hour,
            civil.minute,
            civil.second,
            civil.nanosecond,
            moment.zone,
        )
        none = Decimal(0)
        clock = self._replace(years=none, months=none, weeks=none, days=none)
        return Timestamp(moved.nanos + sign * clock.nanoseconds(), moment.zone)


def parse_period(text: str) -> Period:
    """An ISO 8601 period: `P3Y6M4DT12H30M5S`, `-P1D`, `PT1.5S`."""
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in ("-", "+") else text
    if not rest:
        raise EvaluationError("cannot parse a blank string as a period")
    if rest[0] != "P":
        raise EvaluationError(f"{text}: expected 'P' period mark at the start")
    rest = rest[1:]
    amounts: dict[str, Decimal] = {}
    order: list[str] = []
    in_time = False
    while rest:
        if rest[0] == "T":
            if in_time:
                raise EvaluationError(f"{text}: 'T' designator cannot occur more than once")
            in_time, rest = True, rest[1:]
            continue
        amount, rest = _amount(text, rest)
        if not rest:
            raise EvaluationError(f"{text}: missing designator at the end")
        field = _field(text, rest[0], in_time=in_time)
        if field in amounts:
            raise EvaluationError(f"{text}: '{rest[0]}' designator cannot occur more than once")
        fractional = [name for name in order if amounts[name] != int(amounts[name])]
        if fractional:
            first = _SHOWN.get(fractional[0], fractional[0])
            raise EvaluationError(f"{text}: '{first}' & '{rest[0]}' only the last field can have a fraction")
        amounts[field] = amount
        order.append(field)
        rest = rest[1:]
    if not amounts:
        raise EvaluationError(f"{text}: expected 'Y', 'M', 'W', 'D', 'H', 'M', or 'S' designator")
    return Period(*(sign * amounts.get(field, Decimal(0)) for field in _FIELDS))


def _amount(whole: str, rest: str) -> tuple[Decimal, str]:
    match = _NUMBER.match(rest)
    assert match is not None
    found = match.group().replace(",", ".")
    digits = found.lstrip("+-").replace(".", "")
    if not found:
        raise EvaluationError(f"{whole}: expected a number but found '{rest[0]}'")
    if found.count(".") > 1 or not digits or int(digits) > INT64_MAX:
        raise EvaluationError(f"{whole}: number invalid or out of range")
    return Decimal(found), rest[match.end() :]


def _field(text: str, designator: str, *, in_time: bool) -> str:
    if designator not in "YMWDHS":
        raise EvaluationError(f"{text}: expected a designator Y, M, W, D, H, or S not '{designator}'")
    field = designator.lower() if in_time else designator
    if field not in _FIELDS:
        raise EvaluationError(f"{text}: '{designator}' designator cannot occur here")
    return field
