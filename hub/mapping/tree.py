"""The tree of a mapping: what the parser makes and everything else reads.

Public and stable: the compiler, the lints, the printer, lineage and schema inference walk it. Nodes are
immutable and say where they stand in the text (`at`, a character offset). Equality ignores positions and
what folding found, so `parse(print(tree)) == tree`.

Queries carry `folded`: the literal that the parser computed in their place, as the engine does (literal
arithmetic, static arrays and objects, pure methods of literals). The node keeps its parts all the same,
so that text can be printed from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

from hub.mapping.registry import Declaration
from hub.mapping.values import Value


@dataclass(frozen=True, slots=True)
class Literal:
    """A value known when the text is parsed. `note` is its name in error texts when it is no plain literal."""

    value: Value
    note: str = field(default="", compare=False)
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Field:
    """`this.a.b`, `root.a`, a bare `a.b` or `x.a` of a lambda's `x`: a path into one of them.

    `base` is `this`, `root` or the lambda's name. `bare` tells that `this` was left out in the text.
    """

    base: str
    path: tuple[str, ...] = ()
    bare: bool = field(default=False, compare=False)
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Get:
    """A path into the value of any other query: `$x.a.b`, `f().a`."""

    target: Query
    path: tuple[str, ...]
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Index:
    """`a[0]`, `a[-1]`: an element counted from the front or the back. An extension of the language."""

    target: Query
    index: Query
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Slice:
    """`a[1:3]`, `a[:2]`, `a[2:]`: a part of an array, string or bytes. An extension of the language."""

    target: Query
    low: Query | None
    high: Query | None
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Variable:
    """`$name`."""

    name: str
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Metadata:
    """`@name`, or `@` for all metadata, of the message being built. An empty name means all."""

    name: str
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Function:
    """`name(arguments)`. `arguments` are as written; `bound` are in declared order, defaults filled in."""

    name: str
    arguments: tuple[Argument, ...]
    declared: Declaration = field(compare=False, repr=False)
    bound: tuple[Any, ...] = field(default=(), compare=False, repr=False)
    folded: Literal | None = field(default=None, compare=False)
    prepared: Any = field(default=None, compare=False, repr=False)
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Method:
    """`target.name(arguments)`."""

    target: Query
    name: str
    arguments: tuple[Argument, ...]
    declared: Declaration = field(compare=False, repr=False)
    bound: tuple[Any, ...] = field(default=(), compare=False, repr=False)
    folded: Literal | None = field(default=None, compare=False)
    prepared: Any = field(default=None, compare=False, repr=False)
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument as written; `name` is empty for a positional one."""

    name: str
    value: Query


@dataclass(frozen=True, slots=True)
class MapTo:
    """`target.(body)`: the body with the target as its context."""

    target: Query
    body: Query
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Lambda:
    """`name -> body`: the context under a name; `this` becomes the outer context again."""

    name: str
    body: Query
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    """`!operand`."""

    operand: Query
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Negate:
    """`-operand`, which the engine reckons as 0 - operand."""

    operand: Query
    folded: Literal | None = field(default=None, compare=False)
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Binary:
    """`left op right`, nested as the four passes of precedence group them."""

    op: str
    left: Query
    right: Query
    folded: Literal | None = field(default=None, compare=False)
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Array:
    """`[a, b]`."""

    items: tuple[Query, ...]
    folded: Literal | None = field(default=None, compare=False)
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Object:
    """`{"a": b}`. Keys are queries too."""

    items: tuple[tuple[Query, Query], ...]
    folded: Literal | None = field(default=None, compare=False)
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class If:
    """`if c { a } else if d { b } else { e }` as a value. Without a hit it is nothing."""

    branches: tuple[tuple[Query, Query], ...]
    otherwise: Query | None
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a match; `test` is None for `_`."""

    test: Query | None
    result: Query


@dataclass(frozen=True, slots=True)
class Match:
    """`match subject { … }`; without a subject the context itself."""

    subject: Query | None
    cases: tuple[Case, ...]
    at: int = field(default=0, compare=False)


Query: TypeAlias = Literal | Field | Get | Index | Slice | Variable | Metadata | Function | Method | MapTo | Lambda | Not | Negate | Binary | Array | Object | If | Match  # fmt: skip


@dataclass(frozen=True, slots=True)
class Assign:
    """`root.a.b = value`; an empty path is `root` itself."""

    path: tuple[str, ...]
    value: Query
    bare: bool = field(default=False, compare=False)
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Let:
    """`let name = value`."""

    name: str
    value: Query
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class SetMeta:
    """`meta name = value`; without a name (None) all metadata."""

    name: str | None
    value: Query
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class IfBlock:
    """`if c { statements } else { statements }`. The condition of an else is None."""

    branches: tuple[tuple[Query | None, tuple[Statement, ...]], ...]
    at: int = field(default=0, compare=False)


Statement: TypeAlias = Assign | Let | SetMeta | IfBlock


@dataclass(frozen=True, slots=True)
class MapDefinition:
    """`map name { statements }`. `text` is the text it stands in, which may be an imported file's."""

    name: str
    statements: tuple[Statement, ...]
    text: str = field(default="", compare=False, repr=False)
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Import:
    """`import "file"`: its maps are among the mapping's already."""

    path: str
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Mapping:
    """A whole mapping. `maps` holds those it defines and those it imports."""

    statements: tuple[Statement, ...]
    maps: tuple[MapDefinition, ...] = ()
    imports: tuple[Import, ...] = ()
    text: str = field(default="", compare=False, repr=False)
    shorthand: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Interpolation:
    """Text with `${! query }` parts: strings and queries in order."""

    parts: tuple[str | Query, ...]
    text: str = field(default="", compare=False, repr=False)


def literal_of(query: Query) -> Literal | None:
    """The literal a query is or was folded to."""
    if isinstance(query, Literal):
        return query
    return getattr(query, "folded", None)


_QUERIES = (
    Literal, Field, Get, Index, Slice, Variable, Metadata, Function, Method, MapTo, Lambda, Not,
    Negate, Binary, Array, Object, If, Match,
)  # fmt: skip


def is_query(found: object) -> bool:
    """True for the nodes that stand for a value."""
    return isinstance(found, _QUERIES)


def escaped(segment: str) -> str:
    """One segment of a dot path: `.` as `~1`, `~` as `~0`."""
    return segment.replace("~", "~0").replace(".", "~1")


def dot_path(text: str) -> list[str]:
    """The segments of a dot path."""
    return [segment.replace("~1", ".").replace("~0", "~") for segment in text.split(".")]


def children(node: Any) -> Iterator[Any]:
    """The nodes directly under a node, in the order of the text."""
    for item in fields(node):
        if item.name in ("folded", "declared", "bound", "prepared"):
            continue
        yield from _nodes(getattr(node, item.name))


def _nodes(found: Any) -> Iterator[Any]:
    if isinstance(found, tuple):
        for item in found:
            yield from _nodes(item)
    elif hasattr(found, "__dataclass_fields__") and not isinstance(found, Declaration):
        yield found


def walk(node: Any) -> Iterator[Any]:
    """A node and all nodes under it, parents first."""
    stack = [node]
    while stack:
        found = stack.pop()
        yield found
        stack.extend(reversed(list(children(found))))
