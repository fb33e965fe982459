"""Collections that no table stands behind: logical messages, and the account of transactions. Pure.

The account has a record where a transaction begins and one where it ends, which says how many records it left
in each collection. Both stand in the same transaction of the log as those records.
"""

from __future__ import annotations

from hub.capture import collection_name
from hub.document import encode
from hub.record import CREATE, TaskName
from hub.schema import CollectionSchema, describe
from hub.schema.types import BYTES, INT64, JSON, STRING
from hub_captures.postgres.changes import RowForm
from hub_captures.postgres.decoder import Decoder
from hub_captures.postgres.gathered import Gathered
from hub_captures.postgres.pgoutput import Begin, Relation


class Ledger:
    """Gathers the account. `note` is told of each table's records before they are closed into a run."""

    def __init__(self, task: TaskName) -> None:
        fields = {
            "commit_lsn": INT64.null(False),
            "status": STRING.null(False),
            "transaction_id": INT64.null(False),
            "ts_ms": INT64.null(False),
            "records": INT64,
            "collections": JSON,
        }
        self.gathered = gathered_without_table(
            describe(collection_name(task, "transactions"), fields, ("commit_lsn", "status"))
        )
        self.is_open = False
        self._counts: dict[str, int] = {}

    def begin(self, begin: Begin) -> None:
        """A transaction leaves its first record."""
        self.is_open = True
        self._add(begin, {"status": "begin"})

    def note(self, table: Gathered) -> None:
        """Count what a table has gathered of this transaction since it was last noted."""
        count = table.count - table.committed
        if count and table is not self.gathered:
            self._counts[table.collection] = self._counts.get(table.collection, 0) + count

    def end(self, begin: Begin) -> None:
        """The transaction is whole."""
        counts, self._counts, self.is_open = self._counts, {}, False
        listed = [{"collection": name, "records": count} for name, count in sorted(counts.items())]
        self._add(begin, {"status": "end", "records": sum(counts.values()), "collections": listed})

    def _add(self, begin: Begin, said: dict[str, object]) -> None:
        document = {
            "commit_lsn": begin.commit_lsn,
            "transaction_id": begin.xid,
            "ts_ms": begin.ts_ms,
            **said,
        }
        self.gathered.add(CREATE, encode(document) + b"\n", begin.commit_lsn.to_bytes(8), {})


def gathered_without_table(schema: CollectionSchema) -> Gathered:
    """Where records are gathered that come from no table."""
    gathered = Gathered(
        schema, Relation(0, "", schema.collection, "n", ()), RowForm(Decoder([]), (), ()), None
    )
    gathered.shared = {}
    return gathered


def messages_of(task: TaskName) -> Gathered:
    """Where logical messages are gathered: a collection without a key."""
    fields = {"content": STRING, "content_base64": BYTES}
    return gathered_without_table(describe(collection_name(task, "messages"), fields))
