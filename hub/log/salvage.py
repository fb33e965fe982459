"""A damaged or missing fragment made anew: what can be read of it stays, and the rest is told to readers as lost.

A block's head says how long it is, so behind a damaged one the next is only found at an entry of the index; control.db
has a copy of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from hub.errors import HubError
from hub.log.fragment import (
    HEADER_BYTES,
    Fragment,
    FragmentWriter,
    Piece,
    parse_name,
    piece_at,
    read_fragment,
    read_pieces,
)
from hub.log.fs import FS
from hub.log.history import entries
from hub.log.repair import BROKEN, put_aside
from hub.log.sealer import offsets_of
from hub.log.transaction import decode_block, lost_block

if TYPE_CHECKING:
    from hub.control import Control


class Salvaged(NamedTuple):
    """What came of one fragment."""

    path: Path
    collection: str
    lost: int | None
    """Records; None: not known."""

    def __str__(self) -> str:
        many = "it is not known how many" if self.lost is None else str(self.lost)
        return f"{self.path}: {many} records of {self.collection or 'an unknown collection'} are lost"


def repair_fragments(fs: FS, directory: Path, journal: str, control: Control) -> list[Salvaged]:
    """Mend what is damaged or missing of a journal's fragments, each copied before."""
    listed = control.fragments(journal)
    registered = {key: msgspec.msgpack.decode(entry, type=Fragment) for key, entry in listed}
    known = {entry.path(directory): entry for entry in registered.values()}
    present = {
        directory / folder / name
        for folder in (fs.listdir(directory) if directory.exists() else ())
        if folder != BROKEN
        for name in fs.listdir(directory / folder)
        if parse_name(name) is not None
    }
    said: list[Salvaged] = []
    for path in sorted(present | known.keys()):
        if path in present and is_whole(fs, directory, path):
            continue
        if path in present:
            put_aside(fs, path, directory / BROKEN)
        entry = known.get(path) or _told(fs, path)
        if entry is None:
            said.append(Salvaged(path, "", None))
        else:
            said.append(_mended(fs, directory, path, entry, journal, control))
        if path in present:
            fs.unlink(path)
    return said


def is_whole(fs: FS, directory: Path, path: Path) -> bool:
    """Whether everything in a fragment can be read."""
    try:
        for piece, body in read_pieces(fs, directory, read_fragment(fs, path), 0):
            decode_block(piece.block, body, str(path))
    except HubError:
        return False
    return True


def _told(fs: FS, path: Path) -> Fragment | None:
    """What a fragment that nobody registered says of itself, by its end or by its blocks."""
    try:
        return read_fragment(fs, path)
    except HubError:
        pass
    first = next(_pieces(fs, path, None), None)
    if first is None:
        return None
    piece, _ = first
    first_seq, last_seq, generation = parse_name(path.name) or (0, 0, 0)
    return Fragment(
        path.name,
        piece.block.collection,
        generation,
        first_seq,
        last_seq,
        first_offset=piece.first_offset,
        records=0,
        raw_bytes=0,
        size=0,
        first_us=piece.ts_us,
        last_us=piece.ts_us,
        newest_seq=last_seq,
        compacted=False,
        schema=None,
        index=[],
    )


def _mended(fs: FS, directory: Path, path: Path, entry: Fragment, journal: str, control: Control) -> Salvaged:
    writer = FragmentWriter(
        fs,
        directory,
        entry.collection,
        first_seq=entry.first_seq,
        last_seq=entry.last_seq,
        generation=entry.generation + 1,
        compacted=entry.compacted,
        schema=entry.schema,
    )
    found, expected, last_us = 0, entry.first_offset, entry.first_us
    lost = 0

    def stand_for(count: int, seq: int, ts_us: int) -> None:
        """Let a block stand for records that are lost."""
        nonlocal lost
        lost += count
        block = lost_block(entry.collection, count, count, ts_us)
        writer.add(Piece(0, seq, 0, ts_us, "", expected, None, block), b"")

    try:
        for piece, body in _pieces(fs, path, entry):
            if piece.first_offset > expected and not entry.compacted:
                stand_for(piece.first_offset - expected, piece.seq, piece.ts_us)
            writer.add(piece, body)
            found += piece.block.count
            expected = offsets_of(piece)[-1] + 1 if piece.block.count else expected
            last_us = piece.ts_us
        missing = entry.records - found - lost
        if missing > 0:
            stand_for(missing, entry.newest_seq, max(last_us, entry.last_us))
        made = writer.finish()
    except BaseException:
        writer.abandon()
        raise
    control.swap_fragments_now(journal, add=entries([made] if made else []), remove=[entry.key])
    return Salvaged(path, entry.collection, lost if entry.records else None)


def _pieces(fs: FS, path: Path, entry: Fragment | None) -> Iterator[tuple[Piece, bytes]]:
    """The blocks that can be read, in order."""
    if not path.exists():
        return
    starts = [pos for _, pos, *_ in entry.index] if entry is not None else []
    fd = fs.open(path, write=False)
    try:
        pos, size = HEADER_BYTES, fs.size(fd)
        while pos < size:
            found = piece_at(fs, fd, pos, size)
            if found is None:
                # Behind a head that is damaged the index is the only guide.
                pos = next((start for start in starts if start > pos), size)
                continue
            piece, body, pos = found
            try:
                decode_block(piece.block, body, str(path))
            except HubError:
                continue
            yield piece, body
    finally:
        fs.close(fd)
