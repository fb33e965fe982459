"""The conformance kit of materializations: what every sink that keeps its own cursor must do.

Random histories are written as the engine would write them, in batches and commits that fall anywhere,
while the sink is dropped before, cut short in and replaced after its commits. In the end the
destination must equal a model that never heard of batches. Run it for each mode a sink has.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

import anyio

from hub.errors import HubError, TransientError
from hub.materialization import Binding, BindingSpec, Materialization, Preparing, Rejected, Sink
from hub.record import MARKS, Batch, Cursor, Place, TaskName
from hub.schema import CollectionSchema, ColumnType
from hub.testing.histories import COLLECTION, Change, History, batch_of, history, read_again
from hub.testing.model import Model
from hub.testing.values import canonical

TASK = TaskName("kit")
JOURNAL = "kit"
RETRIES_MAX = 30
"""How often in a row a sink may ask to be opened again before it has come any further."""

INTERRUPT_S_MAX = 0.004

AGAIN = range(4, 8)
"""The seeds, modulo 50, whose history is read again from the log: one for each mode."""


class Subject(Protocol):
    """A destination under test, with a way to look into it that is not the sink's."""

    materialization: Materialization
    holds_extremes: bool
    """Whether infinities, years BC and NaN can be held."""

    def read(self, table: str, columns: Mapping[str, ColumnType]) -> list[dict[str, Any]]:
        """The committed rows of a table. The keys of `columns` are fields; the values of the rows are JSON
        values, or text as the database prints it, `Exact` for JSON and `bytes` for bytes."""
        ...


@dataclass(slots=True)
class Plan:
    """What one run does to a sink besides writing."""

    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    interruptions: bool = True
    """Sinks are dropped, cut short and replaced."""
    one_by_one: bool = False
    """Each transaction is one commit, each change one batch: the reference for all other cuts."""


async def check_materialization(
    subject: Callable[[], Subject],
    *,
    seeds: Sequence[int],
    options: Sequence[Mapping[str, Any]] = (
        {},
        {"deletes": "soft"},
        {"mode": "append"},
        {"mode": "history"},
    ),
) -> None:
    """Raise `AssertionError` where the destination differs from the model. A fresh subject for each seed.

    `options` are the binding's; each seed takes the next of them.
    """
    for seed in seeds:
        made = subject()
        chosen = options[seed % len(options)]
        plan = Plan(seed, chosen, one_by_one=seed % 10 == 9)
        # Now and then all of it comes once more from the log. The rows there are now need not have keys of before.
        again = made.materialization.sweeps and seed % 50 in AGAIN
        told = history(
            seed,
            extremes=made.holds_extremes,
            backfills=made.materialization.sweeps,
            keyed=chosen.get("mode") != "append",
            rekeyed=not again or chosen.get("mode") in ("append", "history"),
        )
        try:
            await run_history(made, read_again(told) if again else told, plan)
            compare(made, told, plan)
        except (AssertionError, HubError, Rejected) as error:
            error.add_note(f"seed {seed}, options {dict(chosen)}")
            raise


def binding_of(materialization: Materialization, options: Mapping[str, Any]) -> Binding:
    """A binding of the kit's collection to the table `things`, with these options."""
    mistakes: list[str] = []
    parsed = materialization.binding_type.parse(
        {"from": COLLECTION, **options}, lambda path, message, **_: mistakes.append(f"{path}: {message}")
    )
    assert isinstance(parsed, BindingSpec), mistakes
    return Binding(COLLECTION, "things", parsed)


async def run_history(subject: Subject, told: History, plan: Plan) -> None:
    """Write a history to its end, with whatever happens on the way."""
    await _Run(subject, told, plan).run()


