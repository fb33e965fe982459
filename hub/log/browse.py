"""Looking through a log by collection, offset and time, as people do: slower than a reader, and knows offsets."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from hub.log.fragment import Piece
from hub.log.replay import Readable, checkpoint_of, frames_after
from hub.log.sealer import offsets_of, pieces_of
from hub.log.transaction import decode_block
from hub.record import Batch, Cursor, Place


class Row(NamedTuple):
    """A block of records where it stands: `offsets` are those of its records."""

    piece: Piece
    offsets: list[int]
    batch: Batch


def browse(
    log: Readable,
    wanted: Callable[[str], bool],
    *,
    after_seq: int = 0,
    from_offset: int = 0,
    since_us: int = 0,
) -> Iterator[Row]:
    """The records of the wanted collections, oldest first, up to the end of the log. Raises Corrupt.

    With `since_us` it begins with the first frame that was appended at that time or later; the log's times never
    go back, so everything after it belongs there.
    """
    for piece, body, where in _pieces(log, wanted, after_seq, since_us):
        if piece.seq <= after_seq or piece.ts_us < since_us:
            continue
        item = decode_block(piece.block, body, where)
        if not isinstance(item, Batch):
            continue
        offsets = list(offsets_of(piece))
        if offsets and offsets[-1] >= from_offset:
            keep = [row for row, offset in enumerate(offsets) if offset >= from_offset]
            yield Row(piece, [offsets[row] for row in keep], item.take(keep))


def _pieces(
    log: Readable, wanted: Callable[[str], bool], after_seq: int, since_us: int
) -> Iterator[tuple[Piece, bytes, str]]:
    segments = list(log.writer.segments)
    oldest = segments[0].header.base_seq if segments else log.end.seq + 1
    history = log.history
    if history is not None and after_seq + 1 < oldest:
        names = [name for name in history.collections() if wanted(name)]
        sources = [history.pieces(name, after_seq, oldest - 1, from_start=True) for name in names]
        for piece, body, path in heapq.merge(*sources, key=lambda found: (found[0].seq, found[0].item)):
            yield piece, body, _where(path, piece)
    for segment in segments:
        last = log.end.seq if segment is segments[-1] else segment.last_seq
        if last <= after_seq or (segment.sealed and segment.last_us < since_us):
            continue
        # Offsets are counted from the start of a segment, so all of it is gone through.
        known = checkpoint_of(log.fs, segment).collections
        offsets = {name: info.count for name, info in known.items() if wanted(name)}
        counted = _Counting(offsets, wanted)
        for frame in frames_after(log, segment.header.base_seq - 1, min(last, log.end.seq)):
            for piece, body in pieces_of(log, frame, counted):
                yield piece, body, frame.where


class _Counting(dict[str, int]):
    """Next offset of each wanted collection; one not seen before begins at 0."""

    def __init__(self, known: dict[str, int], wanted: Callable[[str], bool]) -> None:
        super().__init__(known)
        self._wanted = wanted

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._wanted(name)

    def __missing__(self, name: str) -> int:
        return 0


def cursor_before(
    log: Readable,
    *,
    seq: int | None = None,
    since_us: int = 0,
    wanted: Callable[[str], bool] = lambda _: True,
    from_offset: int = 0,
) -> Cursor:
    """Where a reader has to stand to get next a frame, what was appended since a time, or a collection's offset."""
    if seq is None:
        found = next(browse(log, wanted, since_us=since_us, from_offset=from_offset), None)
        seq = found.piece.seq if found is not None else log.end.seq + 1
    if seq <= log.oldest_seq:
        return Cursor.START
    return Cursor({log.journal: Place(log.writer.state.epoch_of(seq - 1) or 0, seq - 1)})


def _where(path: Path, piece: Piece) -> str:
    return f"{path}: frame {piece.seq}"
