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
        "collection",
        "committed",
        "counted",
        "decoder",
        "handover",
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
        self.handover = handover
        self.shared = {cdc.SCHEMA: relation.schema, cdc.TABLE: relation.table}
        self.is_touched = False
        self.committed = 0
        self._reset()

    def _reset(self) -> None:
        self.lines: list[bytes] = []
        self.ops = bytearray()
        self.lsns: list[bytes] = []
        self.sparse: dict[str, dict[int, Any]] = {}
        self.runs: list[cdc.TransactionRun] = []
        self.counted = 0

    def add(self, op: int, line: bytes, lsn: bytes, metadata: Mapping[str, Any]) -> None:
        """One record with metadata that most records do not have."""
        index = len(self.lines)
        self.lines.append(line)
        self.ops.append(op)
        self.lsns.append(lsn)
        for name, value in metadata.items():
            self.sparse.setdefault(name, {})[index] = value

    def close_run(self, begin: Begin, origin: str | None) -> None:
        """The records since the last run belong to this transaction."""
        count = len(self.lines) - self.counted
        if count:
            self.runs.append(cdc.TransactionRun(count, begin.xid, begin.commit_lsn, begin.ts_ms, origin))
            self.counted += count

    def take(self, count: int) -> Batch:
        """A batch of the first `count` records, which end where a run ends. They are forgotten here."""
        lines, ops, lsns, sparse, runs = self.lines, self.ops, self.lsns, self.sparse, self.runs
        self._reset()
        if count < len(lines):
            # Records of a transaction that has not ended stay: they belong to no run yet.
            self.lines, lines = lines[count:], lines[:count]
            self.ops, ops = ops[count:], ops[:count]
            self.lsns, lsns = lsns[count:], lsns[:count]
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
