"""A fragment: the blocks of one collection from a run of frames, in order, in a file of its own.

Bodies are the very bytes that stood in the journal. Before each stands a small head that says which frame it came
from; behind all of them a sparse index. A file appears under its name only when it is whole and durable, and is
never changed: what replaces it is a file of a later generation.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import msgspec
from google_crc32c import value as crc_of

from hub.errors import Corrupt, FatalError
from hub.log.fs import FS, write_all
from hub.log.transaction import BlockHead

VERSION = 1
SUFFIX = ".frag"
_MAGIC = b"hubFRAG\n"
HEADER_BYTES = 16
_LENGTHS_BYTES = 8
_TRAILER_BYTES = 24
_INDEX_BYTES = 64 << 10
_READ_BYTES = 1 << 20
_HELD_BYTES = 256 << 10
_HEAD_BYTES_MAX = 64 << 20
_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})-([0-9a-f]{8})\.frag")


class Piece(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One block, the frame it came from, and its place among the frame's items. `offsets` are those of its records, where some were compacted away:
    32 bits each, counted from `first_offset`."""

    epoch: int
    seq: int
    item: int
    ts_us: int
    task: str
    first_offset: int
    offsets: bytes | None
    block: BlockHead


class Fragment(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a fragment without reading it. It stands for all frames from `first_seq` to `last_seq`."""

    name: str
    collection: str
    generation: int
    first_seq: int
    last_seq: int
    first_offset: int
    records: int
    raw_bytes: int
    size: int
    first_us: int
    last_us: int
    newest_seq: int
    compacted: bool
    schema: bytes | None
    """The collection's schema before the first of its records, as JSON text."""
    index: list[tuple[int, int, int, int]]
    """Sequence, byte, offset, running time: one entry for 64 KiB."""
    oldest_delete_us: int = 0
    """When the oldest delete that compaction left here was appended; 0 without one."""

    @property
    def key(self) -> str:
        """What control.db lists it by."""
        return f"{self.collection}/{self.name}"

    def path(self, directory: Path) -> Path:
        return directory / collection_id(self.collection) / self.name

    def start_for(self, seq: int) -> int:
        """The byte from which a reader has to read for frame `seq`."""
        found = bisect_right(self.index, seq - 1, key=lambda entry: entry[0]) - 1
        return self.index[found][1] if found >= 0 else HEADER_BYTES


def collection_id(collection: str) -> str:
    """A directory name for a collection: what can be read of its name, and a digest that tells it from others."""
    readable = re.sub(r"[^A-Za-z0-9._-]", "_", collection)[:60].lstrip(".")
    return f"{readable}-{hashlib.blake2b(collection.encode(), digest_size=6).hexdigest()}"


def name_of(first_seq: int, last_seq: int, generation: int) -> str:
    return f"{first_seq:016x}-{last_seq:016x}-{generation:08x}{SUFFIX}"


def parse_name(name: str) -> tuple[int, int, int] | None:
    """First and last sequence and generation, by the name of the file."""
    found = _NAME.fullmatch(name)
    return (int(found[1], 16), int(found[2], 16), int(found[3], 16)) if found else None


class FragmentWriter:
    """Writes one fragment. Until `finish` has returned there is none, and `abandon` leaves no trace.

    Both raise OSError. A file that was neither finished nor abandoned is left as `.tmp` for the next open to remove.
    """

    def __init__(
        self,
        fs: FS,
        directory: Path,
        collection: str,
        *,
        first_seq: int,
        last_seq: int,
        generation: int,
        schema: bytes | None,
        compacted: bool = False,
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._folder = directory / collection_id(collection)
        self._made = Fragment(
            name_of(first_seq, last_seq, generation),
            collection,
            generation,
            first_seq,
            last_seq,
            first_offset=0,
            records=0,
            raw_bytes=0,
            size=0,
            first_us=0,
            last_us=0,
            newest_seq=0,
            compacted=compacted,
            schema=schema,
            index=[],
        )
        self._waiting = [_MAGIC + VERSION.to_bytes(8, "little")]
        self._held = self._pos = HEADER_BYTES
        self._written = 0
        self._records = self._raw_bytes = 0
        self._first: Piece | None = None
        self._last: Piece | None = None
        self._last_us = 0
        self.oldest_delete_us = 0
        self._index: list[tuple[int, int, int, int]] = []
        fs.mkdir(self._folder)
        self._staged = self._folder / f"{self._made.name}.tmp"
        if self._staged.name in fs.listdir(self._folder):
            fs.unlink(self._staged)
        self._fd = fs.open(self._staged, create=True)

    def add(self, piece: Piece, body: bytes) -> None:
        """Add a block. Frames come in order."""
        self._last_us = max(self._last_us, piece.ts_us)
        # An index entry stands at the first block of a frame, so that no frame is entered in its middle.
        far = not self._index or self._pos - self._index[-1][1] >= _INDEX_BYTES
        if far and (self._last is None or self._last.seq != piece.seq):
            self._index.append((piece.seq, self._pos, piece.first_offset, self._last_us))
        if self._first is None:
            self._first = piece
        self._last = piece
        head = msgspec.msgpack.encode(piece)
        self._waiting += [len(head).to_bytes(4, "little"), crc_of(head).to_bytes(4, "little"), head, body]
        size = _LENGTHS_BYTES + len(head) + len(body)
        self._pos += size
        self._held += size
        self._records += piece.block.count
        self._raw_bytes += piece.block.raw_len
        if self._held >= _HELD_BYTES:
            self._written += write_all(self._fs, self._fd, [b"".join(self._waiting)], self._written)
            self._waiting.clear()
            self._held = 0

    def finish(self) -> Fragment | None:
        """Make it durable under its name. None, and no file, when nothing was added."""
        if self._first is None:
            self.abandon()
            return None
        made = msgspec.structs.replace(
            self._made,
            first_offset=self._first.first_offset,
            records=self._records,
            raw_bytes=self._raw_bytes,
            first_us=self._first.ts_us,
            last_us=self._last_us,
            newest_seq=self._last.seq if self._last is not None else 0,
            index=self._index,
            oldest_delete_us=self.oldest_delete_us,
        )
        footer = msgspec.msgpack.encode(made)
        trailer = len(footer).to_bytes(8, "little") + crc_of(footer).to_bytes(8, "little") + _MAGIC
        try:
            write_all(self._fs, self._fd, [b"".join([*self._waiting, footer, trailer])], self._written)
            self._fs.fsync(self._fd)
        except OSError:
            self.abandon()
            raise
        self._fs.close(self._fd)
        self._fs.rename(self._staged, self._folder / made.name)
        self._fs.sync_dir(self._folder)
        self._fs.sync_dir(self._directory)
        return msgspec.structs.replace(made, size=self._pos + len(footer) + _TRAILER_BYTES)

    def abandon(self) -> None:
        self._fs.close(self._fd)
        self._fs.unlink(self._staged)


def read_fragment(fs: FS, path: Path) -> Fragment:
    """What a fragment says of itself. Raises Corrupt, FatalError for a later version."""
    fd = fs.open(path, write=False)
    try:
        size = fs.size(fd)
        trailer = fs.pread(fd, _TRAILER_BYTES, max(0, size - _TRAILER_BYTES))
        start = fs.pread(fd, HEADER_BYTES, 0)
        length = int.from_bytes(trailer[:8], "little")
        if start[:8] != _MAGIC or trailer[16:] != _MAGIC or length > size - HEADER_BYTES - _TRAILER_BYTES:
            raise Corrupt(f"{path}: is cut off or no fragment")
        if int.from_bytes(start[8:], "little") != VERSION:
            raise FatalError(f"{path}: a later version; use the newer hub that wrote it")
        footer = fs.pread(fd, length, size - _TRAILER_BYTES - length)
    finally:
        fs.close(fd)
    if crc_of(footer) != int.from_bytes(trailer[8:16], "little"):
        raise Corrupt(f"{path}: checksum of the index does not match")
    try:
        made = msgspec.msgpack.decode(footer, type=Fragment)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Corrupt(f"{path}: the index cannot be read: {error}") from error
    if made.name != path.name:
        raise Corrupt(f"{path}: says it is {made.name}; the file was renamed or copied")
    return msgspec.structs.replace(made, size=size)


def piece_at(fs: FS, fd: int, pos: int, end: int) -> tuple[Piece, bytes, int] | None:
    """The block at a byte and where the next one begins, or None when there is none that is whole but for its body."""
    lengths = fs.pread(fd, _LENGTHS_BYTES, pos)
    head_len = int.from_bytes(lengths[:4], "little")
    if not 0 < head_len <= min(_HEAD_BYTES_MAX, end - pos):
        return None
    head = fs.pread(fd, head_len, pos + _LENGTHS_BYTES)
    if crc_of(head) != int.from_bytes(lengths[4:], "little"):
        return None
    try:
        piece = _piece_decoder.decode(head)
    except (msgspec.MsgspecError, ValueError):
        return None
    start = pos + _LENGTHS_BYTES + head_len
    return piece, fs.pread(fd, piece.block.stored_len, start), start + piece.block.stored_len


_piece_decoder = msgspec.msgpack.Decoder(Piece)


def read_pieces(fs: FS, directory: Path, fragment: Fragment, after_seq: int) -> Iterator[tuple[Piece, bytes]]:
    """The blocks of frames after `after_seq`, in order. Bodies are not checked here but where they are decoded.

    Raises FileNotFoundError, at the first step, when the fragment has been replaced meanwhile; Corrupt.
    """
    path = fragment.path(directory)
    fd = fs.open(path, write=False)
    try:
        size = fs.size(fd)
        if size != fragment.size:
            raise Corrupt(f"{path}: {size} bytes, but {fragment.size} were written")
        trailer = fs.pread(fd, _TRAILER_BYTES, size - _TRAILER_BYTES)
        end = size - _TRAILER_BYTES - int.from_bytes(trailer[:8], "little")
        pos = fragment.start_for(after_seq + 1)
        base, data = pos, b""
        while pos < end:
            at = pos - base
            if len(data) - at < _LENGTHS_BYTES:
                base, at, data = pos, 0, fs.pread(fd, _READ_BYTES, pos)
            head_len = int.from_bytes(data[at : at + 4], "little")
            if not 0 < head_len <= min(_HEAD_BYTES_MAX, end - pos):
                raise Corrupt(f"{path}: byte {pos}: the head of a block is damaged")
            whole = _LENGTHS_BYTES + head_len
            if len(data) - at < whole:
                base, at, data = pos, 0, fs.pread(fd, max(_READ_BYTES, whole), pos)
            head = data[at + _LENGTHS_BYTES : at + whole]
            if crc_of(head) != int.from_bytes(data[at + 4 : at + 8], "little"):
                raise Corrupt(f"{path}: byte {pos}: the head of a block is damaged")
            try:
                piece = _piece_decoder.decode(head)
            except (msgspec.MsgspecError, ValueError) as error:
                raise Corrupt(f"{path}: byte {pos}: the head of a block cannot be read: {error}") from error
            stored = piece.block.stored_len
            if piece.seq > after_seq:
                if len(data) - at < whole + stored:
                    if pos + whole + stored > end:
                        raise Corrupt(f"{path}: byte {pos}: a block reaches beyond the end")
                    base, at, data = pos, 0, fs.pread(fd, max(_READ_BYTES, whole + stored), pos)
                yield piece, data[at + whole : at + whole + stored]
            pos += whole + stored
    finally:
        fs.close(fd)
