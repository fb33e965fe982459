"""What kind of value an output field holds, as far as the text of a mapping tells.

A table's column should not depend on which rows came first: a price in euros is a number with a fraction
even when the first one happens to be whole. So arithmetic that can only give a float is a `number`
from the start. Errs on the safe side: None where the text does not tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from hub.mapping import tree
from hub.mapping.tree import Assign, Query, literal_of
from hub.mapping.values import DELETE, NOTHING

Kind: TypeAlias = Literal["boolean", "number", "string"]

_COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "&&", "||"})
_TO_STRING = frozenset(
    {"string", "lowercase", "uppercase", "trim", "capitalize", "format", "join", "quote", "type"}
)
_TO_BOOLEAN = frozenset({"contains", "has_prefix", "has_suffix", "bool", "re_match", "any", "all", "exists"})
_TO_NUMBER = frozenset({"float64", "float32"})


def kind_of(mapping: tree.Mapping, field: str) -> Kind | None:
    """The kind that this top-level output field always has when it is there and not null."""
    kinds = {kind for value in _assigned(mapping, field) for kind in _kinds(value)}
    return kinds.pop() if len(kinds) == 1 else None


def _assigned(mapping: tree.Mapping, field: str) -> Iterator[Query | None]:
    """Every value that may end up in the field; None for one that is not a plain assignment to it."""
    for node in tree.walk(mapping):
        if isinstance(node, Assign) and node.path and node.path[0] == field:
            yield node.value if len(node.path) == 1 else None


def _kinds(value: Query | None) -> set[Kind | None]:
    """The kinds a query may have. Values that are skipped or removed count for nothing."""
    if value is None:
        return {None}
    found = literal_of(value)
    if found is not None:
        return _of_literal(found.value)
    match value:
        case tree.Binary(op, left, right):
            return {_of_binary(op, left, right)}
        case tree.Not():
            return {"boolean"}
        case tree.Negate(operand):
            return _kinds(operand)
        case tree.Method(_, name):
            return {_of_method(name)}
        case tree.If(branches, otherwise):
            values = [result for _, result in branches] + ([otherwise] if otherwise is not None else [])
            return {kind for result in values for kind in _kinds(result)}
        case tree.Match(_, cases):
            return {kind for case in cases for kind in _kinds(case.result)}
    return {None}


def _of_literal(value: object) -> set[Kind | None]:
    if value is None or value is DELETE or value is NOTHING:
        return set()
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, str):
        return {"string"}
    return {"number"} if isinstance(value, float) else {None}


def _of_binary(op: str, left: Query, right: Query) -> Kind | None:
    if op in _COMPARISONS:
        return "boolean"
    if op == "/":
        return "number"
    sides = [_kinds(left), _kinds(right)]
    if op in ("+", "-", "*") and {"number"} in sides:
        return "number"
    if op == "+" and {"string"} in sides:
        return "string"
    if op == "|" and sides[0] == sides[1] and len(sides[0]) == 1:
        return next(iter(sides[0]))
    return None


def _of_method(name: str) -> Kind | None:
    if name in _TO_STRING:
        return "string"
    if name in _TO_BOOLEAN:
        return "boolean"
    return "number" if name in _TO_NUMBER else None
