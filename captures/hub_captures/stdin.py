"""Read records from the standard input.

The hard thing is that nothing can be read twice: what was read and not yet durable when the process
is killed is gone with the pipe. So this is for experiments and for producers that can start again.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import anyio
from msgspec import Meta

from hub.capture import Capture, Discovered, Finding, Outlet
from hub.document import encode
from hub.errors import FatalError
from hub.lines import Lines, check
from hub.materialization import ErrorPolicy
from hub.options import Size
from hub.record import Position, TaskName
from hub.schema import CollectionSchema
from hub.spec import Path as OptionPath

STDIN = 0

BATCH_BYTES_MIN = 1024
"""Least `batch_bytes`."""


class StdinPosition(Position, frozen=True):
    """How many bytes were taken over all runs. It says how far; a pipe cannot be read from there."""

    bytes: int


class StdinCapture(Capture[StdinPosition], frozen=True, kw_only=True):
    """Each line of the standard input becomes a record. The capture ends where the input ends."""

    position_type = StdinPosition

    format: Annotated[
        Literal["ndjson", "text"],
        Meta(
            description="What a line is: `ndjson` a JSON value, `text` anything, which becomes a JSON string."
        ),
    ] = "ndjson"
    on_error: Annotated[
        ErrorPolicy,
        Meta(
            description="What becomes of a line that is no JSON: `dead_letter` keeps its text in the task's "
            "dead-letter collection, `skip` counts it and goes on, `stop` stops the task."
        ),
    ] = "dead_letter"
    batch_bytes: Annotated[Size, Meta(description="Most to send at once. It also bounds one line.")] = Size(
        1 << 20
    )

    def problems(self) -> Iterator[tuple[OptionPath, str]]:
        if self.batch_bytes < BATCH_BYTES_MIN:
            yield ("batch_bytes",), f"expected at least {BATCH_BYTES_MIN}, got {self.batch_bytes}"

    async def check(self, task: TaskName) -> Sequence[Finding]:
        try:
            os.fstat(STDIN)
        except OSError:
            return [Finding(False, "standard input is closed", "start the hub with an input: `… | hub run`")]
        return [Finding(True, "standard input is open")]

    async def discover(self, task: TaskName) -> Sequence[Discovered]:
        return [Discovered(CollectionSchema(task, is_open=True), "Read once, from wherever it stands.")]

    async def run(self, resume: StdinPosition | None, out: Outlet[StdinPosition]) -> None:
        await out.describe(CollectionSchema(out.task, is_open=True))
        at = resume.bytes if resume else 0
        rest = b""
        ended = False
        while not ended:
            chunk, ended = await self._read()
            read = rest + chunk
            whole, rest = cut(read, ended=ended)
            if whole:
                lines = await anyio.to_thread.run_sync(self._lines, whole)
                upto = at + len(read) - len(rest)
                await self._send(lines, at, upto, out)
                at = upto
            if len(rest) >= self.batch_bytes:
                raise FatalError(
                    f"stdin: the line at byte {at} is longer than batch_bytes, {self.batch_bytes}"
                )

    async def _read(self) -> tuple[bytes, bool]:
        """What there is, as much as fits, and whether that is all. Waits for the first byte without a thread."""
        if stat.S_ISREG(os.fstat(STDIN).st_mode):
            read = await anyio.to_thread.run_sync(os.read, STDIN, int(self.batch_bytes))
            return read, not read
        await anyio.wait_readable(STDIN)
        poll = select.poll()
        poll.register(STDIN, select.POLLIN)
        pieces = [os.read(STDIN, self.batch_bytes)]
        size = len(pieces[0])
        while pieces[-1] and size < self.batch_bytes and poll.poll(0):
            pieces.append(os.read(STDIN, self.batch_bytes - size))
            size += len(pieces[-1])
        return b"".join(pieces), not pieces[-1]

    def _lines(self, whole: bytes) -> Lines:
        return check(whole) if self.format == "ndjson" else texts(whole)

    async def _send(self, lines: Lines, at: int, upto: int, out: Outlet[StdinPosition]) -> None:
        if self.on_error == "stop":
            lines.refuse_bad(where="stdin", at=at)
        if lines.bad and self.on_error == "skip":
            out.count("skipped_records", len(lines.bad))
        batch = lines.batch(out.task, where="stdin", at=at, skip=self.on_error == "skip")
        await out.send([batch] if batch.count else [], StdinPosition(upto))


def cut(read: bytes, *, ended: bool) -> tuple[bytes, bytes]:
    """Whole lines, and the beginning of the next. At the end of the input the last line needs no line feed."""
    if ended:
        return (read if read.endswith(b"\n") or not read else read + b"\n"), b""
    end = read.rfind(b"\n") + 1
    return read[:end], read[end:]


def texts(whole: bytes) -> Lines:
    """Lines of any text as JSON strings. What is not UTF-8 is written as `\\xNN`."""
    found = whole.decode(errors="backslashreplace").split("\n")[:-1]
    return Lines(b"".join([encode(line.removesuffix("\r")) + b"\n" for line in found]), len(found))
