"""Values as the same whatever spelled them: a document's JSON form and a database's text compare equal.

Every kind of column type has one canonical Python value. The JSON form is that of `hub.schema.types`;
the text is what the database prints for the column, so its own spellings of eras, infinities,
intervals and byte strings are read here too.
"""

from __future__ import annotations

import json
import math
import re
from base64 import b64decode
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import Any

from hub.schema import ColumnType
from hub.schema.types import JSON


class Exact(str):
    """JSON text whose value counts, as a database gives it."""

    __slots__ = ()


def canonical(value: Any, column: ColumnType) -> Any:
    """A document's value, or the text that a database gives for it, as one comparable value."""
    if value is None:
        return None
    match column.kind:
        case "boolean":
            return value if isinstance(value, bool) else str(value).lower() in ("t", "true", "1")
        case "integer" | "decimal":
            return _decimal(value)
        case "float":
            return _float(value, column.bits)
        case "date" | "timestamp" | "timestamptz" | "time" | "timetz":
            return _moment(str(value), column.kind)
        case "interval":
            return _interval(str(value))
        case "uuid":
            return str(value).lower()
        case "bytes":
            return value if isinstance(value, bytes) else b64decode(value)
        case "array":
            items = column.items or JSON
            listed = value if isinstance(value, list) else exact_json(value)
            return [canonical(item, items) for item in listed]
        case "json" | "object":
            return _plain(value)
        case _:
            return value if isinstance(value, str) else json.dumps(value)


def exact_json(text: str | bytes) -> Any:
    """JSON text with numbers as they are written and objects as lists of pairs, so that repeated keys show."""
    return json.loads(
        text,
        parse_float=Decimal,
        parse_int=Decimal,
        object_pairs_hook=lambda pairs: [tuple(p) for p in pairs],
    )


def _plain(value: Any) -> Any:
    return exact_json(value) if isinstance(value, Exact) else exact_json(json.dumps(value))


def _decimal(value: Any) -> Any:
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return value
    if not found.is_finite():
        return str(found)
    text = f"{found:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return Decimal(0) if text in ("-0", "") else Decimal(text)


def _float(value: Any, bits: int | None) -> Any:
    found = float(value)
    if math.isnan(found):
        return "NaN"
    return float(f"{found:.7g}") if bits == 32 else found


_MOMENT = re.compile(
    r"(?P<date>\d+-\d\d-\d\d)?(?P<era1> \(BC\))?[T ]?(?P<time>\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?"
    r"(?P<zone>Z|[-+]\d\d(?::?\d\d(?::\d\d)?)?)?(?P<era2> \(?BC\)?)?"
)


def _moment(text: str, kind: str) -> Any:
    if text.lower().lstrip("-+") == "infinity":
        return text.lower().lstrip("+")
    match = _MOMENT.fullmatch(text)
    assert match is not None, f"{text!r} is not a {kind}"
    era = "BC" if match["era1"] or match["era2"] else ""
    day, clock = match["date"] or "", _clock(match["time"] or "00:00:00")
    zone = match["zone"]
    if kind == "date":
        return day, era
    if kind == "time":
        return clock
    if kind == "timetz":
        return clock, _offset_s(zone or "+00")
    if kind == "timestamp" or not zone or _offset_s(zone) == 0:
        return day, era, clock
    hours, rest = clock.split(":", 1)
    local = datetime.fromisoformat(f"{day}T{hours}:{rest}").replace(
        tzinfo=timezone(timedelta(seconds=_offset_s(zone)))
    )
    utc = local.astimezone(UTC)
    return utc.strftime("%Y-%m-%d"), era, _clock(utc.strftime("%H:%M:%S.%f"))


def _clock(text: str) -> str:
    """A time of day with its seconds and without zeros at its end."""
    if text.count(":") == 1:
        text += ":00"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _offset_s(zone: str) -> int:
    if zone == "Z":
        return 0
    sign = -1 if zone[0] == "-" else 1
    digits = zone[1:].replace(":", "").ljust(6, "0")
    return sign * (int(digits[:2]) * 3600 + int(digits[2:4]) * 60 + int(digits[4:]))


_ISO = re.compile(
    r"P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)D)?(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?\d+(?:\.\d+)?)S)?)?"
)
_WORDS = re.compile(r"(-?\d+) (year|month|day)s?")
_CLOCK = re.compile(r"(-?)(\d+):(\d\d):(\d\d(?:\.\d+)?)$")


def _interval(text: str) -> tuple[int, int, Decimal]:
    """Months, days and seconds: the three parts that do not convert into each other."""
    if match := _ISO.fullmatch(text):
        years, months, days, hours, minutes, seconds = (Decimal(group or 0) for group in match.groups())
        return int(years * 12 + months), int(days), hours * 3600 + minutes * 60 + seconds
    parts = {unit: int(number) for number, unit in _WORDS.findall(text)}
    clock = _CLOCK.search(text)
    seconds = Decimal(0)
    if clock:
        seconds = int(clock[2]) * 3600 + int(clock[3]) * 60 + Decimal(clock[4])
        seconds = -seconds if clock[1] else seconds
    return parts.get("year", 0) * 12 + parts.get("month", 0), parts.get("day", 0), seconds
