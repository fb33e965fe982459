"""The stream of a replication slot, against a real server."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from hub_captures.postgres.wire import ChangeStream

pytestmark = pytest.mark.anyio


async def test_an_error_of_the_one_who_is_told_ends_the_stream_and_is_its_failure(source: Any) -> None:
    source.run("create table t (id int primary key)", "create publication p for table t")
    told: list[int] = []
    ended = anyio.Event()

    def after(got: int) -> None:
        told.append(got)
        if len(told) > 1:
            ended.set()
        raise LookupError(f"told {len(told)} times")

    async with source.capture().server("reader").connected(replication=True) as wire:
        await wire.execute("CREATE_REPLICATION_SLOT s TEMPORARY LOGICAL pgoutput")
        stream = ChangeStream(wire, lambda found: None, lambda row: False, after, bytes_max=1 << 20)
        await stream.start("START_REPLICATION SLOT s LOGICAL 0/0 (proto_version '1', publication_names 'p')")
        stream.resume()
        source.run("insert into t values (1)")
        with anyio.fail_after(30):
            await ended.wait()
        stream.resume()

    assert str(stream.failure) == "told 1 times"
    assert stream.is_paused
    assert told[0] > 0
    assert told[1:] == [0]
