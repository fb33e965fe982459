"""The thin I/O of one dialect: a connection that runs statements and takes rows in bulk.

Calls block and come from one thread at a time; `interrupt` alone may come from another. A driver maps
its library's errors: `Refused` for what concerns the rows at hand, else one of `hub.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .dialect import Cast, Dependent, Dialect, ExistingTable, TableName
from .layout import Layout
from .reduce import Load
from .rekey import Rekey
from .statements import Mark


class Refused(Exception):
    """The database refuses the values of a statement, not the statement."""


class Driver(Protocol):
    """An open connection."""

    dialect: Dialect
    default_schema: str | None
    """The schema of tables and of the cursors where nothing else is said; None: the connection's."""

    holder: str
    """What identifies this connection to `take_over`."""

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement. Returns the number of rows it touched."""
        ...

    def fetch(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one query."""
        ...

    def existing(self, table: TableName) -> ExistingTable | None:
        """The table as the catalog of the database has it, seen from the open transaction."""
        ...

    def dependents(self, table: TableName, columns: Sequence[str]) -> list[Dependent]:
        """What has to make way while the types of these columns change, each before what stands on it."""
        ...

    def rebuild(
        self, table: TableName, existing: ExistingTable, casts: Mapping[str, Cast], rekey: Rekey | None = None
    ) -> list[str]:
        """The statements that put a table with these columns cast, and with another key, in the place of the table,
        with all that is its own, so that at no moment there is none, or half of it. FatalError says what stands
        against it."""
        ...

    def spellings(self, table: TableName) -> list[str]:
        """The tables whose names the database does not tell from this one, such as those in other case."""
        ...

    def has_schema(self, schema: str) -> bool:
        """Whether a schema is there."""
        ...

    def is_taken(self, index: TableName) -> bool:
        """Whether there is something of that name in the schema that keeps an index from having it."""
        ...

    def take_over(self, holder: str) -> None:
        """End the connection of the task's last writer, so that its locks are not waited for. `holder` is what
        that one's `holder` was, empty if there was none."""
        ...

    def encode(self, layout: Layout, load: Load) -> None:
        """Make of the rows what a statement is given, ahead of it, as `load.encoded`. Touches no connection, and may
        run beside any other call."""
        ...

    def insert(self, layout: Layout, load: Load) -> None:
        """Add rows."""
        ...

    def upsert(self, layout: Layout, load: Load, set_: Sequence[str]) -> None:
        """Add rows, or set the columns `set_` of those that are there."""
        ...

    def delete(self, layout: Layout, load: Load) -> None:
        """Delete by the key, which is all that the rows hold."""
        ...

    def mark(self, layout: Layout, load: Load, mark: Mark) -> None:
        """Mark rows with the time that follows the key in each row of `load`."""
        ...

    def probe(self, layout: Layout, load: Load) -> None:
        """See whether the values fit, outside the transaction. Only asked where there are no savepoints."""
        ...

    def committed(self) -> None:
        """A transaction has ended well. What the driver does now must not fail it."""
        ...

    def interrupt(self) -> None:
        """Cut the running statement short. From any thread."""
        ...

    def close(self) -> None:
        """Roll back what is open and close."""
        ...
