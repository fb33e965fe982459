"""What the hub counts: plain numbers on plain objects, turned into metrics when somebody asks.

The hot path adds to attributes and nothing else; names, labels and formats belong to the collector,
which runs at scrape time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

Kind = Literal["capture", "materialization"]
State = Literal["starting", "running", "waiting", "retrying", "finished", "failed", "stopped"]

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class Latency:
    """A histogram of seconds with fixed buckets."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BUCKETS_S) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.sum_s += seconds
        for index, limit in enumerate(LATENCY_BUCKETS_S):
            if seconds <= limit:
                self.counts[index] += 1
                return
        self.counts[-1] += 1


@dataclass(slots=True)
class Edge:
    """What has passed between the log and one collection's source or target."""

    records: int = 0
    bytes: int = 0
    batches: int = 0
    rows_done: int = 0
    rows_total: int | None = None
    snapshotting: bool = False
    snapshot_since: float = 0.0
    snapshot_from: int = 0

    @property
    def eta_s(self) -> float | None:
        """Seconds until the snapshot is read, at the pace so far; None while nobody can tell."""
        done = self.rows_done - self.snapshot_from
        if not self.snapshotting or not self.rows_total or done <= 0:
            return None
        elapsed = time.monotonic() - self.snapshot_since
        return max(self.rows_total - self.rows_done, 0) * elapsed / done


@dataclass(slots=True)
class TaskStats:
    """Everything that is counted of one task. `queue_bytes` is what waits between its two ends; `lag_records` is
    asked when somebody looks."""

    name: str
    kind: Kind
    connector: str
    state: State = "starting"
    error: str = ""
    retries: int = 0
    dead_letters: int = 0
    skipped: int = 0
    commits: int = 0
    queue_bytes: int = 0
    queue_bytes_max: int = 0
    lag_records: Callable[[], int] = lambda: 0
    oldest_waiting_ts: float = 0.0
    latency: Latency = field(default_factory=Latency)
    edges: dict[str, Edge] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)

    def edge(self, name: str) -> Edge:
        """The edge to this collection or target, made at first use."""
        found = self.edges.get(name)
        if found is None:
            found = self.edges[name] = Edge()
        return found

    @property
    def lag_s(self) -> float:
        """Age in seconds of the oldest record not yet in the destination; 0 when there is none."""
        return max(time.time() - self.oldest_waiting_ts, 0.0) if self.oldest_waiting_ts else 0.0

    @property
    def records(self) -> int:
        return sum(edge.records for edge in self.edges.values())


class Telemetry:
    """All tasks of this process, and gauges read from elsewhere when asked for."""

    def __init__(self) -> None:
        self.tasks: dict[str, TaskStats] = {}
        self.readings: dict[str, Callable[[], float]] = {}

    def task(self, name: str, kind: Kind, connector: str) -> TaskStats:
        """The numbers of a task. They survive its restarts."""
        return self.tasks.setdefault(name, TaskStats(name, kind, connector))

    def reading(self, name: str, read: Callable[[], float]) -> None:
        """A gauge whose value is fetched at scrape time, such as `log_bytes`."""
        self.readings[name] = read

    def exposition(self) -> bytes:
        """The text that `/metrics` serves, in Prometheus' format."""
        registry = CollectorRegistry()
        registry.register(_Collector(self))
        return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry = telemetry

    def collect(self) -> Iterator[Metric]:
        tasks = list(self.telemetry.tasks.values())
        yield from _edges(tasks)
        yield from _states(tasks)
        yield _latency(tasks)
        for name, read in self.telemetry.readings.items():
            yield GaugeMetricFamily(f"hub_{name}", name.replace("_", " "), value=read())


_EDGE_LABELS = ("task", "kind", "connector", "edge")
_TASK_LABELS = ("task", "kind", "connector")


