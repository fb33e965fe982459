"""`${NAME}` and `${NAME:default}` in the values of a config.

Substitution happens in single scalars after the YAML was read, so whatever a variable holds it stays one
value. `${! … }` belongs to the mapping language and is left alone; `$${` is written for a literal `${`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from hub.nearest import did_you_mean

_OPENING = re.compile(r"\$\$\{|\$\{!?")
_BRACE = re.compile(r"[{}]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Unset(ValueError):
    """A variable is not set and has no default."""


def substituted(text: str, environ: Mapping[str, str]) -> str:
    """The text with its variables filled in. A default may hold variables itself.

    Raises `Unset`, and `ValueError` for a `${` that names no variable.
    """
    parts: list[str] = []
    at = 0
    while opening := _OPENING.search(text, at):
        parts.append(text[at : opening.start()])
        at = opening.end()
        if opening[0] == "$${":
            parts.append("${")
        elif opening[0] == "${!":
            parts.append(opening[0])
        else:
            end = _closing(text, at)
            parts.append(_value(text[at:end], environ))
            at = end + 1
    return "".join([*parts, text[at:]])


def _closing(text: str, at: int) -> int:
    depth = 1
    for brace in _BRACE.finditer(text, at):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return brace.start()
    raise ValueError("'${' is never closed; write $${ where the text itself is meant")


def _value(reference: str, environ: Mapping[str, str]) -> str:
    name, colon, default = reference.partition(":")
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"'${{{reference}}}' names no environment variable; write ${{NAME}} or ${{NAME:default}}, "
            f"and $${{ where the text itself is meant"
        )
    if name in environ:
        return environ[name]
    if not colon:
        hint = did_you_mean(name, environ)
        raise Unset(f"environment variable {name} is not set; set it, or write ${{{name}:default}}{hint}")
    return substituted(default, environ)
