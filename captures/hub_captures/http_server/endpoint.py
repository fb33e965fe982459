"""What one request goes through, from its head to its answer.

The hard thing is the order: who may and whether there is room is decided before a byte of the body is
read, the bytes of open requests are counted as they come, and nothing is kept of a body that is
refused.
"""

from __future__ import annotations

import fnmatch
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from hub.capture import Outlet, collection_name
from hub.lines import Lines
from hub.record import Batch
from hub_captures.http_server.bodies import (
    CONTENT_TYPES,
    ENCODINGS,
    BadBody,
    Kind,
    TooLarge,
    decompressed,
    records,
)
from hub_captures.http_server.intake import HttpPosition, Intake, Key, KeyReused, Unsettled

if TYPE_CHECKING:
    from hub_captures.http_server.capture import HttpServerCapture

RETRY_AFTER_S = 1
"""What a client is asked to wait while the log has no room."""

IDEMPOTENCY_KEY_MAX = 256
"""Longest idempotency key."""

INLINE_BYTES = 1 << 16
"""Larger bodies are checked in a thread."""

PATH_MAX = 200
"""Longest path, in characters."""


class Refused(Exception):
    """An answer other than 200, and what it says."""

    def __init__(
        self, status: int, message: str, *, headers: dict[str, str] | None = None, **rest: Any
    ) -> None:
        super().__init__(message)
        self.response = JSONResponse({"error": message, **rest}, status, headers)


class Endpoint:
    """What one request goes through."""

    def __init__(self, options: HttpServerCapture, intake: Intake, out: Outlet[HttpPosition]) -> None:
        self._options = options
        self._intake = intake
        self._out = out
        self._held_bytes = 0
        self._collections = {str(out.task)}
        self._failed = anyio.Event()
        self._error: Exception | None = None

    async def failure(self) -> None:
        """Wait for what no request should raise, and raise it: the engine is to see it, not the server."""
        await self._failed.wait()
        assert self._error is not None
        raise self._error

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        try:
            response: Response = await self._answer(request)
        except Refused as refused:
            response = refused.response
            if response.status_code >= 429:
                self._out.count("refused_requests")
        except ClientDisconnect:
            return
        except Exception as error:
            self._error = error
            self._failed.set()
            raise
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        self._admit(request)
        collection = self._collection(request.scope["path"])
        kind, encoding = content(request)
        async with self._body(request) as body:
            key = self._key(request, body)
            lines = await self._lines(body, kind, encoding)
            shared = {"path": request.scope["path"]} | {
                name.lower(): request.headers[name]
                for name in self._options.keep_headers
                if name in request.headers
            }
            batch = Batch(collection, lines.count, ndjson=lines.ndjson, shared=shared)
            try:
                is_new = await self._intake.take(batch, key)
            except KeyReused as error:
                raise Refused(422, "this Idempotency-Key came before with another body") from error
            except Unsettled as error:
                retry = {"Retry-After": str(RETRY_AFTER_S)}
                raise Refused(503, "the hub is stopping; send this again", headers=retry) from error
        return JSONResponse({"records": lines.count, "collection": collection, "replayed": not is_new})

    def _admit(self, request: Request) -> None:
        """Who may, and whether there is room, before a byte of the body is read."""
        options = self._options
        if options.token is not None:
            given = request.headers.get("authorization", "")
            expected = f"Bearer {options.token.reveal()}"
            if not hmac.compare_digest(given.encode(), expected.encode()):
                headers = {"WWW-Authenticate": "Bearer"}
                raise Refused(401, "expected the header Authorization: Bearer <token>", headers=headers)
        elif options.is_local and not is_local_name(request.headers.get("host", "")):
            # A page in a browser here may reach this port under a name of its own (DNS rebinding).
            raise Refused(421, "this server answers to localhost only")
        if request.method != "POST":
            raise Refused(405, f"expected POST, got {request.method}", headers={"Allow": "POST"})
        if self._out.full or self._held_bytes >= options.queue_bytes:
            raise self._no_room()

    def _collection(self, path: str) -> str:
        name = path.strip("/")
        if not name:
            return self._out.task
        allowed = any(fnmatch.fnmatchcase(name, pattern.strip("/")) for pattern in self._options.paths)
        if not allowed or len(name) > PATH_MAX:
            raise Refused(404, f"/{name} is not among the paths of this capture")
        collection = collection_name(self._out.task, name)
        if collection not in self._collections and len(self._collections) > self._options.collections_max:
            raise Refused(404, f"/{name} would be one more than {self._options.collections_max} collections")
        self._collections.add(collection)
        return collection

    @asynccontextmanager
    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        """The body. Its bytes count as held until the request is answered."""
        bytes_max = self._options.body_bytes
        held = 0
        # The connection is left open while the client is still sending, or it might never see the answer;
        # what it sends then is thrown away, for no longer than a head may take.
        too_large = Refused(413, f"the body is larger than {bytes_max}")
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > bytes_max:
            raise too_large
        pieces: list[bytes] = []
        try:
            try:
                with anyio.fail_after(self._options.body_timeout):
                    async for piece in request.stream():
                        pieces.append(piece)
                        held += len(piece)
                        self._held_bytes += len(piece)
                        if held > bytes_max:
                            raise too_large
                        if self._held_bytes > self._options.queue_bytes:
                            raise self._no_room()
            except TimeoutError as error:
                message = f"the body took longer than {self._options.body_timeout}"
                raise Refused(408, message, headers={"Connection": "close"}) from error
            yield b"".join(pieces)
        finally:
            self._held_bytes -= held

    def _no_room(self) -> Refused:
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        return Refused(429, "the log has no room at the moment", headers=headers)

    def _key(self, request: Request, body: bytes) -> Key | None:
        key = request.headers.get("idempotency-key")
        if key is None:
            return None
        if not key or len(key) > IDEMPOTENCY_KEY_MAX:
            raise Refused(400, f"expected an Idempotency-Key of 1 to {IDEMPOTENCY_KEY_MAX} characters")
        if not self._options.idempotency_keys:
            raise Refused(400, "this capture keeps no Idempotency-Key (idempotency_keys is 0)")
        return Key.of(request.scope["path"], key, body)

    async def _lines(self, body: bytes, kind: Kind, encoding: str) -> Lines:
        def read() -> Lines:
            return records(decompressed(body, encoding, self._options.body_bytes), kind)

        try:
            if len(body) < INLINE_BYTES and encoding == "identity":
                return read()
            return await anyio.to_thread.run_sync(read)
        except TooLarge as error:
            raise Refused(413, f"the body is larger than {self._options.body_bytes} decompressed") from error
        except BadBody as error:
            raise Refused(400, str(error), problems=error.problems) from error


def content(request: Request) -> tuple[Kind, str]:
    """What the body is and how it is encoded, by its headers."""
    given = request.headers.get("content-type", "")
    kind = CONTENT_TYPES.get(given.partition(";")[0].strip().lower())
    if kind is None:
        known = "application/json or application/x-ndjson"
        raise Refused(415, f"expected a Content-Type of {known}, got {given or 'none'}")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ENCODINGS:
        message = f"expected a Content-Encoding of {', '.join(ENCODINGS)}, got {encoding}"
        raise Refused(415, message, headers={"Accept-Encoding": ", ".join(ENCODINGS[1:])})
    return kind, encoding


def is_local_name(host: str) -> bool:
    """True when a Host header names this machine's own interface."""
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    name = name.removeprefix("[").removesuffix("]")
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
