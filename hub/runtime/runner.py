"""A catalog, running in this process.

Opens what all tasks share, control.db and the log, makes a task of every capture and
materialization, and hands them to the supervisor. Everything is opened in the order in which it is
needed and closed in the reverse, whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import anyio

from hub.catalog import CaptureTask, Catalog
from hub.control import Control
from hub.errors import FatalError, HubError
from hub.log import Log
from hub.record import Cursor, Position
from hub.runtime.events import Events
from hub.runtime.flow import Flow
from hub.runtime.outlet import LogOutlet
from hub.runtime.supervisor import Supervised, Supervisor, on_signals, worst
from hub.runtime.tree import Trees
from hub.telemetry import TaskStats, Telemetry

Beside = Callable[["Running"], Coroutine[Any, Any, None]]
"""Something that runs beside the tasks, such as the HTTP server or the live view, and ends with them."""

EXIT_OK, EXIT_FAILED = 0, 1


class Running:
    """What those beside the tasks may see and do."""

    def __init__(
        self, catalog: Catalog, log: Log, telemetry: Telemetry, supervisor: Supervisor, events: Events
    ) -> None:
        self.catalog = catalog
        self.log = log
        self.telemetry = telemetry
        self.supervisor = supervisor
        self.events = events


async def run(
    catalog: Catalog,
    events: Events,
    telemetry: Telemetry,
    *,
    beside: Sequence[Beside] = (),
    signals: bool = True,
) -> int:
    """Run until all captures have ended and the sinks have caught up, or until stopped.

    Returns the exit code: 1 when a task has failed for good or the log could not go on, else 0.
    """
    try:
        make_private(catalog.log_path)
        with events.forwarding("hub.log"), Control(catalog.log_path / "control.db") as control:
            async with Log.open(catalog.log_path, catalog.log_options(), control=control) as log:
                return await _run(catalog, log, control, events, telemetry, beside, signals=signals)
    except HubError as error:
        events.error("stopped_by_error", reason=str(error))
    except BaseExceptionGroup as group:
        gravest = worst(group)
        if not isinstance(gravest, HubError):
            raise
        events.error("stopped_by_error", reason=str(gravest))
    return EXIT_FAILED


async def _run(
    catalog: Catalog,
    log: Log,
    control: Control,
    events: Events,
    telemetry: Telemetry,
    beside: Sequence[Beside],
    *,
    signals: bool,
) -> int:
    captures = [_capture(task, log, telemetry, events) for task in catalog.captures.values()]
    flows, sinks = [], []
    for task in catalog.materializations.values():
        stats = telemetry.task(task.name, "materialization", task.connector)
        flow = Flow(task, log, control, Trees(catalog, task), stats, events)
        flows.append(flow)
        sinks.append(Supervised(flow.run, stats))
    await _register(catalog, control, events)
    _expose(log, telemetry)
    supervisor = Supervisor(captures, flows, sinks, events)
    running = Running(catalog, log, telemetry, supervisor, events)
    async with anyio.create_task_group() as group:
        if signals:
            group.start_soon(on_signals, supervisor.stop)
        for attendant in beside:
            group.start_soon(attendant, running)
        events.info(
            "started",
            captures=len(captures),
            materializations=len(sinks),
            log=str(catalog.log_path),
            durability=log.options.durability,
        )
        await supervisor.run()
        group.cancel_scope.cancel()
    events.info("stopped", failed=supervisor.failed)
    return EXIT_FAILED if supervisor.failed else EXIT_OK


async def _register(catalog: Catalog, control: Control, events: Events) -> None:
    """Hold the log for every materialization, also for one that has never reached its destination; and name the
    holds of tasks that are no longer configured, since the log grows for them."""
    held = {hold.name for hold in control.holds()}
    for name in catalog.materializations.keys() - held:
        await control.hold(name, control.cursor(name) or Cursor.START)
    for stranger in held - catalog.materializations.keys():
        events.warning(
            "log_held_for_unknown_task",
            task=stranger,
            cure=f"hub log release {stranger}, if it is not coming back",
        )


def _expose(log: Log, telemetry: Telemetry) -> None:
    """What the log says of itself, for `/metrics`."""
    telemetry.reading("log_used_bytes", lambda: log.used_bytes)
    telemetry.reading("log_queued_bytes", lambda: log.queued_bytes)
    telemetry.reading("log_fill_ratio", lambda: log.fill)
    telemetry.reading("log_alarms", lambda: len(log.keeper.alarms))
    telemetry.reading("log_may_lose_acknowledged", lambda: log.options.durability != "disk")
    telemetry.reading("log_end_seq", lambda: log.end.seq)


def _capture(task: CaptureTask, log: Log, telemetry: Telemetry, events: Events) -> Supervised:
    stats = telemetry.task(task.name, "capture", task.connector)

    async def once() -> None:
        await run_capture(task, log, stats, events)

    return Supervised(once, stats)


async def run_capture(task: CaptureTask, log: Log, stats: TaskStats, events: Events) -> None:
    """One run of a capture, from where the log says it was."""
    stored = log.position(task.name)
    resume: Position | None = task.capture.position_type.decode(stored) if stored is not None else None
    outlet: LogOutlet[Position] = LogOutlet(
        task.name, log, stats, events, resume=resume, note=log.note(task.name)
    )
    stats.state = "running"
    async with anyio.create_task_group() as group:
        group.start_soon(outlet.pump)
        await task.capture.run(resume, outlet)
        await outlet.settle()
        group.cancel_scope.cancel()


def make_private(folder: Path) -> None:
    """Make the data directory, for its owner alone."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise FatalError(f"{folder}: the log cannot be kept here: {error.strerror}; see log.path") from error
