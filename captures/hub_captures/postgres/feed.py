"""Messages of the stream to batches: what comes is gathered until somebody takes it. No I/O.

Records are gathered per table. What is taken are whole source transactions, as many as have come while
the log was busy with the ones before; only a transaction too big for that is handed over in pieces.
The hard thing is that a message may need an answer from the server (a new relation, the order of two
keys) while messages are handled in a callback that must not wait: the feed then raises an
obstacle, the reader stops, and goes on when the obstacle is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import NamedTuple

from hub import cdc
from hub.record import CREATE, DELETE, TRUNCATE, UPDATE
from hub_captures.postgres import pgoutput
from hub_captures.postgres.changes import KEY_IMAGE, NEW, message_line
from hub_captures.postgres.gathered import Gathered
from hub_captures.postgres.handover import HandOver
from hub_captures.postgres.judge import Judge
from hub_captures.postgres.ledger import Ledger
from hub_captures.postgres.obstacles import Obstacle, Signal, UnknownRelation
from hub_captures.postgres.oversized import Buffer
from hub_captures.postgres.pending import NO_XID, Described, Pending
from hub_captures.postgres.pgoutput import HEADER, Begin, Relation
from hub_captures.postgres.prepared import Keeping, lost_prepare
from hub_captures.postgres.spool import Spool, Spooled

_STREAM_STOP = ord("E")
_ROWS = b"IUD"
_TABLE_OF = itemgetter(slice(HEADER, HEADER + 6))
"""Kind and OID of a row, and what its first tuple is."""


class Kind(NamedTuple):
    """A kind of row that mostly needs no closer look: one whose only tuple is this image."""

    op: int
    image: int
    is_key: bool


_KINDS = {
    ord("I"): Kind(CREATE, NEW, False),
    ord("U"): Kind(UPDATE, NEW, False),
    ord("D"): Kind(DELETE, KEY_IMAGE, True),
}
REPLAY_MESSAGES_MAX = 600
"""So many messages of a spooled transaction are handled before others get a turn."""

OWN_PREFIX = "hub."
SIGNAL_PREFIX = "hub.signal"
MARK_PREFIX = "hub.mark"
"""Written only to let an idle server flush its WAL."""


class Feed:
    """Takes messages, gathers records.

    A handler returns True when the reader must stop: for an `obstacle`, or at the end of a transaction
    when `hold` asks for it. `lsn` is the end of the last whole transaction; what has committed before it when
    the feed begins is passed over. `start_lsn` is where the server begins, earlier when something that was prepared
    is to be sent again. `tables` maps the OID as it stands in messages to where its records are
    gathered, None for one that is not captured.
    """

    def __init__(
        self,
        messages: Gathered | None = None,
        ledger: Ledger | None = None,
        *,
        lsn: int = 0,
        start_lsn: int = 0,
        record_bytes_max: int,
        may_omit: bool,
    ) -> None:
        self.tables: dict[bytes, Gathered | None] = {}
        self.lsn = self._known_lsn = lsn
        self.start_lsn = start_lsn
        self.begin: Begin | None = None
        self.obstacle: Obstacle | None = None
        self.hold = False
        self.bytes = 0
        """Bytes of messages since everything was last taken."""
        self.transactions = 0
        self.spool = Spool()
        self._replayed: Iterator[bytes] | None = None
        self._replay_end = 0
        self._stated: list[Relation] = []
        """Relations that were stated in blocks of a transaction and count for all from now on."""
        self._displaced: dict[int, Gathered] = {}
        """Tables that a transaction which was prepared has laid out as they were then, as the server has them now."""
        self._record_bytes_max = record_bytes_max
        self._messages = messages
        self._pending = Pending(ledger)
        self._touch = self._pending.touch
        self.judge = Judge(self._touch, record_bytes_max=record_bytes_max, may_omit=may_omit)
        self._origin: str | None = None
        self._doomed: list[HandOver] = []
        self._quick: dict[int, Callable[[bytes], bool | None]] = {
            ord("I"): self._row,
            ord("U"): self._row,
            ord("D"): self._row,
            ord("B"): self._begin,
            ord("C"): self._commit,
        }
        self._route = dict(self._quick)
        """Where messages of these kinds go, all others go to `message`. Empty while a block of a streamed transaction is
        spooled, or what comes is not decoded."""
        self._handlers = self._quick | {
            ord("R"): self._relation,
            ord("T"): self._truncate,
            ord("O"): self._on_origin,
            ord("M"): self._message,
            ord("Y"): self._type,
            ord("S"): self._stream_start,
            ord("c"): self._stream_commit,
            ord("A"): self._stream_abort,
            ord("b"): self._begin_prepare,
            ord("P"): self._prepare,
            ord("p"): self._stream_prepare,
            ord("K"): self._commit_prepared,
            ord("r"): self._rollback_prepared,
        }
        keeping = self._keeping = Keeping(self.tables)
        self._kept = self._handlers | {
            ord("R"): self._kept_relation,
            ord("T"): keeping.truncate,
            ord("O"): keeping.other,
            ord("M"): keeping.other,
            **dict.fromkeys(_ROWS, keeping.row),
        }
        self._passed = self._handlers | dict.fromkeys(_ROWS + b"TOM", self._pass)
        self._current: Mapping[int, Callable[[bytes], bool | None]] = self._handlers

    def messages(self, found: Sequence[bytes], aside: Callable[[bytes], None]) -> list[bytes] | None:
        """Messages in their order, within the limit on a record; what is none of the plugin goes `aside`. Those that are
        left when the reader must stop, None when none was in the way.

        Rows of one table that follow each other are decoded together.
        """
        groups = groupby(found, _TABLE_OF)
        route = self._route
        find = route.get
        for about, group in groups:
            if not route and about and about[0] in _ROWS and self.spool.is_open:
                self.spool.extend(list(group))
                continue
            kind = _KINDS.get(about[0]) if about and route else None
            if kind is None or about[5] != kind.image:
                for b in group:
                    if (find(b[HEADER], self.message) if len(b) > HEADER else aside)(b):
                        return [*group, *_rest(groups)]
            elif table := self.tables[about[1:5]]:
                if table.handover is not None:
                    for b in group:
                        if self._row(b):
                            return [*group, *_rest(groups)]
                    continue
                table.extend(kind.op, list(group), are_keys=kind.is_key)
                if not table.is_touched:
                    self._touch(table, self.begin)
        return None

    def message(self, b: bytes) -> bool | None:
        """One message of the plugin, with its header. True stops the reader."""
        if self.spool.is_open:
            if b[HEADER] == _STREAM_STOP:
                self.spool.stop()
                self._route.update(self._quick)
            else:
                self.spool.add(b)
            return None
        handler = self._current.get(b[HEADER])
        if handler is None:
            raise pgoutput.unknown(b)
        if len(b) > self._record_bytes_max and b[HEADER] in _ROWS and self._current is self._handlers:
            return self._oversized_row(b)
        return handler(b)

    def large(self, b: memoryview) -> bool | None:
        """A message beyond the limit on a record. It is not copied, but for what is kept of it."""
        if self.spool.is_open:
            self.spool.add(b)
        elif b[HEADER] not in _ROWS:
            return self.message(b.tobytes())
        elif self._current is self._kept:
            self._keeping.row(b)
        elif self._current is self._handlers:
            return self._oversized_row(b)
        return None

    def go_on(self) -> bool | None:
        """The obstacle is removed: what met it is judged again. True when there is another one."""
        if self._is_stopped_by(self.judge.again()):
            return True
        while self._stated:
            if self._meet(self._stated.pop()):
                return True
        return None

    def _turn_to(self, handlers: Mapping[int, Callable[[bytes], bool | None]]) -> None:
        self._current = handlers
        self._route.clear()
        if handlers is self._handlers:
            self._route.update(self._quick)

    def _pass(self, b: bytes) -> None:
        """Part of a transaction that was sent on before, and comes once more."""

    @property
    def is_replaying(self) -> bool:
        """A streamed transaction has committed, and its messages are being taken from the spool."""
        return self._replayed is not None

    def replay(self, bytes_max: int) -> None:
        """Go on with the messages of the spool, until there is an obstacle, or for so many bytes."""
        assert self._replayed is not None
        found: list[bytes] = []
        oversized: list[bytes] = []
        is_over = False
        for b in self._replayed:
            bytes_max -= len(b)
            if len(b) > self._record_bytes_max:
                oversized.append(b)
                break
            found.append(b)
            if bytes_max <= 0 or len(found) >= REPLAY_MESSAGES_MAX:
                break
        else:
            is_over = True
        left = self.messages(found, self._pass)
        self.bytes += sum(map(len, found)) - sum(map(len, left or ()))
        if left is not None:
            self._replayed = chain(left, oversized, self._replayed)
            return
        for b in oversized:
            self.bytes += len(b)
            self.message(b)
        if not is_over:
            return
        while self._displaced:
            oid, table = self._displaced.popitem()
            now = self.tables[oid.to_bytes(4)]
            if now is not None and now.relation != table.relation:
                self.obstacle = UnknownRelation(table.relation)
                return
        self._replayed = None
        assert self.begin is not None
        # Not earlier: a position from before its end must still ask for it again.
        self.spool.forget(self.begin.xid)
        self.end_transaction(self._replay_end)

    @property
    def _is_prepared(self) -> bool:
        """What is being replayed was prepared before it was committed."""
        spooled = self.spool.find(self.begin.xid) if self.begin is not None else None
        return self.is_replaying and spooled is not None and spooled.prepare_lsn is not None

    def _stream_start(self, b: bytes) -> None:
        self.spool.start(int.from_bytes(b[26:30]))
        self._route.clear()

    def _stream_abort(self, b: bytes) -> None:
        self.spool.abort(int.from_bytes(b[26:30]), int.from_bytes(b[30:34]))

    def _stream_commit(self, b: bytes) -> bool:
        xid = int.from_bytes(b[26:30])
        found = pgoutput.commit(b, HEADER + 4)
        self._begin_replay(Begin(found.commit_lsn, found.ts_ms, xid), self.spool.find(xid), found.end_lsn)
        return True

    def _begin_replay(self, begin: Begin, spooled: Spooled | None, end_lsn: int) -> None:
        self.begin = begin
        if begin.commit_lsn < self._known_lsn:
            self._turn_to(self._passed)
        self._replayed = spooled.messages() if spooled is not None else iter(())
        self._replay_end = end_lsn

    def _begin_prepare(self, b: bytes) -> None:
        self._keeping.into = self.spool.keep(pgoutput.begin_prepare(b).xid)
        self._turn_to(self._kept)

    def _kept_relation(self, b: bytes) -> bool:
        self._keeping.into.lay_out(pgoutput.relation(b))
        return self._relation(b)

    def _prepare(self, b: bytes) -> bool:
        found = pgoutput.prepared(b)
        self.spool.prepare(found.xid, found.lsn)
        self._turn_to(self._handlers)
        return self.hold

    def _stream_prepare(self, b: bytes) -> bool | None:
        found = pgoutput.prepared(b)
        self.spool.prepare(found.xid, found.lsn)
        spooled = self.spool.find(found.xid)
        # PostgreSQL 15 does not state them again, though others do.
        self._stated = list(spooled.relations.values()) if spooled is not None else []
        return self.go_on() or self.hold

    def _commit_prepared(self, b: bytes) -> bool:
        found = pgoutput.prepared(b)
        spooled = self.spool.find(found.xid)
        if found.lsn < self._known_lsn:
            self.spool.forget(found.xid)
            return self.hold
        if spooled is None:
            raise lost_prepare(found, self.start_lsn)
        self._begin_replay(Begin(found.lsn, found.ts_ms, found.xid), spooled, found.end_lsn)
        return True

    def _rollback_prepared(self, b: bytes) -> bool:
        self.spool.forget(pgoutput.rolled_back(b))
        return self.hold

    @property
    def prepared_lsn(self) -> int | None:
        """Where the oldest PREPARE stands that the server must send again after a restart. As long as nothing new has
        come, some that are asked for once more may not have come either."""
        if self.start_lsn < self.lsn == self._known_lsn:
            return self.start_lsn
        return self.spool.prepared_lsn(self.start_lsn)

    @property
    def has_committed(self) -> bool:
        """There is something of whole transactions to take."""
        return self._pending.has_committed

    def take(self, *, whole: bool) -> list[Described]:
        """What was gathered: of whole transactions, or all, the piece of the one that goes on included."""
        taken = self._pending.take() if whole else self._pending.take_all(self.begin, self._origin)
        if self._pending.is_empty:
            self.bytes = 0
        return taken

    def _begin(self, b: bytes) -> None:
        begin = self.begin = pgoutput.begin(b)
        if begin.commit_lsn < self._known_lsn:
            # Its relations count, as the server states them once.
            self._turn_to(self._passed)

    def _commit(self, b: bytes) -> bool:
        assert self.begin is not None
        self.end_transaction(pgoutput.end_lsn(b))
        return self.hold

    def end_transaction(self, lsn: int) -> None:
        """What was gathered since the beginning is whole, up to `lsn`."""
        assert self.begin is not None
        self._pending.end(self.begin, self._origin)
        while self._doomed:
            self._doomed.pop().restart()
        self.transactions += 1
        self.begin = None
        self._origin = None
        if lsn > self.lsn:
            self.lsn = lsn
        if self._current is self._passed:
            self._turn_to(self._handlers)

    def _row(self, b: bytes) -> bool:
        table = self.tables[b[26:30]]
        return table is not None and self._is_stopped_by(self.judge.row(b, table, self.begin))

    def _oversized_row(self, b: Buffer) -> bool:
        table = self.tables[bytes(b[26:30])]
        return table is not None and self._is_stopped_by(self.judge.oversized_row(b, table, self.begin))

    def _is_stopped_by(self, obstacle: Obstacle | None) -> bool:
        if obstacle is not None:
            self.obstacle = obstacle
        return obstacle is not None

    def _relation(self, b: bytes) -> bool:
        relation = pgoutput.relation(b)
        if not self.is_replaying:
            self.spool.restated(relation.oid)
        return self._meet(relation)

    def _meet(self, relation: Relation) -> bool:
        oid = relation.oid.to_bytes(4)
        if oid in self.tables:
            known = self.tables[oid]
            if known is not None and known.relation == relation:
                return False
            if known is None and not self.is_replaying:
                return False
            if known is not None and self._is_prepared:
                self._displaced.setdefault(relation.oid, known)
        self.obstacle = UnknownRelation(relation)
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
                self.judge.undecided.add(self.begin.xid)
                table.handover.doom()
                self._doomed.append(table.handover)
            table.add(TRUNCATE, b"{}\n", b[1:9], metadata)
            if not table.is_touched:
                self._touch(table, self.begin)

    def _on_origin(self, b: bytes) -> None:
        self._origin = pgoutput.origin(b)

    def _type(self, b: bytes) -> None:
        """Names of types come from the catalog, which also says what they are made of."""

    def _message(self, b: bytes) -> bool | None:
        found = pgoutput.message(b)
        table = self._messages
        alone = self.begin is None
        if alone and found.lsn < self._known_lsn:
            return self.hold
        if table is not None and not found.prefix.startswith(OWN_PREFIX):
            if alone:
                self.begin = Begin(
                    found.lsn, int.from_bytes(b[17:25], signed=True) // 1000 + 946_684_800_000, NO_XID
                )
            table.add(CREATE, message_line(found), b[1:9], {cdc.PREFIX: found.prefix})
            if not table.is_touched:
                self._touch(table, self.begin)
            if alone:
                # The record itself lies before this LSN, the next one behind it.
                self.end_transaction(found.lsn + 1)
        if found.prefix == SIGNAL_PREFIX:
            if alone:
                self.lsn = max(self.lsn, found.lsn + 1)
            self.obstacle = Signal(found.content)
            return True
        return alone and self.hold


def _rest(groups: Iterable[tuple[bytes, Iterator[bytes]]]) -> Iterator[bytes]:
    return chain.from_iterable(group for _, group in groups)
