"""Print records on the standard output, one JSON line each.

The hard thing is a reader that does not read: a pipe must not be written to before it has room, or
the thread that writes could never be stopped.
"""

from __future__ import annotations

import os
import select
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, ClassVar

import anyio
from msgspec import Meta

from hub.capture import Finding
from hub.errors import FatalError
from hub.lines import enveloped, without_removals
from hub.materialization import Binding, BindingSpec, Materialization, Rejected
from hub.record import Batch, Cursor, TaskName
from hub.schema import CollectionSchema

STDOUT = 1

PIECE_BYTES = 4096
"""PIPE_BUF of Linux: a pipe that polls as writable takes this much without blocking."""


class StdoutBinding(BindingSpec, frozen=True, kw_only=True):
    """Which collections are printed, and how."""

    envelope: Annotated[
        bool,
        Meta(
            description="Print `collection`, `operation`, `metadata` and `document` of a record instead of the "
            "bare document. Without it deletes and truncates are refused, since a bare document cannot say so."
        ),
    ] = False


class StdoutMaterialization(Materialization, frozen=True, kw_only=True):
    """Records as JSON lines on the standard output, printed when they are committed."""

    binding_type: ClassVar[type[BindingSpec]] = StdoutBinding
    delivery = "at least once"

    async def check(self, task: TaskName) -> Sequence[Finding]:
        try:
            os.fstat(STDOUT)
        except OSError:
            return [
                Finding(False, "standard output is closed", "start the hub with an output: `hub run … | …`")
            ]
        return [Finding(True, "standard output is open")]

    @asynccontextmanager
    async def open(self, task: TaskName) -> AsyncIterator[StdoutSink]:
        yield StdoutSink()


class StdoutSink:
    """See `hub.materialization.Sink`."""

    def __init__(self) -> None:
        self._staged: list[bytes] = []

    async def restore(self) -> Cursor | None:
        return None

    async def describe(self, binding: Binding, schema: CollectionSchema) -> None:
        pass

    async def write(self, binding: Binding, batch: Batch) -> None:
        assert isinstance(binding.options, StdoutBinding)
        if binding.options.envelope:
            self._staged.append(enveloped(batch))
        elif refused := without_removals(batch):
            raise Rejected(refused)
        else:
            self._staged.append(batch.ndjson)

    async def commit(self, upto: Cursor) -> None:
        staged, self._staged = self._staged, []
        poll = select.poll()
        poll.register(STDOUT, select.POLLOUT)
        for lines in staged:
            rest = memoryview(lines)
            while rest:
                if not poll.poll(0):
                    await anyio.wait_writable(STDOUT)
                try:
                    rest = rest[os.write(STDOUT, rest[:PIECE_BYTES]) :]
                except BlockingIOError:
                    await anyio.wait_writable(STDOUT)
                except OSError as error:
                    raise FatalError(f"standard output: {error.strerror}") from error
