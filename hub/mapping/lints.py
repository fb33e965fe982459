"""What is allowed but surely not meant: warnings for a mapping's author."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass
from typing import Any, Final

from hub.mapping import tree
from hub.mapping.analysis import Whole
from hub.mapping.reader import line_and_column
from hub.mapping.tree import literal_of
from hub.mapping.values import kind
from hub.nearest import did_you_mean


@dataclass(frozen=True, slots=True, order=True)
class Warning_:
    """One warning, with its place in the text."""

    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line} char {self.column}: {self.message}"


def warnings(
    found: Whole, text: str, unclear: Sequence[int], schema: Dictionary[str, Any] | None
) -> tuple[Warning_, ...]:
    """All warnings, in the order of the text. `schema` is the JSON Schema of the documents, if known."""
    problems = [
        (
            at,
            "&& and || bind equally and are evaluated from left to right: put parentheses where you mean them",
        )
        for at in dict.fromkeys(unclear)
    ]
    if isinstance(found, tree.Mapping):
        problems += _unused(found)
    nodes: list[Any] = list(found.statements) if isinstance(found, tree.Mapping) else [found]
    for node in nodes:
        problems += _never_equal(node, schema)
        if schema is not None:
            problems += _unknown_paths(node, schema)
    return tuple(
        sorted(Warning_(*line_and_column(text, at), message) for at, message in dict.fromkeys(problems))
    )


def _unused(mapping: tree.Mapping) -> Iterator[tuple[int, str]]:
    bodies: list[Sequence[tree.Statement]] = [mapping.statements]
    bodies += [definition.statements for definition in mapping.maps if definition.text == mapping.text]
    for statements in bodies:
        nodes = [node for statement in statements for node in tree.walk(statement)]
        used: set[str] = set()
        for node in nodes:
            if isinstance(node, tree.Variable):
                used.add(node.name)
            if isinstance(node, tree.Function) and node.name == "var":
                name = literal_of(node.bound[0])
                if name is None:
                    return
                used.add(name.value)
        for node in nodes:
            if isinstance(node, tree.Let) and node.name not in used:
                yield node.at, f"variable {node.name} is never used"


# Comparisons that can never hold

_RETURNS: Final = {
    **dict.fromkeys(
        ["string", "uppercase", "lowercase", "capitalize", "trim", "trim_prefix", "trim_suffix", "format", "type",
         "join", "re_replace_all", "replace_all", "ts_format", "ts_strftime", "quote", "unquote", "slug"],
        "string",
    ),
    **dict.fromkeys(
        ["length", "number", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32",
         "float64", "abs", "ceil", "floor", "round", "log", "log10", "sum", "ts_unix", "ts_unix_milli",
         "ts_unix_micro", "ts_unix_nano", "index_of", "bitwise_and", "bitwise_or", "bitwise_xor"],
        "number",
    ),
    **dict.fromkeys(
        ["bool", "contains", "exists", "has_prefix", "has_suffix", "re_match", "any", "all", "not"], "bool"
    ),
    **dict.fromkeys(["map_each_key", "without", "parse_url"], "object"),
    **dict.fromkeys(["split", "keys", "values", "enumerated", "flatten", "array"], "array"),
}  # fmt: skip
_SCHEMA_KINDS: Final = {
    "string": "string", "integer": "number", "number": "number", "boolean": "bool", "array": "array",
    "object": "object",
}  # fmt: skip


def _never_equal(whole: Any, schema: Dictionary[str, Any] | None) -> Iterator[tuple[int, str]]:
    for node in _outermost(whole):
        if isinstance(node, tree.Match) and node.subject is not None:
            yield from _never_hit(node, _kind(node.subject, schema), schema)
        if not isinstance(node, tree.Binary):
            continue
        left, right = _kind(node.left, schema), _kind(node.right, schema)
        if left is None or right is None or left == right or (left == "bool" and right == "number"):
            continue
        if node.op in ("==", "!="):
            yield node.at, f"{left} {node.op} {right} is always {'false' if node.op == '==' else 'true'}"
        elif node.op in ("<", "<=", ">", ">="):
            yield node.at, f"{left} {node.op} {right} always fails"


def _never_hit(
    node: tree.Match, subject: str | None, schema: Dictionary[str, Any] | None
) -> Iterator[tuple[int, str]]:
    for case in node.cases:
        if subject is None or case.test is None or literal_of(case.test) is None:
            continue
        wanted = _kind(case.test, schema)
        if wanted is not None and wanted != subject and not (subject == "bool" and wanted == "number"):
            yield case.test.at, f"a {subject} never matches a {wanted}"


def _outermost(whole: Any) -> Iterator[Any]:
    """All nodes whose `this` is the document: not those in queries handed to methods."""
    stack = [whole]
    while stack:
        node = stack.pop()
        yield node
        match node:
            case tree.Method(target, arguments=arguments):
                stack.append(target)
                lazy = any(param.type == "query" for param in node.declared.params)
                if not lazy:
                    stack += [argument.value for argument in arguments]
            case tree.MapTo(target, _):
                stack.append(target)
            case tree.Match(subject, cases):
                if subject is not None:
                    stack.append(subject)
                else:
                    stack += [item for case in cases for item in (case.test, case.result) if item is not None]
            case tree.Lambda():
                pass
            case _:
                stack += list(tree.children(node))


def _kind(node: tree.Query, schema: Dictionary[str, Any] | None) -> str | None:
    found = literal_of(node)
    if found is not None:
        name = kind(found.value)
        return name if name in ("string", "number", "bool", "array", "object") else None
    match node:
        case tree.Method(name=name):
            return _RETURNS.get(name)
        case tree.Field("this", path) if schema is not None:
            place = _subschema(schema, path)
            return _SCHEMA_KINDS.get(str(place.get("type"))) if isinstance(place, dict) else None
        case tree.Array():
            return "array"
        case tree.Object():
            return "object"
        case tree.Binary(op) if op in ("-", "*", "/", "%"):
            return "number"
        case tree.Binary(op) if op not in ("+", "|"):
            return "bool"
        case tree.Negate():
            return "number"
        case tree.Not():
            return "bool"
    return None


def _subschema(schema: Any, path: Sequence[str]) -> Any:
    for segment in path:
        properties = schema.get("properties") if isinstance(schema, dict) else None
        if not isinstance(properties, dict):
            return None
        schema = properties.get(segment)
    return schema


def _unknown_paths(whole: Any, schema: Dictionary[str, Any]) -> Iterator[tuple[int, str]]:
    for node in _outermost(whole):
        if not isinstance(node, tree.Field) or node.base != "this":
            continue
        place: Any = schema
        for depth, segment in enumerate(node.path):
            properties = place.get("properties") if isinstance(place, dict) else None
            if not isinstance(properties, dict) or place.get("additionalProperties") is True:
                break
            if segment not in properties:
                hint = did_you_mean(segment, properties)
                yield node.at, f"the schema has no field {'.'.join(node.path[: depth + 1])}{hint}"
                break
            place = properties[segment]
