"""Make records with a mapping: for demos, tests and measurements.

The hard thing is to go on after a restart as if there had been none. The position is the number of
records made, and each mapping sees the number of its own as `@number`, so what it computes from that
alone is the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Annotated

import anyio
from msgspec import Meta

from hub.capture import Capture, Discovered, Finding, Outlet
from hub.errors import FatalError
from hub.mapping import Compiled
from hub.materialization import ErrorPolicy
from hub.options import Duration, MappingText
from hub.record import Batch, Position, TaskName
from hub.schema import CollectionSchema, describe, widened
from hub.spec import Path as OptionPath

SAMPLE = 100
"""Records that `discover` looks at."""


class GeneratePosition(Position, frozen=True):
    """How many records were made, also those that the mapping has dropped."""

    count: int


class GenerateCapture(Capture[GeneratePosition], frozen=True, kw_only=True):
    """Runs a mapping again and again. Its input is null; metadata: `number`, from 0."""

    position_type = GeneratePosition

    mapping: Annotated[
        MappingText,
        Meta(
            description="What makes a document. `@number` counts the records, also over restarts.",
            examples=['root = {"id": @number, "at": now()}'],
        ),
    ]
    interval: Annotated[
        Duration, Meta(description="Time between two batches. `0s`: as fast as possible.")
    ] = Duration(1)
    batch_size: Annotated[int, Meta(description="Records made at a time.", ge=1, le=100_000)] = 1
    count: Annotated[
        int, Meta(description="How many to make in all, over all runs. 0: without end.", ge=0)
    ] = 0
    on_error: Annotated[
        ErrorPolicy,
        Meta(
            description="What becomes of a record whose mapping fails: `dead_letter` keeps the error in the task's "
            "dead-letter collection, `skip` counts it and goes on, `stop` stops the task."
        ),
    ] = "dead_letter"

    @cached_property
    def compiled(self) -> Compiled:
        """The mapping, ready to run."""
        return self.mapping.compiled()

    def problems(self) -> Iterator[tuple[OptionPath, str]]:
        reads = sorted(".".join(path) for path in self.compiled.reads if path)
        if reads:
            yield (
                ("mapping",),
                f"reads {reads[0]!r}, but there is no document to read; use `@number` or functions",
            )

    async def check(self, task: TaskName) -> Sequence[Finding]:
        errors = self._made(task, 0, 1).errors
        if errors:
            return [Finding(False, f"the mapping fails: {errors[0].reason}", "mend `mapping`")]
        return [Finding(True, "the mapping makes a record")]

    async def discover(self, task: TaskName) -> Sequence[Discovered]:
        docs = self._made(task, 0, min(SAMPLE, self.count or SAMPLE)).docs
        columns = widened({}, [doc for doc in docs if isinstance(doc, dict)])
        if columns is None:
            return [Discovered(CollectionSchema(task, is_open=True))]
        return [Discovered(describe(task, columns, is_open=True), f"from the first {len(docs)} records")]

    async def run(self, resume: GeneratePosition | None, out: Outlet[GeneratePosition]) -> None:
        await out.describe(CollectionSchema(out.task, is_open=True))
        made = resume.count if resume else 0
        due = anyio.current_time()
        while not self.count or made < self.count:
            await anyio.sleep_until(due)
            # After a wait for the log the next batch is due at once, and no others for the time lost.
            due = max(due + self.interval, anyio.current_time())
            amount = min(self.batch_size, self.count - made) if self.count else self.batch_size
            batch = await anyio.to_thread.run_sync(self._made, out.task, made, amount)
            made += amount
            batch = self._kept(batch, out)
            await out.send([batch] if batch.count else [], GeneratePosition(made))

    def _made(self, task: TaskName, first: int, amount: int) -> Batch:
        numbers = range(first, first + amount)
        return self.compiled.run(Batch(task, amount, docs=[None] * amount, columns={"number": list(numbers)}))

    def _kept(self, batch: Batch, out: Outlet[GeneratePosition]) -> Batch:
        """The batch as the error policy has it."""
        if not batch.errors or self.on_error == "dead_letter":
            return batch
        index, error = next(iter(batch.errors.items()))
        if self.on_error == "stop":
            number = batch.metadata(index)["number"]
            raise FatalError(f"record {number}: {error.reason} (on_error: stop)")
        out.count("skipped_records", len(batch.errors))
        failed = batch.errors.keys()
        return batch.take([index for index in range(batch.count) if index not in failed]).with_errors(None)
