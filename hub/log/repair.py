"""Mending a journal that nobody writes, on request: what is whole stays, what is lost is named, each file is copied first.

Lost frames are replaced by empty ones of the same numbers in the same place, the last of which says how many records of
which collections stood there. So offsets, parts and indexes keep their meaning, and readers are told when they come by.

The hard thing is the chain: every frame holds the checksum of the one before it. What takes the place of lost frames is
given the checksum that the next whole frame asks for, so nothing but the damaged file has to change, and a repair that
is cut short is only half done.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from hub.errors import Corrupt
from hub.log.anew import Before, Following, Gone, Kept, Left, write_anew
from hub.log.frame import FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, Kind, SegmentHeader, unpack_segment_header
from hub.log.fs import FS, write_all
from hub.log.segment import READ_BYTES, SUFFIX, rest_is, scan, segment_name
from hub.log.state import Checkpoint
from hub.log.transaction import Head, PartRef, decode_block, decode_head
from hub.log.verify import known_header, missing_between, next_intact, segment_names

BROKEN = "broken"
"""Where the copies go, beside the segments."""


def repair_journal(fs: FS, directory: Path) -> list[Gone]:
    """Mend all segments of a journal. Returns what is lost; where that is nothing, no record is.

    Raises Corrupt, with the files copied, for what cannot be mended.
    """
    _put_names_right(fs, directory)
    names = segment_names(fs, directory)
    segnos = sorted([*missing_between(names), *(int(name.removesuffix(SUFFIX)) for name in names)])
    gone: list[Gone] = []
    before: Before | None = None
    for index, segno in enumerate(segnos):
        path, later = directory / segment_name(segno), segnos[index + 1 :]
        left = _fitting(_left(fs, path, gone), before)
        if left is not None and _is_whole(left, before, newest=not later):
            before = _before(left, path)
            continue
        if path.exists():
            put_aside(fs, path, directory / BROKEN)
        following = next((found for found in (_following(fs, directory, n) for n in later) if found), None)
        if following is None and (left is None or not left.kept):
            if before is None:
                raise Corrupt(
                    f"{directory}: nothing can be read of any segment. Put them back from a backup; or move the "
                    "directory away, and forget it with `hub log repair --accept-loss --yes`"
                )
            # The log ends before it.
            rest = [directory / segment_name(n) for n in later]
            for other in rest:
                if other.exists():
                    put_aside(fs, other, directory / BROKEN)
            _remove(fs, [path, *rest])
            gone.append(Gone(before.last.seq + 1, before.last.seq, None))
            break
        empty = later.index(following.segno) if following is not None else 0
        gone += write_anew(fs, path, left, before, following, empty)
        left = _left(fs, path, gone)
        assert left is not None
        before = _before(left, path)
    return gone


def put_aside(fs: FS, path: Path, broken: Path) -> Path:
    """Copy a file to the broken ones, durably. Earlier copies stay."""
    fs.mkdir(broken)
    taken = set(fs.listdir(broken))
    name, number = f"{path.name}.broken", 1
    while name in taken:
        number += 1
        name = f"{path.name}.broken{number}"
    copy_file(fs, path, broken / name)
    fs.sync_dir(broken)
    return broken / name


def copy_file(fs: FS, source: Path, target: Path) -> None:
    """A copy of a file, durable but for its name."""
    fd, out = fs.open(source, write=False), fs.open(target, create=True)
    try:
        pos = 0
        while data := fs.pread(fd, READ_BYTES, pos):
            pos += write_all(fs, out, [data], pos)
        fs.fsync(out)
    finally:
        fs.close(fd)
        fs.close(out)


def _remove(fs: FS, paths: Sequence[Path]) -> None:
    """Remove files that were put aside."""
    for path in paths:
        if path.exists():
            fs.unlink(path)
    fs.sync_dir(paths[0].parent)


def _fitting(left: Left | None, before: Before | None) -> Left | None:
    """What is left of a segment, or None where that does not follow the one before: an older copy, most likely."""
    if left is None or before is None:
        return left
    expected = before.last.seq + 1, before.last.crc
    if left.named:
        return left if (left.header.base_seq, left.header.prev_crc) == expected else None
    kept = [frame for frame in left.kept if frame.header.seq >= expected[0]]
    if kept and kept[0].header.seq == expected[0] and kept[0].header.prev_crc != expected[1]:
        return None
    return left._replace(kept=kept)


def _put_names_right(fs: FS, directory: Path) -> None:
    """Give segments back the names they say they have, and put aside what is none of this journal."""
    names = segment_names(fs, directory)
    headers = {name: _header_inside(fs, directory / name) for name in names}
    uuids = [header.log_uuid for header in headers.values() if header is not None]
    own = max(set(uuids), key=uuids.count, default=b"")
    for name, header in headers.items():
        if header is None or (header.log_uuid == own and segment_name(header.segno) == name):
            continue
        proper = segment_name(header.segno)
        copy = put_aside(fs, directory / name, directory / BROKEN)
        if header.log_uuid == own and proper not in names:
            copy_file(fs, copy, directory / proper)
        _remove(fs, [directory / name])


def _header_inside(fs: FS, path: Path) -> SegmentHeader | None:
    """The header of a file whatever its name, or None when it is not whole."""
    fd = fs.open(path, write=False)
    try:
        return unpack_segment_header(fs.pread(fd, SEGMENT_HEADER_BYTES, 0), str(path))
    except Corrupt:
        return None
    finally:
        fs.close(fd)


def _left(fs: FS, path: Path, gone: Sequence[Gone]) -> Left | None:
    """What is left of a segment; None when nothing of it is."""
    if not path.exists():
        return None
    fd = fs.open(path, write=False)
    try:
        header, wrong = known_header(fs, fd, path)
        if header is None:
            return None
        kept, size = _kept(fs, fd, header, gone), fs.size(fd)
        cut = not kept
        if kept and kept[-1].header.kind != Kind.SEAL:
            # Behind the last frame there may be zeros, or what power loss left of a group that nobody was told of.
            proof = rest_is(fs, fd, header, kept[-1].end, kept[-1].header.seq + 1)[1]
            cut = size < header.alloc_size or proof is not None
        return Left(header, not wrong, size, kept, cut)
    finally:
        fs.close(fd)


def _kept(fs: FS, fd: int, header: SegmentHeader, gone: Sequence[Gone]) -> list[Kept]:
    """The frames that stay: whole, with blocks that can be read, and no COMMIT of parts that are lost."""
    kept: list[Kept] = []
    commits: dict[int, list[PartRef]] = {}
    pos, seq, prev_crc = SEGMENT_HEADER_BYTES, header.base_seq, None
    while True:
        for found in scan(fs, fd, header, pos=pos, seq=seq, prev_crc=prev_crc):
            head = _readable(found.header.kind, found.payload)
            if head is not None:
                kept.append(Kept(found.pos, found.header))
                if head.parts:
                    commits[found.header.seq] = head.parts
            pos = found.pos + FRAME_HEADER_BYTES + found.header.length
            seq, prev_crc = found.header.seq + 1, found.header.crc
        later = next_intact(fs, fd, header, pos, seq - 1)
        if later is None or (kept and kept[-1].header.kind == Kind.SEAL):
            break
        pos, seq, prev_crc = later[0], later[1].seq, None
    there = {frame.header.seq for frame in kept}
    for seq, parts in commits.items():
        if any(_is_gone(part, header.segno, there, gone) for part in parts):
            there.discard(seq)
    return [frame for frame in kept if frame.header.seq in there]


_NO_HEAD = Head("", None, None, [])


def _readable(kind: int, payload: bytes) -> Head | None:
    """The head of a frame, where it has one; None when what is in it cannot be read."""
    if kind not in (Kind.TRANSACTION, Kind.PART, Kind.COMMIT):
        return _NO_HEAD
    try:
        head, start = decode_head(payload, "")
        for block in head.blocks:
            decode_block(block, payload[start : start + block.stored_len], "")
            start += block.stored_len
    except Corrupt:
        return None
    return head


def _is_gone(part: PartRef, segno: int, there: set[int], gone: Sequence[Gone]) -> bool:
    if part.segno == segno:
        return part.seq not in there
    return any(lost.first_seq <= part.seq <= lost.last_seq for lost in gone)


def _is_whole(left: Left, before: Before | None, *, newest: bool) -> bool:
    """Whether nothing is lost of a segment, and it follows the one before it."""
    header, kept = left.header, left.kept
    if not left.named or not kept or kept[0].header.seq != header.base_seq:
        return False
    if kept[-1].header.seq - header.base_seq + 1 != len(kept):
        return False
    if before is not None and (header.base_seq, header.prev_crc) != (before.last.seq + 1, before.last.crc):
        return False
    return kept[-1].header.kind == Kind.SEAL or (newest and not left.cut)


def _before(left: Left, path: Path) -> Before:
    return Before(path, left.header, left.kept[-1].header)


def _following(fs: FS, directory: Path, segno: int) -> Following | None:
    """What a later segment says of those before it; None when nothing of it can be read."""
    path = directory / segment_name(segno)
    if not path.exists():
        return None
    fd = fs.open(path, write=False)
    try:
        header, wrong = known_header(fs, fd, path)
        if header is None:
            return None
        first = next(scan(fs, fd, header, seq=header.base_seq, upto=header.base_seq), None)
        checkpoint = None
        if first is not None and first.header.kind == Kind.CHECKPOINT:
            checkpoint = msgspec.msgpack.decode(first.payload, type=Checkpoint)
        prev_crc = header.prev_crc if not wrong else first.header.prev_crc if first is not None else None
        return Following(segno, header.base_seq, prev_crc, header.log_uuid, checkpoint)
    finally:
        fs.close(fd)
