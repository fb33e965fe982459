"""What a journal remembers in fragments: which there are, reading them in the order of their frames, replacing them.

control.db lists the fragments; the files themselves can be told from it again when it is lost. A fragment of a later
generation stands for those it covers, so whatever a crash leaves behind has one reading.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hub.errors import Corrupt, TransientError
from hub.log.fragment import SUFFIX, Fragment, Piece, parse_name, read_fragment, read_pieces
from hub.log.fs import FS
from hub.log.replay import Gap
from hub.log.transaction import Committed, Encoding, Item, Lost, decode_block
from hub.record import Place

if TYPE_CHECKING:
    from hub.control import Control

PIECE_BYTES = 8 << 20
"""A transaction larger than this is handed out in pieces."""

SEALED = ""
"""Under this name the trims remember up to where segments were taken apart into fragments."""


class History:
    """The fragments of one journal. Without a control it only reads: what is kept is told by the files alone."""

    def __init__(self, fs: FS, directory: Path, journal: str, control: Control | None) -> None:
        self.fs = fs
        self.directory = directory
        self.journal = journal
        self._control = control
        self._oldest_seq = 0
        self.trims = control.trims(journal) if control is not None else {}
        self._fragments: dict[str, tuple[Fragment, ...]] = {}
        self.used_bytes = 0

    def load(self, oldest_seq: int) -> None:
        """Find the fragments; finish or undo what a crash interrupted. `oldest_seq` begins the oldest segment.

        Raises Corrupt when a registered fragment is missing or damaged.
        """
        self._oldest_seq = oldest_seq
        listed = self._control.fragments(self.journal) if self._control is not None else []
        registered = {name: msgspec.msgpack.decode(entry, type=Fragment) for name, entry in listed}
        present = self._on_disk()
        keep, lost = settled([f for f, _ in present], registered, oldest_seq, self.trims)
        if lost:
            raise Corrupt(f"{self.directory}: fragment {lost[0]} is registered in control.db but missing")
        if self._control is not None:
            names = {f.key for f in keep}
            for fragment, path in present:
                if fragment.key not in names:
                    self.fs.unlink(path)
            strangers = [f for f in keep if f.key not in registered]
            if strangers:
                self._control.swap_fragments_now(self.journal, add=entries(strangers), remove=())
        by_collection: dict[str, list[Fragment]] = {}
        for fragment in sorted(keep, key=lambda f: f.first_seq):
            by_collection.setdefault(fragment.collection, []).append(fragment)
        self._fragments = {name: tuple(found) for name, found in by_collection.items()}
        if self._control is None:
            # What a collection has no record of from its first offset on has been let go.
            kept = [found[0] for found in self._fragments.values() if found[0].first_offset]
            self.trims = {first.collection: first.first_seq - 1 for first in kept}
        self.used_bytes = sum(f.size for f in keep)

    def _on_disk(self) -> list[tuple[Fragment, Path]]:
        found: list[tuple[Fragment, Path]] = []
        if self._control is not None:
            self.fs.mkdir(self.directory)
        elif not self.directory.exists():
            return found
        for folder in self.fs.listdir(self.directory):
            for name in self.fs.listdir(self.directory / folder):
                path = self.directory / folder / name
                if name.endswith(".tmp"):
                    if self._control is not None:
                        self.fs.unlink(path)
                elif name.endswith(SUFFIX) and parse_name(name) is not None:
                    found.append((read_fragment(self.fs, path), path))
        return found

    @property
    def sealed_seq(self) -> int:
        """All segments up to here have been taken apart."""
        return self.trims.get(SEALED, 0)

    def collections(self) -> Sequence[str]:
        return list(self._fragments)

    def of(self, collection: str) -> tuple[Fragment, ...]:
        """The fragments of a collection, oldest first."""
        return self._fragments.get(collection, ())

    def replace(self, add: Sequence[Fragment], remove: Sequence[Fragment], trims: dict[str, int]) -> None:
        """Register new fragments and forget others in one step; then remove the files of the forgotten.

        Readers that have a file open read it to its end.
        """
        assert self._control is not None, "opened for reading only"
        self._control.swap_fragments_now(
            self.journal, add=entries(add), remove=[f.key for f in remove], trims=trims
        )
        # First: a reader must not take the absence of what is let go for the absence of records.
        self.trims |= trims
        gone = {f.key for f in remove}
        changed = {f.collection for f in (*add, *remove)}
        for name in changed:
            kept = [f for f in self.of(name) if f.key not in gone]
            kept += [f for f in add if f.collection == name]
            self._fragments[name] = tuple(sorted(kept, key=lambda f: f.first_seq))
            if not kept:
                del self._fragments[name]
        self.used_bytes += sum(f.size for f in add) - sum(f.size for f in remove)
        for fragment in remove:
            self.fs.unlink(fragment.path(self.directory))

    def pieces(
        self, collection: str, after_seq: int, upto_seq: int, *, from_start: bool = False
    ) -> Iterator[tuple[Piece, bytes, Path]]:
        """The blocks of a collection of frames after `after_seq`, in order. Raises Gap, Corrupt.

        `from_start` takes what is kept for the beginning.
        """
        seq = max(after_seq, self.trims.get(collection, 0)) if from_start else after_seq
        while True:
            if self.trims.get(collection, 0) > seq:
                raise Gap(
                    f"journal {self.journal!r}, collection {collection!r}: records up to frame "
                    f"{self.trims[collection]} have been let go by retention, the reader stands at {seq}; "
                    "start again from a backfill, or `hub log rewind` to what is kept"
                )
            fragment = next((f for f in self.of(collection) if f.last_seq > seq), None)
            if fragment is None or fragment.first_seq > upto_seq:
                return
            path, offset = fragment.path(self.directory), fragment.first_offset
            try:
                for piece, body in read_pieces(self.fs, self.directory, fragment, seq):
                    if piece.seq > upto_seq:
                        return
                    yield piece, body, path
                    offset = piece.first_offset + piece.block.count
            except FileNotFoundError:
                if self._control is None:
                    self.load(self._oldest_seq)
                if fragment in self.of(collection):
                    raise Corrupt(f"{path}: the fragment is missing") from None
                continue
            except OSError as error:
                raise TransientError(
                    f"{path}: collection {collection!r}, offset {offset}: cannot be read: {error.strerror}"
                ) from error
            seq = fragment.last_seq

    def transactions(
        self, after_seq: int, upto_seq: int, wanted: Callable[[str], bool], *, from_start: bool = False
    ) -> Iterator[Committed]:
        """What is kept of the wanted collections of frames after `after_seq` up to `upto_seq`, frame by frame."""
        names = {*self._fragments, *(name for name in self.trims if name != SEALED)}
        sources = [
            self.pieces(name, after_seq, upto_seq, from_start=from_start) for name in names if wanted(name)
        ]
        merged = heapq.merge(*sources, key=lambda found: (found[0].seq, found[0].item))
        for _, group in groupby(merged, key=lambda found: found[0].seq):
            yield from _as_committed(group)

    @property
    def first_seq(self) -> int | None:
        """The first frame that any fragment stands for."""
        return min((found[0].first_seq for found in list(self._fragments.values())), default=None)

    def schemas_before(self, seq: int) -> dict[str, bytes | None]:
        """The schema in force before a frame, of each collection with a fragment of that frame or a later one."""
        schemas: dict[str, bytes | None] = {}
        for name in self.collections():
            fragment = next((f for f in self.of(name) if f.last_seq >= seq), None)
            if fragment is None:
                continue
            text = fragment.schema
            for piece, body, _ in self.pieces(name, fragment.first_seq - 1, seq - 1, from_start=True):
                if piece.block.encoding == Encoding.SCHEMA:
                    text = body
            schemas[name] = text
        return schemas


def _as_committed(group: Iterable[tuple[Piece, bytes, Path]]) -> Iterator[Committed]:
    items: list[Item] = []
    lost: list[Lost] = []
    held = 0
    piece: Piece | None = None
    for piece, body, path in group:
        if held > PIECE_BYTES:
            yield Committed(Place(piece.epoch, piece.seq), piece.task, piece.ts_us, items, complete=False)
            items, held = [], 0
        item = decode_block(piece.block, body, f"{path}: frame {piece.seq}")
        if isinstance(item, Lost):
            lost.append(item)
            continue
        items.append(item)
        held += piece.block.raw_len
    assert piece is not None
    yield Committed(Place(piece.epoch, piece.seq), piece.task, piece.ts_us, items, lost=lost)


def settled(
    present: Sequence[Fragment],
    registered: Mapping[str, Fragment],
    oldest_seq: int,
    trims: Mapping[str, int],
) -> tuple[list[Fragment], list[str]]:
    """Which of the files on disk are the history, and which registered ones are missing.

    A file nobody registered was being made when the machine stopped, or control.db was lost. Frames that are still
    in a segment are made again, what retention let go stays gone; otherwise of files that cover the same frames the latest generation counts: it was
    whole before it got its name.
    """
    keep = [f for f in present if f.key in registered]
    known = {f.key for f in keep}
    missing = [key for key in registered if key not in known]
    for fragment in sorted(present, key=lambda f: -f.generation):
        if fragment.key in known or fragment.last_seq >= oldest_seq:
            continue
        if fragment.newest_seq <= trims.get(fragment.collection, 0):
            continue
        if not any(_overlap(fragment, other) for other in keep):
            keep.append(fragment)
    return keep, missing


def _overlap(one: Fragment, other: Fragment) -> bool:
    return (
        one.collection == other.collection
        and one.first_seq <= other.last_seq
        and other.first_seq <= one.last_seq
    )


def entries(fragments: Sequence[Fragment]) -> list[tuple[str, str, bytes]]:
    return [(f.key, f.collection, msgspec.msgpack.encode(f)) for f in fragments]
