"""Whole documents: schemas, JSONPath, differences."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from hub.mapping.changes import diff, patched, read_changes
from hub.mapping.extras import load, needs
from hub.mapping.limits import check_depth, check_items
from hub.mapping.registry import Example, Param, method
from hub.mapping.schemafault import Schema
from hub.mapping.timestamp import Timestamp
from hub.mapping.values import EvaluationError, Float32, Number, Uint64, Value, utf8

CATEGORY: Final = "Object & Array Manipulation"


@lru_cache(maxsize=256)
def _schema(source: str) -> Schema:
    return Schema(source)


@method(
    "json_schema",
    category=CATEGORY,
    status="beta",
    params=[Param("schema", "string", doc="The schema, as JSON text.")],
    prepared=True,
    doc="The value itself when it follows a JSON Schema, else an error that tells each fault. "
    "References to other documents are not followed.",
    examples=[
        Example(
            'root = this.json_schema("""{"properties":{"a":{"type":"string"}}}""")',
            (
                ('{"a":"x"}', '{"a":"x"}'),
                (
                    '{"a":5}',
                    "Error: failed assignment (line 1): field `this`: a invalid type. expected: string, given: integer",
                ),
            ),
        )
    ],
)
def _json_schema(source: str) -> Callable[[Value], Value]:
    schema = _schema(source)

    def run(target: Value) -> Value:
        schema.check(target)
        return target

    return run


@method(
    "json_path",
    category=CATEGORY,
    params=[Param("expression", "string", doc="A JSONPath expression.")],
    prepared=True,
    doc="All values that a JSONPath expression finds; of an expression that can only find one, that one.",
    examples=[
        Example(
            'root.names = this.json_path("$..name")',
            (('{"name":"a","b":{"name":"c"}}', '{"names":["a","c"]}'),),
        )
    ],
    **needs("jsonpath"),
)
def _json_path(expression: str) -> Callable[[Value], Value]:
    jsonpath = load("jsonpath", "method json_path")
    try:
        compiled = jsonpath.compile(expression)
    except jsonpath.JSONPathError as error:
        raise EvaluationError(f"parsing error: {error}") from error
    singular = compiled.singular_query() if hasattr(compiled, "singular_query") else False

    def run(target: Value) -> Value:
        try:
            found = compiled.findall(target)
        except jsonpath.JSONPathError as error:
            raise EvaluationError(str(error)) from error
        check_items(len(found))
        if not singular:
            return found
        if not found:
            raise EvaluationError(f"{expression} was not found")
        return found[0]

    return run


@method(
    "diff",
    category=CATEGORY,
    annotate=False,
    params=[Param("other", "unknown", doc="The value to compare with.")],
    doc="The changes that make the other value of this one, each with its `Type`, `Path`, `From` and `To`.",
    examples=[
        Example(
            "root = this.a.diff(this.b)",
            (('{"a":{"x":1},"b":{"x":2}}', '[{"From":1,"Path":["x"],"To":2,"Type":"update"}]'),),
        )
    ],
)
def _diff(target: Value, other: Value) -> list[Any]:
    return diff(target, other)


@method(
    "patch",
    category=CATEGORY,
    annotate=False,
    params=[Param("changelog", "unknown", doc="Changes, as `diff` answers with them.")],
    prepared=True,
    doc="The value with a list of changes applied.",
    examples=[
        Example(
            "root = this.a.patch(this.a.diff(this.b))",
            (('{"a":{"x":1},"b":{"x":2,"y":3}}', '{"x":2,"y":3}'),),
        )
    ],
)
def _patch(changelog: Value) -> Callable[[Value], Value]:
    changes = read_changes(changelog)
    return lambda target: patched(target, changes)


# Inferred schemas


@method(
    "infer_schema",
    category="Parsing",
    annotate=False,
    doc="A description of the value's type: `type`, `children`, and a `fingerprint` that is the same for the same "
    "type, to key caches by. Arrays must hold values of one type.",
    examples=[
        Example(
            "root.t = this.infer_schema().children.map_each(x -> x.type)",
            (('{"a":1,"b":"x"}', '{"t":["INT64","STRING"]}'),),
        )
    ],
)
def _infer_schema(target: Value) -> dict[str, Any]:
    return _described(target, "", "", 0)[0]


_TYPES: Final[dict[type, str]] = {
    type(None): "NULL",
    bool: "BOOLEAN",
    int: "INT64",
    Uint64: "INT64",
    Float32: "FLOAT32",
    str: "STRING",
    bytes: "BYTE_ARRAY",
    Timestamp: "TIMESTAMP",
    list: "ARRAY",
    dict: "OBJECT",
}
_NUMBERS: Final = {
    "BOOLEAN": 1, "INT32": 2, "INT64": 3, "FLOAT32": 4, "FLOAT64": 5, "STRING": 6, "BYTE_ARRAY": 7,
    "OBJECT": 8, "MAP": 9, "ARRAY": 10, "NULL": 11, "UNION": 12, "TIMESTAMP": 13,
}  # fmt: skip


def _type_of(value: Value) -> str:
    if isinstance(value, Number):
        return "INT64" if isinstance(value.plain(), int) else "FLOAT64"
    return _TYPES.get(type(value), "FLOAT64")


def _described(value: Value, name: str, path: str, depth: int) -> tuple[dict[str, Any], str]:
    """The description of a value and the canonical text that its fingerprint is made of.

    The text is that of the engine's schemas: `T` the type's number, `N` the name, `O` optional, `C` how
    many children there are, then the children.
    """
    check_depth(depth)
    kind = _type_of(value)
    found: dict[str, Any] = {"type": kind}
    if name:
        found["name"] = name
    children: list[tuple[dict[str, Any], str]] = []
    if isinstance(value, dict):
        children = [_described(value[key], key, f"{path}.{key}", depth + 1) for key in sorted(value)]
    elif isinstance(value, list):
        for index, item in enumerate(value):
            child = _described(item, "", f"{path}.{index}", depth + 1)
            if index and child[0]["type"] != children[0][0]["type"]:
                raise EvaluationError(
                    f"{path}.{index} mismatched array types, "
                    f"found {children[0][0]['type']} and {child[0]['type']}"
                )
            children = children or [child]
    if children:
        found["children"] = [child for child, _ in children]
    inner = "".join(f"[{index}:{text}]" for index, (_, text) in enumerate(children))
    canonical = f"T:{_NUMBERS[kind]}|N:{name}|O:0|C:{len(children)}|{inner}"
    found["fingerprint"] = hashlib.sha256(utf8(canonical)).hexdigest()
    return found, canonical
