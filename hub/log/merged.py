"""One reader over several journals: each in its own order, one cursor for all of them.

Journals of different writers have no common order, so transactions come as they are ready. Nothing is read ahead
beyond what one `read` of each journal returns: what waits here has been paid for with its reader's credit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from hub.log.reader import Reader
from hub.log.replay import Readable
from hub.log.transaction import Committed
from hub.record import Cursor

_Got = tuple[Reader, Sequence[Committed], Cursor]


class MergedReader:
    """Reads the wanted collections of several journals. `async with merged(…) as reader`."""

    def __init__(self, start: Cursor, received: MemoryObjectReceiveStream[_Got]) -> None:
        self.cursor = start
        """After the last transactions handed out, in every journal."""
        self._received = received
        self._owed: list[tuple[Reader, int]] = []

    async def read(self) -> Sequence[Committed]:
        """The next transactions of one of the journals, or nothing where only the cursor moved.

        Raises what the readers raise: Gap, Corrupt, Poisoned.
        """
        reader, found, cursor = await self._received.receive()
        self.cursor = Cursor(self.cursor.journals | cursor.journals)
        self._owed.append((reader, sum([c.size for c in found])))
        return found

    def release(self, count: int) -> None:
        """Give back the credit of so many bytes, those handed out first before the others."""
        while count > 0 and self._owed:
            reader, owed = self._owed[0]
            paid = min(owed, count)
            reader.release(paid)
            count -= paid
            if paid == owed:
                del self._owed[0]
            else:
                self._owed[0] = (reader, owed - paid)


@asynccontextmanager
async def merged(
    logs: Sequence[Readable],
    name: str,
    *,
    wanted: Callable[[str], bool] = lambda _: True,
    start: Cursor = Cursor.START,
    credit_bytes: int = 32 << 20,
) -> AsyncIterator[MergedReader]:
    """Read several journals for as long as the block runs, each with its share of the credit.

    Raises what a reader of one of them raises, as it is.
    """
    share = max(1, credit_bytes // max(1, len(logs)))
    readers = [Reader(log, name, wanted=wanted, start=start, credit_bytes=share) for log in logs]
    send, receive = anyio.create_memory_object_stream[_Got](0)

    async def pump(reader: Reader, out: MemoryObjectSendStream[_Got]) -> None:
        while True:
            found = await reader.read()
            await out.send((reader, found, reader.cursor))

    failed: Exception | None = None
    try:
        async with anyio.create_task_group() as group:
            for reader in readers:
                group.start_soon(pump, reader, send)
            try:
                yield MergedReader(start, receive)
            except Exception as error:
                failed = error
            group.cancel_scope.cancel()
    except* Exception as errors:
        failed = failed or _first(errors)
    finally:
        send.close()
        receive.close()
        for reader in readers:
            reader.close()
    if failed is not None:
        raise failed


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error
