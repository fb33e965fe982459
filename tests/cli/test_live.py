"""The live view draws what the telemetry holds."""

from __future__ import annotations

import time

from rich.console import Console

from hub.cli.live import View, snapshot_text
from hub.runtime.events import Events
from hub.telemetry import Edge, Telemetry


def drawn(view: View) -> str:
    console = Console(width=160, record=True, file=None, stderr=False, quiet=False)
    with console.capture() as captured:
        console.print(view.render())
    return captured.get()


def test_every_task_shows_its_state_records_and_snapshot() -> None:
    telemetry, events = Telemetry(), Events(quiet=True)
    task = telemetry.task("shop", "capture", "postgres")
    task.state = "running"
    edge = task.edge("shop/public.orders")
    edge.records, edge.rows_done, edge.rows_total = 1234, 50, 200
    edge.snapshotting, edge.snapshot_since = True, time.monotonic() - 10
    failed = telemetry.task("lake", "materialization", "duckdb")
    failed.state, failed.error = "failed", "the disk is on fire"
    events.info("started")
    text = drawn(View(telemetry, events))
    for part in (
        "shop (postgres)",
        "running",
        "shop/public.orders",
        "1,234",
        "25 %",
        "left",
        "the disk is on fire",
        "started",
    ):
        assert part in text


def test_a_snapshot_shows_done_when_it_is() -> None:
    assert snapshot_text(Edge()) == ""
    assert snapshot_text(Edge(rows_done=5, rows_total=5)) == "done"
    assert snapshot_text(Edge(rows_done=5, snapshotting=True)) == "5 rows"


def test_of_very_many_collections_the_busiest_are_shown_and_the_rest_counted() -> None:
    telemetry = Telemetry()
    task = telemetry.task("shop", "capture", "postgres")
    for number in range(1000):
        task.edge(f"shop/t{number}").records = number
    task.edge("shop/t3").snapshotting = True
    text = drawn(View(telemetry, Events(quiet=True)))
    assert len(text.splitlines()) < 30
    assert "shop/t999" in text
    assert "shop/t3 " in text
    assert "shop/t500" not in text
    assert "and 980 more, all together" in text
    assert "499,500" in text
    assert "1 being read" in text
