"""The native dialect: `captures`, `collections`, `derivations`, `materializations`, `log`, `server`.

Reads the tree of a file into a catalog. Nothing stops at the first mistake: every part is read on
its own and reports what is wrong with it, and what could be read takes part in the checks of references.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from hub.catalog import (
    DEAD_LETTERS,
    BindingRule,
    CaptureTask,
    Catalog,
    CollectionOptions,
    DerivationTask,
    LogSection,
    MaterializationTask,
    ServerSection,
    Sources,
    Step,
)
from hub.config.document import Document, Place, Scalar, Sequence, Table, value_of
from hub.config.references import check_references
from hub.errors import Severity
from hub.materialization import Commit, ErrorPolicy, Materialization
from hub.nearest import meant_or_known
from hub.processor import Processor
from hub.record import TaskName
from hub.redaction import Redactor, secrets_of
from hub.registry import Kind, Unavailable, connector, entries
from hub.spec import Path as OptionPath
from hub.spec import Spec, fields_of

SECTIONS = ("captures", "collections", "derivations", "materializations", "log", "server")

SpecT = TypeVar("SpecT", bound=Spec)

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}")
"""Names of captures, derivations and materializations. They become names of tasks, files and tables."""


class DerivationOptions(Spec, frozen=True, kw_only=True):
    """What a derivation says besides its processors."""

    source: Annotated[
        str | list[str],
        Meta(description="Collections to read: a name, a glob such as `shop/*`, or a list of them."),
    ] = msgspec.field(name="from")
    key: Annotated[
        list[Annotated[str, Meta(pattern="^/[^/]+$")]] | None,
        Meta(description="The key of what comes out, as JSON pointers such as `/id`. None: the source's."),
    ] = None
    on_error: Annotated[
        ErrorPolicy,
        Meta(
            description="What becomes of a record that a processor cannot handle; see `on_error` of a binding."
        ),
    ] = "dead_letter"


class StepOptions(Spec, frozen=True, kw_only=True):
    """What an entry of `processors` says besides its processor."""

    on_error: Annotated[
        ErrorPolicy | None, Meta(description="As `on_error` of the derivation, for this processor alone.")
    ] = None


class MaterializationOptions(Spec, frozen=True, kw_only=True):
    """What a materialization says besides its connector and its bindings."""

    commit: Annotated[Commit, Meta(description="When to commit.")] = Commit()


def read_catalog(document: Document, root: Path) -> Catalog:
    """The catalog of a file. It is only fit for use when the document has no errors afterwards."""
    return _Reader(document, root).catalog()


class _Reader:
    def __init__(self, document: Document, root: Path) -> None:
        self.document = document
        self.root = root
        self.secrets: list[str] = []

    def catalog(self) -> Catalog:
        for name in self.names(()):
            if name not in SECTIONS:
                self.report(
                    (name,), f"unknown section {name!r}{meant_or_known(name, SECTIONS)}", at_name=True
                )
        if not self.names(("captures",)) and not value_of(self.document.node(("captures",))):
            self.report(("captures",), "no captures: nothing would run", at_name=True)
        catalog = Catalog(
            file=self.document.file,
            root=self.root,
            captures={task.name: task for task in self.captures()},
            collections=dict(self.collections()),
            derivations={task.name: task for task in self.derivations()},
            materializations={task.name: task for task in self.materializations()},
            log=self.options(LogSection, ("log",)) or LogSection(),
            server=self.options(ServerSection, ("server",)) or ServerSection(),
        )
        check_references(catalog, self.document)
        return dataclasses.replace(catalog, redact=Redactor(self.secrets))

    def captures(self) -> Iterator[CaptureTask]:
        for name, path in self.named("captures"):
            kind, capture = self.connector("capture", path, set(self.names(path)))
            if capture is not None:
                yield CaptureTask(TaskName(name), kind, capture)

    def collections(self) -> Iterator[tuple[str, CollectionOptions]]:
        for name in self.names(("collections",)):
            if options := self.options(CollectionOptions, ("collections", name)):
                yield name, options

    def derivations(self) -> Iterator[DerivationTask]:
        for name, path in self.named("derivations"):
            options, others = self.split(DerivationOptions, path)
            steps = tuple(self.steps(path, others, options.on_error if options else "dead_letter"))
            if options:
                key = tuple(options.key) if options.key is not None else None
                yield DerivationTask(name, Sources(options.source), steps, key)

    def materializations(self) -> Iterator[MaterializationTask]:
        for name, path in self.named("materializations"):
            options, others = self.split(MaterializationOptions, path)
            kind, materialization = self.connector(
                "materialization", path, others - {"bindings"}, ("bindings", "commit")
            )
            bindings = self.items((*path, "bindings"), "{from: COLLECTION, …}")
            spec = connector("materialization", kind) if kind else Materialization
            assert issubclass(spec, Materialization)
            rules = [self.options(spec.binding_type, binding) for binding in bindings] if kind else []
            if materialization is not None:
                yield MaterializationTask(
                    TaskName(name),
                    kind,
                    materialization,
                    tuple(BindingRule(Sources(rule.source), rule) for rule in rules if rule),
                    options.commit if options else Commit(),
                )

    def steps(self, path: OptionPath, names: set[str], on_error: ErrorPolicy) -> Iterator[Step]:
        """The processors of a derivation: one, by its name, or a list under `processors`."""
        if "processors" not in names:
            beside = ("from", "key", "on_error", "processors")
            kind, processor = self.connector("processor", path, names, beside)
            if processor is not None:
                yield Step(kind, processor, on_error)
            return
        for name in names - {"processors"}:
            self.report(
                (*path, name), f"{name!r} stands beside 'processors'; move it into the list", at_name=True
            )
        seen: Counter[str] = Counter()
        for item in self.items((*path, "processors"), "{mapping: …}"):
            options, others = self.split(StepOptions, item)
            kind, processor = self.connector("processor", item, others, ("on_error",))
            if processor is not None:
                seen[kind] += 1
                name = kind if seen[kind] == 1 else f"{kind}#{seen[kind]}"
                yield Step(name, processor, (options and options.on_error) or on_error)

    def named(self, section: str) -> Iterator[tuple[str, OptionPath]]:
        """The entries of a section whose names may be used."""
        for name in self.names((section,)):
            path = (section, name)
            if not NAME.fullmatch(name):
                message = f"{name!r} cannot be a name; use letters, digits and _ . - (at most 63, a letter or _ first)"
                self.report(path, message, at_name=True)
            elif name == DEAD_LETTERS:
                self.report(path, f"{name!r} is where dead letters go; choose another name", at_name=True)
            else:
                yield name, path

    def connector(
        self, kind: Kind, path: OptionPath, names: set[str], beside: Iterable[str] = ()
    ) -> tuple[str, Any]:
        """The connector among the names of an entry: its name, and itself, None where it has mistakes.

        `beside` are names that the entry may have too.
        """
        known = entries(kind)
        for name in names - known.keys():
            hint = meant_or_known(name, [*known, *beside])
            self.report((*path, name), f"unknown {kind} {name!r}{hint}", at_name=True)
        usable = sorted(names & known.keys())
        if not names:
            self.report(path, f"missing its {kind}{meant_or_known('', known)}", at_name=True)
        if len(usable) > 1:
            message = f"an entry is one {kind}, here are {' and '.join(usable)}"
            self.report((*path, usable[1]), message, at_name=True)
        if len(usable) != 1:
            return "", None
        try:
            spec = connector(kind, usable[0])
        except Unavailable as error:
            self.report((*path, usable[0]), str(error), at_name=True)
            return "", None
        return usable[0], self.options(spec, (*path, usable[0]))

    def split(self, spec: type[SpecT], path: OptionPath) -> tuple[SpecT | None, set[str]]:
        """The options of `spec` at a path, and the names beside them: a connector, or a mistake."""
        others = self.names(path).keys() - fields_of(spec).keys()
        return self.options(spec, path, apart=others), set(others)

    def options(self, spec: type[SpecT], path: OptionPath, *, apart: Set[str] = frozenset()) -> SpecT | None:
        """Parse the options at a path, but for the names that stand `apart` from them."""
        written = value_of(self.document.node(path))
        if isinstance(written, dict):
            written = {name: value for name, value in written.items() if name not in apart}
        elif written is not None and issubclass(spec, Processor) and spec.shorthand:
            written = {spec.shorthand: written}

        def report(below: OptionPath, message: str, **rest: Any) -> None:
            self.report((*path, *below), message, **rest)

        made = spec.parse(written, report)
        self.secrets.extend(secrets_of(made))
        return made

    def items(self, path: OptionPath, example: str) -> list[OptionPath]:
        """The paths of the entries of a list that must not be empty."""
        found = self.document.node(path)
        if isinstance(found, Sequence) and found.items:
            return [(*path, index) for index in range(len(found.items))]
        missing = "missing" if found is None else "expected"
        self.report(path, f"{missing} {path[-1]!r}: a list of one or more {example}")
        return []

    def names(self, path: OptionPath) -> Mapping[str, Place]:
        """The names written at a path. A value that has none is a mistake."""
        found = self.document.node(path)
        if found is not None and not isinstance(found, Table) and value_of(found) is not None:
            self.report(path, "expected names with their options")
        return self.document.names(path)

    def report(
        self,
        path: OptionPath,
        message: str,
        *,
        inner: Place | None = None,
        at_name: bool = False,
        severity: Severity = "error",
    ) -> None:
        found = self.document.node(path)
        if isinstance(found, Scalar) and found.failed and not at_name:
            return
        place, within = self.document.place(path, at_name=at_name), ""
        if inner is not None:
            place, within = self.document.inner_place(path, inner)
        label = ".".join(
            step if isinstance(step, str) and step.isprintable() else repr(step) for step in path
        )
        self.document.report(place, f"{label}: {message}{within}" if label else message + within, severity)
