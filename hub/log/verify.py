"""Looking for damage in a journal and its fragments: everything is read, and what cannot be is named.

The hard thing is to go on behind the first damage: a frame is known again by its magic, its own checksum, and the salt
of its segment, also where the segment's header is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from google_crc32c import value as crc_of

from hub.errors import Corrupt, HubError
from hub.log.fragment import Fragment, parse_name, read_fragment, read_pieces
from hub.log.frame import (
    FORMAT_VERSION,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    SEGMENT_HEADER_BYTES,
    FrameHeader,
    Kind,
    SegmentHeader,
    unpack_frame_header,
)
from hub.log.fs import FS
from hub.log.recovery import load_segments
from hub.log.segment import (
    READ_BYTES,
    SUFFIX,
    Found,
    read_header,
    read_seal,
    read_summary,
    rest_is,
    scan,
    segment_name,
)
from hub.log.transaction import decode_block, decode_head


class Damage(msgspec.Struct, frozen=True):
    """One stretch of a file that cannot be read. `first_seq` to `last_seq` are lost with it; None: not known."""

    file: str
    pos: int
    end: int
    first_seq: int | None
    last_seq: int | None
    what: str

    def __str__(self) -> str:
        lost = (
            ""
            if self.first_seq is None
            else f", frames {self.first_seq} to {self.last_seq or 'the end'} are lost"
        )
        where = f"bytes {self.pos} to {self.end}: " if self.end else ""
        return f"{self.file}: {where}{self.what}{lost}"


class Checked(msgspec.Struct):
    """What `verify` went through."""

    segments: int = 0
    frames: int = 0
    fragments: int = 0
    blocks: int = 0
    torn_bytes: int = 0
    damage: list[Damage] = []


def verify(fs: FS, path: Path, journal: str, registered: Mapping[str, Fragment] | None = None) -> Checked:
    """Read every byte of a journal and of its fragments. Raises nothing for damage: it is in the answer.

    `registered` are the fragments that control.db lists, by key.
    """
    registered = registered or {}
    checked = Checked(damage=[])
    directory = path / "journal" / journal
    names = segment_names(fs, directory)
    for index, name in enumerate(names):
        checked.segments += 1
        checked.damage += _segment(fs, directory / name, index == len(names) - 1, checked)
    for segno in missing_between(names):
        missing = directory / segment_name(segno)
        checked.damage.append(Damage(str(missing), 0, 0, None, None, "is missing"))
    if not checked.damage:
        try:
            load_segments(fs, directory, names)
        except HubError as error:
            checked.damage.append(Damage(str(directory), 0, 0, None, None, str(error)))
    checked.damage += _fragments(fs, path / "fragments" / journal, registered, checked)
    return checked


def _fragments(
    fs: FS, directory: Path, registered: Mapping[str, Fragment], checked: Checked
) -> Iterator[Damage]:
    """What is wrong with the fragments on disk, and which of the registered ones are not there."""
    seen: set[str] = set()
    for folder in sorted(fs.listdir(directory)) if directory.exists() else ():
        for name in sorted(fs.listdir(directory / folder)):
            if parse_name(name) is None:
                continue
            checked.fragments += 1
            path = directory / folder / name
            first_seq, last_seq, _ = parse_name(name) or (0, 0, 0)
            try:
                fragment = read_fragment(fs, path)
                seen.add(fragment.key)
                for piece, body in read_pieces(fs, directory, fragment, 0):
                    decode_block(piece.block, body, f"{path}: frame {piece.seq}")
                    checked.blocks += 1
            except HubError as error:
                seen |= {key for key, entry in registered.items() if entry.path(directory) == path}
                yield Damage(str(path), 0, path.stat().st_size, first_seq, last_seq, str(error))
    for key, entry in registered.items():
        if key not in seen:
            where = str(entry.path(directory))
            yield Damage(where, 0, entry.size, entry.first_seq, entry.last_seq, "is missing")


def segment_names(fs: FS, directory: Path) -> list[str]:
    """The segments of a journal, oldest first; none where it has no directory."""
    if not directory.exists():
        return []
    return sorted(name for name in fs.listdir(directory) if name.endswith(SUFFIX))


def missing_between(names: Sequence[str]) -> list[int]:
    """The numbers of the segments that have to be between these."""
    segnos = {int(name.removesuffix(SUFFIX)) for name in names}
    return [n for n in range(min(segnos, default=0), max(segnos, default=0)) if n not in segnos]


def _segment(fs: FS, path: Path, newest: bool, checked: Checked) -> Iterator[Damage]:
    fd = fs.open(path, write=False)
    try:
        size = fs.size(fd)
        header, wrong = known_header(fs, fd, path)
        if wrong:
            yield Damage(str(path), 0, min(size, SEGMENT_HEADER_BYTES), None, None, wrong)
        if header is None:
            return
        pos, seq, prev_crc = SEGMENT_HEADER_BYTES, header.base_seq, header.prev_crc if not wrong else None
        while True:
            kind = None
            for found in scan(fs, fd, header, pos=pos, seq=seq, prev_crc=prev_crc):
                checked.frames += 1
                yield from _blocks(path, found, checked)
                pos, seq, kind = _after(found), found.header.seq + 1, found.header.kind
            if kind == Kind.SEAL:
                return
            later = next_intact(fs, fd, header, pos, seq)
            if later is None:
                yield from _end(fs, fd, path, header, pos, seq, size, newest, checked)
                return
            yield Damage(str(path), pos, later[0], seq, later[1].seq - 1, "damaged")
            pos, seq, prev_crc = later[0], later[1].seq, None
    finally:
        fs.close(fd)


def _blocks(path: Path, found: Found, checked: Checked) -> Iterator[Damage]:
    """The blocks of an intact frame are intact, unless whoever wrote them was wrong."""
    if found.header.kind not in (Kind.TRANSACTION, Kind.PART, Kind.COMMIT):
        return
    where = f"{path}: byte {found.pos}: frame {found.header.seq}"
    try:
        head, start = decode_head(found.payload, where)
        for block in head.blocks:
            decode_block(block, found.payload[start : start + block.stored_len], where)
            start += block.stored_len
            checked.blocks += 1
    except HubError as error:
        seq = found.header.seq
        yield Damage(str(path), found.pos, _after(found), seq, seq, str(error))


def _end(
    fs: FS,
    fd: int,
    path: Path,
    header: SegmentHeader,
    pos: int,
    seq: int,
    size: int,
    newest: bool,
    checked: Checked,
) -> Iterator[Damage]:
    """What a segment without a SEAL ends with: zeros or a torn tail where it is the newest, damage elsewhere."""
    zeros, proof = rest_is(fs, fd, header, pos, seq)
    if proof is not None or not newest:
        yield Damage(str(path), pos, size, seq, None, "damaged or cut off")
    elif size < header.alloc_size:
        yield Damage(str(path), pos, size, seq, None, f"cut off: {header.alloc_size} bytes were allocated")
    elif not zeros:
        checked.torn_bytes += size - pos


def known_header(fs: FS, fd: int, path: Path) -> tuple[SegmentHeader | None, str]:
    """The header of a segment, and what is wrong with it: then it is told from the first frame that is whole, as
    far as that knows it. None when nothing in the file is of the segment of its name."""
    try:
        return read_header(fs, fd, path), ""
    except Corrupt as error:
        wrong = str(error)
    segno, size = int(path.name.removesuffix(SUFFIX)), fs.size(fd)
    guess = SegmentHeader(FORMAT_VERSION, segno, 0, 0, 0, 0, size, 0, b"")
    found = next_intact(fs, fd, guess, 0, -1)
    if found is None:
        return None, wrong
    pos, first = found
    told = guess._replace(
        salt=first.salt,
        base_seq=first.seq,
        epoch=first.epoch,
        prev_crc=first.prev_crc,
        created_us=first.ts_us,
    )
    if pos > SEGMENT_HEADER_BYTES:
        # What is before the first whole frame is counted by the seal's index; or it was at least one.
        seal = read_seal(fs, fd, told, str(path))
        index = read_summary(seal.payload, str(path)).index if seal is not None else []
        told = told._replace(base_seq=index[0][0] if index else max(1, first.seq - 1))
    return told, wrong


def next_intact(fs: FS, fd: int, header: SegmentHeader, pos: int, seq: int) -> tuple[int, FrameHeader] | None:
    """The next frame of this segment after damaged bytes, whole by both its checksums. Salt 0 stands for any."""
    size = fs.size(fd)
    while pos < size:
        data = fs.pread(fd, READ_BYTES + FRAME_HEADER_BYTES - 1, pos)
        at = data.find(FRAME_MAGIC)
        while 0 <= at < READ_BYTES:
            found = unpack_frame_header(data, at)
            if (
                found is not None
                and found.segno == header.segno
                and header.salt in (0, found.salt)
                and found.seq > seq
            ):
                payload = fs.pread(fd, found.length, pos + at + FRAME_HEADER_BYTES)
                if crc_of(payload) == found.payload_crc:
                    return pos + at, found
            at = data.find(FRAME_MAGIC, at + 1)
        pos += READ_BYTES
    return None


def _after(found: Found) -> int:
    return found.pos + FRAME_HEADER_BYTES + found.header.length
