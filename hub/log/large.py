"""Transactions larger than memory: parts that nobody sees, and a commit that shows them all at once.

Other tasks' transactions go on between the parts. A crash leaves parts without a commit, which mean nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hub.errors import LogError
from hub.log.frame import Kind
from hub.log.transaction import Item, PartRef, Schema, Transaction
from hub.record import Place

if TYPE_CHECKING:
    from hub.log.log import Log


class LargeTransaction:
    """One open large transaction of one task. Made by `Log.begin`.

    Memory is bounded by what one call of `part` is given. Given nothing for `txn_timeout_s` it is aborted: later
    calls raise LogError.
    """

    def __init__(self, log: Log, task: str, txn_id: int) -> None:
        self.task = task
        self.txn_id = txn_id
        self._given_s = time.monotonic()
        self.first_segno: int | None = None
        self._log = log
        self._parts: list[PartRef] = []
        self._totals: dict[str, tuple[int, int]] = {}
        self._schemas: dict[str, Schema] = {}
        self._over = ""

    async def part(self, items: Sequence[Item]) -> None:
        """Add items. They are durable when this returns, and invisible."""
        self._check()
        self._given_s = time.monotonic()
        for item in items:
            if isinstance(item, Schema):
                self._schemas[item.collection] = item
        body = await self._log.encode(Transaction(self.task, items), txn_id=self.txn_id)
        # Retention must not take the segment before the commit is there to refer to it.
        if self.first_segno is None:
            self.first_segno = self._log.writer.segments[-1].segno
        frame = await self._log.enqueue(Kind.PART, body)
        self._check()
        self._parts.append(PartRef(frame.segno, frame.pos, frame.seq, body.length, body.crc))
        for block in body.head.blocks:
            count, size = self._totals.get(block.collection, (0, 0))
            self._totals[block.collection] = (count + block.count, size + block.raw_len)

    async def commit(
        self, items: Sequence[Item] = (), position: bytes | None = None, note: bytes | None = None
    ) -> Place:
        """Show everything, with these last items, and set the task's position and note. Durable when this returns."""
        self._check()
        # Schemas stand in the parts, where readers need them; once more here, where recovery looks for them.
        given = {item.collection for item in items if isinstance(item, Schema)}
        schemas = [schema for name, schema in self._schemas.items() if name not in given]
        body = await self._log.encode(
            Transaction(self.task, [*schemas, *items], position, note=note),
            txn_id=self.txn_id,
            parts=self._parts,
            totals=[(name, count, size) for name, (count, size) in self._totals.items()],
        )
        self._check()
        frame = await self._log.enqueue(Kind.COMMIT, body)
        self._end("is committed")
        return Place(self._log.end.epoch, frame.seq)

    @property
    def idle_s(self) -> float:
        """Since it was last given something."""
        return time.monotonic() - self._given_s

    async def abort(self, reason: str = "was aborted") -> None:
        """Give it up. Its parts are let go with their segments."""
        if self._over:
            return
        self._end(reason)
        if self._parts:
            body = await self._log.encode(Transaction(self.task, ()), txn_id=self.txn_id)
            await self._log.enqueue(Kind.ABORT, body)

    @property
    def size(self) -> int:
        """Raw bytes in the parts so far."""
        return sum(size for _, size in self._totals.values())

    def _end(self, reason: str) -> None:
        self._over = reason
        self._log.open_transactions.pop(self.txn_id, None)

    def _check(self) -> None:
        if self._over:
            raise LogError(f"the large transaction of task {self.task!r} {self._over}")
