"""Which tables a capture keeps, and where each stands: waiting to be copied, under copy, or followed. No I/O."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

from hub_captures.postgres.catalog import Table, columns_crc
from hub_captures.postgres.handover import HandOver
from hub_captures.postgres.pgoutput import Relation, RelationColumn
from hub_captures.postgres.position import (
    Chunk,
    Copied,
    Copying,
    Followed,
    PostgresPosition,
    Visibility,
    pack_followed,
    pack_oids,
    unpack_followed,
    unpack_oids,
)

_WIDER = {("int2", "int4"), ("int2", "int8"), ("int4", "int8")}
"""Changes of type that rewrite a table and keep every value as it reads."""


class Tracked:
    """One table. `handover` is None once the table is simply followed; `table` is None for one that was
    dropped while the capture was off, whose last changes may still come. A copy that could not go on is
    `deferred_until` a time of the monotonic clock, so that others get their turn."""

    def __init__(self, table: Table | None, followed: Followed, handover: HandOver | None) -> None:
        self.table = table
        self.followed = followed
        self.handover = handover
        self.deferred_until = self.deferred_s = 0.0

    @property
    def as_remembered(self) -> Table | None:
        """The table as it was when it was last remembered, where that is known in full."""
        table = self.table
        return table if table is not None and table.followed == self.followed else None


class Tables:
    """The tables by OID. What is asked for every record sent costs as much as there are tables under copy, not
    as there are tables."""

    def __init__(self) -> None:
        self.by_oid: dict[int, Tracked] = {}
        self._waiting: dict[int, Tracked] = {}
        """Those whose copy has not begun, in the order in which they are copied."""
        self._active: dict[int, Tracked] = {}
        """Those whose copy goes on, or is complete with changes still to be judged."""
        self._said_of_waiting: tuple[bool, dict[str, Copying]] | None = None
        self._note_is_due = True
        self.left_out: set[int] = set()
        """Tables of which it was said that they cannot be published, or should not be."""
        self.begin_after = 0
        """The first snapshot of a table must see every transaction before this one (64 bits): while those were writing,
        the publication may have been without the table, and what they wrote then never comes in the stream."""
        self.begin_not_before = 0.0
        """A time of the monotonic clock before which no copy is begun."""

    def track(self, table: Table, copying: Copying | None) -> Tracked:
        """Keep a table: from the start of a copy, or following it when there is nothing to copy.
        The order of its keys is learned when the copy begins."""
        handover = HandOver(copying, None) if copying is not None else None
        return self.keep(table.oid, Tracked(table, table.followed, handover))

    def keep(self, oid: int, tracked: Tracked) -> Tracked:
        """Keep a table as it stands."""
        self.forget(oid)
        self.by_oid[oid] = tracked
        if tracked.handover is None:
            self._note_is_due = True
        elif tracked.handover.state.began:
            self._active[oid] = tracked
        else:
            self._waiting[oid] = tracked
        return tracked

    def recopy(self, oid: int, copying: Copying) -> None:
        """Read a table's rows again."""
        tracked = self.by_oid[oid]
        tracked.handover = HandOver(copying, None)
        self.keep(oid, tracked)

    def forget(self, oid: int) -> None:
        """The table is captured no longer."""
        if self.by_oid.pop(oid, None) is not None:
            self._note_is_due = True
        self._active.pop(oid, None)
        self._waiting.pop(oid, None)
        self._said_of_waiting = None

    def follow(self, oid: int, followed: Followed) -> None:
        """The table's copy is over, or its form has changed."""
        if self.by_oid[oid].followed != followed:
            self.by_oid[oid].followed = followed
            self._note_is_due = True

    def began(self, oid: int) -> None:
        """The first rows of a table were read."""
        if self._waiting.pop(oid, None) is not None:
            self._active[oid] = self.by_oid[oid]
            self._said_of_waiting = None

    def may_be_rewritten(self, oid: int) -> bool:
        """Rows of the table have been sent, so that it matters when they come to say something else."""
        handover = self.by_oid[oid].handover
        return handover is None or handover.state.began

    def settle(self, lsn: int) -> list[tuple[int, Tracked]]:
        """The stream has come to `lsn`: those whose copy is over are followed from now on, and returned."""
        over = []
        for oid, tracked in self._active.items():
            assert tracked.handover is not None
            if tracked.handover.passed(lsn) and tracked.handover.is_settled:
                tracked.handover = None
                over.append((oid, tracked))
        for oid, _ in over:
            del self._active[oid]
            self._note_is_due = True
        return over

    @property
    def is_copying(self) -> bool:
        """The copy of some table waits, goes on, or is complete with changes still to be judged."""
        return bool(self._waiting or self._active)

    def awaiting_stream(self) -> list[HandOver]:
        """Copies that are over when the stream has come to where they were read, or would soon have to wait for it."""
        return [
            t.handover for t in self._active.values() if t.handover is not None and t.handover.awaits_stream
        ]

    def next_to_copy(self, most: int, now: float) -> list[tuple[int, Tracked]]:
        """The tables to read from next: one that has begun, or some that wait."""
        for oid, tracked in self._active.items():
            assert tracked.handover is not None
            if not tracked.handover.is_complete and tracked.deferred_until <= now:
                return [] if tracked.handover.is_far_ahead else [(oid, tracked)]
        if now < self.begin_not_before:
            return []
        return list(islice(((o, t) for o, t in self._waiting.items() if t.deferred_until <= now), most))

    def unread(self) -> list[tuple[int, Tracked]]:
        """All tables that are not read to their end."""
        active = [(o, t) for o, t in self._active.items() if t.handover and not t.handover.is_complete]
        return active + list(self._waiting.items())

    @property
    def unread_count(self) -> int:
        """How many tables are not read to their end."""
        reading = [t for t in self._active.values() if t.handover and not t.handover.is_complete]
        return len(self._waiting) + len(reading)

    def begin_anew(self) -> None:
        """What was read under a snapshot that is gone is to be read again, where the whole of it was not read."""
        if self.unread():
            for oid, tracked in list(self._active.items()):
                assert tracked.handover is not None
                state = tracked.handover.state
                again = Copying(
                    refresh=state.refresh, where=state.where, replace=state.replace or not state.refresh
                )
                self.recopy(oid, again)

    def position(
        self,
        system_id: str,
        timeline: int,
        database_oid: int,
        slot: str,
        lsn: int,
        xids: Sequence[int],
        prepared_lsn: int | None = None,
    ) -> PostgresPosition:
        """Where to resume after everything up to `lsn`."""
        replaces, spelled = self._of_waiting()
        copying = dict(spelled)
        waiting = len(self._waiting) - len(spelled)
        whole: dict[tuple[Visibility, int], list[int]] = {}
        for oid, tracked in self._active.items():
            assert tracked.handover is not None
            state = tracked.handover.state
            is_whole = len(state.chunks) == 1 and state.chunks[0].upper is None and state.floor is None
            if is_whole and not state.refresh:
                chunk = state.chunks[0]
                whole.setdefault((chunk.visibility, chunk.fence), []).append(oid)
            elif state == Copying():
                # Emptied in the middle: it begins anew.
                waiting += 1
            else:
                copying[str(oid)] = state
        named = [*map(int, copying), *[oid for oids in whole.values() for oid in oids]]
        return PostgresPosition(
            system_id,
            timeline,
            database_oid,
            slot,
            lsn,
            tuple(xids),
            copying,
            tuple([Copied(*moment, pack_oids(oids)) for moment, oids in whole.items()]),
            waiting,
            replaces,
            forms=b64encode(pack_followed({oid: self.by_oid[oid].followed for oid in named})).decode(),
            prepared_lsn=prepared_lsn,
        )

    def due_note(self) -> bytes | None:
        """What the note is to hold from the next position on; None when that has not changed since it was last
        asked for."""
        if not self._note_is_due:
            return None
        self._note_is_due = False
        return pack_followed({oid: t.followed for oid, t in self.by_oid.items() if t.handover is None})

    def _of_waiting(self) -> tuple[bool, dict[str, Copying]]:
        """Whether those that wait stand between the marks of a backfill, and those of them with more to remember."""
        if self._said_of_waiting is None:
            states = {oid: t.handover.state for oid, t in self._waiting.items() if t.handover is not None}
            replaces = _REPLACING in states.values() and Copying() not in states.values()
            plain = _REPLACING if replaces else Copying()
            self._said_of_waiting = (
                replaces,
                {str(oid): state for oid, state in states.items() if state != plain},
            )
        return self._said_of_waiting


