"""A backfill from the log: a destination reads again all that the log holds, and then sweeps.

The marks of a backfill are put around what is read, at the destination only: before the first record of each
collection, and where the destination stood when it was asked. The hard thing is a hub that dies meanwhile. So
what has begun is noted in control.db before the records can be committed, and forgotten after the sweep is; what
was noted in vain is told by the cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from hub.control import Control
from hub.errors import FatalError
from hub.log import Schema
from hub.log.browse import browse
from hub.log.follower import Follower
from hub.record import BACKFILL, SWEEP, Batch, Cursor, Place

STATE = "backfill"


class _Begun(msgspec.Struct, frozen=True, array_like=True):
    """A collection whose first mark is in the frame `seq`, with the metadata that say where it goes."""

    seq: int
    metadata: dict[str, Any]


class _Noted(msgspec.Struct, omit_defaults=True):
    upto: Place | None = None
    begun: dict[str, _Begun] = {}


def ask(control: Control, task: str) -> None:
    """Have a task read from the start of the log again, and sweep, when it next runs."""
    control.set_state_now(task, STATE, msgspec.json.encode(_Noted()))
    control.ask_rewind_now(task, Cursor.START)


def check_held(log: Follower, wanted: Callable[[str], bool]) -> None:
    """Raise FatalError when the log no longer holds a wanted collection from its start."""
    for name in sorted(log.state().collections):
        if wanted(name) and not _is_held(log, name):
            raise FatalError(
                f"the log no longer holds {name} from its first record; leave out --from-log, and the source is "
                "read again"
            )


def _is_held(log: Follower, collection: str) -> bool:
    history = log.history
    if history is not None and history.of(collection):
        return collection not in history.trims and history.of(collection)[0].first_offset == 0
    first = next(browse(log, lambda name: name == collection), None)
    return first is not None and first.offsets[0] == 0


class Replay:
    """A backfill from the log under way."""

    def __init__(self, control: Control, task: str, noted: _Noted, upto: Place) -> None:
        self._control = control
        self._task = task
        self._noted = noted
        self.upto = upto

    @classmethod
    async def found(
        cls, control: Control, task: str, journal: str, *, start: Cursor, was: Cursor, end: Place
    ) -> Replay | None:
        """The backfill that a task is to make, or to go on with from `start`. `was` is where the destination
        stood, `end` the end of the log: it is over at the first of them that there is when it begins."""
        text = control.state(task, STATE)
        if text is None:
            return None
        noted = msgspec.json.decode(text, type=_Noted)
        at = start.journals.get(journal, Place(0, 0))
        upto = noted.upto or was.journals.get(journal, end)
        noted.begun = {name: begun for name, begun in noted.begun.items() if begun.seq <= at.seq}
        noted.upto = upto
        replay = cls(control, task, noted, upto)
        await replay._note()
        return replay

    async def marked(self, items: Sequence[Batch | Schema], seq: int) -> Sequence[Batch | Schema]:
        """What was read up to and in the frame `seq`, each collection's first record after a mark."""
        found: list[Batch | Schema] = []
        for item in items:
            if isinstance(item, Batch) and item.count and item.collection not in self._noted.begun:
                self._noted.begun[item.collection] = begun = _Begun(seq, item.metadata(0))
                found.append(_mark(item.collection, BACKFILL, begun))
            found.append(item)
        if len(found) > len(items):
            await self._note()
        return found

    def sweeps(self) -> list[Batch]:
        """The marks at its end."""
        return [_mark(name, SWEEP, begun) for name, begun in self._noted.begun.items()]

    async def over(self) -> None:
        """The sweep is committed."""
        await self._control.set_state(self._task, STATE, None)

    async def _note(self) -> None:
        await self._control.set_state(self._task, STATE, msgspec.json.encode(self._noted))


def _mark(collection: str, op: int, begun: _Begun) -> Batch:
    shared = {name: value for name, value in begun.metadata.items() if not isinstance(value, bytes)}
    return Batch(collection, 1, ndjson=b"{}\n", ops=bytes([op]), shared=shared)
