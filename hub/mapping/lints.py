"""What is allowed but surely not meant: warnings for a mapping's author."""

from __future__ import annotations

from collections.abc import Mapping as Dictionary
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hub.mapping import tree


@dataclass(frozen=True, slots=True)
class Warning_:
    """One warning, with its place in the text."""

    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line} char {self.column}: {self.message}"


def warnings(
    found: tree.Mapping | tree.Interpolation | tree.Query,
    text: str,
    unclear: Sequence[int],
    schema: Dictionary[str, Any] | None,
) -> tuple[Warning_, ...]:
    """All warnings, in the order of the text."""
    return ()
