"""The HTTP server: metrics and health, for Prometheus and for whoever restarts processes.

Listens on this machine only unless a token is set; the configuration refuses anything else. Every
path needs the token when there is one, compared in constant time.
"""

from __future__ import annotations

import hmac
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import anyio
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hub.runtime.runner import Running

CONNECTIONS_MAX = 64
KEEP_ALIVE_S = 5
HEADERS_BYTES_MAX = 16 << 10


def application(running: Running) -> ASGIApp:
    """The routes, behind the token."""
    telemetry = running.telemetry

    async def metrics(_: Request) -> Response:
        return Response(telemetry.exposition(), media_type=CONTENT_TYPE_LATEST)

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        states = {task.name: task.state for task in telemetry.tasks.values()}
        ready = all(state in ("running", "waiting", "finished") for state in states.values())
        return JSONResponse({"ready": ready, "tasks": states}, status_code=200 if ready else 503)

    app = Starlette(
        routes=[Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)],
    )
    token = running.catalog.server.token
    return Guard(app, token.reveal() if token else None, local_only=token is None)


class Guard:
    """Lets nobody in without the token. Without one, only requests that name this machine as their host:
    a page in a browser could otherwise reach us under a name of its own (DNS rebinding)."""

    def __init__(self, app: ASGIApp, token: str | None, *, local_only: bool) -> None:
        self._app = app
        self._token = token
        self._local_only = local_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            if self._token is not None:
                given = headers.get(b"authorization", b"")
                if not hmac.compare_digest(given, b"Bearer " + self._token.encode()):
                    await PlainTextResponse("a bearer token is needed\n", status_code=401)(
                        scope, receive, send
                    )
                    return
            elif self._local_only and not is_local(headers.get(b"host", b"").decode("latin-1")):
                await PlainTextResponse("unknown host\n", status_code=421)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_local(host: str) -> bool:
    """True when a Host header names this machine."""
    name = host if host.endswith("]") else host.rsplit(":", 1)[0]
    if name == "localhost":
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


async def serve(running: Running) -> None:
    """Serve until cancelled. A port that is taken is told once and does not stop the hub."""
    section = running.catalog.server
    if not section.enabled:
        return
    try:
        listening = socket.create_server(
            (section.host, section.port),
            family=socket.AF_INET6 if ":" in section.host else socket.AF_INET,
        )
    except OSError as error:
        running.events.warning("not_serving", address=section.address, reason=error.strerror or str(error))
        return
    config = uvicorn.Config(
        application(running),
        log_config=None,
        access_log=False,
        lifespan="off",
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
        h11_max_incomplete_event_size=HEADERS_BYTES_MAX,
        timeout_graceful_shutdown=1,
    )
    with listening:
        host, port = listening.getsockname()[:2]
        running.events.info("serving", address=f"{host}:{port}")
        await _Server(config).serve([listening])


class _Server(uvicorn.Server):
    """Leaves signals to the hub, and closes what it opened when its task is cancelled."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().serve(sockets)
        finally:
            if self.started:
                with anyio.CancelScope(shield=True):
                    await self.shutdown(sockets)
