"""What happens before the first change is read: is this the server we know, is everything there, where do we go on?

Every way in which changes could be lost without a word is looked for here, before a row is taken: PostgreSQL
itself accepts a start before the slot's position or beyond its own WAL, and silently skips.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import anyio

from hub.capture import Outlet
from hub.errors import ConfigError, FatalError, HubError, TransientError
from hub_captures.postgres import catalog, server
from hub_captures.postgres.capture import PostgresCapture
from hub_captures.postgres.catalog import Table
from hub_captures.postgres.checks import missing_rights, slot_problem
from hub_captures.postgres.connection import Connection, quoted
from hub_captures.postgres.harm import harmless
from hub_captures.postgres.position import Copying, PostgresPosition, lsn_text
from hub_captures.postgres.server import Identity, Publication, Slot
from hub_captures.postgres.tables import Tables, difference, restored
from hub_captures.postgres.upkeep import choose, copying_of, judge_missed, member_of, publish

WAIT_NOTICE_S = 5.0
"""How often it is said what the creation of a slot is waiting for."""
WAIT_QUERY_S = 5.0
LEFT_OVER_RETRY_S = 1.0
"""The server needs a moment to notice that a killed hub is gone."""


class Prepared(NamedTuple):
    """Where a run begins: the server at `start_lsn`, and what has committed before `lsn` is known. `stale` is a durable position of before, which means nothing to this slot: telling the
    server of it would let the server forget what was never sent."""

    identity: Identity
    publication: str
    slot: str
    lsn: int
    start_lsn: int
    xids: tuple[int, ...]
    tables: Tables
    two_phase: bool
    stale: PostgresPosition | None


async def prepare(
    capture: PostgresCapture,
    resume: PostgresPosition | None,
    out: Outlet[PostgresPosition],
    query: Connection,
    wire: Connection,
) -> Prepared | None:
    """Check, make what is missing, and say where to begin. None when a source that is read once was read."""
    if resume is not None and resume.done:
        return None
    problems = [finding for finding in await missing_rights(capture, query) if not finding.ok]
    if problems:
        raise FatalError("; ".join(f"{finding.what}: {finding.cure}" for finding in problems))
    identity = await server.identify(query, wire)
    slot_name, publication_name = capture.slot_name(out.task), capture.publication_name(out.task)
    slot = await server.slot_of(query, slot_name)
    publication = await server.publication_of(query, publication_name)
    replace = False
    if resume is not None:
        flushed = await server.flushed_lsn(query)
        left_at = {}
        if resume.system_id == identity.system_id and resume.timeline != identity.timeline:
            left_at = await server.timeline_ends(wire, identity.timeline)
        if gap := find_gap(resume, identity, slot_name, slot, publication, flushed, left_at):
            if capture.on_gap == "stop" and capture.snapshot != "when_needed":
                raise FatalError(f"{gap}. Set on_gap: resnapshot to read all tables again")
            out.notice(f"{gap}; all tables are read again, but for those with snapshot: false")
            out.count("resnapshots")
            resume, replace = None, True
    if slot is not None and slot.active_pid is not None:
        raise TransientError(
            f"the slot {slot_name} is in use by the connection with pid {slot.active_pid}; "
            "another hub may be running with the same task name and database",
            retry_after_s=LEFT_OVER_RETRY_S,
        )
    if slot is not None and (problem := slot_problem(capture, slot, query.info.server_version // 10000)):
        raise FatalError(f"{problem.what}: {problem.cure}")
    found = await catalog.tables(query, publication_name, roots_only=capture.is_managed)
    if publication is None and not capture.is_managed:
        raise FatalError(
            f"there is no publication {publication_name!r}: CREATE PUBLICATION … FOR TABLE …, "
            "or leave the option out and hub makes one"
        )
    chosen = choose(capture, found)
    _require_named(capture, chosen, found)
    left_out: set[int] = set()
    if capture.is_managed:
        chosen = await harmless(capture, out, query, chosen, left_out)
    if resume is None:
        begun = await _begin(capture, out, query, wire, identity, slot, publication, chosen, replace=replace)
        begun.tables.left_out = left_out
        return begun
    if capture.is_managed and await _bring_in_step(capture, out, query, publication_name, chosen, found):
        chosen = await _published(capture, query, publication_name)
    assert slot is not None
    await _make_known(capture, out, wire, identity, slot)
    tables = restored(
        resume, out.note, chosen, lambda table, replace: copying_of(capture, table, replace=replace)
    )
    judge_missed(capture, out, tables, difference(tables, chosen).missed)
    tables.left_out = left_out
    if capture.consistent_snapshot:
        tables.begin_anew()
    if capture.snapshot == "always":
        for table in chosen:
            if table.oid in tables.by_oid:
                tables.recopy(table.oid, Copying(replace=True))
    changed = await _with_other_options(capture, query, chosen) if capture.is_managed else []
    if changed:
        for table in changed:
            out.notice("other rows or columns are wanted: the table is read again", table=table.full_name)
            if copying_of(capture, table, replace=True) is not None and table.oid in tables.by_oid:
                tables.recopy(table.oid, Copying(replace=True))
        # First it must be certain that they are read again, then the publication may change.
        position = tables.position(*resume.source, resume.lsn, resume.xids, resume.prepared_lsn)
        await out.send([], position, tables.due_note())
        await out.settle()
        await server.change_in_publication(
            query, publication_name, [member_of(capture, table) for table in changed]
        )
    if tables.is_copying:
        tables.begin_after = await server.first_unborn(query)
    two_phase = _is_two_phase(capture, out, slot)
    return Prepared(
        identity,
        publication_name,
        slot_name,
        resume.lsn,
        resume.resend_lsn,
        resume.xids,
        tables,
        two_phase,
        None,
    )


def find_gap(
    resume: PostgresPosition,
    identity: Identity,
    slot_name: str,
    slot: Slot | None,
    publication: Publication | None,
    flushed_lsn: int,
    left_at: Mapping[int, int],
) -> str | None:
    """Why the changes after a position can not be had from this server; None when they can. `left_at` says where
    the server's history left each earlier timeline."""
    if resume.system_id != identity.system_id:
        return (
            f"this is another server: the position was taken on system {resume.system_id}, "
            f"this is {identity.system_id}"
        )
    if resume.database_oid != identity.database_oid:
        return (
            f"this is another database than the position was taken in, though also called {identity.database}"
        )
    if resume.slot != slot_name:
        return f"the position belongs to the slot {resume.slot}, and the slot is now to be {slot_name}"
    if resume.timeline != identity.timeline:
        end = left_at.get(resume.timeline)
        if end is None or end < resume.lsn:
            where = f"left that one at {lsn_text(end)}" if end is not None else "never was on that one"
            return (
                f"the server is on timeline {identity.timeline} and {where}; the position {lsn_text(resume.lsn)} on "
                f"timeline {resume.timeline} lies behind it. A standby was promoted that had not received all that was "
                "captured, or a backup was restored"
            )
    if slot is None:
        return f"the slot {slot_name} is gone, and with it the changes since {lsn_text(resume.lsn)}"
    if slot.plugin != "pgoutput" or slot.database != identity.database:
        return f"the slot {slot_name} is one of {slot.plugin} in the database {slot.database}"
    if slot.wal_status == "lost" or slot.invalidation:
        why = slot.invalidation or "its WAL was removed, see max_slot_wal_keep_size"
        return f"the slot {slot_name} was invalidated ({why})"
    if slot.confirmed_lsn > resume.resend_lsn:
        return (
            f"the slot {slot_name} has been read up to {lsn_text(slot.confirmed_lsn)}, beyond the position "
            f"{lsn_text(resume.resend_lsn)}: the changes between are lost. It was made anew, or somebody else reads from it"
        )
    if flushed_lsn < resume.lsn:
        return (
            f"the server is behind the position: its WAL ends at {lsn_text(flushed_lsn)}, the position is "
            f"{lsn_text(resume.lsn)}. It was restored from a backup, or a standby behind was promoted"
        )
    if publication is None:
        return "the publication is gone, and changes made without it are not sent"
    return None


