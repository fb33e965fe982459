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
from hub_captures.postgres.harm import harmless
from hub_captures.postgres.pgoutput import Relation
from hub_captures.postgres.position import Copying, PostgresPosition
from hub_captures.postgres.server import Member
from hub_captures.postgres.tables import (
    Tables,
    Tracked,
    difference,
    is_rewritten,
    is_widening,
    relation_crc,
)
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
        chosen = choose(self._capture, await self._look())
        there = {table.oid: table for table in chosen}
        changed = difference(self._tables, chosen)
        for table in changed.renamed:
            self._renamed(table)
        for table in changed.altered:
            await self.altered(self._tables.by_oid[table.oid], table)
        for table in changed.grown:
            self._grown(self._tables.by_oid[table.oid], table)
        judge_missed(self._capture, self._out, self._tables, await self._publish(changed.missed))
        bare = [table for table in chosen if table.oid in self._tables.by_oid and not table.has_identity]
        await self._take_up(changed.added + changed.recreated, bare)
        now = await server.flushed_lsn(self._query) if changed.gone else 0
        replaced = {table.followed.name_crc for table in changed.recreated}
        closed = []
        for oid in changed.gone:
            if self._tables.by_oid[oid].followed.name_crc in replaced:
                closed.append(oid)
                self._tables.forget(oid)
            elif self._gone_at.setdefault(oid, now) <= lsn:
                del self._gone_at[oid]
                last_seen = self._tables.by_oid[oid].table
                self._out.notice(
                    "a table is gone, or out of the publication",
                    table=last_seen.full_name if last_seen else oid,
                )
                self._tables.forget(oid)
        missed = {table.oid for table in changed.missed}
        for oid, tracked in self._tables.by_oid.items():
            now_there = there.get(oid)
            # Of one that could not be published yet it must stay known that it was not all the time.
            if now_there is not None and tracked.handover is None and oid not in missed:
                tracked.table = now_there
                self._tables.follow(oid, now_there.followed)
        return closed

    async def is_wanted(self, oid: int) -> bool:
        """Whether a table that is not captured yet is to be. A publication may have thousands that are not, and each comes
        up once."""
        return bool(choose(self._capture, await self._look(oids=[oid])))

    async def _look(self, oids: Sequence[int] | None = None) -> list[Table]:
        roots_only = self._capture.is_managed
        return await catalog.tables(self._query, self._publication, oids=oids, roots_only=roots_only)

    async def _take_up(self, new: Sequence[Table], bare: Sequence[Table]) -> None:
        """Tables that were not captured. Their names may have been, of tables that are gone: what is left of
        these is to be replaced. `bare` are captured and have no identity any more."""
        if self._capture.is_managed:
            await harmless(self._capture, self._out, self._query, bare, self._tables.left_out)
            new = await harmless(self._capture, self._out, self._query, new, self._tables.left_out)
        for table in await self._publish(new):
            self._tables.track(table, copying_of(self._capture, table, replace=True))
            self._out.notice("table taken up", table=table.full_name)

    async def _publish(self, tables: Sequence[Table]) -> list[Table]:
        """See to it that tables are in the publication. Those that are, as they are now."""
        if not tables:
            return []
        missing = [table for table in tables if not table.in_publication]
        if missing and self._capture.is_managed:
            await publish(self._capture, self._out, self._query, missing)
            oids = [table.oid for table in tables]
            tables = await catalog.tables(self._query, self._publication, oids=oids)
        self._tables.begin_after = await server.first_unborn(self._query)
        return [table for table in tables if table.in_publication]

    def _grown(self, tracked: Tracked, table: Table) -> None:
        """Rows have come with a partition that was a table of its own."""
        before = tracked.as_remembered
        new = set(table.attached) - set(before.attached if before is not None else ())
        tracked.table = table
        self._tables.follow(table.oid, table.followed)
        if new and self._tables.may_be_rewritten(table.oid):
            # What was not seen itself is not known by name.
            listed = ", ".join(map(str, sorted(new)))
            self._judge_rewrite(
                tracked,
                table,
                f"a partition was attached to {table.full_name}, whose rows of before the stream does not show",
                where=f"tableoid in ({listed})" if before is not None else "",
            )

    async def watch_form(self, tracked: Tracked, relation: Relation, before: Relation | None) -> None:
        """A relation of a table that is followed: has its form or its name changed since it was last seen?"""
        if (
            name_crc(relation.schema, relation.table) != tracked.followed.name_crc
            and tracked.table is not None
        ):
            found = await catalog.tables(self._query, self._publication, oids=[relation.oid])
            if found and found[0].followed.name_crc != tracked.followed.name_crc:
                self._renamed(found[0])
        identity = {column.name for column in relation.columns if column.in_identity}
        rekeyed = (
            relation.identity in "di" and tracked.table is not None and set(tracked.table.key) != identity
        )
        is_sent = self._tables.may_be_rewritten(relation.oid)
        if is_sent and (rekeyed or relation_crc(relation) != tracked.followed.columns_crc):
            found = await catalog.tables(self._query, self._publication, oids=[relation.oid])
            if found:
                await self.altered(tracked, found[0], before, relation)

    async def altered(
        self, tracked: Tracked, table: Table, before: Relation | None = None, after: Relation | None = None
    ) -> None:
        """Remember a table's new form; when its rows say something else than they were sent as, read them again."""
        seen = tracked.followed
        rewritten = is_rewritten(seen, table.followed)
        known: set[str] = set()
        if before is not None:
            known = {column.name for column in before.columns}
        elif (remembered := tracked.as_remembered) is not None:
            known = {column.name for column in remembered.columns}
        tracked.table = table
        self._tables.follow(table.oid, table.followed)
        if not self._tables.may_be_rewritten(table.oid):
            return
        if tracked.handover is not None and seen.key_crc not in (0, table.followed.key_crc):
            # The copy stands at a key of before.
            self._read_again(tracked, table, f"{table.full_name} has another key")
            return
        filled = seen.columns_crc != table.followed.columns_crc and any(
            column.has_default_rows and column.name not in known for column in table.columns
        )
        if not rewritten and not filled:
            return
        is_present = after is not None and relation_crc(after) == table.followed.columns_crc
        # The stream may be behind: a relation of before says nothing of what was rewritten since.
        if before is not None and after is not None and is_present and not filled:
            wanted = [column.type_oid for each in (before, after) for column in each.columns]
            await load_types(self._query, wanted, self._types)
            if is_widening(before.columns, after, {oid: each.name for oid, each in self._types.items()}):
                return
        self._judge_rewrite(
            tracked, table, f"{table.full_name} was rewritten by ALTER TABLE, which the stream does not show"
        )

    def _judge_rewrite(self, tracked: Tracked, table: Table, what: str, where: str = "") -> None:
        """Rows have changed and the stream does not show it."""
        match self._capture.on_rewrite:
            case "stop":
                raise FatalError(f"{what}; set on_rewrite to resnapshot or ignore")
            case "ignore":
                self._out.notice(f"{what}; its rows are left as they are", table=table.full_name)
            case "resnapshot":
                self._read_again(tracked, table, what, where)

    def _read_again(self, tracked: Tracked, table: Table, what: str, where: str = "") -> None:
        self._out.notice(f"{what}; its rows are read again", table=table.full_name)
        self._out.count("resnapshots")
        self._tables.recopy(table.oid, again(tracked.handover, where=where))

    def _renamed(self, table: Table) -> None:
        if self._capture.on_rename == "stop":
            raise FatalError(
                f"a captured table is now called {table.full_name}: its changes would go to another collection. "
                "Rename it back, or set on_rename: follow to begin a new collection"
            )
        self._out.notice("table renamed: a new collection begins", table=table.full_name)
        self._tables.track(table, copying_of(self._capture, table, replace=True))

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
        # The stream may have shown a commit that waits for a standby, and that no snapshot sees yet: what it replaced
        # must not be read after it.
        unborn = await server.first_unborn(self._query)
        for oid, tracked in named:
            assert tracked.table is not None
            if where and (problem := await condition_problem(self._query, tracked.table, where)):
                self._out.notice("rows are not read again", table=tracked.table.full_name, reason=problem)
                continue
            self._tables.recopy(oid, again(tracked.handover, where=where))
            self._tables.begin_after = unborn
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


