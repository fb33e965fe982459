"""What a mapping reads and writes, where its fields come from, and what of it a few fields need.

All of it is found from the tree alone and errs on the safe side: a read too many, an unknown origin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from hub.mapping import registry, tree
from hub.mapping.registry import Default
from hub.mapping.tree import Argument, Assign, IfBlock, Let, Literal, Query, SetMeta, Statement, literal_of
from hub.mapping.values import DELETE, NOTHING

Path: TypeAlias = tuple[str, ...]
Whole: TypeAlias = "tree.Mapping | tree.Interpolation | tree.Query"


def reads(found: Whole) -> frozenset[Path]:
    """Paths of the document that may be read; `()` stands for all of it."""
    paths: set[Path] = set()
    match found:
        case tree.Mapping():
            for definition in found.maps:
                for statement in definition.statements:
                    paths.update(_statement_reads(statement, None))
            for statement in found.statements:
                paths.update(_statement_reads(statement, ()))
        case tree.Interpolation(parts):
            for part in parts:
                if not isinstance(part, str):
                    paths.update(_reads(part, (), None, {}))
        case _:
            paths.update(_reads(found, (), None, {}))
    return frozenset(paths)


def _statement_reads(statement: Statement, this: Path | None) -> Iterator[Path]:
    if isinstance(statement, IfBlock):
        for condition, statements in statement.branches:
            if condition is not None:
                yield from _reads(condition, this, this, {})
            for inner in statements:
                yield from _statement_reads(inner, this)
    else:
        yield from _reads(statement.value, this, this, {})


def _reads(
    node: Query, this: Path | None, outer: Path | None, names: dict[str, Path | None]
) -> Iterator[Path]:
    """Reads of one query; `this` is the context's place in the document, None for what is read already."""
    match node:
        case tree.Field():
            place = _place(node, this, names)
            if place is not None:
                yield place
        case tree.Function(name) if name in ("json", "content"):
            argument = node.bound[0] if node.bound else None
            if isinstance(argument, Literal) and argument.value:
                yield tuple(tree.dot_path(argument.value))
            else:
                yield ()
        case tree.MapTo(target, body):
            yield from _reads(target, this, outer, names)
            yield from _reads(body, _place(target, this, names), this, names)
        case tree.Lambda(name, body):
            yield from _reads(body, outer, outer, {**names, name: this})
        case tree.Match(subject, cases):
            place = this
            if subject is not None:
                yield from _reads(subject, this, outer, names)
                place = _place(subject, this, names)
            elif this is not None:
                yield this
            for case in cases:
                for inner in (case.test, case.result):
                    if inner is not None:
                        yield from _reads(inner, place, this, names)
        case tree.Method():
            yield from _reads(node.target, this, outer, names)
            place = _place(node.target, this, names) if node.name == "map" else None
            params = node.declared.params
            for position, argument in enumerate(node.bound):
                if isinstance(argument, Default) or not tree.is_query(argument):
                    continue
                if not node.declared.variadic and params[position].type == "query":
                    yield from _reads(argument, place, this, names)
                else:
                    yield from _reads(argument, this, outer, names)
        case _:
            for child in _queries(node):
                yield from _reads(child, this, outer, names)


def _place(node: Query, this: Path | None, names: dict[str, Path | None]) -> Path | None:
    if not isinstance(node, tree.Field) or node.base == "root":
        return None
    base = this if node.base == "this" else names.get(node.base)
    return None if base is None else base + node.path


def _queries(node: Any) -> Iterator[Any]:
    for child in tree.children(node):
        if tree.is_query(child):
            yield child
        else:
            yield from _queries(child)


def writes(found: Whole) -> frozenset[Path]:
    """Paths of the new document that may be assigned; `()` stands for all of it."""
    if not isinstance(found, tree.Mapping):
        return frozenset()
    return frozenset(
        node.path
        for statement in found.statements
        for node in tree.walk(statement)
        if isinstance(node, Assign)
    )


def metadata_only(found: Whole) -> frozenset[str] | None:
    """The metadata names that interpolated text is made of, or None when it depends on anything else."""
    names: set[str] = set()
    for node in tree.walk(found):
        match node:
            case tree.Metadata(name) if name and name != "operation":
                names.add(name)
            case tree.Function() if node.folded is None:
                return None
            case tree.Metadata() | tree.Field() | tree.Variable():
                return None
            case tree.Method() if node.declared.needs or not node.declared.pure:
                return None
            case tree.Method(name=name) if name in registry.CORE_METHODS - {"catch", "or", "not"}:
                return None
    return frozenset(names)


# Where a field comes from


