"""Array methods: adding, finding, sorting, folding."""

from __future__ import annotations

from collections.abc import Callable
from functools import cmp_to_key
from typing import Any, Final

from hub.mapping.limits import check_bytes
from hub.mapping.operators import OperatorMismatch, equal
from hub.mapping.receivers import as_array, as_float, as_text
from hub.mapping.registry import Example, Param, method
from hub.mapping.values import (
    DELETE,
    NOTHING,
    EvaluationError,
    Lambda,
    Number,
    Value,
    utf8,
    wrong_type,
)

CATEGORY: Final = "Object & Array Manipulation"


def _real(value: Value) -> Value:
    """What an array holds of a value: null for `deleted()` and `nothing()`."""
    return None if value is DELETE or value is NOTHING else value


@method(
    "append",
    category=CATEGORY,
    variadic=True,
    doc="The array with the arguments added at its end.",
    examples=[Example('root.a = this.a.append("x", 1)', (('{"a":["w"]}', '{"a":["w","x",1]}'),))],
)
def _append(target: Value, arguments: list[Value]) -> list[Any]:
    return [*as_array(target), *map(_real, arguments)]


@method(
    "concat",
    category=CATEGORY,
    variadic=True,
    annotate=False,
    prepared=True,
    doc="One array of several: the items of the array, then those of each argument.",
    examples=[Example("root.a = this.a.concat(this.b, [9])", (('{"a":[1],"b":[2,3]}', '{"a":[1,2,3,9]}'),))],
)
def _concat(arguments: list[Value]) -> Callable[[Value], list[Any]]:
    added = [item for argument in arguments for item in as_array(argument)]
    return lambda target: [*as_array(target), *added]


@method(
    "zip",
    category=CATEGORY,
    variadic=True,
    annotate=False,
    prepared=True,
    doc="Arrays of the same length side by side: an array of arrays, each with one item of every input.",
    examples=[
        Example("root.a = this.a.zip(this.b)", (('{"a":[1,2],"b":["x","y"]}', '{"a":[[1,"x"],[2,"y"]]}'),))
    ],
)
def _zip(arguments: list[Value]) -> Callable[[Value], list[Any]]:
    arrays = [as_array(argument) for argument in arguments]
    if any(len(array) != len(arrays[0]) for array in arrays):
        raise EvaluationError("can't zip different length array values")

    def run(target: Value) -> list[Any]:
        first = as_array(target)
        if not arrays:
            raise EvaluationError("zip requires at least one argument")
        if len(first) != len(arrays[0]):
            raise EvaluationError("can't zip different length array values")
        return [list(row) for row in zip(first, *arrays, strict=True)]

    return run


@method(
    "enumerated",
    category=CATEGORY,
    doc="The array with each item as an object of its `index` and its `value`.",
    examples=[Example("root.a = this.a.enumerated()", (('{"a":["x"]}', '{"a":[{"index":0,"value":"x"}]}'),))],
)
def _enumerated(target: Value) -> list[Any]:
    return [{"index": index, "value": value} for index, value in enumerate(as_array(target))]


@method(
    "flatten",
    category=CATEGORY,
    doc="The array with the items of arrays inside it in their place, one level deep.",
    examples=[Example("root.a = this.a.flatten()", (('{"a":[1,[2,[3]]]}', '{"a":[1,2,[3]]}'),))],
)
def _flatten(target: Value) -> list[Any]:
    out: list[Any] = []
    for item in as_array(target):
        if type(item) is list:
            out.extend(item)
        else:
            out.append(item)
    return out


@method(
    "index",
    category=CATEGORY,
    params=[Param("index", "integer", doc="The position, from 0; negative ones count from the end.")],
    doc="The item of an array, or the byte of bytes, at a position.",
    examples=[Example("root.last = this.a.index(-1)", (('{"a":[1,2,3]}', '{"last":3}'),))],
)
def _index(target: Value, index: int) -> Value:
    items = target if type(target) is bytes else as_array(target)
    at = index + len(items) if index < 0 else index
    if not 0 <= at < len(items):
        raise EvaluationError(f"index '{at}' was out of bounds for array size: {len(items)}")
    return items[at]