def judge_missed(
    capture: PostgresCapture, out: Outlet[PostgresPosition], tables: Tables, missed: Sequence[Table]
) -> None:
    """Tables that were out of the publication for some time, or whose publication was made anew or altered: changes
    of them were not sent. Those that are captured with their rows are read again, or it is an error."""
    lost = [table for table in missed if tables.may_be_rewritten(table.oid)]
    problem = (
        f"changes of {', '.join([table.full_name for table in lost[:5]])}{' and others' if lost[5:] else ''} may be "
        f"missing: since they were last looked at, the publication {capture.publication_name(out.task)} was made anew or "
        "altered, or they were taken out of it and put in again"
    )
    for table in lost:
        tracked = tables.by_oid[table.oid]
        tracked.table = table
        if copying_of(capture, table, replace=True) is None:
            out.notice(f"{problem}; no rows are read here", table=table.full_name)
            tables.follow(table.oid, table.followed)
        elif capture.on_gap == "stop" and capture.snapshot != "when_needed":
            raise FatalError(f"{problem}. Set on_gap: resnapshot to read them again")
        else:
            out.notice(f"{problem}; its rows are read again", table=table.full_name)
            out.count("resnapshots")
            tables.recopy(table.oid, again(tracked.handover, where=""))


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


async def publish(
    capture: PostgresCapture, out: Outlet[PostgresPosition], query: Connection, tables: Sequence[Table]
) -> None:
    """Add tables to the managed publication. Of those that cannot be just now it is said, and they are left to the next
    look at the catalog."""
    members = [member_of(capture, table) for table in tables]
    for member in await server.add_to_publication(query, capture.publication_name(out.task), members):
        out.notice(
            "a table is not captured yet: somebody has locked it, or it is gone",
            table=member.table.full_name,
        )


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
