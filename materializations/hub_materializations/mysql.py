"""MySQL 8 and MariaDB as a destination, exactly once.

The hard thing is that a change of schema commits what stands before it. Changes only ever add room, so
they are made on their own, before the transaction's rows; where rows were written already, these are
rolled back and the transaction is read once more (`hub_materializations.sql.sink`).

An older writer that hangs with locks is ended: each holds a named lock, which names its connection.
"""

from __future__ import annotations

import contextlib
import re
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Any, ClassVar

import anyio
import anyio.to_thread
import pymysql
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
    JSON,
    STRING,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    UINT64,
)
from hub.spec import Duration, Secret

from .sql import statements
from .sql.binding import SqlBinding
from .sql.dialect import ALTER_BY_COPY, Converter, Dialect, ExistingColumn, ExistingTable, TableName
from .sql.driver import Refused
from .sql.layout import Layout
from .sql.names import NameRule
from .sql.reduce import Load
from .sql.sink import SqlSink

STATEMENT_BYTES = 4 << 20
"""About how long a statement of many rows gets; a quarter of what the server takes, if that is less."""

LOCK_WAIT_S = 10


class MySQLMaterialization(Materialization, frozen=True, kw_only=True):
    """Keeps tables of a MySQL or MariaDB database in step, exactly once."""

    summary: ClassVar[str] = "Tables of a MySQL or MariaDB database"
    binding_type: ClassVar[type[BindingSpec]] = SqlBinding
    delivery: ClassVar[Delivery] = "exactly once"
    needs_schema: ClassVar[bool] = True

    host: Annotated[str, Meta(description="The server's name or address.")] = "127.0.0.1"
    port: Annotated[int, Meta(description="The server's port.", ge=1, le=65535)] = 3306
    user: Annotated[str, Meta(description="As whom to connect.")]
    password: Annotated[Secret, Meta(description="That user's password.")] = Secret("")
    database: Annotated[str, Meta(description="The database of the tables and of the cursors.", min_length=1)]
    tls: Annotated[
        bool,
        Meta(description="Encrypt the connection and check the server's certificate against the system's."),
    ] = False
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
        found = [Finding(True, f"connected to {self.database} of MySQL {version} as {user}")]
        if str(engine).lower() != "innodb":
            cure = "SET GLOBAL default_storage_engine = InnoDB"
            found.append(Finding(False, f"new tables would use {engine}, which has no transactions", cure))
        return found

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
            connection = pymysql.connect(
                host=self.host,
                port=self.port,
                user=self.user,
                password=self.password.reveal(),
                database=self.database,
                charset="utf8mb4",
                connect_timeout=max(int(self.connect_timeout), 1),
                autocommit=True,
                ssl_verify_cert=self.tls or None,
                ssl_verify_identity=self.tls or None,
                init_command="SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
                f"time_zone = '+00:00', innodb_lock_wait_timeout = {max(int(self.lock_timeout), 1)}",
            )
            with connection.cursor() as cursor:
                cursor.execute("SELECT version(), @@max_allowed_packet")
                version, packet_bytes = cursor.fetchone() or ("", STATEMENT_BYTES)
        mariadb = "mariadb" in version.lower()
        # Binary, and with spaces at the end counted: the database then tells apart what we do.
        collation = "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"
        options = f" ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE {collation}"
        dialect = replace(_DIALECT, table_options=options)
        return _Driver(
            connection, where, self.database, task, dialect, min(STATEMENT_BYTES, packet_bytes // 4)
        )


_INTEGERS = {16: "smallint", 32: "int", 64: "bigint"}
_TYPES = {
    "boolean": "tinyint(1)",
    "date": "date",
    "timestamp": "datetime(6)",
    "timestamptz": "datetime(6) COMMENT 'UTC'",
    "time": "time(6)",
    "timetz": "varchar(32)",
    "interval": "varchar(64)",
    "uuid": "varchar(36)",
    "bytes": "longblob",
    "json": "json",
    "object": "json",
    "array": "json",
}
_COLUMN_TYPES = {
    "tinyint(1)": BOOLEAN,
    "tinyint": INT16,
    "smallint": INT16,
    "mediumint": INT32,
    "int": INT32,
    "bigint": INT64,
    "bigint unsigned": UINT64,
    "float": FLOAT32,
    "double": FLOAT64,
    "longtext": STRING,
    "date": DATE,
    "datetime(6)": TIMESTAMP,
    "datetime(6) COMMENT 'UTC'": TIMESTAMPTZ,
    "time(6)": TIME,
    "longblob": BYTES,
    "varbinary(255)": BYTES,
    "json": JSON,
}
_WITH_NUMBERS = re.compile(r"(decimal|varchar|char)\((\d+)(?:,(\d+))?\)")
_WIDTH = re.compile(r"^(smallint|mediumint|int|bigint|tinyint(?!\(1\)))\(\d+\)")
DECIMAL_DIGITS_MAX = 65
DECIMAL_SCALE_MAX = 30
VARCHAR_LENGTH_MAX = 1000
KEY_LENGTH = 255
"""Characters of a text in a key: InnoDB indexes 3072 bytes, and a character may take four."""


def _sql_type(column: ColumnType) -> str:
    match column.kind:
        case "integer":
            return "bigint unsigned" if column.unsigned else _INTEGERS[column.bits or 64]
        case "float":
            return "float" if column.bits == 32 else "double"
        case "decimal":
            precision, scale = column.precision or 0, column.scale or 0
            fits = 0 < precision <= DECIMAL_DIGITS_MAX and 0 <= scale <= min(precision, DECIMAL_SCALE_MAX)
            return f"decimal({precision},{scale})" if fits else "longtext"
        case "string":
            short = column.length is not None and 0 < column.length <= VARCHAR_LENGTH_MAX
            return f"varchar({column.length})" if short else "longtext"
        case _:
            return _TYPES[column.kind]


def _key_type(column: ColumnType) -> str:
    found = _sql_type(column)
    if found in ("longtext", "json") or (column.kind == "string" and (column.length or 0) > KEY_LENGTH):
        return f"varchar({KEY_LENGTH})"
    return f"varbinary({KEY_LENGTH})" if found == "longblob" else found


def _column_type(text: str) -> ColumnType | None:
    if match := _WITH_NUMBERS.fullmatch(text):
        if match[1] == "decimal":
            return ColumnType("decimal", precision=int(match[2]), scale=int(match[3] or 0))
        return ColumnType("string", length=int(match[2]))
    if text in ("text", "mediumtext", "tinytext"):
        return ColumnType("string", length={"tinytext": 63, "text": 16_383, "mediumtext": 4_194_303}[text])
    return _COLUMN_TYPES.get(text)


def _accepts(text: str, wanted: ColumnType) -> bool:
    """A moment in a column without a zone is in UTC."""
    return text == "datetime(6)" and wanted.kind == "timestamptz"


def _alter(held: ColumnType, wide: ColumnType) -> tuple[str, ...]:
    if held.kind == wide.kind or (held.kind, wide.kind) in (("integer", "decimal"), ("integer", "string")):
        return ("ALTER TABLE {table} MODIFY COLUMN {column} {type}",)
    return ALTER_BY_COPY


def _converted(column: str, held: ColumnType, wide: ColumnType) -> str:
    """A column's values as the new type has them: in their JSON form where they become text or JSON."""
    if wide.kind == "json":
        match held.kind:
            case "boolean":
                return f"IF({column} IS NULL, NULL, IF({column}, 'true', 'false'))"
            case "integer" | "float":
                return f"CAST({column} AS CHAR)"
            case _:
                return f"IF({column} IS NULL, NULL, JSON_QUOTE({_as_text(column, held)}))"
    return _as_text(column, held) if wide.kind == "string" else column


def _as_text(column: str, held: ColumnType) -> str:
    match held.kind:
        case "timestamp" | "timestamptz":
            digits = f"TRIM(TRAILING '0' FROM DATE_FORMAT({column}, '%%Y-%%m-%%dT%%H:%%i:%%s.%%f'))"
            zone = "Z" if held.kind == "timestamptz" else ""
            return f"CONCAT(TRIM(TRAILING '.' FROM {digits}), '{zone}')"
        case "bytes":
            return f"REPLACE(TO_BASE64({column}), '\\n', '')"
        case _:
            return f"CAST({column} AS CHAR)"


def _instant(text: str) -> str:
    """A moment as UTC without an offset, which MariaDB does not read."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"MySQL cannot hold the moment {text!r}") from None
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ")


_DIALECT = Dialect(
    name="MySQL",
    sql_type=_sql_type,
    key_type=_key_type,
    column_type=_column_type,
    alter=_alter,
    converted=_converted,
    converters={
        "timestamptz": Converter(_instant),
        "bytes": Converter(lambda text: b64decode(text, validate=True)),
        "boolean": Converter(int),
        "decimal": Converter(str),
    },
    upsert="on_duplicate_key",
    quote="`",
    parameter="%s",
    names=NameRule(64, folds_case=True, basic_plane=True),
    ddl_in_transaction=False,
    accepts=_accepts,
    drop_not_null="ALTER TABLE {table} MODIFY COLUMN {column} {type} NULL",
    cursor_types=("varchar(255)", "bigint", "longtext"),
    index_current="CREATE INDEX {name} ON {table} ({key}, {current})",
)


class _Driver:
    """One connection to MySQL. See `hub_materializations.sql.driver.Driver`."""

    def __init__(
        self,
        connection: pymysql.connections.Connection[Any],
        where: str,
        database: str,
        task: str,
        dialect: Dialect,
        statement_bytes: int,
    ) -> None:
        self._connection = connection
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
            "SELECT column_name, concat(column_type, if(column_comment = 'UTC', ' COMMENT \\'UTC\\'', '')), is_nullable = 'YES', column_default IS NOT NULL OR "
            "extra LIKE '%%auto_increment%%', extra LIKE '%%GENERATED%%' FROM information_schema.columns "
            "WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
            place,
        )
        checked = self._json_columns(place)
        columns = tuple(
            ExistingColumn(
                name,
                "json" if name in checked else _spelled(text),
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
        return ExistingTable(columns, tuple(tuple(names.split("\0")) for (names,) in uniques))

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

    def insert(self, layout: Layout, load: Load) -> None:
        self._many(statements.insert_ends(self.dialect, layout.table, layout.names, (), ()), load)

    def upsert(self, layout: Layout, load: Load, set_: Sequence[str]) -> None:
        ends = statements.insert_ends(self.dialect, layout.table, layout.names, layout.key_names, set_)
        self._many(ends, load)

    def delete(self, layout: Layout, load: Load) -> None:
        text = statements.delete_row(self.dialect, layout.table, layout.key_names)
        for row in load.rows:
            self.execute(text, row)

    def mark(self, layout: Layout, load: Load, mark: statements.Mark) -> None:
        text = statements.mark_row(self.dialect, layout.table, layout.key_names, mark)
        for row in load.rows:
            self.execute(text, (row[-1], *row[:-1]))

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

    def interrupt(self) -> None:
        """Nothing: it would take a second connection, and statements are short."""

    def close(self) -> None:
        with contextlib.suppress(pymysql.err.Error):
            self._connection.close()


def _spelled(text: str) -> str:
    """A type as `_sql_type` spells it: MariaDB still gives integers a display width."""
    return _WIDTH.sub(r"\1", text)


_REFUSALS = frozenset(
    {1048, 1062, 1264, 1265, 1292, 1364, 1366, 1406, 1411, 1451, 1452, 1690, 3140, 3819, 4025}
)
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
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        text = str(error.args[1]) if len(error.args) > 1 else str(error)
        if code in _REFUSALS:
            raise Refused(text) from error
        raise (TransientError if code in _PASSING or not code else FatalError)(f"{where}: {text}") from error
