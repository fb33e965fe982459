"""The records of one table on their way to a batch."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from hub import cdc
from hub.record import CREATE, Batch
from hub.schema import CollectionSchema
from hub_captures.postgres.decoder import Decoder
from hub_captures.postgres.handover import HandOver
from hub_captures.postgres.pgoutput import Begin, Relation


class Gathered:
    """The records of one table since they were last taken, laid out as the table was then."""

    __slots__ = (
        "_committed_parts",
        "collection",
        "committed",
        "count",
        "counted",
        "decoder",
        "handover",
        "identity_indexes",
        "is_touched",
        "key_indexes",
        "lines",
        "lsns",
        "ops",
        "relation",
        "runs",
        "schema",
        "shared",
        "sparse",
    )

    def __init__(
        self,
        schema: CollectionSchema,
        relation: Relation,
        decoder: Decoder,
        key_indexes: Sequence[int],
        handover: HandOver | None,
    ) -> None:
        self.collection = schema.collection
        self.schema = schema
        self.relation = relation
        self.decoder = decoder
        self.key_indexes = tuple(key_indexes)
        self.identity_indexes = tuple([at for at, each in enumerate(relation.columns) if each.in_identity])
        self.handover = handover
        self.shared = {cdc.SCHEMA: relation.schema, cdc.TABLE: relation.table}
        self.is_touched = False
        self._reset()

    def _reset(self) -> None:
        self.lines: list[bytes] = []
        """One or more in each part; `lsns` has the same parts."""
        self.ops = bytearray()
        self.lsns: list[bytes] = []
        self.sparse: dict[str, dict[int, Any]] = {}
        self.runs: list[cdc.TransactionRun] = []
        self.count = 0
        self.counted = 0
        self.committed = 0
        """So many of them belong to whole transactions."""
        self._committed_parts = 0

    def add(self, op: int, line: bytes, lsn: bytes, metadata: Mapping[str, Any]) -> None:
        """One record with metadata that most records do not have."""
        for name, value in metadata.items():
            self.sparse.setdefault(name, {})[self.count] = value
        self.lines.append(line)
        self.ops.append(op)
        self.lsns.append(lsn)
        self.count += 1

    def extend(self, op: int, lines: bytes, messages: Sequence[bytes]) -> None:
        """The records of many messages."""
        count = len(messages)
        self.lines.append(lines)
        self.ops += bytes([op]) * count
        self.lsns.append(b"".join([b[1:9] for b in messages]))
        self.count += count

    def end(self, begin: Begin, origin: str | None) -> None:
        """The records since the last time belong to this transaction, and may be taken."""
        count = self.count - self.counted
        if count:
            self.runs.append(cdc.TransactionRun(count, begin.xid, begin.commit_lsn, begin.ts_ms, origin))
            self.counted = self.committed = self.count
            self._committed_parts = len(self.lines)
        self.is_touched = False

    def take(self) -> Batch:
        """A batch of what may be taken. It is forgotten here."""
        lines, ops, lsns, sparse, runs = self.lines, self.ops, self.lsns, self.sparse, self.runs
        count, parts, left = self.committed, self._committed_parts, self.count - self.committed
        self._reset()
        if left:
            # Records of a transaction that has not ended stay: they belong to no run yet.
            self.count = left
            self.lines, lines = lines[parts:], lines[:parts]
            self.ops, ops = ops[count:], ops[:count]
            self.lsns, lsns = lsns[parts:], lsns[:parts]
            for name, values in sparse.items():
                later = {index - count: value for index, value in values.items() if index >= count}
                if later:
                    self.sparse[name] = later
        shared, columns = cdc.transaction_metadata(runs)
        columns[cdc.LSN] = list(struct.unpack(f">{count}Q", b"".join(lsns)))
        for name, values in sparse.items():
            if any(index < count for index in values):
                here = {index: value for index, value in values.items() if index < count}
                columns[name] = cdc.sparse(here, count)
        only_creates = ops.count(CREATE) == count
        return Batch(
            self.collection,
            count,
            ndjson=b"".join(lines),
            ops=None if only_creates else bytes(ops),
            shared=self.shared | shared,
            columns=columns,
        )
