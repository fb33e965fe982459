"""The conformance kit of captures: what every capture of a source that can be read again must do.

Resumed from any position it yields the same rest; a position never goes back; cancelled at any
`send`, before or after it was taken, and resumed, it loses nothing and doubles nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import anyio

from hub.capture import Capture
from hub.record import Batch, Position
from hub.testing.outlet import Frame, MemoryOutlet

POINTS_MAX = 12
"""Most positions to resume from, and most sends to cancel at, spread evenly over all there are."""


class Seen(NamedTuple):
    """One record as a reader of the log would see it. `document` is its JSON text."""

    collection: str
    op: str
    document: bytes
    error: str


async def check_capture(
    capture: Capture[Any], *, records: int, task: str = "task", timeout_s: float = 60.0, quiet_s: float = 0.02
) -> Sequence[Seen]:
    """Raise `AssertionError` where the capture breaks its contract; return what it yields from the beginning.

    The source must hold `records` records and stay as it is. A capture that follows its source is stopped
    when it has yielded that many, and is watched for `quiet_s` for more at the end.
    """
    trial = _Trial(capture, task, timeout_s, quiet_s)
    whole = await trial.run(None, records)
    expected = seen(whole)
    assert len(expected) == records, f"expected {records} records, the capture yielded {len(expected)}"
    count = 0
    points = []
    for frame in whole.frames:
        count += len(_seen_in(frame))
        points.append((frame.position, count))
    for position, before in _spread(points):
        await trial.check_rest(position, expected[before:])
    for at in _spread(range(len(whole.frames))):
        await trial.check_cancelled(at, expected)
    return expected


def seen(out: MemoryOutlet[Any]) -> list[Seen]:
    """The visible records, in order."""
    return [record for frame in out.frames for record in _seen_in(frame)]


@dataclass
class _Trial:
    capture: Capture[Any]
    task: str
    timeout_s: float
    quiet_s: float

    async def run(self, resume: Position | None, records: int, *, quiet_s: float = 0.0) -> MemoryOutlet[Any]:
        """Run until the capture ends, or has made this many records visible, and `quiet_s` longer."""
        out = self._outlet(resume)
        async with anyio.create_task_group() as group:

            async def run() -> None:
                await self.capture.run(resume, out)
                group.cancel_scope.cancel()

            group.start_soon(run)
            await out.until(lambda: out.count_records() >= records, timeout_s=self.timeout_s)
            await anyio.sleep(quiet_s)
            group.cancel_scope.cancel()
        return out

    async def check_rest(self, position: Position, rest: Sequence[Seen]) -> None:
        again = seen(await self.run(position, len(rest), quiet_s=self.quiet_s))
        assert again == list(rest), (
            f"resumed from {position!r} the capture yields {len(again)} records; {len(rest)} came after it "
            f"the first time; they differ from record {_difference(again, rest)} on"
        )

    async def check_cancelled(self, at: int, expected: Sequence[Seen]) -> None:
        """Cancelled as it sends for the time `at`, which is not taken, so that all sends before it were."""
        with anyio.CancelScope() as scope:
            out = self._outlet(None)
            sends = 0

            def cancel(batches: Sequence[Batch], position: Position | None) -> None:
                nonlocal sends
                if sends == at:
                    scope.cancel()
                sends += 1

            out.on_send = cancel
            with anyio.fail_after(self.timeout_s):
                await self.capture.run(None, out)
        before = seen(out)
        position = out.frames[-1].position if out.frames else None
        whole = before + seen(await self.run(position, len(expected) - len(before)))
        assert whole == list(expected), (
            f"cancelled at send {at} and resumed: {len(whole)} records instead of {len(expected)}; "
            f"they differ from record {_difference(whole, expected)} on"
        )

    def _outlet(self, resume: Position | None) -> MemoryOutlet[Any]:
        return MemoryOutlet(self.task, self.capture.position_type, resume)


def _seen_in(frame: Frame) -> list[Seen]:
    found = []
    for batch in frame.items:
        if isinstance(batch, Batch):
            errors = batch.errors or {}
            found += [
                Seen(batch.collection, chr(batch.op(i)), line, errors[i].reason if i in errors else "")
                for i, line in enumerate(batch.lines())
            ]
    return found


def _spread(points: Sequence[Any]) -> Sequence[Any]:
    if len(points) <= POINTS_MAX:
        return points
    step = (len(points) - 1) / (POINTS_MAX - 1)
    return [points[round(i * step)] for i in range(POINTS_MAX)]


def _difference(one: Sequence[Seen], other: Sequence[Seen]) -> int:
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
