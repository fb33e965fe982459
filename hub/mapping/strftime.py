"""C's time formats: `%Y-%m-%d` to and from timestamps.

Printing knows flags (`-` no padding, `_` spaces, `0` zeros, `^` upper case, `#` the other case) and
widths; parsing knows neither, as in the engine this follows. An unknown verb prints as it stands and
refuses to parse.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final

from hub.mapping.gotime import MONTHS, WEEKDAYS, chunks, format_layout, instant
from hub.mapping.timestamp import Civil, Timestamp, civil_from_days, days_from_civil
from hub.mapping.values import INT64_MAX, EvaluationError, go_quote, text, utf8

_VERB: Final = re.compile(r"%([-_0^#]*)(\d*)(:{0,3}.|)", re.DOTALL)
_WIDTH_MAX: Final = 1024
"""No verb is padded further than this."""

_COMPOSED: Final = {
    "c": "%a %b %e %H:%M:%S %Y",
    "v": "%e-%b-%Y",
    "F": "%Y-%m-%d",
    "D": "%m/%d/%y",
    "x": "%m/%d/%y",
    "T": "%H:%M:%S",
    "X": "%H:%M:%S",
    "R": "%H:%M",
    "r": "%I:%M:%S %p",
    "+": "%a %b %e %H:%M:%S %Z %Y",
}

_NUMBERS: Final[dict[str, tuple[int, str, Callable[[Civil, Timestamp], int]]]] = {
    "Y": (4, "0", lambda c, _: c.year),
    "C": (2, "0", lambda c, _: c.year // 100),
    "y": (2, "0", lambda c, _: c.year % 100),
    "G": (4, "0", lambda c, _: iso_week(c)[0]),
    "g": (2, "0", lambda c, _: iso_week(c)[0] % 100),
    "V": (2, "0", lambda c, _: iso_week(c)[1]),
    "m": (2, "0", lambda c, _: c.month),
    "d": (2, "0", lambda c, _: c.day),
    "e": (2, " ", lambda c, _: c.day),
    "j": (3, "0", lambda c, _: c.yearday),
    "H": (2, "0", lambda c, _: c.hour),
    "k": (2, " ", lambda c, _: c.hour),
    "I": (2, "0", lambda c, _: c.hour % 12 or 12),
    "l": (2, " ", lambda c, _: c.hour % 12 or 12),
    "M": (2, "0", lambda c, _: c.minute),
    "S": (2, "0", lambda c, _: c.second),
    "f": (6, "0", lambda c, _: c.nanosecond // 1000),
    "s": (1, "0", lambda _, moment: moment.nanos // 1_000_000_000),
    "u": (1, "0", lambda c, _: c.weekday or 7),
    "w": (1, "0", lambda c, _: c.weekday),
    "U": (2, "0", lambda c, _: (c.yearday + 6 - c.weekday) // 7),
    "W": (2, "0", lambda c, _: (c.yearday + 6 - (c.weekday - 1) % 7) // 7),
}

_WORDS: Final[dict[str, Callable[[Civil], str]]] = {
    "A": lambda c: WEEKDAYS[c.weekday],
    "a": lambda c: WEEKDAYS[c.weekday][:3],
    "B": lambda c: MONTHS[c.month - 1],
    "b": lambda c: MONTHS[c.month - 1][:3],
    "h": lambda c: MONTHS[c.month - 1][:3],
    "p": lambda c: "PM" if c.hour >= 12 else "AM",
    "P": lambda c: "pm" if c.hour >= 12 else "am",
    "n": lambda _: "\n",
    "t": lambda _: "\t",
    "%": lambda _: "%",
}


def iso_week(civil: Civil) -> tuple[int, int]:
    """Year and number of the ISO 8601 week."""
    thursday = days_from_civil(civil.year, civil.month, civil.day) + 4 - (civil.weekday or 7)
    year, _, _ = civil_from_days(thursday)
    return year, (thursday - days_from_civil(year, 1, 1)) // 7 + 1


def strftime(layout: str, moment: Timestamp) -> str:
    """A timestamp printed by a format."""
    plain = _as_layout(layout)
    if plain is not None:
        return format_layout(plain, moment)
    return _print(layout, moment.civil(), moment, upper=False)


_AS_LAYOUT: Final = {
    "Y": "2006",
    "m": "01",
    "d": "02",
    "e": "_2",
    "H": "15",
    "M": "04",
    "S": "05",
    "j": "002",
}
_SAFE: Final = frozenset("-/: ,T")


@lru_cache(maxsize=512)
def _as_layout(layout: str) -> str | None:
    """A format of plain numbers as a Go layout, which prints several times as fast; None for all others."""
    out: list[str] = []
    verbs: list[str] = []
    at = 0
    while at < len(layout):
        char = layout[at]
        if char == "%":
            at += 1
            element = _AS_LAYOUT.get(layout[at : at + 1])
            if element is None:
                return None
            out.append(element)
            verbs.append(element)
        elif char in _SAFE:
            out.append(char)
        else:
            return None
        at += 1
    found = "".join(out)
    # Neighbours may read as one other element: `-` before `07` cannot come up here, `_2` before `006` could.
    return found if [element for _, element in chunks(found) if element] == verbs else None


def _print(layout: str, civil: Civil, moment: Timestamp, *, upper: bool) -> str:
    def verb(match: re.Match[str]) -> str:
        return _verb(match, civil, moment, upper=upper)

    return _VERB.sub(verb, layout)


def _verb(match: re.Match[str], civil: Civil, moment: Timestamp, *, upper: bool) -> str:
    flags, digits, name = match.groups()
    padding, other_case = "", False
    for flag in flags:
        if flag == "^":
            upper = True
        elif flag == "#":
            other_case = True
        else:
            padding = {"-": "-", "_": " ", "0": "0"}[flag]
    width = min(int(digits[:5]), _WIDTH_MAX) if digits else 0
    number = _NUMBERS.get(name)
    if number is not None:
        return _padded_number(number[2](civil, moment), number[0], number[1], padding, width)
    word = _WORDS.get(name)
    if word is not None:
        found = word(civil)
        if other_case:
            found = found.lower() if name == "p" else found.upper()
        if upper:
            found = found.upper()
        return found.rjust(width, "0" if padding == "0" else " ")
    composed = _COMPOSED.get(name)
    if composed is not None:
        return _print(composed, civil, moment, upper=upper)
    if name == "Z":
        short = moment.abbreviation()
        if short:
            return short.rjust(width, "0" if padding == "0" else " ")
    if name in ("z", ":z", "::z", ":::z", "Z"):
        return _offset(moment.offset_s(), name.count(":"), padding, width)
    whole = match.group()
    return whole.rjust(width) if digits else whole


def _padded_number(value: int, width: int, fill: str, padding: str, wanted: int) -> str:
    if padding == "-":
        return str(value).rjust(wanted)
    fill = padding or fill
    width = wanted or width
    if value < 0 and fill == "0":
        return "-" + str(-value).rjust(width - 1, "0")
    return str(value).rjust(width, fill)


def _offset(offset: int, colons: int, padding: str, width: int) -> str:
    sign, rest = ("-", -offset) if offset < 0 else ("+", offset)
    hour, minute, second = rest // 3600, rest // 60 % 60, rest % 60
    tail = {
        0: f"{minute:02d}",
        1: f":{minute:02d}",
        2: f":{minute:02d}:{second:02d}",
        3: (f":{minute:02d}" if minute or second else "") + (f":{second:02d}" if second else ""),
    }[colons]
    hours = str(hour)
    if padding == "-":
        return (sign + hours + tail).rjust(width)
    if padding == " ":
        return (sign + hours + tail).rjust(max(width, 3 + len(tail)))
    return sign + hours.rjust(max(width - 1 - len(tail), 2), "0") + tail


# Parsing


def strptime(layout: str, value: str) -> Timestamp:
    """A timestamp read by a format, or an error that names both. What is not given is 1900-01-01T00:00:00Z."""
    try:
        return _Reading(value).read(layout)
    except _Refusal as error:
        detail = str(error)
        shown = f"failed to parse {go_quote(value)} with {go_quote(layout)}: {detail}"
        raise EvaluationError(shown) from None


class _Refusal(Exception):
    """Why the value does not follow the format."""


class _Reading:
    """One value being read, byte by byte; verbs take their text from `at` on."""

    def __init__(self, value: str) -> None:
        self.data = utf8(value)
        self.at = 0
        self.year, self.month, self.day = 1900, 1, 0
        self.century = -1
        self.yearday = 0
        self.hour = self.minute = self.second = self.nanos = 0
        self.half = ""
        self.iso_year = False
        self.week, self.week_start = 0, -1
        self.weekday = 0
        self.zone: tzinfo | None = None

    def read(self, layout: str) -> Timestamp:
        self._layout(utf8(layout))
        if self.at < len(self.data):
            raise _Refusal(f"unparsed string {go_quote(text(self.data[self.at :]))}")
        return self._instant()

    def _layout(self, layout: bytes) -> None:
        index = 0
        while index < len(layout):
            char = layout[index]
            if char != 0x25:
                self._literal(char)
                index += 1
                continue
            index += 1
            if index == len(layout):
                raise _Refusal('stray "%"')
            name = chr(layout[index])
            colons = 0
            while name == ":":
                colons += 1
                index += 1
                if colons > 3 or index >= len(layout) or chr(layout[index]) not in ":z":
                    raise _Refusal(f"expected 'z' after \"%{':' * colons}\"")
                name = chr(layout[index])
            if colons:
                self._zone_offset("%" + ":" * colons + "z", colons)
            else:
                self._verb(name)
            index += 1

    def _literal(self, char: int) -> None:
        if self.at >= len(self.data) or self.data[self.at] != char:
            shown = {0x27: "'\\\\''", 0x5C: "'\\\\\\\\'"}.get(char, repr(chr(char)))
            raise _Refusal(f"expected {shown}")
        self.at += 1

    def _number(self, name: str, digits: int, low: int, high: int) -> int:
        end = self.at
        while end < len(self.data) and end - self.at < digits and 0x30 <= self.data[end] <= 0x39:
            end += 1
        found = int(self.data[self.at : end] or b"-1")
        if not low <= found <= high:
            raise _Refusal(f'cannot parse "%{name}"')
        self.at = end
        return found

    def _padded(self, name: str, low: int, high: int) -> int:
        if self.data[self.at : self.at + 1] == b" ":
            self.at += 1
        return self._number(name, 2, low, high)

    def _word(self, name: str, words: tuple[str, ...]) -> int:
        rest = self.data[self.at :].lower()
        for index, word in enumerate(words):
            if rest.startswith(word.lower().encode()):
                self.at += len(word)
                return index
        raise _Refusal(f'cannot parse "%{name}"')

    def _verb(self, name: str) -> None:
        match name:
            case "Y" | "G":
                self.iso_year = self.iso_year or name == "G"
                sign = self._sign()
                self.year = sign * self._number(name, 4, 0, 9999)
            case "y" | "g":
                self.iso_year = self.iso_year or name == "g"
                year = self._number(name, 2, 0, 99)
                self.year = year + (1900 if year >= 69 else 2000)
            case "C":
                if self._sign() < 0:
                    raise _Refusal('negative century is not supported for "%C"')
                self.century = self._number(name, 2, 0, 99)
            case "m":
                self.month = self._number(name, 2, 1, 12)
            case "B":
                self.month = self._word(name, MONTHS) + 1
            case "b" | "h":
                self.month = self._word(name, tuple(month[:3] for month in MONTHS)) + 1
            case "A":
                self.weekday = self._word(name, WEEKDAYS) + 1
            case "a":
                self.weekday = self._word(name, tuple(day[:3] for day in WEEKDAYS)) + 1
            case "w":
                self.weekday = self._number(name, 1, 0, 6) + 1
            case "u":
                self.weekday = self._number(name, 1, 1, 7) % 7 + 1
            case "V" | "U" | "W":
                self.week = self._number(name, 2, 1 if name == "V" else 0, 53)
                self.week_start = {"V": 4, "U": 0, "W": 1}[name]
                self.weekday = self.weekday or (1 if name == "U" else 2)
            case "d":
                self.day = self._number(name, 2, 1, 31)
            case "e":
                self.day = self._padded(name, 1, 31)
            case "j":
                self.yearday = self._number(name, 3, 1, 366)
            case "H":
                self.hour = self._number(name, 2, 0, 23)
            case "k":
                self.hour = self._padded(name, 0, 23)
            case "I":
                self.hour = self._number(name, 2, 1, 12) % 12
            case "l":
                self.hour = self._padded(name, 1, 12) % 12
            case "p" | "P":
                self.half = ("AM", "PM")[self._word(name, ("AM", "PM"))]
            case "M":
                self.minute = self._number(name, 2, 0, 59)
            case "S":
                self.second = self._number(name, 2, 0, 60)
            case "s":
                # The seconds give the wall clock, which other verbs may change and a zone shifts.
                sign = self._sign()
                days, rest = divmod(sign * self._number(name, 19, 0, INT64_MAX), 86400)
                self.year, self.month, self.day = civil_from_days(days)
                self.hour, rest = divmod(rest, 3600)
                self.minute, self.second = divmod(rest, 60)
            case "f":
                start = self.at
                found = self._number(name, 6, 0, 999_999)
                self.nanos = found * 10 ** (9 - (self.at - start))
            case "z":
                self._zone_offset("%z", 0)
            case "Z":
                self._zone_name()
            case "n" | "t":
                if self.data[self.at : self.at + 1] not in (b" ", b"\t", b"\n", b"\v", b"\f", b"\r"):
                    raise _Refusal(f'expected a space for "%{name}"')
                self.at += 1
            case "%":
                self._literal(0x25)
            case _ if name in _COMPOSED:
                self._layout(_COMPOSED[name].encode())
            case _:
                raise _Refusal(f'unexpected format "%{name}"')

    def _sign(self) -> int:
        if self.data[self.at : self.at + 1] == b"-":
            self.at += 1
            return -1
        return 1

    def _zone_name(self) -> None:
        end = self.at
        while end < len(self.data) and 0x41 <= self.data[end] <= 0x5A:
            end += 1
        name = self.data[self.at : end].decode()
        if len(name) < 3:
            raise _Refusal(f'cannot parse "{name}" with "%Z"')
        self.at = end
        self.zone = UTC if name == "UTC" else timezone(timedelta(0), name)

    def _zone_offset(self, verb: str, colons: int) -> None:
        lead = self.data[self.at : self.at + 1]
        if lead == b"Z":
            self.at += 1
            self.zone = UTC
            return
        pattern = (
            rb"[+-](\d\d)(?::?([0-5]\d)(?::([0-5]\d))?)?",
            rb"[+-](\d\d):([0-5]\d)",
            rb"[+-](\d\d):([0-5]\d):([0-5]\d)",
            rb"[+-](\d\d)(?::([0-5]\d)(?::([0-5]\d))?)?",
        )[colons]
        match = re.compile(pattern).match(self.data, self.at)
        if match is None or int(match.group(1)) > 23:
            raise _Refusal(f'cannot parse "{verb}"')
        hour, minute, second = (int(part or 0) for part in (*match.groups(), None, None)[:3])
        total = hour * 3600 + minute * 60 + second
        self.at = match.end()
        self.zone = timezone(timedelta(seconds=-total if lead == b"-" else total)) if total else UTC

    def _instant(self) -> Timestamp:
        zone = self.zone or UTC
        half = 12 if self.half == "PM" else 0
        year, month, day = self._date()
        return instant(year, month, day, self.hour + half, self.minute, self.second, self.nanos, zone)

    def _date(self) -> tuple[int, int, int]:
        """The date that was read: a day of the month goes before a day of the year, that before a week."""
        year = self.year if self.century < 0 else self.century * 100 + self.year % 100
        if self.day:
            return year, self.month, self.day
        if self.yearday:
            if self.iso_year:
                raise _Refusal('use "%Y" to parse non-ISO year for "%j"')
            return year, 1, self.yearday
        if self.week_start < 0:
            return year, self.month, 1
        if (self.week_start == 4) != self.iso_year:
            raise _Refusal(
                'use "%Y" to parse non-ISO year for "%U" or "%W"'
                if self.iso_year
                else 'use "%G" to parse ISO year for "%V"'
            )
        # The day before the first on which a week may start; Sunday is the first day of the week there.
        before = days_from_civil(year, 1, 1) - 1 - self.week_start
        week = self.week + (self.week_start > 0 and self.weekday == 1)
        return civil_from_days(before + week * 7 - (before + 4) % 7 + self.weekday - 1)
