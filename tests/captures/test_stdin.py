"""The stdin capture, on a real pipe in place of descriptor 0."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from hub.errors import FatalError
from hub.options import Size
from hub.record import TaskName
from hub.testing.outlet import MemoryOutlet
from hub_captures import stdin
from hub_captures.stdin import StdinCapture, StdinPosition

pytestmark = pytest.mark.anyio


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The writing end of what the capture takes for its standard input."""
    reading, writing = os.pipe()
    monkeypatch.setattr(stdin, "STDIN", reading)
    yield writing
    os.close(reading)
    try:
        os.close(writing)
    except OSError:
        pass


def outlet() -> MemoryOutlet[StdinPosition]:
    return MemoryOutlet("t", StdinPosition)


async def test_lines_are_sent_as_they_come(pipe: int) -> None:
    out = outlet()
    async with anyio.create_task_group() as group:
        group.start_soon(StdinCapture().run, None, out)
        os.write(pipe, b'1\n2\n{"half":')
        await out.until(lambda: out.count_records() == 2)
        os.write(pipe, b"3}\n")
        await out.until(lambda: out.count_records() == 3)
        os.write(pipe, b"4")
        os.close(pipe)
    assert [record.doc for record in out.records()] == [1, 2, {"half": 3}, 4]
    assert out.durable == StdinPosition(16)


async def test_a_silent_input_does_not_hold_up_a_stop(pipe: int) -> None:
    with anyio.move_on_after(0.05) as scope:
        await StdinCapture().run(None, outlet())
    assert scope.cancelled_caught


async def test_more_than_a_pipe_holds_is_read_whole(pipe: int) -> None:
    out = outlet()
    whole = b"".join(b'{"i":%d}\n' % i for i in range(100_000))

    def write() -> None:
        rest = memoryview(whole)
        while rest:
            rest = rest[os.write(pipe, rest) :]
        os.close(pipe)

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, write)
        await StdinCapture(batch_bytes=Size(10_000)).run(None, out)
    assert b"".join(batch.ndjson for batch in out.batches()) == whole


@pytest.mark.parametrize("policy", ["dead_letter", "skip", "stop"])
async def test_a_malformed_line_is_dealt_with_as_told(pipe: int, policy: Any) -> None:
    out = outlet()
    os.write(pipe, b"1\nx\n2\n")
    os.close(pipe)
    capture = StdinCapture(on_error=policy)
    if policy == "stop":
        with pytest.raises(FatalError, match="stdin: line at byte 102: not JSON"):
            await capture.run(StdinPosition(100), out)
        return
    await capture.run(StdinPosition(100), out)
    (batch,) = out.batches()
    assert batch.docs == ([1, 2] if policy == "skip" else [1, "x", 2])
    assert list(batch.errors or {}) == ([] if policy == "skip" else [1])
    assert out.counts == ({"skipped_records": 1} if policy == "skip" else {})


async def test_text_lines_become_strings(pipe: int) -> None:
    out = outlet()
    os.write(pipe, b"a\xff\r\n\n")
    os.close(pipe)
    await StdinCapture(format="text").run(None, out)
    assert [record.doc for record in out.records()] == ["a\\xff", ""]


async def test_a_line_beyond_the_limit_stops_the_capture(pipe: int) -> None:
    os.write(pipe, b"x" * 3000)
    with pytest.raises(FatalError, match="stdin: the line at byte 0 is longer than batch_bytes"):
        await StdinCapture(batch_bytes=Size(1024)).run(None, outlet())


async def test_a_file_may_stand_in_for_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").write_bytes(b"1\n2")
    descriptor = os.open(tmp_path / "in", os.O_RDONLY)
    monkeypatch.setattr(stdin, "STDIN", descriptor)
    out = outlet()
    await StdinCapture().run(None, out)
    os.close(descriptor)
    assert [record.doc for record in out.records()] == [1, 2]


async def test_check_sees_whether_there_is_an_input(pipe: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = await StdinCapture().check(TaskName("t"))
    assert finding.ok
    monkeypatch.setattr(stdin, "STDIN", 99999)
    (finding,) = await StdinCapture().check(TaskName("t"))
    assert not finding.ok
