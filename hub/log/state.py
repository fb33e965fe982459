"""What the frames of a journal add up to, and its checkpoint.

The hard thing is that nobody reads all frames again: each segment begins with the state as it was, so all of it must
be in the checkpoint, and tokens and epochs, which grow for ever, are kept to a limit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from hub.log.transaction import SCHEMA, Head

TOKENS_MAX = 10_000
"""Idempotency tokens remembered by a journal."""

EPOCHS_MAX = 1_000
"""Epochs, one for each open, whose first frame is remembered."""


class CollectionInfo(msgspec.Struct, array_like=True):
    """What a journal knows of a collection: records ever appended (= its next offset), their raw bytes, last time."""

    count: int = 0
    raw_bytes: int = 0
    last_us: int = 0


class Checkpoint(msgspec.Struct, array_like=True):
    """The state of a journal at the start of a segment, so that recovery need not read older ones.

    `tokens` are the newest idempotency tokens, oldest first; `epochs` are the newest epochs and the first frame of
    each, so that a reader's place is known to be one of this log also where the frame itself has gone.
    """

    positions: dict[str, bytes]
    schemas: dict[str, bytes]
    collections: dict[str, CollectionInfo]
    tokens: list[tuple[str, bytes, int, int]] = []
    notes: dict[str, bytes] = {}
    epochs: list[tuple[int, int]] = []


class State:
    """What all frames so far add up to: newest positions and notes, schemas, counts, and recent tokens."""

    def __init__(self) -> None:
        self.positions: dict[str, bytes] = {}
        self.notes: dict[str, bytes] = {}
        self.schemas: dict[str, bytes] = {}
        self.collections: dict[str, CollectionInfo] = {}
        self.tokens: OrderedDict[tuple[str, bytes], tuple[int, int]] = OrderedDict()
        self.epochs: list[tuple[int, int]] = []
        self._marked: dict[str, tuple[int, int]] = {}

    def restore(self, payload: bytes) -> None:
        """Start from a checkpoint."""
        checkpoint = msgspec.msgpack.decode(payload, type=Checkpoint)
        self.positions = checkpoint.positions
        self.notes = checkpoint.notes
        self.schemas = checkpoint.schemas
        self.collections = checkpoint.collections
        places = [((task, token), (epoch, seq)) for task, token, epoch, seq in checkpoint.tokens]
        self.tokens = OrderedDict(places)
        self.epochs = checkpoint.epochs

    def checkpoint(self) -> bytes:
        tokens = [(task, token, *place) for (task, token), place in self.tokens.items()]
        return msgspec.msgpack.encode(
            Checkpoint(self.positions, self.schemas, self.collections, tokens, self.notes, self.epochs)
        )

    def begin(self, epoch: int, seq: int) -> None:
        """An epoch begins with a frame."""
        if not self.epochs or self.epochs[-1][0] != epoch:
            self.epochs = [*self.epochs[-EPOCHS_MAX:], (epoch, seq)]

    def epoch_of(self, seq: int) -> int | None:
        """The epoch of a frame; None when it is not known any more."""
        found = bisect_right(self.epochs, seq, key=lambda entry: entry[1]) - 1
        return self.epochs[found][0] if found >= 0 else None

    def apply(self, head: Head, schema_texts: Sequence[bytes], epoch: int, seq: int, ts_us: int) -> None:
        """Take a visible transaction into account. `schema_texts` are the bodies of its schema blocks, in order."""
        if head.position is not None:
            self.positions[head.task] = head.position
        if head.note is not None:
            self.notes[head.task] = head.note
        if head.token is not None:
            self.tokens[head.task, head.token] = (epoch, seq)
            if len(self.tokens) > TOKENS_MAX:
                self.tokens.popitem(last=False)
        for collection, records, raw_bytes in head.totals or ():
            self._count(collection, records, raw_bytes, ts_us)
        texts = iter(schema_texts)
        for block in head.blocks:
            self._count(block.collection, block.count, block.raw_len, ts_us)
            if block.encoding == SCHEMA:
                self.schemas[block.collection] = next(texts)

    def mark(self) -> None:
        """Remember the counts as they are now, at the start of a segment."""
        self._marked = {name: (info.count, info.raw_bytes) for name, info in self.collections.items()}

    def since_mark(self) -> dict[str, tuple[int, int, int]]:
        """What was added since: for each collection its first offset, records and raw bytes."""
        added: dict[str, tuple[int, int, int]] = {}
        for name, info in self.collections.items():
            count, size = self._marked.get(name, (0, 0))
            if info.raw_bytes != size:
                added[name] = (count, info.count - count, info.raw_bytes - size)
        return added

    def _count(self, collection: str, records: int, raw_bytes: int, ts_us: int) -> None:
        info = self.collections.get(collection)
        if info is None:
            info = self.collections[collection] = CollectionInfo()
        info.count += records
        info.raw_bytes += raw_bytes
        info.last_us = ts_us
