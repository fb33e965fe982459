"""DuckDB: a warehouse in a file, the embedded default.

The hard thing is that a failed statement takes the whole transaction with it, and that a COMMIT after
that quietly keeps nothing. So every error ends the transaction, and rows that were refused are looked
for on a second connection when the transaction is written again.

Rows go in as JSON lines through an anonymous file in memory (`memfd`) and one MERGE, without a
staging table: measured at 1 M rows in the table, a MERGE of one row takes 1.5 ms and one of 100 000
rows 21 ms, while a primary key would make DELETE + INSERT ten times slower and protect nothing that
the merge does not.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import anyio
import anyio.to_thread
import duckdb
import msgspec
from msgspec import Meta

from hub.capture import Finding
from hub.errors import FatalError, TransientError
from hub.materialization import BindingSpec, Delivery, Materialization
from hub.record import TaskName
from hub.schema import ColumnType
from hub.schema.types import (
    BOOLEAN,
    BYTES,
    DATE,
    FLOAT32,
    FLOAT64,
    INT16,
    INT32,
    INT64,
    INTERVAL,
    JSON,
    STRING,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    TIMETZ,
    UINT64,
    UUID,
)

from .sql import statements
from .sql.binding import SqlBinding
from .sql.dialect import Converter, Dialect, ExistingColumn, ExistingTable, TableName
from .sql.driver import Refused
from .sql.durations import in_words
from .sql.layout import Layout
from .sql.memory_file import memory_file
from .sql.names import NameRule
from .sql.reduce import Load
from .sql.sink import SqlSink

LINE_BYTES_MAX = 1 << 30
"""The longest document. DuckDB wants to know before it reads; it takes what it needs."""


class DuckDBMaterialization(Materialization, frozen=True, kw_only=True):
    """Keeps tables of a DuckDB file in step, exactly once."""

    summary: ClassVar[str] = "A warehouse in a file, or in memory"
    binding_type: ClassVar[type[BindingSpec]] = SqlBinding
    delivery: ClassVar[Delivery] = "exactly once"
    needs_schema: ClassVar[bool] = True

    path: Annotated[str, Meta(description="The database file. It is made when there is none.", min_length=1)]
    schema: Annotated[
        str, Meta(description="The schema of tables whose binding names none.", min_length=1)
    ] = "main"
    storage_version: Annotated[
        str | None,
        Meta(
            description="The oldest DuckDB that shall be able to open a file that is made now, such as `v1.2.0`. "
            "None: the version that is installed."
        ),
    ] = None

    @cached_property
    def _careful(self) -> set[TaskName]:
        return set()

    async def check(self, task: TaskName) -> Sequence[Finding]:
        return await anyio.to_thread.run_sync(self._check)

    def _check(self) -> Sequence[Finding]:
        folder = Path(self.path).absolute().parent
        if not folder.is_dir():
            return [Finding(False, f"the folder {folder} does not exist", f"mkdir -p {folder}")]
        try:
            with contextlib.closing(_connect(self.path, None, self.schema)) as driver:
                version = driver.fetch("SELECT version()")[0][0]
        except (FatalError, TransientError) as error:
            return [
                Finding(False, str(error), "close the program that has the file open, or name another file")
            ]
        return [Finding(True, f"{self.path} opens with DuckDB {version}")]

    @asynccontextmanager
    async def open(self, task: TaskName) -> AsyncIterator[SqlSink]:
        driver = await anyio.to_thread.run_sync(_connect, self.path, self.storage_version, self.schema)
        try:
            yield SqlSink(driver, task, self._careful)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(driver.close)


def _sql_type(column: ColumnType) -> str:
    match column.kind:
        case "integer":
            return "UBIGINT" if column.unsigned else _INTEGERS[column.bits or 64]
        case "float":
            return "FLOAT" if column.bits == 32 else "DOUBLE"
        case "decimal":
            precision, scale = column.precision, column.scale or 0
            fits = precision is not None and precision <= DECIMAL_DIGITS_MAX and 0 <= scale <= precision
            return f"DECIMAL({precision},{scale})" if fits else "VARCHAR"
        case "array":
            plain = column.items is not None and column.items.kind in _ARRAY_ITEMS
            item = _sql_type(column.items) if plain and column.items is not None else ""
            return f"{item}[]" if plain and (item != "VARCHAR" or column.items == STRING) else "JSON"
        case _:
            return _TYPES[column.kind]


def _key_type(column: ColumnType) -> str:
    found = _sql_type(column)
    return "VARCHAR" if found == "JSON" else found


DECIMAL_DIGITS_MAX = 38
"""DuckDB's. A decimal that is wider or has no bound is kept as text, which loses nothing."""

