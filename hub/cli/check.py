"""`hub check`: whether every source and destination can be reached and used, and what mends it if not."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Sequence

import anyio
import click
import msgspec

from hub.capture import Finding
from hub.catalog import Catalog
from hub.config import load
from hub.errors import HubError
from hub.record import TaskName

CHECK_S_MAX = 60.0
"""A connector that has not answered by then has failed its check."""

Check = Callable[[TaskName], Awaitable[Sequence[Finding]]]


class Checked(msgspec.Struct, frozen=True):
    """What one task's connector found."""

    task: str
    connector: str
    findings: Sequence[Finding]


@click.command("check")
@click.argument("file", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def command(file: str, as_json: bool) -> None:
    """Reach every source and destination of a configuration, changing nothing.

    Exit code 1 when one of them cannot be used, 2 when FILE has mistakes.
    """
    catalog = load(file)
    checked = anyio.run(check_all, catalog)
    if as_json:
        text = json.dumps(msgspec.to_builtins(checked), indent=2, ensure_ascii=False)
        click.echo(catalog.redact(text))
    else:
        for one in checked:
            click.echo(catalog.redact(shown(one)))
    if not all(finding.ok for one in checked for finding in one.findings):
        sys.exit(1)


async def check_all(catalog: Catalog) -> list[Checked]:
    """Check every capture and materialization, all at the same time. In the order of the configuration."""
    checks: list[tuple[TaskName, str, Check]] = [
        *((task.name, task.connector, task.capture.check) for task in catalog.captures.values()),
        *(
            (task.name, task.connector, task.materialization.check)
            for task in catalog.materializations.values()
        ),
    ]
    findings: dict[TaskName, Sequence[Finding]] = {}

    async def one(name: TaskName, check: Check) -> None:
        findings[name] = await _found(name, check)

    async with anyio.create_task_group() as group:
        for name, _, check in checks:
            group.start_soon(one, name, check)
    return [Checked(name, connector, findings[name]) for name, connector, _ in checks]


async def _found(name: TaskName, check: Check) -> Sequence[Finding]:
    try:
        with anyio.fail_after(CHECK_S_MAX):
            return await check(name)
    except TimeoutError:
        return [Finding(False, f"no answer within {CHECK_S_MAX:g} s", "see whether the address is right")]
    except HubError as error:
        return [Finding(False, str(error))]
    except Exception as error:  # a bug of one connector must not hide what the others found
        return [Finding(False, f"the connector failed, which is its bug: {type(error).__name__}: {error}")]


def shown(checked: Checked) -> str:
    """One line a finding, and under a failure its cure."""
    lines = []
    for finding in checked.findings or [Finding(True, "nothing to check")]:
        mark = click.style("ok    ", fg="green") if finding.ok else click.style("failed", fg="red")
        lines.append(f"{mark} {checked.task} ({checked.connector}): {finding.what}")
        if not finding.ok and finding.cure:
            lines += [f"       {line}" for line in finding.cure.splitlines()]
    return "\n".join(lines)
