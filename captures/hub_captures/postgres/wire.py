"""Reading COPY data off a connection without waiting: the stream of changes, and the rows of a snapshot.

The hard thing is speed. Each wake-up of a fast reader costs the server a system call for a single row, so
over TCP the reader drains what is there and then naps: twice the throughput for a fifth of the CPU. Under
TLS a read brings one record, which is mostly one row, so it reads several times before it looks at what has come.
`get_copy_data` is only ever called so that it does not wait: psycopg would hold the GIL while it waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Protocol

import anyio
import anyio.lowlevel
import psycopg
from psycopg import pq

from hub.errors import HubError, TransientError
from hub_captures.postgres.connection import Connection, error_of

NAP_S = 0.002
"""After all is drained."""
QUIET_BYTES = 1024
QUIET_READS = 32
"""After so many reads in a row that brought less than this there is a nap: a reader that is as fast as the server would go on
row by row. A million rows took 2.5 s of processor time instead of 3.2, one transaction of as many 2.1 instead of 3.6."""
READS_MAX = 64
"""So many TLS records are read at once, while there are as many: 1.3 µs a row less than one by one."""
CALLBACK_BYTES_MAX = 128 * 1024
CALLBACK_MESSAGES_MAX = 600
"""One callback handles about so much, two or three milliseconds of work, and lets the loop go on. A timer or a task waits
for up to three of them. The bytes bound large rows; small ones, such as deletes, cost as much as others."""
SMALL_BYTES = 1024
"""Messages up to here are bounded by their number alone, which is cheaper to count."""
_EPOCH_2000_S = 946_684_800

Take = Callable[[list[bytes]], list[bytes] | None]
"""Takes CopyData messages in their order. What it returns stops the reader, and is left for the next turn."""
TakeLarge = Callable[[memoryview], bool | None]
"""Takes one that is large, as it lies in the memory of libpq."""


class ChangeStream:
    """The stream of a replication slot. Messages are handed on from a callback of the event loop.

    They go to `take`, as many at once as there are, and one that is larger than `bytes_max` to `take_large`.
    `after` is called after each callback that brought something. When a taker stops the reader the stream is
    paused until `resume`. `failure` is set when the stream has ended, be it by what a taker or `after` raised, and
    `after` is called once more.
    """

    def __init__(
        self,
        connection: Connection,
        take: Take,
        take_large: TakeLarge,
        after: Callable[[int], None],
        *,
        bytes_max: int,
    ) -> None:
        self.failure: Exception | None = None
        self.is_paused = True
        self.received_at = time.monotonic()
        self.bytes = 0
        self.wake_ups = 0
        self._pgconn = connection.pgconn
        self._bytes_max = bytes_max
        self._take = take
        self._take_large = take_large
        self._after = after
        self._fd = self._pgconn.socket
        self._naps = not self._pgconn.host.startswith((b"/", b"@")) if self._pgconn.host else False
        self._is_sealed = bool(self._pgconn.ssl_in_use)
        self._reads = 1
        self._quiet = 0
        self._loop = asyncio.get_running_loop()
        self._is_reading = False
        self._is_writing = False
        self._timer: asyncio.Handle | None = None
        self._is_closed = False
        self._left: list[bytes] = []
        self._left_large: memoryview | None = None

    async def start(self, command: str) -> None:
        """Send START_REPLICATION and wait until the stream is open. It is paused then."""
        with _lost("starting replication"):
            self._pgconn.nonblocking = 1
            await send_query(self._pgconn, command.encode())
            result = await next_result(self._pgconn)
        if result is None or result.status != pq.ExecStatus.COPY_BOTH:
            raise error_of_result(result, "starting replication")

    def resume(self) -> None:
        """Go on. What libpq holds already is handled first."""
        if self.is_paused and not self._is_closed:
            self.is_paused = False
            # Whoever does not listen cannot say that nobody has answered.
            self.received_at = time.monotonic()
            self._timer = self._loop.call_soon(self._ready)

    def pause(self) -> None:
        """Read no further. The server waits as soon as the buffers between are full."""
        self.is_paused = True
        self._listen(False)
        self._cancel_timer()

    def close(self) -> None:
        """Leave the event loop."""
        self.pause()
        self._is_closed = True
        if self._is_writing:
            self._loop.remove_writer(self._fd)
            self._is_writing = False

    def confirm(self, *, received: int, durable: int, wants_reply: bool) -> None:
        """Tell the server how far we are. It may forget what lies before `durable`."""
        now_us = int((time.time() - _EPOCH_2000_S) * 1_000_000)
        durable = min(durable, received)
        status = struct.pack(">cQQQQB", b"r", received, durable, durable, now_us, wants_reply)
        try:
            self._pgconn.put_copy_data(status)
            self._flush()
        except psycopg.OperationalError as error:
            self._fail(TransientError(f"the server is gone: {_one_line(str(error))}"))

    def _flush(self) -> None:
        pending = self._pgconn.flush() == 1
        if pending and not self._is_writing:
            self._loop.add_writer(self._fd, self._flush_later)
        elif not pending and self._is_writing:
            self._loop.remove_writer(self._fd)
        self._is_writing = pending

    def _flush_later(self) -> None:
        try:
            self._flush()
        except psycopg.OperationalError as error:
            self._fail(TransientError(f"the server is gone: {_one_line(str(error))}"))

    def _ready(self) -> None:
        # Called by the socket while a turn is already due, it takes that turn.
        self._cancel_timer()
        if self.is_paused:
            return
        self.wake_ups += 1
        get, most = self._pgconn.get_copy_data, self._bytes_max
        got, budget = 0, CALLBACK_BYTES_MAX
        is_full = has_read = has_ended = False
        is_awaited = bool(self._left or self._left_large)
        turns = repeat(None, CALLBACK_MESSAGES_MAX)
        try:
            is_stopped = self._hand_over(self._left, self._left_large)
            while not is_stopped:
                before = got
                found: list[bytes] = []
                add = found.append
                large = None
                # libpq's buffer is as large as the largest row ever was, and may be full of small ones.
                for _ in turns:
                    size, view = get(1)
                    if 0 < size <= SMALL_BYTES:
                        add(view.tobytes())
                    elif size > most:
                        large = view
                        got += size
                        break
                    elif size > 0:
                        add(view.tobytes())
                        budget -= size
                        if budget <= 0:
                            break
                    else:
                        has_ended = size < 0
                        break
                else:
                    is_full = True
                got += sum(map(len, found))
                is_stopped = self._hand_over(found, large)
                if has_ended:
                    raise self._ended()
                is_full |= got >= CALLBACK_BYTES_MAX
                if is_full or (has_read and self._is_drained(len(found), got - before)):
                    break
                self._read()
                has_read = True
        except psycopg.OperationalError as error:
            self._fail(TransientError(f"the stream was interrupted: {_one_line(str(error))}"))
            return
        except Exception as error:
            # A callback has nobody above it: whatever happened is raised by whoever waits for the stream.
            self._fail(error)
            return
        if got:
            self.bytes += got
            self.received_at = time.monotonic()
        if is_stopped:
            self.pause()
        elif is_full:
            # Not by the socket as well, or this would have two turns in a row.
            self._listen(False)
            self._timer = self._loop.call_soon(self._ready)
        elif self._naps:
            self._listen(False)
            self._quiet = 0
            self._timer = self._loop.call_later(NAP_S, self._wake)
        else:
            self._listen(True)
        if got or is_awaited:
            self._tell(got)

    def _read(self) -> None:
        """Let libpq read what there is, or as many TLS records as there probably are."""
        self._pgconn.consume_input()
        with contextlib.suppress(psycopg.OperationalError):
            # What a lost connection has brought before comes first; the next read finds that it is lost.
            for _ in range(self._reads - 1):
                self._pgconn.consume_input()

    def _is_drained(self, messages: int, size: int) -> bool:
        """Whether there is no more, or too little to go on, after a read that brought this."""
        if self._is_sealed:
            has_more = messages >= self._reads
            self._reads = min(2 * self._reads, READS_MAX) if has_more else max(1, messages)
            return not has_more
        self._quiet = self._quiet + 1 if self._naps and size < QUIET_BYTES else 0
        return not size or self._quiet >= QUIET_READS

    def _hand_over(self, found: list[bytes], large: memoryview | None) -> bool:
        """Give messages to the takers, the large one last. True when the reader must stop; what is left then comes first
        in the next turn."""
        left = self._take(found) if found else None
        if left is not None:
            self._left, self._left_large = left, large
            return True
        self._left, self._left_large = [], None
        return large is not None and bool(self._take_large(large))

    def _wake(self) -> None:
        self._timer = None
        self._listen(True)

    def _listen(self, wanted: bool) -> None:
        if wanted != self._is_reading:
            self._is_reading = wanted
            if wanted:
                self._loop.add_reader(self._fd, self._ready)
            else:
                self._loop.remove_reader(self._fd)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ended(self) -> HubError:
        result = self._pgconn.get_result()
        return error_of_result(result, "the server ended the stream")

    def _tell(self, got: int) -> None:
        try:
            self._after(got)
        except Exception as error:
            # Nobody is above this one either.
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.close()
        if self.failure is None:
            self.failure = error
            self._tell(0)


class Gatherer(Protocol):
    """Takes the rows of a COPY."""

    def add(self, found: Sequence[bytes], /) -> None:
        """Some rows, or none."""

    def add_large(self, row: memoryview, /) -> None:
        """A large one, as it lies in the memory of libpq."""


class _Nowhere:
    def add(self, found: Sequence[bytes], /) -> None:
        """Nobody wants them any more."""

    def add_large(self, row: memoryview, /) -> None:
        """Nor these."""


class CopyOut:
    """The rows of one COPY … TO STDOUT, some at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._is_over = False
        self._is_closed = False
        self._left: list[bytes] = []
        self._left_large: memoryview | None = None

    async def start(self, query: str) -> None:
        """Begin. Raises what the server says against it."""
        with _lost("copying rows"):
            await send_query(self._pgconn, query.encode())
            result = await next_result(self._pgconn)
            if result is None or result.status != pq.ExecStatus.COPY_OUT:
                await self._drain()
                raise error_of_result(result, "copying rows")

    async def into(self, rows: Gatherer) -> bool:
        """Hand over what has come, at least one row. False at the end. Raises when the server broke off."""
        with _lost("copying rows"):
            return await self._into(rows)

    async def _into(self, rows: Gatherer) -> bool:
        has_come = False
        while not has_come and not self._is_over:
            has_come = self._drained_into(rows)
            if not has_come and not self._is_over:
                await anyio.wait_readable(self._pgconn.socket)
                self._pgconn.consume_input()
        if has_come:
            await anyio.lowlevel.checkpoint()
        elif not self._is_closed:
            self._is_closed = True
            result = await next_result(self._pgconn)
            await self._drain()
            if result is None or result.status != pq.ExecStatus.COMMAND_OK:
                raise error_of_result(result, "copying rows")
        return has_come

    def _drained_into(self, rows: Gatherer) -> bool:
        """Hand over what libpq holds, as long as it is not too much for one turn. False when that is nothing."""
        found: list[bytes] = []
        get, budget = self._pgconn.get_copy_data, CALLBACK_BYTES_MAX
        while budget > 0:
            size, view = get(1)
            if size <= 0:
                self._is_over = size < 0
                break
            budget -= size
            if size > CALLBACK_BYTES_MAX:
                rows.add(found)
                rows.add_large(view)
                return True
            found.append(view.tobytes())
        rows.add(found)
        return bool(found)

    async def cancel(self) -> None:
        """Break off, and throw away what is still on its way."""
        with _lost("copying rows"):
            await self._connection.cancel_safe()
        with contextlib.suppress(HubError):
            while await self.into(_Nowhere()):
                pass

    async def _drain(self) -> None:
        while await next_result(self._pgconn) is not None:
            pass


async def send_query(pgconn: pq.abc.PGconn, query: bytes) -> None:
    """Send a query by the simple protocol."""
    pgconn.send_query(query)
    while pgconn.flush() == 1:
        await anyio.wait_writable(pgconn.socket)


async def next_result(pgconn: pq.abc.PGconn) -> pq.abc.PGresult | None:
    """The next result of what was sent; None when there is no more."""
    pgconn.consume_input()
    while pgconn.is_busy():
        await anyio.wait_readable(pgconn.socket)
        pgconn.consume_input()
    return pgconn.get_result()


def error_of_result(result: pq.abc.PGresult | None, doing: str) -> HubError:
    """The error that a result carries."""
    if result is None:
        return TransientError(f"{doing}: the connection was lost")
    state = result.error_field(pq.DiagnosticField.SQLSTATE)
    said = _one_line(
        result.error_message.decode(errors="replace") if result.error_message else "no reason given"
    )
    return error_of(state.decode() if state else None, f"{doing}: {said}")


@contextlib.contextmanager
def _lost(doing: str) -> Iterator[None]:
    """What libpq itself reports is that the connection was lost."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise TransientError(f"{doing}: {_one_line(str(error))}") from error


def _one_line(text: str) -> str:
    return " ".join(text.split())
