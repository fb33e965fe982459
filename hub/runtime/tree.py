"""Which derivations and bindings each source collection goes through.

Bindings name their sources by glob, so the trees are grown when a collection first appears in the
log, and kept. Growing is pure: catalog and name in, tree out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.catalog import Catalog, DerivationTask, MaterializationTask
from hub.materialization import BindingSpec
from hub.record import Batch
from hub.runtime.stage import Leaf, Node, Outcome, renamed
from hub.schema import CollectionSchema

if TYPE_CHECKING:
    from hub.mapping import Compiled

COLLECTIONS_MAX = 100_000
"""Collections that one materialization may read. Names come from sources, and sources are hostile."""


class Trees:
    """The trees of one materialization, by source collection."""

    def __init__(self, catalog: Catalog, task: MaterializationTask) -> None:
        self._catalog = catalog
        self._task = task
        self._targets = [
            target.compiled() if (target := rule.options.target) is not None else None
            for rule in task.bindings
        ]
        self._roots: dict[str, Node | None] = {}

    def wants(self, collection: str) -> bool:
        """True when the materialization reads this collection, directly or through derivations."""
        return self._root(collection) is not None

    def restart(self, schema: CollectionSchema) -> None:
        """A collection's schema from here on."""
        root = self._root(schema.collection)
        if root is not None:
            root.restart(self._keyed(schema))

    def run(self, batch: Batch, outcome: Outcome) -> None:
        """Process one batch; what is to be written is added to the outcome."""
        root = self._root(batch.collection)
        if root is not None:
            root.run(batch, outcome)

    def forget(self) -> None:
        """The sink was opened anew: nothing is described, and the log will state all schemas again."""
        self._roots.clear()

    def describe_again(self) -> None:
        """What was described was not written: state every target's schema before its next record."""
        for root in self._roots.values():
            if root is not None:
                root.forget()

    def _root(self, collection: str) -> Node | None:
        if collection not in self._roots:
            if len(self._roots) >= COLLECTIONS_MAX:
                self._roots.clear()
            root = grown(self._catalog, self._task, collection, self._targets)
            if root is not None:
                root.restart(self._keyed(CollectionSchema(collection, is_open=True)))
            self._roots[collection] = root
        return self._roots[collection]

    def _keyed(self, schema: CollectionSchema) -> CollectionSchema:
        return renamed(schema, schema.collection, self._catalog.key_of(schema.collection))


def grown(
    catalog: Catalog, task: MaterializationTask, collection: str, targets: list[Compiled | None]
) -> Node | None:
    """The tree of one collection, or None when the materialization does not read it."""

    def leaves(name: str, *, mixed: bool) -> list[Leaf]:
        return [
            Leaf(
                rule.options,
                target,
                needs_schema=task.materialization.needs_schema,
                sweeps=task.materialization.sweeps,
                shared=mixed or (is_fixed(rule.options) and rule.sources.may_be_several),
            )
            for rule, target in zip(task.bindings, targets, strict=True)
            if rule.sources.matches(name)
        ]

    def node(derivation: DerivationTask | None, name: str, *, mixed: bool) -> Node:
        children = [
            node(child, child.name, mixed=mixed or child.sources.may_be_several)
            for child in catalog.derivations.values()
            if child.sources.matches(name)
        ]
        return Node(derivation, [c for c in children if c.children or c.leaves], leaves(name, mixed=mixed))

    root = node(None, collection, mixed=False)
    return root if root.children or root.leaves else None


def is_fixed(options: BindingSpec) -> bool:
    """Whether a binding writes to one target, whatever its records say."""
    return options.target is not None and "${!" not in str(options.target)
