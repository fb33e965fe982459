"""The `mapping` processor: a mapping over a collection, kept in step as a view.

The hard thing is change data capture. A delete has only its key, so only what depends on the key is
computed for it. An update that the mapping drops is a row that has left the view, so it becomes a
delete. And a column that an update did not touch is absent from it, so what was made of it is
left as it is in the destination, or refused when that would be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from msgspec import Meta

from hub.errors import RecordError
from hub.mapping.kinds import kind_of
from hub.options import MappingText
from hub.processor import Processor, Transform
from hub.record import ABOUT_ALL, DELETE, UPDATE, Batch, concat
from hub.schema import CollectionSchema, pointer, to_json_schema
from hub.schema.types import BOOLEAN, FLOAT64, STRING

if TYPE_CHECKING:
    from hub.mapping import Compiled

UNCHANGED = "unchanged"
"""The metadata that names the fields an update left alone."""

UNCHANGED_SETS_MAX = 256
"""Different sets of untouched columns that are kept ready. Tables have few; sources are hostile."""


class MappingProcessor(Processor, frozen=True, kw_only=True):
    """Transforms each document with a mapping, written in a language that is compatible with Bloblang.

    Over a collection with a key the result is a view: a record that the mapping drops with `deleted()` is
    not in it, and leaves it when an update makes the mapping drop it.
    """

    shorthand: ClassVar[str] = "mapping"

    mapping: Annotated[MappingText, Meta(description="The mapping.", examples=["root = this"])]

    def start(self, source: CollectionSchema) -> Transform:
        return MappingTransform(self._compiled, source)

    def warnings(self, source: CollectionSchema) -> Sequence[str]:
        return mapping_warnings(self.mapping, source)

    @cached_property
    def _compiled(self) -> Compiled:
        return self.mapping.compiled()


def mapping_warnings(text: MappingText, source: CollectionSchema) -> Sequence[str]:
    """What is odd about a mapping over documents of a known schema."""
    if source.is_open or not source.schema:
        return ()
    return [f"line {found.line}: {found.message}" for found in text.compiled(source.schema).warnings]


class _Partial(NamedTuple):
    """The mapping for updates that leave some columns alone: what can be computed, what stays, what cannot be."""

    compiled: Compiled
    stays: tuple[str, ...]
    impossible: str


class MappingTransform:
    """One mapping at work on one collection."""

    schema: CollectionSchema

    def __init__(self, compiled: Compiled, source: CollectionSchema) -> None:
        self._compiled = compiled
        self._key = source.key_fields
        self.schema = mapped_schema(compiled, source)
        self._partials: dict[frozenset[str], _Partial] = {}

    @cached_property
    def _of_key(self) -> Compiled:
        """The mapping as far as the key of a record suffices for it."""
        compiled, key = self._compiled, frozenset(self._key)
        written = {path[0] for path in compiled.writes if path}
        computable = [name for name in written if reads(compiled.project([name])) <= key]
        return compiled.project([*computable, *(name for name in key if compiled.source_of(name) == name)])

    def process(self, batch: Batch) -> Sequence[Batch]:
        ops = batch.ops
        untouched = batch.columns.get(UNCHANGED)
        if untouched is not None and any(untouched):
            return self._with_untouched(batch, untouched)
        if ops is None or not ops.strip(b"cr") or (not self._key and ABOUT_ALL.isdisjoint(ops)):
            return [self._compiled.run(batch)]
        aside = ABOUT_ALL | {DELETE} if self._key else ABOUT_ALL
        rows = [index for index, op in enumerate(ops) if op not in aside]
        mapped, kept = self._compiled.run_indexed(batch.take(rows))
        kept = [rows[index] for index in kept]
        gone = self._gone(ops, kept) if self._key else []
        if not gone and len(rows) == batch.count:
            return [mapped]
        whole = [index for index, op in enumerate(ops) if op in ABOUT_ALL]
        parts = [(mapped, kept), (self._removed(batch.take(gone)), gone), (batch.take(whole), whole)]
        return [in_order([(part, indexes) for part, indexes in parts if part.count])]

    def _gone(self, ops: bytes, kept: Sequence[int]) -> list[int]:
        """Deletes, and updates that the mapping has dropped."""
        still = set(kept)
        return [i for i, op in enumerate(ops) if op == DELETE or (op == UPDATE and i not in still)]

    def _removed(self, batch: Batch) -> Batch:
        """A delete of each record's key, as the view has it. A mapping that cannot tell the key flags the record."""
        if not batch.count:
            return batch
        mapped, kept = self._of_key.run_indexed(batch)
        found: list[Any] = [None] * batch.count
        for place, index in enumerate(kept):
            if not mapped.errors or place not in mapped.errors:
                found[index] = mapped.docs[place]
        errors = {}
        for index, doc in enumerate(batch.docs):
            if not isinstance(found[index], dict):
                found[index] = {
                    name: doc.get(source)
                    for name in self.schema.key_fields
                    if (source := self._compiled.source_of(name))
                }
            if not all(found[index].get(name) is not None for name in self.schema.key_fields):
                found[index] = doc
                errors[index] = RecordError(
                    "a row has left the source, and the mapping does not tell its key from what is known of it; "
                    f"copy the key's fields ({', '.join(self._key)}) or compute them from the key alone"
                )
        removed = batch.with_docs(found, errors=errors)
        return Batch(
            removed.collection,
            removed.count,
            docs=found,
            ops=bytes([DELETE]) * removed.count,
            shared=mapped.shared if len(kept) == batch.count else batch.shared,
            columns=mapped.columns if len(kept) == batch.count else batch.columns,
            errors=errors,
        )

    def _with_untouched(self, batch: Batch, untouched: Sequence[Any]) -> Sequence[Batch]:
        """Updates that leave columns alone, apart from the others, and in order."""
        found: list[Batch] = []
        start = 0
        while start < batch.count:
            names = untouched[start]
            end = start + 1
            while end < batch.count and untouched[end] == names:
                end += 1
            part = batch.take(range(start, end))
            if names:
                found += self._partly(part, frozenset(names))
            else:
                columns = {name: values for name, values in part.columns.items() if name != UNCHANGED}
                found += self.process(part.with_meta(shared=part.shared, columns=columns))
            start = end
        return found

    def _partly(self, batch: Batch, names: frozenset[str]) -> Sequence[Batch]:
        partial = self._partial(names)
        if partial.impossible:
            error = RecordError(partial.impossible)
            return [batch.with_errors(dict.fromkeys(range(batch.count), error))]
        columns = {name: values for name, values in batch.columns.items() if name != UNCHANGED}
        plain = batch.with_meta(shared=batch.shared, columns=columns)
        transform = MappingTransform(partial.compiled, CollectionSchema(batch.collection, self.key_pointers))
        return [
            made.with_meta(
                shared=made.shared,
                columns=dict(made.columns) | {UNCHANGED: [list(partial.stays)] * made.count},
            )
            for made in transform.process(plain)
        ]

    @property
    def key_pointers(self) -> tuple[str, ...]:
        return tuple(pointer(name) for name in self._key)

    def _partial(self, names: frozenset[str]) -> _Partial:
        found = self._partials.get(names)
        if found is None:
            if len(self._partials) >= UNCHANGED_SETS_MAX:
                self._partials.clear()
            found = self._partials[names] = partial_mapping(self._compiled, names, frozenset(self._key))
        return found


