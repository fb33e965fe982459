"""A copy of a DuckDB file for other programs, which cannot open a file that is being written.

The hard thing is that it is read at any time: it is made beside its place and takes it in one step, so that a reader has
the tables of one commit, the old or the new.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated

import duckdb
from msgspec import Meta

from hub.spec import Duration, Spec

from .duckdb_types import DIALECT
from .names import literal


class Copy(Spec, frozen=True, kw_only=True):
    """A file that others may read: replaced as a whole, so that a reader always sees one commit."""

    path: Annotated[str, Meta(description="The copy.", min_length=1)]
    every: Annotated[
        Duration,
        Meta(description="At most this often, after a commit. A copy takes as long as it takes to read all."),
    ] = Duration(60)


class Copies:
    """The copies of one file, each in the place of the one before."""

    def __init__(self, copy: Copy) -> None:
        self.path = copy.path
        self._every_s = copy.every
        self._copied_at = -math.inf

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._copied_at >= self._every_s

    def replace(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Copy what is committed now."""
        target = Path(self.path)
        beside = target.with_name(f"{target.name}.new")
        beside.unlink(missing_ok=True)
        (name,) = connection.execute("SELECT current_database()").fetchone() or ("",)
        connection.execute(f"ATTACH {literal(str(beside))} AS hub_copy")
        try:
            connection.execute(f"COPY FROM DATABASE {DIALECT.quoted(name)} TO hub_copy")
            connection.execute("CHECKPOINT hub_copy")
        finally:
            connection.execute("DETACH hub_copy")
        beside.replace(target)
        self._copied_at = time.monotonic()
