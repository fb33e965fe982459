"""The contract of a materialization: a connector that keeps a destination in step.

The hard thing is to be exactly once: the cursor lives in the destination and is committed together
with the rows, under a fence that makes an older writer harmless. A destination that cannot do so
says it in `delivery`, and `hub plan` tells the user.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol, runtime_checkable

import msgspec
from msgspec import Meta

from hub.capture import Finding
from hub.record import Batch, Cursor, TaskName
from hub.schema import CollectionSchema
from hub.spec import Duration, Interpolated, Size, Spec

ErrorPolicy = Literal["dead_letter", "skip", "stop"]

Delivery = Literal["exactly once", "effectively once", "at least once"]


class BindingSpec(Spec, frozen=True, kw_only=True):
    """One line of `bindings`: which collections go where. Connectors add their own options to it."""

    source: Annotated[
        str | list[str],
        Meta(description="Collections to read: a name, a glob such as `shop/*`, or a list of them."),
    ] = msgspec.field(name="from")
    on_error: Annotated[
        ErrorPolicy,
        Meta(
            description="What becomes of a record that cannot be processed or written: `dead_letter` keeps it "
            "in the task's dead-letter collection, `skip` counts it and goes on, `stop` stops the task."
        ),
    ] = "dead_letter"

    @property
    def is_repeatable(self) -> bool:
        """Whether records that are written once more, from the first on, leave the same behind."""
        return False

    @property
    def is_made_anew(self) -> bool:
        """Whether records only ever add to the target, and the sink, told by marks that the whole log is read again
        (`hub.cdc.FROM_LOG`), fills it anew out of sight and swaps."""
        return False

    @property
    def is_emptied(self) -> bool:
        """Whether a truncation of a collection empties its target, with whatever else is in there."""
        return False

    @property
    def target(self) -> Interpolated | None:
        """What names the table, topic or path; None for a destination that has only one place."""
        return None


@dataclass(frozen=True, slots=True)
class Binding:
    """One collection into one table, topic or path."""

    collection: str
    target: str
    options: BindingSpec


class Commit(Spec, frozen=True, kw_only=True):
    """When a materialization commits: at the first of these limits that is reached, at the end of a source transaction."""

    every: Annotated[
        Duration,
        Meta(description="At most this long after the first record of the transaction. `0s`: at once."),
    ] = Duration(0)
    rows: Annotated[int, Meta(description="At most this many records.", ge=1)] = 100_000
    bytes: Annotated[Size, Meta(description="At most this many bytes of documents.")] = Size(32 << 20)


class Sink(Protocol):
    """An open destination. Calls come one at a time: restore, then describe and write, then commit, again and again."""

    async def restore(self) -> Cursor | None:
        """Fence older writers of this task, then say how far the destination has come.

        After this returns no older sink of the same task can commit. None: nothing was ever committed, or
        the destination keeps no cursor and the engine's own is used.
        """
        ...

    async def describe(self, binding: Binding, schema: CollectionSchema) -> None:
        """Make room for this schema: create, add columns, widen. Called before the first write of a binding
        and whenever its schema changes, in order with the writes around it. Raises `FatalError` with a list
        of what does not fit when the existing table cannot be used."""
        ...

    async def write(self, binding: Binding, batch: Batch) -> None:
        """Take records, in order. May stage them anywhere, but shows nothing before `commit`.

        Raises `Rejected` when the destination refuses single records; then none of the batch was taken.
        """
        ...

    async def commit(self, upto: Cursor) -> None:
        """Make rows, schema and cursor visible together, or none of them. Raises `Fenced` when a newer
        writer has taken over. Cut short, the next `restore` finds it whole or absent."""
        ...


@runtime_checkable
class Preparing(Protocol):
    """A sink that can begin with a batch while it is still busy with the one before."""

    async def prepare(self, binding: Binding, batch: Batch) -> None:
        """Do what `write` of this very batch needs and the destination does not: decode, check, convert, encode.

        The one call that may come beside another: while an earlier write or commit is on its way. It is a head
        start and nothing more. `write` does what was not prepared, or was prepared for a schema that a `describe`
        in between has replaced, and `write` alone reports what is wrong with records. Whatever was prepared is
        let go when `write` returns.
        """
        ...


class Rejected(Exception):
    """The destination refuses these records of a batch: index and reason. None of the batch was taken."""

    def __init__(self, reasons: dict[int, str]) -> None:
        super().__init__("; ".join(f"record {index}: {reason}" for index, reason in reasons.items()))
        self.reasons = reasons


class Materialization(Spec, frozen=True, kw_only=True):
    """Base of every materialization: its options are its fields."""

    binding_type: ClassVar[type[BindingSpec]] = BindingSpec
    delivery: ClassVar[Delivery]
    needs_schema: ClassVar[bool] = False
    """True for a destination with columns: the engine then infers what an open schema does not list, and
    calls `describe` before the first document that needs it."""
    sweeps: ClassVar[bool] = False
    """True for a destination that can tell after a backfill which rows were not seen in it. `write` is then given
    its marks (`hub.record.MARKS`), each in a batch of its own; other destinations never see them. Marks with
    `from_log` in their metadata stand around a reading of the whole log, by a name for that reading."""

    @abc.abstractmethod
    async def check(self, task: TaskName) -> Sequence[Finding]:
        """Reach the destination and see whether it may be written, changing nothing. Failures carry their cure."""

    async def plan(
        self, task: TaskName, bindings: Sequence[tuple[Binding, CollectionSchema]]
    ) -> Sequence[str]:
        """What a start would do to the destination before the first record, such as statements; changes nothing."""
        return []

    @abc.abstractmethod
    def open(self, task: TaskName) -> AbstractAsyncContextManager[Sink]:
        """Connect. Raises `TransientError` or `FatalError`; closes on leaving, dropping what is not committed."""
