"""One segment made anew from what is left of it: whole frames stay where they lie, empty ones stand for the others.

The first frame of a segment is a checkpoint; where it is lost it is made again from the segment before, so that counts
and offsets go on. Where nothing before is kept either, what the segment after knows is taken back by what the
segment's own seal says that it added.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from google_crc32c import value as crc_of

from hub.errors import Corrupt
from hub.log.frame import (
    FORMAT_VERSION,
    FRAME_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    FrameHeader,
    Kind,
    SegmentHeader,
    pack_frame_header,
    pack_segment_header,
    with_crc,
)
from hub.log.fs import FS, write_all
from hub.log.recovery import read_newest
from hub.log.segment import READ_BYTES, Segment, read_header, read_summary, seal_payload
from hub.log.state import Checkpoint, CollectionInfo, State
from hub.log.transaction import (
    Encoded,
    Head,
    decode_head,
    lost_block,
)

Counts = dict[str, tuple[int, int]]
"""For each collection, records and raw bytes."""


class Kept(NamedTuple):
    """A frame that stays, and where it lies."""

    pos: int
    header: FrameHeader

    @property
    def end(self) -> int:
        return self.pos + FRAME_HEADER_BYTES + self.header.length


class Left(NamedTuple):
    """What is left of a segment. `named`: its own header is whole. `cut`: acknowledged frames are missing at its end."""

    header: SegmentHeader
    named: bool
    size: int
    kept: list[Kept]
    cut: bool


class Before(NamedTuple):
    """The segment before, which is whole by now, and the header of its last frame."""

    path: Path
    header: SegmentHeader
    last: FrameHeader


class Following(NamedTuple):
    """The next segment of which anything is left: what it says of what was before it."""

    segno: int
    base_seq: int
    prev_crc: int | None
    uuid: bytes
    checkpoint: Checkpoint | None


class Gone(NamedTuple):
    """Frames that are lost. `collections` are names, records and the offsets they are among; None: not known.

    A `last_seq` before the first: everything after it.
    """

    first_seq: int
    last_seq: int
    collections: Sequence[tuple[str, int, int, int]] | None

    def __str__(self) -> str:
        frames = f"frames {self.first_seq} to {self.last_seq} are lost"
        if self.last_seq < self.first_seq:
            frames = f"whatever came after frame {self.last_seq} is lost"
        if self.collections is None:
            return f"{frames}; of which collections is not known"
        told = [f"{n} records of {name} (offsets {a} to {b - 1})" for name, n, a, b in self.collections]
        return f"{frames}: {', '.join(told) or 'no records'}"


def write_anew(
    fs: FS, path: Path, left: Left | None, before: Before | None, following: Following | None, empty: int
) -> list[Gone]:
    """Replace a segment. `empty` more segments of which nothing is left stand between it and the following one.

    Raises Corrupt when its beginning cannot be told from anything.
    """
    staged = path.with_name(path.name + ".tmp")
    if staged.exists():
        fs.unlink(staged)
    source = fs.open(path, write=False) if left is not None else -1
    out = fs.open(staged, create=True)
    try:
        made = _Anew(fs, path, source, out, left, before, following, empty)
        gone = made.write()
        fs.fsync(out)
    finally:
        fs.close(out)
        if source >= 0:
            fs.close(source)
    fs.rename(staged, path)
    fs.sync_dir(path.parent)
    return gone


class _Anew:
    """Writes one segment from its beginning to its seal."""

    def __init__(
        self,
        fs: FS,
        path: Path,
        source: int,
        out: int,
        left: Left | None,
        before: Before | None,
        following: Following | None,
        empty: int,
    ) -> None:
        self._fs = fs
        self._path = path
        self._source = source
        self._out = out
        self._before = before
        self._following = following
        self._empty = empty
        self._cut = left is None or left.cut
        self._kept = left.kept if left is not None else []
        self._header = self._named(left)
        self._upto = self._last_seq()
        self._pos, self._seq, self._crc = SEGMENT_HEADER_BYTES, self._header.base_seq, self._header.prev_crc
        self._ts_us = self._header.created_us
        self._stretches: list[tuple[int, int]] = []
        self._state = State()

    def write(self) -> list[Gone]:
        fs, out = self._fs, self._out
        write_all(fs, out, [pack_segment_header(self._header)], 0)
        begins = bool(self._kept) and self._kept[0].header.seq == self._header.base_seq
        if begins:
            self._state.restore(self._payload(self._kept[0]))
        else:
            self._state = self._state_before()
            self._state.begin(self._header.epoch, self._header.base_seq)
        present = self._counted()
        lost = self._lost(present)
        ends = bool(self._kept) and self._kept[-1].header.kind == Kind.SEAL
        last_gap = self._last_gap() if self._kept else None
        for frame in self._kept:
            if frame.header.seq > self._seq:
                last = frame is last_gap
                self._fill(frame.header.seq - 1, frame.pos, frame.header.prev_crc, lost if last else {})
            self._copy(frame)
        if not ends:
            self._end(lost)
        return self._told(lost, present)

    def _named(self, left: Left | None) -> SegmentHeader:
        """The header: its own, and where that is lost, what its neighbours know."""
        before, following = self._before, self._following
        if left is not None and left.named:
            header = left.header
        else:
            segno = int(self._path.name[:12])
            salt = left.header.salt if left is not None else int.from_bytes(os.urandom(4), "little")
            epoch = left.header.epoch if left is not None else before.last.epoch if before is not None else 1
            base_seq = left.header.base_seq if left is not None else 1
            uuid = (
                before.header.log_uuid
                if before is not None
                else following.uuid
                if following is not None
                else b""
            )
            now_us = left.header.created_us if left is not None else time.time_ns() // 1000
            size = left.size if left is not None else SEGMENT_HEADER_BYTES
            header = SegmentHeader(
                FORMAT_VERSION, segno, salt, 0, base_seq, epoch, size, now_us, uuid or os.urandom(16)
            )
        if before is not None:
            header = header._replace(base_seq=before.last.seq + 1, prev_crc=before.last.crc)
        return header

    def _last_seq(self) -> int | None:
        """The frame that this segment has to end with; None for the newest, which ends where it ends."""
        if self._kept and self._kept[-1].header.kind == Kind.SEAL:
            return self._kept[-1].header.seq
        if self._following is None:
            return None
        if self._kept or not self._empty:
            # What follows without a trace gets two frames each: a checkpoint and a seal.
            return self._following.base_seq - 1 - 2 * self._empty
        return self._header.base_seq + 1

    def _state_before(self) -> State:
        """The state of the journal at the start of a segment whose checkpoint is lost."""
        before, following = self._before, self._following
        state = State()
        if before is not None:
            fd = self._fs.open(before.path, write=False)
            try:
                header = read_header(self._fs, fd, before.path)
                read_newest(self._fs, fd, Segment(before.path, header, 0), state)
            finally:
                self._fs.close(fd)
            return state
        if self._header.base_seq == 1:
            return state
        seal = self._kept[-1] if self._kept and self._kept[-1].header.kind == Kind.SEAL else None
        if seal is None or following is None or following.checkpoint is None:
            raise Corrupt(
                f"{self._path}: its first frame is lost, and nothing tells what was before it. Put the file back from "
                "a backup; or move it away with all older ones: readers that stand in it then start again"
            )
        state.restore(msgspec.msgpack.encode(following.checkpoint))
        summary = read_summary(self._payload(seal), str(self._path))
        for name, (first, _, raw_bytes) in summary.collections.items():
            known = state.collections[name]
            state.collections[name] = CollectionInfo(first, known.raw_bytes - raw_bytes, known.last_us)
        return state

    def _counted(self) -> Counts:
        """The records in the frames that stay."""
        counts: Counts = {}
        for frame in self._kept:
            if frame.header.kind not in (Kind.TRANSACTION, Kind.COMMIT):
                continue
            head, _ = decode_head(self._payload(frame), str(self._path))
            found = [(b.collection, b.count, b.raw_len) for b in head.blocks] + list(head.totals or ())
            for name, count, size in found:
                has = counts.get(name, (0, 0))
                counts[name] = has[0] + count, has[1] + size
        return counts

    def _lost(self, present: Counts) -> Counts | None:
        """The records in the frames that are lost, by what was counted after them. None when nobody did."""
        if self._empty and not self._kept:
            # They are counted with the last of the segments without a trace.
            return {}
        after: Mapping[str, CollectionInfo] | None = None
        if self._kept and self._kept[-1].header.kind == Kind.SEAL:
            summary = read_summary(self._payload(self._kept[-1]), str(self._path))
            infos = self._state.collections
            after = {
                name: CollectionInfo(first + count, infos.get(name, CollectionInfo()).raw_bytes + size)
                for name, (first, count, size) in summary.collections.items()
            }
        elif self._following is not None and self._following.checkpoint is not None:
            after = self._following.checkpoint.collections
        if after is None:
            return None
        lost: Counts = {}
        for name, info in after.items():
            known, here = self._state.collections.get(name, CollectionInfo()), present.get(name, (0, 0))
            count = info.count - known.count - here[0]
            if count > 0:
                lost[name] = count, max(1, info.raw_bytes - known.raw_bytes - here[1])
        return lost

    def _last_gap(self) -> Kept | None:
        """The frame before which the last lost ones stood, where no records were lost behind all that stays."""
        if self._upto is not None and self._kept[-1].header.seq + 1 < self._upto:
            return None
        seq, found = self._header.base_seq, None
        for frame in self._kept:
            if frame.header.seq > seq:
                found = frame
            seq = frame.header.seq + 1
        return found

    def _fill(self, last_seq: int, end: int, crc: int, lost: Counts | None) -> None:
        """Empty frames up to `last_seq` and byte `end`, the last of them of this checksum."""
        first_seq = self._seq
        self._stretches.append((first_seq, last_seq))
        room = end - self._pos - FRAME_HEADER_BYTES * (last_seq - first_seq + 1)
        if first_seq == self._header.base_seq:
            only = last_seq == first_seq
            payload = self._checkpoint(room, exactly=only)
            self._put(Kind.CHECKPOINT, payload, crc if only else None)
            room -= len(payload)
            if only:
                return
        while self._seq < last_seq:
            self._put(Kind.MARK, b"")
        self._put(*self._tombstone(lost, room), crc)

    def _end(self, lost: Counts | None) -> None:
        """Empty frames up to where the segment has to end, and a seal."""
        lost_from = self._seq
        if self._seq == self._header.base_seq:
            self._put(Kind.CHECKPOINT, self._state.checkpoint())
        if self._upto is not None and lost_from < self._upto:
            self._stretches.append((lost_from, self._upto - 1))
        if self._upto is not None and self._seq < self._upto:
            while self._seq < self._upto - 1:
                self._put(Kind.MARK, b"")
            self._put(*self._tombstone(lost, None))
        segment = Segment(self._path, self._header, 0)
        read_newest(self._fs, self._out, segment, State())
        crc = self._following.prev_crc if self._following is not None else None
        is_next = self._following is not None and self._upto == self._following.base_seq - 1
        self._put(Kind.SEAL, seal_payload(segment.summary()), crc if is_next else None)

    def _tombstone(self, lost: Counts | None, room: int | None) -> tuple[int, bytes]:
        """The frame that counts the lost records on: of `room` bytes, or as large as it is."""
        if not lost:
            return Kind.MARK, bytes(room or 0)
        blocks = [lost_block(name, count, size, self._ts_us) for name, (count, size) in lost.items()]
        made = Encoded(Head("", None, None, blocks), [], (), size=0, records=0, schema_texts=())
        payload = b"".join(made.parts)
        if room is None:
            return Kind.TRANSACTION, payload
        # With names too long for the place, offsets after it are counted from the next segment on again.
        return (
            (Kind.TRANSACTION, payload.ljust(room, b"\0"))
            if len(payload) <= room
            else (Kind.MARK, bytes(room))
        )

    def _checkpoint(self, room: int, *, exactly: bool) -> bytes:
        """The state as a payload of at most, or exactly, `room` bytes."""
        payload = self._state.checkpoint()
        if len(payload) > room:
            self._state.tokens.clear()
            payload = self._state.checkpoint()
        if len(payload) > room:
            raise Corrupt(
                f"{self._path}: the checkpoint that is lost was smaller than the state it has to hold"
            )
        return padded_array(payload, room) if exactly else payload

    def _put(self, kind: int, payload: bytes, crc: int | None = None) -> None:
        header = self._header
        fields = (kind, header.salt, header.segno, self._seq, header.epoch, self._ts_us, self._seq - 1)
        rest = (len(payload), crc_of(payload), self._crc)
        packed, own_crc = pack_frame_header(*fields, *rest)
        if crc is not None:
            packed = with_crc(packed, crc)
        self._pos += write_all(self._fs, self._out, [packed, payload], self._pos)
        self._seq += 1
        self._crc = own_crc if crc is None else crc

    def _copy(self, frame: Kept) -> None:
        assert (self._pos, self._seq, self._crc) == (frame.pos, frame.header.seq, frame.header.prev_crc)
        while self._pos < frame.end:
            data = self._fs.pread(self._source, min(READ_BYTES, frame.end - self._pos), self._pos)
            self._pos += write_all(self._fs, self._out, [data], self._pos)
        self._seq, self._crc, self._ts_us = frame.header.seq + 1, frame.header.crc, frame.header.ts_us

    def _payload(self, frame: Kept) -> bytes:
        return self._fs.pread(self._source, frame.header.length, frame.pos + FRAME_HEADER_BYTES)

    def _told(self, lost: Counts | None, present: Counts) -> list[Gone]:
        """What is lost, for people. Records are known by segment: of several stretches they are told with the last."""
        told: list[tuple[str, int, int, int]] | None = None
        if lost is not None:
            known = self._state.collections
            told = []
            for name, (count, _) in lost.items():
                first = known[name].count if name in known else 0
                told.append((name, count, first, first + count + present.get(name, (0, 0))[0]))
        gone = [Gone(first, last, () if told is not None else None) for first, last in self._stretches]
        if gone and told is not None:
            gone[-1] = gone[-1]._replace(collections=told)
        if self._upto is None and self._cut:
            last = self._kept[-1].header.seq
            gone.append(Gone(last + 1, last, None))
        return gone


def padded_array(payload: bytes, size: int) -> bytes:
    """A MessagePack array of fewer than 10 values made `size` bytes long by values that nobody reads."""
    extra = size - len(payload)
    if extra == 0:
        return payload
    count = payload[0]
    if extra < 5:
        return bytes([count + extra]) + payload[1:] + b"\xc0" * extra
    filler = b"\xc6" + (extra - 5).to_bytes(4, "big") + bytes(extra - 5)
    return bytes([count + 1]) + payload[1:] + filler
