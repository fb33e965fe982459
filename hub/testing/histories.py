"""Random histories of one table.

A history is what a source could have done: creates, updates (some of them leaving out unchanged large
fields), deletes (of keys never seen, too), key changes, truncates, snapshot reads, in transactions, and
a schema that grows, widens and clashes on the way, in the key as well. It may lose rows without saying so, until a backfill
reads again what is left. Values and names are hostile. Everything comes from
one seed, so that a failure can be run again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hub import cdc
from hub.record import (
    BACKFILL,
    CREATE,
    DELETE,
    READ,
    SWEEP,
    TRUNCATE,
    UPDATE,
    Batch,
)
from hub.schema import CollectionSchema, ColumnType, describe, widen
from hub.schema.types import (
    BOOLEAN,
    BYTES,
    DATE,
    DECIMAL,
    FLOAT32,
    FLOAT64,
    INT16,
    INT32,
    INT64,
    INTERVAL,
    JSON,
    OBJECT,
    STRING,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    TIMETZ,
    UINT64,
    UUID,
)

COLLECTION = "source/public.things"
KEYS = 12
REKEYED_MIN = 4
"""Transactions between two changes of a key's columns: no commit of the kit has more."""
START_MS = 1_700_000_000_000

TEXTS = ("", "null", "NULL", "\\N", "a'b\"c", "back\\slash \\n", "tab\tline\nreturn\r\x08\x0c\x01\x7f", "é ß 漢 😀", "{}", "%s %% $1 ?",
         "x" * 3000, " padded ", "\\.", "true", "1e5", ",", "\u2028", "0")  # fmt: skip

KEY_TEXTS = tuple(text for text in TEXTS if len(text) < 100)

COLUMNS: Mapping[str, tuple[ColumnType, tuple[Any, ...]]] = {
    "text": (STRING, TEXTS),
    "varchar": (ColumnType("string", length=10), ("", "ten chars!", "\n", "漢" * 10)),
    "small": (INT16, (-32768, 32767, 0)),
    "int": (INT32, (-(2**31), 2**31 - 1, 7)),
    "big": (INT64, (-(2**63), 2**63 - 1, 0)),
    "unsigned": (UINT64, (0, 2**64 - 1)),
    "real": (FLOAT32, (0.5, -1.25, 3.0)),
    "double": (FLOAT64, (0.1, -1e300, 5e-324, 12345678901234567890, 3, -0.5)),
    "money": (ColumnType("decimal", precision=12, scale=2), ("0.00", "-9999999999.99", "12.50")),
    "numeric": (DECIMAL, ("1", "-0.000000000000000000001", "123456789012345678901234567890.12345", "1.10")),
    "flag": (BOOLEAN, (True, False)),
    "day": (DATE, ("2024-02-29", "1000-01-01", "9999-12-31")),
    "at": (TIMESTAMP, ("2024-01-01T00:00:00", "1999-12-31T23:59:59.999999")),
    "instant": (TIMESTAMPTZ, ("2024-01-01T00:00:00.1Z", "1001-01-01T00:00:00.000001Z")),
    "clock": (TIME, ("00:00:00", "23:59:59.999999")),
    "clocktz": (TIMETZ, ("12:00:00+02", "23:59:59.5-11:30")),
    "span": (INTERVAL, ("P1Y2M3DT4H5M6.7S", "PT0S", "P-1M2DT-3H", "PT-0.000001S")),
    "uuid": (UUID, ("123e4567-e89b-12d3-a456-426614174000", "00000000-0000-0000-0000-000000000000")),
    "bytes": (BYTES, ("", "AP8=", "aGVsbG8=", "AAECAw==")),
    "json": (JSON, ({"a": [1, None, {"b": "x\n\"'\\"}]}, [], "text", 5, True, {"": ""}, 1.5)),
    "object": (OBJECT, ({"k": 1}, {}, {"é": [True, None]})),
    "ints": (ColumnType("array", items=INT64), ([], [1, None, -(2**63)])),
    "texts": (ColumnType("array", items=STRING), (["", "NULL", None, 'a"b\\', "{,}", "new\nline"], [])),
    "we\"ird 'name; -- \\ %s $1": (STRING, ("value", None)),
    "select": (INT32, (1, 2)),
    "ID": (INT32, (10, 20)),
    "Id": (INT32, (30, 40)),
    "long " * 30 + "one": (STRING, ("first",)),
    "long " * 30 + "two": (STRING, ("second",)),
    "ключ 漢字 😀": (STRING, ("unicode",)),
}
"""Fields that a history may have: type and values, which every sink can hold."""

