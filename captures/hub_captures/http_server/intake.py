"""Requests on their way into the log: gathered, sent, and answered when they are durable.

The hard thing is that a client that saw no answer sends again. A request with an idempotency key is
kept once: the keys of the last requests are part of the position, so they become durable in the same
transaction as the records, and are known again after a crash.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import blake2b

import anyio

from hub.capture import Outlet
from hub.record import Batch, Position
from hub.schema import CollectionSchema

KEY_BYTES = 8
SUM_BYTES = 4


class HttpPosition(Position, frozen=True):
    """How many requests were taken, and the digests of the last idempotency keys and their bodies."""

    requests: int
    keys: bytes = b""


class Unsettled(Exception):
    """The capture stopped before the records were durable. Whether they are will be known to the next run."""


class KeyReused(Exception):
    """An idempotency key that came before with another body."""


@dataclass(frozen=True, slots=True)
class Key:
    """Of a request: digests of its idempotency key with its path, and of its body."""

    name: bytes
    body: bytes

    @classmethod
    def of(cls, path: str, key: str, body: bytes) -> Key:
        named = blake2b(f"{path}\0{key}".encode(errors="backslashreplace"), digest_size=KEY_BYTES)
        return cls(named.digest(), zlib.crc32(body).to_bytes(SUM_BYTES, "big"))


@dataclass(slots=True, eq=False)
class Waiting:
    """One request that waits for its records to be durable."""

    batch: Batch
    key: Key | None
    done: anyio.Event = field(default_factory=anyio.Event)
    is_durable: bool = False


class Intake:
    """One sender for many requests: while one transaction is on its way, the next is gathered."""

    def __init__(self, resume: HttpPosition | None, out: Outlet[HttpPosition], *, keys_max: int) -> None:
        self._out = out
        self._keys_max = keys_max
        self._requests = resume.requests if resume else 0
        self._keys = unpacked(resume.keys if resume else b"")
        self._described: set[str] = set()
        self._queue: list[Waiting] = []
        self._by_key: dict[bytes, Waiting] = {}
        self._wake = anyio.Event()
        self._is_stopped = False

    async def take(self, batch: Batch, key: Key | None) -> bool:
        """Returns when the records are durable; False when they were before, by the same key.

        Raises `KeyReused` and `Unsettled`.
        """
        if key is not None:
            known = self._by_key.get(key.name)
            if known is not None and known.key is not None:
                self._same(known.key.body, key)
                await self._settled(known)
                return False
            if key.name in self._keys:
                self._same(self._keys[key.name], key)
                return False
        waiting = Waiting(batch, key)
        if key is not None:
            self._by_key[key.name] = waiting
        self._queue.append(waiting)
        self._wake.set()
        await self._settled(waiting)
        return True

    async def send_forever(self) -> None:
        """Send what waits, again and again, until cancelled."""
        taken: list[Waiting] = []
        try:
            while True:
                await self._wake.wait()
                self._wake = anyio.Event()
                taken, self._queue = self._queue, []
                batches = [waiting.batch for waiting in taken if waiting.batch.count]
                for collection in {batch.collection for batch in batches} - self._described:
                    await self._out.describe(CollectionSchema(collection, is_open=True))
                    self._described.add(collection)
                await self._out.send(batches, self._position(taken))
                await self._out.settle()
                for waiting in taken:
                    waiting.is_durable = True
                    self._answer(waiting)
        finally:
            self._is_stopped = True
            for waiting in [*taken, *self._queue]:
                self._answer(waiting)

    def _position(self, taken: list[Waiting]) -> HttpPosition:
        self._requests += len(taken)
        for waiting in taken:
            if waiting.key is not None and self._keys_max:
                self._keys[waiting.key.name] = waiting.key.body
        while len(self._keys) > self._keys_max:
            self._keys.popitem(last=False)
        return HttpPosition(self._requests, packed(self._keys))

    def _answer(self, waiting: Waiting) -> None:
        if waiting.key is not None:
            self._by_key.pop(waiting.key.name, None)
        waiting.done.set()

    async def _settled(self, waiting: Waiting) -> None:
        if self._is_stopped:
            raise Unsettled
        await waiting.done.wait()
        if not waiting.is_durable:
            raise Unsettled

    @staticmethod
    def _same(body: bytes, key: Key) -> None:
        if body != key.body:
            raise KeyReused


def packed(keys: OrderedDict[bytes, bytes]) -> bytes:
    """The window of keys as bytes, oldest first."""
    return b"".join([name + body for name, body in keys.items()])


def unpacked(stored: bytes) -> OrderedDict[bytes, bytes]:
    """The window that `packed` wrote."""
    step = KEY_BYTES + SUM_BYTES
    return OrderedDict(
        (stored[at : at + KEY_BYTES], stored[at + KEY_BYTES : at + step])
        for at in range(0, len(stored), step)
    )
