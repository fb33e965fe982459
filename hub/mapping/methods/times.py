"""Timestamp methods: parsing, printing, rounding, moving."""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo
from typing import Any, Final

from hub.mapping.durations import parse_go_duration, parse_period
from hub.mapping.gotime import RFC3339_NANO, load_zone, printer
from hub.mapping.limits import check_bytes
from hub.mapping.receivers import as_moment, as_string
from hub.mapping.registry import Example, Param, method
from hub.mapping.strftime import strftime, strptime
from hub.mapping.timeparse import reader
from hub.mapping.timestamp import Timestamp
from hub.mapping.values import INT64_MAX, INT64_MIN, EvaluationError, Value, int64

CATEGORY: Final = "Timestamp Manipulation"
_OLD: Final = "Deprecated"

_FORMAT: Final = Param(
    "format", "string", RFC3339_NANO, "A Go layout: how Mon Jan 2 15:04:05 2006 -0700 is written."
)
_C_FORMAT: Final = Param("format", "string", doc="A format of strftime, such as `%Y-%m-%d`.")
_ZONE: Final = Param("tz", "string", None, "A zone to print in; that of the timestamp, or UTC, by default.")
_GO_LAYOUT: Final = Param(
    "format", "string", doc="A Go layout: how Mon Jan 2 15:04:05 2006 -0700 is written."
)


