"""What stops the feed: a message that only the server can explain. The feed says which, `answers.py` asks. Pure."""

from __future__ import annotations

from typing import NamedTuple

from hub_captures.postgres.gathered import Gathered
from hub_captures.postgres.pgoutput import Relation
from hub_captures.postgres.position import Key


class UnknownRelation(NamedTuple):
    """Rows will follow that are laid out like this."""

    relation: Relation


class UnknownOrder(NamedTuple):
    """The server must say where a key stands among the bounds of a table's copy."""

    table: Gathered
    key: Key


class MissingValues(NamedTuple):
    """The key of a row has changed, and large values that have not were not sent. A destination would have to
    carry them over from the row under the old key; the source is asked instead."""

    table: Gathered
    key: Key
    names: tuple[str, ...]


class Signal(NamedTuple):
    """A message for the capture itself: somebody asked for something from SQL."""

    content: bytes


Obstacle = UnknownRelation | UnknownOrder | MissingValues | Signal
