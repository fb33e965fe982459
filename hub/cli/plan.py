"""`hub plan`: what a config would read, write and change, without touching anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hub.runtime.preview import Plan


@click.command("plan")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def command(config: Path, as_json: bool) -> None:
    """Show what CONFIG would do: collections, guarantees, routes, and the statements a start would run.

    Sources and destinations are asked, nothing is changed. Exits with 1 when one of them cannot be asked.
    """
    import anyio
    import msgspec

    from hub.config import load
    from hub.runtime.preview import preview

    catalog = load(config)
    plan = anyio.run(preview, catalog)
    text = msgspec.json.encode(plan).decode() if as_json else described(plan)
    click.echo(catalog.redact(text))
    sys.exit(1 if plan.problems else 0)


def described(plan: Plan) -> str:
    """The plan as text for people."""
    lines = [f"log {plan.log}: {plan.durability}"]
    for capture in plan.captures:
        lines += ["", f"capture {capture.task} ({capture.connector})"]
        if capture.problem:
            lines.append(f"  cannot be asked: {capture.problem}")
        for found in capture.collections:
            key = ", ".join(found.schema.key_fields) or "no key"
            columns = len(found.schema.columns())
            more = f"; {found.note}" if found.note else ""
            lines.append(f"  {found.schema.collection}  key: {key}, {columns} columns{more}")
    for sink in plan.materializations:
        lines += ["", f"materialization {sink.task} ({sink.connector}): {sink.delivery}"]
        if sink.problem:
            lines.append(f"  cannot be asked: {sink.problem}")
        lines += [f"  {collection} → {target}" for collection, target in sink.routes]
        lines += [f"    {statement};" for statement in sink.statements]
    lines += [f"\nwarning: {warning}" for warning in plan.warnings]
    return "\n".join(lines)