def _twice(name: str, old: str, **declared: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declares a method under its name and its deprecated one."""

    def keep(call: Callable[..., Any]) -> Callable[..., Any]:
        method(name, category=CATEGORY, status="beta", annotate=False, **declared)(call)
        examples = [
            Example(example.mapping.replace(f".{name}(", f".{old}("), example.pairs)
            for example in declared["examples"]
        ]
        rest = {**declared, "examples": examples, "doc": f"An older name of `{name}`."}
        method(old, category=_OLD, status="deprecated", annotate=False, **rest)(call)
        return call

    return keep


def zone_of(name: str) -> tzinfo:
    """A zone by name, or the engine's error."""
    try:
        return load_zone(name)
    except EvaluationError as error:
        raise error.within("failed to parse timezone location name: ") from error


def _shown_in(moment: Timestamp, zone: tzinfo | None) -> Timestamp:
    return moment if zone is None else moment.at(zone)


@_twice(
    "ts_format",
    "format_timestamp",
    params=[_FORMAT, _ZONE],
    prepared=True,
    doc="The timestamp printed by a Go layout, which is written as the moment Mon Jan 2 15:04:05 2006 -0700 would be.",
    examples=[
        Example(
            'root.d = this.t.ts_format("2006-Jan-02 15:04:05")',
            (('{"t":"2020-08-14T11:50:26.371Z"}', '{"d":"2020-Aug-14 11:50:26"}'),),
        ),
        Example(
            'root.d = this.t.ts_format("15:04 MST", "Europe/Paris")',
            (('{"t":1597405526}', '{"d":"13:45 CEST"}'),),
        ),
    ],
)
def _ts_format(layout: str, tz: str | None) -> Callable[[Value], str]:
    zone = None if tz is None else zone_of(tz)
    printed = printer(layout)

    def run(target: Value) -> str:
        moment = target if type(target) is Timestamp else as_moment(target)
        found = printed(moment if zone is None else moment.at(zone))
        check_bytes(len(found))
        return found

    return run


@_twice(
    "ts_strftime",
    "format_timestamp_strftime",
    params=[_C_FORMAT, _ZONE],
    prepared=True,
    doc="The timestamp printed by a format of strftime. `%f` are microseconds; `%-d`, `%_d`, `%^a` and widths work; "
    "a verb that is not known stays as it is.",
    examples=[
        Example(
            'root.d = this.t.ts_strftime("%Y-%b-%d %H:%M:%S.%f")',
            (('{"t":"2020-08-14T11:50:26.371Z"}', '{"d":"2020-Aug-14 11:50:26.371000"}'),),
        ),
        Example(
            'root.d = this.t.ts_strftime("%H:%M %Z", "Europe/Paris")',
            (('{"t":1597405526}', '{"d":"13:45 CEST"}'),),
        ),
    ],
)
def _ts_strftime(layout: str, tz: str | None) -> Callable[[Value], str]:
    zone = None if tz is None else zone_of(tz)
    return lambda target: strftime(layout, _shown_in(as_moment(target), zone))


@_twice(
    "ts_parse",
    "parse_timestamp",
    params=[_GO_LAYOUT],
    prepared=True,
    doc="The timestamp that a string spells in a Go layout. Without a zone it is UTC.",
    examples=[
        Example(
            'root.t = this.d.ts_parse("2006-Jan-02")',
            (('{"d":"2020-Aug-14"}', '{"t":"2020-08-14T00:00:00Z"}'),),
        )
    ],
)
def _ts_parse(layout: str) -> Callable[[Value], Timestamp]:
    read = reader(layout)
    return lambda target: read(target if type(target) is str else as_string(target))


@_twice(
    "ts_strptime",
    "parse_timestamp_strptime",
    params=[_C_FORMAT],
    doc="The timestamp that a string spells in a format of strptime. What the format does not ask for is that of "
    "1900-01-01T00:00:00Z.",
    examples=[
        Example(
            'root.t = this.d.ts_strptime("%d.%m.%Y %H:%M")',
            (('{"d":"14.08.2020 11:50"}', '{"t":"2020-08-14T11:50:00Z"}'),),
        )
    ],
)
def _ts_strptime(target: Value, layout: str) -> Timestamp:
    return strptime(layout, as_string(target))


def _unix(name: str, old: str, unit: str, nanos: int, example: tuple[str, str]) -> None:
    @_twice(
        name,
        old,
        doc=f"The timestamp as whole {unit} since 1970-01-01T00:00:00Z.",
        examples=[Example(f"root.n = this.t.{name}()", (example,))],
    )
    def run(target: Value) -> int:
        moment = target if type(target) is Timestamp else as_moment(target)
        return int64(moment.nanos // nanos)


_unix("ts_unix", "format_timestamp_unix", "seconds", 1_000_000_000, ('{"t":"2009-11-10T23:00:00Z"}', '{"n":1257894000}'))  # fmt: skip
_unix("ts_unix_milli", "format_timestamp_unix_milli", "milliseconds", 1_000_000, ('{"t":"2009-11-10T23:00:00.5Z"}', '{"n":1257894000500}'))  # fmt: skip
_unix("ts_unix_micro", "format_timestamp_unix_micro", "microseconds", 1_000, ('{"t":"2009-11-10T23:00:00.5Z"}', '{"n":1257894000500000}'))  # fmt: skip
_unix("ts_unix_nano", "format_timestamp_unix_nano", "nanoseconds", 1, ('{"t":"2009-11-10T23:00:00.5Z"}', '{"n":1257894000500000000}'))  # fmt: skip


@method(
    "ts_tz",
    category=CATEGORY,
    status="beta",
    annotate=False,
    params=[Param("tz", "string", doc="A zone of the IANA database, such as `Europe/Paris`, or `UTC`.")],
    prepared=True,
    doc="The same moment shown in another zone.",
    examples=[
        Example(
            'root.t = this.t.ts_tz("America/New_York")',
            (('{"t":"2021-02-03T16:05:06Z"}', '{"t":"2021-02-03T11:05:06-05:00"}'),),
        )
    ],
)
def _ts_tz(tz: str) -> Callable[[Value], Timestamp]:
    zone = zone_of(tz)
    return lambda target: as_moment(target).at(zone)


_YEAR_ONE_NS: Final = 62_135_596_800 * 1_000_000_000


@method(
    "ts_round",
    category=CATEGORY,
    status="beta",
    annotate=False,
    params=[Param("duration", "integer", doc="Nanoseconds; `parse_duration` makes them of `1h`.")],
    doc="The timestamp rounded to the nearest multiple of a duration since the year 1; halves go up.",
    examples=[
        Example(
            'root.t = this.t.ts_round("1h".parse_duration())',
            (('{"t":"2020-08-14T05:54:23Z"}', '{"t":"2020-08-14T06:00:00Z"}'),),
        )
    ],
)
def _ts_round(target: Value, duration: int) -> Timestamp:
    moment = as_moment(target)
    if duration <= 0:
        return moment
    past = (moment.nanos + _YEAR_ONE_NS) % duration
    return Timestamp(moment.nanos - past + (duration if past * 2 >= duration else 0), moment.zone)


@method(
    "ts_sub",
    category=CATEGORY,
    status="beta",
    annotate=False,
    params=[Param("t2", "timestamp", doc="The timestamp to subtract.")],
    doc="The nanoseconds from another timestamp to this one.",
    examples=[
        Example(
            "root.ns = this.b.ts_sub(this.a)",
            (('{"a":"2020-08-14T00:00:00Z","b":"2020-08-14T00:00:01.5Z"}', '{"ns":1500000000}'),),
        )
    ],
)
def _ts_sub(target: Value, other: Timestamp) -> int:
    return min(max(as_moment(target).nanos - other.nanos, INT64_MIN), INT64_MAX)


_PERIOD: Final = Param("duration", "string", doc="An ISO 8601 duration, such as `P1Y2M3DT4H`.")


@method(
    "ts_add_iso8601",
    category=CATEGORY,
    status="beta",
    annotate=False,
    params=[_PERIOD],
    prepared=True,
    doc="The timestamp moved forward by an ISO 8601 duration; years, months and days follow the calendar.",
    examples=[
        Example(
            'root.t = this.t.ts_add_iso8601("P1M")',
            (('{"t":"2020-01-31T00:00:00Z"}', '{"t":"2020-03-02T00:00:00Z"}'),),
        )
    ],
)
def _ts_add(duration: str) -> Callable[[Value], Timestamp]:
    period = parse_period(duration)
    return lambda target: period.added_to(as_moment(target))


@method(
    "ts_sub_iso8601",
    category=CATEGORY,
    status="beta",
    annotate=False,
    params=[_PERIOD],
    prepared=True,
    doc="The timestamp moved back by an ISO 8601 duration; years, months and days follow the calendar.",
    examples=[
        Example(
            'root.t = this.t.ts_sub_iso8601("P1Y2M3DT4H5M6S")',
            (('{"t":"2021-03-04T04:05:06Z"}', '{"t":"2020-01-01T00:00:00Z"}'),),
        )
    ],
)
def _ts_sub_period(duration: str) -> Callable[[Value], Timestamp]:
    period = parse_period(duration)
    return lambda target: period.added_to(as_moment(target), sign=-1)


@method(
    "parse_duration",
    category=CATEGORY,
    annotate=False,
    doc="The nanoseconds of a duration such as `1h5m`, `-1.5s`, `50us`.",
    examples=[Example("root.ns = this.d.parse_duration()", (('{"d":"1h5m"}', '{"ns":3900000000000}'),))],
)
def _parse_duration(target: Value) -> int:
    return parse_go_duration(as_string(target))


@method(
    "parse_duration_iso8601",
    category=CATEGORY,
    status="beta",
    annotate=False,
    doc="The nanoseconds of an ISO 8601 duration; a year counts as 365.2425 days, a month as a twelfth of it.",
    examples=[
        Example("root.ns = this.d.parse_duration_iso8601()", (('{"d":"PT2H30M"}', '{"ns":9000000000000}'),))
    ],
)
def _parse_duration_iso8601(target: Value) -> int:
    return parse_period(as_string(target)).nanoseconds()
