"""What goes on in a database over many transactions: the rows of `hub_backfills`, which move with the cursor.

A restart finds them as the cursor left them, so nothing has to be remembered by anybody else.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from hub.errors import HubError

from .dialect import TableName
from .driver import Driver, Refused

STATE_TABLE = "hub_backfills"
"""One row for each table of hub's own that is in use: by which task, for which table, and since when."""


class Row(NamedTuple):
    """`since` is a time, or names the reading of the log that it belongs to."""

    target: str
    since: str


class Underway:
    """The rows of one task, as its transactions see them."""

    def __init__(self, driver: Driver, task: str) -> None:
        self._driver = driver
        self._dialect = driver.dialect
        self._task = task
        self._state = TableName(driver.default_schema, STATE_TABLE)
        self._left: set[TableName] = set()
        """Tables to drop after the commit, where dropping one would be a commit of its own."""
        self.rows: dict[str, Row] = {}
        """By the name of hub's own table."""

    def load(self) -> None:
        """Find out what goes on. To be called once the fence is ours."""
        self.rows.clear()
        if self._driver.existing(self._state) is not None:
            columns = self._dialect.listed(("seen", "target", "since"))
            where = f"{self._dialect.quoted('task')} = {self._dialect.parameter_at(1)}"
            found = self._driver.fetch(
                f"SELECT {columns} FROM {self._state.sql(self._dialect)} WHERE {where}", (self._task,)
            )
            self.rows = {name: Row(target, since) for name, target, since in found}

    def preparing(self) -> list[str]:
        """The statements that make the table of these rows."""
        if self._driver.existing(self._state) is not None:
            return []
        key, _, text = self._dialect.cursor_types
        columns = f"{self._dialect.quoted('seen')} {key} NOT NULL PRIMARY KEY"
        columns += "".join(f", {self._dialect.quoted(name)} {text}" for name in ("task", "target", "since"))
        return [f"CREATE TABLE {self._state.sql(self._dialect)} ({columns}){self._dialect.table_options}"]

    def begin(self, table: TableName, target: str, since: str) -> None:
        """From here on, a table of hub's own is in use."""
        self.over(table)
        self._left.discard(table)
        columns = self._dialect.listed(("seen", "task", "target", "since"))
        self._driver.execute(
            f"INSERT INTO {self._state.sql(self._dialect)} ({columns}) VALUES ({self._dialect.parameters(4)})",
            (table.table, self._task, target, since),
        )
        self.rows[table.table] = Row(target, since)

    def over(self, table: TableName) -> None:
        """It is no longer."""
        where = f"{self._dialect.quoted('seen')} = {self._dialect.parameter_at(1)}"
        self._driver.execute(f"DELETE FROM {self._state.sql(self._dialect)} WHERE {where}", (table.table,))
        self.rows.pop(table.table, None)

    def drop(self, table: TableName) -> None:
        """Drop a table of hub's own: now, or after the commit."""
        if self._dialect.ddl_in_transaction:
            self._driver.execute(f"DROP TABLE {table.sql(self._dialect)}")
        else:
            self._left.add(table)

    def committed(self) -> None:
        """Tidy up. What fails here is tried when the table is next needed."""
        while self._left:
            with contextlib.suppress(HubError, Refused):
                self._driver.execute(f"DROP TABLE {self._left.pop().sql(self._dialect)}")