class _Run:
    def __init__(self, subject: Subject, told: History, plan: Plan) -> None:
        self._subject = subject
        self._told = told
        self._plan = plan
        self._chance = random.Random(plan.seed + 1)
        self._binding = binding_of(subject.materialization, plan.options)
        self._done = 0
        self._sink: Sink
        self._opened = AsyncExitStack()

    async def run(self) -> None:
        await self._open()
        try:
            retries = 0
            while self._done < len(self._told.transactions):
                before = self._done
                try:
                    await self._step()
                except TransientError:
                    retries += 1
                    if retries > RETRIES_MAX:
                        raise
                    await self._reopen()
                if self._done > before:
                    retries = 0
        finally:
            await self._opened.aclose()

    async def _open(self) -> None:
        opened = AsyncExitStack()
        sink = await opened.enter_async_context(self._subject.materialization.open(TASK))
        try:
            cursor = await sink.restore()
        except BaseException:
            await opened.aclose()
            raise
        self._opened, self._sink = opened, sink
        assert cursor is not None, "a sink that keeps no cursor cannot be exactly once"
        found = cursor.journals[JOURNAL].seq if cursor.journals else 0
        assert found >= self._done, f"the cursor went back from {self._done} to {found}"
        self._done = found

    async def _reopen(self) -> None:
        await self._opened.aclose()
        await self._open()

    async def _step(self) -> None:
        """Some transactions and a commit, or what an accident makes of them."""
        upto = self._done + (1 if self._plan.one_by_one else self._chance.randint(1, 4))
        upto = min(upto, len(self._told.transactions))
        accident = self._chance.random() if self._plan.interruptions else 1.0
        if accident < 0.1:
            return await self._replaced(upto)
        await self._write(upto)
        if accident < 0.2:
            return await self._reopen()
        if accident < 0.3:
            with anyio.move_on_after(self._chance.random() * INTERRUPT_S_MAX):
                await self._sink.commit(cursor_at(upto))
            before = self._done
            await self._reopen()
            assert self._done in (before, upto), f"half a commit: {before} → {upto} is at {self._done}"
            return None
        await self._sink.commit(cursor_at(upto))
        if accident < 0.4:
            await self._sink.commit(cursor_at(upto))
        self._done = upto
        return None

    async def _replaced(self, upto: int) -> None:
        """An older sink goes on after a newer one was opened: nothing of it may be kept.

        A destination may also keep the newer one out, for as long as the older holds its lock.
        """
        older = self._opened
        zombie = self._sink
        if self._chance.random() < 0.5:
            await self._write(upto)
        try:
            await self._open()
        except TransientError:
            await older.aclose()
            await self._open()
            return
        try:
            await self._write(upto, zombie)
            await zombie.commit(cursor_at(upto))
        except HubError:
            await older.aclose()
        else:
            raise AssertionError("an older sink committed after a newer one was opened")

    async def _write(self, upto: int, sink: Sink | None = None) -> None:
        sink = sink or self._sink
        schema = self._schema_before(self._done)
        items = [item for part in self._told.transactions[self._done : upto] for item in part]
        if schema is not None:
            await sink.describe(self._binding, schema)
        works = self._works(items)
        for number, work in enumerate(works):
            later = works[number + 1 :]
            ahead = self._chance.choice(later) if later and self._chance.random() < 0.3 else None
            await self._take(sink, work, ahead)

    async def _take(
        self, sink: Sink, work: Batch | CollectionSchema, ahead: Batch | CollectionSchema | None
    ) -> None:
        """Write or describe, and give a later batch a head start beside it: perhaps for a schema still to change."""
        failed: list[Exception] = []
        async with anyio.create_task_group() as group:
            if isinstance(sink, Preparing) and isinstance(ahead, Batch):
                group.start_soon(sink.prepare, self._binding, ahead)
            try:
                if isinstance(work, CollectionSchema):
                    await sink.describe(self._binding, work)
                else:
                    await sink.write(self._binding, work)
            except Exception as error:
                # Raised in here, it would come out wrapped.
                failed.append(error)
        if failed:
            raise failed[0]

    def _works(self, items: Sequence[Change | CollectionSchema]) -> list[Batch | CollectionSchema]:
        """Schemas and batches in order; where a batch ends is a matter of chance."""
        works: list[Batch | CollectionSchema] = []
        changes: list[Change] = []
        for number, item in enumerate(items, 1):
            if isinstance(item, CollectionSchema):
                works.append(item)
                continue
            changes.append(item)
            following = items[number] if number < len(items) else None
            is_last = not isinstance(following, Change) or following.op in MARKS or item.op in MARKS
            if is_last or self._plan.one_by_one or self._chance.random() < 0.15:
                works.append(batch_of(changes))
                changes = []
        return works

    def _schema_before(self, done: int) -> CollectionSchema | None:
        schemas = [
            item
            for part in self._told.transactions[:done]
            for item in part
            if isinstance(item, CollectionSchema)
        ]
        return schemas[-1] if schemas else None


