"""DuckDB: a warehouse in a file, the embedded default.

The hard thing is that the file belongs to one process. So it is not written to where it is only looked at, and others
are given a copy of it.
"""

from __future__ import annotations

import contextlib
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
from hub.spec import Size

from .sql.binding import SqlBinding
from .sql.duckdb_copy import Copy
from .sql.duckdb_driver import DuckDBDriver, connect
from .sql.plan import plan
from .sql.sink import SqlSink


class DuckDBMaterialization(Materialization, frozen=True, kw_only=True):
    """Keeps tables of a DuckDB file in step, exactly once."""

    summary: ClassVar[str] = "A warehouse in a file, or in memory"
    binding_type: ClassVar[type[BindingSpec]] = SqlBinding
    delivery: ClassVar[Delivery] = "exactly once"
    needs_schema: ClassVar[bool] = True
    sweeps: ClassVar[bool] = True

    path: Annotated[str, Meta(description="The database file. It is made when there is none.", min_length=1)]
    schema: Annotated[
        str, Meta(description="The schema of tables whose binding names none.", min_length=1)
    ] = "main"
    copy: Annotated[
        Copy | None,
        Meta(
            description="A copy of the file for other programs, which cannot open the file itself while the hub "
            "runs. None: no copy."
        ),
    ] = None
    memory: Annotated[
        Size,
        Meta(
            description="How much DuckDB may hold in memory: pages of the file, and what it works on. What is more "
            "goes to disk, into a folder beside the file.",
            ge=64 << 20,
        ),
    ] = Size(1 << 30)
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
        if not Path(self.path).exists():
            return [Finding(True, f"{self.path} will be made")]
        try:
            with contextlib.closing(self._look()) as driver:
                version = driver.fetch("SELECT version()")[0][0]
        except (FatalError, TransientError) as error:
            return [
                Finding(False, str(error), "close the program that has the file open, or name another file")
            ]
        return [Finding(True, f"{self.path} opens with DuckDB {version}")]

    def _look(self) -> DuckDBDriver:
        """A connection for looking only: it makes no file."""
        return connect(self.path if Path(self.path).exists() else ":memory:", None, self.schema)

    async def plan(
        self, task: TaskName, bindings: Sequence[tuple[Binding, CollectionSchema]]
    ) -> Sequence[str]:
        """The statements that a start would run before the first row, after a look at the database."""
        return await anyio.to_thread.run_sync(plan, self._look, bindings)

    @asynccontextmanager
    async def open(self, task: TaskName) -> AsyncIterator[SqlSink]:
        driver = await anyio.to_thread.run_sync(
            connect, self.path, self.storage_version, self.schema, self.copy, self.memory
        )
        try:
            yield SqlSink(driver, task, self._careful)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(driver.close)
