"""MySQL 8 and MariaDB as a destination, exactly once.

The hard thing is that a change of schema commits what stands before it. Changes only ever add room, so
they are made on their own, before the transaction's rows; where rows were written already, these are
rolled back and the transaction is read once more (`hub_materializations.sql.sink`).

An older writer that hangs with locks is ended: each holds a named lock, which names its connection.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property
from typing import Annotated, ClassVar

import anyio
import anyio.to_thread
from msgspec import Meta
from pymysql.constants import CLIENT

from hub.capture import Finding
from hub.errors import FatalError, TransientError
from hub.materialization import Binding, BindingSpec, Delivery, Materialization
from hub.record import TaskName
from hub.schema import CollectionSchema
from hub.spec import Duration, Secret

from .sql.binding import SqlBinding
from .sql.mysql_driver import STATEMENT_BYTES, MySQLDriver, mapped
from .sql.mysql_load import LoadingConnection
from .sql.mysql_types import DIALECT
from .sql.plan import plan
from .sql.sink import SqlSink


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

    def _connect(self, task: str) -> MySQLDriver:
        where = f"{self.host}:{self.port}/{self.database}"
        with mapped(where):
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
        return MySQLDriver(
            connection,
            where,
            self.database,
            task,
            dialect,
            statement_bytes=min(STATEMENT_BYTES, packet_bytes // 4),
            loads=(self.local_infile, bool(allowed)),
        )
