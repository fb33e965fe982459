"""Messages of the stream to batches: rows are decoded and gathered until somebody takes them. No I/O.

Records are gathered per table. What is taken are whole source transactions, as many as have come while
the log was busy with the ones before; only a transaction too big for that is handed over in pieces.
The hard thing is that a message may need an answer from the server (a new relation, the order of two
keys) while messages are handled in a callback that must not wait: the feed then raises an
obstacle, the reader stops, and goes on when the obstacle is removed.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hub import cdc
from hub.document import encode
from hub.record import CREATE, DELETE, TRUNCATE, UPDATE, Batch
from hub.schema import CollectionSchema
from hub_captures.postgres import pgoutput
from hub_captures.postgres.decoder import UNCHANGED, Cell, Decoder, tuple_cells
from hub_captures.postgres.handover import HandOver, Incomparable
from hub_captures.postgres.pgoutput import HEADER, Begin, Relation
from hub_captures.postgres.position import Key

_NEW, _KEY_IMAGE = b"NK"
_TUPLE = HEADER + 6
"""Where the first tuple of a row message begins: after kind, OID and the tuple's own kind."""
_ROW = HEADER + 8
"""Where the first column of that tuple begins."""


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
        "row",
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
        self.row = decoder.row
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


class Described(NamedTuple):
    """Records, and the schema that must have been stated before them."""

    schema: CollectionSchema
    batch: Batch


class UnknownRelation(NamedTuple):
    """Rows will follow that are laid out like this."""

    relation: Relation


class UnknownOrder(NamedTuple):
    """The server must say where a key stands among the bounds of a table's copy."""

    table: Gathered
    key: Key


class Signal(NamedTuple):
    """A message for the capture itself: somebody asked for something from SQL."""

    content: bytes


Obstacle = UnknownRelation | UnknownOrder | Signal

SIGNAL_PREFIX = "hub.signal"


