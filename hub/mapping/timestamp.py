"""A point in time as Go's `time.Time` carries it: nanoseconds and a zone to show it in.

The hard part is range: Go reckons years far beyond Python's `datetime` (1 … 9999), so the calendar is
computed from days here (proleptic Gregorian, after Howard Hinnant's "chrono-compatible low-level date
algorithms"), and `datetime` is only asked for the offset of a named zone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

_SECOND_NS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ASKABLE_S = (-62135510400, 253402214400)
"""Seconds within which `datetime` can be asked for a zone's offset."""


_TWO: Final = tuple(f"{number:02d}" for number in range(60))


class Civil(NamedTuple):
    """A timestamp in its zone's calendar. `weekday` counts from Sunday = 0, `yearday` from 1."""

    year: int
    month: int
    day: int
    hour: int
    minute: int
    second: int
    nanosecond: int
    weekday: int
    yearday: int


class Timestamp:
    """Nanoseconds since 1970-01-01T00:00:00Z, shown in `zone`. Immutable; compares by the instant."""

    __slots__ = ("nanos", "zone")

    def __init__(self, nanos: int, zone: tzinfo = UTC) -> None:
        self.nanos = nanos
        self.zone = zone

    def offset_s(self) -> int:
        """Seconds east of UTC at this instant."""
        zone = self.zone
        if zone is UTC:
            return 0
        found = self._aware().utcoffset()
        return 0 if found is None else int(found.total_seconds())

    def abbreviation(self) -> str:
        """The zone's short name at this instant: `UTC`, `CET`; empty for a bare offset."""
        if self.zone is UTC:
            return "UTC"
        name = self._aware().tzname() or ""
        if isinstance(self.zone, timezone) and name.startswith("UTC"):
            return ""
        return name

    def _aware(self) -> datetime:
        low, high = _ASKABLE_S
        seconds = min(max(self.nanos // _SECOND_NS, low), high)
        return (_EPOCH + timedelta(seconds=seconds)).astimezone(self.zone)

    def civil(self) -> Civil:
        """Year, month, day … in the zone."""
        seconds, nanosecond = divmod(self.nanos, _SECOND_NS)
        days, rest = divmod(seconds + self.offset_s(), 86400)
        year, month, day = civil_from_days(days)
        hour, rest = divmod(rest, 3600)
        minute, second = divmod(rest, 60)
        yearday = days - days_from_civil(year, 1, 1) + 1
        return Civil(year, month, day, hour, minute, second, nanosecond, (days + 4) % 7, yearday)

    def rfc3339(self) -> str:
        """RFC 3339 with as many decimals as the nanoseconds need: Go's `time.RFC3339Nano`."""
        offset = 0 if self.zone is UTC else self.offset_s()
        seconds, nanosecond = divmod(self.nanos, _SECOND_NS)
        days, rest = divmod(seconds + offset, 86400)
        hour, minute, second = _TWO[rest // 3600], _TWO[rest // 60 % 60], _TWO[rest % 60]
        fraction = f".{nanosecond:09d}".rstrip("0") if nanosecond else ""
        day = f"{_date_text(days)}T{hour}:{minute}:{second}{fraction}"
        if not offset:
            return day + "Z"
        sign, minutes = ("-", -offset // 60) if offset < 0 else ("+", offset // 60)
        return f"{day}{sign}{minutes // 60:02d}:{minutes % 60:02d}"

    def json_text(self) -> str:
        """The JSON string documents carry it as."""
        return f'"{self.rfc3339()}"'

    def at(self, zone: tzinfo) -> Timestamp:
        """The same instant shown in another zone."""
        return Timestamp(self.nanos, zone)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timestamp) and other.nanos == self.nanos

    def __hash__(self) -> int:
        return hash(self.nanos)

    def __repr__(self) -> str:
        return f"Timestamp({self.rfc3339()})"


def days_from_civil(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 to a date of the proleptic Gregorian calendar."""
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * 146097 + day_of_era - 719468


def civil_from_days(days: int) -> tuple[int, int, int]:
    """Year, month and day, so many days after 1970-01-01."""
    era, day_of_era = divmod(days + 719468, 146097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + (3 if shifted < 10 else -9)
    return year_of_era + era * 400 + (month <= 2), month, day


@lru_cache(maxsize=2048)
def _date_text(days: int) -> str:
    """RFC 3339's date. Kept, because records that are near each other share it: it was half of the 3.6 µs
    that printing a timestamp took, which is 0.9 now."""
    year, month, day = civil_from_days(days)
    return f"{year:04d}-{month:02d}-{day:02d}" if year >= 0 else f"-{-year:04d}-{month:02d}-{day:02d}"
