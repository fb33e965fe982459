"""Opening a journal: find the end of what was acknowledged, prove that nothing before it is missing.

A checksum alone cannot tell a write that power loss cut short from damage to what had been durable; cutting
there would lose acknowledged data. Each header says up to where the log was durable when it was built, so a
later intact header is the proof that earlier bytes had been, and their damage is refused instead.

Frames that nothing attests may be ghosts: after a failed sync, pages that never reached the disk are read
back from memory as if they had. They are written again, and synced, before anybody may see them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from hub.errors import Corrupt, Full
from hub.log.clock import JUMP_US, LogClock, steady_us, wall_us
from hub.log.frame import FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, VISIBLE, Kind, SegmentHeader
from hub.log.fs import FS, write_all
from hub.log.journal import Journal
from hub.log.options import DURABILITY_TEXT, Durability
from hub.log.segment import (
    SUFFIX,
    Found,
    Segment,
    read_header,
    read_seal,
    read_summary,
    rest_is,
    scan,
    segment_name,
)
from hub.log.state import State
from hub.log.transaction import SCHEMA, Head, decode_head

STAGED = ".tmp"


class Recovered(msgspec.Struct):
    """What an open found out: for the log's status, its warnings and its counters."""

    scanned_bytes: int = 0
    torn_bytes: int = 0
    """Bytes of a group that was cut short, and never acknowledged."""
    rewritten_frames: int = 0
    clock_back_us: int = 0
    full: str = ""


def report_lines(report: Recovered, directory: Path, durability: Durability) -> list[str]:
    """What an operator should know about an open."""
    lines: list[str] = []
    if report.torn_bytes:
        lines.append(f"{directory}: a write was cut short; it had not been acknowledged")
    if report.clock_back_us > JUMP_US:
        behind_s = report.clock_back_us / 1e6
        lines.append(
            f"the wall clock is {behind_s:.0f} s behind the newest record; the log keeps its own time"
        )
    if report.full:
        lines.append(report.full)
    if durability != "disk":
        lines.append(f"log.durability is {durability!r}: {DURABILITY_TEXT[durability]}")
    return lines


