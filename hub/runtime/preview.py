"""What a configuration would do, worked out without doing it: `hub plan`.

Sources are asked what they hold, the schemas are taken through derivations and bindings just as the
runtime takes them, and destinations are asked what they would change.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hub.capture import Discovered
from hub.catalog import CaptureTask, Catalog, MaterializationTask
from hub.errors import HubError
from hub.log import DURABILITY_TEXT
from hub.materialization import Binding
from hub.record import Batch
from hub.runtime.stage import Outcome
from hub.runtime.tree import Trees
from hub.schema import CollectionSchema


class CapturePlan(msgspec.Struct, frozen=True):
    """What a capture would read. `problem` is why that could not be found out."""

    task: str
    connector: str
    collections: tuple[Discovered, ...] = ()
    problem: str = ""


class MaterializationPlan(msgspec.Struct, frozen=True):
    """What a materialization promises, what would go where, and what would be changed for it."""

    task: str
    connector: str
    delivery: str
    routes: tuple[tuple[str, str], ...] = ()
    statements: tuple[str, ...] = ()
    problem: str = ""


class Plan(msgspec.Struct, frozen=True):
    """All of it."""

    log: str
    durability: str
    captures: tuple[CapturePlan, ...]
    materializations: tuple[MaterializationPlan, ...]
    warnings: tuple[str, ...] = ()

    @property
    def problems(self) -> list[str]:
        found = [(plan.task, plan.problem) for plan in self.captures]
        found += [(plan.task, plan.problem) for plan in self.materializations]
        return [f"{task}: {problem}" for task, problem in found if problem]


async def preview(catalog: Catalog) -> Plan:
    """Ask every source and destination, changing nothing."""
    captures = [await _capture(task) for task in catalog.captures.values()]
    discovered = [found for capture in captures for found in capture.collections]
    sinks = [await _materialization(catalog, task, discovered) for task in catalog.materializations.values()]
    return Plan(
        str(catalog.log_path),
        DURABILITY_TEXT[catalog.log.durability],
        tuple(captures),
        tuple(sinks),
        warnings_of(catalog, discovered),
    )


async def _capture(task: CaptureTask) -> CapturePlan:
    try:
        found = await task.capture.discover(task.name)
    except HubError as error:
        return CapturePlan(task.name, task.connector, problem=str(error))
    return CapturePlan(task.name, task.connector, tuple(found))


async def _materialization(
    catalog: Catalog, task: MaterializationTask, discovered: Sequence[Discovered]
) -> MaterializationPlan:
    delivery = task.materialization.delivery
    bound = bindings_of(catalog, task, discovered)
    routes = tuple((binding.collection, binding.target) for binding, _ in bound)
    try:
        statements = tuple(await task.materialization.plan(task.name, bound))
    except HubError as error:
        return MaterializationPlan(task.name, task.connector, delivery, routes, problem=str(error))
    return MaterializationPlan(task.name, task.connector, delivery, routes, statements)


def warnings_of(catalog: Catalog, discovered: Sequence[Discovered]) -> tuple[str, ...]:
    """What looks wrong in derivations that read a discovered collection."""
    return tuple(
        f"{derivation.name}, reading {found.schema.collection}: {warning}"
        for derivation in catalog.derivations.values()
        for found in discovered
        if derivation.sources.matches(found.schema.collection)
        for warning in derivation.processors[0].processor.warnings(found.schema)
    )


def bindings_of(
    catalog: Catalog, task: MaterializationTask, discovered: Sequence[Discovered]
) -> list[tuple[Binding, CollectionSchema]]:
    """Where each collection would go, and with which schema, as far as it is known before the first record."""
    trees = Trees(catalog, task)
    outcome = Outcome()
    for found in discovered:
        trees.restart(found.schema)
        # A truncate is the one record that every mapping lets pass untouched.
        trees.run(Batch.of_docs(found.schema.collection, [{}], ops=b"t", shared=found.metadata), outcome)
    return [(binding, work) for binding, work in outcome.work if isinstance(work, CollectionSchema)]
