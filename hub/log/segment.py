"""One segment file: creating it, sealing it, reading its frames in order.

The hard thing is order. A segment appears under its name only when its size, its header and its first frame
are durable; it shrinks to its length only when its SEAL is durable. So a `.seg` with a bad header is always
damage, and so is one that is shorter than what was allocated and has no SEAL.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
from google_crc32c import value as crc_of

from hub.errors import Corrupt
from hub.log.frame import (
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    SEGMENT_HEADER_BYTES,
    FrameHeader,
    Kind,
    SegmentHeader,
    unpack_frame_header,
    unpack_segment_header,
)
from hub.log.fs import FS
from hub.log.transaction import Summary

READ_BYTES = 4 << 20
"""Bytes read at a time, at most."""

READ_BYTES_MIN = 64 << 10

INDEX_BYTES = 64 << 10
"""One entry of the sparse index for so many bytes of a segment."""

SUFFIX = ".seg"
_TRAILER = b"hubSEAL\n"
_TRAILER_BYTES = 16


class Found(NamedTuple):
    """A whole, intact frame and where it lies."""

    header: FrameHeader
    pos: int
    payload: bytes


class Segment:
    """What is known of one segment. `last_seq` and `end` are those of its last durable frame, `newest_seq` is that of the
    last one that readers are shown anything of."""

    __slots__ = (
        "collections",
        "end",
        "first_part_segno",
        "first_us",
        "header",
        "index",
        "last_seq",
        "last_us",
        "newest_seq",
        "path",
        "sealed",
        "size",
        "tip",
    )

    def __init__(self, path: Path, header: SegmentHeader, size: int) -> None:
        self.path = path
        self.header = header
        self.size = size
        self.sealed = False
        self.last_seq = self.newest_seq = header.base_seq - 1
        self.end = SEGMENT_HEADER_BYTES
        self.first_us = self.last_us = header.created_us
        self.first_part_segno = header.segno
        self.collections: dict[str, tuple[int, int, int]] = {}
        self.index: list[tuple[int, int, int]] = []
        self.tip: tuple[int, int] | None = None
        """The newest frame that a reader came by, and its byte: where the next look begins."""

    @property
    def segno(self) -> int:
        return self.header.segno

    def note(self, seq: int, pos: int, length: int, ts_us: int) -> None:
        """Take a frame into account."""
        if not self.index or pos - self.index[-1][1] >= INDEX_BYTES:
            self.index.append((seq, pos, ts_us))
        self.last_seq = seq
        self.last_us = max(self.last_us, ts_us)
        self.end = pos + FRAME_HEADER_BYTES + length

    def learn(self, seq: int, pos: int, ts_us: int) -> None:
        """Keep the index of a segment that others write."""
        if not self.sealed and (not self.index or pos - self.index[-1][1] >= INDEX_BYTES):
            self.index.append((seq, pos, ts_us))
        if self.tip is None or seq > self.tip[0]:
            self.tip = seq, pos

    def summary(self) -> Summary:
        return Summary(
            self.collections, self.first_us, self.last_us, self.first_part_segno, self.newest_seq, self.index
        )

    def start_for(self, seq: int) -> tuple[int, int]:
        """Sequence and byte of an indexed frame at or before `seq`: where to start reading for it."""
        if self.tip is not None and self.tip[0] <= seq:
            return self.tip
        found = bisect_right(self.index, seq, key=lambda entry: entry[0]) - 1
        if found < 0:
            return self.header.base_seq, SEGMENT_HEADER_BYTES
        return self.index[found][:2]


def segment_name(segno: int) -> str:
    return f"{segno:012d}{SUFFIX}"


def read_header(fs: FS, fd: int, path: Path) -> SegmentHeader:
    """The header of a segment whose name must agree with it."""
    header = unpack_segment_header(fs.pread(fd, SEGMENT_HEADER_BYTES, 0), str(path))
    if segment_name(header.segno) != path.name:
        raise Corrupt(f"{path}: holds segment {header.segno}; the file was renamed or copied")
    return header


def scan(
    fs: FS,
    fd: int,
    header: SegmentHeader,
    *,
    pos: int = SEGMENT_HEADER_BYTES,
    seq: int | None = None,
    prev_crc: int | None = None,
    upto: int | None = None,
) -> Iterator[Found]:
    """The intact frames from `pos` on, in order, up to and including `upto` or up to the first that is not intact.

    Good is a frame whose header and payload match their checksums, that belongs to this segment by number
    and salt, is the next in sequence, and is chained to the one before (from the second frame on, where the
    caller cannot say what came before).
    """
    if seq is None:
        seq, prev_crc = header.base_seq, header.prev_crc
    size = fs.size(fd)
    base = pos
    data = b""
    # A reader at the end of the log wants a frame, one far behind the whole file: the reads grow.
    ahead = READ_BYTES_MIN
    salt, segno, epoch = header.salt, header.segno, header.epoch
    while upto is None or seq <= upto:
        at = pos - base
        if at + FRAME_HEADER_BYTES > len(data):
            base, at, data = pos, 0, fs.pread(fd, ahead, pos)
            ahead = min(ahead * 4, READ_BYTES)
        found = unpack_frame_header(data, at)
        if found is None:
            return
        whole = FRAME_HEADER_BYTES + found.length
        if at + whole > len(data):
            if pos + whole > size:
                return
            base, at, data = pos, 0, fs.pread(fd, max(ahead, whole), pos)
        if found.salt != salt or found.segno != segno or found.seq != seq or found.epoch != epoch:
            return
        if prev_crc is not None and found.prev_crc != prev_crc:
            return
        start = at + FRAME_HEADER_BYTES
        payload = data[start : start + found.length]
        if crc_of(payload) != found.payload_crc:
            return
        yield Found(found, pos, payload)
        prev_crc = found.crc
        seq += 1
        pos += FRAME_HEADER_BYTES + found.length


def read_frame(fs: FS, fd: int, header: SegmentHeader, pos: int, seq: int, length: int, file: str) -> Found:
    """The one frame that is known to be at `pos`. Raises Corrupt when it is not there intact."""
    data = fs.pread(fd, FRAME_HEADER_BYTES + length, pos)
    found = unpack_frame_header(data, 0)
    payload = data[FRAME_HEADER_BYTES:]
    if (
        found is None
        or (found.salt, found.segno, found.seq, found.length) != (header.salt, header.segno, seq, length)
        or crc_of(payload) != found.payload_crc
    ):
        raise Corrupt(f"{file}: byte {pos}: frame {seq} is damaged")
    return Found(found, pos, payload)


def rest_is(fs: FS, fd: int, header: SegmentHeader, pos: int, expected_seq: int) -> tuple[bool, int | None]:
    """What lies behind the last intact frame: whether it is all zeros, and the proof, if there is one, that
    frame `expected_seq` had been durable: the position of a later intact header that says so."""
    size = fs.size(fd)
    zeros = True
    overlap = FRAME_HEADER_BYTES - 1
    while pos < size:
        data = fs.pread(fd, READ_BYTES + overlap, pos)
        if not data:
            break
        if data.strip(b"\0"):
            zeros = False
            at = data.find(FRAME_MAGIC)
            while at >= 0:
                found = unpack_frame_header(data, at)
                if (
                    found is not None
                    and (found.salt, found.segno) == (header.salt, header.segno)
                    and found.seq > expected_seq
                    and found.durable_seq >= expected_seq
                ):
                    return False, pos + at
                at = data.find(FRAME_MAGIC, at + 1)
        pos += READ_BYTES
    return zeros, None


def seal_payload(summary: Summary) -> bytes:
    """The payload of a SEAL. Its last bytes tell where the frame begins, counted from the end of the file."""
    body = msgspec.msgpack.encode(summary)
    length = FRAME_HEADER_BYTES + len(body) + _TRAILER_BYTES
    return body + _TRAILER + length.to_bytes(8, "little")


def read_summary(payload: bytes, file: str) -> Summary:
    try:
        return msgspec.msgpack.decode(payload[:-_TRAILER_BYTES], type=Summary)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Corrupt(f"{file}: the summary in its SEAL cannot be read: {error}") from error


def read_seal(fs: FS, fd: int, header: SegmentHeader, file: str) -> Found | None:
    """The SEAL at the end of a segment, or None when its last bytes are not one."""
    size = fs.size(fd)
    if size < SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES + _TRAILER_BYTES:
        return None
    trailer = fs.pread(fd, _TRAILER_BYTES, size - _TRAILER_BYTES)
    length = int.from_bytes(trailer[8:], "little")
    if trailer[:8] != _TRAILER or not FRAME_HEADER_BYTES < length <= size - SEGMENT_HEADER_BYTES:
        return None
    data = fs.pread(fd, length, size - length)
    found = unpack_frame_header(data, 0)
    if found is None or found.kind != Kind.SEAL or found.length != length - FRAME_HEADER_BYTES:
        return None
    payload = data[FRAME_HEADER_BYTES:]
    if (found.salt, found.segno) != (header.salt, header.segno) or crc_of(payload) != found.payload_crc:
        return None
    return Found(found, size - length, payload)
