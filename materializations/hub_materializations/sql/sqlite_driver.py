"""One connection to a SQLite file.

The hard thing is that the catalog is text: what a table and its indexes are beyond their columns stands in the
statements that made them, and so does what says that they are hub's own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hub.errors import FatalError, TransientError

from . import statements
from .dialect import MARK, Cast, Dependent, ExistingColumn, ExistingTable, TableName
from .driver import Refused
from .layout import Layout
from .rebuild import rebuilt
from .reduce import Load
from .rekey import Rekey
from .sqlite_types import DIALECT
from .table_text import own_key

_OWN_INDEX = f"""
SELECT name FROM sqlite_master, (SELECT '/* {MARK} */' AS mark) WHERE type = 'index' AND tbl_name = ?1
  AND (name = ?2 OR instr(sql, 'INDEX "' || replace(name, '"', '""') || '" ' || mark || ' ON "') > 0)
ORDER BY instr(sql, mark) = 0
"""
"""Of the table ?1, the index over the current versions of a history. One that an earlier hub has made has no mark,
only the name ?2."""


class SQLiteDriver:
    """See `hub_materializations.sql.driver.Driver`."""

    dialect = DIALECT
    default_schema: str | None = None

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self.holder = ""

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        with mapped(self._path):
            return self._connection.execute(statement, parameters).rowcount

    def fetch(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with mapped(self._path):
            return self._connection.execute(statement, parameters).fetchall()

    def existing(self, table: TableName) -> ExistingTable | None:
        found = self.fetch(
            "SELECT type, sql FROM sqlite_master WHERE name = ? AND type IN ('table', 'view')", [table.table]
        )
        if not found:
            return None
        ((kind, text),) = found
        if kind == "view":
            return ExistingTable((), is_view=True)
        columns = self.fetch(
            'SELECT name, type, "notnull" = 0, dflt_value IS NOT NULL, hidden IN (2, 3), pk FROM pragma_table_xinfo(?)',
            [table.table],
        )
        primary = tuple(row[0] for row in sorted((row for row in columns if row[5]), key=lambda row: row[5]))
        uniques = [primary] if primary else []
        for (index,) in self.fetch(
            'SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial', [table.table]
        ):
            names = self.fetch("SELECT name FROM pragma_index_info(?) ORDER BY seqno", [index])
            uniques.append(tuple(name for (name,) in names))
        found = self.fetch(_OWN_INDEX, [table.table, table.current_index(DIALECT)])
        index = found[0][0] if found else ""
        current = self.fetch("SELECT name FROM pragma_index_info(?) ORDER BY seqno", [index])
        return ExistingTable(
            tuple(ExistingColumn(*row[:2], *map(bool, row[2:5])) for row in columns),
            tuple(uniques),
            own_key=primary if own_key(text) else (),
            current_key=tuple(name for (name,) in current),
            current_index=index,
            key_name="PRIMARY" if primary else "",
        )

    def dependents(self, table: TableName, columns: Sequence[str]) -> list[Dependent]:
        """The table's indexes, and all views and triggers of the file, which SQLite checks when a table goes."""
        found = []
        for kind, name, text in self.fetch(
            "SELECT type, name, sql FROM sqlite_master WHERE type IN ('view', 'trigger') AND sql IS NOT NULL "
            "OR type = 'index' AND sql IS NOT NULL AND tbl_name = ? COLLATE NOCASE ORDER BY type = 'trigger', rowid",
            [table.table],
        ):
            found.append(Dependent(f"DROP {kind.upper()} {DIALECT.quoted(name)}", (text,)))
        return found

    def rebuild(
        self, table: TableName, existing: ExistingTable, casts: Mapping[str, Cast], rekey: Rekey | None = None
    ) -> list[str]:
        if not casts and rekey is not None and not (rekey.is_unique or rekey.freed):
            return []
        ((text,),) = self.fetch(
            "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", [table.table]
        )
        return rebuilt(text, table, existing, casts, rekey, DIALECT)

    def spellings(self, table: TableName) -> list[str]:
        found = self.fetch("SELECT name FROM sqlite_master WHERE name = ? COLLATE NOCASE", [table.table])
        return [name for (name,) in found]

    def has_schema(self, schema: str) -> bool:
        raise FatalError(f"{self._path}: SQLite has no schemas; leave out `schema: {schema}` of the binding")

    def is_taken(self, index: TableName) -> bool:
        return bool(self.fetch("SELECT 1 FROM sqlite_master WHERE name = ? COLLATE NOCASE", [index.table]))

    def take_over(self, holder: str) -> None:
        """Nothing to do: whoever holds the file's lock ends its transaction or its process."""

    def encode(self, layout: Layout, load: Load) -> None:
        """Nothing: rows go in as they are."""

    def insert(self, layout: Layout, load: Load) -> None:
        self._many(statements.insert_row(DIALECT, layout.table, layout.names), load)

    def upsert(self, layout: Layout, load: Load, set_: Sequence[str]) -> None:
        text = statements.upsert_row(DIALECT, layout.table, layout.names, layout.key_names, set_)
        self._many(text, load)

    def delete(self, layout: Layout, load: Load) -> None:
        self._many(statements.delete_row(DIALECT, layout.table, layout.key_names), load)

    def mark(self, layout: Layout, load: Load, mark: statements.Mark) -> None:
        rows = [(row[-1], *row[:-1]) for row in load.rows]
        self._many(
            statements.mark_row(DIALECT, layout.table, layout.key_names, mark), Load(rows, load.origin)
        )

    def probe(self, layout: Layout, load: Load) -> None:
        raise AssertionError("SQLite has savepoints")

    def _many(self, statement: str, load: Load) -> None:
        """One statement a row: 536 000 rows/s, where json_each over one array of them makes 280 000. Beside it, a
        thread that prepares the next rows costs 8 % more processor time and saves none of the other."""
        with mapped(self._path):
            self._connection.executemany(statement, load.rows)

    def committed(self) -> None:
        """Nothing more to do."""

    def interrupt(self) -> None:
        self._connection.interrupt()

    def close(self) -> None:
        self._connection.close()


@contextmanager
def mapped(path: str) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, OverflowError) as error:
        raise Refused(str(error)) from error
    except sqlite3.OperationalError as error:
        text = str(error)
        passing = any(word in text for word in ("locked", "busy", "interrupted", "full", "disk I/O"))
        raise (TransientError if passing else FatalError)(f"{path}: {text}") from error
    except sqlite3.Error as error:
        raise FatalError(f"{path}: {error}") from error
