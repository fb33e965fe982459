"""Mark and sweep: while a collection is read again, the destination remembers which keys it has seen.

The hard thing is that a backfill takes hours and the hub may die in any of them. So the keys are in a table
of their own, and that a backfill goes on is a row of `hub_backfills`; both are written in the transactions
that bring the rows and move the cursor. A restart finds them as the cursor left them, and the sweep is one
statement in the transaction of the mark that asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from hub.record import DELETE, READ
from hub.schema.types import INT32

from . import statements
from .dialect import Dialect, ExistingTable, TableName
from .driver import Driver
from .evolve import changes
from .layout import Layout, LayoutColumn
from .plan import complete
from .reduce import Load
from .rows import Row, Rows
from .underway import Underway

PREFIX = "hub_seen_"

_INDEX = "hub_index"


@dataclass(frozen=True, slots=True)
class Sweep:
    """A backfill that goes on for one table. `seen` holds its key columns, `compared` its fields: a history's
    read rows are put there to find out which of them say nothing new."""

    seen: Layout
    compared: Layout


class Backfills:
    """The backfills of one task, as its transactions see them."""

    def __init__(self, driver: Driver, task: str, underway: Underway) -> None:
        self._driver = driver
        self._dialect: Dialect = driver.dialect
        self._task = task
        self._underway = underway
        self._compared: dict[TableName, Layout] = {}

    def of(self, layout: Layout) -> Sweep | None:
        """The backfill that goes on for this table."""
        seen = self._seen(layout)
        if seen.table not in self._underway.rows:
            return None
        fields = tuple(column for column in layout.columns if column.origin == "field")
        index = LayoutColumn(_INDEX, INT32, INT32, False, "metadata", (_INDEX,))
        compared = TableName(None, seen.table.replace("seen", "read"))
        return Sweep(_keys(layout, seen), Layout(compared, (*fields, index), "append", False))

    def preparing(self, layout: Layout) -> list[str]:
        """The statements that make tables, before a backfill may begin."""
        seen, made = self._seen(layout), self._underway.preparing()
        there, table = self._driver.existing(seen), self._driver.existing(layout.table)
        assert table is not None
        if there is not None and _types(layout, there) == _types(layout, table):
            return made
        if there is not None:
            made.append(f"DROP TABLE {seen.sql(self._dialect)}")
        return [*made, *_create(layout, table, seen, self._dialect)]

    def begin(self, layout: Layout, since: str) -> None:
        """From here on, keys are remembered; what an earlier backfill has remembered is not."""
        seen = self._seen(layout)
        self._driver.execute(statements.truncate(self._dialect, seen))
        self._underway.begin(seen, str(layout.table), since)

    def since(self, layout: Layout) -> str | None:
        """Since when the backfill of this table goes on."""
        row = self._underway.rows.get(self._seen(layout).table)
        return row.since if row is not None else None

    def follow(self, layout: Layout, other: TableName) -> None:
        """The rows of another table have become those of this one; so have the keys that were remembered of them."""
        seen, theirs = self._seen(layout), self._seen(replace(layout, table=other))
        if theirs.table not in self._underway.rows:
            return
        if seen.table in self._underway.rows:
            self._driver.execute(statements.truncate(self._dialect, seen))
            self._driver.execute(
                statements.insert_from(self._dialect, seen, layout.key_names, theirs.sql(self._dialect))
            )
        self._underway.over(theirs)
        self._underway.drop(theirs)

    def fitting(self, layout: Layout) -> list[str]:
        """The statements that give the remembered keys the types that the table's key has by now; or that make room
        to remember them by other columns, before `go_over`."""
        seen = self._seen(layout)
        if seen.table not in self._underway.rows:
            there, table = self._driver.existing(seen), self._driver.existing(layout.table)
            if self._former(layout) is None or table is None:
                return []
            if there is not None and _types(layout, there) == _types(layout, table):
                return []
            left = [f"DROP TABLE {seen.sql(self._dialect)}"] if there is not None else []
            return [*left, *_create(layout, table, seen, self._dialect)]
        there, table = self._driver.existing(seen), self._driver.existing(layout.table)
        assert there is not None and table is not None
        if _types(layout, there) == _types(layout, table):
            return []
        found = changes(_keys(layout, seen), there, self._dialect, evolution="evolve", clash="rebuild")
        complete(found, seen, there, self._driver)
        return found.statements

    def _former(self, layout: Layout) -> TableName | None:
        """Where the keys of this table are remembered by the columns that were its key, in a backfill that goes on."""
        if layout.mode == "append":
            return None
        seen, target = self._seen(layout), str(layout.table)
        names = (name for name, row in self._underway.rows.items() if row.target == target)
        return next(
            (
                TableName(seen.schema, name)
                for name in names
                if name.startswith(PREFIX) and name != seen.table
            ),
            None,
        )

    def go_over(self, layout: Layout) -> bool:
        """If the key of the table has gone over to other columns, remember the rows of before by these."""
        seen, former = self._seen(layout), self._former(layout)
        if former is None or seen.table in self._underway.rows:
            return False
        dialect = self._dialect
        there, table = self._driver.existing(former), self._driver.existing(layout.table)
        assert there is not None and table is not None
        old = tuple(column.name for column in there.columns)
        row = self._underway.rows[former.table]
        self._driver.execute(statements.truncate(dialect, seen))
        # Where somebody has renamed a column, it is not known any more which rows were read: none may be swept.
        if all(table.column(name) is not None for name in old):
            cells = ", ".join(f"t.{dialect.quoted(name)}" for name in layout.key_names)
            text = (
                f"INSERT INTO {seen.sql(dialect)} ({dialect.listed(layout.key_names)}) SELECT DISTINCT {cells} "
                f"FROM {layout.table.sql(dialect)} AS t JOIN {former.sql(dialect)} AS s ON {statements.joined(dialect, old)}"
            )
            if layout.mode == "history":
                # A version that has ended may have had what is another row's key by now.
                text += f" WHERE t.{dialect.quoted(layout.columns[layout.index('is_current')].name)}"
            self._driver.execute(text)
            self._underway.begin(seen, row.target, row.since)
        self._underway.over(former)
        self._underway.drop(former)
        return True

    def saw(self, sweep: Sweep, rows: Rows) -> None:
        """Remember the keys of the rows that were read or written."""
        ops = rows.batch.ops or b"c" * rows.count
        keys = {
            key: rows.codec.key_row(row)
            for key, op, row in zip(rows.keys, ops, rows.tuples, strict=True)
            if op != DELETE
        }
        load = Load(list(keys.values()), range(len(keys)))
        if not keys:
            return
        if self._dialect.upsert == "merge":
            # There is no index that would find a key, and a sweep does not mind it twice.
            self._driver.insert(sweep.seen, load)
        else:
            self._driver.upsert(sweep.seen, load, ())

    def comparing(self, layout: Layout, sweep: Sweep) -> None:
        """Make room for `nothing_new`, before anything is written that may be taken back."""
        compared, quoted = sweep.compared, self._dialect.quoted
        if self._compared.get(layout.table) == compared:
            return
        listed = self._dialect.listed(compared.names[:-1])
        for text in (
            f"DROP {self._dialect.temporary} IF EXISTS {compared.table.sql(self._dialect)}",
            f"CREATE TEMPORARY TABLE {compared.table.sql(self._dialect)} AS SELECT {listed}, "
            f"0 AS {quoted(_INDEX)} FROM {layout.table.sql(self._dialect)} WHERE 1 = 0",
        ):
            self._driver.execute(text)
        self._compared[layout.table] = compared

    def nothing_new(
        self, layout: Layout, sweep: Sweep, rows: Rows, insert: Callable[[Layout, Load], None]
    ) -> set[int]:
        """The reads of these rows, each the first record of its key, that say what the current version says."""
        reads = _reads(layout, rows)
        if not reads:
            return set()
        compared, quoted = sweep.compared, self._dialect.quoted
        self._driver.execute(statements.truncate(self._dialect, compared.table))
        insert(compared, Load(reads, [row[-1] for row in reads]))
        current = quoted(layout.columns[layout.index("is_current")].name)
        same = " AND ".join(
            self._dialect.same(f"t.{quoted(column.name)}", f"s.{quoted(column.name)}", column.type)
            for column in compared.columns[:-1]
        )
        found = self._driver.fetch(
            f"SELECT s.{quoted(_INDEX)} FROM {compared.table.sql(self._dialect)} AS s "
            f"JOIN {layout.table.sql(self._dialect)} AS t ON {statements.joined(self._dialect, layout.key_names)} "
            f"WHERE t.{current} AND {same}"
        )
        return {int(index) for (index,) in found}

    def sweep(self, layout: Layout, mark: statements.Mark | None, at: object) -> None:
        """Remove or mark what was not seen, and forget the backfill."""
        seen = self._seen(layout)
        text = statements.sweep(self._dialect, layout.table, layout.key_names, mark, seen)
        self._driver.execute(text, (at,) if mark is not None else ())
        self._underway.over(seen)
        self._underway.drop(seen)

    def _seen(self, layout: Layout) -> TableName:
        """Where the keys are remembered: beside the cursors, where we may make tables."""
        table, key = layout.table, layout.key_names
        digest = sha256(repr((self._task, table.schema, table.table, key)).encode()).hexdigest()[:24]
        return TableName(self._driver.default_schema, f"{PREFIX}{digest}")


def repeated_reads(rows: Rows) -> int | None:
    """Where a batch must end for its reads to be compared with what the table holds: before the first read of a
    key that has a record before it. None: nowhere."""
    ops = rows.batch.ops or b""
    known = set()
    for index, (key, op) in enumerate(zip(rows.keys, ops, strict=False)):
        if op == READ and key in known:
            return index
        known.add(key)
    return None


def _reads(layout: Layout, rows: Rows) -> list[Row]:
    """The fields of the rows that were read, and the index of each."""
    places = [i for i, column in enumerate(layout.columns) if column.origin == "field"]
    ops = rows.batch.ops or b""
    return [
        (*[row[place] for place in places], index)
        for index, (op, row) in enumerate(zip(ops, rows.tuples, strict=False))
        if op == READ
    ]


def _keys(layout: Layout, seen: TableName) -> Layout:
    return Layout(seen, layout.key, "upsert", False)


def _create(layout: Layout, table: ExistingTable, seen: TableName, dialect: Dialect) -> list[str]:
    """A table with the very types of the key that its rows are compared with."""
    names = layout.key_names
    if dialect.copies_types:
        source = f"SELECT {dialect.listed(names)} FROM {layout.table.sql(dialect)} WHERE 1 = 0"
        made = [f"CREATE TABLE {seen.sql(dialect)} AS {source}"]
    else:
        typed = zip(map(dialect.quoted, names), _types(layout, table), strict=True)
        made = [f"CREATE TABLE {seen.sql(dialect)} ({', '.join(f'{name} {kind}' for name, kind in typed)})"]
    if dialect.upsert != "merge":
        index = dialect.quoted(seen.table.replace("seen", "keys"))
        made.append(f"CREATE UNIQUE INDEX {index} ON {seen.sql(dialect)} ({dialect.listed(names)})")
    return made


def _types(layout: Layout, table: ExistingTable) -> Sequence[str]:
    columns = [table.column(name) for name in layout.key_names]
    return [column.type for column in columns if column is not None]
