"""Segment headers and frames as bytes. Pure: nothing here touches a file.

A segment is a header of 128 bytes and frames after it, zeros behind the last one up to the size that was
allocated. A frame is a header of 72 bytes and a payload. The header has a checksum of its own, so that a
damaged length never leads to a wild read; salt and segment number keep bytes of another file from parsing;
`prev_crc` chains each frame to the one before; and `durable_seq` says which frames were known durable when
this one was built, so that recovery can prove that damaged bytes had been acknowledged.

All numbers are little-endian. Checksums are CRC-32C. docs/log.md has the tables.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from google_crc32c import extend as crc_extend
from google_crc32c import value as crc_of

from hub.errors import Corrupt, FatalError

FORMAT_VERSION = 1

SEGMENT_MAGIC = b"hub.log\n"
FRAME_MAGIC = b"\xf5hub"
"""Starts with a byte that no UTF-8 text holds, so that documents never look like frames."""

SEGMENT_HEADER_BYTES = 128
FRAME_HEADER_BYTES = 72

_SEGMENT = struct.Struct("<8sHHIIIQQQq16s")
_FRAME = struct.Struct("<4sHHIIQQqQQIII")
_WHOLE_FRAME = struct.Struct("<4sHHIIQQqQQIIII")
_CRC = struct.Struct("<I")
_RESERVED_AT = FRAME_HEADER_BYTES - 8
assert _FRAME.size == FRAME_HEADER_BYTES - 4


class Kind:
    """What a frame is. Plain numbers: an enum's members cost a look-up on the path of every append."""

    TRANSACTION: Final = 1
    MARK: Final = 2
    """Empty; attests the frames before it when nothing else follows."""
    SEAL: Final = 3
    """The last frame of a segment, with its summary."""
    CHECKPOINT: Final = 4
    """The first frame of a segment: the state of the journal before it."""
    PART: Final = 5
    """Blocks of a large transaction; invisible until its COMMIT."""
    COMMIT: Final = 6
    ABORT: Final = 7


VISIBLE = frozenset({Kind.TRANSACTION, Kind.COMMIT})
"""The kinds of frames that show readers anything."""


class SegmentHeader(NamedTuple):
    """The first 128 bytes of a segment. `prev_crc` is the header checksum of the frame before it."""

    version: int
    segno: int
    salt: int
    prev_crc: int
    base_seq: int
    epoch: int
    alloc_size: int
    created_us: int
    log_uuid: bytes


class FrameHeader(NamedTuple):
    """A frame's header. `length` counts the payload only."""

    kind: int
    salt: int
    segno: int
    seq: int
    epoch: int
    ts_us: int
    durable_seq: int
    length: int
    payload_crc: int
    prev_crc: int
    crc: int


def pack_segment_header(header: SegmentHeader) -> bytes:
    """128 bytes."""
    body = _SEGMENT.pack(
        SEGMENT_MAGIC,
        header.version,
        SEGMENT_HEADER_BYTES,
        header.segno,
        header.salt,
        header.prev_crc,
        header.base_seq,
        header.epoch,
        header.alloc_size,
        header.created_us,
        header.log_uuid,
    ).ljust(SEGMENT_HEADER_BYTES - 4, b"\0")
    return body + _CRC.pack(crc_of(body))


def unpack_segment_header(data: bytes, file: str) -> SegmentHeader:
    """Raises Corrupt when the bytes are no segment header, FatalError when they are of a later version."""
    if len(data) < SEGMENT_HEADER_BYTES:
        raise Corrupt(f"{file}: {len(data)} bytes, shorter than a segment header")
    magic, version, _, segno, salt, prev_crc, base_seq, epoch, alloc, created, uuid = _SEGMENT.unpack_from(
        data
    )
    if magic != SEGMENT_MAGIC:
        raise Corrupt(f"{file}: byte 0: not a segment of a hub log")
    body = data[: SEGMENT_HEADER_BYTES - 4]
    (crc,) = _CRC.unpack_from(data, SEGMENT_HEADER_BYTES - 4)
    if crc != crc_of(body):
        raise Corrupt(f"{file}: byte 0: checksum of the segment header does not match")
    if version != FORMAT_VERSION:
        raise FatalError(
            f"{file}: format version {version}, this hub knows {FORMAT_VERSION}; use the newer hub that wrote it"
        )
    return SegmentHeader(version, segno, salt, prev_crc, base_seq, epoch, alloc, created, uuid)


def pack_frame_header(
    kind: int,
    salt: int,
    segno: int,
    seq: int,
    epoch: int,
    ts_us: int,
    durable_seq: int,
    length: int,
    payload_crc: int,
    prev_crc: int,
) -> tuple[bytes, int]:
    """72 bytes, and the checksum in their last four, to which the next frame is chained."""
    body = _FRAME.pack(
        FRAME_MAGIC,
        FRAME_HEADER_BYTES,
        kind,
        salt,
        segno,
        seq,
        epoch,
        ts_us,
        durable_seq,
        length,
        payload_crc,
        prev_crc,
        0,
    )
    crc = crc_of(body)
    return body + _CRC.pack(crc), crc


def with_crc(packed: bytes, crc: int) -> bytes:
    """A frame's header of the same content whose checksum is `crc`, by choice of its four reserved bytes: for a frame
    that `repair` puts in the place of lost ones, so that what is chained to those stays as it is."""
    start = packed[:_RESERVED_AT]
    zero = crc_of(start + bytes(4))
    # A checksum of a bit is the one of zeros, changed by what that bit changes: linear equations over bits.
    by_top_bit: dict[int, tuple[int, int]] = {}
    for bit in range(32):
        change, made_of = crc_of(start + (1 << bit).to_bytes(4, "little")) ^ zero, 1 << bit
        while change and change.bit_length() in by_top_bit:
            other = by_top_bit[change.bit_length()]
            change, made_of = change ^ other[0], made_of ^ other[1]
        by_top_bit[change.bit_length()] = change, made_of
    reserved, missing = 0, crc ^ zero
    while missing:
        change, made_of = by_top_bit[missing.bit_length()]
        reserved, missing = reserved ^ made_of, missing ^ change
    return start + reserved.to_bytes(4, "little") + _CRC.pack(crc)


def unpack_frame_header(data: bytes, offset: int) -> FrameHeader | None:
    """The header at `offset`, or None when these are not the intact bytes of one."""
    if len(data) < offset + FRAME_HEADER_BYTES:
        return None
    fields = _WHOLE_FRAME.unpack_from(data, offset)
    if fields[0] != FRAME_MAGIC or fields[1] != FRAME_HEADER_BYTES:
        return None
    if fields[13] != crc_of(data[offset : offset + FRAME_HEADER_BYTES - 4]):
        return None
    # Past the constructor: recovery comes here for every frame, and this halves the cost.
    return tuple.__new__(FrameHeader, fields[2:12] + fields[13:])


def crc_of_parts(parts: list[bytes]) -> int:
    """The checksum of the parts put together."""
    crc = 0
    for part in parts:
        crc = crc_extend(crc, part)
    return int(crc)
