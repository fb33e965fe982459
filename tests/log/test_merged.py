"""Several journals under one cursor."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from hub.log import Follower, Log, LogOptions, Retention, Transaction
from hub.log.merged import merged
from hub.log.replay import Gap
from hub.record import Batch, Cursor, Place

pytestmark = pytest.mark.anyio

OPTIONS = LogOptions(segment_bytes=1 << 16, retention=Retention(age_s=None), mark_after_s=60)


async def test_one_cursor_stands_in_every_journal(tmp_path: Path) -> None:
    async with (
        Log.open(tmp_path, OPTIONS, journal="one") as one,
        Log.open(tmp_path, OPTIONS, journal="two") as two,
        Follower.open(tmp_path, "two") as other,
    ):
        for number in range(10):
            for log in (one, two):
                batch = Batch.of_lines(log.journal[:3], [b"%d" % number])
                await log.append(Transaction("t", [batch], b"%d" % number))
        cursor = Cursor.START
        found: dict[str, list[int]] = {"one": [], "two": []}
        for wanted_count in (8, 20):
            with anyio.fail_after(10):
                async with merged([one, other], "r", start=cursor, credit_bytes=10) as reader:
                    while sum(map(len, found.values())) < wanted_count:
                        for committed in await reader.read():
                            for item in committed.items:
                                assert isinstance(item, Batch)
                                found[item.collection] += item.docs
                            reader.release(committed.size)
                    cursor = reader.cursor
        assert found == {"one": list(range(10)), "two": list(range(10))}
        assert set(cursor.journals) == {one.journal, two.journal}


async def test_an_error_of_one_journal_comes_out_as_it_is(tmp_path: Path) -> None:
    async with Log.open(tmp_path, OPTIONS, journal="one") as one:
        await one.append(Transaction("t", [Batch.of_lines("a", [b"1"])]))
        one.tail.first_seq = 100
        segment = one.writer.segments[0]
        segment.header = segment.header._replace(base_seq=3)
        with pytest.raises(Gap):
            async with merged([one], "r", start=Cursor({one.journal: Place(0, 1)})) as reader:
                await reader.read()
                await anyio.sleep_forever()
