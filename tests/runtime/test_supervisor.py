"""Backoff, and which of several errors decides."""

from __future__ import annotations

import random

import pytest

from hub.errors import Corrupt, FatalError, TransientError
from hub.runtime.supervisor import BACKOFF_FIRST_S, BACKOFF_MAX_S, backoff_s, worst


def test_the_backoff_doubles_with_jitter_up_to_its_limit() -> None:
    rng = random.Random(0)
    for attempt in range(40):
        limit = min(BACKOFF_FIRST_S * 2**attempt, BACKOFF_MAX_S)
        assert limit / 2 <= backoff_s(attempt, rng) <= limit


def test_the_gravest_error_of_a_group_decides() -> None:
    transient, fatal, log, bug = TransientError("t"), FatalError("f"), Corrupt("c"), KeyError("k")
    assert worst(ExceptionGroup("", [transient, ExceptionGroup("", [log, fatal])])) is log
    assert worst(ExceptionGroup("", [transient, fatal, bug])) is fatal
    assert worst(ExceptionGroup("", [transient, bug])) is bug


def test_a_cancellation_in_a_group_travels_on() -> None:
    group = BaseExceptionGroup("", [TransientError("t"), KeyboardInterrupt()])
    with pytest.raises(BaseExceptionGroup):
        worst(group)
