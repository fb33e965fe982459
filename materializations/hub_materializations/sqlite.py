"""SQLite: tables in one file that every language can read, exactly once.

The hard thing is that SQLite's types are only a leaning: a column declared DECIMAL would turn `2.50`
into a float. So columns for values that must keep their text are declared with names that lean to
text, such as `DECIMAL_TEXT(10,2)`, and say what they hold to whoever reads the schema, us included.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import anyio
import anyio.to_thread
from msgspec import Meta

from hub.capture import Finding
from hub.errors import FatalError, TransientError
from hub.materialization import Binding, BindingSpec, Delivery, Materialization
from hub.record import TaskName
from hub.schema import CollectionSchema, ColumnType
from hub.schema.types import (
    BOOLEAN,
    BYTES,
    DATE,
    DECIMAL,
    FLOAT32,
    FLOAT64,
    INT16,
    INT64,
    INTERVAL,
    JSON,
    STRING,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    TIMETZ,
    UUID,
)
from hub.spec import Duration

from .sql import statements
from .sql.binding import SqlBinding
from .sql.dialect import (
    MARK,
    Cast,
    Converter,
    Dependent,
    Dialect,
    ExistingColumn,
    ExistingTable,
    TableName,
)
from .sql.driver import Refused
from .sql.layout import Layout
from .sql.names import NameRule
from .sql.plan import plan
from .sql.rebuild import rebuilt
from .sql.reduce import Load
from .sql.rekey import Rekey
from .sql.sink import SqlSink
from .sql.table_text import OWN_KEY, own_key


class SQLiteMaterialization(Materialization, frozen=True, kw_only=True):
    """Keeps tables of a SQLite file in step, exactly once."""

    summary: ClassVar[str] = "Tables of a SQLite file"
    binding_type: ClassVar[type[BindingSpec]] = SqlBinding
    delivery: ClassVar[Delivery] = "exactly once"
    needs_schema: ClassVar[bool] = True
    sweeps: ClassVar[bool] = True

    path: Annotated[str, Meta(description="The database file. It is made when there is none.", min_length=1)]
    lock_timeout: Annotated[
        Duration,
        Meta(
            description="How long to wait for another writer of the file before the transaction is tried anew."
        ),
    ] = Duration(30)

    @cached_property
    def _careful(self) -> set[TaskName]:
        return set()

    async def check(self, task: TaskName) -> Sequence[Finding]:
        return await anyio.to_thread.run_sync(self._check)

    def _check(self) -> Sequence[Finding]:
        folder = Path(self.path).absolute().parent
        if not folder.is_dir():
            return [Finding(False, f"the folder {folder} does not exist", f"mkdir -p {folder}")]
        if not Path(self.path).exists():
            return [Finding(True, f"{self.path} will be made")]
        try:
            with contextlib.closing(self._connect()) as driver:
                driver.execute("BEGIN IMMEDIATE")
        except (FatalError, TransientError) as error:
            return [Finding(False, str(error), "make the file writable, or end who holds a lock on it")]
        return [Finding(True, f"{self.path} may be written")]

    async def plan(
        self, task: TaskName, bindings: Sequence[tuple[Binding, CollectionSchema]]
    ) -> Sequence[str]:
        """The statements that a start would run before the first row, after a look at the database."""
        return await anyio.to_thread.run_sync(plan, self._look, bindings)

    @asynccontextmanager
    async def open(self, task: TaskName) -> AsyncIterator[SqlSink]:
        driver = await anyio.to_thread.run_sync(self._connect)
        try:
            yield SqlSink(driver, task, self._careful)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(driver.close)

    def _look(self) -> _Driver:
        """A connection for looking only: it makes no file."""
        if Path(self.path).exists():
            return _Driver(
                sqlite3.connect(f"{Path(self.path).absolute().as_uri()}?mode=ro", uri=True), self.path
            )
        return _Driver(sqlite3.connect(":memory:"), self.path)

    def _connect(self) -> _Driver:
        with _mapped(self.path):
            connection = sqlite3.connect(
                self.path, timeout=self.lock_timeout, isolation_level=None, check_same_thread=False
            )
            # Readers go on beside the writer, and a commit is on disk when it returns.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        return _Driver(connection, self.path)


_INTEGERS = {16: "SMALLINT", 32: "INTEGER", 53: "BIGINT", 64: "BIGINT"}
_TYPES = {
    "boolean": "BOOLEAN",
    "date": "DATE_TEXT",
    "timestamp": "TIMESTAMP_TEXT",
    "timestamptz": "TIMESTAMPTZ_TEXT",
    "time": "TIME_TEXT",
    "timetz": "TIMETZ_TEXT",
    "interval": "DURATION_TEXT",
    "uuid": "UUID_TEXT",
    "bytes": "BLOB",
    "json": "JSON_TEXT",
    "object": "JSON_TEXT",
    "array": "JSON_TEXT",
}
_COLUMN_TYPES = {
    "BOOLEAN": BOOLEAN,
    "SMALLINT": INT16,
    "INTEGER": INT64,
    "INT": INT64,
    "BIGINT": INT64,
    "REAL": FLOAT64,
    "DOUBLE": FLOAT64,
    "FLOAT": FLOAT32,
    "DECIMAL_TEXT": DECIMAL,
    "TEXT": STRING,
    "DATE_TEXT": DATE,
    "TIMESTAMP_TEXT": TIMESTAMP,
    "TIMESTAMPTZ_TEXT": TIMESTAMPTZ,
    "TIME_TEXT": TIME,
    "TIMETZ_TEXT": TIMETZ,
    "DURATION_TEXT": INTERVAL,
    "UUID_TEXT": UUID,
    "BLOB": BYTES,
    "JSON_TEXT": JSON,
}
_WITH_NUMBERS = re.compile(r"(DECIMAL_TEXT|VARCHAR)\((\d+)(?:,(\d+))?\)")


def _sql_type(column: ColumnType) -> str:
    match column.kind:
        case "integer":
            return "DECIMAL_TEXT(20,0)" if column.unsigned else _INTEGERS[column.bits or 64]
        case "float":
            return "FLOAT" if column.bits == 32 else "DOUBLE"
        case "decimal":
            bounded = column.precision is not None and (column.scale or 0) >= 0
            return f"DECIMAL_TEXT({column.precision},{column.scale or 0})" if bounded else "DECIMAL_TEXT"
        case "string":
            return f"VARCHAR({column.length})" if column.length is not None else "TEXT"
        case _:
            return _TYPES[column.kind]


def _column_type(text: str) -> ColumnType | None:
    if match := _WITH_NUMBERS.fullmatch(text.upper()):
        if match[1] == "VARCHAR":
            return ColumnType("string", length=int(match[2]))
        return ColumnType("decimal", precision=int(match[2]), scale=int(match[3] or 0))
    return _COLUMN_TYPES.get(text.upper())


def _converted(column: str, held: ColumnType, wide: ColumnType) -> str:
    """A column's values as the new type has them: in their JSON form where they become text or JSON."""
    if wide.kind == "json":
        match held.kind:
            case "boolean":
                return f"CASE {column} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END"
            case "integer" | "json":
                return f"CAST({column} AS TEXT)"
            case "float":
                return f"CASE typeof({column}) WHEN 'text' THEN json_quote({column}) ELSE printf('%!.17g', {column}) END"
            case _:
                return f"CASE WHEN {column} IS NOT NULL THEN json_quote(CAST({column} AS TEXT)) END"
    if wide.kind in ("string", "decimal") and held.kind in ("integer", "float"):
        return f"CAST({column} AS TEXT)"
    return column


