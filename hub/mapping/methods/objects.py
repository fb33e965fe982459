"""Methods of objects, and those that take arrays and objects alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from hub.mapping.gojson import scalar_text
from hub.mapping.limits import check_bytes, check_depth, check_items
from hub.mapping.operators import equal
from hub.mapping.paths import assign, search, without
from hub.mapping.receivers import as_array, as_object, as_text
from hub.mapping.registry import Example, Param, method
from hub.mapping.tree import dot_path
from hub.mapping.values import (
    DELETE,
    NOTHING,
    EvaluationError,
    Lambda,
    Value,
    kind,
    text,
    utf8,
    wrong_type,
)

CATEGORY: Final = "Object & Array Manipulation"


def _keys(target: dict[str, Any]) -> list[str]:
    """Keys in the order of their bytes, which for strings is the order of their characters."""
    return sorted(target)


_SENTINELS: Final = frozenset([id(DELETE), id(NOTHING)])


@method(
    "keys",
    category=CATEGORY,
    doc="The keys of an object, sorted.",
    examples=[Example("root.k = this.o.keys()", (('{"o":{"b":1,"a":2}}', '{"k":["a","b"]}'),))],
)
def _keys_method(target: Value) -> list[str]:
    return _keys(as_object(target))


@method(
    "values",
    category=CATEGORY,
    doc="The values of an object, in the order of its sorted keys.",
    examples=[Example("root.v = this.o.values()", (('{"o":{"b":1,"a":2}}', '{"v":[2,1]}'),))],
)
def _values(target: Value) -> list[Any]:
    found = as_object(target)
    return [found[key] for key in _keys(found)]


@method(
    "key_values",
    category=CATEGORY,
    doc="The entries of an object, each as an object of its `key` and its `value`, in the order of sorted keys.",
    examples=[Example("root.v = this.o.key_values()", (('{"o":{"a":2}}', '{"v":[{"key":"a","value":2}]}'),))],
)
def _key_values(target: Value) -> list[Any]:
    found = as_object(target)
    return [{"key": key, "value": found[key]} for key in _keys(found)]


@method(
    "length",
    category=CATEGORY,
    doc="How long it is: the bytes of a string, the items of an array, the keys of an object.",
    examples=[Example("root.n = this.v.length()", (('{"v":"é"}', '{"n":2}'), ('{"v":[1,2,3]}', '{"n":3}')))],
)
def _length(target: Value) -> int:
    if type(target) is str:
        return len(target) if target.isascii() else len(utf8(target))
    if type(target) in (bytes, list, dict):
        return len(target)
    raise wrong_type(target, "string", "array", "object")


@method(
    "contains",
    category=CATEGORY,
    params=[Param("value", "unknown", doc="What to look for.")],
    doc="True when a string contains a text, or an array or object contains a value.",
    examples=[
        Example(
            'root.v = this.s.contains("b")', (('{"s":"abc"}', '{"v":true}'), ('{"s":["a"]}', '{"v":false}'))
        ),
    ],
)
def _contains(target: Value, value: Value) -> bool:
    if type(target) is str or type(target) is bytes:
        wanted = _plain_text(value)
        return wanted is not None and wanted in as_text(target)
    if type(target) is list:
        return any(equal(value, item) for item in target)
    if type(target) is dict:
        return any(equal(value, item) for item in target.values())
    raise wrong_type(target, "string", "array", "object")


def _plain_text(value: Value) -> str | None:
    if value is None or isinstance(value, list | dict):
        return None
    if type(value) is float:
        return repr(value)  # most likely one of the document, which is searched for as it is written
    return text(value) if isinstance(value, bytes) else scalar_text(value)


@method(
    "get",
    category=CATEGORY,
    params=[
        Param("path", "string", doc="Keys and positions with dots between them; `*` for all of an array.")
    ],
    doc="The value at a dot path, or null where there is none. In a key, `~1` stands for a dot and `~0` for `~`.",
    examples=[Example('root.v = this.o.get("a." + this.k)', (('{"o":{"a":{"x":7}},"k":"x"}', '{"v":7}'),))],
)
def _get(target: Value, path: str) -> Value:
    return search(target, dot_path(path))


_MISSING: Final = object()


@method(
    "exists",
    category=CATEGORY,
    params=[Param("path", "string", doc="Keys and positions with dots between them.")],
    doc="True when there is a value at a dot path, be it null.",
    examples=[
        Example(
            'root.v = this.exists("a.b")', (('{"a":{"b":null}}', '{"v":true}'), ('{"a":{}}', '{"v":false}'))
        )
    ],
)
def _exists(target: Value, path: str) -> bool:
    value = target
    segments = dot_path(path)
    for position, segment in enumerate(segments):
        if type(value) is dict:
            value = value.get(segment, _MISSING)
            if value is _MISSING:
                return False
        elif type(value) is list:
            if segment == "*":
                return search(value, segments[position:]) is not None
            if not (segment.isascii() and segment.isdigit()) or int(segment[:18]) >= len(value):
                return False
            value = value[int(segment)]
        else:
            return False
    return True


@method(
    "set",
    category=CATEGORY,
    params=[
        Param("path", "string", doc="Keys and positions with dots between them."),
        Param("value", "unknown", doc="The value to put there; `deleted()` takes away what is there."),
    ],
    doc="The object or array with another value at a dot path.",
    examples=[Example('root = this.set("a.b", 9)', (('{"a":{"c":1}}', '{"a":{"b":9,"c":1}}'),))],
)
def _set(target: Value, path: str, value: Value) -> Value:
    if type(target) is not dict and type(target) is not list:
        raise wrong_type(target, "object", "array")
    if value is NOTHING:
        return target
    return without(target, dot_path(path)) if value is DELETE else assign(target, dot_path(path), value)


@method(
    "map_each",
    category=CATEGORY,
    params=[Param("query", "query", doc="The new value of an item, or of an object's `key` and `value`.")],
    query_errors="query",
    doc="The array or object with every value replaced by what a query answers. `deleted()` leaves it out, "
    "`nothing()` keeps it as it was.",
    examples=[
        Example("root.a = this.a.map_each(x -> x * 2)", (('{"a":[1,2]}', '{"a":[2,4]}'),)),
        Example(
            "root.o = this.o.map_each(x -> x.value.uppercase())", (('{"o":{"k":"v"}}', '{"o":{"k":"V"}}'),)
        ),
        Example("root.a = this.a.map_each(x -> if x < 0 { deleted() })", (('{"a":[1,-2]}', '{"a":[1]}'),)),
    ],
)
def _map_each(target: Value, query: Lambda) -> list[Any] | dict[str, Any]:
    if type(target) is list:
        out: list[Any] = []
        keep = out.append
        try:
            for item in target:
                keep(query(item))
        except EvaluationError as error:
            raise error.within(f"failed to process element {len(out)}: ") from error
        if any(map(_SENTINELS.__contains__, map(id, out))):
            out = [
                item if found is NOTHING else found
                for item, found in zip(target, out, strict=True)
                if found is not DELETE
            ]
        return out
    if type(target) is dict:
        made = {}
        for key, value in target.items():
            try:
                found = query({"key": key, "value": value})
            except EvaluationError as error:
                raise error.within(f"failed to process element {key}: ") from error
            if found is NOTHING:
                made[key] = value
            elif found is not DELETE:
                made[key] = found
        return made
    raise wrong_type(target, "array")


@method(
    "map_each_key",
    category=CATEGORY,
    params=[Param("query", "query", doc="The new key, a string.")],
    doc="The object with every key replaced by what a query answers for it; `nothing()` keeps it.",
    examples=[
        Example("root.o = this.o.map_each_key(k -> k.uppercase())", (('{"o":{"k":1}}', '{"o":{"K":1}}'),))
    ],
)
def _map_each_key(target: Value, query: Lambda) -> dict[str, Any]:
    out = {}
    for key, value in as_object(target).items():
        found = query(key)
        if found is NOTHING:
            found = key
        if type(found) is not str:
            raise wrong_type(found, "string").within("unexpected result from key mapping: ")
        out[found] = value
    return out


@method(
    "filter",
    category=CATEGORY,
    params=[
        Param("test", "query", doc="True for what to keep, of an item or of an object's `key` and `value`.")
    ],
    doc="The array or object with only those values for which a query is true.",
    examples=[
        Example("root.a = this.a.filter(x -> x > 1)", (('{"a":[1,2]}', '{"a":[2]}'),)),
        Example('root.o = this.o.filter(x -> x.key != "b")', (('{"o":{"a":1,"b":2}}', '{"o":{"a":1}}'),)),
    ],
)
def _filter(target: Value, test: Lambda) -> list[Any] | dict[str, Any]:
    if type(target) is list:
        return [item for item in target if test(item) is True]
    if type(target) is dict:
        return {key: value for key, value in target.items() if test({"key": key, "value": value}) is True}
    raise wrong_type(target, "array", "object")


@method(
    "merge",
    category=CATEGORY,
    params=[Param("with", "unknown", doc="What to merge into it.")],
    doc="Two objects as one, deeply: values under the same key are collected into an array. "
    "Into an array, the items of another array, or a single value, are added.",
    examples=[
        Example(
            "root = this.a.merge(this.b)",
            (('{"a":{"x":1,"y":1},"b":{"y":2,"z":3}}', '{"x":1,"y":[1,2],"z":3}'),),
        ),
    ],
)
def _merge(target: Value, other: Value) -> Value:
    return _joined(target, other, lambda old, new: _added(_as_list(old), new))


@method(
    "assign",
    category=CATEGORY,
    params=[Param("with", "unknown", doc="What to assign into it.")],
    doc="Two objects as one, deeply: where both have a value, that of the argument wins. "
    "Into an array, the items of another array, or a single value, are added.",
    examples=[
        Example(
            "root = this.a.assign(this.b)",
            (('{"a":{"x":1,"y":1},"b":{"y":2,"z":3}}', '{"x":1,"y":2,"z":3}'),),
        ),
    ],
)
def _assign(target: Value, other: Value) -> Value:
    return _joined(target, other, lambda _old, new: new)


def _joined(target: Value, other: Value, collide: Callable[[Value, Value], Value]) -> Value:
    if type(target) is list:
        return _added(target, other)
    if type(target) is dict:
        return _merged(target, other, collide, 0) if type(other) is dict else target
    raise wrong_type(target, "object", "array")


def _as_list(value: Value) -> list[Any]:
    return value if type(value) is list else [value]


def _added(items: list[Any], other: Value) -> list[Any]:
    return [*items, *other] if type(other) is list else [*items, other]


def _merged(
    left: dict[str, Any], right: dict[str, Any], collide: Callable[[Value, Value], Value], depth: int
) -> dict[str, Any]:
    check_depth(depth)
    out = dict(left)
    for key, value in right.items():
        if key not in out:
            out[key] = value
        elif type(out[key]) is dict and type(value) is dict:
            out[key] = _merged(out[key], value, collide, depth + 1)
        else:
            out[key] = collide(out[key], value)
    return out


@method(
    "squash",
    category=CATEGORY,
    annotate=False,
    doc="One object of an array of objects: values under the same key are collected into an array.",
    examples=[
        Example("root.o = this.a.squash()", (('{"a":[{"x":1},{"x":2,"y":3}]}', '{"o":{"x":[1,2],"y":3}}'),))
    ],
)
def _squash(target: Value) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for item in as_array(target):
        if type(item) is dict:
            out = _merged(out, item, lambda old, new: _added(_as_list(old), new), 0)
    return out


@method(
    "collapse",
    category=CATEGORY,
    params=[Param("include_empty", "bool", False, "Keep empty objects and arrays.")],
    doc="An object or array as one flat object, whose keys are the dot paths of the values.",
    examples=[
        Example("root = this.collapse()", (('{"a":{"b":1,"c":[2,3]}}', '{"a.b":1,"a.c.0":2,"a.c.1":3}'),))
    ],
)
def _collapse(target: Value, include_empty: bool) -> dict[str, Any]:
    if type(target) is not dict and type(target) is not list:
        raise EvaluationError("not an object or array")
    out: dict[str, Any] = {}
    size = 0

    def walk(value: Value, path: str, depth: int) -> None:
        nonlocal size
        check_depth(depth)
        children: Iterable[tuple[str, Value]] = ()
        if type(value) is dict:
            children = value.items()
        elif type(value) is list:
            children = ((str(index), item) for index, item in enumerate(value))
        else:
            size += len(path)
            check_bytes(size)
            out[path] = value
            return
        if not value and include_empty:
            out[path] = value
        for name, child in children:
            walk(child, f"{path}.{name}" if depth else name, depth + 1)

    walk(target, "", 0)
    return out


@method(
    "explode",
    category=CATEGORY,
    params=[Param("path", "string", doc="Where the array or object is.")],
    doc="One object for each item of an array inside an object (or each entry of an object inside it), "
    "with that item in the place of the array.",
    examples=[
        Example('root = this.explode("v")', (('{"id":1,"v":[3,4]}', '[{"id":1,"v":3},{"id":1,"v":4}]'),))
    ],
)
def _explode(target: Value, path: str) -> Value:
    whole = as_object(target)
    segments = dot_path(path)
    found = search(whole, segments)
    if type(found) is list:
        check_items(len(found))
        return [assign(whole, segments, item) for item in found]
    if type(found) is dict:
        check_items(len(found))
        return {key: assign(whole, segments, item) for key, item in found.items()}
    raise EvaluationError(f"expected array or object value at path '{path}', found: {kind(found)}")


def _paths(arguments: list[Value]) -> list[list[str]]:
    out = []
    for index, argument in enumerate(arguments):
        if type(argument) is not str and type(argument) is not bytes:
            raise EvaluationError(f"argument {index}: {wrong_type(argument, 'string')}", placed=True)
        out.append(dot_path(as_text(argument)))
    return out


@method(
    "with",
    category=CATEGORY,
    variadic=True,
    annotate=False,
    prepared=True,
    doc="The object with only what is at the given dot paths.",
    examples=[
        Example('root = this.with("a.b", "c")', (('{"a":{"b":1,"x":2},"c":3,"d":4}', '{"a":{"b":1},"c":3}'),))
    ],
)
def _with(arguments: list[Value]) -> Callable[[Value], Value]:
    paths = _paths(arguments)
    return lambda target: _included(as_object(target), paths)


def _included(target: dict[str, Any], paths: list[list[str]]) -> dict[str, Any]:
    out = {}
    for key, value in target.items():
        below = [path[1:] for path in paths if path[0] == key]
        deeper = [path for path in below if path]
        if below:
            out[key] = _included(value, deeper) if deeper and type(value) is dict else value
    return out


@method(
    "without",
    category=CATEGORY,
    variadic=True,
    prepared=True,
    doc="The object without what is at the given dot paths.",
    examples=[
        Example(
            'root = this.without("a.b", "c")', (('{"a":{"b":1,"x":2},"c":3,"d":4}', '{"a":{"x":2},"d":4}'),)
        )
    ],
)
def _without(arguments: list[Value]) -> Callable[[Value], Value]:
    paths = _paths(arguments)
    return lambda target: _excluded(as_object(target), paths)


def _excluded(target: dict[str, Any], paths: list[list[str]]) -> dict[str, Any]:
    out = {}
    for key, value in target.items():
        below = [path[1:] for path in paths if path[0] == key]
        if all(below):
            out[key] = _excluded(value, below) if below and type(value) is dict else value
    return out
