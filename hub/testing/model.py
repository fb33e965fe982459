"""The model of the conformance kit: what a table must hold after a history, told without batches or commits.

The hard thing is a key that goes over to other columns: the rows are named anew, and what was remembered of them goes
along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hub.record import BACKFILL, DELETE, MARKS, OPERATIONS, READ, TRUNCATE
from hub.schema import CollectionSchema
from hub.testing.histories import Change


@dataclass(slots=True)
class Model:
    """What a table must hold, record by record."""

    key: tuple[str, ...]
    mode: str = "upsert"
    soft: bool = False
    rows: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    seen: set[tuple[Any, ...]] | None = None
    """The keys that were read or written since the backfill began that is under way."""

    def describe(self, schema: CollectionSchema) -> None:
        """A schema holds from here on. A key that is text now is so in all rows; a key of other columns names them
        anew, where rows that are marked as deleted give way to each other and to any other row."""
        if schema.key_fields != self.key and self.mode != "append":
            self._rekey(schema.key_fields)
        cast = [c.name for c in schema.columns() if c.name in self.key and c.type.kind == "string"]
        if self.mode == "append" or not cast:
            return
        for row in [*self.rows.values(), *self.log]:
            row |= {name: str(row[name]) for name in cast}
        place = {self.key.index(name) for name in cast}

        def again(key: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(str(cell) if i in place else cell for i, cell in enumerate(key))

        self.rows = {again(key): row for key, row in self.rows.items()}
        self.seen = None if self.seen is None else set(map(again, self.seen))

    def _rekey(self, fresh: tuple[str, ...]) -> None:
        known: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
        for old, row in self.rows.items():
            known.setdefault(tuple(row[name] for name in fresh), []).append(old)
        rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        for key, olds in known.items():
            left = [old for old in olds if len(olds) == 1 or not self.rows[old].get("_deleted_at")]
            assert len(left) <= 1, f"a key that names two rows: {key}"
            if left:
                rows[key] = self.rows[left[0]]
        if self.seen is not None:
            seen = self.seen
            self.seen = {key for key in rows if not seen.isdisjoint(known[key])}
        self.key, self.rows = fresh, rows

    def take(self, change: Change) -> None:
        """One more change."""
        if self.mode != "append":
            if change.op in MARKS:
                self._take_mark(change)
                return
            if self.seen is not None and change.op not in (DELETE, TRUNCATE):
                self.seen.add(self._key_of(change))
        match self.mode:
            case "append":
                if change.op not in MARKS:
                    self.log.append({**change.document, "_operation": OPERATIONS[change.op]})
            case "history":
                self._take_version(change)
            case _:
                self._take_state(change)

    def held(self) -> list[dict[str, Any]]:
        """The rows that the table must hold."""
        return list(self.rows.values()) if self.mode == "upsert" else self.log

    def _key_of(self, change: Change) -> tuple[Any, ...]:
        return tuple(change.document[name] for name in self.key)

    def _merged(self, change: Change, before: Mapping[str, Any]) -> dict[str, Any]:
        return {**dict(change.document), **{name: before.get(name) for name in change.unchanged}}

    def _take_state(self, change: Change) -> None:
        if change.op == TRUNCATE:
            for row in self.rows.values():
                row["_deleted_at"] = row.get("_deleted_at") or change.ts_ms
            if not self.soft:
                self.rows.clear()
            return
        key = self._key_of(change)
        if change.op != DELETE:
            self.rows[key] = self._merged(change, self.rows.get(key, {}))
        elif not self.soft:
            self.rows.pop(key, None)
        elif key in self.rows:
            self.rows[key]["_deleted_at"] = self.rows[key].get("_deleted_at") or change.ts_ms

    def _take_mark(self, change: Change) -> None:
        if change.op == BACKFILL:
            self.seen = set()
            return
        gone = [key for key in self.rows if key not in self.seen] if self.seen is not None else []
        for key in gone:
            row = self.rows[key] if self.soft else self.rows.pop(key)
            if self.soft:
                row["_deleted_at"] = row.get("_deleted_at") or change.ts_ms
            elif self.mode == "history":
                row |= {"_valid_to": change.ts_ms, "_is_current": False}
        self.seen = None

    def _take_version(self, change: Change) -> None:
        if change.op == READ and self.seen is not None:
            held = self.rows.get(self._key_of(change), {})
            if held and all(held.get(name) == value for name, value in change.document.items()):
                return
        keys = [self._key_of(change)] if change.op != TRUNCATE else list(self.rows)
        for key in keys:
            before = self.rows.pop(key, None)
            if before is not None:
                before["_valid_to"] = change.ts_ms
                before["_is_current"] = False
            if change.op not in (DELETE, TRUNCATE):
                version = self._merged(change, before or {})
                version |= {"_valid_from": change.ts_ms, "_valid_to": None, "_is_current": True}
                self.rows[key] = version
                self.log.append(version)