def _edges(tasks: list[TaskStats]) -> Iterator[Metric]:
    records = CounterMetricFamily("hub_records", "Records that passed this edge.", labels=_EDGE_LABELS)
    size = CounterMetricFamily("hub_bytes", "Bytes of documents that passed this edge.", labels=_EDGE_LABELS)
    batches = CounterMetricFamily("hub_batches", "Batches that passed this edge.", labels=_EDGE_LABELS)
    done = GaugeMetricFamily("hub_snapshot_rows", "Rows the snapshot has read.", labels=_EDGE_LABELS)
    total = GaugeMetricFamily("hub_snapshot_rows_estimated", "Estimate of all rows.", labels=_EDGE_LABELS)
    eta = GaugeMetricFamily("hub_snapshot_eta_seconds", "Until the snapshot is read.", labels=_EDGE_LABELS)
    for task in tasks:
        for name, edge in task.edges.items():
            labels = (task.name, task.kind, task.connector, name)
            records.add_metric(labels, edge.records)
            size.add_metric(labels, edge.bytes)
            batches.add_metric(labels, edge.batches)
            if edge.rows_total is not None:
                done.add_metric(labels, edge.rows_done)
                total.add_metric(labels, edge.rows_total)
            if edge.eta_s is not None:
                eta.add_metric(labels, edge.eta_s)
    yield from (records, size, batches, done, total, eta)


_GAUGES: tuple[tuple[str, str, Callable[[TaskStats], float]], ...] = (
    ("hub_up", "1 while the task runs.", lambda task: float(task.state in ("running", "waiting"))),
    ("hub_waiting", "1 while the task waits for room.", lambda task: float(task.state == "waiting")),
    ("hub_failed", "1 when the task has stopped for good.", lambda task: float(task.state == "failed")),
    ("hub_queue_bytes", "Bytes that wait inside the task.", lambda task: task.queue_bytes),
    ("hub_queue_bytes_max", "Limit of hub_queue_bytes.", lambda task: task.queue_bytes_max),
    (
        "hub_lag_records",
        "Records in the log that the task has not committed.",
        lambda task: task.lag_records(),
    ),
    ("hub_lag_seconds", "Age of the oldest such record.", lambda task: task.lag_s),
)
_COUNTERS: tuple[tuple[str, str, Callable[[TaskStats], float]], ...] = (
    ("hub_retries", "Times the task was opened again.", lambda task: task.retries),
    ("hub_dead_letters", "Records set aside.", lambda task: task.dead_letters),
    ("hub_skipped", "Records skipped, as the configuration says.", lambda task: task.skipped),
    ("hub_commits", "Commits.", lambda task: task.commits),
)


def _states(tasks: list[TaskStats]) -> Iterator[Metric]:
    for name, text, read in _GAUGES:
        gauge = GaugeMetricFamily(name, text, labels=_TASK_LABELS)
        for task in tasks:
            gauge.add_metric((task.name, task.kind, task.connector), read(task))
        yield gauge
    for name, text, read in _COUNTERS:
        counter = CounterMetricFamily(name, text, labels=_TASK_LABELS)
        for task in tasks:
            counter.add_metric((task.name, task.kind, task.connector), read(task))
        yield counter
    own = GaugeMetricFamily(
        "hub_task_gauge", "Numbers of the connector's own.", labels=(*_TASK_LABELS, "name")
    )
    counts = CounterMetricFamily(
        "hub_task_events", "Counts of the connector's own.", labels=(*_TASK_LABELS, "name")
    )
    for task in tasks:
        for name, value in task.gauges.items():
            own.add_metric((task.name, task.kind, task.connector, name), value)
        for name, value in task.counters.items():
            counts.add_metric((task.name, task.kind, task.connector, name), value)
    yield from (own, counts)


def _latency(tasks: list[TaskStats]) -> Metric:
    found = HistogramMetricFamily(
        "hub_batch_latency_seconds",
        "Captures: from send to durable. Materializations: from durable to committed in the destination.",
        labels=_TASK_LABELS,
    )
    for task in tasks:
        below = 0
        buckets = []
        for limit, count in zip((*LATENCY_BUCKETS_S, float("inf")), task.latency.counts, strict=True):
            below += count
            buckets.append(("+Inf" if limit == float("inf") else str(limit), float(below)))
        found.add_metric((task.name, task.kind, task.connector), buckets, sum_value=task.latency.sum_s)
    return found
