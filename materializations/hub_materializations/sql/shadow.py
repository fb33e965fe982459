"""Tables that are filled anew out of sight: a backfill from the log, where rows are only ever added.

The rows of `append` and `history` cannot be told from those that are there, so reading the log again must not touch
them. It fills a table `hub_new_…` beside the cursors, in the transactions that move the cursor; readers see the old
rows meanwhile. At the end, in the transaction of the mark that says so, the new rows take the place of the old ones.
The rows do, not the table: a rename would commit on its own in MySQL, and would lose what stands on the
table; so grants, views, triggers and indexes need no thought.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import msgspec

from hub.errors import FatalError

from . import statements
from .dialect import TableName
from .driver import Driver
from .evolve import Changes, changes
from .layout import Layout
from .plan import complete
from .underway import Underway

PREFIX = "hub_new_"


class _Target(msgspec.Struct, frozen=True, array_like=True):
    """What a row of `hub_backfills` says of the table whose rows go beside it. `made`: there is a table of them."""

    schema: str | None
    table: str
    made: bool


class Shadows:
    """The tables of one task that are being filled anew."""

    def __init__(self, driver: Driver, task: str, underway: Underway) -> None:
        self._driver = driver
        self._dialect = driver.dialect
        self._task = task
        self._underway = underway

    @property
    def replay(self) -> str | None:
        """The reading of the log that goes on, if one does that fills tables anew."""
        return next((row.since for name, row in self._underway.rows.items() if name.startswith(PREFIX)), None)

    def of(self, table: TableName) -> TableName:
        """Where the rows of a table go meanwhile."""
        digest = sha256(repr((self._task, table.schema, table.table)).encode()).hexdigest()[:24]
        return TableName(self._driver.default_schema, f"{PREFIX}{digest}")

    def fitting(self, layout: Layout) -> Changes:
        """What has to be done before rows of this layout go beside its table; its layout is what they are written by.
        FatalError when what was filled so far is gone."""
        shadow = self.of(layout.table)
        there = self._driver.existing(shadow)
        row = self._row(layout.table)
        if there is None and row is not None and row.made:
            raise FatalError(
                f"{shadow}, into which {layout.table} was being read again from the log, is gone; "
                "run `hub backfill … --from-log` again"
            )
        moved = replace(layout, table=shadow)
        found = changes(moved, there, self._dialect, evolution="evolve", clash="rebuild")
        if there is not None:
            complete(found, shadow, there, self._driver)
        found.statements[:0] = self._underway.preparing()
        return found

    def expect(self, table: TableName, replay: str) -> None:
        """Rows of a table that there is not yet will come in this reading of the log, and are to go beside it."""
        self._forget_others(replay)
        if self._row(table) is None:
            self._underway.begin(self.of(table), _told(table, made=False), replay)

    def begin(self, table: TableName, replay: str) -> None:
        """From here on, rows go beside the table, unless they do so already in this reading of the log."""
        self._forget_others(replay)
        row = self._row(table)
        if row is None or not row.made:
            self._driver.execute(statements.truncate(self._dialect, self.of(table)))
            self._underway.begin(self.of(table), _told(table, made=True), replay)

    def _forget_others(self, replay: str) -> None:
        """What an earlier reading of the log has left counts no more."""
        for name, row in list(self._underway.rows.items()):
            if name.startswith(PREFIX) and row.since != replay:
                self._underway.over(TableName(self._driver.default_schema, name))

    def _row(self, table: TableName) -> _Target | None:
        row = self._underway.rows.get(self.of(table).table)
        return msgspec.json.decode(row.target, type=_Target) if row is not None else None

    def swap(self) -> list[tuple[TableName, TableName]]:
        """Put the new rows in the place of the old ones, in all tables. Returns each table and where its rows were.

        FatalError where a column of the user's would lose values that the log does not have.
        """
        found = []
        for name, row in list(self._underway.rows.items()):
            if name.startswith(PREFIX):
                told = msgspec.json.decode(row.target, type=_Target)
                table, shadow = (
                    TableName(told.schema, told.table),
                    TableName(self._driver.default_schema, name),
                )
                if told.made:
                    self._swap(table, shadow)
                    found.append((table, shadow))
                self._underway.over(shadow)
        return found

    def _swap(self, table: TableName, shadow: TableName) -> None:
        dialect = self._dialect
        into, new = self._driver.existing(table), self._driver.existing(shadow)
        if into is None or new is None:
            raise FatalError(
                f"{table if into is None else shadow} is gone, which was to get the rows that were read from the log "
                "again; run `hub backfill … --from-log` again"
            )
        filled = [column.name for column in new.columns if into.column(column.name) is not None]
        for column in into.columns:
            if column.name not in filled and not (column.generated or column.has_default):
                held = f"SELECT 1 FROM {table.sql(dialect)} WHERE {dialect.quoted(column.name)} IS NOT NULL LIMIT 1"
                if self._driver.fetch(held):
                    raise FatalError(
                        f"column {column.name} of {table} holds values that no record of the log has, and all rows "
                        "are about to be made anew. Keep them elsewhere and empty or drop the column; the hub then "
                        "goes on from here"
                    )
        self._driver.execute(statements.truncate(dialect, table))
        self._driver.execute(statements.insert_from(dialect, table, tuple(filled), shadow.sql(dialect)))
        self._underway.drop(shadow)


def _told(table: TableName, *, made: bool) -> str:
    return msgspec.json.encode(_Target(table.schema, table.table, made)).decode()
