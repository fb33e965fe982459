"""`hub schema`: the JSON Schema of configurations, for editors."""

from __future__ import annotations

import json

import click

from hub.config.schema import native_schema


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of configurations, for editors.

    It is draft 2020-12 and knows every installed connector. Editors with a YAML language server use it
    when the file begins with `# yaml-language-server: $schema=PATH`.
    """
    click.echo(json.dumps(native_schema(), indent=2, ensure_ascii=False))
