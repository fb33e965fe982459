"""One connection to a DuckDB file, and how rows go in through it.

The hard thing is that a failed statement takes the whole transaction with it, and that a COMMIT after
that quietly keeps nothing. So every error ends the transaction, and rows that were refused are looked
for on a second connection when the transaction is written again.

Rows go in as JSON lines through anonymous files in memory (`memfd`) and one MERGE, without a
staging table: measured at 1 M rows in the table, a MERGE of one row takes 1.5 ms and one of 100 000
rows 21 ms, while a primary key would make DELETE + INSERT ten times slower and protect nothing that
the merge does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import duckdb
import msgspec

from hub.errors import FatalError, TransientError
from hub.schema import ColumnType

from . import statements
from .dialect import MARK, Cast, Dependent, ExistingColumn, ExistingTable, TableName
from .driver import Refused
from .duckdb_copy import Copies, Copy
from .duckdb_types import DIALECT, sql_type
from .layout import Layout
from .memory_file import MemoryFiles
from .names import literal
from .rebuild import rebuilt
from .reduce import Load
from .rekey import Rekey

LINE_BYTES_MIN = 1 << 20
"""What DuckDB's reader is told of the longest line, unless there may be a longer one."""

APART_OFF = 50
"""Loads of new rows for which it is not looked again whether the table has any between their keys, after it had."""

_OF_TABLE = "WHERE database_name = current_database() AND schema_name = ? AND table_name = ?"


def connect(
    path: str,
    storage_version: str | None,
    schema: str,
    copy: Copy | None = None,
    memory: int | None = None,
) -> DuckDBDriver:
    """Open a file, which is made when there is none. `memory` is in bytes."""
    config: dict[str, Any] = {}
    if storage_version is not None:
        config["storage_compatibility_version"] = storage_version
    with mapped(path):
        connection = duckdb.connect(path, config=config)
        # Given as an option at connect, DuckDB 2.0 would refuse it.
        connection.execute("SET TimeZone = 'UTC'")
        if memory is not None:
            # Not at connect either: a second connection to the file would have to say the same.
            connection.execute(f"SET memory_limit = '{memory} bytes'")
    return DuckDBDriver(connection, path, schema, copy)


