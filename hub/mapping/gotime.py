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
from operator import itemgetter
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

Printer = Callable[[Civil, Timestamp], str]


def format_layout(layout: str, moment: Timestamp) -> str:
    """A timestamp printed by a layout."""
    if layout == RFC3339_NANO:
        return moment.rfc3339()
    civil = moment.civil()
    pattern = _pattern(layout)
    if pattern is not None and civil.year >= 0:
        return pattern[0] % pattern[1](civil)
    return "".join([part if isinstance(part, str) else part(civil, moment) for part in _printers(layout)])


@lru_cache(maxsize=512)
def _printers(layout: str) -> tuple[str | Printer, ...]:
    parts: list[str | Printer] = []
    for literal, element in chunks(layout):
        if literal:
            parts.append(literal)
        if element:
            parts.append(_printer(element))
    return tuple(parts)


_NUMBERS: Final = {
    "2006": ("%04d", 0), "1": ("%d", 1), "01": ("%02d", 1), "2": ("%d", 2), "02": ("%02d", 2), "_2": ("%2d", 2),
    "15": ("%02d", 3), "4": ("%d", 4), "04": ("%02d", 4), "5": ("%d", 5), "05": ("%02d", 5),
    "002": ("%03d", 8), "__2": ("%3d", 8),
}  # fmt: skip
"""Elements that are plain numbers: their form, and their place in `Civil`."""


@lru_cache(maxsize=512)
def _pattern(layout: str) -> tuple[str, Callable[[Civil], tuple[int, ...]]] | None:
    """A layout of plain numbers as a `%` pattern and what fills it in: a third of the time of printers."""
    parts, places = [], []
    for literal, element in chunks(layout):
        parts.append(literal.replace("%", "%%"))
        if element:
            if element not in _NUMBERS:
                return None
            form, place = _NUMBERS[element]
            parts.append(form)
            places.append(place)
    if len(places) < 2:
        return None
    return "".join(parts), itemgetter(*places)


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
        digits = f"{civil.nanosecond:09d}"[:width].ljust(width, "0")
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
    return moment.abbreviation() or _offset_printer("-0700")(moment.civil(), moment)


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
