"""Processors at work on one collection: transform, apply error policies, learn the schema, route.

A stateless derivation is a view that runs inside whoever reads it. So a materialization unrolls each
collection into a tree: its derivations as inner nodes, its bindings as leaves. A derivation that
several bindings read is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hub import cdc
from hub.catalog import DerivationTask, Step
from hub.errors import FatalError, RecordError
from hub.materialization import Binding, BindingSpec, ErrorPolicy
from hub.processor import Transform
from hub.record import ABOUT_ALL, MARKS, TRUNCATE, Batch, concat
from hub.schema import CollectionSchema, ColumnType, describe, widened

if TYPE_CHECKING:
    from hub.mapping import Compiled

TARGETS_MAX = 10_000
"""Tables, topics or paths that one binding may route to. Documents are hostile: more is a mistake."""


PIECE_BYTES = 32 << 10
"""Batches are processed in pieces of this size, whose values stay in the processor's cache: the reference mapping
takes 2.1 µs a record in pieces of 128 records, 2.7 µs in pieces of 512 (bench/mapping.py)."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One record that was set aside, with the document as the failing component got it."""

    batch: Batch
    index: int
    error: RecordError
    component: str


@dataclass(slots=True)
class Outcome:
    """What a chunk of records became: in order, schemas to describe and batches to write."""

    work: list[tuple[Binding, CollectionSchema | Batch]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skipped: int = 0
    unswept: dict[str, str] = field(default_factory=dict)
    """What cannot be swept after a backfill, with the reason."""
    unmarked: dict[str, str] = field(default_factory=dict)
    """Collections that go into targets which only grow, and which nobody can name ahead."""

    def writes(self) -> list[tuple[Binding, CollectionSchema | Batch]]:
        """The work with the batches of one binding put together, as far as no schema or mark of it stands between:
        a destination pays for every call."""
        groups: list[tuple[Binding, list[Batch] | CollectionSchema]] = []
        # Leaves keep one object a binding, so its identity tells it from others.
        open_groups: dict[int, list[Batch]] = {}
        for binding, work in self.work:
            if isinstance(work, CollectionSchema):
                open_groups.pop(id(binding), None)
                groups.append((binding, work))
            elif work.has_marks:
                open_groups.pop(id(binding), None)
                groups.append((binding, [work]))
            elif id(binding) in open_groups:
                open_groups[id(binding)].append(work)
            else:
                open_groups[id(binding)] = fresh = [work]
                groups.append((binding, fresh))
        return [(binding, concat(work) if isinstance(work, list) else work) for binding, work in groups]


@dataclass(slots=True)
class Node:
    """A derivation in the tree of one source collection, or its root, which derives nothing."""

    derivation: DerivationTask | None
    children: list[Node]
    leaves: list[Leaf]
    chain: list[tuple[Step, Transform]] = field(default_factory=list)

    def restart(self, schema: CollectionSchema) -> None:
        """Begin again with this schema of what comes in."""
        if self.derivation is not None:
            self.chain = []
            for step in self.derivation.processors:
                transform = step.processor.start(schema)
                schema = transform.schema
                self.chain.append((step, transform))
            schema = renamed(schema, self.derivation.name, self.derivation.key)
        for leaf in self.leaves:
            leaf.restart(schema)
        for child in self.children:
            child.restart(schema)

    def run(self, batch: Batch, outcome: Outcome) -> None:
        """Take one batch of what comes in down to the leaves."""
        pieces: Sequence[Batch] = batch.pieces(PIECE_BYTES) if self.chain else [batch]
        for piece in pieces:
            for made in self._derived(piece, outcome):
                for leaf in self.leaves:
                    leaf.run(made, outcome, alone=len(pieces) == 1)
                for child in self.children:
                    child.run(made, outcome)

    def forget(self) -> None:
        """Describe every target again."""
        for leaf in self.leaves:
            leaf.forget()
        for child in self.children:
            child.forget()

    def _derived(self, batch: Batch, outcome: Outcome) -> Sequence[Batch]:
        batches = [batch]
        for step, transform in self.chain:
            batches = [
                settled(made, step.on_error, f"{self._name()}.{step.name}", outcome)
                for taken in batches
                for made in transform.process(taken)
            ]
            batches = [made for made in batches if made.count]
        if self.derivation is not None:
            batches = [made.with_collection(self.derivation.name) for made in batches]
        return batches

    def _name(self) -> str:
        return self.derivation.name if self.derivation is not None else ""


class Leaf:
    """One binding's end of the tree of one source collection: schema and route of what is written."""

    def __init__(
        self,
        options: BindingSpec,
        target: Compiled | None,
        *,
        needs_schema: bool,
        sweeps: bool = False,
        shared: bool = False,
    ) -> None:
        self._options = options
        self._target = target
        self._needs_schema = needs_schema
        self._sweeps = sweeps
        self._shared = shared
        """Others may write to the same place, whose rows a sweep would take for gone and a truncation would take along."""
        self._schema = CollectionSchema("")
        self._columns: dict[str, ColumnType] = {}
        self._bindings: dict[str, Binding] = {}
        self._described: dict[str, CollectionSchema] = {}

    def restart(self, schema: CollectionSchema) -> None:
        self._schema = schema
        known = listed(self._schema)
        learnt = {name: column for name, column in self._columns.items() if name not in known}
        self._columns = known | (learnt if self._schema.is_open else {})
        if learnt and self._schema.is_open:
            self._schema = self._with_columns()

    def run(self, batch: Batch, outcome: Outcome, *, alone: bool = True) -> None:
        """Take a batch. One that is a piece of many is kept as bytes: it will be joined with others as bytes, and
        its values would only wait in memory until then."""
        if batch.has_marks:
            anew = self._is_anew(batch)
            for part in batch.parted(MARKS):
                if not part.has_marks or (self._sweeps and (anew or not self._shared)):
                    self._run(part, outcome, alone=alone)
                elif self._sweeps:
                    place = f"{batch.collection} into {self._options.target}"
                    outcome.unswept[place] = "several collections are written there"
        else:
            self._run(batch, outcome, alone=alone)

    def _run(self, batch: Batch, outcome: Outcome, *, alone: bool) -> None:
        if self._shared and self._options.is_emptied and batch.ops is not None and TRUNCATE in batch.ops:
            batch = self._without_truncates(batch, outcome)
            if not batch.count:
                return
        if self._needs_schema and self._schema.is_open:
            self._learn(batch)
        for target, routed in self._routed(batch, outcome):
            binding = self._binding(target, batch.collection)
            if self._described.get(target) != self._schema:
                outcome.work.append((binding, self._schema))
                self._described[target] = self._schema
            outcome.work.append((binding, routed if alone else routed.as_bytes()))

    def _is_anew(self, batch: Batch) -> bool:
        """Whether these are marks of a reading of the whole log, which a target that only grows must hear of."""
        return self._options.is_made_anew and cdc.FROM_LOG in batch.shared

    def _without_truncates(self, batch: Batch, outcome: Outcome) -> Batch:
        """Nobody knows whose a row is, so what is truncated stays, and somebody is told."""
        assert batch.ops is not None
        place = self._options.target
        error = RecordError(
            f"a truncation of {batch.collection} would empty {place}, into which several collections are written; "
            "remove the rows that are gone there by hand, or give each collection a table of its own",
            component="truncate",
        )
        truncates = {index: error for index, op in enumerate(batch.ops) if op == TRUNCATE}
        return settled(batch.with_errors(truncates), self._options.on_error, "truncate", outcome)

    def forget(self) -> None:
        """Describe every target again."""
        self._described.clear()

    def _learn(self, batch: Batch) -> None:
        docs = batch.docs
        if batch.ops is not None and not ABOUT_ALL.isdisjoint(batch.ops):
            docs = [doc for doc, op in zip(docs, batch.ops, strict=True) if op not in ABOUT_ALL]
        changed = widened(self._columns, [doc for doc in docs if isinstance(doc, dict)])
        if changed is not None:
            self._columns = changed
            self._schema = self._with_columns()

    def _with_columns(self) -> CollectionSchema:
        return describe(self._schema.collection, self._columns, self._schema.key_fields, is_open=True)

    def _routed(self, batch: Batch, outcome: Outcome) -> Sequence[tuple[str, Batch]]:
        if self._target is None:
            return [("", batch)]
        found = self._target.resolve(batch)
        if isinstance(found, str):
            return [(found, batch)]
        failed = {index: value for index, value in enumerate(found) if isinstance(value, RecordError)}
        if failed and batch.has_marks and self._is_anew(batch):
            outcome.unmarked[batch.collection] = str(self._options.target)
        if failed and batch.has_marks:
            place = f"{batch.collection} into {self._options.target}"
            outcome.unswept[place] = f"its documents say where they go: {failed[0].reason}"
            return []
        if failed:
            keep = [index for index in range(batch.count) if index not in failed]
            settled(batch.with_errors(failed), self._options.on_error, "route", outcome)
            return self._grouped(batch.take(keep), [str(found[index]) for index in keep])
        return self._grouped(batch, [str(value) for value in found])

    def _grouped(self, batch: Batch, targets: Sequence[str]) -> Sequence[tuple[str, Batch]]:
        groups: dict[str, list[int]] = {}
        for index, target in enumerate(targets):
            groups.setdefault(target, []).append(index)
        return [(target, batch.take(indexes)) for target, indexes in groups.items()]

    def _binding(self, target: str, collection: str) -> Binding:
        found = self._bindings.get(target)
        if found is None:
            if len(self._bindings) >= TARGETS_MAX:
                raise FatalError(
                    f"a binding of {collection!r} routes to more than {TARGETS_MAX} targets, the next is {target!r}; "
                    "look at the expression that names its target"
                )
            found = self._bindings[target] = Binding(collection, target, self._options)
        return found


def settled(batch: Batch, policy: ErrorPolicy, component: str, outcome: Outcome) -> Batch:
    """The records of a batch that did not fail; the others are dealt with as the policy says."""
    if not batch.errors:
        return batch
    if policy == "stop":
        index, error = next(iter(batch.errors.items()))
        raise FatalError(
            f"{component}: record {index} of {batch.collection!r}: {error.reason} (on_error: stop)"
        )
    if policy == "skip":
        outcome.skipped += len(batch.errors)
    else:
        outcome.failures += [
            Failure(batch, index, error, error.component or component)
            for index, error in batch.errors.items()
        ]
    keep = [index for index in range(batch.count) if index not in batch.errors]
    return batch.take(keep).with_errors(None)


def listed(schema: CollectionSchema) -> dict[str, ColumnType]:
    """The fields whose types the schema states; a key field that it only names is still to be learnt."""
    stated = schema.schema.get("properties", {})
    return {column.name: column.type for column in schema.columns() if column.name in stated}


def renamed(schema: CollectionSchema, collection: str, key: tuple[str, ...] | None) -> CollectionSchema:
    """The same schema under another name and, where one is given, with another key."""
    return CollectionSchema(collection, schema.key if key is None else key, schema.schema, schema.is_open)
