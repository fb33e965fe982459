"""What publishing a table would do to the application that writes to it.

The server takes any table into a publication, and from then on refuses the application's UPDATE and DELETE where it
could not tell from a row's identity which row is meant. So this is looked at before anything is published; and so
is whether hub's user may publish the table at all, or a stranger's new table would stop the capture of the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hub.capture import Finding, Outlet
from hub.errors import ConfigError, HubError
from hub_captures.postgres.catalog import Table
from hub_captures.postgres.connection import UNDEFINED_COLUMN, Connection, quoted, rows, sqlstate_of
from hub_captures.postgres.position import PostgresPosition

if TYPE_CHECKING:
    from hub_captures.postgres.capture import PostgresCapture

_FAILS = "once published, UPDATE and DELETE fail in the application"


async def harmless(
    capture: PostgresCapture,
    out: Outlet[PostgresPosition],
    query: Connection,
    tables: Iterable[Table],
    said: set[int],
) -> list[Table]:
    """The tables that may be published, and those that are. One that is named in the options and may not be is an
    error; of one that a pattern matches it is said once, and it is left out until that is mended.

    Raises ConfigError. `said` holds the OIDs of tables that were spoken of.
    """
    kept, left_out = [], 0
    for table in tables:
        harm = _bar_of(capture, query, table) or await harm_of(capture, query, table)
        if harm is None:
            said.discard(table.oid)
        elif not table.in_publication and table.full_name in {each.name for each in capture.patterns}:
            raise ConfigError(f"tables: {harm.what}. {harm.cure}")
        elif table.oid not in said:
            said.add(table.oid)
            what = "a table is left out" if not table.in_publication else "a table is published all the same"
            out.notice(what, table=table.full_name, reason=harm.what, cure=harm.cure)
        left_out += harm is not None and not table.in_publication
        if harm is None or table.in_publication:
            kept.append(table)
    out.gauge("tables_left_out", left_out)
    return kept


def _bar_of(capture: PostgresCapture, query: Connection, table: Table) -> Finding | None:
    """Which right is missing to take a table up."""
    options = capture.options_of(table)
    if options is None or not capture.is_managed or table.in_publication:
        return None
    if not table.is_owned:
        return not_owned(table, query.info.user)
    if not table.may_be_read and options.snapshot and capture.snapshot != "never":
        return not_readable(table, query.info.user)
    return None


def not_owned(table: Table, user: str) -> Finding:
    """Only the owner of a table may publish it."""
    cure = (
        f"ALTER TABLE {table.quoted_name} OWNER TO {quoted(user)}; "
        "or create the publication as its owner and name it in `publication`"
    )
    return Finding(False, f"{user} does not own {table.quoted_name}, and may not publish it", cure)


def not_readable(table: Table, user: str) -> Finding:
    """The rows that are there cannot be had."""
    return Finding(
        False,
        f"{user} may not read {table.quoted_name}",
        f"GRANT SELECT ON {table.quoted_name} TO {quoted(user)};",
    )


async def harm_of(capture: PostgresCapture, query: Connection, table: Table) -> Finding | None:
    """What would fail, with the cure; None for a table that can be published as the options want it."""
    name = table.quoted_name
    if not table.has_identity:
        cure = f"ALTER TABLE {name} REPLICA IDENTITY FULL; or give it a primary key that is not DEFERRABLE"
        if table.kind == "p":
            cure = f"REPLICA IDENTITY of {name} is not that of its partitions: ALTER each of them, or give it a primary key"
        elif table.identity == "n" and table.key:
            cure = f"ALTER TABLE {name} REPLICA IDENTITY DEFAULT;"
        return Finding(False, f"{table.full_name} has no replica identity: {_FAILS}", cure)
    options = capture.options_of(table)
    if options is None or not capture.is_managed:
        return None
    if options.columns and not table.identity_key:
        cure = f"leave columns out, or ALTER TABLE {name} REPLICA IDENTITY DEFAULT, with a primary key"
        return Finding(
            False, f"{table.full_name} is identified by whole rows, and columns name some: {_FAILS}", cure
        )
    if missing := [
        column for column in table.identity_key if options.columns and column not in options.columns
    ]:
        cure = f"add to columns: {', '.join(missing)}"
        return Finding(False, f"columns of {table.full_name} leave out its replica identity: {_FAILS}", cure)
    if options.where and table.identity_key:
        return await _harm_of_filter(query, table, options.where)
    return None


async def _harm_of_filter(query: Connection, table: Table, where: str) -> Finding | None:
    """A filter may only look at the columns that come with every update: without the others it must still be SQL."""
    columns = ", ".join([quoted(column) for column in table.identity_key])
    visible = f"(select {columns} from {table.sql}) as {quoted(table.name)}"
    text = f"explain select %s::int from {visible.replace('%', '%%')} where ({where.replace('%', '%%')}\n)"
    try:
        await rows(query, "checking the filter", text, [1])
    except HubError as error:
        if sqlstate_of(error) != UNDEFINED_COLUMN:
            return Finding(False, f"where of {table.full_name}: {error}", "mend the condition")
        cure = (
            f"let where only name columns of the replica identity ({', '.join(table.identity_key)}), "
            f"or ALTER TABLE {table.quoted_name} REPLICA IDENTITY FULL;"
        )
        return Finding(
            False,
            f"where of {table.full_name} looks at other columns than its replica identity: {_FAILS}",
            cure,
        )
    return None
