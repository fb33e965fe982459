"""Which transactions are running, as a standby knows it.

The snapshot that a standby shows to SQL (`pg_current_snapshot`) lists none: it keeps them in another place, from where the
server does not copy them. Taken at its word it would see every open transaction of the primary, and what those write
would be left to a copy that does not have it. So each id is asked for by itself, before the snapshot is taken and after.
Who runs at both times runs in between; and as long as nothing has ended meanwhile, nobody else does.
"""

from __future__ import annotations

from typing import NamedTuple

from hub_captures.postgres.connection import Connection, rows
from hub_captures.postgres.position import Visibility
from hub_captures.postgres.server import UNBORN

RANGE_MAX = 500_000
"""So many ids are asked for at most. As long as there are more between the oldest transaction that is open on the primary
and the newest, nothing is read."""


class Running(NamedTuple):
    """The ids of transactions that have begun and not ended, 64 bits wide, all below `unborn`. None: too many to ask for."""

    xids: frozenset[int] | None
    unborn: int


_LOOK = f"""
with bounds as materialized (
    select xmin, {UNBORN} as unborn
      from (select pg_snapshot_xmin(s)::text::bigint as xmin, pg_snapshot_xmax(s)::text::bigint as xmax
              from pg_current_snapshot() s) b)
select unborn, case when unborn - xmin <= {RANGE_MAX} then array(
           select id from generate_series(xmin, unborn - 1) id where pg_xact_status(id::text::xid8) = 'in progress') end
  from bounds"""


async def look(connection: Connection) -> Running:
    """Ask for all that are running now, also inside a transaction with a snapshot of before."""
    ((unborn, xids),) = await rows(connection, "asking for running transactions", _LOOK)
    return Running(frozenset(xids) if xids is not None else None, unborn)


def as_of(visibility: Visibility, before: Running, after: Running) -> Visibility | None:
    """What a snapshot that was taken between two looks sees. None when something has ended meanwhile, so that it might
    see that or not."""
    ids = range(visibility.xmin, visibility.xmax)
    perhaps = {xid for xid in before.xids or () if xid in ids}
    perhaps.update(range(max(before.unborn, ids.start), ids.stop))
    surely = {xid for xid in after.xids or () if xid in ids}
    return Visibility(visibility.xmin, visibility.xmax, tuple(sorted(surely))) if perhaps == surely else None
