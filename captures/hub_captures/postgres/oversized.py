"""Rows beyond the limit on a record: which fields they go without, and what is left of them. Pure.

The hard thing is memory: such a row may be a gigabyte of text, and libpq holds it twice already. So it is looked at
where it lies, by the places of its columns, and only what stays is copied.

Formats: PostgreSQL manual, section 54.9 (Logical Replication Message Formats, TupleData) and COPY (CSV Format).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from hub import cdc
from hub.errors import FatalError
from hub_captures.postgres.cells import DELIMITER, NULL_MARK, QUOTE
from hub_captures.postgres.changes import TUPLE, Change

Buffer = bytes | memoryview
Span = tuple[int, int]
"""Where a column begins and ends."""

_TEXT: Final = ord("t")
_QUOTE: Final = QUOTE[0]
_delimiters = re.compile(re.escape(DELIMITER))
_quotes = re.compile(re.escape(QUOTE))


def without_largest(b: Buffer, key_indexes: Collection[int], bytes_max: int) -> tuple[bytes, list[int]]:
    """A row message with its largest columns, other than the key's, marked as not sent until it is within
    the limit; and which those are. An old image loses the same ones."""
    first = list(_tuple_spans(b, TUPLE))
    at = first[-1][1] if first else TUPLE + 2
    second = list(_tuple_spans(b, at + 1)) if at < len(b) else []
    sizes = [end - start - 1 for start, end in first]
    for index, (start, end) in enumerate(second):
        sizes[index] += end - start - 1
    omitted = _largest(sizes, key_indexes, len(b) - bytes_max)
    parts = [b[: TUPLE + 2], *_kept(b, first, omitted, b"u")]
    if second:
        parts += [b[at : at + 3], *_kept(b, second, omitted, b"u")]
    return b"".join(parts), omitted


def copied_without_largest(
    row: Buffer, key_indexes: Collection[int], bytes_max: int
) -> tuple[bytes, list[int]]:
    """The same of a row as COPY writes it, where what is left out is null."""
    spans = list(_copied_spans(row))
    omitted = _largest([end - start - 1 for start, end in spans], key_indexes, len(row) - bytes_max)
    return DELIMITER.join(_kept(row, spans, omitted, NULL_MARK)) + b"\n", omitted


def with_omitted(change: Change, omitted: Collection[str]) -> Change:
    """Fields that were left out are named apart from those that have not changed."""
    metadata = dict(change.metadata)
    unchanged = [name for name in metadata.pop(cdc.UNCHANGED, ()) if name not in omitted]
    if unchanged:
        metadata[cdc.UNCHANGED] = unchanged
    metadata[cdc.OVERSIZED] = sorted(omitted)
    return change._replace(metadata=metadata)


def oversized_error(table: str, size: int, limit: int) -> FatalError:
    """What stops a capture that may not leave fields out."""
    return FatalError(
        f"{table}: a row of {size} bytes exceeds max_record ({limit} bytes). Raise max_record, or set "
        "on_oversized: omit to send such rows without their largest fields, which are then named in @oversized"
    )


def _largest(sizes: Sequence[int], key_indexes: Collection[int], surplus: int) -> list[int]:
    """The fewest columns that make up for the surplus, or all but the key's. `sizes` is what each one saves."""
    omitted: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        if surplus <= 0:
            break
        if index not in key_indexes:
            surplus -= sizes[index]
            omitted.append(index)
    return sorted(omitted)


def _kept(b: Buffer, spans: Sequence[Span], omitted: Collection[int], instead: bytes) -> list[Buffer]:
    return [instead if index in omitted else b[start:end] for index, (start, end) in enumerate(spans)]


def _tuple_spans(b: Buffer, start: int) -> Iterator[Span]:
    """The columns of the tuple whose count stands at `start`, each from its kind on."""
    at = start + 2
    for _ in range(b[start] << 8 | b[start + 1]):
        end = at + 5 + int.from_bytes(b[at + 1 : at + 5]) if b[at] == _TEXT else at + 1
        yield at, end
        at = end


def _copied_spans(row: Buffer) -> Iterator[Span]:
    """The columns of a row of COPY, with their quotes."""
    start, last = 0, len(row) - 1
    while True:
        at = start
        while at < last and row[at] == _QUOTE:
            # A quote that is doubled closes a part and opens the next.
            close = _quotes.search(row, at + 1)
            assert close is not None
            at = close.end()
        found = _delimiters.search(row, at)
        end = found.start() if found is not None else last
        yield start, end
        if found is None:
            return
        start = end + 1
