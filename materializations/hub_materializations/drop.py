"""Take records and do nothing with them: for measuring what comes before, and for trying a config.

Nothing here is hard. The cursor is the engine's own, so the log is consumed as by any other sink.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from hub.capture import Finding
from hub.materialization import Binding, Materialization
from hub.record import Batch, Cursor, TaskName
from hub.schema import CollectionSchema


class DropMaterialization(Materialization, frozen=True, kw_only=True):
    """Every record is dropped. The engine counts them as for any other destination."""

    delivery = "at least once"

    async def check(self, task: TaskName) -> Sequence[Finding]:
        return [Finding(True, "drops everything")]

    @asynccontextmanager
    async def open(self, task: TaskName) -> AsyncIterator[DropSink]:
        yield DropSink()


class DropSink:
    """See `hub.materialization.Sink`."""

    async def restore(self) -> Cursor | None:
        return None

    async def describe(self, binding: Binding, schema: CollectionSchema) -> None:
        pass

    async def write(self, binding: Binding, batch: Batch) -> None:
        pass

    async def commit(self, upto: Cursor) -> None:
        pass
