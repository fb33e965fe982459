"""A batch made ready for one table: read, checked and reduced, as far as that needs no database.

The hard thing is memory: this is done while an earlier batch is still being written, so what is only
needed to look for refused rows is let go, and read once more when that happens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hub.materialization import Rejected
from hub.record import TRUNCATE, Batch

from .driver import Driver
from .layout import Layout
from .parts import cut_at_truncates, times_of, unchanged_of
from .reduce import Reduced, reduced, whole
from .rows import Codec, Rows


@dataclass(slots=True)
class Table:
    """A table that is ready for rows of one binding."""

    layout: Layout
    codec: Codec
    collection: str


@dataclass(slots=True)
class Part:
    """Records that go in together. `rows` is None for a truncate; `change` is what they do to the table, which a
    history only knows when it has seen the table."""

    start: int
    batch: Batch
    rows: Rows | None = None
    change: Reduced | None = None


@dataclass(slots=True)
class Ready:
    """A batch as the parts that bring it about, and the records that cannot be rows of the table."""

    table: Table
    batch: Batch
    parts: list[Part] = field(default_factory=list)
    rejected: dict[int, str] = field(default_factory=dict)


def ready(table: Table, batch: Batch, driver: Driver, *, ahead: bool) -> Ready:
    """The batch in parts. `ahead`: encoded as well, which else is done when it is written."""
    found = Ready(table, batch)
    layout = table.layout
    start = 0
    for part in cut_at_truncates(batch, keep=layout.mode == "append"):
        try:
            made = _part(table, start, part, driver)
            if ahead:
                _encode(made, layout, driver)
        except Rejected as refusal:
            found.rejected |= {start + index: reason for index, reason in refusal.reasons.items()}
        else:
            found.parts.append(made)
        start += part.count
    return found


def times(part: Batch, driver: Driver) -> list[Any]:
    """The time of each change, as the database reads it."""
    converter = driver.dialect.converters.get("timestamptz")
    found = times_of(part)
    return (
        list(map(converter.convert, found)) if converter is not None and converter.needle is None else found
    )


def _part(table: Table, start: int, part: Batch, driver: Driver) -> Part:
    layout = table.layout
    if part.ops is not None and part.ops[0] == TRUNCATE and layout.mode != "append":
        return Part(start, part)
    rows = table.codec.read(part)
    change = Reduced(upserts=whole(rows)) if layout.mode == "append" else None
    if layout.mode == "upsert":
        soft_at = times(part, driver) if layout.soft else None
        change = reduced(rows, kept=unchanged_of(part), soft_at=soft_at)
    return Part(start, part, rows, change)


def _encode(part: Part, layout: Layout, driver: Driver) -> None:
    if part.rows is None or part.change is None:
        return
    for load in (part.change.deletes, *part.change.partials.values(), part.change.upserts):
        if load is not None:
            driver.encode(layout, load)
    part.rows.forget()
