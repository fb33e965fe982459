"""The writer of one journal: frames in, durable bytes out. Synchronous; one thread at a time.

Everything here follows one rule: what cannot be known is not guessed. After an error in a write or a sync
the writer is finished, and only an open with recovery goes on. No room is the one error that is mended here:
the bytes of the group are zeroed again, and the caller may come back.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from google_crc32c import value as crc_of

from hub.errors import Full, Poisoned
from hub.log.clock import LogClock
from hub.log.frame import (
    FORMAT_VERSION,
    FRAME_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    VISIBLE,
    Kind,
    SegmentHeader,
    pack_frame_header,
    pack_segment_header,
)
from hub.log.fs import FS, write_all
from hub.log.segment import INDEX_BYTES, Segment, seal_payload, segment_name
from hub.log.state import State
from hub.log.transaction import Encoded

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})
JOIN_BYTES = 256 << 10
"""Groups smaller than this are joined into one buffer before they are written."""

_ZEROS = bytes(1 << 20)


class Frame:
    """A frame to be written. `seq` is 0 until it is durable; then the rest says where it lies."""

    __slots__ = ("body", "kind", "pos", "segno", "seq", "ts_us")

    def __init__(self, kind: int, body: Encoded) -> None:
        self.kind = kind
        self.body = body
        self.seq = self.ts_us = self.segno = self.pos = 0


class Journal:
    """Appends to the newest segment, seals it when it is full and starts the next.

    Made by `hub.log.recovery.open_journal`, which alone knows how to go on from what is on disk.
    """

    def __init__(
        self,
        fs: FS,
        directory: Path,
        *,
        segment_bytes: int,
        syncing: bool,
        clock: LogClock,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.fs = fs
        self.directory = directory
        self.segment_bytes = segment_bytes
        self.syncing = syncing
        """Each group is synced before it counts. Otherwise `sync` is called by whoever decides."""
        self.clock = clock
        self.random = random
        self.uuid = b""
        self.epoch = 0
        self.next_seq = 1
        self.durable_seq = 0
        """The newest frame known to be on disk: what each header attests."""
        self.written_seq = 0
        self.prev_crc = 0
        self.segments: list[Segment] = []
        self.live: Segment | None = None
        self.state = State()
        self.poisoned: OSError | None = None
        self.used_bytes = 0
        self.room: Callable[[int], bool] = lambda _: True
        """Whether so many bytes more may be used: the cap."""
        self._fd = -1
        self._alloc = 0

    @property
    def oldest_seq(self) -> int:
        """The first frame that a segment is kept of. On a disk that was full from the start there is none yet."""
        return self.segments[0].header.base_seq if self.segments else self.next_seq

    def write(self, frames: Sequence[Frame], start: int = 0) -> int:
        """Make durable as many of these frames, from the one at `start`, as fit into the live segment: at least one.

        Returns how many. Raises Full when nothing was written for want of room, Poisoned when what is on disk is
        unknown.
        """
        self.check()
        need = FRAME_HEADER_BYTES + frames[start].body.length
        live = self.live
        if live is None or live.end + need > self._alloc or live.header.epoch != self.epoch:
            live = self.roll(need)
        ts_us = max(self.clock.now_us(), live.last_us)
        buffers: list[bytes] = []
        pos, seq, crc = live.end, self.next_seq, self.prev_crc
        salt, segno, epoch, durable_seq, alloc = (
            live.header.salt,
            live.segno,
            self.epoch,
            self.durable_seq,
            self._alloc,
        )
        for frame in islice(frames, start, None):
            body = frame.body
            after = pos + FRAME_HEADER_BYTES + body.length
            if after > alloc:
                break
            header, crc = pack_frame_header(
                frame.kind, salt, segno, seq, epoch, ts_us, durable_seq, body.length, body.crc, crc
            )
            buffers.append(header)
            buffers += body.parts
            pos = after
            seq += 1
        self._put(buffers, live.end, pos - live.end)
        done = seq - self.next_seq
        self._took(live, frames[start : start + done], ts_us)
        self.prev_crc = crc
        return done

    def mark(self) -> None:
        """Attest the last group with an empty frame. Nothing happens when all is attested."""
        self.check()
        live = self.live
        if live is None or live.header.epoch != self.epoch or live.end + FRAME_HEADER_BYTES > self._alloc:
            return
        ts_us = max(self.clock.now_us(), live.last_us)
        header, crc = self._header(live, Kind.MARK, ts_us, 0, 0)
        self._put([header], live.end, FRAME_HEADER_BYTES)
        self._advance(live, live.end, 0, ts_us)
        self.prev_crc = crc

    def sync(self) -> None:
        """Make all that was written durable, at a level that does not do so with each group."""
        self.check()
        if self.live is not None and self.durable_seq != self.written_seq:
            upto = self.written_seq
            self._io(lambda: self.fs.sync(self._fd))
            self.durable_seq = upto

    def roll(self, need: int = 0) -> Segment:
        """Seal the live segment and start the next, large enough for a frame of `need` bytes."""
        self.check()
        if self.live is not None:
            self._seal(self.live)
        return self._create(need)

    def resume(self, segment: Segment) -> None:
        """Take up the newest segment of an older epoch, only to seal it."""
        self.live = segment
        self._alloc = segment.header.alloc_size
        self._fd = self.fs.open(segment.path)

    def close(self) -> None:
        """Seal and let go of the file. The journal cannot be used after this."""
        try:
            if self.poisoned is None and self.live is not None:
                self._seal(self.live)
        except Full:
            # Everything is durable without its SEAL too; the next open will write it.
            pass
        finally:
            self._close_fd()
            self.poisoned = self.poisoned or OSError(errno.EBADF, "the log is closed")

    def abandon(self) -> None:
        """Let go of the file without a word to the disk."""
        self.poisoned = self.poisoned or OSError(errno.EBADF, "the log is closed")
        self._close_fd()

    def drop(self, segment: Segment) -> None:
        """Remove a sealed segment."""
        self.check()
        assert segment.sealed
        self._io(lambda: self.fs.unlink(segment.path))
        self.segments.remove(segment)
        self.used_bytes -= segment.size
        self._io(lambda: self.fs.sync_dir(self.directory))

    def check(self) -> None:
        """Raises Poisoned once the writer is finished."""
        if self.poisoned is not None:
            raise Poisoned(
                f"{self.directory}: writing failed ({self.poisoned}); the log has to be opened again, with recovery"
            ) from self.poisoned

    def _header(
        self, live: Segment, kind: int, ts_us: int, length: int, payload_crc: int
    ) -> tuple[bytes, int]:
        return pack_frame_header(
            kind,
            live.header.salt,
            live.header.segno,
            self.next_seq,
            live.header.epoch,
            ts_us,
            self.durable_seq,
            length,
            payload_crc,
            self.prev_crc,
        )

    def _put(self, buffers: list[bytes], pos: int, size: int) -> None:
        """Write and sync one group."""
        if size < JOIN_BYTES:
            buffers = [b"".join(buffers)]
        try:
            write_all(self.fs, self._fd, buffers, pos)
        except OSError as error:
            if error.errno in NO_ROOM:
                self._zero(pos, size)
                raise Full(
                    f"{self.directory}: no room on the disk for {size} bytes", retry_after_s=1.0
                ) from error
            raise self._poison(error) from error
        if self.syncing:
            self._io(lambda: self.fs.sync(self._fd))

    def _zero(self, pos: int, size: int) -> None:
        """Take back what a group may have left behind. The segment's size stays: it is part of its integrity."""
        end = min(pos + size, self.fs.size(self._fd))
        try:
            while pos < end:
                pos += write_all(self.fs, self._fd, [_ZEROS[: end - pos]], pos)
            self.fs.fsync(self._fd)
        except OSError as error:
            raise self._poison(error) from error

    def _took(self, live: Segment, frames: Sequence[Frame], ts_us: int) -> None:
        """These frames became durable: say so on each, and take it into account."""
        apply, segno, epoch = self.state.apply, live.header.segno, self.epoch
        pos, seq = live.end, self.next_seq
        indexed_to = live.index[-1][1] + INDEX_BYTES if live.index else 0
        for frame in frames:
            body = frame.body
            frame.seq, frame.ts_us, frame.segno, frame.pos = seq, ts_us, segno, pos
            if frame.kind in VISIBLE:
                head = body.head
                apply(head, body.schema_texts, epoch, seq, ts_us)
                live.newest_seq = seq
                if head.parts:
                    live.first_part_segno = min(live.first_part_segno, head.parts[0].segno)
            if pos >= indexed_to:
                live.learn(seq, pos, ts_us)
                indexed_to = pos + INDEX_BYTES
            pos += FRAME_HEADER_BYTES + body.length
            seq += 1
        last = frames[-1]
        self._advance(live, last.pos, last.body.length, ts_us, seq - 1)

    def _advance(self, live: Segment, pos: int, length: int, ts_us: int, seq: int | None = None) -> None:
        """The frame at `pos` is the last one now."""
        seq = self.next_seq if seq is None else seq
        live.note(seq, pos, length, ts_us)
        self.written_seq = seq
        if self.syncing:
            self.durable_seq = seq
        self.next_seq = seq + 1

    def _seal(self, live: Segment) -> None:
        """Write the SEAL, then shrink the file to its length: in this order, each durable before the next."""
        if self.durable_seq != self.written_seq:
            self.sync()
        live.collections = self.state.since_mark()
        payload = seal_payload(live.summary())
        ts_us = max(self.clock.now_us(), live.last_us)
        header, crc = self._header(live, Kind.SEAL, ts_us, len(payload), crc_of(payload))
        start, size = live.end, FRAME_HEADER_BYTES + len(payload)
        try:
            write_all(self.fs, self._fd, [header + payload], start)
        except OSError as error:
            if error.errno in NO_ROOM:
                self._zero(start, size)
                raise Full(
                    f"{self.directory}: no room on the disk to seal a segment", retry_after_s=1.0
                ) from error
            raise self._poison(error) from error
        self._io(lambda: self.fs.fsync(self._fd))
        self._io(lambda: self.fs.truncate(self._fd, start + size))
        self._io(lambda: self.fs.fsync(self._fd))
        self._advance(live, start, len(payload), ts_us)
        self.prev_crc = crc
        self.durable_seq = self.written_seq
        live.sealed = True
        self.used_bytes += start + size - live.size
        live.size = start + size
        self.live = None
        self._close_fd()

    def _create(self, need: int) -> Segment:
        """Start a segment with a checkpoint in it: durable under a name of its own first, then renamed."""
        self.state.begin(self.epoch, self.next_seq)
        payload = self.state.checkpoint()
        first = SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES + len(payload)
        alloc = max(self.segment_bytes, first + need)
        if not self.room(alloc):
            raise Full(
                f"{self.directory}: a segment of {alloc} bytes would exceed log.cap_bytes; "
                "readers have to consume, or retention has to let go",
                retry_after_s=1.0,
            )
        segno = self.segments[-1].segno + 1 if self.segments else 1
        salt = int.from_bytes(self.random(4), "little")
        now_us = self.clock.now_us()
        header = SegmentHeader(
            FORMAT_VERSION, segno, salt, self.prev_crc, self.next_seq, self.epoch, alloc, now_us, self.uuid
        )
        path = self.directory / segment_name(segno)
        segment = Segment(path, header, alloc)
        frame, crc = self._header(segment, Kind.CHECKPOINT, now_us, len(payload), crc_of(payload))
        staged = path.with_name(path.name + ".tmp")
        try:
            self._fd = self.fs.open(staged, create=True)
            self.fs.allocate(self._fd, alloc)
            self.fs.fsync(self._fd)
            write_all(self.fs, self._fd, [pack_segment_header(header) + frame + payload], 0)
            self.fs.fsync(self._fd)
        except OSError as error:
            if self._fd < 0 and error.errno in NO_ROOM | NO_DESCRIPTOR:
                raise Full(f"{self.directory}: no segment can be made: {error}", retry_after_s=1.0) from error
            if error.errno in NO_ROOM:
                self._close_fd()
                self._io(lambda: self.fs.unlink(staged))
                raise Full(
                    f"{self.directory}: no room on the disk for a segment", retry_after_s=1.0
                ) from error
            raise self._poison(error) from error
        self._io(lambda: self.fs.rename(staged, path))
        self._io(lambda: self.fs.sync_dir(self.directory))
        self.segments.append(segment)
        self.state.mark()
        self.live = segment
        self.used_bytes += alloc
        self._alloc = alloc
        self._advance(segment, SEGMENT_HEADER_BYTES, len(payload), now_us)
        self.prev_crc = crc
        self.durable_seq = self.written_seq
        return segment

    def _io(self, call: Callable[[], None]) -> None:
        """Do it; an error finishes the writer."""
        try:
            call()
        except OSError as error:
            raise self._poison(error) from error

    def _poison(self, error: OSError) -> Poisoned:
        self.poisoned = error
        return Poisoned(
            f"{self.directory}: {error.strerror or error}; what reached the disk is unknown, "
            "so the log has to be opened again, with recovery"
        )

    def _close_fd(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                self.fs.close(fd)
            except OSError as error:
                raise self._poison(error) from error
