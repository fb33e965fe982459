"""The newest transactions in memory, for readers that keep up. Bounded in bytes; the oldest go first."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hub.log.transaction import Item, PartRef
from hub.record import Place

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

    def extend(self, entries: Sequence[Entry]) -> None:
        """Take in the newest, in order."""
        for entry in entries:
            self.entries[entry.place.seq] = entry
            self.bytes += entry.size + ENTRY_BYTES
        # By number: looking for the first key of a dict walks over all that were taken from its front.
        while self.bytes > self._bytes_max:
            oldest = self.entries.pop(self.first_seq, None)
            self.first_seq += 1
            if oldest is not None:
                self.bytes -= oldest.size + ENTRY_BYTES
