"""A backfill from the log: a destination reads again all that the log holds, and then sweeps.

The marks of a backfill are put around what is read, at the destination only: before the first record of each
collection, and where the destination stood when it was asked. The hard thing is a hub that dies meanwhile. So
what has begun is noted in control.db before the records can be committed, and forgotten after the sweep is; what
was noted in vain is told by the cursor.

A task has one cursor for all of its bindings. Where only some of them are read again, the others are given nothing
until the destination is back where it stood.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from hub import cdc
from hub.catalog import Catalog, MaterializationTask, Sources
from hub.control import Control
from hub.errors import FatalError
from hub.log import Schema
from hub.log.browse import browse
from hub.log.follower import Follower
from hub.materialization import Binding
from hub.record import BACKFILL, SWEEP, Batch, Cursor, Place
from hub.runtime.stage import Outcome
from hub.runtime.tree import Trees

STATE = "backfill"


class _Begun(msgspec.Struct, frozen=True, array_like=True):
    """A collection whose first mark is in the frame `seq`, with the metadata that say where it goes."""

    seq: int
    metadata: dict[str, Any]


class _Noted(msgspec.Struct, omit_defaults=True):
    upto: Place | None = None
    begun: dict[str, _Begun] = {}
    id: str = ""
    names: list[str] = []


class _First(NamedTuple):
    """The first record of a collection that the log holds."""

    offset: int
    metadata: Mapping[str, Any]


def ask(control: Control, task: str, names: Sequence[str] = ()) -> None:
    """Have a task read from the start of the log again, and sweep, when it next runs. `names` are those of the
    targets or collections that it concerns, none meaning all."""
    control.set_state_now(
        task, STATE, msgspec.json.encode(_Noted(id=secrets.token_hex(8), names=list(names)))
    )
    control.ask_rewind_now(task, Cursor.START)


def check(log: Follower, catalog: Catalog, task: MaterializationTask, names: Sequence[str]) -> None:
    """Raise FatalError when a destination, or these targets or collections of it, cannot be made anew from the log:
    it lacks records, or a name means nothing, or what is there could not be told from what is read."""
    trees = Trees(catalog, task)
    firsts = _firsts(log, trees.wants)
    missing = set(names)
    parts: dict[tuple[int, str], set[bool]] = {}
    for name in sorted(log.state().collections):
        if not trees.wants(name):
            continue
        first = firsts.get(name)
        outcome = Outcome()
        trees.run(_mark(name, BACKFILL, _Begun(0, dict(first.metadata) if first else {}), "check"), outcome)
        _refuse_unmarked(outcome, names)
        bindings = {id(binding): binding for binding, _ in outcome.work}.values()
        chosen = [binding for binding in bindings if is_meant(binding, names)]
        for binding in bindings:
            if binding.options.is_made_anew:
                parts.setdefault((id(binding.options), binding.target), set()).add(binding in chosen)
        missing -= {part for part in names for binding in bindings if is_meant(binding, [part])}
        if names and not chosen:
            continue
        if not _is_held(log, name, first):
            raise FatalError(
                f"the log no longer holds {name} from its first record; leave out --from-log, and the source is "
                "read again"
            )
        for binding in chosen:
            if not (binding.options.is_repeatable or binding.options.is_made_anew):
                raise FatalError(
                    f"{task.name}: a {task.connector} adds to what is in {binding.target}, so that rows that are read "
                    "again would be there twice; name the other targets"
                )
        adding = [binding.target for binding in chosen if binding.options.is_made_anew]
        if adding and _is_compacted(log, catalog, name):
            raise FatalError(
                f"the log keeps only the newest record of each key of {name} (`compact`), and {', '.join(adding)} "
                "keeps every change: what is there would be lost. Name the other targets that are to be read again"
            )
    halves = [target for (_, target), chosen in parts.items() if len(chosen) > 1]
    if halves:
        raise FatalError(
            f"several collections are written to {', '.join(halves)}, and only some would be read again: the rows of "
            "the others would be lost. Name the table"
        )
    if missing:
        raise FatalError(
            f"{task.name}: no target or collection of it in the log is called {', '.join(sorted(missing))}"
        )


def is_meant(binding: Binding, names: Sequence[str]) -> bool:
    """Whether a target or collection is one of these; all are when none is named."""
    return not names or any(
        name == binding.target or Sources(name).matches(binding.collection) for name in names
    )


def _refuse_unmarked(outcome: Outcome, names: Sequence[str]) -> None:
    for collection, target in outcome.unmarked.items():
        if not names or any(Sources(name).matches(collection) for name in names):
            raise FatalError(
                f"{collection} cannot be read again from the log into {target}: its documents say where they go, so "
                "nobody can say ahead which tables are to be made anew. Name the other targets"
            )


def _firsts(log: Follower, wanted: Callable[[str], bool]) -> dict[str, _First]:
    """The first record of each wanted collection. Reads on until it has seen all of them."""
    left = {name for name in log.state().collections if wanted(name)}
    found: dict[str, _First] = {}
    for row in browse(log, wanted):
        if row.batch.collection not in found:
            found[row.batch.collection] = _First(row.offsets[0], row.batch.metadata(0))
            left.discard(row.batch.collection)
        if not left:
            break
    return found


def _is_held(log: Follower, collection: str, first: _First | None) -> bool:
    history = log.history
    if history is not None and history.of(collection):
        return collection not in history.trims and history.of(collection)[0].first_offset == 0
    return first is not None and first.offset == 0


def _is_compacted(log: Follower, catalog: Catalog, collection: str) -> bool:
    """Whether records between others were let go, or may be while they are read again."""
    fragments = log.history.of(collection) if log.history is not None else ()
    return catalog.log_options().retention_of(collection).compact or any(f.compacted for f in fragments)


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
        if noted.names and noted.upto is None and journal not in was.journals:
            # Nothing was ever written, so all is read from the start anyway.
            await control.set_state(task, STATE, None)
            return None
        at = start.journals.get(journal, Place(0, 0))
        upto = noted.upto or was.journals.get(journal, end)
        noted.begun = {name: begun for name, begun in noted.begun.items() if begun.seq <= at.seq}
        noted.upto = upto
        replay = cls(control, task, noted, upto)
        await replay._note()
        return replay

    @property
    def is_partial(self) -> bool:
        """Whether it concerns only some of the task's bindings."""
        return bool(self._noted.names)

    def meant(self, outcome: Outcome) -> None:
        """Leave of what is to be written only what is read again. FatalError where that would be there twice."""
        _refuse_unmarked(outcome, self._noted.names)
        if self._noted.names:
            outcome.work = [work for work in outcome.work if is_meant(work[0], self._noted.names)]

    async def marked(self, items: Sequence[Batch | Schema], seq: int) -> Sequence[Batch | Schema]:
        """What was read up to and in the frame `seq`, each collection's first record after a mark."""
        found: list[Batch | Schema] = []
        for item in items:
            if isinstance(item, Batch) and item.count and item.collection not in self._noted.begun:
                self._noted.begun[item.collection] = begun = _Begun(seq, item.metadata(0))
                found.append(_mark(item.collection, BACKFILL, begun, self._noted.id))
            found.append(item)
        if len(found) > len(items):
            await self._note()
        return found

    def sweeps(self) -> list[Batch]:
        """The marks at its end."""
        return [_mark(name, SWEEP, begun, self._noted.id) for name, begun in self._noted.begun.items()]

    async def over(self) -> None:
        """The sweep is committed."""
        await self._control.set_state(self._task, STATE, None)

    async def _note(self) -> None:
        await self._control.set_state(self._task, STATE, msgspec.json.encode(self._noted))


def _mark(collection: str, op: int, begun: _Begun, replay: str) -> Batch:
    shared = {name: value for name, value in begun.metadata.items() if not isinstance(value, bytes)}
    return Batch(collection, 1, ndjson=b"{}\n", ops=bytes([op]), shared=shared | {cdc.FROM_LOG: replay})