class Feed:
    """Takes messages, gathers records.

    A handler returns True when the reader must stop: for an `obstacle`, or at the end of a transaction
    when `hold` asks for it. `lsn` is the end of the last whole transaction. `tables` maps the OID as it
    stands in messages to where its records are gathered, None for one that is not captured.
    """

    def __init__(self, messages: Gathered | None) -> None:
        self.tables: dict[bytes, Gathered | None] = {}
        self.lsn = 0
        self.begin: Begin | None = None
        self.obstacle: Obstacle | None = None
        self.repeat: bytes | None = None
        """The message that met the obstacle and must be given again; None when it is done with."""
        self.hold = False
        self.bytes = 0
        """Bytes of messages since everything was last taken."""
        self.transactions = 0
        self.records = 0
        self.undecided: set[int] = set()
        """Transactions that touched a table under copy since the last chunk."""
        self._messages = messages
        self._origin: str | None = None
        self._touched: list[Gathered] = []
        self._filled: list[Gathered] = []
        self._handlers: dict[int, Callable[[bytes], bool | None]] = {
            ord("I"): self._insert,
            ord("U"): self._update,
            ord("D"): self._delete,
            ord("B"): self._begin,
            ord("C"): self._commit,
            ord("R"): self._relation,
            ord("T"): self._truncate,
            ord("O"): self._on_origin,
            ord("M"): self._message,
            ord("Y"): self._type,
        }

    def message(self, b: bytes) -> bool | None:
        """One message of the plugin, with its header. True stops the reader."""
        handler = self._handlers.get(b[HEADER])
        if handler is None:
            raise pgoutput.unknown(b)
        return handler(b)

    @property
    def has_committed(self) -> bool:
        """There is something of whole transactions to take."""
        return any(table.committed for table in self._filled)

    def take(self, *, whole: bool) -> list[Described]:
        """What was gathered: of whole transactions, or all, the piece of the one that goes on included."""
        if not whole and self.begin is not None:
            for table in self._touched:
                table.close_run(self.begin, self._origin)
                table.committed = len(table.lines)
        taken, left = [], []
        for table in self._filled:
            if table.committed:
                taken.append(Described(table.schema, table.take(table.committed)))
                table.committed = 0
            if table.lines:
                left.append(table)
        self._filled = left
        if not whole:
            # They are filled again with their next record, though still touched by the transaction.
            for table in self._touched:
                table.is_touched = False
            self._touched = []
        if not left:
            self.bytes = 0
        return taken

    def _touch(self, table: Gathered) -> None:
        table.is_touched = True
        self._touched.append(table)
        if table not in self._filled:
            self._filled.append(table)

    def _begin(self, b: bytes) -> None:
        self.begin = pgoutput.begin(b)

    def _commit(self, b: bytes) -> bool:
        assert self.begin is not None
        self.end_transaction(pgoutput.commit(b).end_lsn)
        return self.hold

    def end_transaction(self, lsn: int) -> None:
        """What was gathered since the beginning is whole, up to `lsn`."""
        assert self.begin is not None
        for table in self._touched:
            table.close_run(self.begin, self._origin)
            table.committed = len(table.lines)
            table.is_touched = False
            if table.handover is not None and table.handover.is_doomed:
                table.handover.restart()
        self._touched = []
        self.transactions += 1
        self.begin = None
        self._origin = None
        self.lsn = lsn

    def _insert(self, b: bytes) -> bool | None:
        table = self.tables[b[26:30]]
        if table is None:
            return None
        if table.handover is not None:
            return self._judge(b, table)
        line = table.row(b, _ROW)
        assert line is not None
        table.lines.append(line)
        table.ops.append(CREATE)
        table.lsns.append(b[1:9])
        if not table.is_touched:
            self._touch(table)
        return None

    def _update(self, b: bytes) -> bool | None:
        table = self.tables[b[26:30]]
        if table is None:
            return None
        if table.handover is not None or b[30] != _NEW:
            return self._judge(b, table)
        line = table.row(b, _ROW)
        if line is None:
            return self._judge(b, table)
        table.lines.append(line)
        table.ops.append(UPDATE)
        table.lsns.append(b[1:9])
        if not table.is_touched:
            self._touch(table)
        return None

    def _delete(self, b: bytes) -> bool | None:
        table = self.tables[b[26:30]]
        return None if table is None else self._judge(b, table)

    def _judge(self, b: bytes, table: Gathered) -> bool | None:
        """A row message that needs a closer look: an old image, unchanged values, a table under copy."""
        changes = changes_of(b, table)
        if table.handover is not None:
            assert self.begin is not None
            xid = self.begin.xid
            try:
                kept = [table.handover.keeps(change.key, xid) for change in changes]
            except Incomparable:
                unknown = next(c.key for c in changes if not _is_ranked(table.handover, c.key))
                self.obstacle, self.repeat = UnknownOrder(table, unknown), b
                return True
            self.undecided.add(xid)
            changes = [change for change, keep in zip(changes, kept, strict=True) if keep]
        for change in changes:
            table.add(change.op, change.line, b[1:9], change.metadata)
        if changes and not table.is_touched:
            self._touch(table)
        return None

    def _relation(self, b: bytes) -> bool:
        relation = pgoutput.relation(b)
        oid = relation.oid.to_bytes(4)
        if oid in self.tables:
            known = self.tables[oid]
            if known is None or known.relation == relation:
                return False
        self.obstacle, self.repeat = UnknownRelation(relation), None
        return True

    def place(self, relation: Relation, table: Gathered | None) -> None:
        """Rows of this relation are gathered here from now on. The same relation in a new layout is a new
        table, so that what was gathered before keeps its own."""
        self.tables[relation.oid.to_bytes(4)] = table

    def _truncate(self, b: bytes) -> None:
        truncated = pgoutput.truncate(b)
        metadata = {
            cdc.TRUNCATE: {
                "cascade": truncated.cascade,
                "restart_identity": truncated.restart_identity,
            }
        }
        for oid in truncated.oids:
            table = self.tables.get(oid.to_bytes(4))
            if table is None:
                continue
            if table.handover is not None:
                # Rows read by chunks that saw the truncation would be truncated with the others: read all again.
                assert self.begin is not None
                self.undecided.add(self.begin.xid)
                table.handover.doom()
            table.add(TRUNCATE, b"{}\n", b[1:9], metadata)
            if not table.is_touched:
                self._touch(table)

    def _on_origin(self, b: bytes) -> None:
        self._origin = pgoutput.origin(b)

    def _type(self, b: bytes) -> None:
        """Names of types come from the catalog, which also says what they are made of."""

    def _message(self, b: bytes) -> bool | None:
        found = pgoutput.message(b)
        table = self._messages
        alone = self.begin is None
        if table is not None and found.prefix != SIGNAL_PREFIX:
            if alone:
                self.begin = Begin(
                    found.lsn, int.from_bytes(b[17:25], signed=True) // 1000 + 946_684_800_000, 0
                )
            table.add(CREATE, message_line(found), b[1:9], {cdc.PREFIX: found.prefix})
            if not table.is_touched:
                self._touch(table)
            if alone:
                # The record itself lies before this LSN, the next one behind it.
                self.end_transaction(found.lsn + 1)
        if found.prefix == SIGNAL_PREFIX:
            self.obstacle, self.repeat = Signal(found.content), None
            return True
        return alone and self.hold


