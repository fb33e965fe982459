"""The durable log of one process: many tasks append, one committer writes, readers follow.

Everything that queued while the last sync ran goes into one write and one sync, in one hop to a thread; there is
no linger. The one rule: nobody sees, acknowledges or commits a frame before it is durable at the configured level.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread

from hub.errors import FatalError, Full, LogError, Poisoned
from hub.log.clock import steady_us, wall_us
from hub.log.frame import VISIBLE, Kind
from hub.log.fs import FS, OsFS, refuse_unsafe
from hub.log.group import Group, Stats, Waiting
from hub.log.history import History
from hub.log.identity import journals, remembered, writable
from hub.log.journal import Frame, Journal
from hub.log.keeper import Keeper
from hub.log.large import LargeTransaction
from hub.log.options import LogOptions
from hub.log.recovery import Recovered, open_journal, report_lines
from hub.log.state import CollectionInfo
from hub.log.tail import Entry, Tail
from hub.log.transaction import (
    Encoded,
    Transaction,
    charged,
    check_record_sizes,
    encode_transaction,
    is_small,
)
from hub.log.waiters import Waiters
from hub.log.watermark import WatermarkWriter
from hub.log.witness import Witness
from hub.record import Cursor, Place

if TYPE_CHECKING:
    from hub.control import Control
    from hub.log.reader import Reader

T = TypeVar("T")

logger = logging.getLogger("hub.log")

INLINE_BYTES = 32 << 10
"""Transactions smaller than this are encoded where they stand: a hop to a thread would cost more."""

CLOSE_WAIT_S = 10.0
"""How long closing waits for what is queued."""


class Log:
    """One journal, open for writing. `async with Log.open(…) as log`."""

    learns = False

    def __init__(
        self,
        journal: Journal,
        *,
        path: Path,
        name: str,
        options: LogOptions,
        fs: FS,
        control: Control | None,
        report: Recovered,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.journal = name
        self.options = options
        self.recovered = report
        self.stats = Stats()
        self.fs = fs
        self.writer = journal
        self.tail = Tail(journal.next_seq, options.tail_bytes)
        self.control = control
        self.history = History(fs, path / "fragments" / name, name, control) if control is not None else None
        self.keeper = Keeper(self)
        self.witness = Witness(self)
        self._end = Place(journal.epoch, journal.written_seq)
        self._watermark = WatermarkWriter(journal.directory) if isinstance(fs, OsFS) else None
        self._group = Group()
        self._queued_bytes = 0
        self._new_answer = loop.create_future
        self._drained = Waiters(loop)
        self._awake = Waiters(loop)
        self._moved = Waiters(loop)
        self._closing = False
        self._house_kept = anyio.Event()
        self._transactions = 0
        self._inline_bytes = min(INLINE_BYTES, options.max_record_bytes)
        self._tokens: dict[tuple[str, bytes], anyio.Event] = {}
        """Tokens of appends that wait for the disk."""
        self.open_transactions: dict[int, LargeTransaction] = {}
        # One thread at a time touches the journal: this is what keeps it in order.
        self._hand = anyio.CapacityLimiter(1)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        options: LogOptions | None = None,
        *,
        control: Control | None = None,
        journal: str = "main",
        fs: FS | None = None,
        wall: Callable[[], int] = wall_us,
        steady: Callable[[], int] = steady_us,
    ) -> AsyncIterator[Log]:
        """Lock, recover and serve a journal of the data directory `path` for as long as the block runs.

        `journal` says what it is for; its whole name has a part of its own (`hub.log.identity`).

        Raises FatalError naming the owner when another process has it, Corrupt when acknowledged data are damaged
        or missing, ConfigError for a file system that cannot keep a log's word.
        """
        options = options or LogOptions()
        fs = fs or OsFS()
        loop = asyncio.get_running_loop()

        def recover() -> tuple[int, Log]:
            known = remembered(path, control.witnessed() if control is not None else ())
            name = writable(journals(path), known, journal, os.urandom)
            directory = path / "journal" / name
            fs.mkdir(directory)
            if not options.allow_unsafe_filesystem and isinstance(fs, OsFS):
                refuse_unsafe(directory)
            lock = fs.lock(directory / "LOCK", f"pid {os.getpid()} on {socket.gethostname()}")
            try:
                cap = options.cap_bytes
                segment_bytes = options.segment_bytes if cap is None else min(options.segment_bytes, cap // 4)
                made: list[Log] = []
                writer, report = open_journal(
                    fs,
                    directory,
                    segment_bytes=segment_bytes,
                    syncing=options.durability == "disk",
                    wall=wall,
                    steady=steady,
                    room=lambda size: cap is None or not made or made[0].used_bytes + size <= cap,
                )
                log = cls(
                    writer,
                    path=path,
                    name=name,
                    options=options,
                    fs=fs,
                    control=control,
                    report=report,
                    loop=loop,
                )
                made.append(log)
                log.witness.check()
                if log.history is not None:
                    log.history.load(writer.oldest_seq)
            except BaseException:
                fs.close(lock)
                raise
            return lock, log

        try:
            lock, log = await anyio.to_thread.run_sync(recover)
        except OSError as refused:
            raise FatalError(
                f"{refused.filename or path}: the log cannot be opened: {refused.strerror or refused}"
            ) from refused
        for text in report_lines(log.recovered, log.writer.directory, log.options.durability):
            logger.warning("%s", text)
        log._publish_watermark()
        error: Exception | None = None
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(log._commit_forever)
                house = anyio.CancelScope()
                group.start_soon(log._keep_house, house)
                try:
                    yield log
                except Exception as caught:
                    # Raised again outside the group, which would wrap it in another.
                    error = caught
                finally:
                    with anyio.CancelScope(shield=True):
                        house.cancel()
                        await log._close()
                    group.cancel_scope.cancel()
            if error is not None:
                raise error
        finally:
            fs.close(lock)

    @property
    def end(self) -> Place:
        """The newest durable frame. Nothing after it is ever handed out."""
        return self._end

    @property
    def oldest_seq(self) -> int:
        """The oldest frame of which anything is kept."""
        base = self.writer.oldest_seq
        remembered = self.history.first_seq if self.history is not None else None
        return base if remembered is None else min(base, remembered)

    @property
    def used_bytes(self) -> int:
        """Disk used by segments, the live one at its allocated size, and fragments."""
        return self.writer.used_bytes + (self.history.used_bytes if self.history is not None else 0)

    @property
    def fill(self) -> float:
        """Used part of the cap; 0 without one."""
        cap = self.options.cap_bytes
        return self.used_bytes / cap if cap else 0.0

    @property
    def queued_bytes(self) -> int:
        """Bytes of appends that wait for the disk."""
        return self._queued_bytes

    def position(self, task: str) -> bytes | None:
        """The newest durable position of a task."""
        return self.writer.state.positions.get(task)

    def note(self, task: str) -> bytes | None:
        """The newest durable note of a task: what it keeps beside its position."""
        return self.writer.state.notes.get(task)

    def schema(self, collection: str) -> bytes | None:
        """The newest durable schema text of a collection."""
        return self.writer.state.schemas.get(collection)

    def collections(self) -> Mapping[str, CollectionInfo]:
        """Every collection ever appended to: its records, raw bytes and last time."""
        return dict(self.writer.state.collections)

    async def append(self, transaction: Transaction) -> Place:
        """Make a transaction durable as a whole. Returns when it is, at the configured level.

        Waits while the queue is full: that is the backpressure. A token that is remembered writes nothing and
        returns the place it stands at. Raises Full when there is no room (nothing was written; `room` waits for it),
        Poisoned when only a new open helps, RecordError for a record above the limit. When it is cancelled the
        transaction is durable or absent, as a whole.
        """
        if is_small(transaction.items, self._inline_bytes):
            body = self._encode(transaction)
        else:
            body = await self.encode(transaction)
        if transaction.token is not None:
            known = await self._written_already(transaction.task, transaction.token, body.length)
            if known is not None:
                return known
        frame = await self.enqueue(Kind.TRANSACTION, body)
        return Place(self.writer.epoch, frame.seq)

    async def _written_already(self, task: str, token: bytes, length: int) -> Place | None:
        """Where the transaction with this token stands. Waits for one on its way, and for room in the queue:
        when it answers None, the caller may queue its own before anybody else does."""
        while True:
            known = self.writer.state.tokens.get((task, token))
            if known is not None:
                return Place(*known)
            under_way = self._tokens.get((task, token))
            if under_way is not None:
                await under_way.wait()
            elif self._is_queue_full(length):
                await self._drained.wait()
            else:
                return None

    def begin(self, task: str) -> LargeTransaction:
        """Begin a transaction larger than memory, or than `max_transaction_bytes`."""
        self._transactions += 1
        begun = LargeTransaction(self, task, self._transactions)
        self.open_transactions[begun.txn_id] = begun
        return begun

    def _encode(self, transaction: Transaction, **large: Any) -> Encoded:
        options = self.options
        return encode_transaction(
            transaction, level=options.compression_level, compress_from=options.compress_from_bytes, **large
        )

    async def encode(self, transaction: Transaction, **large: Any) -> Encoded:
        """The payload of a transaction of any size, compressed in a thread. Checks the limits."""
        limit = self.options.max_record_bytes
        size = charged(transaction.items)
        if size > limit:
            check_record_sizes(transaction.items, limit)
        if size > self.options.max_transaction_bytes + limit:
            raise LogError(
                f"task {transaction.task!r}: a transaction of {size} bytes exceeds log.max_transaction_bytes "
                f"({self.options.max_transaction_bytes}); begin it as a large one"
            )
        return await anyio.to_thread.run_sync(lambda: self._encode(transaction, **large))

    async def enqueue(self, kind: int, body: Encoded) -> Frame:
        """Queue a frame for the committer and wait until it is durable: it then says where it lies."""
        length = body.length
        while self._is_queue_full(length):
            await self._drained.wait()
        if self._closing:
            raise LogError("the log is closed")
        frame = Waiting(kind, body, self._new_answer())
        group = self._group
        if not group.frames:
            self._awake.wake()
        group.frames.append(frame)
        self._queued_bytes += length
        head = body.head
        if head.token is not None:
            self._tokens[head.task, head.token] = group.done
        await frame.answer
        if frame.error is not None:
            raise type(frame.error)(*frame.error.args) from frame.error
        return frame

    def _is_queue_full(self, length: int) -> bool:
        return self._queued_bytes > 0 and self._queued_bytes + length > self.options.queue_bytes

    async def room(self, timeout_s: float = 1.0) -> None:
        """Wait until something was let go, or for a while: after Full, before the next try."""
        with anyio.move_on_after(timeout_s):
            await self.keeper.made_room.wait()

    def reader(
        self,
        name: str,
        *,
        wanted: Callable[[str], bool] = lambda _: True,
        start: Cursor = Cursor.START,
        credit_bytes: int = 32 << 20,
    ) -> Reader:
        """A reader from a cursor on. See Reader."""
        from hub.log.reader import Reader

        return Reader(self, name, wanted=wanted, start=start, credit_bytes=credit_bytes)

    async def wait_beyond(self, seq: int) -> None:
        """Wait until a frame after `seq` is durable. Raises Poisoned when there will be none."""
        while self._end.seq <= seq:
            if self.writer.poisoned is not None:
                self.writer.check()
            await self._moved.wait()

    async def roll(self) -> None:
        """Seal the live segment and start the next, so that retention and fragments can get at it."""

        def call() -> None:
            self.writer.roll()
            self._publish_watermark()

        await self.work(call)
        self.announce()

    async def work(self, call: Callable[[], T]) -> T:
        """Run something that touches the journal's files, in a thread, in turn with the committer."""
        return await anyio.to_thread.run_sync(call, limiter=self._hand)

    async def _commit_forever(self) -> None:
        mark_after_s = self.options.mark_after_s
        marked = True
        while True:
            if not self._group.frames:
                with anyio.move_on_after(None if marked else mark_after_s):
                    await self._awake.wait()
                if not self._group.frames:
                    marked = await self._mark()
                    continue
            group, self._group = self._group, Group()
            size = self._queued_bytes
            self._queued_bytes = 0
            self._drained.wake()
            await self._commit(group, size)
            marked = False

    async def _commit(self, group: Group, size: int) -> None:
        """Write one group in one hop, then wake its appenders in order, then the readers."""
        frames = group.frames
        done, error, took_s = await self.work(lambda: self._write(frames))
        if took_s > 1.0:
            logger.warning("the disk took %.1f s for a group of %d bytes", took_s, size)
        self.stats.groups += 1
        self.stats.group_s += took_s
        self._publish(frames[:done] if error is not None else frames)
        if isinstance(error, Full):
            self.stats.full += 1
            self.keeper.press()
        if self._tokens:
            self._tokens = {key: done for key, done in self._tokens.items() if done is not group.done}
        group.answer(done, error)
        self.announce()

    def _write(self, frames: Sequence[Frame]) -> tuple[int, Exception | None, float]:
        started = steady_us()
        done = 0
        error: Exception | None = None
        try:
            while done < len(frames):
                done += self.writer.write(frames, done)
        except (Full, Poisoned) as caught:
            error = caught
        if done:
            self._publish_watermark()
        return done, error, (steady_us() - started) / 1e6

    def _publish(self, frames: Sequence[Frame]) -> None:
        """Put durable transactions where readers find them."""
        stats, epoch = self.stats, self.writer.epoch
        records = raw_bytes = stored_bytes = 0
        entries: list[Entry] = []
        for frame in frames:
            body = frame.body
            stored_bytes += body.length
            raw_bytes += body.size
            records += body.records
            if frame.kind in VISIBLE:
                head = body.head
                entries.append(
                    Entry(Place(epoch, frame.seq), head.task, frame.ts_us, body.items, body.size, head.parts)
                )
        self.tail.extend(entries)
        stats.transactions += len(frames)
        stats.records += records
        stats.raw_bytes += raw_bytes
        stats.stored_bytes += stored_bytes

    def announce(self) -> None:
        """Let readers of this process go on."""
        self._end = Place(self.writer.epoch, self.writer.written_seq)
        self._moved.wake()

    def _publish_watermark(self) -> None:
        """Let readers in other processes go on. Called where the sync returned: a hop earlier than anywhere else."""
        if self._watermark is not None:
            try:
                self._watermark.publish(self.writer.epoch, self.writer.written_seq)
            except OSError as error:
                logger.warning("%s: readers in other processes see new records later", error)

    async def _mark(self) -> bool:
        if self._closing:
            return True

        def call() -> None:
            self.writer.mark()
            self._publish_watermark()

        try:
            await self.work(call)
        except (Full, Poisoned):
            logger.exception("the last group could not be attested")
        self.announce()
        return True

    async def _keep_house(self, house: anyio.CancelScope) -> None:
        """What runs beside the committer, until the log closes."""
        with house:
            async with anyio.create_task_group() as group:
                group.start_soon(self.witness.beat)
                group.start_soon(self.keeper.run)
        self._house_kept.set()

    async def _close(self) -> None:
        """Commit what is queued, seal, write the witness."""
        self._closing = True
        # Cancelled from outside, the committer is gone already and nothing will be committed: that is a crash.
        with anyio.move_on_after(CLOSE_WAIT_S):
            await self._house_kept.wait()
            while self._group.frames and self.writer.poisoned is None:
                await self._group.done.wait()
        await self.work(self.writer.close)
        self._end = Place(self.writer.epoch, self.writer.written_seq)
        self._publish_watermark()
        if self._watermark is not None:
            self._watermark.close()
            self._watermark = None
        await self.witness.note()
