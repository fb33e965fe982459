"""Records in motion: batches, operations, positions and cursors. Plain data, no I/O.

A batch holds its documents as NDJSON bytes until somebody needs values, and as values until
somebody needs bytes. Each form is made from the other at first use and kept, so a record that is
only carried from a capture to a sink is never made into a Python object.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import compress
from typing import Any, ClassVar, NamedTuple, NewType, Self

import msgspec

from hub.document import decode, decode_lines, encode, encode_lines
from hub.errors import RecordError

TaskName = NewType("TaskName", str)

CREATE, UPDATE, DELETE, READ, TRUNCATE, BACKFILL, SWEEP = b"cudrtbs"
"""Operations, one byte a record. `r` is a row read by a snapshot. Three speak of the whole collection, and
their document is `{}`: `t` empties it; from `b` on all its rows are read again; at `s` they have been, so that
rows which were neither read nor written since `b` are no longer in the source. They print as `chr(op)` and
appear to mappings as `@operation`."""

MARKS = frozenset((BACKFILL, SWEEP))
ABOUT_ALL = frozenset((TRUNCATE, BACKFILL, SWEEP))

OPERATIONS: Mapping[int, str] = {
    CREATE: "create",
    UPDATE: "update",
    DELETE: "delete",
    READ: "read",
    TRUNCATE: "truncate",
    BACKFILL: "backfill",
    SWEEP: "sweep",
}

Document = Any
"""A decoded JSON value. Immutable once in a batch: readers share it."""


class Batch:
    """N records of one collection, in order. The unit everywhere.

    `ops` is one byte a record, or None for all creates. `shared` is metadata that all records have
    in common; `columns` is metadata that varies, each column N values long, None where a record has
    no such entry. A `bytes` value in metadata is JSON text that nobody has decoded yet.
    `errors` flags records that a processor could not handle, by index; they keep their document.

    Batches are never changed once built; `with_…` and `take` make new ones that share what they can.
    """

    __slots__ = (
        "_columns",
        "_columns_json",
        "_docs",
        "_ndjson",
        "collection",
        "count",
        "errors",
        "ops",
        "shared",
    )

    collection: str
    count: int
    ops: bytes | None
    shared: Mapping[str, Any]
    errors: Mapping[int, RecordError] | None

    def __init__(
        self,
        collection: str,
        count: int,
        *,
        ndjson: bytes | memoryview | None = None,
        docs: Sequence[Document] | None = None,
        ops: bytes | None = None,
        shared: Mapping[str, Any] | None = None,
        columns: Mapping[str, Sequence[Any]] | None = None,
        columns_json: bytes | None = None,
        errors: Mapping[int, RecordError] | None = None,
    ) -> None:
        assert ndjson is not None or docs is not None, "a batch needs its documents"
        assert ops is None or len(ops) == count, "one operation a record"
        self.collection = collection
        self.count = count
        self.ops = ops
        self.shared = shared or {}
        self.errors = errors or None
        self._ndjson = ndjson
        self._docs = docs
        self._columns = columns
        self._columns_json = columns_json

    @classmethod
    def of_docs(cls, collection: str, docs: Sequence[Document], **rest: Any) -> Batch:
        """A batch of values."""
        return cls(collection, len(docs), docs=docs, **rest)

    @classmethod
    def of_lines(cls, collection: str, lines: Sequence[bytes], **rest: Any) -> Batch:
        """A batch of JSON texts without line ends. Each must be one JSON value on one line."""
        return cls(collection, len(lines), ndjson=b"\n".join(lines) + b"\n" if lines else b"", **rest)

    @property
    def ndjson(self) -> bytes:
        """The documents as JSON lines, each ended by a line feed."""
        if not isinstance(self._ndjson, bytes):
            if self._ndjson is None:
                assert self._docs is not None
                self._ndjson = encode_lines(self._docs)
            else:
                self._ndjson = bytes(self._ndjson)
        return self._ndjson

    @property
    def docs(self) -> Sequence[Document]:
        """The documents as values. Do not change them: other readers hold the same ones."""
        if self._docs is None:
            self._docs = decode_lines(self.ndjson)
            assert len(self._docs) == self.count, "as many documents as lines"
        return self._docs

    @property
    def has_marks(self) -> bool:
        """True when a record begins or ends a backfill."""
        return self.ops is not None and (BACKFILL in self.ops or SWEEP in self.ops)

    @property
    def has_docs(self) -> bool:
        """True when the values are at hand already, so that reading them costs nothing."""
        return self._docs is not None

    @property
    def has_columns(self) -> bool:
        """True when there is metadata that varies and it is at hand as values, a few times the size of its text."""
        return bool(self._columns)

    @property
    def has_ndjson(self) -> bool:
        """True when the bytes are at hand already."""
        return self._ndjson is not None

    def lines(self) -> list[bytes]:
        """The documents as JSON texts without line ends."""
        return self.ndjson[:-1].split(b"\n") if self.count else []

    @property
    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Metadata that varies from record to record."""
        if self._columns is None:
            self._columns = decode(self._columns_json) if self._columns_json else {}
        return self._columns

    @property
    def columns_json(self) -> bytes:
        """`columns` as one JSON object of arrays; empty when there are none."""
        if self._columns_json is None:
            self._columns_json = encode(self._columns) if self._columns else b""
        return self._columns_json

    @property
    def size(self) -> int:
        """Bytes this batch is charged for against budgets: documents, metadata, operations."""
        documents = len(self._ndjson) if self._ndjson is not None else len(self.ndjson)
        return documents + len(self.columns_json) + self.count

    def metadata(self, index: int) -> dict[str, Any]:
        """All metadata of one record, as a mapping sees it under `@`, but for `@operation`."""
        found = dict(self.shared)
        for name, values in self.columns.items():
            if values[index] is not None:
                found[name] = values[index]
        return found

    def op(self, index: int) -> int:
        """The operation of one record."""
        return self.ops[index] if self.ops is not None else CREATE

    def with_collection(self, collection: str) -> Batch:
        """The same records under another collection."""
        return self._copy(collection=collection)

    def with_docs(
        self, docs: Sequence[Document], *, errors: Mapping[int, RecordError] | None = None
    ) -> Batch:
        """As many other documents, with the same operations and metadata."""
        assert len(docs) == self.count
        return self._copy(docs=docs, ndjson=None, errors=errors)

    def with_meta(self, *, shared: Mapping[str, Any], columns: Mapping[str, Sequence[Any]]) -> Batch:
        """The same documents with other metadata."""
        return self._copy(shared=shared, columns=columns, columns_json=None)

    def with_errors(self, errors: Mapping[int, RecordError] | None) -> Batch:
        """The same records, flagged."""
        return self._copy(errors=errors)

    def take(self, keep: Sequence[int]) -> Batch:
        """The records at these indexes, which must rise."""
        if len(keep) == self.count:
            return self
        mask = bytearray(self.count)
        for index in keep:
            mask[index] = 1
        docs = list(compress(self._docs, mask)) if self._docs is not None else None
        ndjson = None
        if docs is None:
            ndjson = b"".join([line + b"\n" for line in compress(self.lines(), mask)])
        errors = None
        if self.errors:
            errors = {new: self.errors[old] for new, old in enumerate(keep) if old in self.errors}
        return self._copy(
            count=len(keep),
            docs=docs,
            ndjson=ndjson,
            ops=bytes(compress(self.ops, mask)) if self.ops is not None else None,
            columns={name: list(compress(values, mask)) for name, values in self.columns.items()},
            columns_json=None,
            errors=errors,
        )

    def parted(self, alone: Collection[int]) -> Iterator[Batch]:
        """The same records in batches, each record whose operation is in `alone` in one of its own."""
        start = 0
        for index, op in enumerate(self.ops or b""):
            if op in alone:
                if index > start:
                    yield self.take(range(start, index))
                yield self.take((index,))
                start = index + 1
        if start < self.count:
            yield self.take(range(start, self.count))

    def as_bytes(self) -> Batch:
        """The same records without their values, where their bytes are there as well."""
        return self._copy(docs=None) if self._docs is not None and self._ndjson is not None else self

    def pieces(self, bytes_max: int) -> list[Batch]:
        """The same records in batches of about this many bytes of documents, cut where a record ends."""
        ndjson = self._ndjson
        if ndjson is None or len(ndjson) <= bytes_max:
            return [self]
        text = self.ndjson
        found: list[Batch] = []
        start = first = 0
        while start < len(text):
            end = text.find(b"\n", min(start + bytes_max, len(text)) - 1) + 1 or len(text)
            count = text.count(b"\n", start, end)
            found.append(self._slice(first, first + count, text[start:end]))
            start, first = end, first + count
        return found

    def _slice(self, first: int, last: int, ndjson: bytes) -> Batch:
        errors = (
            {i - first: self.errors[i] for i in self.errors if first <= i < last} if self.errors else None
        )
        return self._copy(
            count=last - first,
            ndjson=ndjson,
            docs=self._docs[first:last] if self._docs is not None else None,
            ops=self.ops[first:last] if self.ops is not None else None,
            columns={name: values[first:last] for name, values in self.columns.items()},
            columns_json=None,
            errors=errors,
        )

    def arranged(self, order: Sequence[int]) -> Batch:
        """The same records in another order: `order` names each index once."""
        if list(order) == list(range(self.count)):
            return self
        lines = self.lines() if self._docs is None else []
        errors = (
            {new: self.errors[old] for new, old in enumerate(order) if old in self.errors}
            if self.errors
            else None
        )
        return self._copy(
            docs=[self._docs[i] for i in order] if self._docs is not None else None,
            ndjson=b"".join([lines[i] + b"\n" for i in order]) if self._docs is None else None,
            ops=bytes([self.ops[i] for i in order]) if self.ops is not None else None,
            columns={name: [values[i] for i in order] for name, values in self.columns.items()},
            columns_json=None,
            errors=errors,
        )

    def _copy(self, **changes: Any) -> Batch:
        fields: dict[str, Any] = {
            "collection": self.collection,
            "count": self.count,
            "ndjson": self._ndjson,
            "docs": self._docs,
            "ops": self.ops,
            "shared": self.shared,
            "columns": self._columns,
            "columns_json": self._columns_json,
            "errors": self.errors,
        }
        return Batch(**(fields | changes))

    def __repr__(self) -> str:
        return f"Batch({self.collection!r}, {self.count} records)"