_REPLACING = Copying(replace=True)


def restored(
    position: PostgresPosition,
    note: bytes | None,
    found: Sequence[Table],
    begin: Callable[[Table, bool], Copying | None],
) -> Tables:
    """The tables as a position and its note know them; `begin` says how those are begun that neither knows, which
    are those whose copy has not begun and new ones, given whether rows of before are to be replaced. Those that are gone
    from the database, and those that were made anew under the same name, stay as they were until they are reconciled."""
    tables = Tables()
    by_oid = {table.oid: table for table in found}

    for oid, followed in unpack_followed(note or b"").items():
        tables.keep(oid, Tracked(by_oid.get(oid), followed, None))
    states = {int(oid): state for oid, state in position.copying.items()}
    for copied in position.copied:
        state = Copying(chunks=(Chunk(None, copied.visibility, copied.fence),), began=True)
        states |= dict.fromkeys(unpack_oids(copied.oids), state)
    forms = unpack_followed(b64decode(position.forms))
    for oid, state in states.items():
        tables.keep(oid, Tracked(by_oid.get(oid), forms[oid], HandOver(state, None)))
    gone_names = {each.followed.name_crc for oid, each in tables.by_oid.items() if oid not in by_oid}
    unknown = [t for t in found if t.oid not in tables.by_oid and t.followed.name_crc not in gone_names]
    # Of a new table's name there may have been another one, seen to be gone long ago.
    replace = position.replaces or len(unknown) != position.waiting
    for table in unknown:
        tables.track(table, begin(table, replace))
    return tables


