"""A proxy that cuts a connection around a COMMIT, so that nobody hears what became of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def cutting(to_port: int, *, arrives: bool) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Gives the proxy's port, and an event. Once that is set, a COMMIT ends its connection: before the server gets it,
    or where it `arrives`, when the server answers."""
    armed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", to_port)
        committing = asyncio.Event()

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, *, asks: bool) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    if asks and armed.is_set() and b"COMMIT" in data:
                        committing.set()
                        if not arrives:
                            break
                    elif not asks and committing.is_set():
                        break
                    target.write(data)
                    await target.drain()
            up_writer.close()
            writer.close()

        await asyncio.gather(pump(reader, up_writer, asks=True), pump(up_reader, writer, asks=False))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], armed
