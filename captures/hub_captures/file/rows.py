"""Bytes of a file to records: JSON lines, CSV rows, lines of text. Pure.

The hard thing is where a record ends: a quoted CSV field may hold line feeds, so the last whole row of
a chunk is only known by reading the rows.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from typing import Literal, NamedTuple

from hub.document import encode
from hub.errors import FatalError
from hub.lines import BadLine, Lines, check

Format = Literal["ndjson", "csv", "text"]

BOM = b"\xef\xbb\xbf"

# One field may be as long as the chunk that holds it, which has a limit of its own.
csv.field_size_limit(sys.maxsize)


class Taken(NamedTuple):
    """Records and how many bytes they took."""

    lines: Lines
    size: int


def take(chunk: bytes, format: Format, header: Sequence[str], delimiter: str, *, final: bool) -> Taken:
    """The whole records at the beginning of a chunk. With `final` the last line needs no line feed."""
    size = len(chunk) if final else chunk.rfind(b"\n") + 1
    whole = chunk if size == len(chunk) else chunk[:size]
    if final and not chunk.endswith(b"\n"):
        whole += b"\n"
    if not size:
        return Taken(Lines(b"", 0), 0)
    if format == "ndjson":
        return Taken(check(whole), size)
    if format == "text":
        found = whole.decode(errors="backslashreplace").split("\n")[:-1]
        texts = [encode(line.removesuffix("\r")) + b"\n" for line in found]
        return Taken(Lines(b"".join(texts), len(texts)), size)
    taken = _rows(whole, header, delimiter, final=final)
    return Taken(taken.lines, min(taken.size, size))


def read_header(beginning: bytes, delimiter: str, where: str, *, final: bool) -> tuple[list[str], int]:
    """The names in the first row of a file, and its size in bytes. No names: the row is not whole yet."""
    start = len(BOM) if beginning.startswith(BOM) else 0
    lines = [line + "\n" for line in _decoded(beginning[start:]).split("\n")]
    last = lines.pop()
    if final and last != "\n":
        lines.append(last)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        names = next(reader, [])
    except csv.Error as error:
        if reader.line_num == len(lines) and "end of data" in str(error) and not final:
            return [], 0
        raise FatalError(f"{where}: the header is no CSV: {error}") from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FatalError(f"{where}: the header has {twice[0]!r} twice; a field needs a name of its own")
    if not _is_text(names):
        raise FatalError(f"{where}: the header is not UTF-8")
    if lines and not names:
        raise FatalError(f"{where}: the first line is empty, expected the names of the fields")
    return names, min(start + _size(lines[: reader.line_num]), len(beginning))


def _rows(whole: bytes, header: Sequence[str], delimiter: str, *, final: bool) -> Taken:
    lines = [line + "\n" for line in _decoded(whole).split("\n")[:-1]]
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    good: list[bytes] = []
    bad: list[BadLine] = []
    width = len(header)
    is_text = _is_text(lines)
    byte = done = 0
    while done < len(lines):
        reason = ""
        try:
            row = next(reader)
            if row and len(row) != width:
                reason = f"the row has {len(row)} fields, the header {width}"
            elif row and not is_text and not _is_text(lines[done : reader.line_num]):
                reason = "not UTF-8"
            elif row:
                good.append(encode(dict(zip(header, row, strict=True))) + b"\n")
        except csv.Error as error:
            if reader.line_num == len(lines) and "end of data" in str(error) and not final:
                break
            reason = f"not CSV: {error}"
        text = lines[done : reader.line_num]
        if reason:
            bad.append(BadLine(len(good), byte, reason))
            kept = "".join(text).encode(errors="surrogateescape").rstrip(b"\r\n")
            good.append(encode(kept.decode(errors="backslashreplace")) + b"\n")
        byte += _size(text)
        done = reader.line_num
    return Taken(Lines(b"".join(good), len(good), tuple(bad)), byte)


def _decoded(text: bytes) -> str:
    return text.decode(errors="surrogateescape")


def _is_text(lines: Sequence[str]) -> bool:
    """False when one of these was not UTF-8 before `_decoded`."""
    return not any("\udc80" <= char <= "\udcff" for line in lines if not line.isascii() for char in line)


def _size(lines: Sequence[str]) -> int:
    return sum(len(line) if line.isascii() else len(line.encode(errors="surrogateescape")) for line in lines)