class Change(NamedTuple):
    """One record to be. `key` is the key of the row it is about."""

    op: int
    key: Key
    line: bytes
    metadata: Mapping[str, Any]


def changes_of(b: bytes, table: Gathered) -> list[Change]:
    """What a row message says: one change, or a delete and a create when the key has changed."""
    kind, image = b[HEADER], b[30]
    cells, at = tuple_cells(b, _TUPLE)
    decoder = table.decoder
    if kind == 73:
        return [Change(CREATE, _key(cells, table), decoder.document(cells), {})]
    if kind == 68:
        if image == _KEY_IMAGE:
            return [Change(DELETE, _key(cells, table), decoder.document(cells, _identity(table)), {})]
        line = decoder.document(cells)
        return [Change(DELETE, _key(cells, table), line, {cdc.BEFORE: line[:-1]})]
    if image == _NEW:
        return [_updated(cells, table, {})]
    new, _ = tuple_cells(b, at + 1)
    for index in range(len(new)) if image != _KEY_IMAGE else _identity(table):
        if new[index] is UNCHANGED:
            new[index] = cells[index]
    before: dict[str, Any] = {}
    old_line = decoder.document(cells, None if image != _KEY_IMAGE else _identity(table))
    if image != _KEY_IMAGE:
        before[cdc.BEFORE] = old_line[:-1]
    old_key, new_key = _key(cells, table), _key(new, table)
    if old_key == new_key:
        return [_updated(new, table, before)]
    created = _updated(new, table, before)
    return [
        Change(
            DELETE,
            old_key,
            old_line,
            {**before, cdc.KEY_CHANGE: decoder.document(new, table.key_indexes)[:-1]},
        ),
        created._replace(
            op=CREATE,
            metadata={**created.metadata, cdc.KEY_CHANGE: decoder.document(cells, table.key_indexes)[:-1]},
        ),
    ]


def _updated(cells: Sequence[Cell], table: Gathered, metadata: Mapping[str, Any]) -> Change:
    unchanged = table.decoder.unchanged(cells)
    if unchanged:
        metadata = {**metadata, cdc.UNCHANGED: unchanged}
    return Change(UPDATE, _key(cells, table), table.decoder.document(cells), metadata)


def message_line(found: pgoutput.Message) -> bytes:
    """A logical message as a document: its content as text, or in base64 when it is no text."""
    try:
        return encode({"content": found.content.decode()}) + b"\n"
    except UnicodeDecodeError:
        return encode({"content_base64": base64.b64encode(found.content).decode()}) + b"\n"


def _identity(table: Gathered) -> list[int]:
    """The columns of an old image that means only the identity."""
    return [index for index, column in enumerate(table.relation.columns) if column.in_identity]


def _key(cells: Sequence[Cell], table: Gathered) -> Key:
    found = []
    for index in table.key_indexes:
        cell = cells[index]
        found.append(cell.decode(errors="replace") if isinstance(cell, bytes) else "")
    return tuple(found)


def _is_ranked(handover: HandOver, key: Key) -> bool:
    try:
        handover.rank(key)
    except Incomparable:
        return False
    return True
