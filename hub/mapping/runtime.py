"""What generated code may call: the whole world of a running mapping.

`NAMES` are the only globals it has, besides its constants; it has no builtins. Helpers that generated code
calls often take the frequent case first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from hub.errors import RecordError
from hub.mapping import operators, paths
from hub.mapping.gofmt import sprintf, type_name
from hub.mapping.gojson import scalar_text
from hub.mapping.limits import check_bytes
from hub.mapping.operators import OperatorMismatch
from hub.mapping.registry import Param, convert
from hub.mapping.tree import dot_path
from hub.mapping.values import (
    DELETE,
    NOTHING,
    EvaluationError,
    NoContext,
    Number,
    Real,
    Value,
    kind,
    real,
    text,
    utf8,
    wrong_type,
)

STACKS_MAX: Final = 5000
"""Maps applied within maps. Python's own limit may come first; it is told in the same words."""

STEPS_MAX: Final = 5_000_000
"""Calls of queries nested in queries (a lambda in a lambda, a lambda in a map) for one record."""


class FailedAssignment(EvaluationError):
    """A statement of a map failed. Passes through outer maps unchanged."""

    def __init__(self, line: int, cause: EvaluationError) -> None:
        super().__init__(f"failed assignment (line {line}): {cause}", placed=cause.placed)


class TooDeep(EvaluationError):
    """A map was applied within itself too often."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"entering map {name} exceeded maximum allowed stacks of {STACKS_MAX}, "
            "this could be due to unbounded recursion",
            placed=True,
        )


def evaluation_error(error: RecordError) -> EvaluationError:
    """Any record error as one of the language's."""
    return error if isinstance(error, EvaluationError) else EvaluationError(str(error))


def annotate(error: RecordError, source: str) -> EvaluationError:
    """An error with the source of the value that caused it."""
    return evaluation_error(error).annotated(source)


def between(error: RecordError, left: str, right: str) -> EvaluationError:
    """An operator's error with the sources of its operands."""
    if isinstance(error, OperatorMismatch):
        return error.between(left, right)
    return annotate(error, right)


def prefixed(error: RecordError, prefix: str) -> EvaluationError:
    """An error with words before it."""
    return evaluation_error(error).within(prefix)


def passed(error: RecordError, source: str) -> EvaluationError:
    """An error inside a query: annotated with the query, or as it is, which no target annotates."""
    if source:
        return annotate(error, source)
    found = evaluation_error(error).within("")
    found.placed = True
    return found


def map_failed(error: RecordError, line: int) -> EvaluationError:
    """The error of a map, one of whose statements failed."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, FailedAssignment):
            return found
        if isinstance(found, TooDeep):
            return FailedAssignment(line, found)
        found = found.__cause__
    return FailedAssignment(line, evaluation_error(error))


def text_of(error: RecordError) -> str:
    """What `catch` shows its argument."""
    return str(error)


def no_context(field: str) -> Value:
    """A reference to `this` in a message that is not JSON."""
    raise NoContext(field)


def undefined(name: str) -> Value:
    """A variable that has no value."""
    raise EvaluationError(f"variable '{name}' undefined")


def not_found(name: str) -> Value:
    """`apply` of a map that there is none of."""
    raise EvaluationError(f"map {name} was not found")


def inverted(value: Value, source: str) -> bool:
    """`!value`."""
    if value is True:
        return False
    if value is False:
        return True
    raise wrong_type(value, "bool", source=source)


def not_boolean(value: Value, source: str) -> bool:
    """The error of a condition that is neither true nor false."""
    shown = "<nil>" if value is None else sprintf("%v", [value])
    kind_shown = "<nil>" if value is None else type_name(value)
    raise EvaluationError(f"{source} resolved to a non-boolean value {shown} ({kind_shown})")


def key_of(value: Value) -> str:
    """A computed key of an object literal."""
    if type(value) is str:
        return value
    if type(value) is bytes:
        return text(value)
    raise EvaluationError(f"mapping returned invalid key type: {type_name(value)}")


def kept(items: list[Value]) -> list[Value]:
    """The items of an array literal without deleted ones."""
    return [item for item in items if item is not DELETE and item is not NOTHING]


def kept_fields(fields: dict[str, Value]) -> dict[str, Value]:
    """The fields of an object literal without deleted ones."""
    return {name: value for name, value in fields.items() if value is not DELETE and value is not NOTHING}


def bounded(value: Value) -> Value:
    """A value made of parts that may be one and the same: refused when, written out, it were too large.

    Values share their parts, so doubling one sixty times costs nothing here; writing it out would not end.
    """
    parts = value.values() if type(value) is dict else value if type(value) is list else ()
    if sum(type(part) in (list, dict) for part in parts) < 2:
        return value
    return weighed(value)


def weighed(value: Value) -> Value:
    """`bounded` for values that may hide the same part deeper."""
    if _weight(value, {}) > WEIGHT_MAX:
        raise EvaluationError(f"value would hold more than {WEIGHT_MAX} values")
    return value


def _weight(value: Value, known: dict[int, int]) -> int:
    actual = type(value)
    if actual is list or actual is dict:
        found = known.get(id(value))
        if found is None:
            parts = value.values() if actual is dict else value
            found = known[id(value)] = 1 + sum(_weight(part, known) for part in parts)
        return found
    return 1 + len(value) // 64 if actual is str else 1


WEIGHT_MAX: Final = 2_000_000
"""Values, and 64 characters of text each, that a value may hold when all shared parts are written out."""


def computed(value: Value) -> Value:
    """A document's number as one that was computed; anything else as it is."""
    if type(value) is Number:
        return operators.plain(value)
    return real(value) if type(value) is float else value


