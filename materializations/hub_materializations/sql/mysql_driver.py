"""One connection to MySQL or MariaDB, and how rows go in through it.

The hard thing is that many rows go in by LOAD DATA LOCAL, which never fails for a row: it warns, and changes the
value. So a load counts only where the server had nothing to say, else the rows go again by statements, which fail.
They are loaded straight into the table where they should be new, else through a temporary table; where server or user
allow no load, they are statements of many rows.

Measured with ten columns: 274 000 rows/s loaded, 190 000 through a temporary table, 80 000 by statements, whose text
costs five times the processor time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import pymysql

from hub.errors import FatalError, TransientError

from . import mysql_catalog as catalog
from . import statements
from .dialect import Cast, Dependent, Dialect, ExistingTable, TableName
from .driver import Refused
from .layout import Layout
from .mysql_load import FORMAT, NAME, LoadingConnection, load_text
from .mysql_rebuild import moved, rebuilt, rekeyed
from .reduce import Load
from .rekey import Rekey

STATEMENT_BYTES = 4 << 20
"""About how long a statement of many rows gets; a quarter of what the server takes, if that is less."""

LOCK_WAIT_S = 10

ROWS_SMALL = 100
"""Up to here rows go in by statements: no staging table, one round trip."""

DIRECT_OFF = 50
"""Loads for which loading straight into the table is not tried again after it met a key that was there."""


class MySQLDriver:
    """See `hub_materializations.sql.driver.Driver`."""

    def __init__(
        self,
        connection: LoadingConnection,
        where: str,
        database: str,
        task: str,
        dialect: Dialect,
        *,
        statement_bytes: int,
        loads: tuple[bool, bool],
    ) -> None:
        """`loads`: whether LOAD DATA LOCAL is wanted, and whether the server allows it."""
        self._connection = connection
        self._wanted, self._allowed = loads
        self._direct_off = 0
        self._where = where
        self._statement_bytes = statement_bytes
        self.dialect = dialect
        self.default_schema: str | None = database
        # Names of locks are the server's own, up to 64 characters.
        self.holder = f"hub {sha256(f'{database} {task}'.encode()).hexdigest()[:40]}"

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        with mapped(self._where), self._connection.cursor() as cursor:
            return int(cursor.execute(statement, tuple(parameters)))

    def fetch(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with mapped(self._where), self._connection.cursor() as cursor:
            cursor.execute(statement, tuple(parameters))
            return list(cursor.fetchall())

    def existing(self, table: TableName) -> ExistingTable | None:
        return catalog.existing(self.fetch, table, self.dialect)

    def dependents(self, table: TableName, columns: Sequence[str]) -> list[Dependent]:
        """None: views of MySQL go by name."""
        return []

    def rebuild(
        self, table: TableName, existing: ExistingTable, casts: Mapping[str, Cast], rekey: Rekey | None = None
    ) -> list[str]:
        keyed = rekeyed(rekey, table, self.dialect) if rekey is not None else []
        if not casts:
            return keyed
        indexes = catalog.indexes(self.fetch, table)
        if rekey is not None:
            indexes = moved(rekey, existing, indexes)
        told = catalog.comments(self.fetch, table)
        return [*keyed, *rebuilt(table, existing, casts, list(indexes.values()), told, self.dialect)]

    def spellings(self, table: TableName) -> list[str]:
        return catalog.spellings(self.fetch, table)

    def has_schema(self, schema: str) -> bool:
        return bool(self.fetch("SELECT 1 FROM information_schema.schemata WHERE schema_name = %s", (schema,)))

    def is_taken(self, index: TableName) -> bool:
        """Never. It has its name in its table."""
        return False

    def take_over(self, holder: str) -> None:
        ((connection, own),) = self.fetch("SELECT IS_USED_LOCK(%s), CONNECTION_ID()", (self.holder,))
        if connection is not None and connection != own:
            with contextlib.suppress(FatalError, TransientError):
                self.execute(f"KILL CONNECTION {int(connection)}")
        ((mine,),) = self.fetch("SELECT GET_LOCK(%s, %s)", (self.holder, LOCK_WAIT_S))
        if mine != 1:
            raise TransientError(
                f"{self._where}: connection {connection} still writes for this task and could not be ended; "
                f"end it with KILL CONNECTION {connection}"
            )

    @property
    def way(self) -> str:
        """How many rows are brought in, for a person."""
        if self._loads:
            return "many rows go in by LOAD DATA LOCAL"
        why = "the server's local_infile is off" if self._wanted else "`local_infile: false`"
        return f"many rows go in by statements of many rows, which is slower than LOAD DATA LOCAL: {why}"

    @property
    def _loads(self) -> bool:
        return self._wanted and self._allowed

    def encode(self, layout: Layout, load: Load) -> None:
        if self._loads and len(load.rows) > ROWS_SMALL:
            load.encoded = load_text(load)

    def insert(self, layout: Layout, load: Load) -> None:
        if self._is_bulk(load) and self._loaded_directly(layout, load):
            return
        self._many(statements.insert_ends(self.dialect, layout.table, layout.names, (), ()), load)

    def upsert(self, layout: Layout, load: Load, set_: Sequence[str]) -> None:
        names, key = layout.names, layout.key_names
        if self._is_bulk(load):
            if load.is_new and self._direct_off == 0:
                if self._loaded_directly(layout, load):
                    return
                self._direct_off = DIRECT_OFF
            self._direct_off = max(self._direct_off - 1, 0)
            stage = self._staged(layout, names, load)
            if stage is not None:
                self.execute(statements.upsert_from(self.dialect, layout.table, names, key, set_, stage))
                return
        self._many(statements.insert_ends(self.dialect, layout.table, names, key, set_), load)

    def delete(self, layout: Layout, load: Load) -> None:
        key = layout.key_names
        stage = self._staged(layout, key, load) if self._is_bulk(load) else None
        if stage is not None:
            self.execute(statements.delete_from(self.dialect, layout.table, key, stage))
            return
        text = statements.delete_row(self.dialect, layout.table, key)
        for row in load.rows:
            self.execute(text, row)

    def mark(self, layout: Layout, load: Load, mark: statements.Mark) -> None:
        key = layout.key_names
        stage = self._staged(layout, (*key, mark.column), load) if self._is_bulk(load) else None
        if stage is not None:
            self.execute(statements.mark_from(self.dialect, layout.table, key, mark, stage))
            return
        text = statements.mark_row(self.dialect, layout.table, key, mark)
        for row in load.rows:
            self.execute(text, (row[-1], *row[:-1]))

    def _is_bulk(self, load: Load) -> bool:
        return self._loads and len(load.rows) > ROWS_SMALL

    def _loaded_directly(self, layout: Layout, load: Load) -> bool:
        """Load into the table itself. False, and nothing was loaded: the server had something to say of a row."""
        self.execute("SAVEPOINT hub_load")
        target = layout.table.sql(self.dialect)
        fits = self._load(target, layout, layout.names, load)
        if not fits:
            self.execute("ROLLBACK TO SAVEPOINT hub_load")
        self.execute("RELEASE SAVEPOINT hub_load")
        return fits

    def _staged(self, layout: Layout, names: tuple[str, ...], load: Load) -> str | None:
        """The rows in a temporary table, by its name. None: the user may make none, or the server had something to
        say of a row, which a statement then says as an error, or not."""
        stage = "hub_stage"
        try:
            # Unlike TRUNCATE, these two commit nothing when the table is temporary.
            self.execute(f"DROP TEMPORARY TABLE IF EXISTS {stage}")
            self.execute(
                f"CREATE TEMPORARY TABLE {stage} ENGINE = InnoDB AS "
                f"SELECT {self.dialect.listed(names)} FROM {layout.table.sql(self.dialect)} LIMIT 0"
            )
        except FatalError as error:
            if _code(error.__cause__) in _NO_TEMPORARY:
                self._allowed = False
                return None
            raise
        return stage if self._load(stage, layout, names, load) else None

    def _load(self, target: str, layout: Layout, names: tuple[str, ...], load: Load) -> bool:
        """LOAD DATA LOCAL. False: not all rows went in just as they are."""
        quoted = self.dialect.quoted
        blobs = {c.name: f"@hub_{i}" for i, c in enumerate(layout.columns) if c.type.kind == "bytes"}
        fields = ", ".join(blobs.get(name) or quoted(name) for name in names)
        decoded = [f"{quoted(n)} = FROM_BASE64({blobs[n]})" for n in names if n in blobs]
        statement = (
            f"LOAD DATA LOCAL INFILE '{NAME}' INTO TABLE {target} {FORMAT} ({fields})"
            f"{' SET ' + ', '.join(decoded) if decoded else ''}"
        ).replace("%%", "%")
        text = load_text(load) if load.encoded is None else load.encoded
        try:
            with mapped(self._where):
                loaded = self._connection.load(statement, text)
        except FatalError as error:
            if _code(error.__cause__) in _NO_LOCAL_INFILE:
                self._allowed = False
                return False
            raise
        return loaded == (len(load.rows), 0)

    def probe(self, layout: Layout, load: Load) -> None:
        raise AssertionError("MySQL has savepoints")

    def _many(self, ends: tuple[str, str], load: Load) -> None:
        """Statements of many rows, each as long as the server takes."""
        head, tail = (end.replace("%%", "%") for end in ends)
        escape = self._connection.escape
        texts: list[str] = []
        size = 0
        for row in load.rows:
            text = f"({', '.join(['NULL' if cell is None else escape(cell) for cell in row])})"
            if texts and size + len(text) > self._statement_bytes:
                self._run(f"{head}{', '.join(texts)}{tail}")
                texts, size = [], 0
            texts.append(text)
            size += len(text)
        if texts:
            self._run(f"{head}{', '.join(texts)}{tail}")

    def _run(self, text: str) -> None:
        with mapped(self._where), self._connection.cursor() as cursor:
            cursor.execute(text)

    def committed(self) -> None:
        """Nothing more to do."""

    def interrupt(self) -> None:
        """Nothing: it would take a second connection, and statements are short."""

    def close(self) -> None:
        with contextlib.suppress(pymysql.err.Error):
            self._connection.close()


_REFUSALS = frozenset(
    {1048, 1062, 1264, 1265, 1292, 1364, 1366, 1406, 1411, 1451, 1452, 1690, 3140, 3819, 4025}
)
_NO_TEMPORARY = frozenset({1044, 1142, 1227, 1787})
"""May not make temporary tables, or not inside a transaction (`enforce_gtid_consistency`)."""

_NO_LOCAL_INFILE = frozenset({1148, 3948, 4166})
"""The server's `local_infile` was switched off since."""

_PASSING = frozenset(
    {1040, 1053, 1158, 1159, 1160, 1161, 1205, 1213, 1317, 1927, 2002, 2003, 2006, 2013, 2055, 1290}
)


@contextmanager
def mapped(where: str) -> Iterator[None]:
    """PyMySQL's errors as ours, by the server's number."""
    try:
        yield
    except pymysql.err.InterfaceError as error:
        raise TransientError(f"{where}: the connection is closed") from error
    except pymysql.err.Error as error:
        code = _code(error)
        text = str(error.args[1]) if len(error.args) > 1 else str(error)
        if code in _REFUSALS:
            raise Refused(text) from error
        raise (TransientError if code in _PASSING or not code else FatalError)(f"{where}: {text}") from error


def _code(error: BaseException | None) -> int:
    """The server's number of an error; 0 where it has none."""
    found = error.args[0] if isinstance(error, pymysql.err.Error) and error.args else 0
    return found if isinstance(found, int) else 0