EXTREMES: Mapping[str, tuple[Any, ...]] = {
    "double": ("NaN", "Infinity", "-Infinity"),
    "real": ("NaN",),
    "day": ("infinity", "-infinity", "0044-03-15 BC"),
    "at": ("infinity", "0044-03-15T01:02:03.5 BC"),
    "instant": ("-infinity", "0044-03-15T01:02:03.5Z BC"),
    "clock": ("24:00:00",),
}
"""Values that not every database can hold. `Subject.holds_extremes` says whether they are tried."""

GROWTH: Mapping[str, tuple[tuple[ColumnType, tuple[Any, ...]], ...]] = {
    "small": ((INT32, (2**31 - 1,)), (INT64, (2**63 - 1,)), (ColumnType("decimal", precision=30, scale=0), ("1" * 30,)), (STRING, ("not a number",))),
    "varchar": ((ColumnType("string", length=20), ("x" * 20,)), (STRING, ("y" * 5000,))),
    "money": ((ColumnType("decimal", precision=20, scale=4), ("1234567890123456.1234",)), (DECIMAL, ("1e-30",))),
    "real": ((FLOAT64, (1e-300,)),),
    "flag": ((JSON, ({"now": "an object"}, "text")),),
    "uuid": ((STRING, ("not a uuid",)),),
    "instant": ((STRING, ("tomorrow",)),),
    "select": ((JSON, ([1], "x")),),
    "big": ((STRING, ("text now",)), (JSON, ({"x": 1},))),
}  # fmt: skip
"""What the type of a field may become, one step at a time, with values that need it."""


KEY_GROWTH: Mapping[str, tuple[ColumnType, ...]] = {"integer": (STRING, JSON), "string": (JSON,)}
"""What the type of a key may become, once. Cast to text, a row stays the row it was; in JSON, 1 and "1" are two."""


@dataclass(frozen=True, slots=True)
class Change:
    """One record of a history."""

    op: int
    document: Mapping[str, Any]
    ts_ms: int
    unchanged: tuple[str, ...] = ()
    from_log: str | None = None
    """On a mark: the reading of the whole log that it begins or ends."""


@dataclass(slots=True)
class History:
    """Transactions, each a list of changes and of schemas that hold from there on."""

    key: tuple[str, ...]
    transactions: list[list[Change | CollectionSchema]]
    types: dict[str, ColumnType]
    """The fields that the schema has in the end, with a type that holds all that was ever said of them.
    A field that was dropped keeps its column, and what is in it is nobody's concern any more."""
    key_types: dict[str, ColumnType]
    """The same for the fields of the key where it is one: text holds what was cast to it."""


def batch_of(changes: Sequence[Change]) -> Batch:
    """Changes as a capture sends them."""
    columns: dict[str, Sequence[Any]] = {cdc.TS_MS: [change.ts_ms for change in changes]}
    if any(change.unchanged for change in changes):
        columns[cdc.UNCHANGED] = [list(change.unchanged) or None for change in changes]
    shared: dict[str, Any] = {cdc.TABLE: "things", cdc.SCHEMA: "public"}
    if changes[0].from_log is not None:
        shared[cdc.FROM_LOG] = changes[0].from_log
    return Batch.of_docs(
        COLLECTION,
        [dict(change.document) for change in changes],
        ops=bytes(change.op for change in changes),
        shared=shared,
        columns=columns,
    )


def history(
    seed: int,
    *,
    extremes: bool,
    backfills: bool = True,
    keyed: bool = True,
    rekeyed: bool = True,
    transactions: int = 12,
    schema_changes: int = 0,
) -> History:
    """A random history. With `schema_changes` the table begins small and its schema changes so many times. `keyed`:
    the destination tells rows apart by the key, so that text in it may become JSON. `rekeyed`: the key may go over to
    other columns."""
    maker = _Maker(random.Random(seed), extremes, backfills, keyed, rekeyed, small=schema_changes > 0)
    return maker.make(transactions, schema_changes)


def read_again(told: History) -> History:
    """A history after which the destination is given all of it once more from the log, which must change nothing."""
    first = next(i for part in told.transactions for i in part if isinstance(i, CollectionSchema))
    begins: list[Change | CollectionSchema] = [first, Change(BACKFILL, {}, START_MS, from_log="again")]
    ends: list[Change | CollectionSchema] = [Change(SWEEP, {}, START_MS, from_log="again")]
    again = [begins, *told.transactions, ends]
    return replace(told, transactions=[*told.transactions, *again])