class DuckDBDriver:
    """See `hub_materializations.sql.driver.Driver`."""

    dialect = DIALECT

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, path: str, schema: str, copy: Copy | None
    ) -> None:
        self._copies = Copies(copy) if copy is not None else None
        self._connection = connection
        self._path = path
        self._files = MemoryFiles()
        self._apart_off = 0
        self.default_schema: str | None = schema
        self.holder = ""

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        with mapped(self._path):
            found = self._connection.execute(statement, list(parameters)).fetchone()
        return int(found[0]) if found and isinstance(found[0], int) else 0

    def fetch(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with mapped(self._path):
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
        # DuckDB alters no column of a table with an index, and none that a constraint names.
        fixed = self.fetch(
            f"SELECT 1 FROM duckdb_indexes() {_OF_TABLE} UNION ALL "
            f"SELECT 1 FROM duckdb_constraints() {_OF_TABLE} AND constraint_type <> 'NOT NULL'",
            [*place, *place],
        )
        made = tuple(ExistingColumn(*column) for column in columns)
        own = self.fetch(f"SELECT 1 FROM duckdb_tables() {_OF_TABLE} AND comment = ?", [*place, MARK])
        needed = tuple(column.name for column in made if not (column.nullable or column.has_default))
        key = needed if own else ()
        return ExistingTable(made, own_key=key, current_key=key, is_fixed=bool(fixed))

    def dependents(self, table: TableName, columns: Sequence[str]) -> list[Dependent]:
        """None: views go by name."""
        return []

    def rebuild(
        self, table: TableName, existing: ExistingTable, casts: Mapping[str, Cast], rekey: Rekey | None = None
    ) -> list[str]:
        """With the table's indexes, and the comments on it and its columns."""
        if rekey is not None and not casts and not existing.is_fixed:
            target, quoted = table.sql(DIALECT), DIALECT.quoted
            free = [f"ALTER TABLE {target} ALTER COLUMN {quoted(n)} DROP NOT NULL" for n in rekey.freed]
            need = [f"ALTER TABLE {target} ALTER COLUMN {quoted(n)} SET NOT NULL" for n in rekey.needed]
            return free + need
        place = [table.schema, table.table]
        ((text, comment),) = self.fetch(f"SELECT sql, comment FROM duckdb_tables() {_OF_TABLE}", place)
        made = rebuilt(text, table, existing, casts, rekey, DIALECT)
        name = table.sql(DIALECT)
        if comment is not None:
            made.append(f"COMMENT ON TABLE {name} IS {literal(comment)}")
        for column, told in self.fetch(
            f"SELECT column_name, comment FROM duckdb_columns() {_OF_TABLE} AND comment IS NOT NULL", place
        ):
            made.append(f"COMMENT ON COLUMN {name}.{DIALECT.quoted(column)} IS {literal(told)}")
        indexes = self.fetch(f"SELECT sql FROM duckdb_indexes() {_OF_TABLE} ORDER BY index_oid", place)
        return [*made, *(index for (index,) in indexes)]

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

    def is_taken(self, index: TableName) -> bool:
        """Never. A history has none here."""
        return False

    def take_over(self, holder: str) -> None:
        """Nothing to do: another process cannot have the file open, and in this one the fence decides."""

    def encode(self, layout: Layout, load: Load) -> None:
        if load.ndjson is None and load.rows:
            load.encoded = _lines(load.rows, len(load.rows[0]))

    def insert(self, layout: Layout, load: Load) -> None:
        with self._relation(layout, load) as relation:
            self.execute(statements.insert_from(DIALECT, layout.table, layout.names, relation))

    def upsert(self, layout: Layout, load: Load, set_: Sequence[str]) -> None:
        if self._is_apart(layout, load):
            self.insert(layout, load)
            return
        with self._relation(layout, load) as relation:
            self.execute(
                statements.upsert_from(DIALECT, layout.table, layout.names, layout.key_names, set_, relation)
            )

    def _is_apart(self, layout: Layout, load: Load) -> bool:
        """Whether the table has no row where the keys of the load lie, so that there is nothing to merge with.

        With 1 M rows in the order of their keys, a look takes 0.3 ms, and an INSERT of 12 000 rows 1.5 ms less than a
        MERGE; where keys come in no order it does not pay.
        """
        if load.span is None or self._apart_off > 0:
            self._apart_off = max(self._apart_off - 1, 0)
            return False
        if self.fetch(statements.any_between(DIALECT, layout.table, *layout.key_names), load.span):
            self._apart_off = APART_OFF
        return self._apart_off == 0

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
            mapped(self._path),
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
            text = _lines(load.rows, len(columns)) if load.encoded is None else load.encoded
            fields = [f"c{i}" for i in range(len(columns))]
        spec = ", ".join(
            f"{literal(field)}: '{_read_as(column.type)}'"
            for field, column in zip(fields, columns, strict=True)
        )
        cells = ", ".join(
            f"{_cell(DIALECT.quoted(field), column.type)} AS {DIALECT.quoted(column.name)}"
            for field, column in zip(fields, columns, strict=True)
        )
        with self._files.holding(text) as paths:
            yield (
                f"(SELECT {cells} FROM read_json([{', '.join(map(literal, paths))}], format = 'newline_delimited', "
                f"maximum_object_size = {max(LINE_BYTES_MIN, len(text) + 1)}, columns = {{{spec}}}))"
            )

    def committed(self) -> None:
        if self._copies is not None and self._copies.is_due:
            with mapped(self._copies.path):
                self._copies.replace(self._connection)

    def interrupt(self) -> None:
        self._connection.interrupt()

    def close(self) -> None:
        with contextlib.suppress(duckdb.Error):
            self._connection.execute("ROLLBACK")
        self._connection.close()
        self._files.close()


def _lines(rows: Sequence[tuple[Any, ...]], width: int) -> bytes:
    """Rows as JSON lines of objects with the fields c0, c1, …"""
    line = _line_class(width)
    return msgspec.json.Encoder().encode_lines([line(*row) for row in rows])


@cache
def _line_class(width: int) -> type[msgspec.Struct]:
    return msgspec.defstruct("Line", [(f"c{i}", Any) for i in range(width)], gc=False)


def _read_as(column: ColumnType) -> str:
    """What the JSON reader makes of a cell. Text where the cast from text knows more forms than the reader."""
    return sql_type(column) if column.kind in ("boolean", "integer", "float") else "VARCHAR"


def _cell(name: str, column: ColumnType) -> str:
    match column.kind:
        case "boolean" | "integer" | "float" | "string":
            return name
        case "bytes":
            return f"from_base64({name})"
        case "array":
            return f"CAST(CAST({name} AS JSON) AS {sql_type(column)})"
        case _:
            return f"CAST({name} AS {sql_type(column)})"


_REFUSALS = (
    duckdb.ConversionException,
    duckdb.OutOfRangeException,
    duckdb.InvalidInputException,
    duckdb.ConstraintException,
)
_PASSING = (
    duckdb.TransactionException,
    duckdb.InterruptException,
    duckdb.FatalException,
    duckdb.InternalException,
)


@contextmanager
def mapped(path: str) -> Iterator[None]:
    """DuckDB's errors as ours."""
    try:
        yield
    except _REFUSALS as error:
        raise Refused(_first_line(error)) from error
    except duckdb.OutOfMemoryException as error:
        raise TransientError(
            f"{path}: {_first_line(error)}; give it more with `memory`, or less at a time with `commit`"
        ) from error
    except _PASSING as error:
        raise TransientError(f"{path}: {_first_line(error)}") from error
    except duckdb.Error as error:
        text = _first_line(error)
        # A segment found corrupted while the file is open was damaged in memory as far as anybody has seen; opened
        # again, the file goes on from its cursor, or says that it is damaged itself.
        passing = text.removeprefix("IO Error: ").startswith("Corrupted ")
        if isinstance(error, duckdb.IOException):
            passing = passing or "set lock on file" in text or "No space left" in text
        raise (TransientError if passing else FatalError)(f"{path}: {text}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
