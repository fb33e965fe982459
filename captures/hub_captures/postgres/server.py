"""What the server holds for a capture: its identity, the publication and the slot. Looks and changes, no decisions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from hub.errors import HubError
from hub_captures.postgres.catalog import Table
from hub_captures.postgres.connection import (
    GONE,
    LOCK_NOT_AVAILABLE,
    LOCK_WAIT_MS,
    Connection,
    execute,
    literal,
    quoted,
    replication_command,
    rows,
    sqlstate_of,
)
from hub_captures.postgres.position import lsn_of

OLDEST = 13
"""The oldest major version that publishes partitioned tables under the name of their root."""

UNBORN = "xmax + age((xmax & 4294967295)::text::xid)"
"""The id of the next transaction, from the end of a snapshot, which is no such id: it lies behind the last that is over, and
others that are open may follow."""


class Identity(NamedTuple):
    """Which server this is. A restored or promoted one has another timeline, a new one another system id."""

    system_id: str
    timeline: int
    database_oid: int
    database: str
    is_standby: bool
    has_failover: bool
    """Slots made here can be known to standbys."""


class Slot(msgspec.Struct, frozen=True):
    """A replication slot as the server shows it. Sizes in bytes; None where the server does not say."""

    name: str
    plugin: str
    database: str
    active_pid: int | None
    confirmed_lsn: int
    restart_lsn: int
    wal_status: str
    safe_wal_bytes: int | None
    retained_bytes: int
    lag_bytes: int
    invalidation: str
    failover: bool
    two_phase: bool
    temporary: bool


class Publication(NamedTuple):
    """`is_older` is False when the publication may have been made after the slot, whose changes then miss it."""

    all_tables: bool
    operations: frozenset[str]
    via_root: bool
    transaction_age: int


async def identify(query: Connection, wire: Connection) -> Identity:
    """Ask who the server is."""
    (found,) = await replication_command(wire, "identifying the server", "IDENTIFY_SYSTEM")
    ((oid, database, standby),) = await rows(
        query,
        "identifying the database",
        "select oid::bigint, datname, pg_is_in_recovery() from pg_database where datname = current_database()",
    )
    has_failover = query.info.server_version >= 170000 and not standby
    return Identity(str(found["systemid"]), int(str(found["timeline"])), oid, database, standby, has_failover)


async def timeline_ends(wire: Connection, timeline: int) -> dict[int, int]:
    """Where the server's history left each timeline before this one: the LSN behind the last record of it that counts.

    Format of a history file: PostgreSQL manual, section 26.3.6 (Timelines); lines of timeline, LSN and reason.
    """
    if timeline == 1:
        return {}
    (found,) = await replication_command(
        wire, "reading the history of timelines", f"TIMELINE_HISTORY {timeline}"
    )
    lines = [line.split() for line in str(found["content"]).splitlines()]
    return {int(words[0]): lsn_of(words[1]) for words in lines if words and not words[0].startswith("#")}


_SLOT = """
select s.slot_name, s.plugin, s.database, s.active_pid,
       coalesce(s.confirmed_flush_lsn - '0/0', 0)::bigint, coalesce(s.restart_lsn - '0/0', 0)::bigint,
       coalesce(s.wal_status, 'lost'), s.safe_wal_size,
       coalesce({now} - s.restart_lsn, 0)::bigint, coalesce({now} - s.confirmed_flush_lsn, 0)::bigint,
       coalesce({invalidation}, ''), {failover}, {two_phase}, s.temporary
  from pg_replication_slots s where s.slot_name = %s
"""


async def slot_of(query: Connection, name: str) -> Slot | None:
    """The slot, when there is one."""
    version = query.info.server_version // 10000
    text = _SLOT.format(
        now=_NOW_LSN,
        invalidation="s.invalidation_reason"
        if version >= 17
        else ("case when s.conflicting then 'conflict' end" if version == 16 else "null"),
        failover="s.failover" if version >= 17 else "false",
        two_phase="s.two_phase" if version >= 15 else "false",
    )
    found = await rows(query, "looking at the slot", text, [name])
    return Slot(*found[0]) if found else None


_NOW_LSN = "case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end"


async def flushed_lsn(query: Connection) -> int:
    """The end of the server's WAL that is on disk."""
    ((lsn,),) = await rows(
        query,
        "asking for the end of the WAL",
        "select ((case when pg_is_in_recovery() then pg_last_wal_replay_lsn() "
        "else pg_current_wal_flush_lsn() end) - '0/0')::bigint",
    )
    return int(lsn)