class _Maker:
    def __init__(
        self,
        chance: random.Random,
        extremes: bool,
        backfills: bool,
        keyed: bool,
        rekeyed: bool,
        *,
        small: bool,
    ) -> None:
        self._chance = chance
        self._keyed = keyed
        self._rekeys = chance.random() < 0.4 and rekeyed
        """Whether the key goes over to other columns; its type then stays."""
        self._key_grown = self._rekeys
        self._rekeyed_at = 0
        self._gone: list[dict[str, Any]] = []
        """Rows that have gone without a word, until a backfill tells."""
        self._backfills = backfills
        self._unread: list[tuple[Any, ...]] | None = None
        """The keys that the backfill which is under way has still to read."""
        self._extremes = extremes
        self._key = chance.choice((("key",), ("key",), ("key", "part")))
        key_type = chance.choice((INT64, STRING))
        self._types: dict[str, ColumnType] = {"key": key_type.null(False)}
        if len(self._key) == 2 or self._rekeys:
            self._types["part"] = STRING.null(False)
        self._values: dict[str, list[Any]] = {}
        self._grown: dict[str, int] = {}
        self._live: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._final: dict[str, ColumnType] = {}
        self._ts_ms = START_MS
        self._dropped: set[str] = set()
        for name in chance.sample(list(COLUMNS), 3 if small else chance.randint(1, len(COLUMNS))):
            self._add(name)

    def make(self, count: int, schema_changes: int) -> History:
        transactions: list[list[Change | CollectionSchema]] = [[self._schema()]]
        for number in range(count):
            self._ts_ms += self._chance.randint(1, 5000)
            changes: list[Change | CollectionSchema] = []
            due = schema_changes * (number + 1) // count - schema_changes * number // count
            for turn in range(max(due, self._chance.choice((1, 1, 2, 5, 30)))):
                if turn < due:
                    while not self._evolve():
                        pass
                    changes.append(self._schema())
                elif self._chance.random() < 0.05 and self._evolve():
                    changes.append(self._schema())
                elif (
                    self._rekeys and number - self._rekeyed_at >= REKEYED_MIN and self._chance.random() < 0.4
                ):
                    self._rekeyed_at = number
                    changes += self._rekey()
                changes += self._change()
            transactions.append(changes)
        return History(
            self._key,
            transactions,
            {name: self._final[name] for name in self._types},
            {name: self._types[name].null() for name in self._key},
        )

    def _schema(self) -> CollectionSchema:
        for name, column in self._types.items():
            known = self._final.get(name)
            self._final[name] = column if known is None else _held(known, column)
        return describe(COLLECTION, self._types, self._key)

    def _add(self, name: str) -> None:
        column, values = COLUMNS[name]
        self._types[name] = column
        self._values[name] = [*values, None, *(EXTREMES.get(name, ()) if self._extremes else ())]

    def _evolve(self) -> bool:
        # Where a database does not tell the case of names, another spelling is the column of before.
        unused = [
            name for name in COLUMNS if name not in self._types and name.casefold() not in self._dropped
        ]
        growing = [n for n in GROWTH if n in self._types and self._grown.get(n, 0) < len(GROWTH[n])]
        dropped = [n for n in self._types if n not in ("key", "part")]
        choice = self._chance.random()
        if choice < 0.06 and self._evolve_key():
            return True
        if choice < 0.45 and unused:
            self._add(self._chance.choice(unused))
        elif choice < 0.9 and growing:
            name = self._chance.choice(growing)
            column, values = GROWTH[name][self._grown.get(name, 0)]
            self._grown[name] = self._grown.get(name, 0) + 1
            was, self._types[name] = self._types[name], column
            self._values[name] = [*values, None]
            if was.kind in ("integer", "decimal"):
                # Numbers may be spelled otherwise by now: 0.00 as 0.0000, or as text.
                for row in self._live.values():
                    if name in row:
                        row[name] = None
        elif len(dropped) > 1:
            name = self._chance.choice(dropped)
            del self._types[name], self._values[name]
            self._dropped.add(name.casefold())
            for row in self._live.values():
                row.pop(name, None)
        else:
            return False
        return True

    def _evolve_key(self) -> bool:
        kind = self._types["key"].kind
        if self._key_grown or not (self._keyed or kind == "integer"):
            return False
        self._key_grown = True
        column = self._chance.choice(KEY_GROWTH[kind])
        self._types["key"] = column.null(False)
        if column.kind == "string":
            self._live = {texts(key): row | {"key": str(key[0])} for key, row in self._live.items()}
            self._unread = None if self._unread is None else list(map(texts, self._unread))
        return True

    def _rekey(self) -> list[Change | CollectionSchema]:
        """The key goes over to other columns, once the rows are gone that it would not tell apart."""
        keys = (("key",), ("part",), ("key", "part"))
        fresh = self._chance.choice([key for key in keys if key != self._key])
        # What a destination still shows of rows that are gone must not have the key of another.
        shown = {tuple(row[name] for name in self._key): row for row in self._gone} | self._live
        gone = [row for key, row in shown.items() if key not in self._live]
        taken = [tuple(row[name] for name in fresh) for row in gone]
        if len(set(taken)) < len(taken) or any(
            tuple(r[n] for n in fresh) in taken for r in self._live.values()
        ):
            return []
        self._gone = gone
        changes: list[Change | CollectionSchema] = []
        rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        names = {}
        for old, row in list(self._live.items()):
            key = tuple(row[name] for name in fresh)
            if key in rows:
                changes.append(self._delete(old))
            else:
                rows[key], names[old] = row, key
        if self._unread is not None:
            self._unread = [names[old] for old in self._unread if old in names]
        self._key, self._live = fresh, rows
        return [*changes, self._schema()]

    def _change(self) -> list[Change]:
        if self._backfills:
            if self._unread is not None and self._chance.random() < 0.4:
                return self._read_on()
            if self._unread is None and self._chance.random() < 0.04:
                return [self._begin_backfill()]
        choice = self._chance.random()
        known = list(self._live)
        if choice < 0.02:
            self._live.clear()
            return [Change(TRUNCATE, {}, self._ts_ms)]
        if choice < 0.15:
            return [self._delete(self._chance.choice(known) if known and choice < 0.13 else self._new_key())]
        if choice < 0.25 and known:
            old = self._chance.choice(known)
            return [self._delete(old), self._write(CREATE, self._new_key())]
        if choice < 0.4 and known:
            return [self._partial(self._chance.choice(known))]
        key = self._new_key()
        return [self._write(UPDATE if key in self._live else self._chance.choice((CREATE, READ)), key)]

    def _begin_backfill(self) -> Change:
        """Some rows have gone from the source, and nobody has said so."""
        for key in self._chance.sample(list(self._live), self._chance.randint(0, len(self._live))):
            if self._chance.random() < 0.5:
                self._gone.append(self._live.pop(key))
        self._unread = self._chance.sample(list(self._live), len(self._live))
        return Change(BACKFILL, {}, self._ts_ms)

    def _read_on(self) -> list[Change]:
        """The next rows of the backfill, or its end."""
        assert self._unread is not None
        if not self._unread:
            self._unread = None
            self._gone = []
            return [Change(SWEEP, {}, self._ts_ms)]
        keys = [self._unread.pop() for _ in range(min(len(self._unread), self._chance.randint(1, 5)))]
        return [Change(READ, dict(self._live[key]), self._ts_ms) for key in keys if key in self._live]

    def _new_key(self) -> tuple[Any, ...]:
        return tuple(self._new(name) for name in self._key)

    def _new(self, name: str) -> Any:
        """A value of the fields that the key is, or may be."""
        if name == "part":
            return self._chance.choice(("", "a", "A"))
        number = self._chance.randrange(KEYS)
        kind = self._types["key"].kind
        text = self._chance.choice((KEY_TEXTS[number % len(KEY_TEXTS)], str(number)))
        return number if kind == "integer" or (kind == "json" and self._chance.random() < 0.3) else text

    def _document(self, key: tuple[Any, ...]) -> dict[str, Any]:
        found: dict[str, Any] = dict(zip(self._key, key, strict=True))
        if self._rekeys:
            found |= {name: self._new(name) for name in ("key", "part") if name not in found}
        for name, values in self._values.items():
            found[name] = self._chance.choice(values)
        return found

    def _write(self, op: int, key: tuple[Any, ...]) -> Change:
        document = self._live[key] = self._document(key)
        return Change(op, dict(document), self._ts_ms)

    def _partial(self, key: tuple[Any, ...]) -> Change:
        before = self._live[key]
        document = self._document(key)
        fields = [name for name in before if name not in self._key and name in self._values]
        kept = tuple(self._chance.sample(fields, self._chance.randint(0, min(3, len(fields)))))
        for name in kept:
            document[name] = before[name]
        self._live[key] = document
        sent = {name: value for name, value in document.items() if name not in kept}
        return Change(UPDATE, sent, self._ts_ms, kept)

    def _delete(self, key: tuple[Any, ...]) -> Change:
        self._live.pop(key, None)
        return Change(DELETE, dict(zip(self._key, key, strict=True)), self._ts_ms)


def texts(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """A key as a source casts it to text."""
    return tuple(map(str, key))


def _held(known: ColumnType, wanted: ColumnType) -> ColumnType:
    """What a column holds that was made for `known` and then had to take `wanted`."""
    if known.kind == "json" or (known.kind == "string" and known.length is None):
        return known
    return widen(known.null(), wanted.null())
