"""MySQL 8 and MariaDB as a destination, exactly once.

The hard thing is that a change of schema commits what stands before it. Changes only ever add room, so
they are made on their own, before the transaction's rows; where rows were written already, these are
rolled back and the transaction is read once more (`hub_materializations.sql.sink`).

An older writer that hangs with locks is ended: each holds a named lock, which names its connection.

Many rows go in by LOAD DATA LOCAL where server and user allow it, straight into the table where rows should be new,
else through a temporary table; elsewhere by statements of many rows. Measured with ten columns: 274 000 rows/s
loaded, 190 000 through a temporary table, 80 000 by statements, whose text costs five times the processor time.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Any, ClassVar

import anyio
import anyio.to_thread
import pymysql
from msgspec import Meta
from pymysql.constants import CLIENT

from hub.capture import Finding
from hub.errors import FatalError, TransientError
from hub.materialization import Binding, BindingSpec, Delivery, Materialization
from hub.record import TaskName
from hub.schema import CollectionSchema
from hub.spec import Duration, Secret

from .sql import statements
from .sql.binding import SqlBinding
from .sql.dialect import Cast, Dependent, Dialect, ExistingColumn, ExistingTable, TableName
from .sql.driver import Refused
from .sql.layout import Layout
from .sql.mysql_load import FORMAT, NAME, LoadingConnection, load_text
from .sql.mysql_rebuild import OWN_KEY, indexes_of, moved, rebuilt, rekeyed
from .sql.mysql_types import DIALECT, spelled
from .sql.plan import plan
from .sql.reduce import Load
from .sql.rekey import Rekey
from .sql.sink import SqlSink

STATEMENT_BYTES = 4 << 20
"""About how long a statement of many rows gets; a quarter of what the server takes, if that is less."""

LOCK_WAIT_S = 10

ROWS_SMALL = 100
"""Up to here rows go in by statements: no staging table, one round trip."""

DIRECT_OFF = 50
"""Loads for which loading straight into the table is not tried again after it met a key that was there."""


class MySQLMaterialization(Materialization, frozen=True, kw_only=True):
    """Keeps tables of a MySQL or MariaDB database in step, exactly once."""

    summary: ClassVar[str] = "Tables of a MySQL or MariaDB database"
    binding_type: ClassVar[type[BindingSpec]] = SqlBinding
    delivery: ClassVar[Delivery] = "exactly once"
    needs_schema: ClassVar[bool] = True
    sweeps: ClassVar[bool] = True

    host: Annotated[str, Meta(description="The server's name or address.")] = "127.0.0.1"
    port: Annotated[int, Meta(description="The server's port.", ge=1, le=65535)] = 3306
    user: Annotated[str, Meta(description="As whom to connect.")]
    password: Annotated[Secret, Meta(description="That user's password.")] = Secret("")
    database: Annotated[str, Meta(description="The database of the tables and of the cursors.", min_length=1)]
    tls: Annotated[
        bool,
        Meta(description="Encrypt the connection and check the server's certificate against the system's."),
    ] = False
    local_infile: Annotated[
        bool,
        Meta(
            description="Load many rows by LOAD DATA LOCAL where the server allows it (`local_infile`). The server is "
            "sent the rows and can read no file. `false`: statements of many rows."
        ),
    ] = True
    connect_timeout: Annotated[Duration, Meta(description="How long to wait for a connection.")] = Duration(
        10
    )
    lock_timeout: Annotated[
        Duration,
        Meta(
            description="How long to wait for a lock that somebody else holds before the transaction is tried anew."
        ),
    ] = Duration(30)

    @cached_property
    def _careful(self) -> set[TaskName]:
        return set()

    async def check(self, task: TaskName) -> Sequence[Finding]:
        return await anyio.to_thread.run_sync(self._check)

    def _check(self) -> Sequence[Finding]:
        try:
            driver = self._connect("check")
        except (FatalError, TransientError) as error:
            return [
                Finding(
                    False, str(error), "see that the server runs, and user, password and database are right"
                )
            ]
        with contextlib.closing(driver):
            version, user = driver.fetch("SELECT version(), current_user()")[0]
            engine = driver.fetch("SELECT @@default_storage_engine")[0][0]
            way = driver.way
        found = [
            Finding(True, f"connected to {self.database} of MySQL {version} as {user}"),
            Finding(True, way),
        ]
        if str(engine).lower() != "innodb":
            cure = "SET GLOBAL default_storage_engine = InnoDB"
            found.append(Finding(False, f"new tables would use {engine}, which has no transactions", cure))
        return found

    async def plan(
        self, task: TaskName, bindings: Sequence[tuple[Binding, CollectionSchema]]
    ) -> Sequence[str]:
        """The statements that a start would run before the first row, after a look at the database."""
        return await anyio.to_thread.run_sync(self._plan, bindings)

    def _plan(self, bindings: Sequence[tuple[Binding, CollectionSchema]]) -> Sequence[str]:
        with contextlib.closing(self._connect("plan")) as driver:
            way = driver.way
        return [*plan(lambda: self._connect("plan"), bindings), f"-- {way}"]

    @asynccontextmanager
    async def open(self, task: TaskName) -> AsyncIterator[SqlSink]:
        driver = await anyio.to_thread.run_sync(self._connect, task)
        try:
            yield SqlSink(driver, task, self._careful)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(driver.close)

    def _connect(self, task: str) -> _Driver:
        where = f"{self.host}:{self.port}/{self.database}"
        with _mapped(where):
            connection = LoadingConnection(
                host=self.host,
                port=self.port,
                user=self.user,
                password=self.password.reveal(),
                database=self.database,
                charset="utf8mb4",
                connect_timeout=max(int(self.connect_timeout), 1),
                autocommit=True,
                # A commit must hit its row of cursors, also when the cursor stays what it is.
                client_flag=CLIENT.FOUND_ROWS,
                local_infile=self.local_infile,
                ssl_verify_cert=self.tls or None,
                ssl_verify_identity=self.tls or None,
                init_command="SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
                f"time_zone = '+00:00', innodb_lock_wait_timeout = {max(int(self.lock_timeout), 1)}, "
                f"lock_wait_timeout = {max(int(self.lock_timeout), 1)}",
            )
            with connection.cursor() as cursor:
                cursor.execute("SELECT version(), @@max_allowed_packet, @@local_infile")
                version, packet_bytes, allowed = cursor.fetchone() or ("", STATEMENT_BYTES, 0)
        mariadb = "mariadb" in version.lower()
        # Binary, and with spaces at the end counted: the database then tells apart what we do.
        collation = "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"
        options = f" ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE {collation}"
        dialect = replace(DIALECT, table_options=options)
        return _Driver(
            connection,
            where,
            self.database,
            task,
            dialect,
            statement_bytes=min(STATEMENT_BYTES, packet_bytes // 4),
            loads=(self.local_infile, bool(allowed)),
        )


class _Driver:
    """One connection to MySQL. See `hub_materializations.sql.driver.Driver`."""

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
        with _mapped(self._where), self._connection.cursor() as cursor:
            return int(cursor.execute(statement, tuple(parameters)))

    def fetch(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with _mapped(self._where), self._connection.cursor() as cursor:
            cursor.execute(statement, tuple(parameters))
            return list(cursor.fetchall())

    def existing(self, table: TableName) -> ExistingTable | None:
        place = (table.schema, table.table)
        found = self.fetch(
            "SELECT table_type FROM information_schema.tables WHERE table_schema = %s AND table_name = BINARY %s",
            place,
        )
        if not found:
            return None
        if found != [("BASE TABLE",)]:
            return ExistingTable((), is_view=True)
        rows = self.fetch(
            "SELECT column_name, concat(column_type, if(column_comment IN ('UTC', 'JSON'), concat(' COMMENT ', quote(column_comment)), '')), is_nullable = 'YES', column_default IS NOT NULL OR "
            "extra LIKE '%%auto_increment%%', extra LIKE '%%GENERATED%%' FROM information_schema.columns "
            "WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
            place,
        )
        checked = self._json_columns(place)
        columns = tuple(
            ExistingColumn(
                name,
                "json" if name in checked else spelled(text),
                bool(nullable),
                bool(default),
                bool(generated),
            )
            for name, text, nullable, default, generated in rows
        )
        uniques = self.fetch(
            "SELECT group_concat(column_name ORDER BY seq_in_index SEPARATOR 0x00) FROM information_schema.statistics "
            "WHERE table_schema = %s AND table_name = %s AND non_unique = 0 AND sub_part IS NULL "
            "GROUP BY index_name ORDER BY index_name <> 'PRIMARY', index_name",
            place,
        )
        keys = {
            name: (tuple(names.split("\0")), is_own)
            for name, names, is_own in self.fetch(OWN_KEY, (*place, table.current_index(self.dialect)))
        }
        declared, is_own = keys.pop("PRIMARY", ((), False))
        index, (versioned, _) = next(iter(keys.items()), ("", ((), False)))
        return ExistingTable(
            columns,
            tuple(tuple(names.split("\0")) for (names,) in uniques),
            own_key=declared if is_own else (),
            current_key=versioned[:-1],
            current_index=index,
            key_name="PRIMARY" if declared else "",
        )

    def dependents(self, table: TableName, columns: Sequence[str]) -> list[Dependent]:
        """None: views of MySQL go by name."""
        return []

    def rebuild(
        self, table: TableName, existing: ExistingTable, casts: Mapping[str, Cast], rekey: Rekey | None = None
    ) -> list[str]:
        keyed = rekeyed(rekey, table, self.dialect) if rekey is not None else []
        if not casts:
            return keyed
        place = (table.schema, table.table)
        parts = self.fetch(
            "SELECT index_name, non_unique, index_type, index_comment, column_name, sub_part, collation = 'D' "
            "FROM information_schema.statistics WHERE table_schema = %s AND table_name = %s "
            "ORDER BY index_name, seq_in_index",
            place,
        )
        told = self.fetch(
            "SELECT column_name, column_comment FROM information_schema.columns "
            "WHERE table_schema = %s AND table_name = %s AND column_comment NOT IN ('', 'UTC', 'JSON')",
            place,
        )
        indexes = indexes_of(parts)
        if rekey is not None:
            indexes = moved(rekey, existing, indexes)
        return [*keyed, *rebuilt(table, existing, casts, list(indexes.values()), dict(told), self.dialect)]

    def _json_columns(self, place: tuple[str | None, str]) -> set[str]:
        """In MariaDB, a JSON column is text with the check ``json_valid(`name`)``."""
        if "MariaDB" not in self.fetch("SELECT version()")[0][0]:
            return set()
        found = self.fetch(
            "SELECT check_clause FROM information_schema.check_constraints "
            "WHERE constraint_schema = %s AND table_name = %s AND check_clause LIKE 'json_valid(%%'",
            place,
        )
        return {clause[12:-2].replace("``", "`") for (clause,) in found}

    def spellings(self, table: TableName) -> list[str]:
        found = self.fetch(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s AND lower(table_name) = lower(%s)",
            (table.schema, table.table),
        )
        return [name for (name,) in found]

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
            with _mapped(self._where):
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
        with _mapped(self._where), self._connection.cursor() as cursor:
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
def _mapped(where: str) -> Iterator[None]:
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
