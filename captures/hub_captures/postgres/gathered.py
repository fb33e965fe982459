"""The records of one table on their way to a batch.

Rows wait as the messages they came in, and are decoded together, which is what makes them cheap. The hard thing is the
order: a record that was made otherwise comes behind all that wait, and what belongs to whole transactions must
part from what does not.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from hub import cdc
from hub.record import CREATE, Batch
from hub.schema import CollectionSchema
from hub_captures.postgres.changes import RowForm, changes_of
from hub_captures.postgres.handover import HandOver
from hub_captures.postgres.pgoutput import Begin, Relation

WAITING_MAX: Final = 48
WAITING_BYTES_MAX: Final = 64 << 10
"""So much is decoded together, about what one read brings. With 512 a stream over a socket took 5 % longer."""
TOGETHER_MIN: Final = 8
"""Fewer rows are decoded one by one, which is cheaper."""


class Part(NamedTuple):
    """Some records: their lines, and their LSNs in eight bytes each."""

    records: int
    lines: bytes
    lsns: bytes


class Gathered:
    """The records of one table since they were last taken, laid out as the table was then.

    The first `committed` of them belong to whole transactions and may be taken; the others to the one that goes on.
    """

    __slots__ = (
        "_parts",
        "_waiting",
        "_waiting_are_keys",
        "_waiting_bytes",
        "collection",
        "committed",
        "count",
        "form",
        "handover",
        "is_touched",
        "ops",
        "relation",
        "runs",
        "schema",
        "shared",
        "sparse",
    )

    def __init__(
        self, schema: CollectionSchema, relation: Relation, form: RowForm, handover: HandOver | None
    ) -> None:
        self.collection = schema.collection
        self.schema = schema
        self.relation = relation
        self.form = form
        self.handover = handover
        self.shared = {cdc.SCHEMA: relation.schema, cdc.TABLE: relation.table}
        self.is_touched = False
        self._reset()

    def _reset(self) -> None:
        self._parts: list[Part] = []
        self._waiting: list[bytes] = []
        self._waiting_are_keys = False
        self._waiting_bytes = 0
        self.ops = bytearray()
        self.sparse: dict[str, dict[int, Any]] = {}
        self.runs: list[cdc.TransactionRun] = []
        self.count = 0
        self.committed = 0

    def add(self, op: int, line: bytes, lsn: bytes, metadata: Mapping[str, Any]) -> None:
        """One record with metadata that most records do not have."""
        self._decode()
        for name, value in metadata.items():
            self.sparse.setdefault(name, {})[self.count] = value
        self._parts.append(Part(1, line, lsn))
        self.ops.append(op)
        self.count += 1

    def extend(self, op: int, messages: Sequence[bytes], *, are_keys: bool) -> None:
        """Rows as they came: each message has one tuple, of the identity or of all columns."""
        if are_keys is not self._waiting_are_keys:
            self._decode()
            self._waiting_are_keys = are_keys
        waiting = self._waiting
        waiting += messages
        self._waiting_bytes += sum(map(len, messages))
        self.ops += bytes((op,)) * len(messages)
        self.count += len(messages)
        if len(waiting) >= WAITING_MAX or self._waiting_bytes >= WAITING_BYTES_MAX:
            self._decode()

    def end(self, begin: Begin, origin: str | None) -> None:
        """The records since the last time belong to this transaction, and may be taken."""
        count = self.count - self.committed
        if count:
            self.runs.append(cdc.TransactionRun(count, begin.xid, begin.commit_lsn, begin.ts_ms, origin))
            self.committed = self.count
        self.is_touched = False

    def take(self) -> Batch:
        """A batch of what may be taken. It is forgotten here."""
        self._decode()
        parts, ops, sparse, runs = self._parts, self.ops, self.sparse, self.runs
        count, left = self.committed, self.count - self.committed
        self._reset()
        if left:
            # Records of a transaction that has not ended stay: they belong to no run yet.
            self.count = left
            self.ops, ops = ops[count:], ops[:count]
            at = len(parts)
            while left:
                at -= 1
                left -= parts[at].records
            self._parts, parts = parts[at:], parts[:at]
            for name, values in sparse.items():
                later = {index - count: value for index, value in values.items() if index >= count}
                if later:
                    self.sparse[name] = later
        shared, columns = cdc.transaction_metadata(runs)
        columns[cdc.LSN] = list(struct.unpack(f">{count}Q", b"".join([part.lsns for part in parts])))
        for name, values in sparse.items():
            if any(index < count for index in values):
                here = {index: value for index, value in values.items() if index < count}
                columns[name] = cdc.sparse(here, count)
        only_creates = ops.count(CREATE) == count
        return Batch(
            self.collection,
            count,
            ndjson=b"".join([part.lines for part in parts]),
            ops=None if only_creates else bytes(ops),
            shared=self.shared | shared,
            columns=columns,
        )

    def _decode(self) -> None:
        """Make records of the rows that wait. No part has records of whole transactions and of the one that goes on."""
        if not self._waiting:
            return
        rows, self._waiting, self._waiting_bytes = self._waiting, [], 0
        first = self.count - len(rows)
        whole = self.committed - first
        if whole > 0:
            self._decode_part(rows[:whole], first)
        if whole < len(rows):
            self._decode_part(rows[max(0, whole) :], first + max(0, whole))

    def _decode_part(self, rows: Sequence[bytes], first: int) -> None:
        decoder, identity_indexes = self.form.decoder, self.form.identity_indexes
        lines = None
        if self._waiting_are_keys:
            lines = decoder.part(identity_indexes).of_tuples(rows)
        elif len(rows) >= TOGETHER_MIN:
            lines = decoder.whole.of_tuples(rows)
        if lines is None:
            lines = b"".join([self._line(b, first + at) for at, b in enumerate(rows)])
        self._parts.append(Part(len(rows), lines, b"".join([b[1:9] for b in rows])))

    def _line(self, b: bytes, index: int) -> bytes:
        line = None if self._waiting_are_keys else self.form.decoder.line(b)
        if line is not None:
            return line
        (change,) = changes_of(b, self.form)
        for name, value in change.metadata.items():
            self.sparse.setdefault(name, {})[index] = value
        return change.line
