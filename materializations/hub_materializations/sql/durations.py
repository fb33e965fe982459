"""ISO 8601 durations in the words that databases without that form read."""

from __future__ import annotations

import re

_DURATION = re.compile(
    r"(?P<sign>-?)P(?:(?P<years>[-+]?\d+)Y)?(?:(?P<months>[-+]?\d+)M)?(?:(?P<weeks>[-+]?\d+)W)?"
    r"(?:(?P<days>[-+]?\d+)D)?"
    r"(?:T(?:(?P<hours>[-+]?\d+)H)?(?:(?P<minutes>[-+]?\d+)M)?(?:(?P<seconds>[-+]?\d+(?:\.\d+)?)S)?)?"
)
_UNITS = ("years", "months", "weeks", "days", "hours", "minutes", "seconds")


def in_words(text: str) -> str:
    """`P1Y2M3DT4H5M6.7S` as `1 years 2 months 3 days 4 hours 5 minutes 6.7 seconds`. ValueError otherwise."""
    match = _DURATION.fullmatch(text)
    if match is None or text.endswith(("P", "T")):
        raise ValueError(f"{text!r} is not an ISO 8601 duration such as P1DT2H")
    sign = -1 if match["sign"] else 1
    parts = []
    for unit in _UNITS:
        number = match[unit]
        if number:
            flipped = number[1:] if number.startswith("-") else "-" + number.lstrip("+")
            parts.append(f"{number if sign > 0 else flipped} {unit}")
    return " ".join(parts)
