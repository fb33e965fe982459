"""The log's own time: it never goes back, and a jump of the wall clock does not move it.

Read from the wall once, at open, then carried on by a clock that only counts. A wall clock that is wrong at open
can move the log's time by at most `AWAY_US_MAX` past the newest frame, so retention never drops a log at a blow.
"""

from __future__ import annotations

import time
from collections.abc import Callable

AWAY_US_MAX = 7 * 86_400 * 1_000_000
"""The longest time a log can believe it was shut."""

JUMP_US = 60 * 1_000_000


def wall_us() -> int:
    return time.time_ns() // 1000


def steady_us() -> int:
    """Counts on through suspend, and is not moved by anybody."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1000


class LogClock:
    """Microseconds since 1970 as the log counts them."""

    def __init__(
        self, newest_us: int, *, wall: Callable[[], int] = wall_us, steady: Callable[[], int] = steady_us
    ) -> None:
        self._wall = wall
        self._steady = steady
        now = wall()
        self.base_us = (
            max(now, newest_us) if not newest_us else min(max(now, newest_us), newest_us + AWAY_US_MAX)
        )
        self.set_back_us = self.base_us - now
        """How far the wall clock was from the log's time at open: above 0 it was behind the newest frame."""
        self._start = steady()

    def now_us(self) -> int:
        return self.base_us + self._steady() - self._start

    @property
    def jumped_us(self) -> int:
        """How far the wall clock has moved against the log's time since open, when it is worth a warning."""
        drift = self._wall() - self.now_us() + self.set_back_us
        return drift if abs(drift) > JUMP_US else 0
