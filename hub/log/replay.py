"""Reading frames back from the segments of an open log. Blocks; for threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from hub.errors import Corrupt, LogError
from hub.log.frame import SEGMENT_HEADER_BYTES, VISIBLE, Kind
from hub.log.recovery import schema_texts
from hub.log.segment import Found, Segment, read_frame, scan
from hub.log.state import Checkpoint, State
from hub.log.transaction import (
    Committed,
    Encoding,
    PartRef,
    decode_head,
    decode_items,
    parted,
)
from hub.record import Place

if TYPE_CHECKING:
    from hub.log.fs import FS
    from hub.log.history import History
    from hub.log.tail import Tail


class Kept(Protocol):
    """The segments of a journal, by whoever writes it or watches it."""

    @property
    def segments(self) -> list[Segment]: ...
    @property
    def state(self) -> State: ...


class Readable(Protocol):
    """What readers need of a log: the one of this process, or a follower of another's."""

    @property
    def journal(self) -> str: ...
    @property
    def fs(self) -> FS: ...
    @property
    def writer(self) -> Kept: ...
    @property
    def tail(self) -> Tail: ...
    @property
    def history(self) -> History | None: ...
    @property
    def learns(self) -> bool: ...
    @property
    def end(self) -> Place: ...
    @property
    def oldest_seq(self) -> int: ...
    async def wait_beyond(self, seq: int) -> None: ...


class Gap(LogError):
    """What follows a cursor has been let go."""


class Read(NamedTuple):
    """A frame and the segment it is in."""

    segment: Segment
    found: Found

    @property
    def where(self) -> str:
        return f"{self.segment.path}: byte {self.found.pos}: frame {self.found.header.seq}"


def segment_of(log: Readable, seq: int) -> Segment:
    """The segment that holds a frame. Raises Gap when it is no longer kept."""
    segments = list(log.writer.segments)
    for segment in reversed(segments):
        # What is in fragments too is read from the segment while there is one.
        if segment.header.base_seq <= seq:
            return segment
    raise Gap(
        f"journal {log.journal!r}: frame {seq} has been let go by retention, the oldest kept is "
        f"{segments[0].header.base_seq}; start again from a backfill or `hub log rewind` to what is kept"
    )


def frames_after(log: Readable, seq: int, upto: int) -> Iterator[Read]:
    """The frames after `seq` up to and including `upto`, which must be durable. Raises Gap, Corrupt."""
    fs = log.fs
    while seq < upto:
        segment = segment_of(log, seq + 1)
        try:
            fd = fs.open(segment.path, write=False)
        except FileNotFoundError:
            if segment not in log.writer.segments:
                continue
            raise
        try:
            until = min(segment.last_seq, upto)
            first, pos = segment.start_for(seq + 1)
            at = scan(fs, fd, segment.header, pos=pos, seq=first, upto=until)
            for found in at:
                pos = found.pos
                if found.header.seq > seq:
                    seq = found.header.seq
                    if log.learns:
                        segment.learn(seq, pos, found.header.ts_us)
                    yield Read(segment, found)
            if seq < until:
                raise Corrupt(
                    f"{segment.path}: after byte {pos}: frame {seq + 1} is damaged; it had been durable"
                )
        finally:
            fs.close(fd)


def pieces(log: Readable, frame: Read, wanted: Callable[[str], bool]) -> Iterator[Committed]:
    """What a frame makes visible of the wanted collections: nothing, a transaction, or a large one in pieces."""
    header, payload = frame.found.header, frame.found.payload
    if header.kind not in VISIBLE:
        return
    head, start = decode_head(payload, frame.where)
    place = Place(header.epoch, header.seq)
    shown = False
    if head.parts and any(wanted(collection) for collection, _, _ in head.totals or ()):
        for part in head.parts:
            payload_of, where = read_part(log, part)
            part_head, part_start = decode_head(payload_of, where)
            items, lost = parted(decode_items(payload_of, part_head, part_start, wanted, where))
            if items:
                shown = True
                yield Committed(place, head.task, header.ts_us, items, complete=False)
    items, lost = parted(decode_items(payload, head, start, wanted, frame.where))
    if items or lost or shown:
        yield Committed(place, head.task, header.ts_us, items, lost=lost)


def read_part(log: Readable, part: PartRef) -> tuple[bytes, str]:
    """The payload of a part of a large transaction, and where it lies."""
    segment = segment_of(log, part.seq)
    where = f"{segment.path}: byte {part.pos}: frame {part.seq}"
    fd = log.fs.open(segment.path, write=False)
    try:
        found = read_frame(log.fs, fd, segment.header, part.pos, part.seq, part.length, str(segment.path))
    finally:
        log.fs.close(fd)
    if found.header.payload_crc != part.crc or found.header.kind != Kind.PART:
        raise Corrupt(f"{where}: is not the part that its COMMIT refers to")
    return found.payload, where


def checkpoint_of(fs: FS, segment: Segment) -> Checkpoint:
    """The state of the journal at the start of a segment. Raises Corrupt."""
    fd = fs.open(segment.path, write=False)
    try:
        for found in scan(fs, fd, segment.header, upto=segment.header.base_seq):
            if found.header.kind == Kind.CHECKPOINT:
                return msgspec.msgpack.decode(found.payload, type=Checkpoint)
    finally:
        fs.close(fd)
    raise Corrupt(f"{segment.path}: byte {SEGMENT_HEADER_BYTES}: a segment begins with a checkpoint")


def schemas_before(log: Readable, seq: int) -> dict[str, bytes]:
    """The newest schema text of each collection before a frame."""
    if seq > log.end.seq and not log.learns:
        return dict(log.writer.state.schemas)
    oldest = log.writer.segments[0].header.base_seq
    if seq < oldest and log.history is not None:
        known = {**schemas_before(log, oldest), **log.history.schemas_before(seq)}
        return {name: text for name, text in known.items() if text is not None}
    segment = segment_of(log, seq)
    schemas: dict[str, bytes] = {}
    fd = log.fs.open(segment.path, write=False)
    try:
        upto = max(seq - 1, segment.header.base_seq)
        for found in scan(log.fs, fd, segment.header, pos=SEGMENT_HEADER_BYTES, upto=upto):
            if found.header.kind == Kind.CHECKPOINT:
                schemas = msgspec.msgpack.decode(found.payload, type=Checkpoint).schemas
            elif found.header.kind in VISIBLE:
                head, start = decode_head(found.payload, f"{segment.path}: byte {found.pos}")
                names = [b.collection for b in head.blocks if b.encoding == Encoding.SCHEMA]
                if names:
                    schemas.update(zip(names, schema_texts(head, found.payload, start), strict=True))
    finally:
        log.fs.close(fd)
    return schemas
