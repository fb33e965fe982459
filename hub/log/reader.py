"""A reader: durable transactions after a cursor, in order, as many bytes as it has credit for.

It reads from memory where it keeps up and from the files where it does not, and its caller cannot tell which. It
never passes the log's durable end, and it never skips: a cursor the log cannot honour is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import anyio
import anyio.to_thread

from hub.errors import LogError, TransientError
from hub.log.replay import Gap, Read, frames_after, pieces, schemas_before
from hub.log.tail import Entry
from hub.log.transaction import Committed, Item, Schema, bytes_only
from hub.record import Batch, Cursor, Place

if TYPE_CHECKING:
    from hub.log.replay import Readable


logger = logging.getLogger("hub.log")


class LostData(LogError):
    """A reader is ahead of the log: the log lost acknowledged data."""


class _Step(NamedTuple):
    """A frame passed: what was wanted of it, and where the reader stands after it (None: still within it)."""

    committed: Committed | None
    place: Place | None


class Reader:
    """Reads the wanted collections from a cursor on.

    `cursor` stands after the last transaction handed out by `read`, past frames nothing was wanted of. Every byte
    handed out is taken from the credit until `release` gives it back; without credit `read` waits.

    A reader first gets one transaction (task "") with the newest schema of each wanted collection as of its
    cursor, where there are any. A reader whose cursor does not name the journal starts with the oldest frame kept.
    """

    def __init__(
        self, log: Readable, name: str, *, wanted: Callable[[str], bool], start: Cursor, credit_bytes: int
    ) -> None:
        self.name = name
        self.cursor = start
        self.credit_bytes = credit_bytes
        self.outstanding_bytes = 0
        self._log = log
        self._wanted = _remembering(wanted)
        self._released = anyio.Event()
        self._disk: Iterator[_Step] | None = None
        self._spare: _Step | None = None
        self._greeted = False
        place = start.journals.get(log.journal)
        if place is not None:
            check_place(log, name, place)
            self._seq = place.seq
        else:
            self._seq = log.oldest_seq - 1
        self._from_start = place is None

    @property
    def lag_frames(self) -> int:
        """Frames between this reader and the end."""
        return max(0, self._log.end.seq - self._seq)

    async def read(self, max_bytes: int = 8 << 20) -> Sequence[Committed]:
        """The next durable transactions with anything wanted: as many as fit, at least one.

        Waits for the first. Returns nothing, once, when only the cursor moved and the end is reached. Raises Gap
        when what comes next has been let go, Corrupt when it is damaged, Poisoned when the writer has failed and
        all that is durable has been read.
        """
        while self.outstanding_bytes and self.outstanding_bytes >= self.credit_bytes:
            self._released = anyio.Event()
            await self._released.wait()
        budget = min(max_bytes, max(self.credit_bytes - self.outstanding_bytes, 1))
        if not self._greeted:
            first = await anyio.to_thread.run_sync(self._schemas)
            self._greeted = True
            if first is not None:
                return self._hand_out([first])
        before = self._seq
        while True:
            if self._disk is None and self._seq + 1 >= self._log.tail.first_seq:
                found = self._from_tail(budget)
            else:
                found = await anyio.to_thread.run_sync(self._from_disk, budget)
            if found:
                return self._hand_out(found)
            if self._disk is None and self._seq >= self._log.end.seq:
                if self._seq > before:
                    return ()
                await self._log.wait_beyond(self._seq)

    def release(self, count: int) -> None:
        """Give back the credit of so many bytes."""
        self.outstanding_bytes -= count
        self._released.set()

    def close(self) -> None:
        """Let go of the files. The reader cannot be used after this."""
        if self._disk is not None:
            self._disk.close()  # type: ignore[attr-defined]

    def _hand_out(self, found: list[Committed]) -> Sequence[Committed]:
        for committed in found:
            for lost in committed.lost:
                logger.warning(
                    "reader %r passes the place of %d records of %r that are lost (frame %d, see `hub log repair`); "
                    "backfill what it feeds",
                    self.name,
                    lost.count,
                    lost.collection,
                    committed.place.seq,
                )
        self.outstanding_bytes += sum([c.size for c in found])
        return found

    def _move(self, place: Place) -> None:
        self._seq = place.seq
        self.cursor = self.cursor.moved(self._log.journal, place)

    def _schemas(self) -> Committed | None:
        """What holds already for a reader that starts here."""
        texts = schemas_before(self._log, self._seq + 1)
        items = [Schema(name, text) for name, text in texts.items() if self._wanted(name)]
        place = Place(self._log.writer.state.epoch_of(self._seq) or 0, self._seq)
        return Committed(self.cursor.journals.get(self._log.journal, place), "", 0, items) if items else None

    def _from_tail(self, budget: int) -> list[Committed]:
        """Transactions at hand: what was appended, but for decoded values."""
        log, wanted = self._log, self._wanted
        entries, end = log.tail.entries, log.end
        out: list[Committed] = []
        seq = self._seq
        while seq < end.seq and budget > 0:
            entry = entries.get(seq + 1)
            if entry is not None:
                if entry.parts is not None:
                    if not out:
                        self._disk = self._follow()
                    break
                items = _handed_over(entry, wanted)
                if items:
                    if out and entry.size > budget:
                        break
                    budget -= entry.size
                    out.append(Committed(entry.place, entry.task, entry.ts_us, items))
            seq += 1
        if seq > self._seq:
            # All of the tail was written by this process, so all of it is of one epoch.
            self._move(Place(end.epoch, seq))
        return out

    def _from_disk(self, budget: int) -> list[Committed]:
        """Transactions from the files. Blocks; runs in a thread."""
        if self._disk is None:
            self._disk = self._follow()
        out: list[Committed] = []
        while budget > 0:
            step = self._spare or self._next_step()
            self._spare = None
            if step is None:
                self._disk = None
                break
            if step.committed is not None:
                if out and step.committed.size > budget:
                    self._spare = step
                    break
                budget -= step.committed.size
                out.append(step.committed)
            if step.place is not None:
                self._move(step.place)
        return out

    def _next_step(self) -> _Step | None:
        assert self._disk is not None
        try:
            return next(self._disk, None)
        except OSError as error:
            self._disk = None
            raise TransientError(
                f"journal {self._log.journal!r}, after frame {self._seq}: {error.filename or 'a segment'} cannot be "
                f"read: {error.strerror}"
            ) from error

    def _follow(self) -> Iterator[_Step]:
        """Steps from the files, up to where memory takes over."""
        log, upto = self._log, self._log.end.seq
        while True:
            oldest = log.writer.segments[0].header.base_seq
            if self._seq + 1 < oldest and log.history is not None:
                kept = log.history.transactions(
                    self._seq, oldest - 1, self._wanted, from_start=self._from_start
                )
                for committed in kept:
                    yield _Step(committed, committed.place if committed.complete else None)
                # Nothing more is wanted up to the oldest segment; its epoch is not known, so the cursor stays.
                self._seq = max(self._seq, oldest - 1)
            try:
                for frame in frames_after(log, self._seq, upto):
                    yield from self._steps(frame)
            except Gap:
                # The segment went while it was waited for; what was in it may stand in fragments now.
                if log.history is None or self._seq + 1 >= log.writer.segments[0].header.base_seq:
                    raise
            else:
                return

    def _steps(self, frame: Read) -> Iterator[_Step]:
        last = None
        for committed in pieces(self._log, frame, self._wanted):
            if last is not None:
                yield _Step(last, None)
            last = committed
        yield _Step(last, Place(frame.found.header.epoch, frame.found.header.seq))


def check_place(log: Readable, name: str, place: Place) -> None:
    """Raises LostData when a reader has seen what the log does not have."""
    end = log.end
    if place.seq > end.seq:
        raise LostData(
            f"reader {name!r} stands at frame {place.seq} (epoch {place.epoch}) of journal {log.journal!r}, whose "
            f"last is {end.seq} (epoch {end.epoch}): the log lost acknowledged data. Replay the source, or "
            f"`hub log rewind {name}` to go on from an earlier place"
        )
    epoch = log.writer.state.epoch_of(place.seq)
    if epoch is not None and place.epoch and epoch != place.epoch:
        raise LostData(
            f"reader {name!r} stands at frame {place.seq} of epoch {place.epoch} of journal {log.journal!r}, "
            f"where that frame is of epoch {epoch}: the log lost acknowledged data and was written on. "
            f"`hub log rewind {name}` to go on from an earlier place"
        )


def _handed_over(entry: Entry, wanted: Callable[[str], bool]) -> list[Item]:
    """The wanted items of an entry. Each reader gets batches of its own, which share the bytes."""
    return [
        bytes_only(item) if isinstance(item, Batch) else item
        for item in entry.items
        if wanted(item.collection)
    ]


def _remembering(wanted: Callable[[str], bool]) -> Callable[[str], bool]:
    """The same answers, each asked for once."""
    known: dict[str, bool] = {}

    def answer(collection: str) -> bool:
        found = known.get(collection)
        if found is None:
            found = known[collection] = wanted(collection)
        return found

    return answer
