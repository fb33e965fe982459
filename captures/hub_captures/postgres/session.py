"""One run of the capture: the stream, the copies beside it, and what is told to the server.

One task sends, so that the order of everything is plain to see: it clears the obstacles that the stream met,
hands over whole transactions, and in between, with the stream held between two transactions, reads the
next chunk of a table. Two others tell the server what is durable, and look after gauges and new tables.
"""

from __future__ import annotations

import time
from functools import partial

import anyio
import anyio.lowlevel
import msgspec

from hub.capture import Outlet
from hub.errors import FatalError, HubError, TransientError
from hub.record import Batch
from hub_captures.postgres.answers import Answers
from hub_captures.postgres.capture import PostgresCapture
from hub_captures.postgres.connection import Connection, rows, sqlstate_of
from hub_captures.postgres.copier import Copier
from hub_captures.postgres.feed import Feed
from hub_captures.postgres.layout import Layouts
from hub_captures.postgres.ledger import Ledger, messages_of
from hub_captures.postgres.pgoutput import keepalive
from hub_captures.postgres.position import PostgresPosition, Visibility, lsn_text
from hub_captures.postgres.ranges import Ranges
from hub_captures.postgres.server import drop_slot, publication_option
from hub_captures.postgres.start import Prepared, prepare, without_publication
from hub_captures.postgres.types import PgType
from hub_captures.postgres.upkeep import Upkeep
from hub_captures.postgres.wire import ChangeStream

FEEDBACK_POLL_S = 0.5
"""How soon the server hears that more is durable."""
COPY_STATUS_S = 1.0
"""How often the server is asked where it stands while a copy waits for the stream, or more is durable."""
IDLE_POSITION_S = 10.0
IDLE_POSITION_BYTES = 1 << 20
"""While nothing is captured, the position is moved on after so long or so much WAL of others."""
SEND_GAP_S = 0.002
SEND_BYTES = 512 << 10
"""What comes within so short a time of the last hand-over is gathered, up to so much: a hand-over costs the main thread 85 µs,
and a busy stream had a thousand in a second, with as many frames of the log."""
REPLAY_BYTES = 128 << 10
"""So much of a spooled transaction is handled before others get a turn."""
MARK_S = 1.0
"""How often an idle server is made to flush while a copy waits for it."""
STREAM_IDLE_S = 0.004
"""A stream that brings nothing for so long gives its turn to the copy."""
WATCHDOG_S = 90.0
"""A server that says nothing for so long, though asked, is taken for dead. One that decodes a large transaction of other
tables looks at what it was asked after half of wal_sender_timeout, 60 s, and would begin anew with each connection."""
COPY_RETRY_S = 0.01
GIVE_BACK_BYTES = 128 << 20
"""libpq keeps its buffer as large as the largest row ever was; after a larger one than this the stream begins anew."""
UNDEFINED_OBJECT = "42704"
"""What an open stream ends with when it meets a change that was made without the publication."""
UNDECIDED_MAX = 256
"""Of more transactions than this those are forgotten that every snapshot sees by now: all of them go into each position."""
GAUGES_S = 10.0
"""How often the server is asked how the slot does."""


async def run(
    capture: PostgresCapture, resume: PostgresPosition | None, out: Outlet[PostgresPosition]
) -> None:
    """Capture until cancelled, or until a source that is read once has been read."""
    server = capture.server(out.task)
    async with server.connected() as query, server.connected(replication=True) as wire:
        prepared = await prepare(capture, resume, out, query, wire)
        if prepared is None:
            return
        ranges = Ranges(server, out.task, capture.workers) if capture.workers > 1 else None
        async with server.connected() as copying:
            session = Session(capture, out, query, copying, ranges, prepared)
            try:
                await session.run(wire)
            except FatalError as error:
                if not session.lacked_publication:
                    raise
                raise await without_publication(capture, out, query, prepared.slot, error) from error
            finally:
                if ranges is not None:
                    ranges.close()
    if capture.snapshot == "only":
        async with server.connected() as query:
            await drop_slot(query, prepared.slot)