_INTEGERS = {16: "SMALLINT", 32: "INTEGER", 53: "BIGINT", 64: "BIGINT"}
_TYPES = {
    "boolean": "BOOLEAN",
    "string": "VARCHAR",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "time": "TIME",
    "timetz": "TIME WITH TIME ZONE",
    "interval": "INTERVAL",
    "uuid": "UUID",
    "bytes": "BLOB",
    "json": "JSON",
    "object": "JSON",
}
_ARRAY_ITEMS = (
    "boolean",
    "integer",
    "float",
    "decimal",
    "string",
    "date",
    "timestamp",
    "timestamptz",
    "uuid",
)

_COLUMN_TYPES = {
    "BOOLEAN": BOOLEAN,
    "SMALLINT": INT16,
    "INTEGER": INT32,
    "BIGINT": INT64,
    "HUGEINT": ColumnType("decimal", precision=38, scale=0),
    "UBIGINT": UINT64,
    "FLOAT": FLOAT32,
    "DOUBLE": FLOAT64,
    "VARCHAR": STRING,
    "DATE": DATE,
    "TIMESTAMP": TIMESTAMP,
    "TIMESTAMP WITH TIME ZONE": TIMESTAMPTZ,
    "TIME": TIME,
    "TIME WITH TIME ZONE": TIMETZ,
    "INTERVAL": INTERVAL,
    "UUID": UUID,
    "BLOB": BYTES,
    "JSON": JSON,
}
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")


def _column_type(text: str) -> ColumnType | None:
    if text.endswith("[]"):
        items = _column_type(text[:-2])
        return None if items is None else ColumnType("array", items=items)
    if match := _DECIMAL.fullmatch(text):
        return ColumnType("decimal", precision=int(match[1]), scale=int(match[2]))
    return _COLUMN_TYPES.get(text)


def _converted(column: str, held: ColumnType, wide: ColumnType) -> str:
    """A column's values as the new type has them: in their JSON form where they become text or JSON."""
    if wide.kind in ("string", "json") or (wide.kind == "decimal" and _sql_type(wide) == "VARCHAR"):
        return _as_json(column, held) if wide.kind == "json" else _as_text(column, held)
    return f"CAST({column} AS {_sql_type(wide)})"


def _readable(column: str, held: ColumnType) -> str:
    match held.kind:
        case "boolean" | "integer":
            return column
        case "bytes":
            return f"to_base64({column})"
        case "array":
            return f"CAST(to_json({column}) AS VARCHAR)"
        case _:
            return f"CAST({column} AS VARCHAR)"


def _as_json(column: str, held: ColumnType) -> str:
    plain = held.kind in ("boolean", "integer", "array", "json", "object")
    return f"to_json({column})" if plain else f"to_json({_as_text(column, held)})"


def _as_text(column: str, held: ColumnType) -> str:
    text = f"CAST({column} AS VARCHAR)"
    match held.kind:
        case "date" | "timestamp" | "timestamptz":
            iso = f"regexp_replace({text}, '^(\\S+)( \\(BC\\))? (\\d.*)$', '\\1T\\3\\2')"
            era = f"regexp_replace({iso}, ' \\(BC\\)$', ' BC')"
            return f"replace({era}, '+00', 'Z')" if held.kind == "timestamptz" else era
        case "bytes":
            return f"to_base64({column})"
        case "array":
            return f"CAST(to_json({column}) AS VARCHAR)"
        case _:
            return text


