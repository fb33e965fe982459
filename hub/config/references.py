"""What the parts of a configuration say of each other: sources, cycles, targets, names.

Names are taken from the file, not from what could be read of it, so that one mistake in a capture
does not make every binding that reads it a mistake too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hub.catalog import DEAD_LETTERS, Catalog, Sources, is_glob
from hub.config.document import Document, value_of
from hub.config.document import Sequence as Listed
from hub.nearest import meant_or_known
from hub.options import unwritten
from hub.spec import Path

_TASKS = ("captures", "materializations")
_PRODUCERS = ("captures", "derivations")
_NAMED = ("captures", "derivations", "materializations")


def check_references(catalog: Catalog, document: Document) -> None:
    """Report every reference that cannot be followed."""
    for path, message in (
        *_shared_names(document),
        *_unknown_sources(document),
        *_unknown_collections(catalog, document),
        *_cycles(catalog),
        *_circling_dead_letters(catalog),
        *_shared_targets(catalog),
    ):
        at_name = path[-1] != "from" and not isinstance(path[-1], int)
        document.report(document.place(path, at_name=at_name), message)


def _shared_names(document: Document) -> Iterator[tuple[Path, str]]:
    seen: dict[str, str] = {}
    for section in _NAMED:
        for name in document.names((section,)):
            if name in seen:
                place = document.place((seen[name], name), at_name=True)
                message = (
                    f"{name!r} is in {seen[name]} too (line {place[0]}); every task needs a name of its own"
                )
                yield (section, name), message
            seen.setdefault(name, section)


def _readers(document: Document) -> Iterator[tuple[Path, Sources]]:
    """Every `from` of the file, also where something else beside it is wrong."""
    paths: list[Path] = [("derivations", name, "from") for name in document.names(("derivations",))]
    for task in document.names(("materializations",)):
        bindings = document.node(("materializations", task, "bindings"))
        if isinstance(bindings, Listed):
            paths += [("materializations", task, "bindings", i, "from") for i in range(len(bindings.items))]
    for path in paths:
        written = unwritten(value_of(document.node(path)))
        if isinstance(written, str) or (
            isinstance(written, list) and all(isinstance(i, str) for i in written)
        ):
            yield path, Sources(written)


def _unknown_sources(document: Document) -> Iterator[tuple[Path, str]]:
    known = {name: section for section in _PRODUCERS for name in document.names((section,))}
    tasks = [name for section in _TASKS for name in document.names((section,))]
    for path, sources in _readers(document):
        listed = isinstance(document.node(path), Listed)
        for index, pattern in enumerate(sources.patterns):
            if message := _unknown(pattern.removeprefix("!"), known, tasks):
                yield (*path, index) if listed else path, message
        if not any(not pattern.startswith("!") for pattern in sources.patterns):
            yield path, "names no collection to read"


def _unknown(pattern: str, known: Mapping[str, str], tasks: Iterable[str]) -> str:
    """Why a pattern can match nothing, or nothing to say."""
    head, slash, rest = pattern.partition("/")
    if not pattern or (slash and not rest):
        return f"{pattern!r} names no collection"
    if head == DEAD_LETTERS:
        if not slash or not (is_glob(rest) or rest in tasks):
            return (
                f"{pattern!r}: no capture or materialization is called {rest!r}{meant_or_known(rest, tasks)}"
            )
        return ""
    if "**" in head:
        return ""
    if is_glob(head):
        matching = [name for name in known if Sources(head).matches(name)]
        return "" if matching else f"{pattern!r} matches no capture or derivation{meant_or_known('', known)}"
    if head not in known:
        return f"{pattern!r}: no capture or derivation is called {head!r}{meant_or_known(head, known)}"
    if slash and known[head] == "derivations":
        return f"{pattern!r}: {head!r} is a derivation, which is one collection; read it as {head!r}"
    return ""


def _unknown_collections(catalog: Catalog, document: Document) -> Iterator[tuple[Path, str]]:
    known = {name: section for section in _PRODUCERS for name in document.names((section,))}
    tasks = [name for section in _TASKS for name in document.names((section,))]
    for name in document.names(("collections",)):
        if is_glob(name):
            yield ("collections", name), f"{name!r}: a collection is named in full here, without wildcards"
        elif message := _unknown(name, known, tasks):
            yield ("collections", name), message
        elif name in catalog.collections and name in catalog.derivations:
            both = catalog.collections[name].key is not None and catalog.derivations[name].key is not None
            if both:
                yield (
                    ("collections", name, "key"),
                    f"the derivation {name!r} has a key of its own; keep one of them",
                )


def _cycles(catalog: Catalog) -> Iterator[tuple[Path, str]]:
    for loop in _loops(_derivations_read(catalog)):
        yield ("derivations", loop[0], "from"), f"derivations read each other in a circle: {' ← '.join(loop)}"


def _circling_dead_letters(catalog: Catalog) -> Iterator[tuple[Path, str]]:
    """Tasks that would read what they set aside, themselves or by way of others: one bad record would circle for ever."""
    letters = {f"{DEAD_LETTERS}/{task}": str(task) for task in catalog.materializations}
    derived = _derivations_read(catalog)
    reads: dict[str, list[str]] = {}
    for task, materialization in catalog.materializations.items():
        sources = [rule.sources for rule in materialization.bindings]
        pending = [name for source in sources for name in matching(source, catalog.derivations)]
        seen: set[str] = set()
        while pending:
            if (name := pending.pop()) not in seen:
                seen.add(name)
                sources.append(catalog.derivations[name].sources)
                pending += derived[name]
        reads[task] = [letters[name] for source in sources for name in matching(source, letters)]
    for loop in _loops(reads):
        message = "would read what it has set aside itself; let another task read it"
        through = f" (by way of {' ← '.join(loop)})" if len(loop) > 2 else ""
        yield ("materializations", loop[0], "bindings"), f"{loop[0]!r} {message}{through}"


def _derivations_read(catalog: Catalog) -> Mapping[str, Sequence[str]]:
    return {name: matching(d.sources, catalog.derivations) for name, d in catalog.derivations.items()}


def matching(sources: Sources, names: Mapping[str, Any]) -> Sequence[str]:
    """The names that sources match. Exact names are looked up, since configs may hold thousands of them."""
    if any(is_glob(pattern) or pattern.startswith("!") for pattern in sources.patterns):
        return [name for name in names if sources.matches(name)]
    return [pattern for pattern in sources.patterns if pattern in names]


def _loops(edges: Mapping[str, Iterable[str]]) -> Iterator[list[str]]:
    """Each loop of a graph once, from a node around to itself, found by walking down from every node not yet walked."""
    done: set[str] = set()
    for start in edges:
        trail: list[str] = []
        pending = [(start, 0)]
        while pending:
            name, depth = pending.pop()
            del trail[depth:]
            if name in trail:
                yield [*trail[trail.index(name) :], name]
            elif name not in done:
                done.add(name)
                trail.append(name)
                pending += [(other, depth + 1) for other in edges[name]]


_QUERY = re.compile(r"\$\{!")


def _shared_targets(catalog: Catalog) -> Iterator[tuple[Path, str]]:
    for task, materialization in catalog.materializations.items():
        seen: dict[str, int] = {}
        for index, rule in enumerate(materialization.bindings):
            target = rule.options.target
            if not target or _QUERY.search(target):
                continue
            if target in seen:
                yield (
                    ("materializations", task, "bindings", index),
                    f"binding {seen[target] + 1} already goes into {str(target)!r}; list both sources in one 'from', "
                    "or choose another target",
                )
            seen.setdefault(str(target), index)
