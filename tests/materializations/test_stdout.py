"""The stdout and drop materializations, on a real pipe in place of descriptor 1."""

from __future__ import annotations

import os
from collections.abc import Iterator

import anyio
import pytest

from hub.errors import FatalError
from hub.materialization import Binding, Rejected
from hub.record import Batch, Cursor, TaskName
from hub.schema import CollectionSchema
from hub_materializations import stdout
from hub_materializations.drop import DropMaterialization
from hub_materializations.stdout import StdoutBinding, StdoutMaterialization

pytestmark = pytest.mark.anyio

BINDING = Binding("c", "", StdoutBinding(source="c"))


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The reading end of what the sink takes for its standard output."""
    reading, writing = os.pipe()
    monkeypatch.setattr(stdout, "STDOUT", writing)
    yield reading
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError:
            pass


async def test_prints_when_committed(pipe: int) -> None:
    os.set_blocking(pipe, False)
    async with StdoutMaterialization().open(TaskName("t")) as sink:
        assert await sink.restore() is None
        await sink.describe(BINDING, CollectionSchema("c"))
        await sink.write(BINDING, Batch.of_lines("c", [b'{"n":1.10}']))
        with pytest.raises(BlockingIOError):
            os.read(pipe, 100)
        await sink.commit(Cursor.START)
        assert os.read(pipe, 100) == b'{"n":1.10}\n'


async def test_a_reader_that_does_not_read_holds_up_no_stop(pipe: int) -> None:
    async with StdoutMaterialization().open(TaskName("t")) as sink:
        await sink.write(BINDING, Batch.of_lines("c", [b'"%s"' % (b"x" * 1_000_000)]))
        with anyio.move_on_after(0.05) as scope:
            await sink.commit(Cursor.START)
    assert scope.cancelled_caught


async def test_a_slow_reader_gets_everything(pipe: int) -> None:
    read = bytearray()

    def reader() -> None:
        while len(read) < 1_000_003:
            read.extend(os.read(pipe, 10_000))

    async with StdoutMaterialization().open(TaskName("t")) as sink, anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, reader)
        await sink.write(BINDING, Batch.of_lines("c", [b'"%s"' % (b"x" * 1_000_000)]))
        await sink.commit(Cursor.START)
    assert len(read) == 1_000_003


async def test_a_reader_that_went_away_stops_the_task(pipe: int) -> None:
    os.close(pipe)
    async with StdoutMaterialization().open(TaskName("t")) as sink:
        await sink.write(BINDING, Batch.of_lines("c", [b"1"]))
        with pytest.raises(FatalError, match="standard output: Broken pipe"):
            await sink.commit(Cursor.START)


async def test_deletes_need_the_envelope(pipe: int) -> None:
    deletes = Batch.of_lines("c", [b"1"], ops=b"d")
    async with StdoutMaterialization().open(TaskName("t")) as sink:
        with pytest.raises(Rejected, match="'delete'"):
            await sink.write(BINDING, deletes)
        await sink.write(Binding("c", "", StdoutBinding(source="c", envelope=True)), deletes)
        await sink.commit(Cursor.START)
    assert os.read(pipe, 1000) == b'{"collection":"c","operation":"delete","metadata":{},"document":1}\n'


async def test_drop_takes_everything() -> None:
    made = DropMaterialization()
    assert (await made.check(TaskName("t")))[0].ok
    async with made.open(TaskName("t")) as sink:
        assert await sink.restore() is None
        await sink.describe(BINDING, CollectionSchema("c"))
        await sink.write(BINDING, Batch.of_lines("c", [b"1"], ops=b"d"))
        await sink.commit(Cursor.START)
