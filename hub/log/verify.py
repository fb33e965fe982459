"""Looking for damage in a journal nobody writes, and mending it on request.

`verify` reads everything and names what cannot be read. `repair` first copies every file it is about to change,
then replaces frames that are lost by empty ones of the same length and sequence, so that everything else keeps
its place; the records in them are gone, and it says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from google_crc32c import value as crc_of

from hub.errors import Corrupt, HubError
from hub.log.fragment import read_pieces
from hub.log.frame import (
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    SEGMENT_HEADER_BYTES,
    FrameHeader,
    Kind,
    SegmentHeader,
    pack_frame_header,
    pack_segment_header,
    unpack_frame_header,
)
from hub.log.fs import FS, write_all
from hub.log.history import History
from hub.log.journal import State
from hub.log.recovery import load_segments, read_newest
from hub.log.segment import (
    READ_BYTES,
    SUFFIX,
    Found,
    Segment,
    read_header,
    rest_is,
    scan,
    seal_payload,
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
        return f"{self.file}: bytes {self.pos} to {self.end}: {self.what}{lost}"


class Checked(msgspec.Struct):
    """What `verify` went through."""

    segments: int = 0
    frames: int = 0
    fragments: int = 0
    blocks: int = 0
    torn_bytes: int = 0
    damage: list[Damage] = []


def verify(fs: FS, path: Path, journal: str) -> Checked:
    """Read every byte of a journal and of its fragments. Raises nothing for damage: it is in the answer."""
    checked = Checked(damage=[])
    directory = path / "journal" / journal
    names = sorted(name for name in fs.listdir(directory) if name.endswith(SUFFIX))
    for index, name in enumerate(names):
        checked.segments += 1
        checked.damage += _segment(fs, directory / name, index == len(names) - 1, checked)
    if not checked.damage:
        try:
            load_segments(fs, directory, names)
        except HubError as error:
            checked.damage.append(Damage(str(directory), 0, 0, None, None, str(error)))
    history = History(fs, path / "fragments" / journal, journal, None)
    try:
        history.load(1 << 62)
    except HubError as error:
        checked.damage.append(Damage(str(history.directory), 0, 0, None, None, str(error)))
    for collection in history.collections():
        for fragment in history.of(collection):
            checked.fragments += 1
            where = str(fragment.path(history.directory))
            try:
                for piece, body in read_pieces(fs, history.directory, fragment, 0):
                    decode_block(piece.block, body, f"{where}: frame {piece.seq}")
                    checked.blocks += 1
            except HubError as error:
                checked.damage.append(
                    Damage(where, 0, fragment.size, fragment.first_seq, fragment.last_seq, str(error))
                )
    return checked


def _segment(fs: FS, path: Path, newest: bool, checked: Checked) -> Iterator[Damage]:
    fd = fs.open(path, write=False)
    try:
        try:
            header = read_header(fs, fd, path)
        except HubError as error:
            yield Damage(str(path), 0, SEGMENT_HEADER_BYTES, None, None, str(error))
            return
        pos, seq, prev_crc = SEGMENT_HEADER_BYTES, header.base_seq, header.prev_crc
        size = fs.size(fd)
        while True:
            kind = None
            for found in scan(fs, fd, header, pos=pos, seq=seq, prev_crc=prev_crc):
                checked.frames += 1
                yield from _blocks(path, found, checked)
                pos, seq, kind = _after(found), found.header.seq + 1, found.header.kind
            if kind == Kind.SEAL:
                return
            later = _next_intact(fs, fd, header, pos, seq)
            if later is None:
                yield from _end(fs, fd, path, header, pos, seq, size, newest, checked)
                return
            yield Damage(str(path), pos, later[0], seq, later[1].seq - 1, "damaged")
            (pos, after), prev_crc = later, None  # type: ignore[assignment]
            seq = after.seq
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


def _next_intact(
    fs: FS, fd: int, header: SegmentHeader, pos: int, seq: int
) -> tuple[int, FrameHeader] | None:
    """The next frame of this segment after damaged bytes, whole by both its checksums."""
    size = fs.size(fd)
    while pos < size:
        data = fs.pread(fd, READ_BYTES + FRAME_HEADER_BYTES - 1, pos)
        at = data.find(FRAME_MAGIC)
        while 0 <= at < READ_BYTES:
            found = unpack_frame_header(data, at)
            if (
                found is not None
                and (found.salt, found.segno) == (header.salt, header.segno)
                and found.seq > seq
            ):
                payload = fs.pread(fd, found.length, pos + at + FRAME_HEADER_BYTES)
                if crc_of(payload) == found.payload_crc:
                    return pos + at, found
            at = data.find(FRAME_MAGIC, at + 1)
        pos += READ_BYTES
    return None


def repair(fs: FS, path: Path, journal: str) -> list[str]:
    """Mend a journal that `verify` finds damaged; nobody may be writing it. Says what it did and what is lost.

    Raises Corrupt, with nothing changed, for damage it cannot mend: a segment that is missing, or whose header or
    first frame are gone.
    """
    directory = path / "journal" / journal
    names = sorted(name for name in fs.listdir(directory) if name.endswith(SUFFIX))
    checked = Checked(damage=[])
    damage = [
        d
        for i, name in enumerate(names)
        for d in _segment(fs, directory / name, i == len(names) - 1, checked)
    ]
    if not damage:
        return []
    for found in damage:
        if found.first_seq is None or found.pos <= SEGMENT_HEADER_BYTES:
            raise Corrupt(
                f"{found}. This cannot be mended in place: put the file back from a backup, or move it and all "
                "older segments away; readers that stand before it then have to start again"
            )
    first = min(names.index(Path(d.file).name) for d in damage)
    said: list[str] = []
    broken = directory / "broken"
    fs.mkdir(broken)
    for name in names[first:]:
        _copy(fs, directory / name, broken / f"{name}.broken")
    fs.sync_dir(broken)
    said.append(f"copied {len(names) - first} segments to {broken}")
    prev_crc: int | None = None
    for index, name in enumerate(names[first:], first):
        mine = [d for d in damage if Path(d.file).name == name]
        upto = _base_seq(fs, directory / names[index + 1]) - 1 if index + 1 < len(names) else None
        prev_crc = _rewrite(fs, directory / name, mine, prev_crc, upto)
    fs.sync_dir(directory)
    return said + [str(d) for d in damage]


def _rewrite(fs: FS, path: Path, damage: Sequence[Damage], prev_crc: int | None, upto: int | None) -> int:
    """Write a segment again with its lost frames empty, chained to `prev_crc`, sealed, with `upto` for its last frame
    (None: it is the newest). Returns the checksum of its last header."""
    fd = fs.open(path, write=False)
    staged = path.with_name(path.name + ".tmp")
    out = fs.open(staged, create=True)
    try:
        header = read_header(fs, fd, path)
        if prev_crc is not None:
            header = header._replace(prev_crc=prev_crc)
        write_all(fs, out, [pack_segment_header(header)], 0)
        crc = header.prev_crc
        pos = SEGMENT_HEADER_BYTES
        last: FrameHeader | None = None
        for kind, seq, ts_us, durable_seq, payload, at in _mended(fs, fd, path, header, damage):
            assert at == pos
            packed, crc = pack_frame_header(
                kind,
                header.salt,
                header.segno,
                seq,
                header.epoch,
                ts_us,
                durable_seq,
                len(payload),
                crc_of(payload),
                crc,
            )
            pos += write_all(fs, out, [packed, payload], pos)
            last = unpack_frame_header(packed, 0)
        assert last is not None
        if last.kind != Kind.SEAL:
            crc = _seal(fs, out, path, header, upto)
        fs.fsync(out)
    finally:
        fs.close(fd)
        fs.close(out)
    fs.rename(staged, path)
    return crc


def _mended(
    fs: FS, fd: int, path: Path, header: SegmentHeader, damage: Sequence[Damage]
) -> Iterator[tuple[int, int, int, int, bytes, int]]:
    """Kind, sequence, time, attested sequence, payload and place of each frame, lost ones as empty marks."""
    pos, seq, prev_crc, ts_us = SEGMENT_HEADER_BYTES, header.base_seq, None, header.created_us
    for stretch in [*damage, None]:
        for found in scan(fs, fd, header, pos=pos, seq=seq, prev_crc=prev_crc):
            ts_us = found.header.ts_us
            yield (
                found.header.kind,
                found.header.seq,
                ts_us,
                found.header.durable_seq,
                found.payload,
                found.pos,
            )
            pos, seq = _after(found), found.header.seq + 1
        if stretch is None or stretch.last_seq is None:
            return
        while seq <= stretch.last_seq:
            rest = stretch.end - pos - FRAME_HEADER_BYTES if seq == stretch.last_seq else 0
            yield Kind.MARK, seq, ts_us, seq - 1, bytes(rest), pos
            pos += FRAME_HEADER_BYTES + rest
            seq += 1


def _seal(fs: FS, out: int, path: Path, header: SegmentHeader, upto: int | None) -> int:
    """End a segment whose SEAL is lost, at frame `upto` if it is known: with empty frames up to there, and a SEAL."""
    segment = Segment(path, header, 0)
    last, _, _ = read_newest(fs, out, segment, State())
    seq, ts_us, crc, pos = last.header.seq, last.header.ts_us, last.header.crc, segment.end

    def put(kind: int, payload: bytes) -> None:
        nonlocal seq, crc, pos
        seq += 1
        packed, crc = pack_frame_header(
            kind,
            header.salt,
            header.segno,
            seq,
            header.epoch,
            ts_us,
            seq - 1,
            len(payload),
            crc_of(payload),
            crc,
        )
        pos += write_all(fs, out, [packed, payload], pos)

    while upto is not None and seq < upto - 1:
        put(Kind.MARK, b"")
    put(Kind.SEAL, seal_payload(segment.summary()))
    return crc


def _base_seq(fs: FS, path: Path) -> int:
    fd = fs.open(path, write=False)
    try:
        return read_header(fs, fd, path).base_seq
    finally:
        fs.close(fd)


def _copy(fs: FS, source: Path, target: Path) -> None:
    fd, out = fs.open(source, write=False), fs.open(target, create=True)
    try:
        pos = 0
        while data := fs.pread(fd, READ_BYTES, pos):
            pos += write_all(fs, out, [data], pos)
        fs.fsync(out)
    finally:
        fs.close(fd)
        fs.close(out)


def _after(found: Found) -> int:
    return found.pos + FRAME_HEADER_BYTES + found.header.length
