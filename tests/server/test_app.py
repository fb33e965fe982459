"""Metrics and health over HTTP, and who is let in."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from hub.catalog import Catalog, ServerSection
from hub.options import Secret
from hub.server.app import application, is_local
from hub.telemetry import Telemetry

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def client(telemetry: Telemetry, token: str | None = None, host: str = "127.0.0.1:4195") -> httpx.AsyncClient:
    catalog = Catalog("hub.yaml", Path(), server=ServerSection(token=Secret(token) if token else None))
    running: Any = SimpleNamespace(telemetry=telemetry, catalog=catalog)
    return httpx.AsyncClient(transport=httpx.ASGITransport(application(running)), base_url=f"http://{host}")


async def test_metrics_show_every_edge() -> None:
    telemetry = Telemetry()
    task = telemetry.task("shop", "capture", "postgres")
    task.edge("shop/public.orders").records = 7
    task.latency.observe(0.004)
    task.gauges["slot_retained_bytes"] = 5
    async with client(telemetry) as http:
        answer = await http.get("/metrics")
    assert answer.status_code == 200
    labels = 'connector="postgres",edge="shop/public.orders",kind="capture",task="shop"'
    assert f"hub_records_total{{{labels}}} 7.0" in answer.text
    assert (
        'hub_batch_latency_seconds_bucket{connector="postgres",kind="capture",le="0.005",task="shop"} 1.0'
        in answer.text
    )
    assert 'name="slot_retained_bytes",task="shop"} 5.0' in answer.text


async def test_ready_means_that_every_task_runs() -> None:
    telemetry = Telemetry()
    task = telemetry.task("shop", "capture", "postgres")
    async with client(telemetry) as http:
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 503
        task.state = "running"
        assert (await http.get("/readyz")).json() == {"ready": True, "tasks": {"shop": "running"}}
        task.state = "failed"
        assert (await http.get("/readyz")).status_code == 503


async def test_with_a_token_nothing_is_shown_without_it() -> None:
    async with client(Telemetry(), token="s3cret") as http:
        for path in ("/metrics", "/healthz", "/readyz", "/nowhere"):
            assert (await http.get(path)).status_code == 401
            assert (await http.get(path, headers={"Authorization": "Bearer wrong"})).status_code == 401
        good = {"Authorization": "Bearer s3cret"}
        assert (await http.get("/metrics", headers=good)).status_code == 200


async def test_without_a_token_only_this_machine_s_names_are_answered() -> None:
    async with client(Telemetry(), host="evil.example.com") as http:
        assert (await http.get("/metrics")).status_code == 421


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost:4195", True),
        ("127.0.0.1", True),
        ("[::1]:80", True),
        ("[::1]", True),
        ("127.evil.com", False),
        ("", False),
    ],
)
def test_hosts(host: str, local: bool) -> None:
    assert is_local(host) is local


def test_a_wider_bind_without_a_token_is_refused() -> None:
    assert list(ServerSection(address="0.0.0.0:4195").problems())
    assert not list(ServerSection(address="0.0.0.0:4195", token=Secret("x")).problems())
    assert not list(ServerSection(address="[::1]:4195").problems())
