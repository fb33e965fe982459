"""Lines that wait for their commit: in memory, and beyond a limit in an unnamed file.

A source transaction may be larger than memory, and nothing of it may show before it is whole. The
file has no name, so that it is gone with the process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

MEMORY_BYTES = 64 << 20
"""What may wait in memory."""

PIECE_BYTES = 1 << 20
"""Small pieces are joined to about this much for one write; long spans are read back in such pieces."""


class Span(NamedTuple):
    """Bytes of the unnamed file."""

    at: int
    size: int


class Staging:
    """Lines by target, in order. `spill` and `pieces` do blocking I/O."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._staged: dict[str, list[bytes | Span]] = {}
        self._in_memory = 0
        self._file: IO[bytes] | None = None

    @property
    def is_full(self) -> bool:
        """True when it is time to `spill`."""
        return self._in_memory >= MEMORY_BYTES

    @property
    def targets(self) -> Sequence[str]:
        """Where something goes, in the order of the first lines for it."""
        return list(self._staged)

    def add(self, target: str, lines: bytes) -> None:
        """Stage lines behind those that are there."""
        if lines:
            self._staged.setdefault(target, []).append(lines)
            self._in_memory += len(lines)

    def spill(self) -> None:
        """Move what is in memory into the file."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
        for target, staged in self._staged.items():
            self._staged[target] = [
                item if isinstance(item, Span) else self._written(self._file, item) for item in staged
            ]
        self._in_memory = 0

    def pieces(self, target: str) -> Iterator[bytes]:
        """What was staged for one target, in pieces fit for writing."""
        joined: list[bytes] = []
        size = 0
        for item in self._staged[target]:
            for piece in [item] if isinstance(item, bytes) else self._read_back(item):
                joined.append(piece)
                size += len(piece)
                if size >= PIECE_BYTES:
                    yield b"".join(joined) if len(joined) > 1 else joined[0]
                    joined, size = [], 0
        if joined:
            yield b"".join(joined)

    def clear(self) -> None:
        """Forget everything."""
        self._staged.clear()
        self._in_memory = 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def _written(self, file: IO[bytes], lines: bytes) -> Span:
        at = file.seek(0, os.SEEK_END)
        rest = memoryview(lines)
        while rest:
            rest = rest[file.write(rest) :]
        return Span(at, len(lines))

    def _read_back(self, span: Span) -> Iterator[bytes]:
        assert self._file is not None
        self._file.seek(span.at)
        left = span.size
        while left:
            piece = self._file.read(min(left, PIECE_BYTES))
            assert piece, "the unnamed file holds what was written to it"
            left -= len(piece)
            yield piece
