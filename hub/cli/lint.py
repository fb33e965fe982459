"""`hub lint`: every mistake of every file, for people, programs and pull requests."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

import click

from hub.config import lint
from hub.errors import Problem


@click.command("lint")
@click.argument("files", nargs=-1, required=True, type=click.Path(allow_dash=True))
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="How they are printed. `github`: as annotations of a pull request.",
)
@click.option("--unset-ok", is_flag=True, help="Accept variables that are not set here, such as ${PG_DSN}.")
@click.option("--strict", is_flag=True, help="Exit with 1 when there is nothing but warnings.")
def command(files: Sequence[str], form: str, unset_ok: bool, strict: bool) -> None:
    """Find every mistake in configuration files, starting nothing.

    Each FILE is checked on its own; `-` is standard input. Exit code 2 when there are mistakes. Warnings, for
    what is allowed but surely not meant, leave it at 0.
    """
    problems = [problem for file in files for problem in lint(file, unset_ok=unset_ok)]
    click.echo(_FORMS[form](problems), nl=False)
    mistakes = sum(problem.severity == "error" for problem in problems)
    warnings = len(problems) - mistakes
    if problems and form == "text":
        counted = ((mistakes, "mistake"), (warnings, "warning"))
        said = [f"{count} {noun}{'s' if count > 1 else ''}" for count, noun in counted if count]
        click.echo(", ".join(said), err=True)
    if mistakes:
        sys.exit(2)
    if warnings and strict:
        sys.exit(1)


def _text(problems: Sequence[Problem]) -> str:
    return "".join(f"{problem}\n" for problem in problems)


def _json(problems: Sequence[Problem]) -> str:
    return json.dumps([asdict(problem) for problem in problems], indent=2, ensure_ascii=False) + "\n"


def _github(problems: Sequence[Problem]) -> str:
    """Workflow commands: https://docs.github.com/actions/reference/workflow-commands-for-github-actions."""
    return "".join(
        f"::{problem.severity} file={_escaped(problem.file, ',:')},line={problem.line or 1},col={problem.column or 1}"
        f"::{_escaped(problem.message)}\n"
        for problem in problems
    )


def _escaped(text: str, also: str = "") -> str:
    return "".join(f"%{ord(char):02X}" if char in "%\r\n" + also else char for char in text)


_FORMS: dict[str, Callable[[Sequence[Problem]], str]] = {"text": _text, "json": _json, "github": _github}