async def without_publication(
    capture: PostgresCapture,
    out: Outlet[PostgresPosition],
    query: Connection,
    slot_name: str,
    error: FatalError,
) -> HubError:
    """What becomes of a stream that has met a change made while there was no publication. Before PostgreSQL 18 the slot
    never gets past it, whatever publication there is now: it goes by the catalog as that was then. So the slot is given
    up where tables may be read again; the next start finds that it is gone, which is a gap like any other."""
    problem = (
        f"the publication {capture.publication_name(out.task)} was not there for a while: changes may be missing, and "
        f"the slot {slot_name} cannot be read past those that were made meanwhile ({error})"
    )
    if capture.on_gap == "stop" and capture.snapshot != "when_needed":
        return FatalError(f"{problem}. Set on_gap: resnapshot to make a new slot and read all tables again")
    await server.drop_slot(query, slot_name)
    return TransientError(f"{problem}; the slot is given up")


def _require_named(capture: PostgresCapture, chosen: list[Table], found: list[Table]) -> None:
    """Every table that is named without a pattern must be there."""
    names = {table.full_name for table in chosen}
    all_names = {table.full_name: table for table in found}
    missing = []
    for options in capture.patterns:
        if options.name in names or any(sign in options.name for sign in "*?["):
            continue
        if options.name not in all_names:
            missing.append(f"{options.name}: there is no such table, or it is a partition or a view")
        elif all_names[options.name].persistence != "p":
            missing.append(
                f"{options.name} is unlogged, so its changes never reach the WAL: ALTER TABLE … SET LOGGED"
            )
        else:
            missing.append(
                f"{options.name} is not in the publication: ALTER PUBLICATION … ADD TABLE {options.name}"
            )
    if missing:
        raise ConfigError("tables: " + "; ".join(missing))


