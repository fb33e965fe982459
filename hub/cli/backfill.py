"""`hub backfill`: have rows of a source read again, for everybody or for one destination."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import click

from hub.config import load
from hub.nearest import meant_or_known
from hub.record import TaskName

if TYPE_CHECKING:
    from hub.catalog import Catalog


@click.command("backfill")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("task")
@click.argument("names", nargs=-1)
@click.option(
    "--where",
    default="",
    help="Only these rows, as the source says it: `created > now() - interval '1 day'`. Nothing is swept then.",
)
@click.option(
    "--from-log",
    is_flag=True,
    help="Read again what the log holds, not the source, for a materialization or some of its tables. The hub must not "
    "be running.",
)
def command(config: Path, task: str, names: tuple[str, ...], where: str, from_log: bool) -> None:
    """Have the rows of a source read again, beside the changes.

    TASK is a capture of CONFIG, and NAMES are its tables; or a materialization, and NAMES are its tables or the
    collections it reads. Without NAMES, all of them. What is read goes through the log to everybody who reads the
    collection. SQL destinations then remove the rows that are no longer in the source.

    The request goes through the source itself, so the hub may run in any process, and takes it up when it next
    runs. `hub run` shows how far it has come.
    """
    catalog = load(config)
    if from_log:
        _ask_of_log(catalog, task, names, where)
        return
    if TaskName(task) in catalog.captures:
        asked: dict[str, list[str]] = {task: list(names)}
        unswept: list[str] = []
    elif task in catalog.materializations:
        asked, unswept = _asked(catalog, task, names)
    else:
        tasks = [*catalog.captures, *catalog.materializations]
        raise click.BadParameter(
            f"{config} has no capture or materialization {task!r}{meant_or_known(task, tasks)}"
        )
    for line in unswept:
        click.echo(f"rows that are gone will stay: {line}", err=True)
    for name, parts in asked.items():
        capture = catalog.captures[TaskName(name)].capture
        anyio.run(partial(capture.backfill, TaskName(name), parts, where=where))
        click.echo(f"asked {name} to read {', '.join(parts) or 'everything'} again")


def _asked(catalog: Catalog, task: str, names: tuple[str, ...]) -> tuple[dict[str, list[str]], list[str]]:
    from hub.errors import FatalError
    from hub.runtime.backfill import parts_of_materialization

    found = anyio.run(parts_of_materialization, catalog, catalog.materializations[TaskName(task)], names)
    if not found[0]:
        raise FatalError(f"{task} reads nothing that a capture of this config holds")
    return found


def _ask_of_log(catalog: Catalog, task: str, names: tuple[str, ...], where: str) -> None:
    from hub.control import Control
    from hub.errors import FatalError
    from hub.log.follower import Follower
    from hub.log.identity import readable
    from hub.runtime import replay

    found = catalog.materializations.get(TaskName(task))
    if found is None or where:
        raise click.BadParameter("--from-log goes with the name of a materialization, and not with --where")
    if not found.materialization.sweeps:
        raise FatalError(f"{task}: a {found.connector} cannot be swept; `hub log rewind {task} --to start`")
    log = Follower(catalog.log_path, readable(catalog.log_path, None))
    log.refresh()
    replay.check(log, catalog, found, names)
    with Control(catalog.log_path / "control.db") as control:
        replay.ask(control, task, names)
    what = ", ".join(names) or task
    click.echo(f"{what} will be read again from the start of the log, and then lose what is not in it")
