"""Timestamps read by Go's reference layouts.

The hard part is what is lenient (one-digit hours, fractions that nobody asked for, zones that no
table knows) and the text of each refusal: both follow the documented behaviour of Go's package
`time`, because mappings match on them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, tzinfo
from functools import lru_cache

from hub.mapping.gotime import (
    MONTHS,
    SHORT_MONTHS,
    SHORT_WEEKDAYS,
    WEEKDAYS,
    chunks,
    days_in,
    fixed_zone,
    instant,
    is_leap,
    time_quote,
)
from hub.mapping.timepattern import strict
from hub.mapping.timestamp import Timestamp
from hub.mapping.values import EvaluationError


def parse_layout(layout: str, value: str) -> Timestamp:
    """A timestamp read by a layout, or Go's error: `parsing time "x" as "2006": cannot parse …`."""
    return reader(layout)(value)


@lru_cache(maxsize=128)
def reader(layout: str) -> Callable[[str], Timestamp]:
    """`parse_layout` of one layout.

    The last value is kept with its timestamp, because mappings read one field for several targets and rows of one
    transaction carry one time: 0.05 µs then,
    1.0 for a value read anew, 2.4 by a regular expression for the whole, 8.9 by the complete reading.
    """
    plain = strict(layout, _date)
    # One tuple, replaced as a whole: threads may read by one layout at once.
    last: tuple[str, Timestamp | None] = ("", None)

    def read(value: str) -> Timestamp:
        nonlocal last
        text, found = last
        if found is not None and text == value:
            return found
        found = plain(value) if plain is not None else None
        if found is None:
            found = completely(layout, value)
        last = value, found
        return found

    return read


def completely(layout: str, value: str) -> Timestamp:
    """`parse_layout` by the complete reading alone, which the strict one must agree with."""
    return _Reading(layout, value).read()


def _date(layout: str, value: str) -> Timestamp | None:
    try:
        return completely(layout, value)
    except EvaluationError:
        return None


class _Bad(Exception):
    """The rest does not hold what the element asks for."""


class _Range(Exception):
    """A number that no calendar has; the argument names the field."""


