"""SQLite: tables in one file that every language can read, exactly once.

The hard thing is that others have the file open, too. With a write-ahead log, readers go on beside the writer; another
writer is waited for.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

import anyio
import anyio.to_thread
from msgspec import Meta

from hub.capture import Finding
from hub.errors import FatalError, TransientError
from hub.materialization import Binding, BindingSpec, Delivery, Materialization
from hub.record import TaskName
from hub.schema import CollectionSchema
from hub.spec import Duration

from .sql.binding import SqlBinding
from .sql.plan import plan
from .sql.sink import SqlSink
from .sql.sqlite_driver import SQLiteDriver, mapped


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

    def _look(self) -> SQLiteDriver:
        """A connection for looking only: it makes no file."""
        if Path(self.path).exists():
            return SQLiteDriver(
                sqlite3.connect(f"{Path(self.path).absolute().as_uri()}?mode=ro", uri=True), self.path
            )
        return SQLiteDriver(sqlite3.connect(":memory:"), self.path)

    def _connect(self) -> SQLiteDriver:
        with mapped(self.path):
            connection = sqlite3.connect(
                self.path, timeout=self.lock_timeout, isolation_level=None, check_same_thread=False
            )
            # Readers go on beside the writer, and a commit is on disk when it returns.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        return SQLiteDriver(connection, self.path)
