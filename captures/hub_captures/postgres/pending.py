"""What was gathered of all tables and not taken yet: whole transactions, and the beginning of the next. Pure.

What is taken are whole transactions, as many as have come while the log was busy with the ones before; only one
too big for that is taken in pieces. The account of transactions is kept here, as it is a table among the others.
"""

from __future__ import annotations

from typing import NamedTuple

from hub.record import Batch
from hub.schema import CollectionSchema
from hub_captures.postgres.gathered import Gathered
from hub_captures.postgres.ledger import Ledger
from hub_captures.postgres.pgoutput import Begin

NO_XID = 0
"""Stands for the transaction of a message that belongs to none."""


class Described(NamedTuple):
    """Records, and the schema that must have been stated before them."""

    schema: CollectionSchema
    batch: Batch


class Pending:
    """The tables that hold records, those that the present transaction has touched, and its account."""

    def __init__(self, ledger: Ledger | None) -> None:
        self._ledger = ledger
        self._touched: list[Gathered] = []
        self._filled: dict[Gathered, None] = {}

    @property
    def has_committed(self) -> bool:
        """There is something of whole transactions to take."""
        return any(table.committed for table in self._filled)

    def touch(self, table: Gathered, begin: Begin | None) -> None:
        """The transaction has left its first record in this table since its records were last taken."""
        table.is_touched = True
        self._touched.append(table)
        self._filled[table] = None
        ledger = self._ledger
        if ledger is not None and not ledger.is_open:
            assert begin is not None
            if begin.xid != NO_XID:
                ledger.begin(begin)
                self.touch(ledger.gathered, begin)

    def end(self, begin: Begin, origin: str | None) -> None:
        """The transaction is whole."""
        if self._ledger is not None and self._ledger.is_open:
            self._account(self._ledger, begin)
        for table in self._touched:
            table.end(begin, origin)
        self._touched = []

    def take(self) -> list[Described]:
        """What was gathered of whole transactions."""
        taken: list[Described] = []
        left: dict[Gathered, None] = {}
        for table in self._filled:
            if table.committed:
                taken.append(Described(table.schema, table.take()))
            if table.count:
                left[table] = None
        self._filled = left
        return taken

    def take_all(self, begin: Begin | None, origin: str | None) -> list[Described]:
        """All that was gathered, the piece of the transaction that goes on included."""
        for table in self._touched:
            assert begin is not None
            if self._ledger is not None:
                self._ledger.note(table)
            # With its next record it is touched again, by the same transaction.
            table.end(begin, origin)
        self._touched = []
        return self.take()

    @property
    def is_empty(self) -> bool:
        """Nothing is left."""
        return not self._filled

    def _account(self, ledger: Ledger, begin: Begin) -> None:
        for table in self._touched:
            ledger.note(table)
        if not ledger.gathered.is_touched:
            self.touch(ledger.gathered, begin)
        ledger.end(begin)
