"""The newest transactions in memory, for readers that keep up. Bounded in bytes; the oldest go first."""

from __future__ import annotations

import msgspec

from hub.log.transaction import Item, PartRef
from hub.record import Batch, Place

ENTRY_BYTES = 600
"""What an entry is charged for itself, so that small transactions are bounded too."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A durable transaction. `parts` are those of a large one, which have to be read from disk."""

    place: Place
    task: str
    ts_us: int
    items: tuple[Item, ...]
    size: int
    parts: list[PartRef] | None


class Tail:
    """All transactions from `first_seq` on. A sequence without an entry is a frame that no reader is shown."""

    def __init__(self, first_seq: int, bytes_max: int) -> None:
        self.first_seq = first_seq
        self.entries: dict[int, Entry] = {}
        self.bytes = 0
        self._bytes_max = bytes_max

    def push(self, seq: int, entry: Entry) -> None:
        self.entries[seq] = entry
        self.bytes += entry.size + ENTRY_BYTES
        while self.bytes > self._bytes_max and self.entries:
            oldest = next(iter(self.entries))
            self.bytes -= self.entries.pop(oldest).size + ENTRY_BYTES
            self.first_seq = oldest + 1


def bytes_only(batch: Batch) -> Batch:
    """The same batch without its decoded values, so that what is kept in memory is what was counted."""
    return Batch(
        batch.collection,
        batch.count,
        ndjson=batch.ndjson,
        ops=batch.ops,
        shared=batch.shared,
        columns_json=batch.columns_json,
    )