def lexeme(value: Value) -> Value:
    """Numbers straight from a document as `Number`, for implementations that print them otherwise."""
    actual = type(value)
    if actual is int:
        return Number(str(value))
    if actual is float:
        return Number(orjson.dumps(value).decode())
    if actual is list:
        return [lexeme(item) for item in value]
    if actual is dict:
        return {name: lexeme(item) for name, item in value.items()}
    return value


def argument(param: Param, value: Value, label: str) -> Value:
    """An argument that had to be evaluated, as the implementation expects it."""
    try:
        return convert(param, value)
    except RecordError as error:
        raise prefixed(error, label) from error


def dot_search(value: Value, path: str) -> Value:
    """The value at a dot path that is computed."""
    return paths.search(value, dot_path(path))


def element(value: Value, index: Value) -> Value:
    """`value[index]`: null outside of an array; bytes of a string."""
    if type(index) is str and type(value) is dict:
        return value.get(index)
    number = operators.plain(index)
    if type(number) is bool or not isinstance(number, int):
        raise EvaluationError(f"an index must be an integer, got {kind(index)}")
    if isinstance(value, str):
        data = utf8(value)
        return text(data[number : number + 1 or None]) if -len(data) <= number < len(data) else None
    if isinstance(value, list | bytes):
        return value[number] if -len(value) <= number < len(value) else None
    if value is None:
        return None
    raise wrong_type(value, "array", "string", "bytes")


def part(value: Value, low: Value, high: Value) -> Value:
    """`value[low:high]` of an array, string or bytes."""
    bounds = []
    for bound in (low, high):
        number = None if bound is None else operators.plain(bound)
        if number is not None and (type(number) is bool or not isinstance(number, int)):
            raise EvaluationError(f"a slice bound must be an integer, got {kind(bound)}")
        bounds.append(number)
    where = slice(*bounds)
    if isinstance(value, str):
        return text(utf8(value)[where])
    if isinstance(value, list | bytes):
        return value[where]
    if value is None:
        return None
    raise wrong_type(value, "array", "string", "bytes")


def viewed(document: Value) -> Mapping[str, Value] | _Elements:
    """A document that is no object, with the `get` that generated code calls on objects."""
    return _Elements(document) if type(document) is list else {}


class _Elements:
    __slots__ = ("items",)

    def __init__(self, items: list[Value]) -> None:
        self.items = items

    def get(self, segment: str) -> Value:
        return paths.step(self.items, segment)


def new_metadata(value: Value) -> dict[str, Value]:
    """All metadata, as `meta = value` sets it."""
    if type(value) is dict:
        return dict(value)
    raise EvaluationError(f"setting root meta object requires object value, received: {type_name(value)}")


def without_key(metadata: dict[str, Value], key: str) -> None:
    """`meta key = deleted()`."""
    metadata.pop(key, None)


def field_text(value: Value) -> str:
    """A value as interpolation shows it."""
    return "null" if value is None or value is DELETE or value is NOTHING else scalar_text(value)


def steps() -> Iterator[int]:
    """What one record may still spend on nested queries; at its end `next` raises StopIteration."""
    return iter(range(STEPS_MAX))


def every(count: int, query: Callable[[int], Value]) -> list[Value]:
    """`from_all`."""
    return [query(index) for index in range(count)]


def lookup(variables: Sequence[tuple[str, Value]], name: str) -> Value:
    """A variable whose name is computed."""
    for known, value in variables:
        if known == name and value is not UNSET:
            return value
    return undefined(name)


UNSET: Final = object()
"""A variable before its first `let`, or after `let x = deleted()`."""

_HELPERS: Final[tuple[Callable[..., Any], ...]] = (
    annotate, between, prefixed, passed, map_failed, text_of, no_context, undefined, not_found,
    inverted, not_boolean, key_of, kept, kept_fields, bounded, weighed, computed, lexeme, argument, element, part, viewed,
    new_metadata, without_key, steps, every, lookup, real, field_text,
    dot_search, check_bytes, paths.step, paths.search, paths.assign, paths.without,
    operators.add, operators.subtract, operators.multiply, operators.divide, operators.modulo,
    operators.negate, operators.equal, operators.not_equal, operators.less, operators.less_equal,
    operators.greater, operators.greater_equal, operators.truth,
    operators.deep_equal,
)  # fmt: skip

NAMES: Final[Mapping[str, Any]] = {
    "__builtins__": {},
    "DELETE": DELETE,
    "NOTHING": NOTHING,
    "UNSET": UNSET,
    "RecordError": RecordError,
    "EvaluationError": EvaluationError,
    "RecursionError": RecursionError,
    "StopIteration": StopIteration,
    "Exception": Exception,
    "TooDeep": TooDeep,
    "Real": Real,
    "STACKS_MAX": STACKS_MAX,
    "type": type,
    "dict": dict,
    "list": list,
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "len": len,
    "next": next,
    "enumerate": enumerate,
    **{helper.__name__: helper for helper in _HELPERS},
}
