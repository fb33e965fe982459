"""Go's time layouts as regular expressions: the strict reading of a timestamp, without an error of its own.

Most layouts are made of a few numbers of fixed width, and most values are what the layout says; those are
read here at once. Anything else (names, one-digit hours, fractions nobody asked for, values out of
range) is left to the complete reading, which also has the words for what is wrong.
"""

from __future__ import annotations

import re
from datetime import UTC, tzinfo
from functools import lru_cache
from typing import Final

from hub.mapping.gotime import chunks, days_in, fixed_zone
from hub.mapping.timestamp import Timestamp, days_from_civil

_PATTERNS: Final = {
    "2006": r"(?P<year>\d{4})",
    "01": r"(?P<month>\d\d)",
    "02": r"(?P<day>\d\d)",
    "15": r"(?P<hour>\d\d)",
    "04": r"(?P<minute>\d\d)",
    "05": r"(?P<second>\d\d)",
    "Z07:00": r"(?P<zone>Z|[+-]\d\d:\d\d)",
    "-07:00": r"(?P<zone>[+-]\d\d:\d\d)",
    "Z0700": r"(?P<zone>Z|[+-]\d{4})",
    "-0700": r"(?P<zone>[+-]\d{4})",
}
_GROUPS: Final = ("year", "month", "day", "hour", "minute", "second", "fraction", "zone")


def strictly(layout: str, value: str) -> Timestamp | None:
    """The timestamp, if the layout is plain and the value exactly what it says."""
    pattern = pattern_of(layout)
    match = pattern.fullmatch(value) if pattern is not None else None
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.group(*_GROUPS)
    y, m, d = int(year), int(month or 1), int(day or 1)
    h, n, s = int(hour or 0), int(minute or 0), int(second or 0)
    if not 1 <= m <= 12 or not (1 <= d <= 28 or 1 <= d <= days_in(m, y)) or h > 23 or n > 59 or s > 59:
        return None
    seconds = days_from_civil(y, m, d) * 86400 + h * 3600 + n * 60 + s
    nanos = int(fraction.ljust(9, "0")) if fraction else 0
    if not zone or zone == "Z":
        return Timestamp(seconds * 1_000_000_000 + nanos)
    if zone[1:3] > "23" or zone[-2:] > "59":
        return None
    offset, where = _zone(zone)
    return Timestamp((seconds - offset) * 1_000_000_000 + nanos, where)


@lru_cache(maxsize=256)
def _zone(text: str) -> tuple[int, tzinfo]:
    offset = int(text[1:3]) * 3600 + int(text[-2:]) * 60
    offset = -offset if text[0] == "-" else offset
    return offset, fixed_zone(offset) if offset else UTC


@lru_cache(maxsize=256)
def pattern_of(layout: str) -> re.Pattern[str] | None:
    """The expression of a layout, with a group for each part of a timestamp, empty if the layout has none;
    None when the layout needs more than numbers of fixed width."""
    found: list[str] = []
    seen: list[str] = []
    for literal, element in chunks(layout):
        found.append(re.escape(literal))
        if not element:
            continue
        if element[0] in ".," and seen and seen[-1] == "05":
            digits = len(element) - 1
            if digits > 9:
                return None
            point = re.escape(element[0])
            exact = rf"{point}(?P<fraction>\d{{{digits}}})"
            found.append(exact if element[1] == "0" else rf"(?:{point}(?P<fraction>\d{{1,9}}))?")
        elif element in _PATTERNS and element not in seen:
            found.append(_PATTERNS[element])
        else:
            return None
        seen.append(element)
    if "2006" not in seen:
        return None
    text = "".join(found)
    for name in _GROUPS:
        if f"(?P<{name}>" not in text:
            text += f"(?P<{name}>)"
    return re.compile(text, re.ASCII)