class Session:
    """The state of one run."""

    def __init__(
        self,
        capture: PostgresCapture,
        out: Outlet[PostgresPosition],
        query: Connection,
        copying: Connection,
        ranges: Ranges | None,
        prepared: Prepared,
    ) -> None:
        self._capture = capture
        self._out = out
        self._query = query
        self._identity = prepared.identity
        self._tables = prepared.tables
        self._publication = prepared.publication
        self._slot = prepared.slot
        self._stale = prepared.stale
        types: dict[int, PgType] = {}
        self._layouts = Layouts(out, query, types)
        self._upkeep = Upkeep(
            capture, out, query, self._tables, types, is_standby=prepared.identity.is_standby
        )
        self._feed = Feed(
            messages_of(out.task) if capture.messages else None,
            Ledger(out.task) if capture.transactions else None,
            lsn=prepared.lsn,
            start_lsn=prepared.start_lsn,
            record_bytes_max=capture.max_record,
            may_omit=capture.on_oversized == "omit",
        )
        self._copier = Copier(
            capture,
            out,
            copying,
            self._tables,
            self._feed,
            types,
            self._layouts.of_tables,
            self._upkeep.altered,
            ranges,
            is_standby=prepared.identity.is_standby,
        )
        self._answers = Answers(query, self._tables, self._feed, self._layouts, self._upkeep)
        self._two_phase = prepared.two_phase
        self._feed.judge.undecided = set(prepared.xids)
        self._undecided_max = UNDECIDED_MAX
        self._idle_lsn = prepared.lsn
        self._sent_lsn = prepared.lsn
        self._sent_at = time.monotonic()
        self._wake = anyio.Event()
        self._reply_wanted = False
        self._failure: Exception | None = None
        self._stream: ChangeStream
        self._turn_ends_at = 0.0
        self._is_backlogged = False
        self._refresh_due = True
        self._marked_at = 0.0

    async def run(self, wire: Connection) -> None:
        """Start the stream and keep at it."""
        self._stream = ChangeStream(
            wire,
            partial(self._feed.messages, aside=self._aside),
            self._feed.large,
            self._after,
            bytes_max=self._capture.max_record,
        )
        try:
            await self._stream.start(self._start_command())
            async with anyio.create_task_group() as group:
                group.start_soon(self._feedback)
                group.start_soon(self._look_after)
                try:
                    self._stream.resume()
                    await self._pump()
                    await self._out.send(
                        [], msgspec.structs.replace(self._position(self._feed.lsn), done=True)
                    )
                    await self._out.settle()
                except HubError as error:
                    self._failure = error
                group.cancel_scope.cancel()
        finally:
            self._stream.close()
            self._feed.spool.close()
        if self._failure is not None:
            raise self._failure

    @property
    def lacked_publication(self) -> bool:
        """The stream has ended at a change that was made while there was no publication."""
        failure = self._stream.failure
        return failure is not None and sqlstate_of(failure) == UNDEFINED_OBJECT

    def _start_command(self) -> str:
        version = self._query.info.server_version // 10000
        options = [f"publication_names {publication_option(self._publication)}"]
        protocol = 3 if self._two_phase else 2 if self._capture.streaming else 1
        options.append(f"proto_version '{protocol}'")
        if version >= 14:
            options.append("messages 'on'")
        if self._capture.streaming:
            options.append("streaming 'on'")
        if self._two_phase:
            options.append("two_phase 'on'")
        if self._capture.origin == "none":
            options.append("origin 'none'")
        return f'START_REPLICATION SLOT "{self._slot}" LOGICAL {lsn_text(self._feed.start_lsn)} ({", ".join(options)})'

    def _aside(self, b: bytes) -> None:
        """A message of the replication protocol itself, in the callback of the stream."""
        found = keepalive(b)
        if self._feed.begin is None:
            # All that has committed before has been sent before.
            self._idle_lsn = found.wal_end
        self._reply_wanted |= found.wants_reply

    def _after(self, got: int) -> None:
        """The stream has brought something, or has ended."""
        self._feed.bytes += got
        if self._feed.bytes > self._capture.buffer and not self._stream.is_paused:
            self._stream.pause()
            self._is_backlogged = True
        self._wake.set()

    async def _pump(self) -> None:
        """Send what there is, copy what is left to copy, for ever; or until all is copied that is read once."""
        feed = self._feed
        while not (self._capture.snapshot == "only" and self._is_at_rest()):
            self._wake = anyio.Event()
            if self._stream.failure is not None:
                raise self._stream.failure
            if self._failure is not None:
                raise self._failure
            if feed.obstacle is not None:
                if (
                    await self._answers.clear()
                    and not feed.is_replaying
                    and not (feed.hold and feed.begin is None)
                ):
                    self._stream.resume()
            elif self._gathers():
                await anyio.sleep(SEND_GAP_S)
            elif feed.has_committed:
                await self._send(whole=True)
            elif feed.bytes > self._capture.batch:
                # A piece of a large transaction; or much that was left to the copy, behind which to move.
                await self._send(whole=feed.begin is None)
            elif feed.is_replaying:
                feed.replay(REPLAY_BYTES)
                await anyio.lowlevel.checkpoint()
                if not feed.is_replaying and not feed.hold:
                    self._stream.resume()
            elif self._refresh_due and feed.begin is None:
                self._refresh_due = False
                await self._answers.refresh()
            elif await self._copy_turn():
                continue
            else:
                await self._move_idle_position()
                with anyio.move_on_after(STREAM_IDLE_S if feed.hold or self._wants_copy() else 1.0):
                    await self._wake.wait()
                    continue
                if self._wants_copy():
                    self._turn_ends_at = 0.0
            if self._is_backlogged and feed.bytes <= self._capture.buffer // 2:
                self._is_backlogged = False
                self._stream.resume()

    def _gathers(self) -> bool:
        """There is something to send, and there may soon be more to send with it."""
        return (
            self._feed.has_committed
            and self._feed.bytes < SEND_BYTES
            and not self._stream.is_paused
            and time.monotonic() - self._sent_at < SEND_GAP_S
        )

    def _is_at_rest(self) -> bool:
        """Every table is followed, and all that was gathered is sent."""
        at_rest = self._feed.begin is None and not self._feed.has_committed and self._feed.obstacle is None
        return at_rest and not self._tables.is_copying

    async def _send(self, *, whole: bool) -> None:
        """Hand over what was gathered: whole transactions, or a piece of one that is too big to wait for."""
        if whole and len(self._feed.judge.undecided) > self._undecided_max:
            await self._forget_seen()
        # The position belongs to what is taken, so that nothing may happen between the two.
        lsn = self._feed.lsn
        self._settle(lsn)
        position = self._position(lsn) if whole else None
        taken = self._feed.take(whole=whole)
        batches: list[Batch] = []
        for schema, batch in taken:
            if not self._layouts.is_described(schema):
                if batches:
                    await self._out.send(batches, None)
                    batches = []
                await self._layouts.describe(schema)
            batches.append(batch)
        if batches or whole:
            await self._out.send(batches, position, self._tables.due_note() if whole else None)
        if whole:
            self._sent_lsn, self._sent_at = lsn, time.monotonic()
            if self._feed.judge.largest > GIVE_BACK_BYTES and self._feed.begin is None:
                # Not before it is durable, or the same row would come again, and again.
                await self._out.settle()
                raise TransientError(
                    f"a row of {self._feed.judge.largest} bytes has left a buffer of its size, which only a new connection "
                    "gives back"
                )

    async def _forget_seen(self) -> None:
        """A copy may have to wait for one old transaction, and meanwhile others touch its table by the thousand. Whom a
        snapshot sees, all later ones do; and on a standby, which shows what it has replayed, they do from the start."""
        query = "select pg_current_snapshot()::text, pg_is_in_recovery()"
        ((text, is_standby),) = await rows(self._query, "taking a snapshot", query)
        visibility, undecided = Visibility.parse(text), self._feed.judge.undecided
        undecided -= {xid for xid in undecided if is_standby or visibility.sees(xid)}
        self._undecided_max = UNDECIDED_MAX + 2 * len(undecided)

    def _position(self, lsn: int) -> PostgresPosition:
        identity = self._identity
        return self._tables.position(
            identity.system_id,
            identity.timeline,
            identity.database_oid,
            self._slot,
            lsn,
            sorted(self._feed.judge.undecided),
            self._feed.prepared_lsn,
        )

    def _settle(self, lsn: int) -> None:
        """Tables whose copy no change of the stream can meet any more are followed."""
        settled = self._tables.settle(lsn)
        for oid, tracked in settled:
            gathered = self._feed.tables.get(oid.to_bytes(4))
            if gathered is not None:
                gathered.handover = None
            if tracked.table is not None:
                self._tables.follow(oid, tracked.table.followed)
        names = [tracked.table.full_name for _, tracked in settled if tracked.table is not None]
        if names:
            self._out.notice("copied", tables=len(names), first=names[0])

    async def _move_idle_position(self) -> None:
        """Others write WAL, or a copy waits for the stream to pass it: say so, as nothing is pending."""
        lsn = max(self._idle_lsn, self._feed.lsn)
        if self._feed.begin is not None or self._feed.has_committed:
            return
        awaiting = self._tables.awaiting_stream()
        has_awaited = any(handover.has_awaited(lsn) for handover in awaiting)
        now = time.monotonic()
        if awaiting and not has_awaited and now - self._marked_at > MARK_S:
            self._marked_at = now
            await self._upkeep.mark()
            return
        moved = lsn - self._sent_lsn
        if (
            has_awaited
            or moved > IDLE_POSITION_BYTES
            or (moved and time.monotonic() - self._sent_at > IDLE_POSITION_S)
        ):
            self._feed.lsn = lsn
            await self._send(whole=True)

    def _wants_copy(self) -> bool:
        return bool(self._copier.next())

    async def _copy_turn(self) -> bool:
        """Read the next chunk, when there is one and it is its turn. False when there is nothing to do yet."""
        chosen = self._copier.next()
        if not chosen:
            self._release()
            return False
        if time.monotonic() < self._turn_ends_at:
            return False
        self._feed.hold = True
        if self._feed.begin is None:
            self._stream.pause()
        if not self._stream.is_paused or self._feed.begin is not None:
            return False

        def account() -> PostgresPosition:
            self._sent_lsn, self._sent_at = self._feed.lsn, time.monotonic()
            return self._position(self._feed.lsn)

        began = time.monotonic()
        has_read = await self._copier.turn(chosen, account)
        now = time.monotonic()
        self._turn_ends_at = now + (now - began if has_read else COPY_RETRY_S)
        if self._copier.holds:
            self._turn_ends_at = now
        else:
            self._release()
        return True

    def _release(self) -> None:
        if self._feed.hold:
            self._feed.hold = False
            self._stream.resume()

    async def _look_after(self) -> None:
        """Gauges, and now and then a look at the catalog."""
        refresh_at = time.monotonic() + self._capture.refresh_interval
        while True:
            try:
                await self._upkeep.gauges(self._slot)
            except HubError as error:
                self._failure = error
                self._wake.set()
                return
            now = time.monotonic()
            if now >= refresh_at:
                refresh_at = now + self._capture.refresh_interval
                self._refresh_due = True
                self._wake.set()
            await anyio.sleep(min(self._capture.refresh_interval, GAUGES_S))

    async def _feedback(self) -> None:
        """Tell the server what is durable: when asked, when it moved, and at least every interval."""
        told_at, told = 0.0, -1
        asked_at: float | None = None
        while True:
            now = time.monotonic()
            position = self._out.durable
            if position is self._stale:
                position = None
            durable = position.resend_lsn if position is not None else 0
            is_all = position is not None and position.lsn == self._feed.lsn
            is_behind = bool(self._tables.awaiting_stream()) or (durable != told and is_all)
            interval = COPY_STATUS_S if is_behind else self._capture.status_interval
            if self._reply_wanted or now - told_at >= interval:
                self._reply_wanted = False
                received = max(self._feed.lsn, self._idle_lsn)
                self._stream.confirm(received=received, durable=durable, wants_reply=True)
                told_at, told = now, durable
                asked_at = asked_at if asked_at is not None and asked_at > self._stream.received_at else now
            is_unanswered = asked_at is not None and asked_at > self._stream.received_at
            silent_s = now - asked_at if asked_at is not None and is_unanswered else 0.0
            if silent_s > WATCHDOG_S and not self._stream.is_paused:
                self._failure = TransientError(f"the server has not answered for {silent_s:.0f} s")
                self._wake.set()
                return
            self._out.gauge("stream_wake_ups_total", self._stream.wake_ups)
            self._out.gauge("spooled_bytes", self._feed.spool.size)
            prepared_lsn = self._feed.prepared_lsn
            self._out.gauge("prepared_transactions", self._feed.spool.prepared)
            self._out.gauge(
                "prepared_lag_bytes", max(0, self._idle_lsn - prepared_lsn) if prepared_lsn is not None else 0
            )
            self._out.gauge("oversized_records_total", self._feed.judge.oversized)
            await anyio.sleep(FEEDBACK_POLL_S)
