"""`hub backfill`: ask a running capture to read rows of its source again."""

from __future__ import annotations

from pathlib import Path

import anyio
import click

from hub.config import load
from hub.record import TaskName
from hub.spec import nearest


@click.command("backfill")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("task")
@click.argument("tables", nargs=-1)
@click.option(
    "--where",
    default="",
    help="Only these rows, as the source says it: `created > now() - interval '1 day'`.",
)
def command(config: Path, task: str, tables: tuple[str, ...], where: str) -> None:
    """Ask capture TASK of CONFIG to read TABLES again, or all of them.

    The request goes through the source itself, so the capture may run in any process, and takes it up when it next
    runs. Rows that are read again replace those in the destinations.
    """
    catalog = load(config)
    found = catalog.captures.get(TaskName(task))
    if found is None:
        raise click.BadParameter(f"{config} has no capture {task!r}{nearest(task, catalog.captures)}")
    anyio.run(lambda: found.capture.backfill(found.name, tables, where=where))
    click.echo(f"asked {task} to read {', '.join(tables) or 'everything'} again")
