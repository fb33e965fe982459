"""Which changes of the stream a snapshot in chunks has shown already: the decision, without I/O.

A table is copied in ranges of its key while its changes stream by. A chunk is read under a snapshot of
the server that says which transactions it sees, so each change can be judged exactly:

* beyond the cursor, the change is dropped: a later chunk shows it;
* in a range whose chunk sees the change's transaction, it is dropped: the chunk has shown it;
* else it is kept.

A table that is read again while it is followed keeps them all: who holds its rows needs every deletion.

The hard thing is a commit that waits for a synchronous standby: the stream has it already, but it is
still invisible to every new snapshot. Therefore the next chunk may only be read under a snapshot that sees
all transactions judged so far (`must_see`). Watermarks and LSN fences lose rows here.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from hub_captures.postgres.position import Chunk, Copying, Key, Visibility

CHUNKS_MAX = 64
"""A copy that is so many chunks ahead of the stream waits for it: all of them stand in each position."""

SortKey = Callable[[Key], Any]
"""Maps a key to a value that Python compares as the server compares the key; raises Incomparable."""


class Incomparable(Exception):
    """Only the server knows how this key compares with others."""


class HandOver:
    """One table whose copy is pending, under way, or complete but for changes that may still come.

    `rank(key)` counts the bounds (the floor and the chunks' upper ends) that lie before a key. It is what
    Python computes where it knows the order, and what the server was asked else (`learn`).
    """

    def __init__(self, state: Copying, sort_key: SortKey | None) -> None:
        self.state = state
        self._sort_key = sort_key
        self._learned: dict[Key, int] = {}
        self.is_doomed = False
        self._chunks: list[Chunk] = list(state.chunks)
        self._floor = state.floor
        self._restate()

    def _restate(self) -> None:
        self.state = msgspec.structs.replace(self.state, floor=self._floor, chunks=tuple(self._chunks))
        self._learned.clear()
        self._bounds = self.bounds()
        self._sorted: list[Any] | None = None
        if self._sort_key is not None:
            try:
                self._sorted = [self._sort_key(bound) for bound in self._bounds]
            except Incomparable:
                self._sorted = None

    @property
    def is_complete(self) -> bool:
        """The whole table has been read."""
        return bool(self._chunks) and self._chunks[-1].upper is None

    @property
    def cursor(self) -> Key | None:
        """The last key read; None before the first chunk and after the last."""
        if self._chunks:
            return self._chunks[-1].upper
        return self._floor

    @property
    def is_settled(self) -> bool:
        """Complete, and the stream has passed every fence: the table is simply followed from now on."""
        return self.is_complete and len(self._chunks) == 1 and self._chunks[0].fence == 0

    @property
    def is_far_ahead(self) -> bool:
        """Nothing more may be read before the stream has come on."""
        return len(self._chunks) >= CHUNKS_MAX

    @property
    def awaits_stream(self) -> bool:
        """The stream is to come on: all of the table is read, or half as much as may be ahead of it."""
        return self.is_complete or len(self._chunks) >= CHUNKS_MAX // 2

    def has_awaited(self, lsn: int) -> bool:
        """Whether the stream has come far enough with `lsn`: behind every fence of a table that is read, else behind one."""
        return self.awaits_stream and self._chunks[-1 if self.is_complete else 0].fence <= lsn

    def bounds(self) -> list[Key]:
        """The keys that part the ranges, rising."""
        found = [] if self._floor is None else [self._floor]
        return found + [chunk.upper for chunk in self._chunks if chunk.upper is not None]

    def rank(self, key: Key) -> int:
        """How many bounds lie before the key. Raises Incomparable when the server must be asked."""
        if not self._bounds:
            return 0
        if self._sorted is not None and self._sort_key is not None:
            with contextlib.suppress(Incomparable):
                return bisect_left(self._sorted, self._sort_key(key))
        if key in self._learned:
            return self._learned[key]
        raise Incomparable

    def is_ranked(self, key: Key) -> bool:
        """Whether the server need not be asked."""
        try:
            self.rank(key)
        except Incomparable:
            return False
        return True

    def learn(self, key: Key, rank: int) -> None:
        """What the server says of a key, until the bounds change."""
        self._learned[key] = rank

    def keeps(self, key: Key, xid: int) -> bool:
        """Whether a committed change is to be sent on. Raises Incomparable."""
        if self.state.refresh:
            # A deletion that a chunk has shown by leaving the row out would not reach those who hold it. What a
            # chunk has shown already leads once more to what it has shown.
            return True
        if self.is_doomed:
            return False
        ranges_before = self.rank(key)
        if self._floor is not None:
            if ranges_before == 0:
                return True
            ranges_before -= 1
        if ranges_before >= len(self._chunks):
            return False
        chunk = self._chunks[ranges_before]
        return chunk.fence == 0 or not chunk.visibility.sees(xid)

    def begin(self) -> None:
        """Some rows have been sent, of which nothing can be told but that they are to be replaced."""
        self.state = msgspec.structs.replace(self.state, began=True)

    def read(self, chunk: Chunk, rows: int) -> None:
        """A chunk has been read and sent."""
        self._chunks.append(chunk)
        self.state = msgspec.structs.replace(self.state, rows=self.state.rows + rows, began=True)
        self._restate()

    def passed(self, lsn: int) -> bool:
        """The stream has come to `lsn`: chunks whose fence lies before it can meet no change any more.
        True when something was forgotten."""
        forgotten = 0
        for chunk in self._chunks:
            if chunk.fence > lsn:
                break
            forgotten += 1
        if not forgotten:
            return False
        last = self._chunks[forgotten - 1]
        if last.upper is None:
            if last.fence == 0:
                return False
            self._chunks = [Chunk(None, last.visibility, 0)]
        else:
            self._floor = last.upper
            del self._chunks[:forgotten]
        self._restate()
        return True

    def doom(self) -> None:
        """A transaction has emptied the table: what it writes from here on is left to the copy, which begins
        anew (`restart`) once the transaction has ended. A table that is still followed needs neither."""
        self.is_doomed = not self.state.refresh

    def restart(self) -> None:
        """The table was emptied, and whoever holds a copy of it has emptied that: begin anew."""
        if not self.is_doomed:
            return
        self._floor = None
        self._chunks = []
        self.is_doomed = False
        self.state = Copying(replace=self.state.replace)
        self._restate()

    def order(self, sort_key: SortKey | None) -> None:
        """How Python compares the keys, None when only the server can."""
        self._sort_key = sort_key
        self._restate()


def must_see(visibility: Visibility, xids: Iterable[int]) -> bool:
    """Whether a chunk may be read under this snapshot."""
    return all(visibility.sees(xid) for xid in xids)
