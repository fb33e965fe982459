"""Bodies of requests to checked JSON lines. Pure.

The hard thing is to copy documents out of an array, or a document printed over many lines, without
decoding them: line ends in JSON only stand between tokens, so they may become blanks.
"""

from __future__ import annotations

import zlib
from typing import Literal

import msgspec
import zstandard

from hub.lines import Lines, check, fault

Kind = Literal["json", "ndjson"]

CONTENT_TYPES: dict[str, Kind] = {
    "application/json": "json",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/jsonlines": "ndjson",
    "application/x-jsonlines": "ndjson",
}

ENCODINGS = ("identity", "gzip", "zstd")

REASONS_MAX = 10
"""Bad lines that one answer names."""

PIECE_BYTES = 1024
"""zstd is fed in pieces of this size: one makes at most 32 MiB."""

_array = msgspec.json.Decoder(list[msgspec.Raw])


class BadBody(Exception):
    """What is wrong with a body. `problems` name records and bytes, where known."""

    def __init__(self, message: str, problems: list[dict[str, object]] | None = None) -> None:
        super().__init__(message)
        self.problems = problems or []


class TooLarge(Exception):
    """A body that is larger than the limit once it is decompressed."""


def records(body: bytes, kind: Kind) -> Lines:
    """The documents of a body, all of them good. Raises `BadBody`."""
    if kind == "ndjson":
        lines = check(body if body.endswith(b"\n") or not body else body + b"\n")
        if lines.bad:
            problems: list[dict[str, object]] = [
                {"record": bad.index, "byte": bad.byte, "reason": bad.reason}
                for bad in lines.bad[:REASONS_MAX]
            ]
            raise BadBody(f"{len(lines.bad)} lines are no JSON", problems)
        return lines
    if body.lstrip(b" \t\r\n")[:1] != b"[":
        if reason := fault(body):
            raise BadBody(reason)
        return Lines(one_line(body) + b"\n", 1)
    try:
        body.decode()
        found = [one_line(bytes(raw)) for raw in _array.decode(body)]
    except UnicodeDecodeError as error:
        raise BadBody(f"not UTF-8 (byte {error.start})") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadBody(fault(body) or str(error)) from error
    return Lines(b"".join([text + b"\n" for text in found]), len(found))


def one_line(text: bytes) -> bytes:
    """A JSON text on one line."""
    return text.replace(b"\n", b" ").replace(b"\r", b" ").strip(b" \t")


def decompressed(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """A body without its content encoding. Raises `TooLarge` or `BadBody`."""
    try:
        if encoding == "gzip":
            return _gunzipped(body, bytes_max)
        if encoding == "zstd":
            return _unzstd(body, bytes_max)
    except (zlib.error, zstandard.ZstdError) as error:
        raise BadBody(f"not {encoding}: {error}") from error
    return body


def _gunzipped(body: bytes, bytes_max: int) -> bytes:
    found = b""
    while body:
        member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        found += member.decompress(body, bytes_max + 1 - len(found))
        if len(found) > bytes_max:
            raise TooLarge
        if not member.eof:
            raise BadBody("gzip data end too early")
        body = member.unused_data
    return found


def _unzstd(body: bytes, bytes_max: int) -> bytes:
    found = bytearray()
    frame = zstandard.ZstdDecompressor().decompressobj()
    for start in range(0, len(body), PIECE_BYTES):
        if frame.eof:
            raise BadBody("data behind the zstd frame")
        found += frame.decompress(body[start : start + PIECE_BYTES])
        if len(found) > bytes_max:
            raise TooLarge
    if not frame.eof or frame.unused_data:
        raise BadBody("zstd data are not exactly one frame")
    return bytes(found)