@method(
    "join",
    category=CATEGORY,
    params=[Param("delimiter", "string", None, "What to put between the items.")],
    doc="One string of an array of strings.",
    examples=[Example('root.a = this.a.join(", ")', (('{"a":["x","y"]}', '{"a":"x, y"}'),))],
)
def _join(target: Value, delimiter: str | None) -> str:
    glue = delimiter or ""
    items = as_array(target)
    try:
        check_bytes(sum(map(len, items)) + len(glue) * len(items))
        return glue.join(items)
    except TypeError:
        return _joined_slowly(items, glue)


def _joined_slowly(items: list[Any], glue: str) -> str:
    """Of items that are not all strings: bytes do as well, and errors say which does not."""
    parts = []
    size = 0
    for index, item in enumerate(items):
        if type(item) is not str:
            try:
                item = as_text(item)
            except EvaluationError as error:
                raise error.within(f"failed to join element {index}: ") from error
        parts.append(item)
        size += len(item)
    check_bytes(size + len(glue) * len(parts))
    return glue.join(parts)


@method(
    "find",
    category=CATEGORY,
    status="beta",
    params=[Param("value", "unknown", doc="The value to look for.")],
    doc="The position of the first item that equals a value; -1 when there is none.",
    examples=[Example('root.at = this.a.find("b")', (('{"a":["a","b"]}', '{"at":1}'),))],
)
def _find(target: Value, value: Value) -> int:
    for index, item in enumerate(as_array(target)):
        if equal(value, item):
            return index
    return -1


@method(
    "find_all",
    category=CATEGORY,
    status="beta",
    params=[Param("value", "unknown", doc="The value to look for.")],
    doc="The positions of all items that equal a value.",
    examples=[Example('root.at = this.a.find_all("b")', (('{"a":["b","a","b"]}', '{"at":[0,2]}'),))],
)
def _find_all(target: Value, value: Value) -> list[int]:
    return [index for index, item in enumerate(as_array(target)) if equal(value, item)]


def _asked(query: Lambda, item: Value, index: int) -> bool:
    """A query that must answer with a boolean for an item, for `find_by`."""
    try:
        found = query(item)
    except EvaluationError as error:
        raise error.within(f"query returned an error for index {index}: ") from error
    if type(found) is not bool:
        mismatch = wrong_type(found, "bool")
        raise mismatch.within(f"query returned a non-boolean value for index {index}: ")
    return found


@method(
    "find_by",
    category=CATEGORY,
    status="beta",
    params=[Param("query", "query", doc="True for the item that is looked for.")],
    doc="The position of the first item for which a query is true; -1 when there is none.",
    examples=[Example("root.at = this.a.find_by(x -> x > 1)", (('{"a":[1,2,3]}', '{"at":1}'),))],
)
def _find_by(target: Value, query: Lambda) -> int:
    for index, item in enumerate(as_array(target)):
        if _asked(query, item, index):
            return index
    return -1


@method(
    "find_all_by",
    category=CATEGORY,
    status="beta",
    params=[Param("query", "query", doc="True for the items that are looked for.")],
    doc="The positions of all items for which a query is true.",
    examples=[Example("root.at = this.a.find_all_by(x -> x > 1)", (('{"a":[1,2,3]}', '{"at":[1,2]}'),))],
)
def _find_all_by(target: Value, query: Lambda) -> list[int]:
    return [index for index, item in enumerate(as_array(target)) if _asked(query, item, index)]


def _tested(query: Lambda, item: Value, index: int) -> bool:
    """A query that must answer with a boolean for an item, for `all` and `any`."""
    try:
        found = query(item)
        if type(found) is not bool:
            raise wrong_type(found, "bool")
    except OperatorMismatch as error:
        raise EvaluationError(f"element {index}: {error.text}") from error
    except EvaluationError as error:
        raise error.within(f"element {index}: ") from error
    return found


