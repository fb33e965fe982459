"""Tasks kept alive: one tree of task groups, jittered backoff, two stages of stopping.

A task that fails does not take others down. The first signal stops the captures and lets the
materializations finish what the log holds; the second stops everything at once, which is as safe as
a crash, and a crash is safe.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio

from hub.errors import FatalError, LogError, TransientError
from hub.runtime.events import Events
from hub.runtime.flow import Flow
from hub.telemetry import TaskStats

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 60.0
HEALTHY_AFTER_S = 60.0
"""A task that ran this long starts again with the first backoff."""

GRACE_S = 60.0
"""How long the materializations may take to finish after the first signal."""


@dataclass(frozen=True, slots=True)
class Supervised:
    """One task: what to run, again and again, and where its numbers are."""

    run: Callable[[], Awaitable[None]]
    stats: TaskStats


class Supervisor:
    """Runs captures and flows until all have ended or somebody says stop."""

    def __init__(
        self,
        captures: Sequence[Supervised],
        flows: Sequence[Flow],
        sinks: Sequence[Supervised],
        events: Events,
        *,
        grace_s: float = GRACE_S,
        rng: random.Random | None = None,
    ) -> None:
        self._captures = captures
        self._flows = flows
        self._sinks = sinks
        self._events = events
        self._grace_s = grace_s
        self._rng = rng or random.Random()
        self._capture_scope = anyio.CancelScope()
        self._hard = anyio.CancelScope()
        self._sink_scopes: dict[str, anyio.CancelScope] = {}
        self._stops = 0

    def stop(self) -> None:
        """First call: captures stop, sinks finish. Second call: everything stops at once."""
        self._stops += 1
        if self._stops == 1:
            self._events.info("stopping", grace_s=self._grace_s)
            self._capture_scope.cancel()
            self._hard.deadline = anyio.current_time() + self._grace_s
            self._let_go()
        else:
            self._events.warning("stopping_at_once")
            self._hard.cancel()

    def _let_go(self) -> None:
        """Do not wait for destinations that cannot be reached: the log keeps what is theirs."""
        for sink in self._sinks:
            if sink.stats.state in ("starting", "retrying") and sink.stats.name in self._sink_scopes:
                self._sink_scopes[sink.stats.name].cancel()
                sink.stats.state = "stopped"

    @property
    def failed(self) -> bool:
        """True when a task has stopped for good with an error."""
        return any(task.stats.state == "failed" for task in (*self._captures, *self._sinks))

    async def run(self) -> None:
        """Until every task has ended. Log errors travel out: without its log the hub cannot go on."""
        with self._hard:
            async with anyio.create_task_group() as tree:
                for sink in self._sinks:
                    tree.start_soon(self._keep_sink, sink)
                with self._capture_scope:
                    async with anyio.create_task_group() as captures:
                        for capture in self._captures:
                            captures.start_soon(self._keep, capture)
                for capture in self._captures:
                    if capture.stats.state not in ("failed", "finished"):
                        capture.stats.state = "stopped"
                for flow in self._flows:
                    flow.drain()
        if self._hard.cancelled_caught and self._stops == 1:
            self._events.warning("grace_is_over", grace_s=self._grace_s)

    async def _keep_sink(self, task: Supervised) -> None:
        with anyio.CancelScope() as self._sink_scopes[task.stats.name]:
            await self._keep(task)

    async def _keep(self, task: Supervised) -> None:
        attempt = 0
        stats = task.stats
        while True:
            began = time.monotonic()
            try:
                await task.run()
            except BaseExceptionGroup as group:
                error = worst(group)
            except Exception as single:
                error = single
            else:
                stats.state = "finished"
                self._events.info("task_finished", task=stats.name, records=stats.records)
                return
            if isinstance(error, LogError):
                raise error
            if not isinstance(error, TransientError):
                self._give_up(stats, error)
                return
            if self._stops:
                stats.state, stats.error = "stopped", str(error)
                return
            if time.monotonic() - began > HEALTHY_AFTER_S:
                attempt = 0
            wait_s = max(backoff_s(attempt, self._rng), error.retry_after_s or 0.0)
            attempt += 1
            stats.retries += 1
            stats.state, stats.error = "retrying", str(error)
            self._events.warning("task_retries", task=stats.name, reason=str(error), wait_s=round(wait_s, 3))
            await anyio.sleep(wait_s)

    def _give_up(self, stats: TaskStats, error: Exception) -> None:
        stats.state, stats.error = "failed", str(error)
        if isinstance(error, FatalError):
            self._events.error("task_failed", task=stats.name, reason=str(error))
        else:
            self._events.error(
                "task_failed", task=stats.name, reason=f"a bug in {stats.connector}: {error!r}", error=error
            )


def worst(group: BaseExceptionGroup[BaseException]) -> Exception:
    """The one error of a group that decides: the log's, then what stops the task, then bugs, then what may be
    retried. A group that holds more than errors, such as a cancellation, is raised again."""
    leaves = _leaves(group)
    errors = [leaf for leaf in leaves if isinstance(leaf, Exception)]
    if len(errors) < len(leaves):
        raise group
    return min(errors, key=_severity)


def _severity(error: Exception) -> int:
    if isinstance(error, LogError):
        return 0
    if isinstance(error, FatalError):
        return 1
    return 3 if isinstance(error, TransientError) else 2


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def backoff_s(attempt: int, rng: random.Random) -> float:
    """Exponential with full jitter: uniform between half of and the whole of min(first · 2^attempt, max)."""
    limit = min(BACKOFF_FIRST_S * 2 ** min(attempt, 30), BACKOFF_MAX_S)
    return rng.uniform(limit / 2, limit)


async def on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` at each SIGINT or SIGTERM."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            stop()
