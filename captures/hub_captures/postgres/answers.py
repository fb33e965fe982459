"""What the stream could not know: the server is asked, and the stream goes on.

The feed handles messages in a callback that must not wait. What it needs an answer for, it leaves as an obstacle;
here the answer is found, and the message that met the obstacle is given again. The hard thing is that
the answers come from the present, while the stream tells of the past: a table may be gone by now, a row changed.
"""

from __future__ import annotations

from collections.abc import Sequence

from hub.errors import HubError
from hub_captures.postgres.catalog import load_types
from hub_captures.postgres.changes import RowForm
from hub_captures.postgres.connection import (
    GONE,
    UNDEFINED_COLUMN,
    Connection,
    quoted,
    rows,
    sqlstate_of,
)
from hub_captures.postgres.feed import Feed
from hub_captures.postgres.gathered import Gathered
from hub_captures.postgres.keys import rank_query, row_of, sort_key, values_of
from hub_captures.postgres.layout import Layouts
from hub_captures.postgres.obstacles import MissingValues, Signal, UnknownOrder, UnknownRelation
from hub_captures.postgres.pgoutput import Relation
from hub_captures.postgres.position import Key
from hub_captures.postgres.tables import Tables, key_of
from hub_captures.postgres.upkeep import Upkeep

MOVED = (*GONE, UNDEFINED_COLUMN)
"""A table that is not where it was, or not as it was."""


class Answers:
    """Removes what the feed has met, and keeps it in step with the tables."""

    def __init__(
        self, query: Connection, tables: Tables, feed: Feed, layouts: Layouts, upkeep: Upkeep
    ) -> None:
        self._query = query
        self._tables = tables
        self._feed = feed
        self._layouts = layouts
        self._upkeep = upkeep

    async def clear(self) -> bool:
        """Ask the server what the feed could not know. False when the message that is given again stops the
        reader once more, for the next obstacle."""
        feed = self._feed
        obstacle, feed.obstacle = feed.obstacle, None
        match obstacle:
            case UnknownRelation(relation):
                await self._place(relation)
            case UnknownOrder(table, key):
                await self._rank(table, key)
            case MissingValues(table, key, names):
                await self._fetch(table, key, names)
            case Signal(content):
                await self._upkeep.signal(content, feed.begin.xid if feed.begin is not None else 0)
                self.hand_over()
        return not feed.go_on()

    async def _rank(self, table: Gathered, key: Key) -> None:
        """Where a key stands. Of a table that is not there any more nobody reads on, and all its changes are sent."""
        handover = table.handover
        assert handover is not None
        tracked = self._tables.by_oid.get(table.relation.oid)
        if tracked is None or tracked.table is None:
            table.handover = None
            return
        query = rank_query(tracked.table, key, handover.bounds())
        try:
            ((rank,),) = await rows(self._query, "comparing keys", query)
        except HubError as error:
            if sqlstate_of(error) not in MOVED:
                raise
            await self.refresh()
            if table.handover is handover:
                table.handover = None
        else:
            handover.learn(key, rank)

    async def _fetch(self, table: Gathered, key: Key, names: Sequence[str]) -> None:
        """The present values of some fields. A later change of the row comes in the stream and corrects them."""
        self._feed.judge.fetched = {}
        tracked = self._tables.by_oid.get(table.relation.oid)
        if tracked is None or tracked.table is None or not table.form.key_indexes:
            return
        there = {column.name for column in tracked.table.columns}
        wanted = [name for name in names if name in there]
        if not wanted:
            return
        # Not a cast to text, which is another form for some types; and a value that was too large to send is no null.
        columns = ", ".join([f"format('%s', {quoted(name)})" for name in wanted])
        where = f"{row_of(tracked.table.key)} = {values_of(key)}"
        try:
            found = await rows(
                self._query,
                "fetching large values",
                f"select {columns} from {tracked.table.sql} where {where}",
            )
        except HubError as error:
            if sqlstate_of(error) not in MOVED:
                raise
            return
        for row in found:
            cells = zip(wanted, row, strict=True)
            self._feed.judge.fetched = {
                name: table.form.decoder.field(name, value.encode()) for name, value in cells
            }

    async def _place(self, relation: Relation) -> None:
        """Rows of a relation will follow: find out what they mean, and where they go."""
        tracked = self._tables.by_oid.get(relation.oid)
        if tracked is None and await self._upkeep.is_wanted(relation.oid):
            await self.refresh()
            tracked = self._tables.by_oid.get(relation.oid)
        if tracked is None:
            self._feed.place(relation, None)
            return
        before = self._feed.tables.get(relation.oid.to_bytes(4))
        await self._upkeep.watch_form(tracked, relation, before.relation if before is not None else None)
        columns = [(column.name, column.type_oid, column.modifier) for column in relation.columns]
        made = await self._layouts.one(
            relation.schema, relation.table, columns, key_of(relation, tracked.table)
        )
        if tracked.handover is not None and tracked.table is not None:
            await load_types(self._query, [c.type_oid for c in tracked.table.columns], self._layouts.types)
            tracked.handover.order(sort_key(tracked.table, self._layouts.types))
        identity = tuple([at for at, column in enumerate(relation.columns) if column.in_identity])
        form = RowForm(made.decoder, made.key_indexes, identity)
        gathered = Gathered(made.schema, relation, form, tracked.handover)
        self._feed.place(relation, gathered)

    async def refresh(self) -> None:
        """Bring the tables in step with the catalog."""
        for oid in await self._upkeep.refresh(self._feed.lsn):
            # Its name belongs to another table now, and its late changes would stand among that one's rows.
            self._feed.tables[oid.to_bytes(4)] = None
        has_new_types = await self._layouts.renew()
        for gathered in list(self._feed.tables.values()):
            tracked = self._tables.by_oid.get(gathered.relation.oid) if gathered is not None else None
            if gathered is None or tracked is None:
                continue
            names = gathered.form.decoder.names
            key = tuple([names[at] for at in gathered.form.key_indexes])
            if has_new_types or key_of(gathered.relation, tracked.table) != key:
                # Where whole rows come with changes, the stream does not show that the key is another.
                await self._place(gathered.relation)
        self.hand_over()

    def hand_over(self) -> None:
        """Let the feed judge changes by the copies that have begun meanwhile."""
        for oid, tracked in self._tables.by_oid.items():
            gathered = self._feed.tables.get(oid.to_bytes(4))
            if gathered is not None and gathered.handover is not tracked.handover:
                gathered.handover = tracked.handover
