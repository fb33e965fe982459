"""The contract of a capture: a connector that reads a source and appends to collections.

A capture pushes: it sends batches together with the position after them and is done, nothing
flows backwards but waiting. `Outlet.durable` replaces acknowledgements: the source may be told to
forget what lies before it, and nothing after it.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from hub.errors import FatalError
from hub.record import Batch, Position, TaskName
from hub.schema import CollectionSchema
from hub.spec import Spec

PositionT = TypeVar("PositionT", bound=Position)


class Discovered(msgspec.Struct, frozen=True):
    """A collection that could be captured: its schema, what a person should know about it, and the metadata that
    all its records will share."""

    schema: CollectionSchema
    note: str = ""
    metadata: dict[str, Any] = {}


class Finding(msgspec.Struct, frozen=True):
    """One thing that `hub check` looked at. `cure` is the SQL or setting that mends a failure."""

    ok: bool
    what: str
    cure: str = ""


class TypeForm(NamedTuple):
    """One line of the table of a source's types: their names, what their values are in JSON, and what a SQL sink
    of the same kind makes of that, with the way back where that is more than a cast. Markdown."""

    source: str
    json: str
    sink: str


class Outlet(Protocol[PositionT]):
    """Where a capture sends. One task, one outlet; calls are made one at a time."""

    task: TaskName
    """The capture's own name. Its collections are `task` or `task/…` (see `collection_name`)."""

    durable: PositionT | None
    """The newest position whose records are on disk. The source may be told to forget what lies before it.
    Starts as the position the capture was resumed from."""

    note: bytes | None
    """What was last kept beside the position that the capture was resumed from; see `send`."""

    @property
    def full(self) -> bool:
        """True while `send` would have to wait for the log: on disk up to its cap, or in the queue."""
        ...

    async def describe(self, schema: CollectionSchema) -> None:
        """State a collection's key and schema, before its first record and whenever they change. It takes
        effect exactly between the records sent before and after. Repeating the same costs nothing."""
        ...

    async def send(
        self, batches: Sequence[Batch], position: PositionT | None, note: bytes | None = None
    ) -> None:
        """Hand over records, in order. Returns when they are accepted, which may take long: that is the
        backpressure. Not yet durable then; see `durable` and `settle`.

        With `None` the records are inside a source transaction and stay invisible; a later call with a
        position makes all of them visible at once. On restart the source is resumed from the newest
        position, and records sent after it are gone as if they had never been.

        The position stands in every transaction, so it should be small. What belongs to it but is large and
        changes rarely goes into `note`, which comes with a position, holds from there on until the next one,
        and is at hand as `Outlet.note` after a restart.

        All rows of a collection that are read once more stand between two marks, records with the operations
        `BACKFILL` and `SWEEP` (see `hub.record`): destinations then find the rows that are gone. Changes go on in
        between; none of them may be left out, deletes least of all.

        A record that is flagged in `Batch.errors`, such as a line that is no JSON, does not enter its
        collection: it becomes a dead letter of the task, in the same transaction.
        """
        ...

    async def settle(self) -> None:
        """Wait until the newest position sent so far is durable, with all records before it."""
        ...

    def progress(self, collection: str, done: int, total: int | None) -> None:
        """Rows of a snapshot read so far, and the estimate of all. `done == total` ends it."""
        ...

    def gauge(self, name: str, value: float) -> None:
        """A number to show beside the task, such as `slot_retained_bytes`. The name ends in its unit."""
        ...

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter of the task, such as `reconnects`."""
        ...

    def notice(self, message: str, **fields: Any) -> None:
        """One line in the log for a person: something happened that they may want to know."""
        ...


class Capture(Spec, Generic[PositionT], frozen=True, kw_only=True):
    """Base of every capture: its options are its fields.

    The same instance may be opened many times; what belongs to one run lives in `run`.
    """

    position_type: ClassVar[type[Position]]
    types_of_source: ClassVar[Sequence[TypeForm]] = ()
    """What becomes of the source's types, for the connector's page; empty where there is nothing to say."""

    @abc.abstractmethod
    async def check(self, task: TaskName) -> Sequence[Finding]:
        """Reach the source and see whether it may be read, changing nothing. Failures carry their cure."""

    @abc.abstractmethod
    async def discover(self, task: TaskName) -> Sequence[Discovered]:
        """What could be captured with these options, with schema and key."""

    async def backfill(self, task: TaskName, parts: Sequence[str], *, where: str = "") -> None:
        """Ask the running capture of this name, in whatever process, to read these parts of the source again, such
        as tables; none means all. `where` narrows it, in the source's language. Raises FatalError when the source
        has no way to do so."""
        raise FatalError(
            f"{task}: this kind of capture cannot be asked to read again; what the log holds can be read again for "
            "one materialization, see `hub backfill --from-log`"
        )

    @abc.abstractmethod
    async def run(self, resume: PositionT | None, out: Outlet[PositionT]) -> None:
        """Read from `resume` on, or from the beginning, until cancelled or the source has ended.

        Returning means that there will never be more. Raises `TransientError` to be opened again after a
        backoff, `FatalError` to stop this task. Cancellation may come at any await and needs no care
        beyond closing what was opened: what was not durable is read again.
        """


def collection_name(task: TaskName, *parts: str) -> str:
    """The full name of a capture's collection, such as `shop/public.orders`.

    Parts come from the source and are hostile: a slash or a control character in one is written as
    `%XX`, so that no two collections share a name and none can be mistaken for another task's.
    """
    if not parts:
        return task
    return f"{task}/{'.'.join(_escaped(part) for part in parts)}"


def _escaped(part: str) -> str:
    if part.isidentifier():
        return part
    return "".join(
        f"%{ord(char):02X}" if char in "/%." or ord(char) < 32 or ord(char) == 127 else char for char in part
    )
