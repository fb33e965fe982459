"""Connections to the source: settings under which text forms are stable, and errors told apart.

Every session, for queries and for replication, has the same output settings, so that a value reads the
same in the snapshot and in the stream. The hard thing is secrets: no error may quote the connection string.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import anyio
import psycopg
from psycopg import conninfo

from hub.errors import FatalError, HubError, TransientError

CONNECT_TIMEOUT_S = 15
PASSWORD_COMMAND_TIMEOUT_S = 30

_SETTINGS = {
    "datestyle": "ISO,MDY",
    "intervalstyle": "iso_8601",
    "timezone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmlbinary": "base64",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_read_only": "off",
    "search_path": "pg_catalog",
    # Rows that a policy hides would be missing without a word; with this, the server refuses instead.
    "row_security": "off",
    # The little that hub writes must not wait for a standby.
    "synchronous_commit": "local",
}
_SINCE = (("idle_session_timeout", "0", 14), ("transaction_timeout", "0", 17))
"""The same that servers know only since a major version, and would refuse a session for before."""
_WALSENDER_SETTINGS = {"wal_sender_timeout": "120s"}
_KEEPALIVE = {
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}

Connection = psycopg.AsyncConnection[Any]

LOCK_WAIT_MS = 300
"""The stream is held while a chunk is read or the publication altered, so nobody's lock is waited for longer than this."""
LOCK_NOT_AVAILABLE = "55P03"
GONE = ("42P01", "3F000")
"""There is no such table, no such schema."""
UNDEFINED_COLUMN = "42703"

_TRANSIENT_CLASSES = ("08", "40", "53", "57", "58")
_TRANSIENT_STATES = ("55006", "25006", LOCK_NOT_AVAILABLE)
"""Object in use (a slot somebody else still holds), read-only transaction (a failover), lock not available."""


def connection_string_problem(dsn: str) -> str | None:
    """What is wrong with a connection string, without quoting it: libpq would show the part that it does not
    understand, which may be the password."""
    try:
        conninfo.conninfo_to_dict(dsn)
    except psycopg.Error:
        return (
            "not a PostgreSQL connection string; expected postgresql://user:password@host:5432/database "
            "or host=… port=… dbname=… user=…"
        )
    return None


class Server:
    """How to reach the source. `parameters` are libpq's; they never appear in a message."""

    def __init__(self, dsn: str, *, application_name: str, password_command: Sequence[str] = ()) -> None:
        if complaint := connection_string_problem(dsn):
            raise FatalError(f"dsn: {complaint}")
        self._parameters: dict[str, Any] = conninfo.conninfo_to_dict(dsn)
        self._application_name = application_name
        self._password_command = tuple(password_command)

    @property
    def name(self) -> str:
        """Where it is, for messages: host, port and database."""
        given = self._parameters
        return f"{given.get('host') or given.get('service') or 'localhost'}:{given.get('port') or 5432}/{given.get('dbname', '')}"

    @contextlib.asynccontextmanager
    async def connected(self, *, replication: bool = False) -> AsyncIterator[Connection]:
        """A session with autocommit, closed at the end."""
        connection = await self._connect(replication)
        try:
            yield connection
        finally:
            with anyio.CancelScope(shield=True):
                # Closing sends one message and waits for nothing.
                await connection.close()

    async def parameters(self, *, replication: bool = False) -> dict[str, Any]:
        """What a session is opened with, the password included."""
        settings = _SETTINGS | (_WALSENDER_SETTINGS if replication else {})
        given = str(self._parameters.get("options") or "")
        options = " ".join([given, *(f"-c {name}={value}" for name, value in settings.items())])
        parameters = {
            "application_name": self._application_name,
            "connect_timeout": CONNECT_TIMEOUT_S,
            **_KEEPALIVE,
            **self._parameters,
            "options": options.strip(),
            "client_encoding": "UTF8",
        }
        if self._password_command:
            parameters["password"] = await self._password()
        if replication:
            parameters["replication"] = "database"
        return parameters

    async def _connect(self, replication: bool) -> Connection:
        parameters = await self.parameters(replication=replication)
        with mapped(f"cannot connect to {self.name}"):
            made = await psycopg.AsyncConnection.connect(
                **parameters, autocommit=True, prepare_threshold=None
            )
        try:
            await execute(made, "preparing the session", settings_since(made.info.server_version))
        except BaseException:
            await made.close()
            raise
        return made

    async def _password(self) -> str:
        command = list(self._password_command)
        try:
            with anyio.fail_after(PASSWORD_COMMAND_TIMEOUT_S):
                done = await anyio.run_process(command, check=False, stderr=subprocess.PIPE)
        except TimeoutError as error:
            raise TransientError(
                f"password_command: {command[0]} did not end within {PASSWORD_COMMAND_TIMEOUT_S} s"
            ) from error
        except OSError as error:
            raise FatalError(f"password_command: cannot run {command[0]}: {error.strerror}") from error
        if done.returncode:
            complaint = done.stderr.decode(errors="replace").strip()[-500:]
            raise TransientError(f"password_command: {command[0]} ended with {done.returncode}: {complaint}")
        return done.stdout.decode().rstrip("\r\n")


