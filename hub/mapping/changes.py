"""Differences between two values as a list of changes, and lists of changes applied.

A change is `{"Type": "create"|"update"|"delete", "Path": [...], "From": ..., "To": ...}`, the form that the
engine takes over from its Go library.
"""

from __future__ import annotations

from typing import Any, Final

from hub.mapping.limits import check_depth, check_items
from hub.mapping.operators import equal
from hub.mapping.values import DELETE, NOTHING, EvaluationError, Number, Value, kind

_MISMATCH: Final = " types do not match (cause count 0)\n"


def diff(left: Value, right: Value) -> list[dict[str, Any]]:
    """The changes that make the right value of the left one."""
    out: list[dict[str, Any]] = []
    _compare(left, right, [], out)
    return out


def _change(kind_of: str, path: list[str], before: Value, after: Value) -> dict[str, Any]:
    return {"Type": kind_of, "Path": list(path), "From": before, "To": after}


def _compare(left: Value, right: Value, path: list[str], out: list[dict[str, Any]]) -> None:
    check_depth(len(path))
    check_items(len(out))
    if left is None or right is None:
        if left is not right:
            out.append(_change("update", path, left, right))
        return
    if kind(left) != kind(right):
        if not path:
            raise EvaluationError(_MISMATCH)
        out.append(_change("update", path, left, right))
        return
    if isinstance(left, dict):
        for key in sorted({*left, *right}):
            below = [*path, key]
            if key not in right:
                out.append(_change("delete", below, left[key], None))
            elif key not in left:
                out.append(_change("create", below, None, right[key]))
            else:
                _compare(left[key], right[key], below, out)
    elif isinstance(left, list):
        for index in range(max(len(left), len(right))):
            below = [*path, str(index)]
            if index >= len(right):
                out.append(_change("delete", below, left[index], None))
            elif index >= len(left):
                out.append(_change("create", below, None, right[index]))
            else:
                _compare(left[index], right[index], below, out)
    elif not equal(left, right):
        out.append(_change("update", path, left, right))


def read_changes(changelog: Value) -> list[tuple[str, list[str], Value]]:
    """A changelog as (type, path, new value), or an error that says what is wrong with it."""
    if type(changelog) is not list:
        given = {"object": "map", "number": "float64", "null": "nil"}.get(kind(changelog), kind(changelog))
        raise EvaluationError(f"'' source data must be an array or slice, got {given}")
    found = []
    for index, entry in enumerate(changelog):
        if type(entry) is not dict:
            raise EvaluationError(f"'[{index}]' expected a map, got '{kind(entry)}'")
        what = entry.get("Type", entry.get("type"))
        path = entry.get("Path", entry.get("path"))
        if what not in ("create", "update", "delete") or type(path) is not list:
            raise EvaluationError(f"'[{index}]' is no change: it needs a Type and a Path")
        segments = [item.text if isinstance(item, Number) else str(item) for item in path]
        found.append((str(what), segments, entry.get("To", entry.get("to"))))
    return found


def patched(value: Value, changes: list[tuple[str, list[str], Value]]) -> Value:
    """The value with changes applied one after the other; what a change does not find is passed over."""
    for what, path, after in changes:
        value = _applied(value, path, DELETE if what == "delete" else after, 0)
        if value is DELETE:
            value = None
    return value


def _applied(value: Value, path: list[str], after: Value, depth: int) -> Value:
    check_depth(depth)
    if not path:
        return after
    name, rest = path[0], path[1:]
    if type(value) is dict:
        made = dict(value)
        inner = _applied(made.get(name, NOTHING), rest, after, depth + 1)
        if inner is DELETE:
            made.pop(name, None)
        elif inner is not NOTHING:
            made[name] = inner
        return made
    if type(value) is list and name.isascii() and name.isdigit():
        items = list(value)
        index = int(name[:9])
        if index >= len(items):
            inner = _applied(NOTHING, rest, after, depth + 1)
            return items if inner in (DELETE, NOTHING) else [*items, inner]
        inner = _applied(items[index], rest, after, depth + 1)
        if inner is DELETE:
            del items[index]
        else:
            items[index] = inner
        return items
    if value is NOTHING and after is not DELETE:
        return {name: _applied(NOTHING, rest, after, depth + 1)}
    return value
