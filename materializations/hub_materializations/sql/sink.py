"""The sink of every SQL materialization: rows, schema changes and cursor in one transaction, under a fence.

The hard thing is that it may die anywhere. The transaction of the rows also moves the cursor in
`hub_cursors`, on the condition that the fence is still ours; so what a restart reads there is what the
tables hold. An outcome that nobody saw (the connection broke inside COMMIT) needs nothing special: the
sink fails, is opened again, and `restore` reads the cursor back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import anyio
import anyio.lowlevel
import anyio.to_thread

from hub import cdc
from hub.errors import FatalError, Fenced, HubError, TransientError
from hub.materialization import Binding, Rejected
from hub.record import BACKFILL, Batch, Cursor, TaskName
from hub.schema import CollectionSchema

from . import statements
from .backfill import Backfills
from .binding import DEFAULT_TABLE, SqlBinding
from .dialect import TableName
from .driver import Driver, Refused
from .layout import Layout
from .parts import times_of
from .plan import found_table, missing_schema, named, planned
from .ready import Ready, Table, ready, times
from .rows import Codec, metadata_of
from .shadow import Shadows
from .underway import Underway
from .writer import Writer, mark_of

ResultT = TypeVar("ResultT")


class SqlSink:
    """An open SQL database. See `hub.materialization.Sink`."""

    def __init__(self, driver: Driver, task: TaskName, careful: set[TaskName]) -> None:
        self._driver = driver
        self._dialect = driver.dialect
        self._task = task
        self._underway = Underway(driver, task)
        self._backfills = Backfills(driver, task, self._underway)
        self._writer = Writer(driver, task, careful, self._backfills)
        self._shadows = Shadows(driver, task, self._underway)
        self._fence = 0
        self._tables: dict[tuple[str, str, str | None], Table] = {}
        self._layouts: dict[tuple[str, str, str | None], Layout] = {}
        """The layouts of the tables themselves, also while rows go beside them."""
        self._ready: dict[int, Ready] = {}
        """Batches that were prepared and not written yet, by identity. Each holds its batch, so that no other has it."""
        self._owners: dict[TableName, str] = {}
        self._after: dict[TableName, list[str]] = {}
        """Statements that are run after the commit, and again at the next start if they fail."""
        self._open = False
        self._written = False
        self._broken = False

    async def restore(self) -> Cursor | None:
        return await self._call(self.restore_now)

    async def describe(self, binding: Binding, schema: CollectionSchema) -> None:
        await self._call(self.describe_now, binding, schema)

    async def prepare(self, binding: Binding, batch: Batch) -> None:
        """See `hub.materialization.Preparing`."""
        table = self._tables.get(_id(binding))
        if table is not None and self._dialect.prepares and not batch.has_marks:
            self._ready[id(batch)] = await anyio.to_thread.run_sync(self._prepared, table, batch)

    async def write(self, binding: Binding, batch: Batch) -> None:
        await self._call(self.write_now, binding, batch)

    async def commit(self, upto: Cursor) -> None:
        await self._call(self.commit_now, upto)

    async def _call(self, function: Callable[..., ResultT], *arguments: Any) -> ResultT:
        """Run in a thread. Cancelled, the statement is interrupted and waited for, so that never two run.

        After an error nobody knows what the transaction holds, so nothing of it may be committed.
        """
        if self._broken:
            raise TransientError(f"{self._task}: the destination has to be opened again")
        self._broken = True
        done = anyio.Event()
        outcomes: list[tuple[ResultT, None] | tuple[None, Exception]] = []

        async def watch() -> None:
            try:
                await done.wait()
            except anyio.get_cancelled_exc_class():
                self._driver.interrupt()
                raise

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            outcomes.append(await anyio.to_thread.run_sync(_outcome, function, arguments))
            done.set()
        value, error = outcomes[0]
        self._broken = error is not None and not isinstance(error, Rejected)
        await anyio.lowlevel.checkpoint_if_cancelled()
        if error is not None:
            raise error
        return cast("ResultT", value)

    def restore_now(self) -> Cursor | None:
        driver, dialect = self._driver, self._dialect
        schema = driver.default_schema
        for text in missing_schema(driver, schema):
            driver.execute(text)
        driver.execute(statements.create_cursor_table(dialect, schema))
        driver.execute(statements.add_task(dialect, schema), (self._task,))
        ((_, _, holder),) = driver.fetch(statements.read_cursor(dialect, schema), (self._task,))
        driver.take_over(holder or "")
        self._begin()
        driver.execute(statements.raise_fence(dialect, schema), (driver.holder, self._task))
        ((fence, cursor, _),) = driver.fetch(statements.read_cursor(dialect, schema), (self._task,))
        self._end("COMMIT")
        self._fence = int(fence)
        self._underway.load()
        return Cursor.decode(cursor.encode()) if cursor else Cursor.START

    def describe_now(self, binding: Binding, schema: CollectionSchema) -> None:
        options = binding.options
        assert isinstance(options, SqlBinding)
        table = self._table_name(binding)
        self._claim(table, binding)
        self._begin()
        if not is_known(schema, options) and self._driver.existing(table) is None:
            # A mark or a truncation before the first document: there is nothing yet that it could concern.
            self._tables.pop(_id(binding), None)
            return
        change = planned(self._driver, table, schema, options)
        if change.misfits:
            listed = "\n  - ".join(change.misfits)
            raise FatalError(f"{schema.collection} does not fit into the table {table}:\n  - {listed}")
        unique = change.rekey is not None and change.rekey.is_unique
        self._alter(change.statements, table, goes_on=unique)
        self._after[table] = change.after
        self._alter(self._backfills.fitting(change.layout), table)
        self._begin()
        self._written |= self._backfills.go_over(change.layout)
        self._layouts[_id(binding)] = layout = change.layout
        replay = self._shadows.replay
        if replay is not None and layout.mode != "upsert":
            layout = self._beside(layout, replay)
        self._tables[_id(binding)] = Table(layout, Codec(layout, self._dialect), schema.collection)

    def write_now(self, binding: Binding, batch: Batch) -> None:
        table = self._tables.get(_id(binding))
        if table is None:
            assert batch.ops is not None, "rows come after a schema that says what they are"
            self._expect(binding, batch)
            return
        made = self._ready.pop(id(batch), None)
        self._begin()
        if batch.has_marks:
            replay = metadata_of(batch, cdc.FROM_LOG)[0]
            if replay is None or table.layout.mode == "upsert":
                self._mark_backfill(table.layout, batch, replay)
            elif batch.op(0) == BACKFILL:
                layout = self._beside(self._layouts[_id(binding)], replay)
                self._tables[_id(binding)] = Table(layout, Codec(layout, self._dialect), table.collection)
            else:
                self._swap()
            return
        if made is None or made.table is not table:
            made = ready(table, batch, self._driver, ahead=False)
        self._writer.write(table, made)
        self._written = True

    def commit_now(self, upto: Cursor) -> None:
        self._begin()
        moved = self._driver.execute(
            statements.move_cursor(self._dialect, self._driver.default_schema),
            (upto.encode().decode(), self._task, self._fence),
        )
        if moved != 1:
            self._end("ROLLBACK")
            raise Fenced(f"{self._task}: a newer writer has taken over (this one had fence {self._fence})")
        self._end("COMMIT")
        self._writer.committed()
        self._underway.committed()
        while self._after:
            with contextlib.suppress(HubError, Refused):
                self._run_all(self._after.popitem()[1])
        self._driver.committed()

    def _begin(self) -> None:
        if not self._open:
            self._driver.execute(self._dialect.begin)
            self._open = True
            self._written = False

    def _end(self, how: str) -> None:
        self._open = False
        self._driver.execute(how)

    def _table_name(self, binding: Binding) -> TableName:
        options = binding.options
        assert isinstance(options, SqlBinding)
        return found_table(self._driver, options.schema or self._driver.default_schema, named(binding))

    def _claim(self, table: TableName, binding: Binding) -> None:
        """Two collections that meet in one table by accident would overwrite each other's rows."""
        options = binding.options
        assert isinstance(options, SqlBinding)
        owner = self._owners.setdefault(table, binding.collection)
        if owner != binding.collection and options.table == DEFAULT_TABLE:
            raise FatalError(
                f"{owner} and {binding.collection} would both be written to the table {table}. Give one of them a "
                "table or schema of its own (`table:` or `schema:` of its binding); if they belong together, say "
                f"so with `table: {table.table}`."
            )

    def _alter(self, texts: Sequence[str], table: TableName, *, goes_on: bool = False) -> None:
        """Run statements that change tables. `goes_on`: what was written before them has to be there already, and may
        be committed with them, ahead of the cursor: it is written again after a crash, by which nothing changes."""
        if texts and not self._dialect.ddl_in_transaction and self._written and not goes_on:
            # The statement would commit what stands before it. The changes only add room, so they are
            # made on their own, and the transaction is read once more.
            self._end("ROLLBACK")
            self._run_all(texts)
            raise TransientError(
                f"the schema of {table} changed inside a transaction; it is written again", retry_after_s=0
            )
        self._run_all(texts)
        if texts and not self._dialect.ddl_in_transaction:
            self._open = self._written = False

    def _mark_backfill(self, layout: Layout, batch: Batch, replay: str | None) -> None:
        """A backfill begins, or has come to its end. To `append`, which keeps what was, it means nothing."""
        if layout.mode == "append":
            return
        if batch.op(0) == BACKFILL:
            self._alter(self._backfills.preparing(layout), layout.table)
            self._begin()
            self._backfills.begin(layout, times_of(batch)[0] if replay is None else replay)
        elif self._backfills.of(layout) is not None and replay in (None, self._backfills.since(layout)):
            # Where the log ends inside a backfill from the source, that one will sweep.
            mark = mark_of(layout) if layout.soft or layout.mode == "history" else None
            self._backfills.sweep(layout, mark, times(batch, self._driver)[0])
        self._written = True

    def _expect(self, binding: Binding, batch: Batch) -> None:
        """A mark or a truncation of a table that there is not yet. Where the log is read again, its rows will come."""
        options = binding.options
        assert isinstance(options, SqlBinding)
        replay = metadata_of(batch, cdc.FROM_LOG)[0]
        if replay is not None and batch.op(0) == BACKFILL and options.mode != "upsert":
            table = self._table_name(binding)
            self._alter(self._underway.preparing(), table)
            self._begin()
            self._shadows.expect(table, replay)
            self._written = True

    def _beside(self, layout: Layout, replay: str) -> Layout:
        """Have rows go beside their table from here on. Returns what they are written by."""
        change = self._shadows.fitting(layout)
        if change.misfits:
            listed = "\n  - ".join(change.misfits)
            raise FatalError(f"{change.layout.table}, where {layout.table} is made anew:\n  - {listed}")
        self._alter([*change.statements, *self._backfills.fitting(change.layout)], layout.table)
        self._begin()
        self._backfills.go_over(change.layout)
        self._shadows.begin(layout.table, replay)
        self._written = True
        return change.layout

    def _swap(self) -> None:
        """Put what was read again from the log in the place of what is there."""
        swapped = {shadow: table for table, shadow in self._shadows.swap()}
        for at, table in self._tables.items():
            layout = self._layouts[at]
            if swapped.get(table.layout.table) == layout.table:
                if layout.mode == "history":
                    self._backfills.follow(layout, table.layout.table)
                self._tables[at] = Table(layout, Codec(layout, self._dialect), table.collection)
        self._written = True

    def _run_all(self, texts: Sequence[str]) -> None:
        for text in texts:
            try:
                self._driver.execute(text)
            except Refused as error:
                raise FatalError(f"{text}: {error}") from error

    def _prepared(self, table: Table, batch: Batch) -> Ready:
        return ready(table, batch, self._driver, ahead=True)


def is_known(schema: CollectionSchema, options: SqlBinding) -> bool:
    """Whether the schema says what the fields of the key are."""
    key = options.key if options.key is not None else schema.key_fields
    return not schema.is_open or set(key) <= schema.schema.get("properties", {}).keys()


def _id(binding: Binding) -> tuple[str, str, str | None]:
    options = binding.options
    assert isinstance(options, SqlBinding)
    return binding.collection, binding.target, options.schema


def _outcome(
    function: Callable[..., ResultT], arguments: Sequence[Any]
) -> tuple[ResultT, None] | tuple[None, Exception]:
    """A call's result or error. Raised inside a task group, the error would come out wrapped."""
    try:
        return function(*arguments), None
    except Exception as error:
        return None, error