def _with_era(text: str) -> str:
    """`0044-03-15 BC` as DuckDB writes it: the era follows the date."""
    if not text.endswith(" BC"):
        return text
    date, separator, rest = text[:-3].replace("T", " ").partition(" ")
    return f"{date} (BC){separator}{rest}"


_ERA = Converter(_with_era, b' BC"')

DIALECT = Dialect(
    name="DuckDB",
    sql_type=_sql_type,
    key_type=_key_type,
    column_type=_column_type,
    converted=_converted,
    readable=_readable,
    converters={"date": _ERA, "timestamp": _ERA, "timestamptz": _ERA, "interval": Converter(in_words)},
    upsert="merge",
    primary_key=False,
    names=NameRule(folds_case=True),
    savepoints=False,
    cursor_types=("VARCHAR", "BIGINT", "VARCHAR"),
)


class _Driver:
    """One connection to a DuckDB file. See `hub_materializations.sql.driver.Driver`."""

    dialect = DIALECT

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: str, schema: str) -> None:
        self._connection = connection
        self._path = path
        self.default_schema: str | None = schema
        self.holder = ""

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        with _mapped(self._path):
            found = self._connection.execute(statement, list(parameters)).fetchone()
        return int(found[0]) if found and isinstance(found[0], int) else 0

    def fetch(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with _mapped(self._path):
            return self._connection.execute(statement, list(parameters)).fetchall()

    def existing(self, table: TableName) -> ExistingTable | None:
        where = "WHERE database_name = current_database() AND schema_name = ? AND {} = ? AND NOT internal"
        place = [table.schema, table.table]
        if self.fetch(f"SELECT 1 FROM duckdb_views() {where.format('view_name')}", place):
            return ExistingTable((), is_view=True)
        columns = self.fetch(
            "SELECT column_name, data_type, is_nullable, column_default IS NOT NULL FROM duckdb_columns() "
            f"{where.format('table_name')} ORDER BY column_index",
            place,
        )
        if not columns:
            return None
        return ExistingTable(tuple(ExistingColumn(*column) for column in columns))

    def spellings(self, table: TableName) -> list[str]:
        found = self.fetch(
            "SELECT table_name FROM information_schema.tables WHERE table_catalog = current_database() "
            "AND table_schema = ? AND lower(table_name) = lower(?)",
            [table.schema, table.table],
        )
        return [name for (name,) in found]

    def has_schema(self, schema: str) -> bool:
        where = "WHERE database_name = current_database() AND schema_name = ?"
        return bool(self.fetch(f"SELECT 1 FROM duckdb_schemas() {where}", [schema]))

    def take_over(self, holder: str) -> None:
        """Nothing to do: another process cannot have the file open, and in this one the fence decides."""

    def insert(self, layout: Layout, load: Load) -> None:
        with self._relation(layout, load) as relation:
            self.execute(statements.insert_from(DIALECT, layout.table, layout.names, relation))

    def upsert(self, layout: Layout, load: Load, set_: Sequence[str]) -> None:
        with self._relation(layout, load) as relation:
            self.execute(
                statements.upsert_from(DIALECT, layout.table, layout.names, layout.key_names, set_, relation)
            )

    def delete(self, layout: Layout, load: Load) -> None:
        with self._relation(layout, load, layout.key_names) as relation:
            self.execute(statements.delete_from(DIALECT, layout.table, layout.key_names, relation))

    def mark(self, layout: Layout, load: Load, mark: statements.Mark) -> None:
        with self._relation(layout, load, (*layout.key_names, mark.column)) as relation:
            self.execute(statements.mark_from(DIALECT, layout.table, layout.key_names, mark, relation))

    def probe(self, layout: Layout, load: Load) -> None:
        names = layout.names if len(load.rows[0]) == len(layout.names) else layout.key_names
        with (
            contextlib.closing(self._connection.cursor()) as other,
            self._relation(layout, load, names) as relation,
            _mapped(self._path),
        ):
            other.execute("SET TimeZone = 'UTC'")
            other.execute(f"CREATE TEMP TABLE hub_probe AS FROM {relation}")

    @contextmanager
    def _relation(self, layout: Layout, load: Load, names: tuple[str, ...] | None = None) -> Iterator[str]:
        """The rows as something to select from, with columns of these names and the table's types."""
        columns = [c for c in layout.columns if names is None or c.name in names]
        if load.ndjson is not None:
            text, fields = load.ndjson, [column.path[0] for column in columns]
        else:
            text, fields = _lines(load.rows, len(columns)), [f"c{i}" for i in range(len(columns))]
        spec = ", ".join(
            f"{_literal(field)}: '{_read_as(column.type)}'"
            for field, column in zip(fields, columns, strict=True)
        )
        cells = ", ".join(
            f"{_cell(DIALECT.quoted(field), column.type)} AS {DIALECT.quoted(column.name)}"
            for field, column in zip(fields, columns, strict=True)
        )
        with memory_file(text) as path:
            yield (
                f"(SELECT {cells} FROM read_json('{path}', format = 'newline_delimited', "
                f"maximum_object_size = {LINE_BYTES_MAX}, columns = {{{spec}}}))"
            )

    def interrupt(self) -> None:
        self._connection.interrupt()

    def close(self) -> None:
        with contextlib.suppress(duckdb.Error):
            self._connection.execute("ROLLBACK")
        self._connection.close()


def _lines(rows: Sequence[tuple[Any, ...]], width: int) -> bytes:
    """Rows as JSON lines of objects with the fields c0, c1, …"""
    line = _line_class(width)
    return msgspec.json.Encoder().encode_lines([line(*row) for row in rows])


@cache
def _line_class(width: int) -> type[msgspec.Struct]:
    return msgspec.defstruct("Line", [(f"c{i}", Any) for i in range(width)], gc=False)


def _read_as(column: ColumnType) -> str:
    """What the JSON reader makes of a cell. Text where the cast from text knows more forms than the reader."""
    return _sql_type(column) if column.kind in ("boolean", "integer", "float") else "VARCHAR"


def _cell(name: str, column: ColumnType) -> str:
    match column.kind:
        case "boolean" | "integer" | "float" | "string":
            return name
        case "bytes":
            return f"from_base64({name})"
        case "array":
            return f"CAST(CAST({name} AS JSON) AS {_sql_type(column)})"
        case _:
            return f"CAST({name} AS {_sql_type(column)})"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


_REFUSALS = (
    duckdb.ConversionException,
    duckdb.OutOfRangeException,
    duckdb.InvalidInputException,
    duckdb.ConstraintException,
)
_PASSING = (
    duckdb.TransactionException,
    duckdb.InterruptException,
    duckdb.OutOfMemoryException,
    duckdb.FatalException,
    duckdb.InternalException,
)


@contextmanager
def _mapped(path: str) -> Iterator[None]:
    """DuckDB's errors as ours."""
    try:
        yield
    except _REFUSALS as error:
        raise Refused(_first_line(error)) from error
    except _PASSING as error:
        raise TransientError(f"{path}: {_first_line(error)}") from error
    except duckdb.IOException as error:
        text = _first_line(error)
        passing = "lock" in text or "No space left" in text
        raise (TransientError if passing else FatalError)(f"{path}: {text}") from error
    except duckdb.Error as error:
        raise FatalError(f"{path}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _connect(path: str, storage_version: str | None, schema: str) -> _Driver:
    config: dict[str, Any] = {}
    if storage_version is not None:
        config["storage_compatibility_version"] = storage_version
    with _mapped(path):
        connection = duckdb.connect(path, config=config)
        # Given as an option at connect, DuckDB 2.0 would refuse it.
        connection.execute("SET TimeZone = 'UTC'")
    return _Driver(connection, path, schema)
