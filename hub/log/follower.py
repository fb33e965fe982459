"""A journal that another process writes, or that nobody does, open for reading only.

It takes no lock and changes no file. It shows what the writer has published as durable, and where the watermark is
torn or missing, what later frames attest; so nobody sees a frame that the next recovery could take back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread

from hub.errors import FatalError
from hub.log.frame import VISIBLE, Kind
from hub.log.fs import FS, OsFS
from hub.log.history import History
from hub.log.identity import readable
from hub.log.reader import Reader
from hub.log.recovery import schema_texts, sealed
from hub.log.replay import checkpoint_of, frames_after
from hub.log.segment import SUFFIX, Segment, read_header, read_seal, scan, segment_name
from hub.log.state import State
from hub.log.tail import Tail
from hub.log.transaction import decode_head
from hub.log.watermark import Mark, Watch, read_mark
from hub.record import Cursor, Place

NEVER = 1 << 62


class _Files:
    """The segments of a journal, as its writer keeps them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.segments: list[Segment] = []
        self.state = State()


class Follower:
    """The read-only side of a journal: `reader` gives the same readers as the log of the writing process."""

    learns = True
    """Readers note what they pass, since no writer does it for them."""

    def __init__(self, path: Path, journal: str | None = None, *, fs: FS | None = None) -> None:
        self.journal = readable(path, journal)
        self.fs = fs or OsFS()
        self.writer = _Files(path / "journal" / self.journal)
        self.history: History | None = None
        self._fragments = path / "fragments" / self.journal
        # All of it is read from disk: there is no tail that memory could take over at.
        self.tail = Tail(NEVER, 0)
        self.end = Place(0, 0)

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, journal: str | None = None) -> AsyncIterator[Follower]:
        """Follow a journal, or the only one, for as long as the block runs. Raises FatalError when there is none, Corrupt."""
        follower = cls(path, journal)
        await anyio.to_thread.run_sync(follower.refresh)
        follower._watch = Watch(follower.writer.directory)
        try:
            yield follower
        finally:
            follower._watch.close()

    _watch: Watch

    def reader(
        self,
        name: str,
        *,
        wanted: Callable[[str], bool] = lambda _: True,
        start: Cursor = Cursor.START,
        credit_bytes: int = 32 << 20,
    ) -> Reader:
        """A reader from a cursor on. See Reader."""
        return Reader(self, name, wanted=wanted, start=start, credit_bytes=credit_bytes)

    @property
    def oldest_seq(self) -> int:
        """The oldest frame of which anything is kept."""
        base = self.writer.segments[0].header.base_seq
        remembered = self.history.first_seq if self.history is not None else None
        return base if remembered is None else min(base, remembered)

    async def wait_beyond(self, seq: int) -> None:
        """Wait until a frame after `seq` is durable, however long that takes."""
        while self.end.seq <= seq:
            mark = read_mark(self.writer.directory)
            if mark is None or (mark.seq > self.end.seq and not self._moved_within(mark)):
                await anyio.to_thread.run_sync(self.refresh)
            if self.end.seq <= seq:
                await self._watch.wait()

    def _moved_within(self, mark: Mark) -> bool:
        """Take a mark that is within the newest segment known, without looking at the files again."""
        newest = self.writer.segments[-1]
        following = self.writer.directory / segment_name(newest.segno + 1)
        if newest.sealed or mark.epoch != newest.header.epoch or following.exists():
            return False
        newest.last_seq = mark.seq
        self.end = Place(mark.epoch, mark.seq)
        return True

    def refresh(self) -> None:
        """Look again which segments there are and how far they are durable."""
        mark = read_mark(self.writer.directory)
        known = {segment.segno: segment for segment in self.writer.segments}
        directory = self.writer.directory
        try:
            names = sorted(name for name in self.fs.listdir(directory) if name.endswith(SUFFIX))
        except FileNotFoundError as error:
            raise FatalError(f"{directory}: there is no such journal") from error
        found: list[Segment] = []
        for name in names:
            segment = known.get(int(name.removesuffix(SUFFIX)))
            if segment is None or not segment.sealed:
                segment = self._look_at(directory / name, segment)
            if segment is not None:
                found.append(segment)
        if not found:
            raise FatalError(f"{directory}: there is no segment in it")
        newest = found[-1]
        if mark is not None and mark.seq >= newest.header.base_seq - 1:
            self.end = Place(mark.epoch, max(mark.seq, self.end.seq))
        else:
            attested = self._attested(newest)
            self.end = Place(newest.header.epoch, max(attested, self.end.seq))
        for segment in found:
            if not segment.sealed:
                following = [s.header.base_seq for s in found if s.segno > segment.segno]
                segment.last_seq = min([self.end.seq, *[base - 1 for base in following]])
        if not self.writer.segments or self.writer.segments[-1] is not newest:
            self.writer.state.epochs = checkpoint_of(self.fs, newest).epochs
        begins_later = [s.segno for s in self.writer.segments[:1]] != [found[0].segno]
        self.writer.segments = found
        if self.history is None or begins_later:
            # What was in the segments that have gone stands in fragments now.
            history = History(self.fs, self._fragments, self.journal, None)
            history.load(found[0].header.base_seq)
            self.history = history

    def state(self) -> State:
        """Positions, schemas and counts as of the end."""
        newest = self.writer.segments[-1]
        state = State()
        for frame in frames_after(self, newest.header.base_seq - 1, self.end.seq):
            header = frame.found.header
            if header.kind == Kind.CHECKPOINT:
                state.restore(frame.found.payload)
            elif header.kind in VISIBLE:
                head, start = decode_head(frame.found.payload, frame.where)
                texts = schema_texts(head, frame.found.payload, start)
                state.apply(head, texts, header.epoch, header.seq, header.ts_us)
        return state

    def _look_at(self, path: Path, segment: Segment | None) -> Segment | None:
        """A segment, seen for the first time or again; None when it has gone meanwhile."""
        try:
            fd = self.fs.open(path, write=False)
        except FileNotFoundError:
            return None
        try:
            if segment is None:
                segment = Segment(path, read_header(self.fs, fd, path), self.fs.size(fd))
            seal = read_seal(self.fs, fd, segment.header, str(path))
            if seal is not None:
                sealed(segment, seal)
                segment.size = self.fs.size(fd)
            return segment
        finally:
            self.fs.close(fd)

    def _attested(self, segment: Segment) -> int:
        """The newest frame that a later one, or the file itself, says was durable."""
        if segment.sealed:
            return segment.last_seq
        durable = segment.header.base_seq
        fd = self.fs.open(segment.path, write=False)
        try:
            for found in scan(self.fs, fd, segment.header):
                durable = max(durable, found.header.durable_seq)
        finally:
            self.fs.close(fd)
        return durable
