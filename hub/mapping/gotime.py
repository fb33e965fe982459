"""Go's reference layouts (`2006-01-02T15:04:05.999Z07:00`), printing by them, and zones by name.

A layout is cut once into chunks: literal text and elements such as `01`, `Jan`, `.000`. The hard part
is what is an element: `Jan` is one and `Jane` is not, `2` is, and `.99x` is but `.995` is not. The
rules are those documented by Go's package `time`. Parsing by a layout is in `timeparse.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from hub.mapping.timestamp import Civil, Timestamp, days_from_civil
from hub.mapping.values import EvaluationError, utf8

RFC3339_NANO: Final = "2006-01-02T15:04:05.999999999Z07:00"

MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July",
    "August", "September", "October", "November", "December",
)  # fmt: skip
WEEKDAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
SHORT_MONTHS: Final = tuple(name[:3] for name in MONTHS)
SHORT_WEEKDAYS: Final = tuple(name[:3] for name in WEEKDAYS)
_MONTH_DAYS: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_ELEMENTS: Final = re.compile(
    r"January|Jan(?![a-z])|Monday|Mon(?![a-z])|MST"
    r"|002|0[1-6]|15|1|2006|2|__2|_2006|_2|3|4|5|PM|pm"
    r"|[-Z]07:00:00|[-Z]070000|[-Z]07:00|[-Z]0700|[-Z]07|[.,](?:0+|9+)(?![0-9])"
)


@lru_cache(maxsize=512)
def chunks(layout: str) -> tuple[tuple[str, str], ...]:
    """A layout as pairs of the literal text before an element, and the element (empty at the end)."""
    found: list[tuple[str, str]] = []
    start = 0
    for match in _ELEMENTS.finditer(layout):
        element = match.group()
        literal = layout[start : match.start()]
        if element == "_2006":
            literal, element = literal + "_", "2006"
        found.append((literal, element))
        start = match.end()
    found.append((layout[start:], ""))
    return tuple(found)


def is_leap(year: int) -> bool:
    """True for a year of 366 days."""
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def days_in(month: int, year: int) -> int:
    """Days of a month."""
    return 29 if month == 2 and is_leap(year) else _MONTH_DAYS[month - 1]


# Zones


@lru_cache(maxsize=512)
def load_zone(name: str) -> tzinfo:
    """A zone of the IANA database; the local zone of an engine is UTC."""
    if name in ("", "UTC", "Local"):
        return UTC
    if ".." in name or name[0] in "/\\":
        raise EvaluationError("time: invalid location name")
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise EvaluationError(f"unknown time zone {name}") from error


def fixed_zone(offset_s: int, name: str = "") -> tzinfo:
    """A zone that is always so many seconds east of UTC."""
    if not offset_s and not name:
        return UTC
    return timezone(timedelta(seconds=offset_s), name) if name else timezone(timedelta(seconds=offset_s))


def instant(
    year: int, month: int, day: int, hour: int, minute: int, second: int, nanos: int, zone: tzinfo = UTC
) -> Timestamp:
    """The timestamp of a calendar date and time of day in a zone; fields out of range carry over."""
    carried, month = divmod(month - 1, 12)
    days = days_from_civil(year + carried, month + 1, 1) + day - 1
    wall = days * 86400 + hour * 3600 + minute * 60 + second
    if zone is UTC:
        return Timestamp(wall * 1_000_000_000 + nanos, zone)
    # The offset depends on the instant that is being looked for: guess, look, correct once.
    offset = Timestamp(wall * 1_000_000_000, zone).offset_s()
    for guess in (offset, Timestamp((wall - offset) * 1_000_000_000, zone).offset_s()):
        found = Timestamp((wall - guess) * 1_000_000_000 + nanos, zone)
        if found.offset_s() == guess:
            return found
    return Timestamp((wall - offset) * 1_000_000_000 + nanos, zone)


# Formatting

_DAYS_MAX: Final = 512
"""Printed dates kept for a layout."""

_DAY: Final = frozenset(
    ["2006", "06", "January", "Jan", "1", "01", "Monday", "Mon", "2", "_2", "02", "__2", "002"]
)
_CLOCK: Final = {
    "15": 3600, "3": 3600, "03": 3600, "PM": 3600, "pm": 3600, "4": 60, "04": 60, "5": 1, "05": 1,
}  # fmt: skip
"""Elements of the time of day, and the seconds of the unit they depend on."""

Printer = Callable[[Civil, Timestamp], str]


def format_layout(layout: str, moment: Timestamp) -> str:
    """A timestamp printed by a layout."""
    return printer(layout)(moment)


@lru_cache(maxsize=128)
def printer(layout: str) -> Callable[[Timestamp], str]:
    """`format_layout` of one layout.

    Most layouts are a date, a time of day, and what comes after it. The date is printed once a day, the time of
    day put together from tables: 0.45 µs where a calendar for each timestamp took 2.4.
    """
    if layout == RFC3339_NANO:
        return Timestamp.rfc3339
    cut = chunks(layout)
    days = next(index for index, (_, element) in enumerate(cut) if element not in _DAY)
    clocks = next(index for index, (_, element) in enumerate(cut[days:], days) if element not in _CLOCK)
    if any(element in _DAY or element in _CLOCK for _, element in cut[clocks:]):
        parts = _printers(cut)
        return lambda moment: _joined(parts, moment.civil(), moment)
    date = _printers(cut[:days])
    tables = [_table(literal, element) for literal, element in cut[days:clocks]]
    rest = _printers(cut[clocks:])

    @lru_cache(maxsize=_DAYS_MAX)
    def printed_date(day: int) -> str:
        moment = Timestamp(day * 86400 * 1_000_000_000)
        return _joined(date, moment.civil(), moment)

    def printed(moment: Timestamp) -> str:
        seconds = moment.nanos // 1_000_000_000
        if moment.zone is not UTC:
            seconds += moment.offset_s()
        text = printed_date(seconds // 86400)
        for table, unit_s, count in tables:
            text += table[seconds // unit_s % count]
        return text + _joined(rest, _NO_CIVIL, moment) if rest else text

    return printed


_NO_CIVIL: Final = Civil(0, 0, 0, 0, 0, 0, 0, 0, 0)
"""For elements that look at the timestamp only: fractions and zones."""


def _table(literal: str, element: str) -> tuple[list[str], int, int]:
    """An element of the time of day, for each hour, minute or second; the unit in seconds; how many there are."""
    unit_s = _CLOCK[element]
    count = 24 if unit_s == 3600 else 60
    shown = _PRINTERS[element]
    moments = [Timestamp(number * unit_s * 1_000_000_000) for number in range(count)]
    return [literal + shown(moment.civil(), moment) for moment in moments], unit_s, count


def _joined(parts: tuple[str | Printer, ...], civil: Civil, moment: Timestamp) -> str:
    return "".join([part if isinstance(part, str) else part(civil, moment) for part in parts])


def _printers(cut: tuple[tuple[str, str], ...]) -> tuple[str | Printer, ...]:
    parts: list[str | Printer] = []
    for literal, element in cut:
        if literal:
            parts.append(literal)
        if element:
            parts.append(_printer(element))
    return tuple(parts)


def _printer(element: str) -> Printer:
    plain = _PRINTERS.get(element)
    if plain is not None:
        return plain
    if element[0] in ".,":
        return _fraction_printer(element)
    return _offset_printer(element)


def _fraction_printer(element: str) -> Printer:
    width, trimmed, point = len(element) - 1, element[1] == "9", element[0]

    def printed(civil: Civil, moment: Timestamp) -> str:
        digits = f"{moment.nanos % 1_000_000_000:09d}"[:width].ljust(width, "0")
        if trimmed:
            digits = digits.rstrip("0")
            return point + digits if digits else ""
        return point + digits

    return printed


def _offset_printer(element: str) -> Printer:
    colon = ":" if ":" in element else ""
    minutes = len(element) > 3
    seconds = len(element) - len(colon) * 2 > 5

    def printed(civil: Civil, moment: Timestamp) -> str:
        offset = moment.offset_s()
        if not offset and element[0] == "Z":
            return "Z"
        # Go truncates the offset to minutes before it looks at the sign.
        whole = abs(offset) // 60
        text = f"{'-' if offset <= -60 else '+'}{whole // 60:02d}"
        if minutes:
            text += f"{colon}{whole % 60:02d}"
        return f"{text}{colon}{abs(offset) % 60:02d}" if seconds else text

    return printed


def zone_name(moment: Timestamp) -> str:
    """The zone's short name, or its offset when it has none."""
    return moment.abbreviation() or _offset_printer("-0700")(_NO_CIVIL, moment)


