"""What error texts call the source of a value: `field `this.a``, `method uppercase`, `string literal`.

The hard thing is that these are the engine's words, by which errors are compared: it names some calls by what they
were given, and others by what they were called on.
"""

from __future__ import annotations

from typing import Any

from hub.mapping.tree import (
    Array,
    Binary,
    Field,
    Function,
    Get,
    If,
    Index,
    Lambda,
    MapTo,
    Metadata,
    Method,
    Negate,
    Not,
    Object,
    Query,
    Slice,
    Variable,
    dot_path,
    escaped,
    is_query,
    literal_of,
)  # fmt: skip
from hub.mapping.values import kind


def annotation(query: Query) -> str:
    """What error texts call the source of a query's value."""
    found = literal_of(query)
    if found is not None:
        return found.note or f"{kind(found.value)} literal"
    match query:
        case Field(base, path):
            return f"field `{'.'.join((base, *map(escaped, path)))}`"
        case Get(_, path):
            return f"path `{'.'.join(map(escaped, path))}`"
        case Index() | Slice():
            return "index"
        case Variable(name):
            return f"variable {name}"
        case Metadata(name):
            return f"meta field {name}" if name else "meta object"
        case Function():
            return _function_annotation(query)
        case Method():
            return _method_annotation(query)
        case MapTo(_, body) | Lambda(_, body):
            return annotation(body)
        case Not(operand):
            return f"not {annotation(operand)}"
        case Negate(operand):
            return annotation(operand)
        case Binary(right=right):
            return annotation(right)
        case Array():
            return "array literal"
        case Object():
            return "object literal"
        case If():
            return "if expression"
        case _:
            return "match expression"


def _function_annotation(query: Function) -> str:
    given: Any = query.bound[0] if query.bound else None
    known: Any = literal_of(given) if is_query(given) else given
    first = known.value if known is not None else None
    name = query.name
    if name in ("meta", "metadata", "root_meta") and known is not None:
        return f"{name} field {first}" if first else f"{name} object"
    if name == "json" and known is not None:
        return f"json path `{first}`"
    if name == "var" and first is not None:
        return f"variable {first}"
    return f"function {name}"


def _method_annotation(query: Method) -> str:
    first = literal_of(query.bound[0]) if query.bound and is_query(query.bound[0]) else None
    match query.name:
        case "get" if first is not None:
            target = query.target
            path = tuple(dot_path(first.value))
            if isinstance(target, Field):
                return annotation(Field(target.base, target.path + path))
            if isinstance(target, Get):
                return annotation(Get(target.target, target.path + path))
            return annotation(Get(target, path))
        case "apply" if first is not None:
            return f"map {first.value}"
        case "from" if first is not None:
            return f"{annotation(query.target)} from {first.value}"
        case "map" if query.bound:
            return annotation(query.bound[0])
        case "not":
            return f"not {annotation(query.target)}"
    return f"method {query.name}"
