"""Paths into documents: found, set, deleted.

Reading never fails: what is not there is null. Writing never changes a container that somebody else may
hold: `own` copies each container on the way once, and the compiler knows which ones a mapping owns already.
Paths through arrays take an index, `-` behind the last element, and in searches `*` for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hub.mapping.tree import escaped
from hub.mapping.values import NOTHING, EvaluationError, Value, kind

Container = dict[str, Any] | list[Any]


def step(value: Value, segment: str) -> Value:
    """The element of a container under one segment of a path, or None."""
    if type(value) is dict:
        return value.get(segment)
    if type(value) is list:
        index = index_of(segment)
        if index is not None and 0 <= index < len(value):
            return value[index]
    return None


def index_of(segment: str) -> int | None:
    """The array index a segment spells, or None."""
    digits = segment[1:] if segment[:1] in ("+", "-") else segment
    return int(segment) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None


def search(value: Value, path: Sequence[str]) -> Value:
    """The value at a path, or None; `*` collects from all elements of an array."""
    for position, segment in enumerate(path):
        if type(value) is list and segment == "*":
            rest = path[position + 1 :]
            if not rest:
                return value[:] or None
            found = [hit for item in value if (hit := _found(item, rest)) is not _MISSING]
            return found or None
        value = step(value, segment)
        if value is None:
            return None
    return value


_MISSING = object()


def _found(value: Value, path: Sequence[str]) -> Value:
    for position, segment in enumerate(path):
        if type(value) is dict:
            if segment not in value:
                return _MISSING
            value = value[segment]
        elif type(value) is list:
            if segment == "*":
                return search(value, path[position:])
            index = index_of(segment)
            if index is None or not 0 <= index < len(value):
                return _MISSING
            value = value[index]
        else:
            return _MISSING
    return value


def own_root(root: Value, path: Sequence[str]) -> Container:
    """The document being built as a container of its own, ready for an assignment below it."""
    if type(root) is dict:
        return dict(root)
    if root is NOTHING or root is None:
        return {}
    if type(root) is list:
        return root[:]
    raise EvaluationError(
        f"unable to set target path {_shown(path)} as the value of the root was a non-object type ({kind(root)})"
    )


def own(container: Container, path: Sequence[str], position: int) -> Container:
    """The container under `path[position]`, copied or made, in an owned container."""
    segment = path[position]
    if type(container) is dict:
        found = container.get(segment)
        made: Container
        if type(found) is dict:
            made = dict(found)
        elif found is None:
            made = {}
        elif type(found) is list:
            made = found[:]
        else:
            raise _collision(path, position, found)
        container[segment] = made
        return made
    assert type(container) is list
    if segment == "-":
        container.append({})
        last: Container = container[-1]
        return last
    index = _checked_index(container, path, position)
    found = container[index]
    if type(found) is dict:
        made = dict(found)
    elif type(found) is list:
        made = found[:]
    elif found is None:
        raise _failed(path, f"failed to resolve path segment '{position}': field '{segment}' was not found")
    else:
        raise _collision(path, position, found)
    container[index] = made
    return made


def put(container: Container, path: Sequence[str], value: Value) -> None:
    """Sets the last segment of a path in an owned container."""
    segment = path[-1]
    if isinstance(container, dict):
        container[segment] = value
    elif segment == "-":
        container.append(value)
    else:
        container[_checked_index(container, path, len(path) - 1)] = value


def assign(root: Value, path: Sequence[str], value: Value) -> Value:
    """A document with another value at a path; the given one stays as it is."""
    fresh = own_root(root, path)
    container = fresh
    for position in range(len(path) - 1):
        container = own(container, path, position)
    put(container, path, value)
    return fresh


def without(root: Value, path: Sequence[str]) -> Value:
    """A document without what is at a path; the given one stays as it is. An object or array is always copied."""
    if root is NOTHING or root is None or isinstance(root, dict | list):
        return _removed(own_root(root, path), path)
    return root


def _removed(value: Value, path: Sequence[str]) -> Value:
    segment, rest = path[0], path[1:]
    if type(value) is dict:
        if segment not in value:
            return value
        copy = dict(value)
        if rest:
            copy[segment] = _removed(copy[segment], rest)
        else:
            del copy[segment]
        return copy
    if type(value) is list:
        index = index_of(segment)
        if index is None or not 0 <= index < len(value):
            return value
        items = value[:]
        if rest:
            items[index] = _removed(items[index], rest)
        else:
            del items[index]
        return items
    return value


def _checked_index(container: list[Any], path: Sequence[str], position: int) -> int:
    segment = path[position]
    index = index_of(segment)
    where = f"failed to resolve path segment '{position}': found array but "
    if index is None:
        raise _failed(
            path,
            f"{where}segment value '{segment}' could not be parsed into array index: "
            f'strconv.Atoi: parsing "{segment}": invalid syntax',
        )
    if index < 0:
        raise _failed(path, f"{where}index '{segment}' is invalid")
    if index >= len(container):
        raise _failed(path, f"{where}index '{segment}' exceeded target array size of '{len(container)}'")
    return index


def _failed(path: Sequence[str], why: str) -> EvaluationError:
    return EvaluationError(f"unable to set target path {_shown(path)}: {why}")


def _collision(path: Sequence[str], position: int, found: Value) -> EvaluationError:
    return EvaluationError(
        f"unable to set target path {_shown(path)} as the value of {_shown(path[: position + 1])} "
        f"was a non-object type ({kind(found)})"
    )


def _shown(path: Sequence[str]) -> str:
    return ".".join(map(escaped, path))
