"""Bytes made smaller and back, never to more than a limit: an archive may claim to hold anything."""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import zstandard

from hub.mapping.extras import load
from hub.mapping.limits import OUTPUT_BYTES_MAX, check_bytes
from hub.mapping.values import EvaluationError


def _level(name: str, level: int) -> int:
    if not -3 <= level <= 9:
        if name == "flate":
            raise EvaluationError(f"flate: invalid compression level {level}: want value in range [-3, 9]")
        raise EvaluationError(f"{name}: invalid compression level: {level}")
    return max(level, -1)


def _gzip(data: bytes, level: int) -> bytes:
    level = _level("gzip", level)
    return gzip.compress(data, 6 if level < 0 else level, mtime=0)


def _deflater(name: str, window: int) -> Callable[[bytes, int], bytes]:
    def compress(data: bytes, level: int) -> bytes:
        stream = zlib.compressobj(_level(name, level), zlib.DEFLATED, window)
        return stream.compress(data) + stream.flush()

    return compress


def _cramjam(name: str) -> Any:
    return getattr(load("cramjam", f"compression type {name}"), name)


def _snappy(data: bytes, _level: int) -> bytes:
    return bytes(_cramjam("snappy").compress_raw(data))


def _lz4(data: bytes, _level: int) -> bytes:
    return bytes(_cramjam("lz4").compress(data))


def _zstd(data: bytes, level: int) -> bytes:
    return zstandard.ZstdCompressor(level=3 if level < 0 else min(level, 22)).compress(data)


def _inflater(name: str, window: int) -> Callable[[bytes], bytes]:
    def decompress(data: bytes) -> bytes:
        if window > 0 and not data:
            raise EvaluationError("EOF" if name == "gzip" else "unexpected EOF")
        out: list[bytes] = []
        size = 0
        rest = data
        while rest or not out:
            stream = zlib.decompressobj(window)
            try:
                found = stream.decompress(rest, OUTPUT_BYTES_MAX - size + 1)
            except zlib.error as error:
                raise EvaluationError(_refusal(name, rest)) from error
            size += len(found)
            check_bytes(size)
            out.append(found)
            if not stream.eof:
                raise EvaluationError("unexpected EOF")
            # Only gzip files are one stream after another; what follows the others is not looked at.
            rest = stream.unused_data if name == "gzip" else b""
        return b"".join(out)

    return decompress


def _refusal(name: str, data: bytes) -> str:
    if name == "flate":
        return f"flate: corrupt input before offset {len(data)}"
    header = 10 if name == "gzip" else 2
    if len(data) < header:
        return "unexpected EOF"
    good = data[:3] == b"\x1f\x8b\x08" if name == "gzip" else (data[0] << 8 | data[1]) % 31 == 0
    return f"{name}: invalid checksum" if good else f"{name}: invalid header"


def _unsnappy(data: bytes) -> bytes:
    codec = _cramjam("snappy")
    try:
        check_bytes(codec.decompress_raw_len(data))
        return bytes(codec.decompress_raw(data))
    except Exception as error:
        if isinstance(error, EvaluationError):
            raise
        raise EvaluationError("s2: corrupt input") from error


def _unlz4(data: bytes) -> bytes:
    if not data:
        return b""
    codec = _cramjam("lz4")
    room = max(len(data) * 8, 1 << 16)
    while True:
        room = min(room, OUTPUT_BYTES_MAX)
        target = bytearray(room)
        try:
            return bytes(target[: codec.decompress_into(data, target)])
        except load("cramjam", "lz4").DecompressionError as error:
            if data[:4] != b"\x04\x22\x4d\x18":
                raise EvaluationError("lz4: bad magic number") from error
            if "buffer" not in str(error).lower() and "whole" not in str(error).lower():
                raise EvaluationError(f"lz4: {error}") from error
            if room >= OUTPUT_BYTES_MAX:
                check_bytes(room + 1)
            room *= 8


def _unbzip2(data: bytes) -> bytes:
    stream = bz2.BZ2Decompressor()
    try:
        found = stream.decompress(data, OUTPUT_BYTES_MAX + 1)
    except (OSError, EOFError) as error:
        raise EvaluationError("bzip2 data invalid: bad magic value") from error
    check_bytes(len(found))
    if not stream.eof:
        raise EvaluationError("unexpected EOF")
    return found


def _unzstd(data: bytes) -> bytes:
    try:
        with zstandard.ZstdDecompressor().stream_reader(data) as reader:
            found = reader.read(OUTPUT_BYTES_MAX + 1)
    except zstandard.ZstdError as error:
        raise EvaluationError(f"zstd: {error}") from error
    check_bytes(len(found))
    return found


COMPRESSORS: Final[Mapping[str, Callable[[bytes, int], bytes]]] = {
    "gzip": _gzip,
    "pgzip": _gzip,
    "zlib": _deflater("zlib", 15),
    "flate": _deflater("flate", -15),
    "snappy": _snappy,
    "lz4": _lz4,
    "zstd": _zstd,
}
DECOMPRESSORS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "gzip": _inflater("gzip", 31),
    "pgzip": _inflater("gzip", 31),
    "zlib": _inflater("zlib", 15),
    "flate": _inflater("flate", -15),
    "snappy": _unsnappy,
    "lz4": _unlz4,
    "bzip2": _unbzip2,
    "zstd": _unzstd,
}