def concat(batches: Sequence[Batch]) -> Batch:
    """One batch of many of the same collection, in order.

    Bytes are joined as bytes. Metadata that differs between batches becomes a column.
    """
    first = batches[0]
    if len(batches) == 1:
        return first
    assert all(batch.collection == first.collection for batch in batches)
    count = sum(batch.count for batch in batches)
    ops = None
    if any(batch.ops is not None for batch in batches):
        ops = b"".join(b.ops if b.ops is not None else b"c" * b.count for b in batches)
    alike = all(batch.shared == first.shared for batch in batches)
    names = dict.fromkeys(name for batch in batches for name in batch.columns)
    if not alike:
        for name in dict.fromkeys(name for batch in batches for name in batch.shared):
            value = first.shared.get(name)
            if any(b.shared.get(name) != value or name in b.columns for b in batches):
                names[name] = None
    columns = {name: [v for b in batches for v in _column(b, name)] for name in names}
    errors: dict[int, RecordError] = {}
    start = 0
    for batch in batches:
        for index, error in (batch.errors or {}).items():
            errors[start + index] = error
        start += batch.count
    # Values that have bytes beside them are let go: whoever still wants them is rarely there, and they are large.
    values = all(batch.has_docs for batch in batches) and not all(batch.has_ndjson for batch in batches)
    return Batch(
        first.collection,
        count,
        docs=[doc for batch in batches for doc in batch.docs] if values else None,
        ndjson=None if values else b"".join(batch.ndjson for batch in batches),
        ops=ops,
        shared={k: v for k, v in first.shared.items() if k not in names},
        columns=columns,
        errors=errors,
    )


def _column(batch: Batch, name: str) -> Sequence[Any]:
    values = batch.columns.get(name)
    return [batch.shared.get(name)] * batch.count if values is None else values


class Position(msgspec.Struct, frozen=True):
    """Where a source is resumed. Opaque to the engine; each capture subclasses it with its own fields.

    Stored as JSON inside the frame of the documents before it. Give new fields a default, so that a
    position written by an older version is still read.
    """

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, stored: bytes) -> Self:
        return msgspec.json.decode(stored, type=cls)


class Place(NamedTuple):
    """One frame of one journal: the epoch it was written in, and its sequence number in the journal."""

    epoch: int
    seq: int


class Cursor(msgspec.Struct, frozen=True):
    """How far a reader has read: for each journal the last frame it has wholly consumed.

    An absent journal means that nothing of it was read. Cursors of one reader only ever grow.
    """

    journals: dict[str, Place] = {}

    START: ClassVar[Cursor]

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, stored: bytes) -> Cursor:
        return msgspec.json.decode(stored, type=cls)

    def moved(self, journal: str, place: Place) -> Cursor:
        """This cursor with one journal read up to and including `place`."""
        return Cursor(self.journals | {journal: place})


Cursor.START = Cursor()
