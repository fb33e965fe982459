"""Keeping the log's house: what is over goes, what stays becomes fragments, what stalls is reported.

Runs beside the committer. Decisions are made by `hub.log.retention`; here they are carried out, one after
another, each of them leaving the log whole if it is the last thing the machine does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from hub.errors import FatalError, Full, TransientError
from hub.log.retention import fragments_to_compact, fragments_to_drop, fragments_to_merge, segments_to_drop
from hub.log.sealer import TooManyKeys, compact, key_fields, merge, take_apart

if TYPE_CHECKING:
    from hub.log.fragment import Fragment
    from hub.log.history import History
    from hub.log.log import Log
    from hub.log.segment import Segment

logger = logging.getLogger("hub.log")


class Keeper:
    """Retention, fragments, compaction and alarms of one log."""

    def __init__(self, log: Log) -> None:
        self.alarms: dict[str, str] = {}
        """What an operator should know, by what it is about. Empty when all is well."""
        self.made_room = anyio.Event()
        self._log = log
        self._pressed = anyio.Event()

    def press(self) -> None:
        """There is no room: look now, and let go of what was consumed before its time."""
        self._pressed.set()

    async def run(self) -> None:
        """Look every now and then, or when pressed, for as long as the log is open."""
        every_s = self._log.options.keep_every_s
        while True:
            with anyio.move_on_after(every_s):
                await self._pressed.wait()
            pressed = self._pressed.is_set()
            self._pressed = anyio.Event()
            await self.keep(pressed=pressed)
            if pressed:
                # A disk that stays full is looked at once a second, not without a pause.
                await anyio.sleep(min(1.0, every_s))

    async def keep(self, *, pressed: bool = False) -> None:
        """One look. Errors become alarms: the log itself goes on, or its writer says why not."""
        log = self._log
        if log.history is None or log.writer.poisoned is not None:
            return
        before = log.used_bytes
        try:
            await self._abort_overdue()
            await self._roll_overdue(pressed)
            self._look_for_lost_readers()
            await self._let_go(log.history, pressed)
            if await self._make_fragments(log.history):
                await self._let_go(log.history, pressed)
            await self._rewrite_fragments(log.history)
            self.alarms.pop("retention", None)
        except (FatalError, TransientError, OSError) as error:
            if self.alarms.get("retention") != str(error):
                logger.warning("retention stopped; nothing is lost, but disk use grows: %s", error)
            self.alarms["retention"] = str(error)
        if log.used_bytes < before:
            made_room, self.made_room = self.made_room, anyio.Event()
            made_room.set()

    async def _abort_overdue(self) -> None:
        limit_s = self._log.options.txn_timeout_s
        for large in list(self._log.open_transactions.values()):
            if large.idle_s > limit_s:
                logger.warning(
                    "task %r: a large transaction was given nothing for %.0f s: aborted",
                    large.task,
                    large.idle_s,
                )
                await large.abort(
                    f"was given nothing for log.transaction_timeout ({limit_s:g} s) and was aborted"
                )

    async def _roll_overdue(self, pressed: bool) -> None:
        """Seal a segment that is old, or whose room is wanted, so that what is in it can go."""
        log = self._log
        live = log.writer.live
        if live is None or not log.writer.state.since_mark():
            return
        if pressed or log.writer.clock.now_us() - live.header.created_us > log.options.roll_after_s * 1e6:
            try:
                await log.roll()
            except Full:
                # It is sealed, and can go; the one after it is made when something has gone.
                pass

    def _look_for_lost_readers(self) -> None:
        """Raise an alarm for each reader that holds the log and was not seen for long. It goes on holding it."""
        control = self._log.control
        assert control is not None
        limit_s = self._log.options.hold_timeout_s
        now_us = time.time_ns() // 1000
        lost: dict[str, str] = {}
        for hold in control.holds():
            place = hold.cursor.journals.get(self._log.journal)
            away_s = (now_us - hold.seen_us) / 1e6
            if away_s > limit_s and (place is None or place.seq < self._log.end.seq):
                lost[f"hold {hold.name}"] = (
                    f"reader {hold.name!r} was not seen for {away_s:.0f} s and holds the log; start it, "
                    f"or let it go with `hub log release {hold.name}`"
                )
        for about, text in lost.items():
            if about not in self.alarms:
                logger.warning("%s", text)
        self.alarms = {a: text for a, text in self.alarms.items() if not a.startswith("hold ")} | lost

    def _held_seq(self) -> int | None:
        """The newest frame that all registered readers have consumed; None when there are none."""
        control = self._log.control
        assert control is not None
        places = [hold.cursor.journals.get(self._log.journal) for hold in control.holds()]
        return min([place.seq if place is not None else 0 for place in places], default=None)

    async def _let_go(self, history: History, pressed: bool) -> None:
        log = self._log
        rule, now_us, held_seq = log.options.retention_of, log.writer.clock.now_us(), self._held_seq()
        for name in history.collections():
            later = [s for s in list(log.writer.segments) if s.last_seq > history.sealed_seq]
            drop = fragments_to_drop(
                history.of(name),
                rule=rule(name),
                held_seq=held_seq,
                newer_bytes=sum(s.collections.get(name, (0, 0, 0))[2] for s in later),
                now_us=now_us,
                pressed=pressed,
            )
            if drop:
                await anyio.to_thread.run_sync(history.replace, (), drop, {name: drop[-1].newest_seq})
        open_segnos = [t.first_segno for t in log.open_transactions.values() if t.first_segno is not None]
        segments = segments_to_drop(
            list(log.writer.segments),
            rule=rule,
            held_seq=held_seq,
            sealed_seq=history.sealed_seq,
            open_segno=min(open_segnos, default=None),
            remembered=lambda name: bool(history.of(name)),
            now_us=now_us,
            pressed=pressed,
        )
        for segment in segments:
            await self._drop(history, segment)

    async def _drop(self, history: History, segment: Segment) -> None:
        trims: dict[str, int] = {}
        if segment.last_seq > history.sealed_seq:
            trims = dict.fromkeys(segment.collections, segment.newest_seq)
        await anyio.to_thread.run_sync(history.replace, (), (), trims)
        await self._log.work(lambda: self._log.writer.drop(segment))

    async def _make_fragments(self, history: History) -> bool:
        """Take apart what is old enough. True when anything was: its segments can go."""
        log = self._log
        after_s = log.options.fragments_after_s
        if after_s is None:
            return False
        sealed_seq = history.sealed_seq
        for segment in list(log.writer.segments):
            if not segment.sealed or log.writer.clock.now_us() - segment.last_us < after_s * 1e6:
                break
            if segment.last_seq > history.sealed_seq:
                await anyio.to_thread.run_sync(take_apart, log, history, segment)
        return history.sealed_seq > sealed_seq

    async def _rewrite_fragments(self, history: History) -> None:
        """Compact or merge, at most one rewrite of each collection a look."""
        log = self._log
        for name in history.collections():
            now_us = log.writer.clock.now_us()
            chosen = fragments_to_compact(history.of(name), log.options.retention_of(name), now_us)
            key = key_fields(log.schema(name)) if chosen else ()
            if key:
                await self._compact(history, name, chosen, key, now_us)
                continue
            run = fragments_to_merge(history.of(name), log.options.fragment_bytes)
            if run:
                await anyio.to_thread.run_sync(merge, history, run)

    async def _compact(
        self, history: History, name: str, chosen: Sequence[Fragment], key: Sequence[str], now_us: int
    ) -> None:
        options = self._log.options

        def call() -> None:
            rule, keys_max = options.retention_of(name), options.compact_keys_max
            compact(history, chosen, rule, key=key, now_us=now_us, keys_max=keys_max)

        about = f"compaction of {name}"
        try:
            await anyio.to_thread.run_sync(call)
            self.alarms.pop(about, None)
        except TooManyKeys as error:
            self.alarms[about] = str(error)
