"""One measured figure, and how a handful of them is printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Result(NamedTuple):
    """What was measured, in which unit, beside what, and the mark it should reach."""

    name: str
    value: float
    unit: str
    beside: str = ""
    ratio: float | None = None
    mark: str = ""


def table(title: str, results: Sequence[Result]) -> str:
    """Aligned lines."""
    rows = [
        (
            result.name,
            f"{result.value:,.2f}" if result.value < 100 else f"{result.value:,.0f}",
            result.unit,
            f"{result.ratio:.2f} of {result.beside}" if result.ratio is not None else result.beside,
            result.mark,
        )
        for result in results
    ]
    header = (title, "", "", "beside", "mark")
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(5)]
    lines = []
    for row in (header, *rows):
        cells = [
            row[0].ljust(widths[0]),
            row[1].rjust(widths[1]),
            *(row[i].ljust(widths[i]) for i in (2, 3, 4)),
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"
