"""Functions and methods in the text bound to their declarations, and literals folded.

Everything that can be known from the text alone is settled here: names, arguments, static types, factories
called once, arithmetic of literals. A mistake is a `Mistake`, to which the parser adds the position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hub.errors import RecordError
from hub.mapping import registry, tree
from hub.mapping.annotation import annotation
from hub.mapping.context import Context
from hub.mapping.gofmt import type_name
from hub.mapping.operators import ARITHMETIC, OperatorMismatch, negate
from hub.mapping.registry import ArgumentError, Declaration, Default, Param
from hub.mapping.tree import Argument, Literal, Query, literal_of
from hub.mapping.values import DELETE, NOTHING, EvaluationError, Value
from hub.nearest import Unknown


class Mistake(Exception):
    """What is wrong with a call or with an operator between literals. `unknown` is a name that is not among those that
    are known, and these."""

    def __init__(self, reason: str, unknown: Unknown | None = None) -> None:
        super().__init__(reason)
        self.unknown = unknown


def function(name: str, arguments: Sequence[Argument], context: Context, at: int) -> Query:
    """The call of a function."""
    declared = registry.functions().get(name)
    if declared is None:
        raise Mistake(f"unrecognised function '{name}'", (name, registry.functions()))
    bound = bind(declared, arguments, context)
    if name in ("deleted", "nothing"):
        folded = Literal(
            DELETE if name == "deleted" else NOTHING, "delete" if name == "deleted" else name, at
        )
        return tree.Function(name, tuple(arguments), declared, bound, folded, at=at)
    prepared = _prepare(declared, bound, context)
    return tree.Function(name, tuple(arguments), declared, bound, prepared=prepared, at=at)


def method(target: Query, name: str, arguments: Sequence[Argument], context: Context, at: int) -> Query:
    """The call of a method, folded where the engine folds."""
    declared = registry.methods().get(name)
    if declared is None:
        raise Mistake(f"unrecognised method '{name}'", (name, registry.methods()))
    bound = bind(declared, arguments, context)
    prepared = _prepare(declared, bound, context)
    folded = None
    subject = literal_of(target)
    if subject is not None and registry.FOLDED.fullmatch(name) and not declared.needs and all_static(bound):
        try:
            if prepared is not None:
                value = prepared(subject.value)
            else:
                value = declared.call(subject.value, *static_values(declared, bound))
        except RecordError as error:
            raise Mistake(str(error)) from error
        folded = Literal(value, f"method {name}", at)
    return tree.Method(target, name, tuple(arguments), declared, bound, folded, prepared, at)


def bind(declared: Declaration, arguments: Sequence[Argument], context: Context) -> tuple[Any, ...]:
    """The arguments in declared order: literals converted, queries as they are, `Default` for the rest."""
    if declared.extra and declared.missing:
        raise Mistake(
            f"{declared.label} needs a package that is not installed: pip install 'hub-etl[{declared.extra}]'"
        )
    for need in declared.needs:
        if getattr(context, need, True) is None:
            raise Mistake(
                f"{declared.label} is not allowed here: this configuration gives mappings no {need}"
            )
    positional = [argument.value for argument in arguments if not argument.name]
    named: dict[str, Query] = {}
    for argument in arguments:
        if argument.name:
            if argument.name in named:
                raise Mistake(f"duplicate named arg: {argument.name}")
            named[argument.name] = argument.value
    if positional and named:
        raise Mistake("cannot mix named and nameless arguments")
    try:
        arranged = registry.arrange(declared, positional, named)
    except ArgumentError as error:
        given = named or dict(zip((param.name for param in declared.params), positional, strict=False))
        if len(positional) <= len(declared.params):
            for param in declared.params:
                if param.name in given:
                    _bind_one(param, given[param.name])
        raise Mistake(str(error), error.unknown) from error
    if declared.variadic:
        return tuple(found if (found := literal_of(query)) is not None else query for query in arranged)
    return tuple(
        query if isinstance(query, Default) else _bind_one(param, query)
        for param, query in zip(declared.params, arranged, strict=True)
    )


def _bind_one(param: Param, query: Query) -> Query:
    if param.type == "query":
        return query
    found = literal_of(query)
    if found is None:
        if param.static:
            raise Mistake(f"param {param.name} must not be dynamic")
        return query
    try:
        value = registry.convert(param, found.value)
    except RecordError as error:
        raise Mistake(f"field {param.name}: {error}") from error
    return Literal(value, found.note, found.at)


def all_static(bound: Sequence[Any]) -> bool:
    """True when no argument has to be evaluated for each record."""
    return all(isinstance(argument, Literal | Default) for argument in bound)


def static_values(declared: Declaration, bound: Sequence[Any]) -> list[Value]:
    """The values of static arguments, as the implementation takes them."""
    if declared.variadic:
        return [[argument.value for argument in bound]]
    values = []
    for param, argument in zip(declared.params, bound, strict=True):
        value = argument.value
        if param.type == "query" and not (isinstance(argument, Default) and value is None):
            value = constantly(value)
        values.append(value)
    return values


def constantly(value: Value) -> Any:
    """A query that is always the same value."""
    return lambda _context: value


def _prepare(declared: Declaration, bound: Sequence[Any], context: Context) -> Any:
    if not declared.prepared or not all_static(bound):
        return None
    first = (context,) if declared.needs else ()
    try:
        return declared.call(*first, *static_values(declared, bound))
    except RecordError as error:
        raise Mistake(str(error)) from error


def negated(operand: Query, at: int) -> Query:
    """Unary minus."""
    found = literal_of(operand)
    if found is None:
        return tree.Negate(operand, at=at)
    return tree.Negate(operand, _folded(lambda: negate(found.value), ZERO, operand, at), at)


ZERO = Literal(0)


def binary(op: str, left: Query, right: Query, at: int) -> Query:
    """An operator between two queries; between literals its value, too."""
    compute = ARITHMETIC.get(op)
    a, b = literal_of(left), literal_of(right)
    if compute is None or a is None or b is None:
        return tree.Binary(op, left, right, at=at)
    return tree.Binary(op, left, right, _folded(lambda: compute(a.value, b.value), left, right, at), at)


def _folded(compute: Any, left: Query, right: Query, at: int) -> Literal:
    try:
        return Literal(compute(), annotation(right), at)
    except OperatorMismatch as error:
        raise Mistake(str(error.between(annotation(left), annotation(right)))) from error
    except EvaluationError as error:
        raise Mistake(str(error.annotated(annotation(right)))) from error


PASSES: tuple[frozenset[str], ...] = (
    frozenset(["*", "/", "%", "|"]),
    frozenset(["+", "-"]),
    frozenset(["==", "!=", "<", "<=", ">", ">="]),
    frozenset(["&&", "||"]),
)
"""The four passes of precedence, tightest first; left to right within each."""


def grouped(operands: Sequence[tuple[Query, int]], operators: Sequence[str], at: int) -> Query:
    """A flat list of operands and operators as one tree. With each operand comes where its minus sign
    stands, or -1."""
    queries = [negated(operand, sign) if sign >= 0 else operand for operand, sign in operands]
    ops = list(operators)
    for wanted in PASSES:
        kept, left = [queries[0]], []
        for op, right in zip(ops, queries[1:], strict=True):
            if op in wanted:
                kept[-1] = binary(op, kept[-1], right, at)
            else:
                kept.append(right)
                left.append(op)
        queries, ops = kept, left
    return queries[0]


def array(items: Sequence[Query], at: int) -> Query:
    """An array, a literal when all of its items are."""
    found = [literal_of(item) for item in items]
    if not all(found):
        return tree.Array(tuple(items), at=at)
    values = [item.value for item in found if item and item.value is not DELETE and item.value is not NOTHING]
    return tree.Array(tuple(items), Literal(values, "", at), at)


def object_(items: Sequence[tuple[Query, Query]], at: int) -> Query:
    """An object, a literal when all keys and values are."""
    folded: dict[str, Value] | None = {}
    for key, value in items:
        name, found = literal_of(key), literal_of(value)
        if name is not None and type(name.value) is not str:
            raise Mistake(f"object keys must be strings, received: {type_name(name.value)}")
        if name is None or found is None:
            folded = None
        elif folded is not None and found.value is not DELETE and found.value is not NOTHING:
            folded[name.value] = found.value
    literal = None if folded is None else Literal(folded, "", at)
    return tree.Object(tuple(items), literal, at)
