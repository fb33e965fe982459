"""How every CDC capture names its metadata, and how it is laid out in a batch.

Mappings and sinks see these names with an `@` before them, whatever database a record came from.
`operation` is not stored: it is the batch's `ops`.

| name             | value                                                                              |
|------------------|------------------------------------------------------------------------------------|
| `operation`      | `create`, `update`, `delete`, `read` (a snapshot's row), `truncate`; and the marks |
|                  | `backfill` and `sweep`, between which all rows are read again                      |
| `schema`         | the schema (or database) of the table, as the source spells it                     |
| `table`          | the table                                                                          |
| `lsn`            | integer: where the change stands in the source's log                               |
| `commit_lsn`     | integer: where its transaction's commit stands; (commit_lsn, lsn) is the order     |
| `transaction_id` | the source's id of the transaction                                                 |
| `ts_ms`          | when the transaction committed (the snapshot was taken), ms since 1970             |
| `snapshot`       | true for a row read by a snapshot                                                  |
| `before`         | the old row, where the source sent it                                              |
| `unchanged`      | names of the fields that are absent because the source did not send them: they     |
|                  | have not changed, and a sink keeps its value                                       |
| `key_change`     | the other key: the new one on the delete, the old one on the create, of one update |
| `origin`         | the replication origin, when the change was itself replicated to the source        |
| `truncate`       | on `truncate`: `{"cascade": …, "restart_identity": …}`                             |
| `prefix`         | on a logical message: what the application called it                               |
| `oversized`      | names of the fields that were left out because they exceed the limit on a record   |
| `from_log`       | on a mark: which reading of the whole log it begins or ends, not one of the source |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

OPERATION = "operation"
SCHEMA = "schema"
TABLE = "table"
LSN = "lsn"
COMMIT_LSN = "commit_lsn"
TRANSACTION_ID = "transaction_id"
TS_MS = "ts_ms"
SNAPSHOT = "snapshot"
BEFORE = "before"
UNCHANGED = "unchanged"
KEY_CHANGE = "key_change"
ORIGIN = "origin"
TRUNCATE = "truncate"
PREFIX = "prefix"
OVERSIZED = "oversized"
FROM_LOG = "from_log"

NAMES = (
    OPERATION,
    SCHEMA,
    TABLE,
    LSN,
    COMMIT_LSN,
    TRANSACTION_ID,
    TS_MS,
    SNAPSHOT,
    BEFORE,
    UNCHANGED,
    KEY_CHANGE,
    ORIGIN,
    TRUNCATE,
    PREFIX,
    OVERSIZED,
    FROM_LOG,
)


class TransactionRun(NamedTuple):
    """Consecutive records of one batch that one source transaction wrote."""

    records: int
    transaction_id: int | str
    commit_lsn: int
    ts_ms: int
    origin: str | None


def transaction_metadata(runs: Sequence[TransactionRun]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Shared metadata and columns that say which transaction wrote each record.

    What all have in common is shared, so that a big transaction does not repeat its id a million times.
    """
    shared: dict[str, Any] = {}
    columns: dict[str, list[Any]] = {}
    for index, name in _OF_RUN:
        first = runs[0][index]
        if len(runs) == 1 or all(run[index] == first for run in runs):
            if first is not None:
                shared[name] = first
            continue
        column: list[Any] = []
        for run in runs:
            if run[0] == 1:
                column.append(run[index])
            else:
                column += [run[index]] * run[0]
        columns[name] = column
    return shared, columns


_OF_RUN = ((1, TRANSACTION_ID), (2, COMMIT_LSN), (3, TS_MS), (4, ORIGIN))


def sparse(values: Mapping[int, Any], count: int) -> list[Any]:
    """A column of `count` values from the few records that have one."""
    column: list[Any] = [None] * count
    for index, value in values.items():
        column[index] = value
    return column
