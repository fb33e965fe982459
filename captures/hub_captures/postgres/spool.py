"""Transactions whose end is not known yet, each kept aside until it commits or aborts.

There are two kinds. Those that the server streams while they go on interleave, and a position may only stand between
whole transactions. Those that are prepared (two-phase commit) may stay so for days. What is small is kept in
memory, the rest in files without a name: whatever happens to this process, nothing is left of them. The hard
thing is that nothing here outlives the process either: `prepared_lsn` says from where the server must send
again what is prepared, and as long as it is told no later place than that, it can.
"""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO

from hub_captures.postgres import pgoutput
from hub_captures.postgres.pgoutput import HEADER, Relation

IN_MEMORY_BYTES = 64 * 1024
"""A transaction larger than this gets a file, which is written in pieces of about this size."""

_ENTRY = struct.Struct(">II")
_XID = slice(HEADER + 1, HEADER + 5)
"""Where a message of a block has the subtransaction that wrote it."""
_ORIGIN = ord("O")
_RELATION = ord("R")


class Spooled:
    """One transaction: its messages with the subtransaction that wrote each, and which of those aborted.
    `prepare_lsn` is where its PREPARE stands, None while it is not prepared."""

    def __init__(self) -> None:
        self.size = 0
        self.prepare_lsn: int | None = None
        self.relations: dict[int, Relation] = {}
        """Those that were stated in here, each as it was last, and not outside since."""
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._file: IO[bytes] | None = None
        self._aborted: set[int] = set()

    def add(self, *parts: bytes | memoryview, subxid: int = 0) -> None:
        """Keep one message, which may be large and lie elsewhere."""
        size = sum([len(part) for part in parts])
        if size <= IN_MEMORY_BYTES:
            self.extend([b"".join(parts)], subxid=subxid)
            return
        # Not copied into one piece with the others.
        self.size += size + _ENTRY.size
        self._held.append(_ENTRY.pack(subxid, size))
        file = self._rolled_over()
        for part in parts:
            file.write(part)

    def _rolled_over(self) -> IO[bytes]:
        """The file, with all that was held in it."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="hub-spool-")  # noqa: SIM115  closed by close()
        self._file.write(b"".join(self._held))
        self._held, self._held_bytes = [], 0
        return self._file

    def extend(self, messages: Sequence[bytes], *, subxid: int) -> None:
        """Keep many messages of one subtransaction."""
        held, pack = self._held, _ENTRY.pack
        for message in messages:
            held += (pack(subxid, len(message)), message)
        size = sum(map(len, messages)) + len(messages) * _ENTRY.size
        self.size += size
        self._held_bytes += size
        if self._held_bytes > IN_MEMORY_BYTES:
            self._rolled_over()

    def abort(self, subxid: int) -> None:
        """What this subtransaction has written is void."""
        self._aborted.add(subxid)

    def lay_out(self, relation: Relation) -> None:
        """The rows of this relation that follow are laid out so. Its last word may come from a time before the
        transaction, and another may have come by the time it commits."""
        if self.relations.get(relation.oid) != relation:
            self.relations[relation.oid] = relation
            self.add(pgoutput.relation_message(relation))

    def has_layout(self, oid: int) -> bool:
        """It is stated already how the rows of this relation are laid out."""
        return oid in self.relations

    def messages(self) -> Iterator[bytes]:
        """What is valid, in order. The file is closed at the end."""
        file = self._rolled_over() if self._file is not None else io.BytesIO(b"".join(self._held))
        file.seek(0)
        try:
            while head := file.read(_ENTRY.size):
                subxid, size = _ENTRY.unpack(head)
                message = file.read(size)
                if subxid not in self._aborted:
                    yield message
        finally:
            self.close()

    def close(self) -> None:
        """Give the memory and the disk back."""
        self._held = []
        if self._file is not None:
            self._file.close()


class Spool:
    """The transactions that are streaming or prepared, by xid."""

    def __init__(self) -> None:
        self._by_xid: dict[int, Spooled] = {}
        self._current: Spooled | None = None

    @property
    def is_open(self) -> bool:
        """Messages belong to a streamed transaction now."""
        return self._current is not None

    @property
    def size(self) -> int:
        """Bytes kept now."""
        return sum(each.size for each in self._by_xid.values())

    @property
    def prepared(self) -> int:
        """How many transactions are prepared."""
        return sum(each.prepare_lsn is not None for each in self._by_xid.values())

    def prepared_lsn(self, start_lsn: int) -> int | None:
        """Where the oldest PREPARE stands that the server sends again only if it begins no later. What was prepared
        before `start_lsn`, where this run has begun, it sends when it is committed. None when there is none."""
        found = [each.prepare_lsn for each in self._by_xid.values() if each.prepare_lsn is not None]
        return min([lsn for lsn in found if lsn >= start_lsn], default=None)

    def start(self, xid: int) -> None:
        """A block of this transaction begins."""
        self._current = self._of(xid)

    def stop(self) -> None:
        """The block is over."""
        self._current = None

    def add(self, b: bytes | memoryview) -> None:
        """A message of the block. Its xid, which stands behind the kind of all but one, is taken out of it."""
        assert self._current is not None
        kind = b[HEADER]
        if kind == _ORIGIN:
            self._current.add(b)
            return
        self._current.add(b[: _XID.start], b[_XID.stop :], subxid=int.from_bytes(b[_XID]))
        if kind == _RELATION:
            relation = pgoutput.relation(bytes(b), _XID.stop - 1)
            self._current.relations[relation.oid] = relation

    def extend(self, rows: Sequence[bytes]) -> None:
        """Rows of the block, all of one subtransaction."""
        assert self._current is not None
        messages = [b[: _XID.start] + b[_XID.stop :] for b in rows]
        self._current.extend(messages, subxid=int.from_bytes(rows[0][_XID]))

    def restated(self, oid: int) -> None:
        """A relation was stated outside of the blocks: what they said of it is older."""
        for each in self._by_xid.values():
            if each.prepare_lsn is None:
                each.relations.pop(oid, None)

    def abort(self, xid: int, subxid: int) -> None:
        """A subtransaction, or the whole, has aborted."""
        if xid == subxid:
            self.forget(xid)
        elif found := self._by_xid.get(xid):
            found.abort(subxid)

    def keep(self, xid: int) -> Spooled:
        """A transaction is sent whole, because it is prepared."""
        self.forget(xid)
        return self._of(xid)

    def prepare(self, xid: int, lsn: int) -> None:
        """The transaction is prepared, all that it wrote is here."""
        self._of(xid).prepare_lsn = lsn

    def find(self, xid: int) -> Spooled | None:
        """What a transaction wrote; None when nothing of it is here."""
        return self._by_xid.get(xid)

    def forget(self, xid: int) -> None:
        """The transaction is over."""
        found = self._by_xid.pop(xid, None)
        if found is not None:
            found.close()

    def _of(self, xid: int) -> Spooled:
        found = self._by_xid.get(xid)
        if found is None:
            found = self._by_xid[xid] = Spooled()
        return found

    def close(self) -> None:
        """Forget everything: the server sends it again."""
        for xid in list(self._by_xid):
            self.forget(xid)
