"""Timestamps read by Go's layouts of fixed width: the strict reading, without an error of its own.

Most layouts are a date, a time of day, a fraction and a zone, each as wide in the value as in the layout, and most
values are what the layout says. Those are cut by position and looked up: the date among the days seen lately (the
records of a stream are near each other in time), hours, minutes and seconds in tables whose keys hold the literal
before them. Anything else (one-digit hours, fractions nobody asked for, values out of range, layouts that begin
with the time) is left to the complete reading, which also has the words for what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, tzinfo
from functools import lru_cache
from typing import Final

from hub.mapping.gotime import chunks, fixed_zone
from hub.mapping.timestamp import Timestamp

_DATE: Final = frozenset(["2006", "01", "02", "Jan", "Mon"])
"""Elements of a date that are as wide in the value as in the layout, and need not look further to be read."""

_CLOCK: Final = ("15", "04", "05")
_ZONES: Final = {
    "Z07:00": r"Z|[+-]\d\d:\d\d",
    "-07:00": r"[+-]\d\d:\d\d",
    "Z0700": r"Z|[+-]\d{4}",
    "-0700": r"[+-]\d{4}",
}
_DAYS_MAX: Final = 512
"""Dates kept for a layout."""

_SECOND_NS: Final = 1_000_000_000

Strict = Callable[[str], Timestamp | None]


def strict(layout: str, date: Callable[[str, str], Timestamp | None]) -> Strict | None:
    """A reading of values that are exactly what the layout says, None for others; None for a layout that is not of
    the plain kind. `date` reads a date completely: by its layout, its text."""
    cut = chunks(layout)
    elements = [element for _, element in cut]
    count = next(index for index, element in enumerate(elements) if element not in _DATE)
    day_end = sum(len(literal) + len(element) for literal, element in cut[:count])
    day_layout = layout[:day_end]
    if chunks(day_layout) != (*cut[:count], ("", "")):
        return None

    @lru_cache(maxsize=_DAYS_MAX)
    def midnight_s(text: str) -> int | None:
        found = date(day_layout, text)
        return None if found is None else found.nanos // _SECOND_NS

    clock = [(literal, element) for literal, element in cut[count : count + 3] if element in _CLOCK]
    rest = cut[count + len(clock) :]
    if tuple(element for _, element in clock) != _CLOCK:
        if clock or rest != (("", ""),):
            return None

        def read_day(value: str) -> Timestamp | None:
            seconds = midnight_s(value) if len(value) == day_end else None
            return None if seconds is None else Timestamp(seconds * _SECOND_NS)

        return read_day

    tail = _tail(rest)
    if tail is None:
        return None
    (hour, _), (minute, _), (second, _) = clock
    hours, minutes, seconds = _numbers(hour, 24, 3600), _numbers(minute, 60, 60), _numbers(second, 60, 1)
    hour_end = day_end + len(hour) + 2
    minute_end = hour_end + len(minute) + 2
    second_end = minute_end + len(second) + 2

    def read(value: str) -> Timestamp | None:
        midnight = midnight_s(value[:day_end])
        if midnight is None:
            return None
        try:
            at = (
                midnight
                + hours[value[day_end:hour_end]]
                + minutes[value[hour_end:minute_end]]
                + seconds[value[minute_end:second_end]]
            )
        except KeyError:
            return None
        return tail(at * _SECOND_NS, value[second_end:])

    return read


@lru_cache(maxsize=256)
def _numbers(literal: str, count: int, unit_s: int) -> Mapping[str, int]:
    """The seconds that each two-digit number after a literal stands for."""
    return {f"{literal}{number:02d}": number * unit_s for number in range(count)}


def _tail(cut: tuple[tuple[str, str], ...]) -> Callable[[int, str], Timestamp | None] | None:
    """How what follows the seconds is read: a fraction, a zone, a literal, each if the layout has one. The reading
    takes the nanoseconds so far and the text."""
    fraction = ""
    if not cut[0][0] and cut[0][1][:1] in (".", ","):
        fraction, cut = cut[0][1], cut[1:]
    if cut[0][0][:1] in (".", ",") or len(fraction) > 10:
        return None  # A point after the seconds may begin a fraction that the layout does not ask for.
    exact = len(fraction) - 1 if fraction[1:2] == "0" else 0
    if not cut[0][1]:
        return _closed(fraction, exact, cut[0][0])
    (literal, element), *others = cut
    if element not in _ZONES or others != [("", "")]:
        return None
    lengths = len(literal) + 1, len(literal) + len(element)
    pattern = re.compile(f"{re.escape(literal)}({_ZONES[element]})", re.ASCII)

    @lru_cache(maxsize=256)
    def zone_of(text: str) -> tuple[int, tzinfo] | None:
        match = pattern.fullmatch(text)
        return None if match is None else _zone(match.group(1))

    def read(nanos: int, text: str) -> Timestamp | None:
        length = lengths[text[-1:] != "Z"]
        found = zone_of(text[-length:])
        if found is None:
            return None
        offset_ns, zone = found
        if len(text) > length:
            decimals = _decimals(text[:-length], fraction, exact)
            if decimals is None:
                return None
            nanos += decimals
        elif exact:
            return None
        return Timestamp(nanos - offset_ns, zone)

    return read


def _closed(fraction: str, exact: int, literal: str) -> Callable[[int, str], Timestamp | None]:
    """A tail without a zone, that ends with a literal."""
    size = len(literal)
    if 0 < exact <= 3:
        thousandths = _thousandths(fraction[0], exact, literal)

        def look(nanos: int, text: str) -> Timestamp | None:
            decimals = thousandths.get(text)
            return None if decimals is None else Timestamp(nanos + decimals)

        return look

    def read(nanos: int, text: str) -> Timestamp | None:
        if text == literal:
            return None if exact else Timestamp(nanos)
        if not text.endswith(literal):
            return None
        decimals = _decimals(text[:-size] if size else text, fraction, exact)
        return None if decimals is None else Timestamp(nanos + decimals)

    return read


@lru_cache(maxsize=16)
def _thousandths(point: str, width: int, literal: str) -> Mapping[str, int]:
    """The nanoseconds of each fraction of so many digits, a literal after it: a third of the time of a reading."""
    unit_ns = 10 ** (9 - width)
    return {f"{point}{number:0{width}d}{literal}": number * unit_ns for number in range(10**width)}


def _decimals(text: str, fraction: str, exact: int) -> int | None:
    """The nanoseconds of `.25`, if the layout has a fraction like it."""
    digits = text[1:]
    width = len(digits)
    if not fraction or text[0] != fraction[0] or width > 9 or (exact and width != exact):
        return None
    if not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits.ljust(9, "0"))


def _zone(text: str) -> tuple[int, tzinfo] | None:
    """The nanoseconds and the zone of `Z` or an offset."""
    if text == "Z":
        return 0, UTC
    if text[1:3] > "23" or text[-2:] > "59":
        return None
    offset_s = int(text[1:3]) * 3600 + int(text[-2:]) * 60
    offset_s = -offset_s if text[0] == "-" else offset_s
    return offset_s * _SECOND_NS, fixed_zone(offset_s)