def open_journal(
    fs: FS,
    directory: Path,
    *,
    segment_bytes: int,
    syncing: bool = True,
    wall: Callable[[], int] = wall_us,
    steady: Callable[[], int] = steady_us,
    random: Callable[[int], bytes] = os.urandom,
    room: Callable[[int], bool] = lambda _: True,
) -> tuple[Journal, Recovered]:
    """The writer of a journal in a new epoch, with everything acknowledged before in it.

    The caller holds the journal's lock. Raises Corrupt, naming file and byte, when anything that had been
    acknowledged is damaged or missing; OSError when the disk fails meanwhile, after which it may be tried again.
    """
    report = Recovered()
    fs.mkdir(directory)
    names = sorted(fs.listdir(directory))
    for name in names:
        if name.endswith(STAGED):
            fs.unlink(directory / name)
    segments = load_segments(fs, directory, [name for name in names if name.endswith(SUFFIX)])
    state = State()
    newest = segments[-1] if segments else None
    last_crc = _recover_newest(fs, newest, state, report) if newest is not None else 0
    # Names that an interrupted open saw may not be durable yet.
    fs.sync_dir(directory)
    clock = LogClock(newest.last_us if newest is not None else 0, wall=wall, steady=steady)
    report.clock_back_us = max(0, clock.set_back_us)
    journal = Journal(fs, directory, segment_bytes=segment_bytes, syncing=syncing, clock=clock, random=random)
    journal.state = state
    journal.segments = segments
    if not state.epochs:
        # Written before checkpoints knew of epochs.
        for segment in segments:
            state.begin(segment.header.epoch, segment.header.base_seq)
    journal.used_bytes = sum(segment.size for segment in segments)
    journal.room = room
    if newest is None:
        journal.uuid = random(16)
        journal.epoch = wall() // 1_000_000
    else:
        journal.uuid = newest.header.log_uuid
        # By the second of the open: an old copy of the log that is put back and written on gets other epochs than
        # what it stands for had, so nobody's place in that is taken for one in this.
        journal.epoch = max(newest.header.epoch + 1, wall() // 1_000_000)
        journal.next_seq = newest.last_seq + 1
        journal.durable_seq = journal.written_seq = newest.last_seq
        journal.prev_crc = last_crc
        if not newest.sealed:
            journal.resume(newest)
    try:
        journal.roll()
    except Full as error:
        # Readers can still drain what is there; the first append tries again.
        report.full = str(error)
    return journal, report


def load_segments(fs: FS, directory: Path, names: list[str]) -> list[Segment]:
    """All segments, checked to be whole and to follow one another. All but the newest are sealed.

    Raises Corrupt.
    """
    segments: list[Segment] = []
    seal: Found | None = None
    for index, name in enumerate(names):
        path = directory / name
        fd = fs.open(path, write=False)
        try:
            header = read_header(fs, fd, path)
            if segments:
                assert seal is not None
                _follows(segments[-1], seal, header, path)
            segment = Segment(path, header, fs.size(fd))
            segments.append(segment)
            if index == len(names) - 1:
                break
            seal = read_seal(fs, fd, header, str(path))
            if seal is None:
                raise _why_no_seal(fs, fd, segment)
            sealed(segment, seal)
        finally:
            fs.close(fd)
    return segments


def sealed(segment: Segment, seal: Found) -> None:
    """Fill in what the SEAL says of its segment."""
    summary = read_summary(seal.payload, str(segment.path))
    segment.collections = summary.collections
    segment.first_us = summary.first_us
    segment.first_part_segno = summary.first_part_segno
    segment.index = summary.index
    segment.newest_seq = summary.newest_seq
    segment.last_us = max(summary.last_us, seal.header.ts_us)
    segment.last_seq = seal.header.seq
    segment.end = seal.pos + FRAME_HEADER_BYTES + seal.header.length
    segment.sealed = True


def _follows(before: Segment, seal: Found, header: SegmentHeader, path: Path) -> None:
    if header.log_uuid != before.header.log_uuid:
        raise Corrupt(f"{path}: belongs to another log than {before.path.name}")
    if header.segno != before.segno + 1:
        raise Corrupt(f"{path}: {segment_name(before.segno + 1)} is missing before it")
    if header.base_seq != before.last_seq + 1 or header.prev_crc != seal.header.crc:
        raise Corrupt(
            f"{path}: begins with frame {header.base_seq} but {before.path.name} ends with {before.last_seq}; "
            "one of the two was replaced"
        )
    if header.epoch < before.header.epoch:
        raise Corrupt(f"{path}: epoch {header.epoch} after epoch {before.header.epoch}")


def _why_no_seal(fs: FS, fd: int, segment: Segment) -> Corrupt:
    """A segment that is not the newest has to end with its SEAL: name the first frame that is wrong."""
    pos, seq = SEGMENT_HEADER_BYTES, segment.header.base_seq
    for found in scan(fs, fd, segment.header):
        pos, seq = found.pos + FRAME_HEADER_BYTES + found.header.length, found.header.seq + 1
    return Corrupt(
        f"{segment.path}: byte {pos}: frame {seq} is damaged or cut off (the segment is not the newest, "
        "so all of it had been acknowledged); `hub log verify` lists the damage, `hub log repair` mends it"
    )


def _recover_newest(fs: FS, segment: Segment, state: State, report: Recovered) -> int:
    """Bring the newest segment to its true end, sealed. Returns the checksum the next frame is chained to."""
    fd = fs.open(segment.path)
    try:
        last, unattested, is_sealed = read_newest(fs, fd, segment, state)
        report.scanned_bytes = segment.end
        size = fs.size(fd)
        if not is_sealed:
            zeros, proof = rest_is(fs, fd, segment.header, segment.end, segment.last_seq + 1)
            if proof is not None:
                raise Corrupt(
                    f"{segment.path}: byte {segment.end}: frame {segment.last_seq + 1} is damaged; the frame at "
                    f"byte {proof} proves that it had been acknowledged; `hub log repair` copies the file first"
                )
            if size < segment.header.alloc_size:
                raise Corrupt(
                    f"{segment.path}: {size} bytes, but {segment.header.alloc_size} were allocated and there is "
                    "no SEAL: the file was cut off"
                )
            if not zeros:
                report.torn_bytes = size - segment.end
                _zero(fs, fd, segment.end, size)
        for found in unattested:
            header = fs.pread(fd, FRAME_HEADER_BYTES, found.pos)
            write_all(fs, fd, [header, found.payload], found.pos)
        report.rewritten_frames = len(unattested)
        fs.fsync(fd)
        if is_sealed and size != segment.end:
            fs.truncate(fd, segment.end)
            fs.fsync(fd)
        segment.sealed = is_sealed
        segment.size = segment.end if is_sealed else size
        return last.header.crc
    finally:
        fs.close(fd)


def read_newest(fs: FS, fd: int, segment: Segment, state: State) -> tuple[Found, deque[Found], bool]:
    """Read all intact frames. Returns the last one, those that nothing attests, and whether it is a SEAL."""
    file = str(segment.path)
    last: Found | None = None
    unattested: deque[Found] = deque()
    for found in scan(fs, fd, segment.header):
        header = found.header
        if last is None:
            if header.kind != Kind.CHECKPOINT:
                raise Corrupt(f"{segment.path}: byte {found.pos}: a segment begins with a checkpoint")
            state.restore(found.payload)
            state.mark()
        while unattested and unattested[0].header.seq <= header.durable_seq:
            unattested.popleft()
        unattested.append(found)
        if header.kind in VISIBLE:
            try:
                head, start = decode_head(found.payload, file)
            except Corrupt as error:
                raise Corrupt(f"{error} (byte {found.pos}, frame {header.seq})") from error
            texts = schema_texts(head, found.payload, start)
            state.apply(head, texts, header.epoch, header.seq, header.ts_us)
            segment.newest_seq = header.seq
            if head.parts:
                segment.first_part_segno = min(segment.first_part_segno, head.parts[0].segno)
        segment.note(header.seq, found.pos, header.length, header.ts_us)
        last = found
        if header.kind == Kind.SEAL:
            segment.first_us = read_summary(found.payload, str(segment.path)).first_us
            break
    if last is None:
        raise Corrupt(
            f"{segment.path}: byte {SEGMENT_HEADER_BYTES}: its first frame is damaged; it had been durable "
            "before the file got its name"
        )
    segment.collections = state.since_mark()
    return last, unattested, last.header.kind == Kind.SEAL


def schema_texts(head: Head, payload: bytes, start: int) -> list[bytes]:
    """The bodies of the schema blocks of a payload, in order."""
    texts: list[bytes] = []
    for block in head.blocks:
        if block.encoding == SCHEMA:
            texts.append(payload[start : start + block.stored_len])
        start += block.stored_len
    return texts


def _zero(fs: FS, fd: int, pos: int, end: int) -> None:
    zeros = bytes(min(1 << 20, end - pos))
    while pos < end:
        pos += write_all(fs, fd, [zeros[: end - pos]], pos)