def source_of(mapping: tree.Mapping, field: str, *, mutation: bool) -> str | None:
    """The top-level field of the source whose untouched value this output field always is, or None."""
    assigned = mutation
    origin: str | None = field
    for statement in mapping.statements:
        if isinstance(statement, Let | SetMeta):
            continue
        if isinstance(statement, IfBlock):
            if any(_touches(node, field) for node in tree.walk(statement)):
                return None
            continue
        path, value = statement.path, statement.value
        if not path:
            if only_drops(value):
                continue
            assigned, origin = True, _whole_origin(value, field)
        elif path[0] == field:
            assigned = True
            origin = _field_origin(value) if len(path) == 1 and not mutation else None
        elif not assigned:
            assigned, origin = True, None
        if mutation and origin is None:
            return None
    return origin if assigned or not mapping.statements else field


def _touches(node: Any, field: str) -> bool:
    if not isinstance(node, Assign):
        return False
    return node.path[0] == field if node.path else not only_drops(node.value)


def _whole_origin(value: Query, field: str) -> str | None:
    match value:
        case tree.Field("this", ()):
            return field
        case tree.Object(items):
            for key, item in items:
                name = literal_of(key)
                if name is None:
                    return None
                if name.value == field:
                    return _field_origin(item)
            return None
        case tree.Method(tree.Field("this", ()), "without"):
            removed = [literal_of(argument) for argument in value.bound]
            kept = all(item is not None and item.value.split(".")[0] != field for item in removed)
            return field if kept else None
    return None


def _field_origin(value: Query) -> str | None:
    if isinstance(value, tree.Field) and value.base == "this" and len(value.path) == 1:
        return value.path[0]
    return None


def only_drops(value: Query) -> bool:
    """True for a query that is only ever `deleted()` or `nothing()`: a filter."""
    found = literal_of(value)
    if found is not None:
        return found.value is DELETE or found.value is NOTHING
    match value:
        case tree.If(branches, otherwise):
            return all(only_drops(result) for _, result in branches) and (
                otherwise is None or only_drops(otherwise)
            )
        case tree.Match(_, cases):
            return all(only_drops(case.result) for case in cases)
    return False


# Projection


def projected(mapping: tree.Mapping, fields: Sequence[str], *, mutation: bool = False) -> tree.Mapping:
    """The statements on which these top-level fields depend, for records that have little else.

    Filters (`root = if … { deleted() }`) are left out, since they would judge by fields that are not there;
    metadata is still assigned, but an error there leaves it as it was.
    """
    needed: set[str] = set(fields)
    variables: set[str] = set()
    while True:
        kept = _projected(mapping.statements, needed, variables)
        wanted, used, whole = _dependencies(kept, mutation=mutation)
        if whole:
            return mapping
        if wanted <= needed and used <= variables:
            return replace(mapping, statements=kept, shorthand=False)
        needed |= wanted
        variables |= used


def _projected(
    statements: Sequence[Statement], needed: set[str], variables: set[str]
) -> tuple[Statement, ...]:
    kept: list[Statement] = []
    for statement in statements:
        match statement:
            case Let(name):
                if name in variables:
                    kept.append(statement)
            case SetMeta():
                kept.append(replace(statement, value=_harmless(statement.value)))
            case IfBlock(branches):
                bodies = [_projected(body, needed, variables) for _, body in branches]
                if any(bodies):
                    pairs = zip(branches, bodies, strict=True)
                    kept.append(replace(statement, branches=tuple((test, body) for (test, _), body in pairs)))
            case Assign(()) if only_drops(statement.value):
                pass
            case Assign((), tree.Object() as value):
                kept.append(replace(statement, value=_projected_object(value, needed)))
            case Assign(path):
                if not path or path[0] in needed:
                    kept.append(statement)
    return tuple(kept)


def _projected_object(value: tree.Object, needed: set[str]) -> tree.Object:
    items = tuple(
        (key, item) for key, item in value.items if (name := literal_of(key)) is None or name.value in needed
    )
    return replace(value, items=items, folded=None)


def _harmless(value: Query) -> Query:
    declared = registry.methods()["catch"]
    fallback = Literal(NOTHING, "nothing")
    return tree.Method(value, "catch", (Argument("", fallback),), declared, (fallback,))


def _dependencies(statements: Sequence[Statement], *, mutation: bool) -> tuple[set[str], set[str], bool]:
    """Fields of the new document and variables that statements read, and whether they read all of it. A
    mutation reads it as `this`, too."""
    fields: set[str] = set()
    variables: set[str] = set()
    whole = False
    for statement in statements:
        for node in tree.walk(statement):
            match node:
                case tree.Field(base, path) if base == "root" or (base == "this" and mutation):
                    fields.update(path[:1])
                    whole = whole or not path
                case tree.Variable(name):
                    variables.add(name)
                case tree.Function(name="var", bound=(argument, *_)):
                    if isinstance(argument, Literal):
                        variables.add(argument.value)
                    else:
                        whole = True
    return fields, variables, whole