class _Reading:
    """One value being read by one layout. Elements take their text from the front of `rest`."""

    def __init__(self, layout: str, value: str) -> None:
        self.layout = layout
        self.value = value
        self.rest = value
        self.year = 0
        self.month = self.day = self.yearday = -1
        self.hour = self.minute = self.second = self.nanos = 0
        self.half = ""
        self.zone: tzinfo | None = None
        self.offset: int | None = None
        self.zone_name = ""

    def read(self) -> Timestamp:
        cut = chunks(self.layout)
        for index, (literal, element) in enumerate(cut):
            self._skip(literal)
            if not element:
                if self.rest:
                    raise self._error("", self.rest, f": extra text: {time_quote(self.rest)}")
                break
            before = self.rest
            try:
                follows = cut[index + 1][1] if not cut[index + 1][0] else ""
                self._element(element, follows)
            except _Range as error:
                raise self._error(element, self.rest, f": {error} out of range") from None
            except _Bad:
                raise self._error(element, before) from None
        return self._instant()

    def _error(self, element: str, at: str, message: str = "") -> EvaluationError:
        if message:
            return EvaluationError(f"parsing time {time_quote(self.value)}{message}")
        return EvaluationError(
            f"parsing time {time_quote(self.value)} as {time_quote(self.layout)}: "
            f"cannot parse {time_quote(at)} as {time_quote(element)}"
        )

    def _skip(self, literal: str) -> None:
        position, whole = 0, literal
        while position < len(literal):
            char = literal[position]
            if char == " ":
                if self.rest and self.rest[0] != " ":
                    raise self._error(whole, self.rest)
                while position < len(literal) and literal[position] == " ":
                    position += 1
                self.rest = self.rest.lstrip(" ")
                continue
            if not self.rest or self.rest[0] != char:
                raise self._error(whole, self.rest)
            position += 1
            self.rest = self.rest[1:]

    def _element(self, element: str, follows: str) -> None:
        match element:
            case "06":
                year = _atoi(self._take(2))
                self.year = year + (1900 if year >= 69 else 2000)
            case "2006":
                if len(self.rest) < 4 or not _is_digit(self.rest, 0):
                    raise _Bad
                self.year = _atoi(self._take(4))
            case "Jan":
                self.month = self._name(SHORT_MONTHS) + 1
            case "January":
                self.month = self._name(MONTHS) + 1
            case "1" | "01":
                self.month = self._number(fixed=element == "01")
                _within(self.month, 1, 12, "month")
            case "Mon":
                self._name(SHORT_WEEKDAYS)
            case "Monday":
                self._name(WEEKDAYS)
            case "2" | "_2" | "02":
                if element == "_2" and self.rest.startswith(" "):
                    self.rest = self.rest[1:]
                self.day = self._number(fixed=element == "02")
            case "002" | "__2":
                for _ in range(2):
                    if element == "__2" and self.rest.startswith(" "):
                        self.rest = self.rest[1:]
                self.yearday = self._three(fixed=element == "002")
            case "15":
                self.hour = self._number(fixed=False)
                _within(self.hour, 0, 23, "hour")
            case "3" | "03":
                self.hour = self._number(fixed=element == "03")
                _within(self.hour, 0, 12, "hour")
            case "4" | "04":
                self.minute = self._number(fixed=element == "04")
                _within(self.minute, 0, 59, "minute")
            case "5" | "05":
                self.second = self._number(fixed=element == "05")
                _within(self.second, 0, 59, "second")
                # A fraction is taken even when the layout has none.
                if follows[:1] not in (".", ",") and self.rest[:1] in (".", ",") and _is_digit(self.rest, 1):
                    self._fraction()
            case "PM" | "pm":
                half = self._take(2)
                if half not in (("PM", "AM") if element == "PM" else ("pm", "am")):
                    raise _Bad
                self.half = half.upper()
            case "MST":
                if self.rest.startswith("UTC"):
                    self.rest = self.rest[3:]
                    self.zone = UTC
                else:
                    self.zone_name = self._take(_zone_name_length(self.rest))
            case _ if element[0] in "-Z":
                self._offset(element)
            case _ if element[1] == "9":
                if self.rest[:1] in (".", ",") and self.rest and _is_digit(self.rest, 1):
                    self._fraction()
            case _:
                if len(self.rest) < len(element):
                    raise _Bad
                self.nanos = _nanoseconds(self._take(len(element)))

    def _take(self, count: int) -> str:
        if len(self.rest) < count or count < 1:
            raise _Bad
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def _name(self, names: tuple[str, ...]) -> int:
        for index, name in enumerate(names):
            if self.rest[: len(name)].lower() == name.lower():
                self.rest = self.rest[len(name) :]
                return index
        raise _Bad

    def _number(self, *, fixed: bool) -> int:
        if not _is_digit(self.rest, 0):
            raise _Bad
        if not _is_digit(self.rest, 1):
            if fixed:
                raise _Bad
            return int(self._take(1))
        return int(self._take(2))

    def _three(self, *, fixed: bool) -> int:
        count = 0
        while count < 3 and _is_digit(self.rest, count):
            count += 1
        if not count or (fixed and count != 3):
            raise _Bad
        return int(self._take(count))

    def _fraction(self) -> None:
        count = 1
        while _is_digit(self.rest, count):
            count += 1
        self.nanos = _nanoseconds(self._take(count))

    def _offset(self, element: str) -> None:
        if element[0] == "Z" and self.rest.startswith("Z"):
            self.rest = self.rest[1:]
            self.zone = UTC
            return
        if len(self.rest) < len(element):
            raise _Bad
        given = self.rest[: len(element)]
        if ":" in element:
            if given[3] != ":" or (len(element) == 9 and given[6] != ":"):
                raise _Bad
            given = given.replace(":", "")
        fields = []
        for start in range(1, 7, 2):
            field = given[start : start + 2] or "00"
            if len(field) != 2 or not _is_digit(field, 0) or not _is_digit(field, 1):
                raise _Bad
            fields.append(int(field))
        for found, limit, name in zip(fields, (24, 60, 60), ("hour", "minute", "second"), strict=True):
            _within(found, 0, limit, f"time zone offset {name}")
        if given[0] not in "+-":
            raise _Bad
        total = (fields[0] * 60 + fields[1]) * 60 + fields[2]
        self.offset = -total if given[0] == "-" else total
        self.rest = self.rest[len(element) :]

    def _instant(self) -> Timestamp:
        hour = self.hour
        if self.half == "PM" and hour < 12:
            hour += 12
        elif self.half == "AM" and hour == 12:
            hour = 0
        month, day = self._date()
        at = instant(self.year, month, day, hour, self.minute, self.second, self.nanos)
        if self.zone is not None:
            return at
        if self.offset is not None:
            # Go cannot name a zone of exactly 24 hours either; Python refuses to make one.
            zone = fixed_zone(self.offset, self.zone_name) if abs(self.offset) < 86400 else UTC
            return Timestamp(at.nanos - self.offset * 1_000_000_000, zone)
        if self.zone_name:
            offset = 0
            if self.zone_name.startswith("GMT") and len(self.zone_name) > 3:
                offset = int(self.zone_name[3:]) * 3600
            return at.at(fixed_zone(offset, self.zone_name))
        return at

    def _date(self) -> tuple[int, int]:
        month, day = self.month, self.day
        if self.yearday >= 0:
            if not 1 <= self.yearday <= (366 if is_leap(self.year) else 365):
                raise self._error("", self.rest, ": day-of-year out of range")
            rest, found = self.yearday, 1
            while rest > days_in(found, self.year):
                rest -= days_in(found, self.year)
                found += 1
            if month >= 0 and month != found:
                raise self._error("", self.rest, ": day-of-year does not match month")
            if day >= 0 and day != rest:
                raise self._error("", self.rest, ": day-of-year does not match day")
            return found, rest
        month, day = max(month, 1), 1 if day < 0 else day
        if not 1 <= day <= days_in(month, self.year):
            raise self._error("", self.rest, ": day out of range")
        return month, day