class Difference(NamedTuple):
    """What has changed since the tables were last looked at. `recreated` names new tables under the name of
    one that is gone; `altered` those whose columns or key are others than remembered, or whose rows were rewritten;
    `missed` those that were not in the publication all the time; `grown` those that got rows with a partition."""

    added: list[Table]
    recreated: list[Table]
    gone: list[int]
    renamed: list[Table]
    altered: list[Table]
    missed: list[Table]
    grown: list[Table]


def difference(tables: Tables, chosen: Sequence[Table]) -> Difference:
    """Compare what is kept with what is there and wanted."""
    there = {table.oid: table for table in chosen}
    gone = [oid for oid in tables.by_oid if oid not in there]
    gone_names = {tables.by_oid[oid].followed.name_crc for oid in gone}
    new = [table for table in chosen if table.oid not in tables.by_oid]
    kept = [
        (tracked.followed, there[oid].followed, there[oid])
        for oid, tracked in tables.by_oid.items()
        if oid in there
    ]
    renamed = [table for before, now, table in kept if before.name_crc != now.name_crc]
    return Difference(
        [table for table in new if table.followed.name_crc not in gone_names],
        [table for table in new if table.followed.name_crc in gone_names],
        gone,
        renamed,
        [table for before, now, table in kept if is_altered(before, now) and table not in renamed],
        [table for before, now, table in kept if before.member_crc not in (0, now.member_crc)],
        [table for before, now, table in kept if before.attached_crc not in (0, now.attached_crc)],
    )


def is_altered(before: Followed, now: Followed) -> bool:
    """Whether a table's columns or key have changed, or its rows were rewritten."""
    is_rekeyed = before.key_crc not in (0, now.key_crc)
    return before.columns_crc != now.columns_crc or is_rekeyed or is_rewritten(before, now)


def is_rewritten(before: Followed, now: Followed) -> bool:
    """Whether a table's rows may read otherwise than they did. VACUUM FULL, CLUSTER and TRUNCATE leave another file too,
    and ALTER TABLE touches columns without writing rows; a rewrite does both. So does TRUNCATE with ADD COLUMN, which is
    taken for one: ADD COLUMN with a volatile default that was dropped since leaves the catalog just so."""
    is_touched = before.touched_crc not in (0, now.touched_crc) or before.columns_crc != now.columns_crc
    return is_touched and before.filenode not in (0, now.filenode)


def is_widening(before: Sequence[RelationColumn], after: Relation, names: dict[int, str]) -> bool:
    """Whether a table's columns changed only so that every value still reads as it did."""
    types = {column.name: names.get(column.type_oid, "") for column in before}
    for column in after.columns:
        old, new = types.get(column.name), names.get(column.type_oid, "")
        if old is not None and old != new and (old, new) not in _WIDER:
            return False
    return set(types) >= {column.name for column in after.columns}


def relation_crc(relation: Relation) -> int:
    """The checksum of a relation's columns, comparable with that of the catalog."""
    return columns_crc([(column.name, column.type_oid, column.modifier) for column in relation.columns])


def key_of(relation: Relation, table: Table | None) -> tuple[str, ...]:
    """The key of rows laid out like this: the columns that the stream says come with every update, in the catalog's order
    where it knows them as the key; where whole rows come, what the catalog says is the key."""
    identity = tuple([column.name for column in relation.columns if column.in_identity])
    key = table.key if table is not None else ()
    if relation.identity in "fn":
        return key if set(key) <= {column.name for column in relation.columns} else ()
    return key if set(key) == set(identity) else identity
