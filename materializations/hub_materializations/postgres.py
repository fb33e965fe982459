"""PostgreSQL as a destination, exactly once.

The hard thing is an older writer that hangs with locks on the rows: it cannot commit any more once the
fence is raised, but it could make the new one wait for ever. So its connection is ended first.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import anyio
import anyio.to_thread
import psycopg
from msgspec import Meta
from psycopg.conninfo import conninfo_to_dict

from hub.capture import Finding
from hub.errors import FatalError, TransientError
from hub.materialization import Binding, BindingSpec, Delivery, Materialization
from hub.record import TaskName
from hub.schema import CollectionSchema
from hub.spec import Duration, Secret

from .sql.binding import SqlBinding
from .sql.plan import plan
from .sql.postgres_driver import PostgresDriver, mapped
from .sql.postgres_types import dialect_of
from .sql.sink import SqlSink

JsonType = Literal["json", "jsonb"]


class PostgresMaterialization(Materialization, frozen=True, kw_only=True):
    """Keeps tables of a PostgreSQL database in step, exactly once."""

    summary: ClassVar[str] = "Tables of a PostgreSQL database"
    binding_type: ClassVar[type[BindingSpec]] = SqlBinding
    delivery: ClassVar[Delivery] = "exactly once"
    needs_schema: ClassVar[bool] = True
    sweeps: ClassVar[bool] = True

    dsn: Annotated[
        Secret,
        Meta(
            description="Where and as whom to connect: `postgresql://user:password@host/database`, or `host=… dbname=…`."
        ),
    ]
    schema: Annotated[
        str,
        Meta(
            description="The schema of tables whose binding names none. It is made when there is none.",
            min_length=1,
        ),
    ] = "public"
    json_type: Annotated[
        JsonType,
        Meta(
            description="The type of new columns for JSON. `json` keeps a document's text to the letter; `jsonb` can "
            "be indexed and compared, and drops repeated keys, the order of keys and cannot hold `\\u0000`."
        ),
    ] = "json"
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
            driver = self._connect()
        except (FatalError, TransientError) as error:
            return [Finding(False, str(error), "see that the server runs and the dsn is right")]
        with contextlib.closing(driver):
            user, database, create, exists, usable = driver.fetch(
                "SELECT current_user::text, current_database()::text, "
                "has_database_privilege(current_database(), 'CREATE'), "
                "EXISTS (SELECT FROM pg_namespace WHERE nspname = $1), "
                "coalesce((SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = $1), false)",
                (self.schema,),
            )[0]
        quoted = driver.dialect.quoted
        found = [Finding(True, f"connected to {database} as {user}")]
        if exists and not usable:
            found.append(
                Finding(
                    False,
                    f"{user} may not make tables in the schema {self.schema}",
                    f"GRANT USAGE, CREATE ON SCHEMA {quoted(self.schema)} TO {quoted(user)}",
                )
            )
        elif not exists and not create:
            found.append(
                Finding(
                    False,
                    f"the schema {self.schema} does not exist and {user} may not make it",
                    f"CREATE SCHEMA {quoted(self.schema)} AUTHORIZATION {quoted(user)}",
                )
            )
        else:
            found.append(Finding(True, f"may make tables in the schema {self.schema}"))
        return found

    async def plan(
        self, task: TaskName, bindings: Sequence[tuple[Binding, CollectionSchema]]
    ) -> Sequence[str]:
        """The statements that a start would run before the first row, after a look at the database."""
        return await anyio.to_thread.run_sync(plan, self._connect, bindings)

    @asynccontextmanager
    async def open(self, task: TaskName) -> AsyncIterator[SqlSink]:
        driver = await anyio.to_thread.run_sync(self._connect, task)
        try:
            yield SqlSink(driver, task, self._careful)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(driver.close)

    def _connect(self, task: str = "check") -> PostgresDriver:
        try:
            place = conninfo_to_dict(self.dsn.reveal())
        except psycopg.ProgrammingError as error:
            raise FatalError("the dsn is not one that libpq understands") from error
        where = f"{place.get('host', 'localhost')}:{place.get('port', 5432)}/{place.get('dbname', '')}"
        with mapped(where):
            connection = psycopg.connect(
                self.dsn.reveal(),
                autocommit=True,
                cursor_factory=psycopg.RawCursor,
                connect_timeout=max(int(self.connect_timeout), 1),
                application_name=f"hub {task}"[:60],
                keepalives_idle=30,
                keepalives_interval=10,
                keepalives_count=3,
                tcp_user_timeout=60_000,
            )
            connection.execute(
                "SELECT set_config('lock_timeout', $1, false), set_config('TimeZone', 'UTC', false), "
                "set_config('DateStyle', 'ISO, MDY', false), set_config('IntervalStyle', 'iso_8601', false), "
                "set_config('client_min_messages', 'warning', false), set_config('synchronous_commit', 'on', false)",
                (str(int(self.lock_timeout * 1000)),),
            )
        return PostgresDriver(connection, where, self.schema, dialect_of(self.json_type))
