"""A batch of changes as what it leaves behind: for each key its last state, the later record winning.

The hard thing is that where a batch ends must never show in the table. So the state of a key is built
up exactly as the table would build it up record by record: a delete after an insert leaves nothing (or
a marked row), an update that lacks unchanged columns keeps what stood there before, in the batch or in
the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hub.record import DELETE

from .rows import Row, Rows


@dataclass(slots=True)
class Load:
    """Rows for one statement. `origin` says which record of the batch each came from."""

    rows: Sequence[Row]
    origin: Sequence[int]
    ndjson: bytes | None = None
    """The same rows as JSON lines by field name, where the batch's own bytes are just that."""
    is_new: bool = False
    """The source made or read every row, so most likely none is in the table. Only a hint."""
    span: tuple[int, int] | None = None
    """The smallest and the largest key of rows that are most likely new, where keys are single integers."""
    encoded: Any = None
    """What `Driver.encode` made of the rows ahead."""


@dataclass(slots=True)
class Reduced:
    """What a run of records without truncates does to a table. No key occurs twice."""

    upserts: Load | None = None
    partials: dict[frozenset[str], Load] = field(default_factory=dict)
    """By the fields that keep the table's value: whole rows, in which those cells say nothing."""
    deletes: Load | None = None
    """Rows of the key's cells, and with soft deletes the time."""


@dataclass(slots=True)
class _State:
    """A key's state after some records. `row` is None for a key that is deleted."""

    row: Row | None
    kept: frozenset[str]
    origin: int
    deleted_at: Any = None


_NONE_KEPT: frozenset[str] = frozenset()


def reduced(
    rows: Rows,
    *,
    kept: Sequence[Sequence[str] | None] | None,
    soft_at: Sequence[Any] | None,
) -> Reduced:
    """The last state of each key. `kept` names the unchanged fields of each record, `soft_at` is the
    time of each record where deletes only mark rows."""
    ops = rows.batch.ops
    deletes = ops is not None and DELETE in ops
    keys = rows.keys
    if not deletes and kept is None:
        if len(set(keys)) < len(keys):
            origin = list(dict(zip(keys, range(len(keys)), strict=True)).values())
            return Reduced(upserts=Load([rows.tuples[index] for index in origin], origin))
        load = whole(rows)
        if ops is None or not ops.strip(b"cr"):
            load.is_new = True
            load.span = (min(keys), max(keys)) if keys and rows.codec.has_integer_key else None
        return Reduced(upserts=load)
    return _split(_states(rows, kept, soft_at), rows, soft_at is not None)


def whole(rows: Rows) -> Load:
    """All records as rows, as they are."""
    return Load(_Lazy(rows), range(rows.count), rows.ndjson)


class _Lazy(Sequence[Row]):
    """Rows that are only made when they are looked at: a database that takes the bytes never does."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return self._rows.count

    def __getitem__(self, index: Any) -> Any:
        return self._rows.tuples[index]

    def __iter__(self) -> Any:
        return iter(self._rows.tuples)


def _states(
    rows: Rows, kept: Sequence[Sequence[str] | None] | None, soft_at: Sequence[Any] | None
) -> dict[Any, _State]:
    ops = rows.batch.ops or b"c" * rows.count
    unsent = kept or [None] * rows.count
    merge = _merging(rows)
    states: dict[Any, _State] = {}
    for index, (key, op, row, names) in enumerate(zip(rows.keys, ops, rows.tuples, unsent, strict=True)):
        before = states.get(key)
        if op == DELETE:
            if soft_at is not None and before is not None:
                before.deleted_at = before.deleted_at or soft_at[index]
                continue
            at = soft_at[index] if soft_at is not None else None
            states[key] = _State(None, _NONE_KEPT, index, at)
            continue
        missing = frozenset(names) if names else _NONE_KEPT
        if missing and before is None:
            states[key] = _State(row, missing, index)
        elif missing and before is not None and before.row is not None:
            row = merge(row, before.row, missing)
            states[key] = _State(row, missing & before.kept, index)
        elif missing and soft_at is not None:
            states[key] = _State(row, missing, index)
        else:
            states[key] = _State(row, _NONE_KEPT, index)
    return states


def _merging(rows: Rows) -> Callable[[Row, Row, frozenset[str]], Row]:
    columns = rows.codec.layout.columns

    def merge(row: Row, before: Row, missing: frozenset[str]) -> Row:
        return tuple(
            old if column.origin == "field" and column.path[0] in missing else new
            for column, new, old in zip(columns, row, before, strict=True)
        )

    return merge


def _split(states: dict[Any, _State], rows: Rows, soft: bool) -> Reduced:
    """States by the statement that brings them about."""
    at = rows.codec.layout.index("deleted_at") if soft else -1
    found = Reduced()
    upserts, deletes = Load([], []), Load([], [])
    for state in states.values():
        if state.row is None:
            key = rows.codec.key_row(rows.tuples[state.origin])
            _add(deletes, (*key, state.deleted_at) if soft else key, state.origin)
            continue
        row = state.row
        if soft and state.deleted_at is not None:
            row = (*row[:at], state.deleted_at, *row[at + 1 :])
        if state.kept:
            _add(found.partials.setdefault(state.kept, Load([], [])), row, state.origin)
        else:
            _add(upserts, row, state.origin)
    found.upserts = upserts if upserts.rows else None
    found.deletes = deletes if deletes.rows else None
    return found


def _add(load: Load, row: Row, origin: int) -> None:
    assert isinstance(load.rows, list)
    assert isinstance(load.origin, list)
    load.rows.append(row)
    load.origin.append(origin)