def _boolean(value: bool) -> int:
    return int(value)


_INDEX_CURRENT = f"CREATE UNIQUE INDEX {{name}} /* {MARK} */ ON {{table}} ({{key}}) WHERE {{current}}"

_OWN_INDEX = f"""
SELECT name FROM sqlite_master, (SELECT '/* {MARK} */' AS mark) WHERE type = 'index' AND tbl_name = ?1
  AND (name = ?2 OR instr(sql, 'INDEX "' || replace(name, '"', '""') || '" ' || mark || ' ON "') > 0)
ORDER BY instr(sql, mark) = 0
"""
"""Of the table ?1, the index over the current versions of a history. One that an earlier hub has made has no mark,
only the name ?2."""

DIALECT = Dialect(
    name="SQLite",
    sql_type=_sql_type,
    key_type=_sql_type,
    column_type=_column_type,
    alter=lambda _held, _wide: None,
    converted=_converted,
    converters={
        "bytes": Converter(lambda text: b64decode(text, validate=True)),
        "decimal": Converter(str),
        "boolean": Converter(_boolean),
    },
    begin="BEGIN IMMEDIATE",
    prepares=False,
    names=NameRule(folds_case=True),
    drop_not_null=None,
    copies_types=False,
    same=lambda one, other, _type: f"{one} IS {other}",
    cursor_types=("TEXT", "BIGINT", "TEXT"),
    index_current=(_INDEX_CURRENT,),
    move_current=("DROP INDEX IF EXISTS {name}", _INDEX_CURRENT),
    key_clause=f"CONSTRAINT {OWN_KEY} PRIMARY KEY ({{key}})",
)


class _Driver:
    """One connection to a SQLite file. See `hub_materializations.sql.driver.Driver`."""

    dialect = DIALECT
    default_schema: str | None = None

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self.holder = ""

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        with _mapped(self._path):
            return self._connection.execute(statement, parameters).rowcount

    def fetch(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with _mapped(self._path):
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
        with _mapped(self._path):
            self._connection.executemany(statement, load.rows)

    def committed(self) -> None:
        """Nothing more to do."""

    def interrupt(self) -> None:
        self._connection.interrupt()

    def close(self) -> None:
        self._connection.close()


@contextmanager
def _mapped(path: str) -> Iterator[None]:
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
