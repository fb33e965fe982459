"""Transactions that the server streams while they go on: kept in a file each until they commit or abort.

A position may only stand between whole transactions, and streamed ones interleave, so that their changes must
wait for the commit. The files have no name: whatever happens to this process, nothing is left of them.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from typing import IO

_ENTRY = struct.Struct(">II")


class Spooled:
    """One transaction: its messages with the subtransaction that wrote each, and which of those aborted."""

    def __init__(self) -> None:
        self.size = 0
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="hub-spool-")  # noqa: SIM115  closed by close()
        self._aborted: set[int] = set()

    def add(self, subxid: int, message: bytes) -> None:
        """Keep one message."""
        self._file.write(_ENTRY.pack(subxid, len(message)))
        self._file.write(message)
        self.size += len(message) + _ENTRY.size

    def abort(self, subxid: int) -> None:
        """What this subtransaction has written is void."""
        self._aborted.add(subxid)

    def messages(self) -> Iterator[bytes]:
        """What is valid, in order. The file is closed at the end."""
        self._file.seek(0)
        try:
            while head := self._file.read(_ENTRY.size):
                subxid, size = _ENTRY.unpack(head)
                message = self._file.read(size)
                if subxid not in self._aborted:
                    yield message
        finally:
            self.close()

    def close(self) -> None:
        """Give the disk back."""
        self._file.close()


class Spool:
    """The transactions that are streaming, by xid."""

    def __init__(self) -> None:
        self._by_xid: dict[int, Spooled] = {}
        self._current: Spooled | None = None

    @property
    def is_open(self) -> bool:
        """Messages belong to a streamed transaction now."""
        return self._current is not None

    @property
    def size(self) -> int:
        """Bytes on disk now."""
        return sum(each.size for each in self._by_xid.values())

    def start(self, xid: int) -> None:
        """A block of this transaction begins."""
        if xid not in self._by_xid:
            self._by_xid[xid] = Spooled()
        self._current = self._by_xid[xid]

    def stop(self) -> None:
        """The block is over."""
        self._current = None

    def add(self, b: bytes, header: int) -> None:
        """A message of the block. Its xid, which stands behind the kind, is taken out of it."""
        assert self._current is not None
        kind_end = header + 1
        subxid = int.from_bytes(b[kind_end : kind_end + 4])
        self._current.add(subxid, b[:kind_end] + b[kind_end + 4 :])

    def abort(self, xid: int, subxid: int) -> None:
        """A subtransaction, or the whole, has aborted."""
        found = self._by_xid.get(xid)
        if found is None:
            return
        if xid == subxid:
            found.close()
            del self._by_xid[xid]
        else:
            found.abort(subxid)

    def commit(self, xid: int) -> Spooled | None:
        """The transaction has committed: what it wrote. None when it wrote nothing that was kept."""
        return self._by_xid.pop(xid, None)

    def close(self) -> None:
        """Forget everything: the server sends it again."""
        for each in self._by_xid.values():
            each.close()
        self._by_xid.clear()
