"""The command line. Each command is a module of this package, imported when it is used.

Starting up is most of what a short command costs, so the table below knows every command's name
and first line, and help needs to import none of them.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from hub.errors import ConfigError, HubError
from hub.nearest import nearest

COMMANDS = {
    "run": "Run CONFIG: captures into the log, and from the log into the destinations.",
    "lint": "Find every mistake in configuration files, starting nothing.",
    "plan": "Show what CONFIG would do: collections, guarantees, routes, and the statements a start would run.",
    "check": "Reach every source and destination of a configuration, changing nothing.",
    "backfill": "Have the rows of a source read again, beside the changes.",
    "map": "Run a mapping over JSON lines: from standard input to standard output.",
    "log": "Look into a durable log.",
    "list": "Name the connectors that are installed.",
    "schema": "Print the JSON Schema of configurations, for editors.",
    "docs": "Write the generated pages and the schema.",
    "demo": "Start PostgreSQL, fill a shop, keep a DuckDB warehouse in step with it while it changes, compare.",
}
"""Command to the first line of its help; the module has the command's name."""


class Commands(click.Group):
    """The commands, each imported at its first use."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = importlib.import_module(f"hub.cli.{name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(context, arguments)
        except click.UsageError as error:
            close = nearest(arguments[0], COMMANDS)
            hint = f" Did you mean {close!r}?" if close is not None else ""
            raise click.UsageError(error.message + hint, context) from error

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hub-etl", prog_name="hub")
def group() -> None:
    """Databases and topics to warehouses, through a durable log, in one process."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Exit code 2: the configuration or the command line is wrong and nothing was started; 1: it failed."""
    try:
        group.main(arguments, prog_name="hub")
    except ConfigError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        sys.exit(2)
    except HubError as error:
        click.echo(f"hub: {error}", err=True)
        sys.exit(1)