def settings_since(version: int) -> str:
    """What is still to be set in a session once the server's version is known, as it is: 180004."""
    known = [f"SET {name} = {value}" for name, value, since in _SINCE if version // 10000 >= since]
    return "; ".join(known)


@contextlib.contextmanager
def mapped(doing: str) -> Iterator[None]:
    """Turn psycopg's errors into ours, with what was being done in front."""
    try:
        yield
    except psycopg.Error as error:
        raise error_of(error.sqlstate, f"{doing}: {_said(error)}") from error


def error_of(sqlstate: str | None, message: str) -> HubError:
    """The error for a state that the server reported; None is a lost connection. `sqlstate_of` reads it back."""
    made = _error_of(sqlstate, message)
    made.__dict__["sqlstate"] = sqlstate
    return made


def sqlstate_of(error: BaseException) -> str | None:
    """The state that the server reported with an error, if it was the server's."""
    return error.__dict__.get("sqlstate")


def _error_of(sqlstate: str | None, message: str) -> HubError:
    if sqlstate is None or sqlstate[:2] in _TRANSIENT_CLASSES or sqlstate in _TRANSIENT_STATES:
        if "certificate" in message or "password authentication failed" in message:
            return FatalError(message)
        return TransientError(message)
    return FatalError(message)


def _said(error: psycopg.Error) -> str:
    text = " ".join(str(error).split())
    hint = error.diag.message_hint
    return f"{text} (hint: {hint})" if hint and hint not in text else text


async def rows(
    connection: Connection, doing: str, query: str, parameters: Any = None
) -> list[tuple[Any, ...]]:
    """All rows of a query; errors say what was being done."""
    with mapped(doing):
        return await (await connection.execute(query.encode(), parameters)).fetchall()


async def execute(connection: Connection, doing: str, statement: str) -> None:
    """Run a statement without parameters; errors say what was being done."""
    with mapped(doing):
        await connection.execute(statement.encode())


async def replication_command(
    connection: Connection, doing: str, command: str
) -> list[dict[str, str | None]]:
    """Run a command of the replication protocol; its rows by column name."""
    with mapped(doing):
        cursor = await connection.execute(command.encode())
        names = [column.name for column in cursor.description or ()]
        found = await cursor.fetchall() if names else []
    return [
        {name: None if value is None else _text(value) for name, value in zip(names, row, strict=True)}
        for row in found
    ]


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def quoted(identifier: str) -> str:
    """A name as SQL: whatever it holds, it stays one identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(value: str) -> str:
    """A text as SQL, whatever it holds."""
    escaped = value.replace("'", "''")
    return " E'" + escaped.replace("\\", "\\\\") + "'" if "\\" in value else f"'{escaped}'"
