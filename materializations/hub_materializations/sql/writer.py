"""A batch's rows go into their table, and the records that the database refuses are named.

The hard thing is that a database refuses a statement, not a row. So what was written of the batch is taken back, and
the row is searched for (`search`). Where there are no savepoints the refusal costs the whole transaction; on the
second try the rows are looked at before they are written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hub.errors import FatalError, TransientError
from hub.materialization import Rejected
from hub.record import Batch, TaskName

from . import statements
from .backfill import Backfills, Sweep, repeated_reads
from .driver import Driver, Refused
from .layout import Layout
from .parts import unchanged_of
from .ready import Part, Ready, Table, times
from .reduce import Load
from .rows import Row, Rows
from .search import refused_rows
from .versions import versions


class Writer:
    """Writes rows in the open transaction of one task."""

    def __init__(self, driver: Driver, task: TaskName, careful: set[TaskName], backfills: Backfills) -> None:
        self._driver = driver
        self._dialect = driver.dialect
        self._task = task
        self._careful = careful
        """Tasks whose rows are looked at before they are written, after a refusal cost a whole transaction."""
        self._backfills = backfills

    def write(self, table: Table, made: Ready) -> None:
        """Write a batch, or nothing of it: `Rejected` names the records that stand against it."""
        sweep = self._backfills.of(table.layout) if table.layout.mode != "append" else None
        if sweep is not None and table.layout.mode == "history":
            self._backfills.comparing(table.layout, sweep)
        if self._dialect.savepoints:
            self._driver.execute("SAVEPOINT hub_write")
        rejected = made.rejected
        for part in made.parts:
            try:
                self._write_part(table, part, sweep)
            except Rejected as refusal:
                rejected |= {part.start + index: reason for index, reason in refusal.reasons.items()}
        if self._dialect.savepoints:
            if rejected:
                self._driver.execute("ROLLBACK TO SAVEPOINT hub_write")
            self._driver.execute("RELEASE SAVEPOINT hub_write")
        if rejected:
            raise Rejected(rejected)

    def committed(self) -> None:
        """The transaction has ended well, whatever was refused before."""
        self._careful.discard(self._task)

    def _write_part(self, table: Table, part: Part, sweep: Sweep | None) -> None:
        layout, rows = table.layout, part.rows
        if rows is None:
            self._truncate(layout, part.batch)
            return
        if layout.mode == "history":
            self._write_versions(table, rows, sweep)
            return
        change = part.change
        assert change is not None, "only a history has to see the table first"
        if change.deletes is not None:
            self._load(layout, change.deletes, self._delete)
        for names, load in change.partials.items():
            self._load(layout, load, self._setting(layout, names))
        if change.upserts is not None:
            add = self._driver.insert if layout.mode == "append" else self._setting(layout, frozenset())
            self._load(layout, change.upserts, add)
        if sweep is not None:
            self._backfills.saw(sweep, rows)

    def _write_versions(self, table: Table, rows: Rows, sweep: Sweep | None) -> None:
        """New versions; a row that is read again in a backfill and is as it was makes none."""
        layout, part = table.layout, rows.batch
        skipped: set[int] = set()
        if sweep is not None:
            end = repeated_reads(rows)
            if end is not None:
                for run in (range(end), range(end, part.count)):
                    with renumbered(run):
                        self._write_versions(table, table.codec.read(part.take(run)), sweep)
                return
            skipped = self._backfills.nothing_new(layout, sweep, rows, self._compare)
        keep = [index for index in range(part.count) if index not in skipped]
        fresh = table.codec.read(part.take(keep)) if skipped else rows
        with renumbered(keep):
            made = versions(
                fresh,
                kept=unchanged_of(fresh.batch),
                times=times(fresh.batch, self._driver),
                current=self._current(layout),
            )
            self._load(layout, made.closed, self._mark)
            self._load(layout, made.added, self._driver.insert)
        if sweep is not None:
            self._backfills.saw(sweep, rows)

    def _compare(self, compared: Layout, load: Load) -> None:
        self._load(compared, load, self._driver.insert)

    def _delete(self, layout: Layout, load: Load) -> None:
        if layout.soft:
            self._mark(layout, load)
        else:
            self._driver.delete(layout, load)

    def _mark(self, layout: Layout, load: Load) -> None:
        self._driver.mark(layout, load, mark_of(layout))

    def _current(self, layout: Layout) -> Callable[[Row], Mapping[str, Any]]:
        statement = statements.current_version(self._dialect, layout)
        names = [column.name for column in layout.columns if column.origin == "field"]

        def current(key: Row) -> Mapping[str, Any]:
            found = self._driver.fetch(statement, key)
            return dict(zip(names, found[0], strict=True)) if found else {}

        return current

    def _setting(self, layout: Layout, kept: frozenset[str]) -> Callable[[Layout, Load], None]:
        """An upsert that leaves the fields `kept` of a row that is there alone."""
        set_ = [
            column.name
            for column in layout.columns
            if not column.in_key and not (column.origin == "field" and column.path[0] in kept)
        ]
        return lambda layout, load: self._driver.upsert(layout, load, set_)

    def _truncate(self, layout: Layout, part: Batch) -> None:
        if layout.soft or layout.mode == "history":
            statement = statements.mark_all(self._dialect, layout.table, mark_of(layout))
            self._driver.execute(statement, (times(part, self._driver)[-1],))
        else:
            self._driver.execute(statements.truncate(self._dialect, layout.table))

    def _load(self, layout: Layout, load: Load, apply: Callable[[Layout, Load], None]) -> None:
        """Bring rows into the table; `Rejected` names the records that the database refuses."""
        if not self._dialect.savepoints and self._task in self._careful:
            self._probe(layout, load)
            load = Load(load.rows, load.origin)
        try:
            apply(layout, load)
        except Refused as error:
            if self._dialect.savepoints:
                raise self._rejected(layout, load, self._again(apply), error) from error
            if self._task in self._careful:
                raise FatalError(f"the table {layout.table} refuses rows: {error}") from error
            self._careful.add(self._task)
            raise TransientError(
                f"{layout.table} refused rows, which are looked for on a second try: {error}", retry_after_s=0
            ) from error

    def _again(self, apply: Callable[[Layout, Load], None]) -> Callable[[Layout, Load], None]:
        def attempt(layout: Layout, load: Load) -> None:
            self._driver.execute("ROLLBACK TO SAVEPOINT hub_write")
            apply(layout, load)

        return attempt

    def _probe(self, layout: Layout, load: Load) -> None:
        try:
            self._driver.probe(layout, load)
        except Refused as error:
            raise self._rejected(layout, load, self._driver.probe, error) from error

    def _rejected(
        self, layout: Layout, load: Load, attempt: Callable[[Layout, Load], None], error: Refused
    ) -> Exception:
        reasons = refused_rows(load, lambda some: attempt(layout, some))
        if not reasons:
            return FatalError(f"the table {layout.table} refuses rows that it takes one by one: {error}")
        return Rejected({index: f"table {layout.table}: {reason}" for index, reason in reasons.items()})


def mark_of(layout: Layout) -> statements.Mark:
    """What a delete sets where it does not delete."""
    columns = layout.columns
    if layout.mode == "history":
        return statements.Mark(
            columns[layout.index("valid_to")].name, columns[layout.index("is_current")].name
        )
    return statements.Mark(columns[layout.index("deleted_at")].name)


@contextlib.contextmanager
def renumbered(indexes: Sequence[int]) -> Iterator[None]:
    """Inside, record `i` is what outside is record `indexes[i]`."""
    try:
        yield
    except Rejected as refusal:
        raise Rejected({indexes[index]: reason for index, reason in refusal.reasons.items()}) from refusal
