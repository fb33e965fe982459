"""The generate capture: the same records whatever the restarts, as many as asked for."""

from __future__ import annotations

from typing import Any

import pytest

from hub.errors import FatalError
from hub.options import Duration, MappingText
from hub.record import TaskName
from hub.testing.capture import check_capture
from hub.testing.outlet import MemoryOutlet
from hub_captures.generate import GenerateCapture, GeneratePosition

pytestmark = pytest.mark.anyio


def generate(mapping: str, **options: Any) -> GenerateCapture:
    return GenerateCapture(**{"mapping": MappingText(mapping), "interval": Duration(0)} | options)


@pytest.mark.parametrize("count", [0, 50])
async def test_keeps_the_contract_of_captures(count: int) -> None:
    capture = generate('root = {"id": @number, "square": @number * @number}', batch_size=10, count=count)
    if count:
        seen = await check_capture(capture, records=50)
        assert [record.document for record in seen[:2]] == [b'{"id":0,"square":0}', b'{"id":1,"square":1}']
        return
    out: MemoryOutlet[GeneratePosition] = MemoryOutlet("t", GeneratePosition)
    out.on_send = lambda batches, position: None if out.count_records() < 100 else pytest.fail("enough")
    with pytest.raises(pytest.fail.Exception):
        await capture.run(GeneratePosition(40), out)
    assert [record.doc["id"] for record in out.records()] == list(range(40, 140))


async def test_the_last_batch_is_as_large_as_the_count_allows() -> None:
    out: MemoryOutlet[GeneratePosition] = MemoryOutlet("t", GeneratePosition)
    await generate("root = @number", batch_size=4, count=10).run(None, out)
    assert [batch.docs for batch in out.batches()] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert out.durable == GeneratePosition(10)


async def test_dropped_records_count() -> None:
    out: MemoryOutlet[GeneratePosition] = MemoryOutlet("t", GeneratePosition)
    await generate("root = if @number % 2 == 0 { deleted() } else { @number }", count=6).run(None, out)
    assert [record.doc for record in out.records()] == [1, 3, 5]
    assert out.durable == GeneratePosition(6)


@pytest.mark.parametrize("policy", ["dead_letter", "skip", "stop"])
async def test_a_failing_mapping_is_dealt_with_as_told(policy: Any) -> None:
    out: MemoryOutlet[GeneratePosition] = MemoryOutlet("t", GeneratePosition)
    capture = generate(
        'root = if @number == 1 { throw("no") } else { @number }', count=3, batch_size=3, on_error=policy
    )
    if policy == "stop":
        with pytest.raises(FatalError, match=r"record 1: .*no"):
            await capture.run(None, out)
        return
    await capture.run(None, out)
    (batch,) = out.batches()
    assert list(batch.errors or {}) == ([1] if policy == "dead_letter" else [])
    assert [doc for doc in batch.docs if doc is not None] == [0, 2]
    assert out.counts == ({"skipped_records": 1} if policy == "skip" else {})


def test_a_mapping_that_reads_a_document_is_a_mistake() -> None:
    assert not list(generate("root.id = @number").problems())
    ((path, message),) = generate("root.id = this.a.b").problems()
    assert path == ("mapping",)
    assert "'a.b'" in message


async def test_check_and_discover_run_the_mapping() -> None:
    capture = generate('root = {"id": @number, "name": "x"}')
    assert (await capture.check(TaskName("t")))[0].ok
    (found,) = await capture.discover(TaskName("t"))
    assert [(column.name, column.type.kind) for column in found.schema.columns()] == [
        ("id", "integer"),
        ("name", "string"),
    ]
    (finding,) = await generate('root = throw("no")').check(TaskName("t"))
    assert not finding.ok
