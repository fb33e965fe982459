"""The conformance kit of captures: it passes a right one, and says of each wrong one what is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from hub.capture import Capture, Discovered, Finding, Outlet
from hub.record import Batch, Position, TaskName
from hub.testing.capture import check_capture

pytestmark = pytest.mark.anyio


class Upto(Position, frozen=True):
    count: int


class Counting(Capture[Upto], frozen=True, kw_only=True):
    """Counts to 20 in batches of three; each option is one way to do it wrong."""

    position_type = Upto

    doubles: bool = False
    skips: bool = False
    sends_early: bool = False
    ends: bool = True

    async def check(self, task: TaskName) -> Sequence[Finding]:
        return []

    async def discover(self, task: TaskName) -> Sequence[Discovered]:
        return []

    async def run(self, resume: Upto | None, out: Outlet[Upto]) -> None:
        at = resume.count if resume else 0
        if resume and at < 20:
            at += self.skips - self.doubles
        while at < 20:
            upto = min(at + 3, 20)
            batch = Batch.of_docs(out.task, list(range(at, upto)))
            if self.sends_early:
                await out.send([], Upto(upto))
            await out.send([batch], Upto(upto))
            at = upto
        if not self.ends:
            await anyio.sleep_forever()


@pytest.mark.parametrize("ends", [True, False])
async def test_passes_a_capture_that_keeps_its_contract(ends: bool) -> None:
    seen = await check_capture(Counting(ends=ends), records=20)
    assert [record.document for record in seen] == [str(i).encode() for i in range(20)]


@pytest.mark.parametrize(
    ("capture", "message"),
    [
        (Counting(doubles=True), "yields 18 records; 17 came after it"),
        (Counting(skips=True), "yields 16 records; 17 came after it"),
        (Counting(sends_early=True), "differ from record 0 on"),
    ],
)
async def test_names_what_a_capture_does_wrong(capture: Counting, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        await check_capture(capture, records=20)


async def test_a_source_with_fewer_records_than_promised_is_told() -> None:
    with pytest.raises(AssertionError, match="expected 21 records, the capture yielded 20"):
        await check_capture(Counting(), records=21)