async def _published(capture: PostgresCapture, query: Connection, publication_name: str) -> list[Table]:
    """The tables that are wanted and in the publication, as they are now."""
    found = await catalog.tables(query, publication_name, roots_only=capture.is_managed)
    return [table for table in choose(capture, found) if table.in_publication]


async def _begin(
    capture: PostgresCapture,
    out: Outlet[PostgresPosition],
    query: Connection,
    wire: Connection,
    identity: Identity,
    slot: Slot | None,
    publication: Publication | None,
    chosen: list[Table],
    *,
    replace: bool,
) -> Prepared:
    """The first run: the publication, then the slot, so that no change comes before the publication is."""
    slot_name, publication_name = capture.slot_name(out.task), capture.publication_name(out.task)
    if capture.is_managed:
        if publication is None and identity.is_standby:
            members = ", ".join([member_of(capture, table).sql for table in chosen])
            raise FatalError(
                "this is a standby, where no publication can be made. On the primary: CREATE PUBLICATION "
                f"{quoted(publication_name)} FOR TABLE {members} WITH (publish_via_partition_root = true); and "
                "here: publication: " + publication_name
            )
        if publication is None:
            await server.create_publication(query, publication_name)
        await _bring_in_step(capture, out, query, publication_name, chosen, chosen)
    if slot is not None and (capture.slot is None or slot.wal_status == "lost" or replace):
        # Left by a run whose first position never became durable, or no longer of use.
        await server.drop_slot(query, slot_name)
        slot = None
    if slot is None:
        lsn = await _create_slot(capture, out, query, wire, identity, slot_name)
    else:
        horizon = await server.slot_horizon_age(query, slot_name)
        if publication is not None and horizon is not None and publication.transaction_age <= horizon:
            raise FatalError(
                f"the publication {publication_name} may be younger than the slot {slot_name}; changes made "
                f"before it are skipped silently. SELECT pg_drop_replication_slot('{slot_name}') and start again"
            )
        await _make_known(capture, out, wire, identity, slot)
        lsn = slot.confirmed_lsn
    tables = Tables()
    for table in await _published(capture, query, publication_name):
        tables.track(table, copying_of(capture, table, replace=replace))
    if slot is not None:
        # Its maker has not waited for the transactions that were writing before the publication had their tables.
        tables.begin_after = await server.first_unborn(query)
    stale = out.durable
    await out.send(
        [],
        tables.position(identity.system_id, identity.timeline, identity.database_oid, slot_name, lsn, ()),
        tables.due_note(),
    )
    two_phase = _is_two_phase(capture, out, slot)
    return Prepared(identity, publication_name, slot_name, lsn, lsn, (), tables, two_phase, stale)


