"""What has to be read again from the sources so that a destination is filled anew: `hub backfill`.

Captures put the rows between the marks of a backfill into the log, and every destination that can sweep does.
So there is nothing to keep here: the request is in the source, how far it has come in the log, and what was
seen of it in the destination.
"""

from __future__ import annotations

from collections.abc import Sequence

from hub.capture import Discovered
from hub.catalog import Catalog, MaterializationTask, Sources
from hub.errors import FatalError
from hub.record import Batch
from hub.runtime.stage import Outcome
from hub.runtime.tree import Trees

Parts = dict[str, list[str]]
"""By capture, the parts of its source, such as tables."""


async def parts_of_materialization(
    catalog: Catalog, task: MaterializationTask, names: Sequence[str]
) -> tuple[Parts, list[str]]:
    """What to ask the captures to read again for these targets or collections of a materialization, none meaning
    all; and what cannot be swept after. FatalError when a name means nothing in it."""
    parts: Parts = {}
    unswept: dict[str, str] = {}
    missing = set(names)
    for capture in catalog.captures.values():
        for found in await capture.capture.discover(capture.name):
            outcome, known = routes(catalog, task, found)
            hit = {name for name in names if Sources(name).matches(found.schema.collection) or name in known}
            missing -= hit
            if known and (hit or not names):
                parts.setdefault(capture.name, []).append(part_of(found))
                unswept |= outcome.unswept
    if missing:
        raise FatalError(
            f"{task.name}: no target or collection of it is called {', '.join(sorted(missing))}; `hub plan` lists them"
        )
    return parts, [f"{what}: {why}" for what, why in unswept.items()]


def routes(catalog: Catalog, task: MaterializationTask, found: Discovered) -> tuple[Outcome, set[str]]:
    """Where a collection goes in a materialization: the names of what is made of it, and of the targets."""
    trees = Trees(catalog, task)
    outcome = Outcome()
    trees.restart(found.schema)
    for op in (b"t", b"b"):
        trees.run(Batch.of_docs(found.schema.collection, [{}], ops=op, shared=found.metadata), outcome)
    return outcome, {
        name for binding, _ in outcome.work for name in (binding.target, binding.collection) if name
    }


def part_of(found: Discovered) -> str:
    """What the source calls a collection."""
    metadata = found.metadata
    if "schema" in metadata and "table" in metadata:
        return f"{metadata['schema']}.{metadata['table']}"
    return found.schema.collection.partition("/")[2] or found.schema.collection
