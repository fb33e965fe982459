"""The live view of `hub run` on a terminal: what every task does, drawn from the telemetry.

Rates are taken between two looks, so nothing in the hot path keeps time for it.
"""

from __future__ import annotations

import time
from heapq import nlargest

import anyio
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hub.runtime.events import Events
from hub.runtime.runner import Running
from hub.telemetry import Edge, TaskStats, Telemetry

REFRESH_S = 0.25
RATE_OVER_S = 2.0
"""Rates are means over about this long."""

EVENT_LINES = 4
EDGES_MAX = 20
"""Lines of one task. A capture may have ten thousand collections."""

_STYLES = {
    "running": "green",
    "finished": "blue",
    "waiting": "yellow",
    "retrying": "yellow",
    "failed": "bold red",
}


class View:
    """Draws tables from the telemetry. Holds the counts of a moment ago, for the rates."""

    def __init__(self, telemetry: Telemetry, events: Events) -> None:
        self._telemetry = telemetry
        self._events = events
        self._before: dict[tuple[str, str], tuple[float, int]] = {}
        self._rates: dict[tuple[str, str], float] = {}

    def render(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("task", "", "collection → table", "records", "records/s", "lag", "snapshot"):
            table.add_column(name, justify="right" if name in ("records", "records/s", "lag") else "left")
        for task in list(self._telemetry.tasks.values()):
            self._add(table, task)
        lines = [Text(line[:160], style="dim") for line in self._events.recent[-EVENT_LINES:]]
        return Group(table, *lines)

    def _add(self, table: Table, task: TaskStats) -> None:
        state = Text(task.state, style=_STYLES.get(task.state, ""))
        first = True
        edges = list(task.edges.items()) or [("", Edge())]
        shown = edges if len(edges) <= EDGES_MAX else nlargest(EDGES_MAX, edges, key=_interest)
        for name, edge in shown:
            lag = "" if task.kind == "capture" else f"{task.lag_s:.1f}s"
            table.add_row(
                f"{task.name} ({task.connector})" if first else "",
                state if first else "",
                name,
                f"{edge.records:,}",
                f"{self._rate(task.name, name, edge):,.0f}",
                lag if first else "",
                snapshot_text(edge),
            )
            first = False
        if rest := len(edges) - len(shown):
            records = sum([edge.records for _, edge in edges])
            reading = sum([edge.snapshotting for _, edge in edges])
            copying = f"{reading:,} being read" if reading else ""
            table.add_row("", "", f"and {rest:,} more, all together", f"{records:,}", "", "", copying)
        if task.error and task.state in ("retrying", "failed"):
            table.add_row("", "", Text(task.error[:120], style="red"), "", "", "", "")

    def _rate(self, task: str, name: str, edge: Edge) -> float:
        now = time.monotonic()
        key = (task, name)
        at, records = self._before.setdefault(key, (now, edge.records))
        if now - at >= RATE_OVER_S:
            self._rates[key] = (edge.records - records) / (now - at)
            self._before[key] = (now, edge.records)
        elif key not in self._rates and now > at:
            return (edge.records - records) / (now - at)
        return self._rates.get(key, 0.0)


def _interest(edge: tuple[str, Edge]) -> tuple[bool, int]:
    """What is worth a line where there are too many: snapshots that go on, then what has brought most."""
    return edge[1].snapshotting, edge[1].records


def snapshot_text(edge: Edge) -> str:
    """`42 % · 12s left`, `done`, or nothing where there is no snapshot."""
    if edge.rows_total is None:
        return f"{edge.rows_done:,} rows" if edge.snapshotting else ""
    if not edge.snapshotting:
        return "done"
    percent = 100 * edge.rows_done / max(edge.rows_total, edge.rows_done, 1)
    left = "" if edge.eta_s is None else f" · {edge.eta_s:.0f}s left"
    return f"{percent:.0f} %{left}"


async def live(running: Running) -> None:
    """Redraw until cancelled, once more at the end."""
    view = View(running.telemetry, running.events)
    with Live(view.render(), console=Console(stderr=True), auto_refresh=False) as screen:
        try:
            while True:
                await anyio.sleep(REFRESH_S)
                screen.update(view.render(), refresh=True)
        finally:
            screen.update(view.render(), refresh=True)
