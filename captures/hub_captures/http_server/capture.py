"""Take records over HTTP: `POST` a JSON document, an array of them, or JSON lines.

The hard thing is the answer: 200 means that the records are on disk, and any other answer that the
client may send them again. What is malformed anywhere is refused whole, so that a client never has to
find out which half of its request was kept.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address
from typing import Annotated, Any

import anyio
import uvicorn
from msgspec import Meta

from hub.capture import Capture, Discovered, Finding, Outlet, collection_name
from hub.errors import FatalError, TransientError
from hub.options import Duration, Secret, Size
from hub.record import TaskName
from hub.schema import CollectionSchema
from hub.spec import Path as OptionPath
from hub_captures.http_server.endpoint import Endpoint
from hub_captures.http_server.intake import HttpPosition, Intake
from hub_captures.http_server.protocol import ConnectionLimits, LimitedProtocol

HEAD_BYTES_MAX = 16 << 10
"""Longest head of a request."""

SHUTDOWN_S = 5.0
"""How long open requests may take to be answered when the capture stops."""


class HttpServerCapture(Capture[HttpPosition], frozen=True, kw_only=True):
    """Each document that is posted becomes a record. The answer comes when it is durable.

    `POST /` goes to the collection of the capture's own name, `POST /orders` to `<name>/orders` where `paths`
    allows it. A request with the header `Idempotency-Key` is kept once, however often it is sent. Metadata:
    `path`, and the headers that `keep_headers` names.
    """

    position_type = HttpPosition

    address: Annotated[
        str,
        Meta(
            description="Where to listen, as `host:port`. Beyond this machine a `token` is needed.",
            examples=["127.0.0.1:8080", "[::1]:8080", "0.0.0.0:8080"],
            pattern=r"^.+:\d{1,5}$",
        ),
    ] = "127.0.0.1:8080"
    paths: Annotated[
        list[str],
        Meta(description="Paths beside `/` that may be posted to, such as `orders` or the glob `events-*`."),
    ] = []
    collections_max: Annotated[
        int, Meta(description="Most collections beside `/` that `paths` may make in one run.", ge=1)
    ] = 1000
    token: Annotated[
        Secret | None, Meta(description="What clients have to send as `Authorization: Bearer …`.")
    ] = None
    allow_anonymous: Annotated[
        bool, Meta(description="Listen beyond this machine without a token: whoever reaches it may write.")
    ] = False
    tls_certificate: Annotated[
        str | None,
        Meta(description="File with the certificate chain (PEM). With it the server speaks HTTPS only."),
    ] = None
    tls_key: Annotated[
        str | None, Meta(description="File with the private key of the certificate (PEM).")
    ] = None
    body_bytes: Annotated[
        Size, Meta(description="Largest body, also after decompression. Beyond it 413.")
    ] = Size(8 << 20)
    queue_bytes: Annotated[
        Size, Meta(description="Most bytes of all open requests together. Beyond it 429.")
    ] = Size(64 << 20)
    body_timeout: Annotated[
        Duration, Meta(description="How long one body may take to arrive. Beyond it 408.")
    ] = Duration(30)
    head_timeout: Annotated[
        Duration,
        Meta(description="How long a connection may take to send the head of a request, also the next."),
    ] = Duration(10)
    connections_max: Annotated[
        int, Meta(description="Most connections at once. More are closed unheard.", ge=1)
    ] = 256
    idempotency_keys: Annotated[
        int,
        Meta(
            description="How many of the last idempotency keys are remembered. Each adds 16 bytes to every "
            "position that is stored.",
            ge=0,
            le=100_000,
        ),
    ] = 1024
    keep_headers: Annotated[
        list[str], Meta(description="Request headers kept as metadata, under their names in lower case.")
    ] = []

    @property
    def host_port(self) -> tuple[str, int]:
        """`address` in its two parts."""
        host, _, port = self.address.rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port)

    @property
    def is_local(self) -> bool:
        """True when only this machine can reach the address."""
        host, _ = self.host_port
        try:
            return host == "localhost" or ip_address(host).is_loopback
        except ValueError:
            return False

    def problems(self) -> Iterator[tuple[OptionPath, str]]:
        if not self.is_local and not self.token and not self.allow_anonymous:
            yield (
                ("address",),
                f"{self.address} can be reached from other machines; set `token`, or `allow_anonymous: true`",
            )
        if self.token is not None and not self.token:
            yield ("token",), "the token is empty"
        if (self.tls_certificate is None) != (self.tls_key is None):
            missing = "tls_key" if self.tls_key is None else "tls_certificate"
            yield (missing,), "`tls_certificate` and `tls_key` go together"
        if self.host_port[1] > 65535:
            yield ("address",), f"expected a port up to 65535, got {self.host_port[1]}"
        for name in ("body_bytes", "body_timeout", "head_timeout"):
            if not getattr(self, name):
                yield (name,), "expected more than 0"
        if self.body_bytes > self.queue_bytes:
            yield (
                ("body_bytes",),
                f"a body of {self.body_bytes} never fits into queue_bytes, {self.queue_bytes}",
            )

    async def check(self, task: TaskName) -> Sequence[Finding]:
        try:
            self._bound().close()
        except (TransientError, FatalError) as error:
            return [Finding(False, str(error), "stop what listens there, or choose another `address`")]
        return [Finding(True, f"{self.address} is free to listen on")]

    async def discover(self, task: TaskName) -> Sequence[Discovered]:
        names = [path for path in self.paths if not is_glob(path)]
        return [
            Discovered(CollectionSchema(name, is_open=True), f"POST /{path}")
            for name, path in [(task, ""), *((collection_name(task, path), path) for path in names)]
        ]

    async def run(self, resume: HttpPosition | None, out: Outlet[HttpPosition]) -> None:
        intake = Intake(resume, out, keys_max=self.idempotency_keys)
        endpoint = Endpoint(self, intake, out)
        server = _Server(self._config(endpoint.serve))
        listening = self._bound()
        async with anyio.create_task_group() as group:
            group.start_soon(intake.send_forever)
            group.start_soon(endpoint.failure)
            try:
                await server.serve_until_cancelled(listening, partial(self._notice, out, listening))
            finally:
                group.cancel_scope.cancel()
                listening.close()

    def _notice(self, out: Outlet[HttpPosition], listening: socket.socket) -> None:
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        out.notice("listening", url=f"{'https' if self.tls_certificate else 'http'}://{shown}:{port}/")

    def _bound(self) -> socket.socket:
        host, port = self.host_port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return socket.create_server((host, port), family=family, backlog=self.connections_max)
        except OSError as error:
            message = f"cannot listen on {self.address}: {error.strerror}"
            if error.errno == errno.EADDRINUSE:
                raise TransientError(message) from error
            raise FatalError(message) from error

    def _config(self, app: Any) -> uvicorn.Config:
        limits = ConnectionLimits(self.connections_max, self.head_timeout)
        config = uvicorn.Config(
            app,
            http=partial(LimitedProtocol, limits),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=HEAD_BYTES_MAX,
            timeout_keep_alive=max(1, round(self.head_timeout)),
            timeout_graceful_shutdown=round(SHUTDOWN_S),
            ssl_certfile=self.tls_certificate,
            ssl_keyfile=self.tls_key,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise FatalError(
                f"tls_certificate {self.tls_certificate}, tls_key {self.tls_key}: {error}"
            ) from error
        return config


class _Server(uvicorn.Server):
    """A server that leaves signals to the engine, and whose end is the cancellation of its task."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def serve_until_cancelled(self, listening: socket.socket, started: Any) -> None:
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=[listening])
        started()
        try:
            await self.main_loop()
        finally:
            with anyio.CancelScope(shield=True):
                await self.shutdown(sockets=[listening])


def is_glob(path: str) -> bool:
    """True when a path of `paths` may stand for more than one."""
    return any(char in path for char in "*?[")
