"""Which records a row message makes, where that needs a closer look. No I/O.

Most rows are decoded by the hundred and nobody looks at them. Here come the others: with an old image, unchanged
values or a size beyond the limit, and those of tables under copy. The hard thing is that only the server may know what
to do (how two keys compare, what a value was); the row then waits behind an obstacle, and is judged again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hub import cdc
from hub_captures.postgres.changes import changes_of, with_values
from hub_captures.postgres.gathered import Gathered
from hub_captures.postgres.handover import Incomparable
from hub_captures.postgres.obstacles import MissingValues, UnknownOrder
from hub_captures.postgres.oversized import Buffer, oversized_error, with_omitted, without_largest
from hub_captures.postgres.pgoutput import Begin


class Judge:
    """Adds the records of rows to what is gathered of their table; `touch` is told of the first of a transaction.

    What returns an obstacle has added nothing. Once it is removed, `again` judges the row that met it.
    """

    def __init__(
        self, touch: Callable[[Gathered, Begin | None], None], *, record_bytes_max: int, may_omit: bool
    ) -> None:
        self.undecided: set[int] = set()
        """Transactions that touched a table under copy since the last chunk."""
        self.fetched: dict[str, bytes] | None = None
        """The answer to `MissingValues`: fields with their JSON; empty when the row is gone by now."""
        self.oversized = 0
        """Records that were sent without some of their fields."""
        self.largest = 0
        """Bytes of the largest row beyond the limit, or of a copy that is over. libpq has buffers of that size."""
        self._touch = touch
        self._record_bytes_max = record_bytes_max
        self._may_omit = may_omit
        self._waiting: tuple[bytes, Gathered, Begin | None, Sequence[str]] | None = None

    def again(self) -> UnknownOrder | MissingValues | None:
        """Judge the row that met the obstacle, if one did."""
        waiting, self._waiting = self._waiting, None
        return self.row(*waiting) if waiting is not None else None

    def oversized_row(
        self, b: Buffer, table: Gathered, begin: Begin | None
    ) -> UnknownOrder | MissingValues | None:
        """A row beyond the limit: it stops the capture, or its largest fields are left out."""
        if not self._may_omit:
            name = f"{table.relation.schema}.{table.relation.table}"
            raise oversized_error(name, len(b), self._record_bytes_max)
        shorter, places = without_largest(b, table.form.key_indexes, self._record_bytes_max)
        self.oversized += 1
        self.largest = max(self.largest, len(b))
        return self.row(shorter, table, begin, [table.form.decoder.names[index] for index in places])

    def row(
        self, b: bytes, table: Gathered, begin: Begin | None, omitted: Sequence[str] = ()
    ) -> UnknownOrder | MissingValues | None:
        """Any row within the limit. `omitted` names the fields that were left out of it."""
        changes = changes_of(b, table.form)
        if omitted:
            changes = [with_omitted(change, omitted) for change in changes]
        if table.handover is not None:
            assert begin is not None
            try:
                kept = [table.handover.keeps(change.key, begin.xid) for change in changes]
            except Incomparable:
                self._waiting = (b, table, begin, omitted)
                return UnknownOrder(
                    table, next(c.key for c in changes if not table.handover.is_ranked(c.key))
                )
            self.undecided.add(begin.xid)
            changes = [change for change, keep in zip(changes, kept, strict=True) if keep]
        if missing := next(
            (c for c in changes if cdc.KEY_CHANGE in c.metadata and cdc.UNCHANGED in c.metadata), None
        ):
            if self.fetched is None:
                self._waiting = (b, table, begin, omitted)
                return MissingValues(table, missing.key, tuple(missing.metadata[cdc.UNCHANGED]))
            changes = [
                with_values(change, self.fetched) if change is missing else change for change in changes
            ]
            self.fetched = None
        for change in changes:
            table.add(change.op, change.line, b[1:9], change.metadata)
        if changes and not table.is_touched:
            self._touch(table, begin)
        return None