@method(
    "all",
    category=CATEGORY,
    params=[Param("test", "query", doc="The test of one item.")],
    doc="True when a test is true of every item; false for an empty array.",
    examples=[
        Example(
            "root.v = this.a.all(x -> x > 0)", (('{"a":[1,2]}', '{"v":true}'), ('{"a":[1,0]}', '{"v":false}'))
        )
    ],
)
def _all(target: Value, test: Lambda) -> bool:
    items = as_array(target)
    return bool(items) and all(_tested(test, item, index) for index, item in enumerate(items))


@method(
    "any",
    category=CATEGORY,
    params=[Param("test", "query", doc="The test of one item.")],
    doc="True when a test is true of at least one item.",
    examples=[
        Example(
            "root.v = this.a.any(x -> x > 1)", (('{"a":[1,2]}', '{"v":true}'), ('{"a":[]}', '{"v":false}'))
        )
    ],
)
def _any(target: Value, test: Lambda) -> bool:
    return any(_tested(test, item, index) for index, item in enumerate(as_array(target)))


@method(
    "fold",
    category=CATEGORY,
    params=[
        Param("initial", "unknown", doc="The tally to start with."),
        Param("query", "query", doc="The next tally, of an object of the `tally` so far and the `value`."),
    ],
    doc="One value of an array: the query is asked for each item in turn, with the tally so far.",
    examples=[Example("root.v = this.a.fold(0, x -> x.tally + x.value)", (('{"a":[3,8,11]}', '{"v":22}'),))],
)
def _fold(target: Value, initial: Value, query: Lambda) -> Value:
    items = as_array(target)
    if initial is DELETE or initial is NOTHING:
        initial = None
    tally = initial
    for item in items:
        tally = query({"tally": tally, "value": item})
    return tally


def _sorted(items: list[Any], query: Lambda, name: str) -> list[Any]:
    """Items in the order of keys that are all numbers or all strings.

    Keys are asked for, and refused, in the order of an insertion sort, which compares each with the largest
    before it: the type of the later one decides what the other has to be. A single item is not looked at.
    """
    if len(items) < 2:
        return items
    ranks: list[Any] = [None]
    largest = max_rank = None
    for index in range(1, len(items)):
        key = query(items[index])
        rank = _rank(name, index, key, query, "number", "string")
        wanted = "string" if type(rank) is bytes else "number"
        if index == 1:
            largest = query(items[0])
            max_rank = ranks[0] = _rank(name, 0, largest, query, wanted)
        elif type(rank) is not type(max_rank):
            raise _unsortable(name, index - 1, largest, query, wanted)
        if rank > max_rank:
            largest, max_rank = key, rank
        ranks.append(rank)
    return [items[index] for index in sorted(range(len(items)), key=ranks.__getitem__)]


def _rank(name: str, index: int, key: Value, query: Lambda, *expected: str) -> Any:
    """What a key is compared by, when it is of an expected type."""
    if isinstance(key, str | bytes) and "string" in expected:
        return utf8(key) if isinstance(key, str) else key
    if isinstance(key, int | float | Number) and not isinstance(key, bool) and "number" in expected:
        try:
            return as_float(key)
        except EvaluationError as error:
            raise EvaluationError(f"{name} element {index}: {error.text}", placed=True) from error
    raise _unsortable(name, index, key, query, *expected)


def _unsortable(name: str, index: int, key: Value, query: Lambda, *expected: str) -> EvaluationError:
    why = wrong_type(key, *expected, source=getattr(query, "source", "")).text
    return EvaluationError(f"{name} element {index}: {why}", placed=True)


def _itself(item: Value) -> Value:
    return item


@method(
    "sort",
    category=CATEGORY,
    query_errors="bare",
    params=[Param("compare", "query", None, "True when `left` comes before `right`, of an object of both.")],
    doc="The array in rising order: of numbers, of strings byte by byte, or as a comparison says. "
    "Equal items keep their order.",
    examples=[
        Example("root.a = this.a.sort()", (('{"a":[3,1,2]}', '{"a":[1,2,3]}'),)),
        Example("root.a = this.a.sort(x -> x.left.n > x.right.n)", (('{"a":[{"n":1},{"n":2}]}', '{"a":[{"n":2},{"n":1}]}'),)),
    ],
)  # fmt: skip
def _sort(target: Value, compare: Lambda | None) -> list[Any]:
    items = as_array(target)
    if compare is None:
        return _sorted(items, _itself, "sort")

    def before(left: Value, right: Value) -> bool:
        found = compare({"left": left, "right": right})
        if type(found) is not bool:
            raise wrong_type(found, "bool", source="sort argument")
        return found

    return sorted(items, key=cmp_to_key(lambda left, right: -before(left, right)))