def _year(year: int) -> str:
    return f"{year:04d}" if year >= 0 else f"-{-year:04d}"


_PRINTERS: Final[dict[str, Printer]] = {
    "2006": lambda c, _: _year(c.year),
    "06": lambda c, _: f"{abs(c.year) % 100:02d}",
    "January": lambda c, _: MONTHS[c.month - 1],
    "Jan": lambda c, _: SHORT_MONTHS[c.month - 1],
    "1": lambda c, _: str(c.month),
    "01": lambda c, _: f"{c.month:02d}",
    "Monday": lambda c, _: WEEKDAYS[c.weekday],
    "Mon": lambda c, _: SHORT_WEEKDAYS[c.weekday],
    "2": lambda c, _: str(c.day),
    "_2": lambda c, _: f"{c.day:2d}",
    "02": lambda c, _: f"{c.day:02d}",
    "__2": lambda c, _: f"{c.yearday:3d}",
    "002": lambda c, _: f"{c.yearday:03d}",
    "15": lambda c, _: f"{c.hour:02d}",
    "3": lambda c, _: str(c.hour % 12 or 12),
    "03": lambda c, _: f"{c.hour % 12 or 12:02d}",
    "4": lambda c, _: str(c.minute),
    "04": lambda c, _: f"{c.minute:02d}",
    "5": lambda c, _: str(c.second),
    "05": lambda c, _: f"{c.second:02d}",
    "PM": lambda c, _: "PM" if c.hour >= 12 else "AM",
    "pm": lambda c, _: "pm" if c.hour >= 12 else "am",
    "MST": lambda _, moment: zone_name(moment),
}


def time_quote(text: str) -> str:
    """A string as Go's time errors quote it: everything beyond ASCII as escaped bytes."""
    out = []
    for byte in utf8(text):
        if byte in (0x22, 0x5C):
            out.append("\\" + chr(byte))
        elif byte < 0x20 or byte >= 0x80:
            out.append(f"\\x{byte:02x}")
        else:
            out.append(chr(byte))
    return '"' + "".join(out) + '"'
