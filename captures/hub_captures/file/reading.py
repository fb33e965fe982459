"""One open file, plain or compressed, read by the byte of its content.

The hard thing is compressed data that grow or end in the middle: they are fed to the decompressor in
pieces so small that no bomb can make much of one, and it waits where the data end for more to come.
"""

from __future__ import annotations

import os
import zlib
from hashlib import blake2b
from typing import Any, Literal

import zstandard

from hub.errors import FatalError

Compression = Literal["auto", "none", "gzip", "zstd"]

WINDOW_BYTES = 1024
"""A digest covers this much at the beginning of what was read, and at its end."""

PIECE_BYTES = 1024
"""Compressed data are fed in such pieces. zstd makes at most 128 KiB of 4 bytes, so 32 MiB of one piece."""

RAW_BYTES = 1 << 16
"""Compressed data are read from disk in such pieces."""


class Reader:
    """An open file and the place that was reached in its content.

    `at` is that place, `is_torn` says that compressed data ended inside a frame.
    """

    def __init__(self, path: str, shown: str, compression: Compression) -> None:
        self.shown = shown
        self.at = 0
        self.header: list[str] = []
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._head = b""
        self._tail = b""
        kind = kind_of(path, compression)
        self._stream = Stream(self._file, shown, kind) if kind != "none" else None

    @property
    def is_torn(self) -> bool:
        return self._stream is not None and self._stream.is_torn

    @property
    def is_plain(self) -> bool:
        return self._stream is None

    def stat(self) -> os.stat_result:
        """Of the open file, whatever its name is by now."""
        return os.fstat(self._file)

    def close(self) -> None:
        os.close(self._file)

    def read(self, size: int) -> bytes:
        """Content from `at` on, without moving. Shorter than `size` only at the end."""
        if self._stream is None:
            return os.pread(self._file, size, self.at)
        return self._stream.peek(size)

    def beginning(self, size: int) -> bytes:
        """The first bytes of the content. Only while nothing was passed, or of a plain file."""
        if self._stream is None:
            return os.pread(self._file, size, 0)
        assert self.at == 0, "compressed content does not go back"
        return self._stream.peek(size)

    def advance(self, taken: bytes) -> None:
        """Move over bytes that `read` gave."""
        if len(self._head) < WINDOW_BYTES:
            self._head += taken[: WINDOW_BYTES - len(self._head)]
        self._tail = (self._tail + taken[-WINDOW_BYTES:])[-WINDOW_BYTES:]
        self.at += len(taken)
        if self._stream is not None:
            self._stream.drop(len(taken))

    def seek(self, byte: int, digest: str) -> bool:
        """Move to a byte that was reached before. False when what lies before it is not what was read then."""
        if self._stream is None:
            self._head = os.pread(self._file, min(byte, WINDOW_BYTES), 0)
            start = max(byte - WINDOW_BYTES, 0)
            self._tail = os.pread(self._file, byte - start, start)
            self.at = byte
            return self.digest() == digest and self._is_there(byte)
        while self.at < byte:
            piece = self._stream.peek(min(byte - self.at, RAW_BYTES))
            if not piece:
                return False
            self.advance(piece)
        return self.digest() == digest

    def last_line_end(self, line_bytes_max: int) -> tuple[int, str]:
        """The byte behind the last line feed, and the digest there. Passes over the whole content."""
        if self._stream is None:
            size = self.stat().st_size
            start = max(size - line_bytes_max, 0)
            end = os.pread(self._file, size - start, start).rfind(b"\n") + 1
            if start and not end:
                raise FatalError(
                    f"{self.shown}: the last line is longer than batch_bytes, {line_bytes_max}; raise it"
                )
            self.seek(start + end if end else 0, "")
            return self.at, self.digest()
        found = 0, ""
        while piece := self._stream.peek(RAW_BYTES):
            end = piece.rfind(b"\n") + 1
            if end:
                self.advance(piece[:end])
                found = self.at, self.digest()
            self.advance(piece[end:])
        return found

    def is_unchanged(self) -> bool:
        """True while a plain file still holds what was read: it was not cut, nor written anew."""
        if self._stream is not None:
            return True
        start = max(self.at - WINDOW_BYTES, 0)
        return (
            os.pread(self._file, len(self._head), 0) == self._head
            and os.pread(self._file, self.at - start, start) == self._tail
        )

    def digest(self) -> str:
        """Of the first and the last bytes before `at`. Empty at the beginning."""
        if not self.at:
            return ""
        return blake2b(self._head + self._tail, digest_size=8).hexdigest()

    def _is_there(self, byte: int) -> bool:
        return self.stat().st_size >= byte


class Stream:
    """Decompressed content of a file from its beginning, many frames as one."""

    def __init__(self, file: int, shown: str, kind: str) -> None:
        self._file = file
        self._shown = shown
        self._kind = kind
        self._raw_at = 0
        self._raw = memoryview(b"")
        self._frame: Any = None
        self._buffer = bytearray()
        self._passed = 0

    @property
    def is_torn(self) -> bool:
        return self._frame is not None

    def peek(self, size: int) -> bytes:
        """The next bytes without moving. Shorter only at the end of what there is."""
        while len(self._buffer) < size:
            if not self._raw:
                self._raw = memoryview(os.pread(self._file, RAW_BYTES, self._raw_at))
                self._raw_at += len(self._raw)
                if not self._raw:
                    break
            self._feed(bytes(self._raw[:PIECE_BYTES]))
            self._raw = self._raw[PIECE_BYTES:]
        return bytes(self._buffer[:size])

    def drop(self, size: int) -> None:
        """Move over bytes that `peek` gave."""
        del self._buffer[:size]
        self._passed += size

    def _feed(self, raw: bytes) -> None:
        while raw:
            if self._frame is None:
                self._frame = _decompressor(self._kind)
            try:
                self._buffer += self._frame.decompress(raw)
            except (zlib.error, zstandard.ZstdError) as error:
                at = self._passed + len(self._buffer)
                raise FatalError(
                    f"{self._shown}: {self._kind} data are damaged behind byte {at} of the content: {error}"
                ) from error
            if not self._frame.eof:
                return
            raw = self._frame.unused_data
            self._frame = None


def _decompressor(kind: str) -> Any:
    if kind == "gzip":
        return zlib.decompressobj(16 + zlib.MAX_WBITS)
    return zstandard.ZstdDecompressor().decompressobj()


def kind_of(path: str, compression: Compression) -> Literal["none", "gzip", "zstd"]:
    """How a file is compressed, by its name where the option leaves it open."""
    if compression != "auto":
        return compression
    if path.endswith(".gz"):
        return "gzip"
    return "zstd" if path.endswith((".zst", ".zstd")) else "none"
