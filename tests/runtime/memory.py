"""A source and a destination in memory, which keep the contracts, for the tests of the runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import anyio

from hub.capture import Capture, Discovered, Finding, Outlet
from hub.materialization import Binding, BindingSpec, Materialization, Rejected, Sink
from hub.options import Interpolated
from hub.record import Batch, Cursor, Position, TaskName
from hub.schema import CollectionSchema


class Step(Position, frozen=True):
    """How many scripted sends are behind."""

    done: int


@dataclass
class Script:
    """What the source does: one entry a send. An exception is raised once, in its place."""

    sends: list[Any]
    endless: bool = False
    raised: set[int] = field(default_factory=set)
    resumed: list[int] = field(default_factory=list)
    durable: list[int] = field(default_factory=list)
    sent: int = 0


SCRIPTS: dict[str, Script] = {}


class ScriptedCapture(Capture[Step], frozen=True, kw_only=True):
    """Plays a script."""

    position_type = Step

    script: str

    async def check(self, task: TaskName) -> Sequence[Finding]:
        return [Finding(True, "reachable")]

    async def discover(self, task: TaskName) -> Sequence[Discovered]:
        return []

    async def run(self, resume: Step | None, out: Outlet[Step]) -> None:
        script = SCRIPTS[self.script]
        at = resume.done if resume else 0
        script.resumed.append(at)
        while at < len(script.sends):
            act = script.sends[at]
            if isinstance(act, Exception):
                if at not in script.raised:
                    script.raised.add(at)
                    await out.settle()
                    raise act
                at += 1
                continue
            at += 1
            if isinstance(act, CollectionSchema):
                await out.describe(act)
                await out.send([], Step(at))
            else:
                batches, complete = act if isinstance(act, tuple) else (act, True)
                await out.send(batches, Step(at) if complete else None)
            script.sent = at
            if out.durable is not None:
                script.durable.append(out.durable.done)
        await out.settle()
        if script.endless:
            await anyio.sleep_forever()


@dataclass
class Store:
    """What the destination holds: all that was committed, and the cursor with it."""

    cursor: Cursor | None = None
    rows: dict[str, list[tuple[str, Any]]] = field(default_factory=dict)
    commits: list[dict[str, int]] = field(default_factory=list)
    described: list[tuple[str, CollectionSchema]] = field(default_factory=list)
    opened: int = 0
    failures: list[Exception] = field(default_factory=list)
    reject: Callable[[Any], str | None] = lambda doc: None
    gate: anyio.Event | None = None
    held: bool = False
    """Whether a write waits at the gate."""
    prepared: list[int] = field(default_factory=list)
    """How many records each batch held that was prepared."""
    opening: anyio.Event | None = None

    def docs(self, target: str = "") -> list[Any]:
        return [doc for _, doc in self.rows.get(target, [])]


STORES: dict[str, Store] = {}


class StoreBinding(BindingSpec, frozen=True, kw_only=True):
    to: Interpolated = Interpolated("")

    @property
    def target(self) -> Interpolated | None:
        return self.to or None


class StoreMaterialization(Materialization, frozen=True, kw_only=True):
    """Commits rows and cursor together into a `Store`."""

    binding_type: ClassVar[type[BindingSpec]] = StoreBinding
    delivery = "exactly once"
    needs_schema: ClassVar[bool] = True

    store: str

    async def check(self, task: TaskName) -> Sequence[Finding]:
        return []

    @asynccontextmanager
    async def open(self, task: TaskName) -> AsyncIterator[Sink]:
        opening = STORES[self.store].opening
        if opening is not None:
            await opening.wait()
        STORES[self.store].opened += 1
        yield StoreSink(STORES[self.store])


class StoreSink:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._staged: list[tuple[str, list[tuple[str, Any]]]] = []

    async def restore(self) -> Cursor | None:
        return self._store.cursor or Cursor.START

    async def describe(self, binding: Binding, schema: CollectionSchema) -> None:
        self._store.described.append((binding.target, schema))

    async def prepare(self, binding: Binding, batch: Batch) -> None:
        self._store.prepared.append(batch.count)

    async def write(self, binding: Binding, batch: Batch) -> None:
        reasons = {i: r for i, doc in enumerate(batch.docs) if (r := self._store.reject(doc))}
        if reasons:
            raise Rejected(reasons)
        if self._store.gate is not None:
            self._store.held = True
            await self._store.gate.wait()
        self._staged.append((binding.target, [(chr(batch.op(i)), doc) for i, doc in enumerate(batch.docs)]))

    async def commit(self, upto: Cursor) -> None:
        await anyio.lowlevel.checkpoint()
        if self._store.failures:
            raise self._store.failures.pop(0)
        counts: dict[str, int] = {}
        for target, rows in self._staged:
            self._store.rows.setdefault(target, []).extend(rows)
            counts[target] = counts.get(target, 0) + len(rows)
        self._staged = []
        self._store.cursor = upto
        self._store.commits.append(counts)


def rows(*ids: int, collection: str = "s", ops: bytes | None = None, **meta: Any) -> list[Batch]:
    """One batch of documents with these ids."""
    return [Batch.of_docs(collection, [{"id": i} for i in ids], ops=ops, shared=meta)]