def reads(compiled: Compiled) -> frozenset[str]:
    """The top-level fields that a mapping reads; `*` stands for the whole document."""
    return frozenset(path[0] if path else "*" for path in compiled.reads)


def partial_mapping(compiled: Compiled, names: frozenset[str], key: frozenset[str]) -> _Partial:
    """What a mapping comes to when these source fields are absent because nobody touched them.

    An output field stays as it is when all it is made of is untouched or key. One that mixes untouched and
    touched fields cannot be computed, nor can a condition on an untouched field.
    """
    copies_rest = () in compiled.writes
    written = sorted({path[0] for path in compiled.writes if path})
    fine, stays = [], [name for name in sorted(names) if copies_rest and compiled.source_of(name) == name]
    for name in written:
        used = reads(compiled.project([name])) - {"*"}
        if not used & names:
            fine.append(name)
        elif used <= names | key:
            stays.append(name)
        else:
            return _Partial(compiled, (), _impossible(name, used & names))
    flow = compiled.project([])
    if (reads(flow) - {"*"}) & names:
        return _Partial(compiled, (), _impossible("the record itself", (reads(flow) - {"*"}) & names))
    return _Partial(compiled.project(fine) if stays else compiled, tuple(dict.fromkeys(stays)), "")


def _impossible(what: str, names: frozenset[str]) -> str:
    return (
        f"{what!r} is computed from {', '.join(sorted(names))}, which the source left out because the update did not "
        "touch it; set REPLICA IDENTITY FULL on the table"
    )


def mapped_schema(compiled: Compiled, source: CollectionSchema) -> CollectionSchema:
    """The schema of what comes out: types of copied fields carry over, computed ones are learnt from records."""
    given: dict[str, Any] = source.schema.get("properties", {})
    written = {path[0]: None for path in compiled.writes if path}
    copies_rest = () in compiled.writes or not compiled.writes
    names = list(dict.fromkeys([*(given if copies_rest else ()), *written]))
    origin = {name: compiled.source_of(name) for name in names}
    properties = {name: given[src] for name, src in origin.items() if src in given}
    for name in written:
        if origin[name] is None and (kind := kind_of(compiled.mapping, name)):
            properties[name] = to_json_schema(_TYPES[kind])
    computed = copies_rest and source.is_open
    computed = computed or any(name not in properties for name in names)
    key = [
        next((name for name in [field, *names] if compiled.source_of(name) == field), None)
        for field in source.key_fields
    ]
    required = [name for name in properties if origin.get(name) in source.schema.get("required", ())]
    schema = {"type": "object", "properties": properties, "required": required} if properties else {}
    pointers = tuple(pointer(name) for name in key if name is not None)
    return CollectionSchema(
        source.collection, pointers if len(pointers) == len(source.key) else (), schema, computed or not given
    )


_TYPES = {"boolean": BOOLEAN, "number": FLOAT64, "string": STRING}


def in_order(parts: Sequence[tuple[Batch, Sequence[int]]]) -> Batch:
    """Parts of one batch put together again in the order of the indexes their records had."""
    whole = concat([part for part, _ in parts])
    indexes = [index for _, indexes in parts for index in indexes]
    return whole.arranged(sorted(range(whole.count), key=indexes.__getitem__))
