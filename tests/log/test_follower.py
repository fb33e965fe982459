"""Readers in other processes: they see what is durable, all of it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from hub.control import Control
from hub.log import Follower, Log, LogOptions, Reader, Retention, Schema, Transaction
from hub.log.frame import Kind
from hub.log.journal import Frame
from hub.log.transaction import encode_transaction
from hub.record import Batch, Cursor

pytestmark = pytest.mark.anyio

OPTIONS = LogOptions(
    segment_bytes=1 << 16, retention=Retention(age_s=None), fragments_after_s=0.0, mark_after_s=60
)


def transaction(number: int) -> Transaction:
    return Transaction("t", [Batch.of_lines("a", [b'{"n":%d}' % number])], b"%d" % number)


async def numbers(reader: Reader, count: int) -> list[int]:
    found: list[int] = []
    with anyio.fail_after(10):
        while len(found) < count:
            for committed in await reader.read():
                reader.release(committed.size)
                found += [d["n"] for i in committed.items if isinstance(i, Batch) for d in i.docs]
    return found


async def test_a_follower_sees_what_is_appended_while_it_watches(tmp_path: Path) -> None:
    async with Log.open(tmp_path, OPTIONS) as log:
        await log.append(transaction(1))
        async with Follower.open(tmp_path) as follower:
            reader = follower.reader("other")
            assert await numbers(reader, 1) == [1]
            for number in range(2, 300):
                await log.append(transaction(number))
                if number % 100 == 0:
                    await log.roll()
            assert await numbers(reader, 298) == list(range(2, 300))
            assert reader.cursor.journals[log.journal].seq <= log.end.seq


async def test_a_follower_never_passes_what_is_durable(tmp_path: Path) -> None:
    """Scenario 35: frames that are in the file but were not published are not shown, watermark or none."""
    async with Log.open(tmp_path, OPTIONS) as log:
        await log.append(transaction(1))
        await log.append(transaction(2))
        body = encode_transaction(transaction(3), level=None, compress_from=0)
        # Written, and on its way to the disk: the committer has not said that it arrived.
        await log.work(lambda: log.writer.write([Frame(Kind.TRANSACTION, body)]))
        async with Follower.open(tmp_path) as follower:
            assert await numbers(follower.reader("r"), 2) == [1, 2]
            assert follower.end.seq == log.end.seq
        (tmp_path / "journal" / log.journal / "tail").write_bytes(b"garbage")
        async with Follower.open(tmp_path) as follower:
            # Without a watermark only what a later frame attests is shown: 1 and 2, by the header of 3.
            assert follower.end.seq == log.end.seq
            assert await numbers(follower.reader("r"), 2) == [1, 2]


async def test_a_follower_goes_on_where_the_writer_was_killed_and_restarted(tmp_path: Path) -> None:
    """Scenario 34: no gap, no double."""
    async with Log.open(tmp_path, OPTIONS) as log:
        await log.append(transaction(1))
    async with Follower.open(tmp_path) as follower:
        reader = follower.reader("r")
        assert await numbers(reader, 1) == [1]
        async with Log.open(tmp_path, OPTIONS) as log:
            await log.append(transaction(2))
            assert await numbers(reader, 1) == [2]
            log.writer.abandon()
        async with Log.open(tmp_path, OPTIONS) as log:
            await log.append(transaction(3))
            assert await numbers(reader, 1) == [3]


async def test_a_follower_reads_fragments_too(tmp_path: Path) -> None:
    with Control(tmp_path / "control.db") as control:
        async with Log.open(tmp_path, OPTIONS, control=control) as log:
            await log.append(Transaction("t", [Schema("a", b"{}")]))
            for number in range(1, 4):
                await log.append(transaction(number))
            await log.roll()
            await log.keeper.keep()
            assert not [s for s in log.writer.segments if s.collections]
            await log.append(transaction(4))
            async with Follower.open(tmp_path) as follower:
                reader = follower.reader("r")
                assert await numbers(reader, 4) == [1, 2, 3, 4]
                again = follower.reader("r", start=Cursor({log.journal: reader.cursor.journals[log.journal]}))
                await log.append(transaction(5))
                assert await numbers(again, 1) == [5]


async def test_a_log_nobody_writes_can_be_followed(tmp_path: Path) -> None:
    async with Log.open(tmp_path, OPTIONS) as log:
        for number in range(3):
            await log.append(transaction(number))
    (tmp_path / "journal" / log.journal / "tail").unlink()
    async with Follower.open(tmp_path) as follower:
        assert await numbers(follower.reader("r"), 3) == [0, 1, 2]
