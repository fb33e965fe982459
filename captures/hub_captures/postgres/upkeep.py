"""Tables that come, go, change their form or their name while the capture runs; and what the gauges show.

DDL does not come in the stream. A new form shows with the next row, as a Relation; a new table, or a table
that was rewritten and then left alone, shows only in the catalog, which is looked at now and then.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from hub.capture import Outlet
from hub.errors import FatalError
from hub_captures.postgres import catalog, server
from hub_captures.postgres.backfill import condition_problem, is_from_owner
from hub_captures.postgres.capture import PostgresCapture
from hub_captures.postgres.catalog import Table, load_types, name_crc
from hub_captures.postgres.connection import Connection, rows
from hub_captures.postgres.feed import MARK_PREFIX
from hub_captures.postgres.handover import HandOver
from hub_captures.postgres.pgoutput import Relation
from hub_captures.postgres.position import Copying, PostgresPosition
from hub_captures.postgres.server import Member
from hub_captures.postgres.tables import Tables, Tracked, difference, is_widening, relation_crc
from hub_captures.postgres.types import PgType

_WAL_STATUS = {"reserved": 0, "extended": 1, "unreserved": 2, "lost": 3}
"""As a number, which an alarm can be set on: from 2 on the next checkpoint may take WAL that is needed."""


class Upkeep:
    """Keeps `tables` in step with the database."""

    def __init__(
        self,
        capture: PostgresCapture,
        out: Outlet[PostgresPosition],
        query: Connection,
        tables: Tables,
        types: dict[int, PgType],
        *,
        is_standby: bool,
    ) -> None:
        self._capture = capture
        self._out = out
        self._query = query
        self._tables = tables
        self._types = types
        self._publication = capture.publication_name(out.task)
        self._gone_at: dict[int, int] = {}
        self._is_standby = is_standby

    async def refresh(self, lsn: int) -> list[int]:
        """Compare with the catalog: take up new tables, read rewritten ones again, forget those that are gone
        and whose last changes lie before `lsn`. The OIDs whose late changes must not be sent any more."""
        found = await catalog.tables(self._query, self._publication, roots_only=self._capture.is_managed)
        chosen = choose(self._capture, found)
        there = {table.oid: table for table in chosen}
        changed = difference(self._tables, chosen)
        for table in changed.renamed:
            self._renamed(table)
        for table in changed.altered:
            await self.altered(self._tables.by_oid[table.oid], table)
        await self._take_up(changed.added, replace=False)
        await self._take_up(changed.recreated, replace=True)
        now = await server.flushed_lsn(self._query) if changed.gone else 0
        replaced = {table.followed.name_crc for table in changed.recreated}
        closed = []
        for oid in changed.gone:
            if self._tables.by_oid[oid].followed.name_crc in replaced:
                closed.append(oid)
                self._tables.forget(oid)
            elif self._gone_at.setdefault(oid, now) <= lsn:
                self._tables.forget(oid)
        for oid, tracked in self._tables.by_oid.items():
            now_there = there.get(oid)
            if now_there is not None and tracked.handover is None:
                tracked.table = now_there
                if tracked.followed.filenode != now_there.filenode:
                    # VACUUM FULL, CLUSTER and TRUNCATE move a table without changing what its rows say.
                    self._tables.follow(oid, now_there.followed)
        return closed

    async def _take_up(self, new: Sequence[Table], *, replace: bool) -> None:
        missing = [table for table in new if not table.in_publication]
        if missing and self._capture.is_managed:
            await server.add_to_publication(
                self._query, self._publication, [member_of(self._capture, table) for table in missing]
            )
        for table in new:
            if table.in_publication or self._capture.is_managed:
                self._tables.track(table, copying_of(self._capture, table, replace=replace))
                self._out.notice("table taken up", table=table.full_name, recreated=replace)

    async def watch_form(self, tracked: Tracked, relation: Relation, before: Relation | None) -> None:
        """A relation of a table that is followed: has its form or its name changed since it was last seen?"""
        if (
            name_crc(relation.schema, relation.table) != tracked.followed.name_crc
            and tracked.table is not None
        ):
            found = await catalog.tables(self._query, self._publication, oids=[relation.oid])
            if found and found[0].followed.name_crc != tracked.followed.name_crc:
                self._renamed(found[0])
        is_sent = self._tables.may_be_rewritten(relation.oid)
        if is_sent and relation_crc(relation) != tracked.followed.columns_crc:
            found = await catalog.tables(self._query, self._publication, oids=[relation.oid])
            if found:
                await self.altered(tracked, found[0], before, relation)

    async def altered(
        self, tracked: Tracked, table: Table, before: Relation | None = None, after: Relation | None = None
    ) -> None:
        """Remember a table's new form; when its rows say something else than they were sent as, read them again."""
        rewritten = table.filenode != tracked.followed.filenode
        known: set[str] = set()
        if before is not None:
            known = {column.name for column in before.columns}
        elif tracked.table is not None and tracked.table.followed == tracked.followed:
            known = {column.name for column in tracked.table.columns}
        tracked.table = table
        self._tables.follow(table.oid, table.followed)
        if not self._tables.may_be_rewritten(table.oid):
            return
        filled = any(column.has_default_rows and column.name not in known for column in table.columns)
        if not rewritten and not filled:
            return
        if before is not None and after is not None and not filled:
            wanted = [column.type_oid for each in (before, after) for column in each.columns]
            await load_types(self._query, wanted, self._types)
            if is_widening(before.columns, after, {oid: each.name for oid, each in self._types.items()}):
                return
        what = f"{table.full_name} was rewritten by ALTER TABLE, which the stream does not show"
        match self._capture.on_rewrite:
            case "stop":
                raise FatalError(f"{what}; set on_rewrite to resnapshot or ignore")
            case "ignore":
                self._out.notice(f"{what}; its rows are left as they are", table=table.full_name)
            case "resnapshot":
                self._out.notice(f"{what}; its rows are read again", table=table.full_name)
                self._out.count("resnapshots")
                # A copy that is under way begins anew.
                self._tables.recopy(
                    table.oid, Copying(refresh=True) if tracked.handover is None else Copying(replace=True)
                )

    def _renamed(self, table: Table) -> None:
        if self._capture.on_rename == "stop":
            raise FatalError(
                f"a captured table is now called {table.full_name}: its changes would go to another collection. "
                "Rename it back, or set on_rename: follow to begin a new collection"
            )
        self._out.notice("table renamed: a new collection begins", table=table.full_name)
        self._tables.track(table, copying_of(self._capture, table, replace=False))

    async def signal(self, content: bytes, xid: int) -> None:
        """`select pg_logical_emit_message(true, 'hub.signal', '{"snapshot": ["public.orders"]}')`, with an
        optional `"task"`, the capture that is meant. `"where"` counts only in what `hub backfill` has
        written (see `backfill.py`)."""
        try:
            asked = json.loads(content)
            if asked.get("task", self._out.task) != self._out.task:
                return
            patterns = [str(pattern) for pattern in asked["snapshot"]]
            where = str(asked.get("where", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            self._out.notice(
                'a signal was not understood; expected {"snapshot": ["schema.table"]}',
                content=content[:200].decode(errors="replace"),
            )
            return
        if where and not await is_from_owner(self._query, self._publication, content, xid):
            self._out.notice(
                "a signal with a condition is left alone: only the owner of the publication may set one, by hub backfill",
                tables=patterns,
            )
            return
        named = [
            (oid, tracked)
            for oid, tracked in self._tables.by_oid.items()
            if tracked.table is not None and catalog.matches(tracked.table, patterns)
        ]
        if not named:
            self._out.notice("a signal names no captured table", tables=patterns)
        for oid, tracked in named:
            assert tracked.table is not None
            if where and (problem := await condition_problem(self._query, tracked.table, where)):
                self._out.notice("rows are not read again", table=tracked.table.full_name, reason=problem)
                continue
            self._tables.recopy(oid, again(tracked.handover, where=where))
            self._out.notice("rows are read again", table=tracked.table.full_name, where=where)

    async def mark(self) -> None:
        """Let the server flush its WAL. What is no commit (hint bits that the reading of a copy has set) else
        waits for the next one, and an idle stream would never be seen to pass a fence behind it."""
        if not self._is_standby:
            await rows(
                self._query, "writing a mark", f"select pg_logical_emit_message(true, '{MARK_PREFIX}', '')"
            )

    async def gauges(self, slot_name: str) -> None:
        """What the server says of the slot."""
        slot = await server.slot_of(self._query, slot_name)
        if slot is None:
            return
        out = self._out
        out.gauge("slot_lag_bytes", slot.lag_bytes)
        out.gauge("slot_retained_bytes", slot.retained_bytes)
        out.gauge("slot_wal_status", _WAL_STATUS.get(slot.wal_status, 0))
        if slot.safe_wal_bytes is not None:
            out.gauge("slot_safe_wal_bytes", slot.safe_wal_bytes)
            if slot.safe_wal_bytes < slot.retained_bytes // 4:
                writers = await server.open_writers(self._query)
                out.notice(
                    "the slot is near max_slot_wal_keep_size, beyond which it is lost",
                    safe_wal_bytes=slot.safe_wal_bytes,
                    oldest_transaction_pid=writers[0].pid if writers else None,
                )
        if self._query.info.server_version >= 140000:
            found = await rows(
                self._query,
                "reading the slot's statistics",
                "select spill_txns, spill_bytes, stream_txns, stream_bytes from pg_stat_replication_slots "
                "where slot_name = %s",
                [slot_name],
            )
            names = (
                "slot_spilled_transactions",
                "slot_spilled_bytes",
                "slot_streamed_transactions",
                "slot_streamed_bytes",
            )
            for name, value in zip(names, found[0] if found else (), strict=False):
                out.gauge(name, value)


def again(handover: HandOver | None, *, where: str) -> Copying:
    """How a table is read again at somebody's wish, given how far its copy is, if it is under copy now. Read as a
    whole, a table's rows that are gone from it can be told."""
    if handover is None:
        return Copying(refresh=True, replace=not where, where=where)
    state = handover.state
    if state.began:
        # What was read by halves, or whose changes are still to be judged, is best begun anew.
        return Copying(replace=True)
    if state.refresh:
        both = f"({state.where}) or ({where})" if where and state.where else ""
        return Copying(refresh=True, replace=not both, where=both)
    return state


def choose(capture: PostgresCapture, found: Sequence[Table]) -> list[Table]:
    """The tables that the options name, and that can come in the stream."""
    return [
        table
        for table in found
        if capture.options_of(table) is not None
        and (table.in_publication or (capture.is_managed and table.persistence == "p"))
    ]


def member_of(capture: PostgresCapture, table: Table) -> Member:
    """A table as the managed publication has it."""
    options = capture.options_of(table)
    assert options is not None
    return Member(table, tuple(options.columns), options.where)


def copying_of(capture: PostgresCapture, table: Table, *, replace: bool) -> Copying | None:
    """How a new table is begun; None when only its changes are wanted."""
    options = capture.options_of(table)
    if capture.snapshot == "never" or (options is not None and not options.snapshot):
        return None
    return Copying(replace=replace)
