"""Which tables a capture keeps, and where each stands: waiting to be copied, under copy, or followed. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hub_captures.postgres.catalog import Table, columns_crc
from hub_captures.postgres.handover import HandOver
from hub_captures.postgres.pgoutput import Relation, RelationColumn
from hub_captures.postgres.position import (
    Copying,
    Followed,
    PostgresPosition,
    pack_followed,
    pack_pending,
    unpack_followed,
    unpack_pending,
)

_WIDER = {("int2", "int4"), ("int2", "int8"), ("int4", "int8"), ("varchar", "text"), ("text", "varchar")}
"""Changes of type that keep every value as it reads."""


class Tracked:
    """One table. `handover` is None once the table is simply followed; `table` is None for one that was
    dropped while the capture was off, whose last changes may still come."""

    def __init__(self, table: Table | None, followed: Followed, handover: HandOver | None) -> None:
        self.table = table
        self.followed = followed
        self.handover = handover


class Tables:
    """The tables by OID, in the order in which they are copied."""

    def __init__(self) -> None:
        self.by_oid: dict[int, Tracked] = {}
        self._packed: tuple[str, str] | None = None

    def track(self, table: Table, copying: Copying | None) -> Tracked:
        """Keep a table: from the start of a copy, or following it when there is nothing to copy.
        The order of its keys is learned when the copy begins."""
        handover = HandOver(copying, None) if copying is not None else None
        tracked = Tracked(table, table.followed, handover)
        self.by_oid[table.oid] = tracked
        self._packed = None
        return tracked

    def recopy(self, oid: int, copying: Copying) -> HandOver:
        """Read a table's rows again."""
        tracked = self.by_oid[oid]
        tracked.handover = HandOver(copying, None)
        self._packed = None
        return tracked.handover

    def forget(self, oid: int) -> None:
        """The table is captured no longer."""
        self.by_oid.pop(oid, None)
        self._packed = None

    def follow(self, oid: int, followed: Followed) -> None:
        """The table's copy is over, or its form has changed."""
        self.by_oid[oid].followed = followed
        self._packed = None

    def settle(self, lsn: int) -> list[tuple[int, Tracked]]:
        """The stream has come to `lsn`: those whose copy is over are followed from now on, and returned."""
        over = []
        for oid, tracked in self._copying_by_oid():
            assert tracked.handover is not None
            if tracked.handover.passed(lsn) and tracked.handover.is_settled:
                tracked.handover = None
                over.append((oid, tracked))
        if over:
            self._packed = None
        return over

    def began(self) -> None:
        """A copy has begun, so that what is packed as waiting has changed."""
        self._packed = None

    def copying(self) -> list[Tracked]:
        """Tables whose copy waits, goes on, or is complete with changes still to be judged."""
        return [tracked for _, tracked in self._copying_by_oid()]

    def _copying_by_oid(self) -> list[tuple[int, Tracked]]:
        if self._packed is None:
            self._pack()
        return self._copying

    def next_to_copy(self) -> tuple[int, Tracked] | None:
        """The table to read from next: one that has begun before one that waits."""
        first = None
        for oid, tracked in self._copying_by_oid():
            if tracked.handover is None or tracked.handover.is_complete:
                continue
            if tracked.handover.state.began:
                return oid, tracked
            first = first or (oid, tracked)
        return first

    def position(
        self, system_id: str, timeline: int, database_oid: int, slot: str, lsn: int, xids: Sequence[int]
    ) -> PostgresPosition:
        """Where to resume after everything up to `lsn`."""
        if self._packed is None:
            self._pack()
        assert self._packed is not None
        pending, followed = self._packed
        return PostgresPosition(
            system_id,
            timeline,
            database_oid,
            slot,
            lsn,
            tuple(xids),
            pending,
            {str(oid): handover.state for oid, handover in self._spelled},
            followed,
        )

    def _pack(self) -> None:
        pending, followed = [], {}
        self._copying: list[tuple[int, Tracked]] = []
        self._spelled: list[tuple[int, HandOver]] = []
        for oid, tracked in self.by_oid.items():
            if tracked.handover is None:
                followed[oid] = tracked.followed
                continue
            self._copying.append((oid, tracked))
            if tracked.handover.state == Copying():
                pending.append(oid)
            else:
                self._spelled.append((oid, tracked.handover))
        self._packed = pack_pending(pending), pack_followed(followed)


def restored(position: PostgresPosition, found: Sequence[Table]) -> Tables:
    """The tables as a position knows them. Those that are gone from the database stay until they are reconciled."""
    tables = Tables()
    by_oid = {table.oid: table for table in found}
    for oid_text, state in position.copying.items():
        oid = int(oid_text)
        table = by_oid.get(oid)
        tables.by_oid[oid] = Tracked(
            table, table.followed if table else Followed(0, 0, 0), HandOver(state, None)
        )
    for oid in unpack_pending(position.pending):
        table = by_oid.get(oid)
        tables.by_oid[oid] = Tracked(
            table, table.followed if table else Followed(0, 0, 0), HandOver(Copying(), None)
        )
    for oid, followed in unpack_followed(position.followed).items():
        tables.by_oid[oid] = Tracked(by_oid.get(oid), followed, None)
    return tables


class Difference(NamedTuple):
    """What has changed since the tables were last looked at. `recreated` names new tables under the name of
    one that is gone; `altered` those whose columns are others than remembered."""

    added: list[Table]
    recreated: list[Table]
    gone: list[int]
    renamed: list[Table]
    altered: list[Table]


def difference(tables: Tables, chosen: Sequence[Table]) -> Difference:
    """Compare what is kept with what is there and wanted."""
    there = {table.oid: table for table in chosen}
    gone = [oid for oid in tables.by_oid if oid not in there]
    gone_names = {tables.by_oid[oid].followed.name_crc for oid in gone}
    new = [table for table in chosen if table.oid not in tables.by_oid]
    kept = [(tracked.followed, there[oid]) for oid, tracked in tables.by_oid.items() if oid in there]
    renamed = [table for before, table in kept if before.name_crc != table.followed.name_crc]
    return Difference(
        [table for table in new if table.followed.name_crc not in gone_names],
        [table for table in new if table.followed.name_crc in gone_names],
        gone,
        renamed,
        [t for before, t in kept if before.columns_crc != t.followed.columns_crc and t not in renamed],
    )


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
    """The key of rows laid out like this: the catalog's, as long as the relation has its columns; of a table
    that is gone, the columns of its identity."""
    names = {column.name for column in relation.columns}
    if table is not None and set(table.key) <= names:
        return table.key
    if relation.identity == "f":
        return ()
    return tuple(column.name for column in relation.columns if column.in_identity)