@method(
    "sort_by",
    category=CATEGORY,
    query_errors="bare",
    query_source=True,
    params=[Param("query", "query", doc="What to sort an item by: a number or a string.")],
    doc="The array in rising order of what a query answers for each item.",
    examples=[
        Example(
            "root.a = this.a.sort_by(x -> x.n)", (('{"a":[{"n":2},{"n":1}]}', '{"a":[{"n":1},{"n":2}]}'),)
        )
    ],
)
def _sort_by(target: Value, query: Lambda) -> list[Any]:
    items = as_array(target)
    return _sorted(items, query, "sort_by")


@method(
    "unique",
    category=CATEGORY,
    params=[Param("emit", "query", None, "What to compare items by: a number or a string.")],
    doc="The array without items that were there before; they are compared as numbers or as strings.",
    examples=[
        Example("root.a = this.a.unique()", (('{"a":["x","y","x"]}', '{"a":["x","y"]}'),)),
        Example(
            "root.a = this.a.unique(x -> x.id)",
            (('{"a":[{"id":1,"v":1},{"id":1,"v":2}]}', '{"a":[{"id":1,"v":1}]}'),),
        ),
    ],
)
def _unique(target: Value, emit: Lambda | None) -> list[Any]:
    strings: set[bytes] = set()
    numbers: set[float] = set()
    out = []
    for index, item in enumerate(as_array(target)):
        try:
            key = item if emit is None else emit(item)
            if isinstance(key, str | bytes):
                found, seen = (utf8(key) if isinstance(key, str) else key), strings
                if found in seen:
                    continue
                seen.add(found)
            elif isinstance(key, int | float | Number) and not isinstance(key, bool):
                number = as_float(key)
                if number in numbers:
                    continue
                numbers.add(number)
            else:
                raise wrong_type(key, "string", "number")
        except EvaluationError as error:
            raise error.within(f"index {index}: ") from error
        out.append(item)
    return out


@method(
    "slice",
    category=CATEGORY,
    params=[
        Param("low", "integer", doc="Where to start; negative positions count from the end."),
        Param("high", "integer", None, "Where to stop, not included; the end by default."),
    ],
    doc="The part of an array, or of a string in bytes, between two positions.",
    prepared=True,
    examples=[
        Example(
            "root.v = this.v.slice(1, 3)",
            (('{"v":"abcd"}', '{"v":"bc"}'), ('{"v":[1,2,3,4]}', '{"v":[2,3]}')),
        ),
        Example("root.v = this.v.slice(-2)", (('{"v":"abcd"}', '{"v":"cd"}'),)),
    ],
)
def _slice(low: int, high: int | None) -> Callable[[Value], Value]:
    if high is not None and high > 0 and low >= high:
        raise EvaluationError(f"lower slice bound {low} must be lower than upper ({high})")

    def bounds(size: int) -> tuple[int, int]:
        upper = size if high is None else max(high + size, 0) if high < 0 else min(high, size)
        lower = max(low + size, 0) if low < 0 else low
        if lower > upper:
            raise EvaluationError(
                f"lower slice bound {lower} must be lower than or equal to upper bound ({upper}) "
                f"and target length ({size})"
            )
        return lower, upper

    def run(target: Value) -> Value:
        if type(target) is str:
            if target.isascii():
                start, end = bounds(len(target))
                return target[start:end]
            data = utf8(target)
            start, end = bounds(len(data))
            return as_text(data[start:end])
        if type(target) is bytes or type(target) is list:
            start, end = bounds(len(target))
            return target[start:end]
        raise wrong_type(target, "array", "string")

    return run