async def _make_known(
    capture: PostgresCapture, out: Outlet[PostgresPosition], wire: Connection, identity: Identity, slot: Slot
) -> None:
    """Let standbys know a slot that is there, or no longer, as `failover` says."""
    if identity.has_failover and slot.failover != capture.failover:
        await server.make_known(wire, slot.name, known=capture.failover)
        how = "is known to standbys from now on" if capture.failover else "is no longer known to standbys"
        out.notice(f"the slot {how}", slot=slot.name)


def _is_two_phase(capture: PostgresCapture, out: Outlet[PostgresPosition], slot: Slot | None) -> bool:
    """Whether transactions are sent when they are prepared. A slot that was once told to do so goes on with it,
    whoever reads from it."""
    has_been = slot is not None and slot.two_phase
    if has_been and not capture.two_phase:
        out.notice(
            "two_phase is off, but the slot was made or used with it and stays so; its records are the same",
            slot=slot.name if slot is not None else "",
        )
    return capture.two_phase or has_been


async def _create_slot(
    capture: PostgresCapture,
    out: Outlet[PostgresPosition],
    query: Connection,
    wire: Connection,
    identity: Identity,
    slot_name: str,
) -> int:
    """Make the slot, and while that waits for open transactions, say for which."""

    async def say() -> None:
        held: list[server.Holdup] = []
        while True:
            await anyio.sleep(WAIT_NOTICE_S)
            if identity.is_standby:
                out.notice(
                    "the slot waits for news from the primary; on the primary: SELECT pg_log_standby_snapshot()"
                )
            # Broken off in the middle, the query would take its connection along.
            with anyio.move_on_after(WAIT_QUERY_S, shield=True):
                held = await server.holdups(query)
            for what, about in held:
                out.notice(f"the slot waits for {what}", **about)

    made: list[int] = []
    async with anyio.create_task_group() as group:
        group.start_soon(say)
        made.append(
            await server.create_slot(wire, slot_name, failover=capture.failover and identity.has_failover)
        )
        group.cancel_scope.cancel()
    return made[0]


async def _with_other_options(
    capture: PostgresCapture, query: Connection, chosen: list[Table]
) -> list[Table]:
    """The tables that the managed publication holds with other columns or rows than the options say."""
    changed = []
    for table in chosen:
        if not table.in_publication:
            continue
        _, columns, where = member_of(capture, table)
        differs = set(columns) != set(table.column_list or ()) or bool(where) != bool(table.row_filter)
        if not differs and table.row_filter:
            differs = not await server.is_same_condition(query, table, where, table.row_filter)
        if differs:
            changed.append(table)
    return changed


async def _bring_in_step(
    capture: PostgresCapture,
    out: Outlet[PostgresPosition],
    query: Connection,
    publication_name: str,
    chosen: list[Table],
    found: list[Table],
) -> bool:
    """Let the managed publication hold the tables that are wanted, and no other. True when it did not."""
    wanted = {table.oid for table in chosen}
    surplus = [table for table in found if table.in_publication and table.oid not in wanted]
    missing = [table for table in chosen if not table.in_publication]
    if surplus:
        await server.remove_from_publication(query, publication_name, surplus)
    await publish(capture, out, query, missing)
    return bool(surplus or missing)
