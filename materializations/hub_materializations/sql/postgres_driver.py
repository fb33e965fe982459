"""One connection to PostgreSQL, and how rows go in through it: COPY into a temporary table and INSERT … ON CONFLICT.

The hard thing is to be fast with little processor time of our own. Rows travel as text: msgspec writes each as a JSON
array, which is a line of CSV once the brackets are off, so Python touches no cell. Small batches go through one
prepared statement in a pipeline instead.

Measured with ten columns from JSON lines into a temporary table, two cores: 386 000 rows/s as text at 1.1 µs of our
processor time a row (514 000 when the text is prepared ahead, where the server is the limit), 455 000 by psycopg's
binary COPY at 2.2 µs with an object a cell, 300 000 by asyncpg, 265 000 where the server expands the JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import psycopg
from psycopg import errors as pg

from hub.errors import FatalError, TransientError

from . import statements
from .csv_text import csv_text
from .dialect import MARK, Cast, Dependent, Dialect, ExistingColumn, ExistingTable, TableName
from .driver import Refused
from .layout import Layout
from .postgres_key import OWN_KEY, rekeyed
from .postgres_views import dependents
from .reduce import Load
from .rekey import Rekey

ROWS_SMALL = 100
"""Up to here rows go through a prepared statement: no staging table, one round trip."""

COPY_CHUNK_BYTES = 1 << 20

DIRECT_OFF = 50
"""Loads for which COPY straight into the table is not tried again after it met a key that was there."""


class PostgresDriver:
    """See `hub_materializations.sql.driver.Driver`."""

    def __init__(
        self, connection: psycopg.Connection[Any], where: str, schema: str, dialect: Dialect
    ) -> None:
        self._connection = connection
        self._where = where
        self.dialect = dialect
        self.default_schema: str | None = schema
        self._direct_off = 0
        pid = connection.info.backend_pid
        with mapped(where):
            row = connection.execute(
                "SELECT backend_start::text FROM pg_stat_activity WHERE pid = $1", (pid,)
            ).fetchone()
        self.holder = f"{pid} {row[0] if row else ''}"

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        with mapped(self._where):
            return self._connection.execute(statement.encode(), parameters).rowcount

    def fetch(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with mapped(self._where):
            return self._connection.execute(statement.encode(), parameters).fetchall()

    def existing(self, table: TableName) -> ExistingTable | None:
        found = self.fetch(
            "SELECT c.oid, c.relkind IN ('r', 'p', 'f') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = $1 AND c.relname = $2",
            (table.schema, table.table),
        )
        if not found:
            return None
        ((oid, is_table),) = found
        if not is_table:
            return ExistingTable((), is_view=True)
        columns = self.fetch(
            "SELECT attname::text, format_type(atttypid, atttypmod), NOT attnotnull, atthasdef OR attidentity <> '', "
            "attgenerated <> '' OR attidentity = 'a' FROM pg_attribute "
            "WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (oid,),
        )
        uniques = self.fetch(
            "SELECT array_agg(a.attname::text ORDER BY k.place) FROM pg_index i, "
            "unnest(i.indkey::int2[]) WITH ORDINALITY k (number, place) "
            "LEFT JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum = k.number "
            "WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indimmediate "
            "AND i.indexprs IS NULL AND k.place <= i.indnkeyatts "
            "GROUP BY i.indexrelid, i.indisprimary ORDER BY i.indisprimary DESC, i.indexrelid",
            (oid,),
        )
        keys = self.fetch(OWN_KEY, (oid, MARK, table.current_index(self.dialect)))
        key_name, is_own, key = next((rest for is_key, *rest in keys if is_key), ("", False, ()))
        current, _, versioned = next((rest for is_key, *rest in keys if not is_key), ("", False, ()))
        return ExistingTable(
            tuple(ExistingColumn(*column) for column in columns),
            tuple(tuple(names) for (names,) in uniques),
            own_key=tuple(key) if is_own else (),
            current_key=tuple(versioned),
            current_index=current,
            key_name=key_name,
        )

    def dependents(self, table: TableName, columns: Sequence[str]) -> list[Dependent]:
        return dependents(self.fetch, table, columns)

    def rebuild(
        self, table: TableName, existing: ExistingTable, casts: Mapping[str, Cast], rekey: Rekey | None = None
    ) -> list[str]:
        assert not casts, "PostgreSQL alters every column in place"
        assert rekey is not None
        return rekeyed(rekey, table, existing, self.dialect)

    def spellings(self, table: TableName) -> list[str]:
        return []

    def has_schema(self, schema: str) -> bool:
        return bool(self.fetch("SELECT FROM pg_namespace WHERE nspname = $1", (schema,)))

    def is_taken(self, index: TableName) -> bool:
        found = "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2"
        return bool(self.fetch(found, (index.schema, index.table)))

    def take_over(self, holder: str) -> None:
        pid, _, started = holder.partition(" ")
        if not pid:
            return
        # Before 14 it cannot be waited for; what it holds is waited for as any lock.
        patience = ", 5000" if self._connection.info.server_version >= 140000 else ""
        self.fetch(
            f"SELECT pg_terminate_backend(pid{patience}) FROM pg_stat_activity "
            "WHERE pid = $1::int AND backend_start::text = $2 AND usename = current_user AND pid <> pg_backend_pid()",
            (pid, started),
        )

    def encode(self, layout: Layout, load: Load) -> None:
        if len(load.rows) > ROWS_SMALL:
            load.encoded = csv_text(load.rows)

    def insert(self, layout: Layout, load: Load) -> None:
        if len(load.rows) <= ROWS_SMALL:
            self._many(statements.insert_row(self.dialect, layout.table, layout.names), load)
        else:
            self._copy(layout.table.sql(self.dialect), layout.names, load)

    def upsert(self, layout: Layout, load: Load, set_: Sequence[str]) -> None:
        table, names, key = layout.table, layout.names, layout.key_names
        if len(load.rows) <= ROWS_SMALL:
            self._many(statements.upsert_row(self.dialect, table, names, key, set_), load)
            return
        if load.is_new and self._copied_directly(layout, load):
            return
        relation = self._stage(layout, names, load)
        self.execute(statements.upsert_from(self.dialect, table, names, key, set_, relation))

    def delete(self, layout: Layout, load: Load) -> None:
        key = layout.key_names
        if len(load.rows) <= ROWS_SMALL:
            self._many(statements.delete_row(self.dialect, layout.table, key), load)
            return
        relation = self._stage(layout, key, load)
        self.execute(statements.delete_from(self.dialect, layout.table, key, relation))

    def mark(self, layout: Layout, load: Load, mark: statements.Mark) -> None:
        key = layout.key_names
        if len(load.rows) <= ROWS_SMALL:
            turned = Load([(row[-1], *row[:-1]) for row in load.rows], load.origin)
            self._many(statements.mark_row(self.dialect, layout.table, key, mark), turned)
            return
        relation = self._stage(layout, (*key, mark.column), load)
        self.execute(statements.mark_from(self.dialect, layout.table, key, mark, relation))

    def probe(self, layout: Layout, load: Load) -> None:
        raise AssertionError("PostgreSQL has savepoints")

    def _copied_directly(self, layout: Layout, load: Load) -> bool:
        """COPY rows whose keys should be new straight into the table. False: one of them was there already.

        That happens when rows are read from the source once more, so it is not tried again for a while.
        """
        if self._direct_off > 0:
            self._direct_off -= 1
            return False
        self.execute("SAVEPOINT hub_direct")
        try:
            self._copy(layout.table.sql(self.dialect), layout.names, load)
        except Refused:
            self.execute("ROLLBACK TO SAVEPOINT hub_direct")
            self._direct_off = DIRECT_OFF
            return False
        self.execute("RELEASE SAVEPOINT hub_direct")
        return True

    def _many(self, statement: str, load: Load) -> None:
        """One statement a row, prepared, all in one round trip. Cells are text that the server reads."""
        rows = [tuple(map(_text, row)) for row in load.rows]
        with mapped(self._where), self._connection.cursor() as cursor:
            cursor.executemany(statement.encode(), rows)

    def _stage(self, layout: Layout, names: tuple[str, ...], load: Load) -> str:
        """The rows in a temporary table with the types of the target. Returns its name."""
        columns = [(column.name, column.type) for column in layout.columns if column.name in names]
        stage = f"hub_stage_{sha256(repr((layout.table, columns)).encode()).hexdigest()[:16]}"
        self.execute(
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {stage} ON COMMIT DELETE ROWS AS "
            f"SELECT {self.dialect.listed(names)} FROM {layout.table.sql(self.dialect)} LIMIT 0"
        )
        self.execute(f"TRUNCATE {stage}")
        self._copy(stage, names, load)
        return stage

    def _copy(self, target: str, names: tuple[str, ...], load: Load) -> None:
        text = csv_text(load.rows) if load.encoded is None else load.encoded
        statement = (
            f"COPY {target} ({self.dialect.listed(names)}) FROM STDIN "
            "(FORMAT csv, NULL 'null', QUOTE '\"', ESCAPE '\\', ENCODING 'UTF8')"
        )
        with (
            mapped(self._where),
            self._connection.cursor() as cursor,
            cursor.copy(statement.encode()) as copy,
        ):
            for start in range(0, len(text), COPY_CHUNK_BYTES):
                copy.write(text[start : start + COPY_CHUNK_BYTES])

    def committed(self) -> None:
        """Nothing more to do."""

    def interrupt(self) -> None:
        self._connection.cancel()

    def close(self) -> None:
        self._connection.close()


def _text(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    if value is True:
        return "true"
    if value is False:
        return "false"
    return str(value)


_PASSING = (
    pg.OperatorIntervention,
    pg.LockNotAvailable,
    pg.TransactionRollback,
    pg.InsufficientResources,
    pg.SystemError,
    psycopg.errors.ConnectionException,
    pg.ReadOnlySqlTransaction,
)


@contextmanager
def mapped(where: str) -> Iterator[None]:
    """psycopg's errors as ours, without the values that its details repeat."""
    try:
        yield
    except (pg.DataError, pg.IntegrityError, pg.ProgramLimitExceeded, pg.CheckViolation) as error:
        raise Refused(_message(error)) from error
    except _PASSING as error:
        raise TransientError(f"{where}: {_message(error)}") from error
    except psycopg.OperationalError as error:
        fatal = isinstance(error, (pg.InvalidAuthorizationSpecification, pg.InvalidCatalogName)) or any(
            text in str(error) for text in ("authentication failed", "does not exist", "no pg_hba.conf entry")
        )
        raise (FatalError if fatal else TransientError)(f"{where}: {_message(error)}") from error
    except psycopg.InterfaceError as error:
        raise TransientError(f"{where}: {_message(error)}") from error
    except psycopg.Error as error:
        raise FatalError(f"{where}: {_message(error)}") from error


def _message(error: psycopg.Error) -> str:
    text = error.diag.message_primary or str(error).partition("\n")[0]
    context = error.diag.column_name or error.diag.constraint_name
    return f"{text} ({context})" if context and context not in text else text
