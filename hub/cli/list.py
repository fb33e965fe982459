"""`hub list`: the connectors that are installed, without importing any."""

from __future__ import annotations

import json

import click

from hub.registry import KINDS, entries


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def command(as_json: bool) -> None:
    """Name the connectors that are installed."""
    found = [entry for kind in KINDS for entry in entries(kind).values()]
    if as_json:
        listed = [
            {"kind": e.kind, "name": e.name, "distribution": e.distribution, "target": e.target}
            for e in found
        ]
        click.echo(json.dumps(listed, indent=2))
        return
    for kind in KINDS:
        click.echo(f"{kind}s")
        for entry in entries(kind).values():
            click.echo(f"  {entry.name:<20} {entry.distribution}")