def _within(found: int, low: int, high: int, name: str) -> None:
    if not low <= found <= high:
        raise _Range(name)


def _is_digit(text: str, index: int) -> bool:
    return index < len(text) and "0" <= text[index] <= "9"


def _atoi(text: str) -> int:
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not digits or not (digits.isascii() and digits.isdigit()):
        raise _Bad
    return int(text)


def _nanoseconds(text: str) -> int:
    """`.5` to nanoseconds; digits after the ninth are dropped."""
    digits = text[1:10]
    if text[0] not in ".," or not (digits.isascii() and digits.isdigit()):
        raise _Bad
    return int(digits.ljust(9, "0"))


def _zone_name_length(text: str) -> int:
    """How much of the text is the short name of a zone; 0 when it starts with none."""
    if len(text) < 3:
        return 0
    if text[:4] in ("ChST", "MeST"):
        return 4
    if text.startswith("GMT"):
        return 3 + _signed_hours_length(text[3:])
    if text[0] in "+-":
        return _signed_hours_length(text)
    upper = 0
    while upper < 6 and upper < len(text) and "A" <= text[upper] <= "Z":
        upper += 1
    if (upper == 5 and text[4] == "T") or (upper == 4 and (text[3] == "T" or text[:4] == "WITA")):
        return upper
    return 3 if upper == 3 else 0


def _signed_hours_length(text: str) -> int:
    match = re.match(r"[+-](\d+)", text, re.ASCII)
    return match.end() if match is not None and int(match.group(1)[:4]) <= 23 else 0