async def first_unborn(query: Connection) -> int:
    """The id of the next transaction to come, 64 bits wide: all that write now have a smaller one."""
    current = f"select {UNBORN} from (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as xmax) s"
    ((xid,),) = await rows(query, "asking for the next transaction", current)
    return int(xid)


async def create_slot(wire: Connection, name: str, *, failover: bool) -> int:
    """Make the slot. Waits for every transaction that is writing now. The LSN from which it decodes."""
    version = wire.info.server_version // 10000
    options = ["SNAPSHOT 'nothing'"]
    if failover:
        options.append("FAILOVER")
    if version >= 15:
        command = f"CREATE_REPLICATION_SLOT {quoted(name)} LOGICAL pgoutput ({', '.join(options)})"
    else:
        command = f"CREATE_REPLICATION_SLOT {quoted(name)} LOGICAL pgoutput NOEXPORT_SNAPSHOT"
    (made,) = await replication_command(wire, f"creating the slot {name}", command)
    return lsn_of(str(made["consistent_point"]))


async def make_known(wire: Connection, name: str, *, known: bool) -> None:
    """Let standbys take the slot over, or no longer. Nobody may be reading from it."""
    command = f"ALTER_REPLICATION_SLOT {quoted(name)} (FAILOVER {'true' if known else 'false'})"
    await replication_command(wire, f"changing the slot {name}", command)


async def drop_slot(query: Connection, name: str) -> None:
    """Drop the slot; the server may then forget its WAL."""
    await rows(
        query,
        f"dropping the slot {name}",
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s",
        [name],
    )


async def publication_of(query: Connection, name: str) -> Publication | None:
    """The publication, when there is one."""
    found = await rows(
        query,
        "looking at the publication",
        "select puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, age(xmin)::bigint "
        "from pg_publication where pubname = %s",
        [name],
    )
    if not found:
        return None
    all_tables, inserts, updates, deletes, truncates, via_root, age = found[0]
    names = zip(
        ("insert", "update", "delete", "truncate"), (inserts, updates, deletes, truncates), strict=True
    )
    return Publication(all_tables, frozenset(name for name, on in names if on), via_root, age)


async def slot_horizon_age(query: Connection, name: str) -> int | None:
    """How many transactions ago the oldest catalog that the slot can see was."""
    found = await rows(
        query,
        "looking at the slot",
        "select age(catalog_xmin)::bigint from pg_replication_slots where slot_name = %s",
        [name],
    )
    return found[0][0] if found else None


class Member(NamedTuple):
    """A table of a managed publication: which columns, which rows. Without `ONLY` the server would publish its children by
    inheritance too, which have keys and options of their own."""

    table: Table
    columns: tuple[str, ...]
    where: str

    @property
    def sql(self) -> str:
        columns = f" ({', '.join([quoted(name) for name in self.columns])})" if self.columns else ""
        where = f" WHERE ({self.where})" if self.where else ""
        return f"{self.table.sql}{columns}{where}"


async def create_publication(query: Connection, name: str) -> None:
    """Make a publication without tables, which will have partitions under the name of their root."""
    options = ["publish = 'insert, update, delete, truncate'", "publish_via_partition_root = true"]
    if query.info.server_version >= 180000:
        options.append("publish_generated_columns = stored")
    await execute(
        query,
        f"creating the publication {name}",
        f"CREATE PUBLICATION {quoted(name)} WITH ({', '.join(options)})",
    )


async def add_to_publication(query: Connection, name: str, members: Sequence[Member]) -> list[Member]:
    """Changes made from now on come in the stream; those made before never do. Left out and returned are tables that
    are gone by now, or that somebody has locked: an index in the making would keep everything waiting for hours."""
    if not members:
        return []
    tables = ", ".join([member.sql for member in members])
    try:
        await _alter(
            query, f"adding tables to {name}", f"ALTER PUBLICATION {quoted(name)} ADD TABLE {tables}"
        )
    except HubError as error:
        if sqlstate_of(error) not in (LOCK_NOT_AVAILABLE, *GONE):
            raise
    else:
        return []
    if len(members) == 1:
        return list(members)
    half = len(members) // 2
    first = await add_to_publication(query, name, members[:half])
    return first + await add_to_publication(query, name, members[half:])


