"""The known name that somebody may have meant, for errors about one that is unknown.

The hard thing is to say nothing where nothing is near: a wrong guess costs more than none.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

Unknown = tuple[str, Iterable[str]]
"""A name that is not known, and those that are."""

CUTOFF = 0.6
"""How alike two names must be, as `difflib` counts: twice the characters they share over all that they have."""

LISTED = 12
"""So many names are listed where none is near."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is closest, if one is close."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=CUTOFF)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known name, or nothing."""
    close = nearest(name, known)
    return f"; did you mean {close!r}?" if close is not None else ""


def meant_or_known(name: str, known: Iterable[str]) -> str:
    """The same, or the names there are when they are few."""
    names = list(known)
    if hint := did_you_mean(name, names):
        return hint
    return f"; expected one of {', '.join(names)}" if 0 < len(names) <= LISTED else ""
