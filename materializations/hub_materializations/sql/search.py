"""Which rows of many a database refuses, found by halving."""

from __future__ import annotations

from collections.abc import Callable

from .driver import Refused
from .reduce import Load

ATTEMPTS_MAX = 2_000
REFUSED_MAX = 200
"""The rest is found the next time, when these are gone from the batch."""


def refused_rows(load: Load, attempt: Callable[[Load], None]) -> dict[int, str]:
    """The records of the batch that `attempt` raises `Refused` for, with the reason. `load` as a whole does.

    Empty when every row is taken on its own: then it is their meeting that is refused.
    """
    found: dict[int, str] = {}
    attempts = 0
    pending = [(0, len(load.rows))]
    while pending and len(found) < REFUSED_MAX and attempts < ATTEMPTS_MAX:
        start, stop = pending.pop()
        attempts += 1
        try:
            attempt(Load(load.rows[start:stop], load.origin[start:stop]))
        except Refused as error:
            if stop - start == 1:
                found[load.origin[start]] = str(error)
            else:
                middle = (start + stop) // 2
                pending += [(middle, stop), (start, middle)]
    return found
