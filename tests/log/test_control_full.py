"""A disk that is full under control.db alone: the log goes on, and what needs control.db says why it waits."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from hub.control import Control
from hub.errors import TransientError
from hub.log import Log, LogOptions, Retention, Transaction
from hub.record import Batch, Cursor

pytestmark = pytest.mark.anyio

OPTIONS = LogOptions(
    segment_bytes=1 << 16,
    retention=Retention(age_s=None),
    fragments_after_s=0.0,
    keep_every_s=3600,
    mark_after_s=60,
    tail_bytes=0,
)


def fill(control: Control) -> None:
    """Let no page be added: SQLite then says that the disk is full."""
    (pages,) = control._db.execute("PRAGMA page_count").fetchone()
    control._db.execute(f"PRAGMA max_page_count={pages}")


def empty(control: Control) -> None:
    control._db.execute("PRAGMA max_page_count=1000000")


async def numbers(log: Log) -> list[int]:
    reader, found = log.reader("r"), list[int]()
    while reader.lag_frames:
        for committed in await reader.read():
            reader.release(committed.size)
            found += [
                d for i in committed.items if isinstance(i, Batch) for d in i.docs if len(i.collection) < 9
            ]
    return found


async def test_the_log_goes_on_and_what_needs_control_db_says_why_it_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Scenario 18."""
    with Control(tmp_path / "control.db") as control:
        async with Log.open(tmp_path, OPTIONS, control=control) as log:
            await log.append(Transaction("t", [Batch.of_lines("a", [b"1"])], b"1"))
            await control.hold("old", Cursor.START)
            fill(control)
            # Enough collections that listing their fragments takes a page more.
            many = [Batch.of_lines(f"collection-{n}", [b"0"]) for n in range(200)]
            place = await log.append(Transaction("t", [Batch.of_lines("a", [b"2"]), *many], b"2"))
            await log.roll()
            with caplog.at_level(logging.WARNING, "hub.log"):
                await log.keeper.keep()
            assert (
                "retention stopped; nothing is lost" in caplog.text and "control.db: no room" in caplog.text
            )
            assert "no room on the disk" in log.keeper.alarms["retention"]
            with pytest.raises(TransientError, match=r"control\.db: no room on the disk"):
                await control.set_state("t", "big", b"x" * 100_000)
            # What is known already moves in memory, and is written when there is room.
            await control.hold("old", Cursor({log.journal: place}))
            await log.append(Transaction("t", [Batch.of_lines("a", [b"3"])], b"3"))
            assert await numbers(log) == [1, 2, 3]
            empty(control)
            await log.keeper.keep()
            assert log.keeper.alarms == {} and log.history is not None and log.history.of("a")
            assert await numbers(log) == [1, 2, 3]
    with Control(tmp_path / "control.db") as control:
        async with Log.open(tmp_path, OPTIONS, control=control) as log:
            assert log.position("t") == b"3" and await numbers(log) == [1, 2, 3]
            assert control.holds()[0].cursor == Cursor({log.journal: place})