def cursor_at(seq: int) -> Cursor:
    """The cursor after this many transactions."""
    return Cursor({JOURNAL: Place(1, seq)})


def model_of(told: History, options: Mapping[str, Any], upto: int | None = None) -> Model:
    """What the destination must hold after the first `upto` transactions."""
    first = next(item for item in told.transactions[0] if isinstance(item, CollectionSchema))
    model = Model(first.key_fields, options.get("mode", "upsert"), options.get("deletes") == "soft")
    for part in told.transactions[:upto]:
        for item in part:
            if isinstance(item, Change):
                model.take(item)
            else:
                model.describe(item)
    return model


def compare(subject: Subject, told: History, plan: Plan) -> None:
    """Raise `AssertionError` where the table differs from the model, with the rows that do."""
    extra = _EXTRA[plan.options.get("mode", "upsert")]
    if plan.options.get("deletes") == "soft":
        extra = {"_deleted_at": _INSTANT}
    keys = told.key_types if plan.options.get("mode") != "append" else {}
    columns = {**told.types, **keys, **extra}
    held = subject.read("things", columns)
    wanted = model_of(told, plan.options).held()
    for row in wanted:
        for name in extra:
            if extra[name] is _INSTANT and row.get(name) is not None:
                row[name] = _iso(row[name])
    found = sorted((_row(row, columns) for row in held), key=repr)
    expected = sorted((_row(row, columns) for row in wanted), key=repr)
    missing = [row for row in expected if row not in found]
    surplus = [row for row in found if row not in expected]
    assert found == expected, _told_apart(missing, surplus, told.key, len(expected), len(found))


def _told_apart(
    missing: Sequence[Mapping[str, Any]],
    surplus: Sequence[Mapping[str, Any]],
    key: Sequence[str],
    expected: int,
    found: int,
) -> str:
    """The difference in a few lines: of rows with the same key only the cells that differ."""
    lines = [f"{expected} rows expected, {found} found; {len(missing)} missing, {len(surplus)} too many"]
    for row in missing[:3]:
        at = {name: row[name] for name in key}
        twin = next((other for other in surplus if all(other[n] == row[n] for n in key)), None)
        if twin is None:
            lines.append(f"missing {at}")
        else:
            cells = {name: (row[name], twin[name]) for name in row if row[name] != twin[name]}
            lines.append(f"differs {at}: (expected, found) {cells}")
    lines += [f"surplus { ({name: row[name] for name in key}) }" for row in surplus[:3]]
    return "\n".join(lines)


def _row(row: Mapping[str, Any], columns: Mapping[str, ColumnType]) -> dict[str, Any]:
    return {name: canonical(row.get(name), column) for name, column in columns.items()}


def _iso(ts_ms: int) -> str:
    return (datetime(1970, 1, 1) + timedelta(milliseconds=ts_ms)).isoformat(timespec="milliseconds") + "Z"


_INSTANT = ColumnType("timestamptz")
_EXTRA: Mapping[str, Mapping[str, ColumnType]] = {
    "upsert": {},
    "append": {"_operation": ColumnType("string")},
    "history": {"_valid_from": _INSTANT, "_valid_to": _INSTANT, "_is_current": ColumnType("boolean")},
}
