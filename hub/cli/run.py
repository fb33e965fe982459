"""`hub run`: keep everything that a config says in step, until stopped."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hub.catalog import Catalog


@click.command("run")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--no-live", is_flag=True, help="Structured log lines, also on a terminal.")
def command(config: Path, no_live: bool) -> None:
    """Run CONFIG: captures into the log, and from the log into the destinations.

    Ends when every capture has ended and its records are where they belong. The first Ctrl-C or SIGTERM stops
    the captures and lets the destinations catch up; the second stops at once, and loses nothing either.
    """
    from hub.config import load

    sys.exit(run_catalog(load(config), show_live=sys.stderr.isatty() and not no_live))


def run_catalog(catalog: Catalog, *, show_live: bool) -> int:
    """Run a catalog in this process, with the live view or with log lines. Returns the exit code."""
    import anyio

    from hub.runtime.events import Events
    from hub.runtime.process import tuned
    from hub.runtime.runner import Beside, run
    from hub.telemetry import Telemetry

    events = Events(catalog.redact, quiet=show_live)
    beside: list[Beside] = []
    if catalog.server.enabled:
        from hub.server.app import serve

        beside.append(serve)
    if show_live:
        from hub.cli.live import live

        beside.append(live)

    async def main() -> int:
        return await run(catalog, events, Telemetry(), beside=beside)

    has_uvloop = importlib.util.find_spec("uvloop") is not None
    with tuned():
        return anyio.run(main, backend_options={"use_uvloop": has_uvloop})
