"""What stands beside a log of how far it was durable, so that its loss is noticed; and the log's beat, that keeps it so.

A disk that lies about flushes, a directory put back from an old copy and one that was wiped all look whole by
themselves. Only somebody else can tell: control.db, which is told once a second, and the cursors of readers.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from hub.errors import FatalError, LogError, Poisoned, TransientError
from hub.record import Place

if TYPE_CHECKING:
    from hub.log.log import Log

logger = logging.getLogger("hub.log")

WITNESS_S = 1.0
JUMP_WARNED_US = 60e6


class Witness:
    """Keeps control.db told of one log."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def check(self) -> None:
        """Raises LogError when the log ends before what was once known durable."""
        log = self._log
        seen = log.control.witness(log.journal) if log.control is not None else None
        if seen is not None and seen.seq > log.end.seq:
            raise LogError(
                f"{log.writer.directory}: the log lost acknowledged data: control.db saw frame {seen.seq} "
                f"(epoch {seen.epoch}) durable, the log ends with {log.end.seq} (epoch {log.end.epoch}). Bring the "
                "missing files back; or `hub log repair --accept-loss --yes` starts again after what is there"
            )

    async def note(self) -> None:
        """Tell control.db how far the log is durable. The log does not stop for it: this is a second line of defence."""
        log = self._log
        if log.control is not None:
            try:
                await log.control.note(log.journal, Place(log.writer.epoch, log.writer.durable_seq))
            except (FatalError, TransientError) as error:
                logger.warning("%s", error)

    async def beat(self) -> None:
        """Sync at the level `interval`, note the witness, and warn of a clock that jumps, until cancelled."""
        log, writer = self._log, self._log.writer
        syncs = log.options.durability == "interval"
        every_s = log.options.interval_s if syncs else WITNESS_S
        since_s = warned_us = 0.0
        while True:
            await anyio.sleep(every_s)
            if writer.poisoned is not None:
                log.announce()
                continue
            if syncs:
                try:
                    await log.work(writer.sync)
                except Poisoned:
                    logger.exception("sync failed")
                    continue
            since_s += every_s
            if since_s >= WITNESS_S:
                since_s = 0.0
                await self.note()
            jumped_us = writer.clock.jumped_us
            if jumped_us and abs(jumped_us - warned_us) > JUMP_WARNED_US:
                warned_us = jumped_us
                logger.warning("the wall clock moved by %.0f s; the log keeps its own time", jumped_us / 1e6)
