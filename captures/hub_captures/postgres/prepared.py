"""Transactions that are sent at PREPARE TRANSACTION: kept as they come, until COMMIT PREPARED says that they count.

Nothing is decoded before: what a row means to a table under copy depends on the commit. The hard thing is the
relations. The server states one once and means it for all that follows, so those in here must be met at once; but by
the time of the commit another may hold, or have held before the transaction itself changed it. So each
transaction is kept with the relations that its own rows are laid out by.
"""

from __future__ import annotations

from collections.abc import Mapping

from hub.errors import FatalError
from hub_captures.postgres import pgoutput
from hub_captures.postgres.gathered import Gathered
from hub_captures.postgres.pgoutput import Prepared
from hub_captures.postgres.position import lsn_text
from hub_captures.postgres.spool import Spooled


class Keeping:
    """Takes the messages between a begin prepare and its prepare. `tables` is what the feed knows."""

    into: Spooled
    """The transaction that is coming."""

    def __init__(self, tables: Mapping[bytes, Gathered | None]) -> None:
        self._tables = tables

    def row(self, b: bytes | memoryview) -> None:
        """An insert, update or delete."""
        if self._is_laid_out(bytes(b[26:30])):
            self.into.add(b)

    def truncate(self, b: bytes) -> None:
        """A truncate, which may be of many tables."""
        laid_out = [self._is_laid_out(oid.to_bytes(4)) for oid in pgoutput.truncate(b).oids]
        if any(laid_out):
            self.into.add(b)

    def other(self, b: bytes) -> None:
        """A logical message, or the origin."""
        self.into.add(b)

    def _is_laid_out(self, oid: bytes) -> bool:
        """Keep the relation with the transaction. False when it is not captured, and was not stated in here: a
        table that was made in here may be captured by the time of the commit."""
        if not self.into.has_layout(int.from_bytes(oid)):
            table = self._tables.get(oid)
            if table is None:
                return False
            self.into.lay_out(table.relation)
        return True


def lost_prepare(found: Prepared, start_lsn: int) -> FatalError:
    """What stops a capture that learns of a commit without what was committed."""
    return FatalError(
        f"the prepared transaction {found.gid!r} was committed at {lsn_text(found.lsn)}, but its rows were sent before "
        f"{lsn_text(start_lsn)}, where this run has begun: somebody else has read from the slot meanwhile. Drop it with "
        "pg_drop_replication_slot, and set on_gap: resnapshot to read all tables again"
    )
