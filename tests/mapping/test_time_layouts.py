"""Go's layouts, strftime and durations. The expected texts were printed by Go."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.mapping.durations import parse_go_duration, parse_period
from hub.mapping.gotime import RFC3339_NANO, fixed_zone, format_layout, load_zone
from hub.mapping.strftime import strftime, strptime
from hub.mapping.timeparse import completely, parse_layout
from hub.mapping.timestamp import Timestamp
from hub.mapping.values import EvaluationError

MOMENT = parse_layout(RFC3339_NANO, "2020-02-04T05:04:03.012345678+05:30")


@pytest.mark.parametrize(
    ("layout", "printed"),
    [
        ("Mon Jan _2 15:04:05 2006", "Tue Feb  4 05:04:03 2020"),
        ("Monday, 02-Jan-06 3:04PM MST", "Tuesday, 04-Feb-20 5:04AM +0530"),
        (".000 .999 ,000000", ".012 .012 ,012345"),
        ("2006 002 __2", "2020 035  35"),
        ("Z0700 Z07:00 -07 -07:00:00", "+0530 +05:30 +05 +05:30:00"),
        ("Janet Monkey Tue 99 .995", "Janet Monkey Tue 99 .993"),
    ],
)
def test_a_layout_prints_as_go_prints_it(layout: str, printed: str) -> None:
    assert format_layout(layout, MOMENT) == printed


@pytest.mark.parametrize(
    ("layout", "value", "found"),
    [
        ("2006-01-02", "2020-02-29", "2020-02-29T00:00:00Z"),
        ("03:04PM", "05:54PM", "0000-01-01T17:54:00Z"),
        ("05.999", "11,1234567890123", "0000-01-01T00:00:11.123456789Z"),
        ("2006 002", "2020 366", "2020-12-31T00:00:00Z"),
        ("2006 MST", "2020 GMT+3", "2020-01-01T03:00:00+03:00"),
        ("15:04:05", "11:12:13.5", "0000-01-01T11:12:13.5Z"),
    ],
)
def test_a_layout_reads_what_go_reads(layout: str, value: str, found: str) -> None:
    assert parse_layout(layout, value).rfc3339() == found


@pytest.mark.parametrize(
    ("layout", "value", "why"),
    [
        ("2006-01-02", "bad", 'parsing time "bad" as "2006-01-02": cannot parse "bad" as "2006"'),
        ("2006-01-02", "2020-02-30", 'parsing time "2020-02-30": day out of range'),
        ("2006-01-02", "2020-02-03 x", 'parsing time "2020-02-03 x": extra text: " x"'),
        ("Z07:00", "+25:00", 'parsing time "+25:00": time zone offset hour out of range'),
        ("é", "x", 'parsing time "x" as "\\xc3\\xa9": cannot parse "x" as "\\xc3\\xa9"'),
        ("2006 01 002", "2021 02 005", 'parsing time "2021 02 005": day-of-year does not match month'),
    ],
)
def test_a_refusal_is_worded_as_go_words_it(layout: str, value: str, why: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        parse_layout(layout, value)
    assert str(caught.value) == why


_MOMENTS = st.builds(
    Timestamp,
    st.integers(-60_000_000_000 * 10**9, 250_000_000_000 * 10**9),
    st.sampled_from([load_zone("UTC"), fixed_zone(19800), fixed_zone(-9000), timezone(timedelta(hours=14))]),
)


@given(_MOMENTS)
def test_rfc3339_reads_back_to_the_nanosecond(moment: Timestamp) -> None:
    read = parse_layout(RFC3339_NANO, moment.rfc3339())
    assert read.nanos == moment.nanos
    assert read.rfc3339() == moment.rfc3339()


@given(_MOMENTS)
def test_every_field_of_a_layout_reads_back(moment: Timestamp) -> None:
    layout = "Monday January _2 2006 03:04:05.000000000 pm -07:00"
    assert parse_layout(layout, format_layout(layout, moment)).nanos == moment.nanos


_PLAIN = [
    RFC3339_NANO,
    "2006-01-02T15:04:05.000Z",
    "2006-01-02T15:04:05.99",
    "2006-01-02",
    "20060102150405",
    "Mon, 02 Jan 2006 15:04:05 -0700",
    "02/Jan/2006:15:04:05.000000Z0700",
    "Jan 02 15:04:05,000000000 -07:00",
    "15:04:05.8",
]


def _outcome(read: Callable[[str, str], Timestamp], layout: str, value: str) -> tuple[object, ...]:
    try:
        found = read(layout, value)
    except EvaluationError as error:
        return (str(error),)
    return found.nanos, found.rfc3339()


@given(
    st.sampled_from(_PLAIN),
    _MOMENTS,
    st.integers(0, 40),
    st.sampled_from(["", *" 0179.,:-+ZzT٣é_"]),
    st.booleans(),
)
def test_the_strict_reading_agrees_with_the_complete_one(
    layout: str, moment: Timestamp, at: int, spoiled: str, put_in: bool
) -> None:
    good = format_layout(layout, moment)
    for value in (good, good[:at] + spoiled + good[at + (not put_in) :]):
        for _ in range(2):  # The second time the value is remembered.
            assert _outcome(parse_layout, layout, value) == _outcome(completely, layout, value)


@given(_MOMENTS)
def test_the_order_of_a_layouts_elements_changes_nothing_but_their_order(moment: Timestamp) -> None:
    parts = ["Mon 2006-01-02 __2", "15.04.05 3PM", ".000 -0700"]
    forward = format_layout("|".join(parts), moment)
    assert forward.split("|") == format_layout("|".join(reversed(parts)), moment).split("|")[::-1]


@given(_MOMENTS)
def test_strftime_reads_back_to_the_microsecond(moment: Timestamp) -> None:
    layout = "%A %d %B %Y %I:%M:%S.%f %p %z"
    assert strptime(layout, strftime(layout, moment)).nanos == moment.nanos // 1000 * 1000


@pytest.mark.parametrize(
    ("layout", "printed"),
    [
        ("%Y-%m-%dT%H:%M:%S.%f%z", "2020-02-04T05:04:03.012345+0530"),
        ("%-d %_d %e %10d %_10d", "4  4  4 0000000004          4"),
        ("%^a %#a %#p %P", "TUE TUE am am"),
        ("%G-W%V-%u %U %W %j", "2020-W06-2 05 05 035"),
        ("%Q %E %: %", "%Q %E %: %"),
        (
            "%c|%x %X|%v|%+",
            "Tue Feb  4 05:04:03 2020|02/04/20 05:04:03| 4-Feb-2020|Tue Feb  4 05:04:03 +0530 2020",
        ),
    ],
)
def test_strftime_prints_as_the_engine_does(layout: str, printed: str) -> None:
    assert strftime(layout, MOMENT) == printed


def test_padding_has_a_limit() -> None:
    assert len(strftime("%999999999d", MOMENT)) == 1024


@pytest.mark.parametrize(
    ("layout", "value", "why"),
    [
        ("%Y", "2020x", 'failed to parse "2020x" with "%Y": unparsed string "x"'),
        ("%Q", "5", 'failed to parse "5" with "%Q": unexpected format "%Q"'),
        ("%H", "24", 'failed to parse "24" with "%H": cannot parse "%H"'),
        ("%", "", 'failed to parse "" with "%": stray "%"'),
    ],
)
def test_strptime_says_what_it_could_not_read(layout: str, value: str, why: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        strptime(layout, value)
    assert str(caught.value) == why


@pytest.mark.parametrize(
    ("text", "nanos"),
    [("1h5m", 3_900_000_000_000), ("-1.5s", -1_500_000_000), ("0", 0), ("5us", 5000), (".5s", 500_000_000)],
)
def test_a_go_duration_is_nanoseconds(text: str, nanos: int) -> None:
    assert parse_go_duration(text) == nanos


@pytest.mark.parametrize("text", ["", "1", "1d", "1h 5m", "9223372036854775808ns", "99999999999999999999h"])
def test_what_is_no_go_duration_is_refused(text: str) -> None:
    with pytest.raises(EvaluationError, match=r"^time: "):
        parse_go_duration(text)


def test_a_period_moves_by_the_calendar_and_has_a_length() -> None:
    leap = parse_layout(RFC3339_NANO, "2020-02-29T00:00:00Z")
    assert parse_period("P1Y").added_to(leap).rfc3339() == "2021-03-01T00:00:00Z"
    assert parse_period("P1M").nanoseconds() == 2_629_746_000_000_000
    paris = parse_layout(RFC3339_NANO, "2020-03-28T12:00:00Z").at(load_zone("Europe/Paris"))
    assert parse_period("P1D").added_to(paris).rfc3339() == "2020-03-29T13:00:00+02:00"
    assert parse_period("PT24H").added_to(paris).rfc3339() == "2020-03-29T14:00:00+02:00"


@pytest.mark.parametrize("name", ["../etc/passwd", "/etc/passwd", "Europe/Nowhere", "utc", "\\x", "Europe"])
def test_a_zone_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(EvaluationError):
        load_zone(name)