async def change_in_publication(query: Connection, name: str, members: Sequence[Member]) -> None:
    """Publish these tables with other columns or rows from now on, in one step."""
    dropped = ", ".join([member.table.sql for member in members])
    added = ", ".join([member.sql for member in members])
    await _alter(
        query,
        f"changing tables in {name}",
        f"ALTER PUBLICATION {quoted(name)} DROP TABLE {dropped}; ALTER PUBLICATION {quoted(name)} ADD TABLE {added}",
    )


async def _alter(query: Connection, doing: str, statements: str) -> None:
    await execute(query, doing, f"SET LOCAL lock_timeout = '{LOCK_WAIT_MS}ms'; {statements}")


async def is_same_condition(query: Connection, table: Table, one: str, other: str) -> bool:
    """Whether two conditions on a table's rows are the same to the server, however they are written."""
    if one == other:
        return True
    plans = [
        await rows(
            query,
            f"comparing filters of {table.full_name}",
            f"explain (costs off, verbose) select 1 from {table.sql} where ({condition})",
        )
        for condition in (one, other)
    ]
    return plans[0] == plans[1]


async def remove_from_publication(query: Connection, name: str, tables: Iterable[Table]) -> None:
    """Their changes come no longer."""
    removed = ", ".join([table.sql for table in tables])
    await _alter(
        query, f"taking tables out of {name}", f"ALTER PUBLICATION {quoted(name)} DROP TABLE {removed}"
    )


NAMED_MAX = 5
"""So many transactions of a kind are named, the oldest ones."""


class Writer(NamedTuple):
    """A transaction that is open and has written."""

    pid: int
    age_s: float
    user: str
    application: str


async def open_writers(query: Connection) -> list[Writer]:
    """The oldest transactions that hold up the creation of a slot, and keep WAL from being forgotten."""
    found = await rows(
        query,
        "looking for open transactions",
        "select pid, extract(epoch from clock_timestamp() - xact_start)::float8, "
        "coalesce(usename, ''), coalesce(application_name, '') "
        "from pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid() "
        f"order by xact_start limit {NAMED_MAX}",
    )
    return [Writer(*row) for row in found]


class Unfinished(NamedTuple):
    """A transaction that is prepared, and neither committed nor rolled back."""

    gid: str
    age_s: float
    database: str


async def prepared_transactions(query: Connection) -> list[Unfinished]:
    """The oldest prepared transactions of all databases. They hold up what open ones do."""
    found = await rows(
        query,
        "looking for prepared transactions",
        "select gid, extract(epoch from clock_timestamp() - prepared)::float8, database::text "
        f"from pg_prepared_xacts order by prepared limit {NAMED_MAX}",
    )
    return [Unfinished(*row) for row in found]


class Holdup(NamedTuple):
    """What the server must see the end of, in words that follow `waits for`, and what is known of it."""

    what: str
    about: dict[str, object]


async def holdups(query: Connection, most: int = NAMED_MAX) -> list[Holdup]:
    """The oldest open transactions, and the oldest prepared ones, `most` of each."""
    writers = (await open_writers(query))[:most]
    prepared = (await prepared_transactions(query))[:most]
    return [
        *[
            Holdup("an open transaction to end", each._asdict() | {"age_s": round(each.age_s)})
            for each in writers
        ],
        *[
            Holdup(
                "a prepared transaction to be committed or rolled back",
                each._asdict() | {"age_s": round(each.age_s)},
            )
            for each in prepared
        ],
    ]


async def settings(query: Connection, names: Iterable[str]) -> dict[str, str]:
    """Server settings by name; those that this version does not have are left out."""
    found = await rows(
        query, "reading settings", "select name, setting from pg_settings where name = any(%s)", [list(names)]
    )
    return dict(found)


def publication_option(name: str) -> str:
    """A publication as an option of START_REPLICATION, where it is a list of identifiers inside a string."""
    return literal(quoted(name)).lstrip()
