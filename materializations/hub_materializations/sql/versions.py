"""A batch of changes as versions of rows: when each began, when it ended, and which holds now.

The hard thing is an update that leaves out unchanged fields: its version needs the values of the one
before, which may stand in this batch or only in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hub.record import DELETE

from .layout import Layout
from .reduce import Load
from .rows import Row, Rows


@dataclass(slots=True)
class Versions:
    """What a run of records without truncates does to a table of versions."""

    closed: Load
    """For each key the time at which the version that the table holds as current ended, after the key's cells."""
    added: Load


def versions(
    rows: Rows,
    *,
    kept: Sequence[Sequence[str] | None] | None,
    times: Sequence[Any],
    current: Callable[[Row], Mapping[str, Any]],
) -> Versions:
    """The versions that these records make. `current` gives the cells of the table's current version of a
    key, by column; it is asked only where unchanged fields are missing."""
    layout = rows.codec.layout
    ops = rows.batch.ops or b"c" * rows.count
    closed: dict[Any, tuple[Row, int]] = {}
    open_: dict[Any, int | None] = {}
    added: list[Row] = []
    origin: list[int] = []
    for index, (key, op, row) in enumerate(zip(rows.keys, ops, rows.tuples, strict=True)):
        at = times[index]
        before = open_.get(key)
        if key not in closed:
            closed[key] = (*rows.codec.key_row(row), at), index
        if op != DELETE:
            missing = set(kept[index] or ()) if kept is not None else set()
            if missing:
                cells: Mapping[str, Any] = _cells(layout, added[before]) if before is not None else {}
                if key not in open_:
                    cells = current(rows.codec.key_row(row))
                row = _with_kept(layout, row, missing, cells)
            added.append(_with(layout, row, {"valid_from": at, "valid_to": None, "is_current": True}))
            origin.append(index)
        if before is not None:
            added[before] = _with(layout, added[before], {"valid_to": at, "is_current": False})
        open_[key] = len(added) - 1 if op != DELETE else None
    return Versions(
        Load([row for row, _ in closed.values()], [index for _, index in closed.values()]),
        Load(added, origin),
    )


def _cells(layout: Layout, row: Row) -> dict[str, Any]:
    return dict(zip(layout.names, row, strict=True))


def _with_kept(layout: Layout, row: Row, missing: set[str], cells: Mapping[str, Any]) -> Row:
    return tuple(
        cells.get(column.name) if column.origin == "field" and column.path[0] in missing else cell
        for column, cell in zip(layout.columns, row, strict=True)
    )


def _with(layout: Layout, row: Row, cells: Mapping[str, Any]) -> Row:
    return tuple(cells.get(column.origin, cell) for column, cell in zip(layout.columns, row, strict=True))
