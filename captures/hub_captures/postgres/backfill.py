"""Asking a running capture to read rows again, through the source's own WAL.

A request is a logical message, so it is neither lost nor carried out twice, in whatever process the capture runs. The
hard thing is that whoever may connect to the database may write such a message, while a condition in it
is SQL that hub will run with its own rights. So a condition counts only when the same request also stands in the
comment of the publication, which PostgreSQL lets nobody but its owner write.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import anyio

from hub.document import encode
from hub.errors import FatalError, HubError
from hub.record import TaskName
from hub_captures.postgres.catalog import Table, matches
from hub_captures.postgres.connection import Connection, execute, literal, quoted, rows
from hub_captures.postgres.position import Visibility

VISIBLE_WAIT_S = 60.0
VISIBLE_POLL_S = 0.02

_MARK = "hub backfill: "
_REMEMBERED = 20
"""So many requests with a condition may wait for a capture that is off."""


async def ask(
    query: Connection,
    publication: str,
    task: TaskName,
    tables: Sequence[Table],
    parts: Sequence[str],
    where: str,
) -> None:
    """Write the request. Raises FatalError when it names no captured table, for a condition that is none, and before
    PostgreSQL 14, whose streams leave messages out."""
    if problem := version_problem(query.info.server_version // 10000):
        raise FatalError(problem)
    patterns = list(parts) or ["*"]
    for pattern in patterns:
        found = [table for table in tables if matches(table, [pattern])]
        if not found:
            there = ", ".join(table.full_name for table in tables[:10]) or "none"
            raise FatalError(f"{pattern}: {task} captures no such table; it captures {there}")
        for table in found if where else ():
            if problem := await condition_problem(query, table, where):
                raise FatalError(f"where, of {table.full_name}: {problem}")
    content = encode({"task": task, "snapshot": patterns, "where": where}).decode()
    statements = [f"select pg_logical_emit_message(true, 'hub.signal', {literal(content)})"]
    if where:
        own, requests = await _comment(query, publication)
        text = own + _MARK + encode([*requests, content][-_REMEMBERED:]).decode()
        statements.insert(0, f"comment on publication {quoted(publication)} is {literal(text)}")
    await execute(query, "asking for a backfill", "; ".join(["begin", *statements, "commit"]))


def version_problem(version: int) -> str | None:
    """Why a running capture of a server of this version can not be asked; None when it can."""
    if version >= 14:
        return None
    return (
        f"PostgreSQL {version} does not send the message by which a running capture is asked for a backfill: "
        "use PostgreSQL 14 or newer, or start the capture once with snapshot: always"
    )


async def is_from_owner(query: Connection, publication: str, content: bytes, xid: int) -> bool:
    """Whether a request was written by whoever owns the publication, in the transaction `xid`. The stream may bring
    that before it is visible to anybody: then this waits for it."""
    deadline = time.monotonic() + VISIBLE_WAIT_S
    while time.monotonic() < deadline:
        ((text,),) = await rows(query, "taking a snapshot", "select pg_current_snapshot()::text")
        if Visibility.parse(text).sees(xid):
            break
        await anyio.sleep(VISIBLE_POLL_S)
    _, requests = await _comment(query, publication)
    return content.decode(errors="replace") in requests


async def condition_problem(query: Connection, table: Table, where: str) -> str | None:
    """What the server has against a condition on a table's rows. It is planned, not run, and cannot be more than
    one expression: what closes one of these brackets leaves the other open."""
    for text in (f"({where}\n)", f"(array[({where}\n)])[1]"):
        try:
            # With a parameter the server takes no more than one statement.
            await rows(
                query,
                "checking the condition",
                f"explain select %s::int from {table.sql.replace('%', '%%')} where {text.replace('%', '%%')}",
                [1],
            )
        except HubError as error:
            return str(error)
    return None


async def _comment(query: Connection, publication: str) -> tuple[str, list[str]]:
    """The comment of a publication: what is not hub's, and the requests in it."""
    found = await rows(
        query,
        "reading the comment of the publication",
        "select obj_description(oid, 'pg_publication') from pg_publication where pubname = %s",
        [publication],
    )
    text = (found[0][0] if found else None) or ""
    own, mark, requests = text.partition(_MARK)
    try:
        return own, [str(request) for request in json.loads(requests)] if mark else []
    except ValueError:
        return own, []
