"""What `hub check` looks at, and how each failure is mended. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hub.capture import Finding
from hub.errors import HubError
from hub.record import TaskName
from hub_captures.postgres import catalog, server
from hub_captures.postgres.catalog import Table
from hub_captures.postgres.connection import Connection, literal, quoted, rows
from hub_captures.postgres.harm import harm_of, not_owned, not_readable
from hub_captures.postgres.server import Slot

if TYPE_CHECKING:
    from hub_captures.postgres.capture import PostgresCapture

_MANAGED_SERVICES = (
    "rds_replication",
    "rds_superuser",
    "cloudsqlsuperuser",
    "azure_pg_admin",
    "alloydbsuperuser",
)
"""Roles by which managed services grant replication."""

_OLD_S = 60.0
"""A transaction that is open for longer is named."""

_LINES_MAX = 50
"""Of more tables than this, those that are as they should be are only counted."""


async def look(capture: PostgresCapture, task: TaskName) -> Sequence[Finding]:
    """Everything that can be known before the first run, or between two."""
    found: list[Finding] = []
    try:
        reach = capture.server(task)
        async with reach.connected() as query:
            found.append(
                Finding(True, f"connected to {reach.name}, PostgreSQL {query.info.server_version // 10000}")
            )
            found += await missing_rights(capture, query)
            if too_old(query.info.server_version // 10000):
                return found
            found += await _slots(capture, task, query)
            found += await _tables(capture, task, query)
            found += await _patience(query)
        async with reach.connected(replication=True):
            found.append(Finding(True, "replication connection opened"))
    except HubError as error:
        found.append(
            Finding(
                False,
                str(error),
                "check host, port, user and password; pg_hba.conf must let this user in, for replication connections too",
            )
        )
    return found


async def missing_rights(capture: PostgresCapture, query: Connection) -> list[Finding]:
    """What must be so that a slot can be made at all, and used as the options say."""
    version = query.info.server_version // 10000
    if problem := too_old(version):
        return [problem]
    found = beyond(capture, version)
    settings = await server.settings(
        query, ["wal_level", "max_replication_slots", "max_wal_senders", "server_encoding"]
    )
    level = settings["wal_level"]
    found.append(
        Finding(
            level == "logical",
            f"wal_level is {level}",
            ""
            if level == "logical"
            else "ALTER SYSTEM SET wal_level = 'logical'; then restart the server "
            "(Amazon RDS: rds.logical_replication = 1; Cloud SQL: cloudsql.logical_decoding = on)",
        )
    )
    ((may, user),) = await rows(
        query,
        "asking for rights",
        "select r.rolsuper or r.rolreplication or exists (select from pg_roles g where g.rolname = any(%s) "
        "and pg_has_role(current_user, g.oid, 'member')), current_user from pg_roles r where r.rolname = current_user",
        [list(_MANAGED_SERVICES)],
    )
    cure = f"ALTER ROLE {quoted(user)} REPLICATION; (Amazon RDS: GRANT rds_replication TO {quoted(user)};)"
    found.append(Finding(may, f"{user} may {'' if may else 'not '}replicate", "" if may else cure))
    return found


def too_old(version: int) -> Finding | None:
    """Why nothing can be captured from a server of this version; None when it can."""
    if version >= server.OLDEST:
        return None
    return Finding(False, f"PostgreSQL {version} is too old", f"use PostgreSQL {server.OLDEST} or newer")


def beyond(capture: PostgresCapture, version: int) -> list[Finding]:
    """The options that a server of this version does not know."""
    is_partial = any(options.columns or options.where for options in capture.patterns)
    needed = (
        (capture.messages, 14, "messages", "set messages: false"),
        (capture.streaming, 14, "streaming", "set streaming: false"),
        (
            is_partial,
            15,
            "columns or where of a table",
            "leave them out, and let a mapping drop what is not wanted",
        ),
        (
            capture.origin == "none",
            16,
            "origin: none",
            "set origin: any, and let a mapping drop records with @origin",
        ),
    )
    found = [
        Finding(False, f"{what} needs PostgreSQL {since}, this is {version}", cure)
        for wanted, since, what, cure in needed
        if wanted and version < since
    ]
    if capture.two_phase and (problem := two_phase_problem(version, failover=capture.failover)):
        found.append(problem)
    return found


def two_phase_problem(version: int, *, failover: bool) -> Finding | None:
    """Why transactions can not be sent at PREPARE by a server of this version; None when they can."""
    if version < 15:
        what = f"two_phase needs PostgreSQL 15, this is {version}"
        return Finding(False, what, "set two_phase: false; they then come whole at COMMIT PREPARED")
    if version == 17 and failover:
        what = (
            "PostgreSQL 17 does not tell standbys from where a slot sends transactions at their PREPARE, so that "
            "after a failover one that was prepared before may be lost"
        )
        return Finding(False, what, "set failover: false or two_phase: false, or use PostgreSQL 18")
    return None


def slot_problem(capture: PostgresCapture, slot: Slot, version: int) -> Finding | None:
    """Why a slot that is there can not be used as the options say, though a new one could; None when it can."""
    if capture.two_phase or not slot.two_phase:
        return None
    problem = two_phase_problem(version, failover=capture.failover)
    if problem is None:
        return None
    cure = f"set failover: false, or SELECT pg_drop_replication_slot('{slot.name}'); and on_gap: resnapshot"
    return Finding(False, f"the slot {slot.name} sends transactions at their PREPARE; {problem.what}", cure)


async def _slots(capture: PostgresCapture, task: TaskName, query: Connection) -> list[Finding]:
    name = capture.slot_name(task)
    slot = await server.slot_of(query, name)
    settings = await server.settings(query, ["max_replication_slots", "max_wal_senders"])
    ((used, senders),) = await rows(
        query,
        "counting slots",
        "select (select count(*) from pg_replication_slots), (select count(*) from pg_stat_replication)",
    )
    found = []
    limit = int(settings["max_replication_slots"])
    if slot is None:
        ok = used < limit
        cure = "" if ok else f"ALTER SYSTEM SET max_replication_slots = {limit + 10}; then restart the server"
        found.append(
            Finding(
                ok, f"{used} of {limit} replication slots are used; {name} is made at the first run", cure
            )
        )
    elif slot.plugin != "pgoutput":
        found.append(
            Finding(
                False,
                f"the slot {name} is one of {slot.plugin}",
                f"SELECT pg_drop_replication_slot('{name}');",
            )
        )
    elif slot.wal_status == "lost" or slot.invalidation:
        found.append(
            Finding(
                False,
                f"the slot {name} was invalidated ({slot.invalidation or 'its WAL was removed'})",
                f"SELECT pg_drop_replication_slot('{name}'); and on_gap: resnapshot, which reads all tables again",
            )
        )
    else:
        use = f", in use by pid {slot.active_pid}" if slot.active_pid else ""
        found.append(Finding(True, f"the slot {name} is there, {slot.lag_bytes} bytes behind{use}"))
        if slot.two_phase != capture.two_phase:
            how = (
                "sends transactions when they are prepared, and will go on so"
                if slot.two_phase
                else "is told at the next start to send transactions when they are prepared"
            )
            found.append(Finding(True, f"the slot {name} {how}"))
        if problem := slot_problem(capture, slot, query.info.server_version // 10000):
            found.append(problem)
    most = int(settings["max_wal_senders"])
    ok = senders < most
    cure = "" if ok else f"ALTER SYSTEM SET max_wal_senders = {most + 10}; then restart the server"
    found.append(Finding(ok, f"{senders} of {most} WAL senders are used", cure))
    return found


async def _tables(capture: PostgresCapture, task: TaskName, query: Connection) -> list[Finding]:
    name = capture.publication_name(task)
    publication = await server.publication_of(query, name)
    tables = await catalog.tables(query, name, roots_only=capture.is_managed)
    found = []
    if publication is None and not capture.is_managed:
        wanted = (
            ", ".join(f"{quoted(t.schema)}.{quoted(t.name)}" for t in tables if capture.options_of(t)) or "…"
        )
        cure = (
            f"CREATE PUBLICATION {quoted(name)} FOR TABLE {wanted} WITH (publish_via_partition_root = true);"
        )
        return [Finding(False, f"there is no publication {name}", cure)]
    chosen = [table for table in tables if capture.options_of(table) is not None]
    if not chosen:
        found.append(
            Finding(
                False,
                "no table matches",
                f"tables there are: {', '.join(t.full_name for t in tables[:10]) or 'none'}",
            )
        )
    if capture.is_managed and publication is None:
        found += await _may_create(query)
    found += await _may_use(query, chosen, publishes=capture.is_managed)
    looked_at = [finding for table in chosen for finding in await _table(capture, query, name, table)]
    fine = [finding for finding in looked_at if finding.ok]
    found += [finding for finding in looked_at if not finding.ok]
    found += fine if len(fine) <= _LINES_MAX else [Finding(True, f"{len(fine)} tables can be captured")]
    if publication is not None and publication.all_tables:
        found += [
            Finding(
                False,
                f"{table.full_name} has no replica identity, and {name} publishes all tables: "
                "UPDATE and DELETE fail in the application",
                f"ALTER TABLE {table.quoted_name} REPLICA IDENTITY FULL; or give it a primary key",
            )
            for table in tables
            if not table.has_identity
        ]
    return found


async def _may_create(query: Connection) -> list[Finding]:
    ((may, database, user),) = await rows(
        query,
        "asking for rights on the database",
        "select has_database_privilege(current_database(), 'create'), current_database()::text, current_user::text",
    )
    if may:
        return []
    cure = f"GRANT CREATE ON DATABASE {quoted(database)} TO {quoted(user)};"
    return [Finding(False, f"{user} may not make a publication in {database}", cure)]


async def _may_use(query: Connection, chosen: Sequence[Table], *, publishes: bool) -> list[Finding]:
    found = await rows(
        query,
        "asking for rights on tables",
        "select c.oid::bigint, has_table_privilege(c.oid, 'select'), row_security_active(c.oid), current_user::text "
        "from pg_class c where c.oid = any(%s::oid[])",
        [[table.oid for table in chosen]],
    )
    tables = {table.oid: table for table in chosen}
    findings = []
    for oid, may_read, is_filtered, user in found:
        table = tables[oid]
        if publishes and not table.is_owned:
            findings.append(not_owned(table, user))
        if not may_read:
            findings.append(not_readable(table, user))
        if is_filtered:
            findings.append(
                Finding(
                    False,
                    f"row-level security hides rows of {table.quoted_name} from {user}",
                    f"ALTER ROLE {quoted(user)} BYPASSRLS;",
                )
            )
    return findings


async def _table(
    capture: PostgresCapture, query: Connection, publication: str, table: Table
) -> list[Finding]:
    name = table.quoted_name
    if table.persistence != "p":
        return [
            Finding(
                False,
                f"{table.full_name} is unlogged: its changes never reach the WAL",
                f"ALTER TABLE {name} SET LOGGED;",
            )
        ]
    if not table.in_publication and not capture.is_managed:
        cure = f"ALTER PUBLICATION {quoted(publication)} ADD TABLE {name};"
        return [Finding(False, f"{table.full_name} is not in the publication {publication}", cure)]
    if harm := await harm_of(capture, query, table):
        return [harm]
    return [Finding(True, f"{table.full_name}: {note_of(table)}")]


async def _patience(query: Connection) -> list[Finding]:
    settings = await server.settings(query, ["max_slot_wal_keep_size", "idle_replication_slot_timeout"])
    found = []
    keep = settings.get("max_slot_wal_keep_size", "-1")
    if keep != "-1":
        found.append(
            Finding(
                True,
                f"max_slot_wal_keep_size is {keep} MB: a capture that is off while more is written loses its slot",
            )
        )
    timeout = settings.get("idle_replication_slot_timeout", "0")
    if timeout != "0":
        found.append(
            Finding(
                True,
                f"idle_replication_slot_timeout is {timeout} s: a capture that is off for longer loses its slot",
            )
        )
    found += [
        Finding(
            False,
            f"the transaction of pid {writer.pid} ({writer.user}, {writer.application}) is open for "
            f"{writer.age_s:.0f} s; a new slot waits for it",
            f"SELECT pg_terminate_backend({writer.pid});",
        )
        for writer in await server.open_writers(query)
        if writer.age_s > _OLD_S
    ]
    found += [
        Finding(
            False,
            f"a transaction of {each.database} is prepared for {each.age_s:.0f} s: WAL is kept, and a new slot waits for it",
            f"in {each.database}: COMMIT PREPARED {literal(each.gid).lstrip()}; or ROLLBACK PREPARED",
        )
        for each in await server.prepared_transactions(query)
        if each.age_s > _OLD_S
    ]
    return found


def note_of(table: Table) -> str:
    """What a person should know about a table."""
    if table.key:
        return f"key ({', '.join(table.key)}), about {table.rows_estimate} rows"
    if table.identity == "f":
        return f"no key, whole old rows come with changes, about {table.rows_estimate} rows"
    return f"no key, only inserts can be captured, about {table.rows_estimate} rows"
