"""Functions and methods by name: how each is declared, and how its arguments are checked.

A declaration stands beside its implementation and holds everything that the parser, the lints, the
documentation and the tests need. Implementations live in `hub/mapping/functions/*.py` and
`hub/mapping/methods/*.py`, imported here at the first lookup.

How an implementation is called, after its arguments have been checked and converted:

* a method gets `(target, *arguments)`, a function `(*arguments)`, in the declared order; optional
  ones that were not given arrive as their default; a variadic one gets all its arguments as one list;
* `needs={"clock"}` and the like puts the `Context` first: `(context, target, *arguments)`. The names are
  fields of `Context`; a context that forbids one refuses the mapping at parse time;
* `prepared=True` makes it a factory: called with the arguments alone, once when they are all static (an
  EvaluationError is then a parse error at the name), else for each record; returns `run(target)`, or `run()`
  of a function;
* a parameter of type `query` arrives as a callable value -> value;
* `lexemes=True` hands plain numbers that come straight from a document over as `Number`, for the few that
  print a document's number otherwise than a computed one (`%d`);
* it returns a value, never changes one it was given, wraps computed floats in `values.real`, computed
  integers in `values.int64`, and raises `EvaluationError` with Go's text. The compiler annotates the
  source of the target, unless `annotate=False`;
* `forgiving=True` hands null over for a target that fails, when the first argument is given: a default;
* an error inside a query handed over as a lambda is annotated with the target as well; `query_errors="query"`
  annotates it with the query instead (`map_each`), `"bare"` leaves it alone (`filter`); `query_source=True`
  gives the callable a `source`, which is what errors call the query.

`CORE_FUNCTIONS` and `CORE_METHODS` need the compiler and are declared in `hub/mapping/core.py`; every other name
is the library's, also those that take queries (`map_each`, `filter`, `fold`, `sort_by`, …), which simply call them.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from hub.errors import RecordError
from hub.mapping.timeparse import reader
from hub.mapping.timestamp import Timestamp
from hub.mapping.values import (
    INT64_MAX,
    INT64_MIN,
    EvaluationError,
    Number,
    Value,
    int64,
    kind,
    text,
    wrong_type,
)
from hub.nearest import Unknown

CORE_FUNCTIONS: Final = frozenset(
    [
        "batch_index",
        "batch_size",
        "content",
        "deleted",
        "error",
        "errored",
        "error_source_label",
        "error_source_name",
        "error_source_path",
        "error_source_type",
        "json",
        "meta",
        "metadata",
        "nothing",
        "root_meta",
        "tracing_id",
        "tracing_span",
        "flow_id",
        "var",
    ]
)
CORE_METHODS: Final = frozenset(["apply", "bloblang", "catch", "from", "from_all", "map", "not", "or"])
"""Names that need the compiler. All others are the library's, also those that take lambdas."""

FOLDED: Final = re.compile(r"(ts_|parse_timestamp|format_timestamp|parse_duration).*")
"""Methods that are evaluated when the text is parsed if their target and arguments are literals."""

Type = Literal[
    "string", "bytes", "integer", "float", "bool", "timestamp", "array", "object", "query", "unknown"
]
Status = Literal["stable", "beta", "experimental", "deprecated"]


class _Required:
    """The default of a parameter that has none."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter. Without a default it must be given; a default of `None` makes it optional.

    `scalars` lets a `query` parameter take a plain value, which arrives as a callable that returns it.
    `static` refuses an argument that is not known when the mapping is parsed.
    """

    name: str
    type: Type = "unknown"
    default: Any = REQUIRED
    doc: str = ""
    scalars: bool = False
    static: bool = False

    @property
    def optional(self) -> bool:
        return self.default is not REQUIRED


@dataclass(frozen=True, slots=True)
class Example:
    """A mapping with documents that go in and come out, as JSON text. `out` of `Error: …` expects that error.

    The tests run each one; the documentation prints it.
    """

    mapping: str
    pairs: tuple[tuple[str, str], ...] = ()
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Declaration:
    """A function or method: all that is known of it besides the code."""

    name: str
    call: Callable[..., Any]
    is_method: bool
    params: tuple[Param, ...] = ()
    variadic: bool = False
    category: str = ""
    status: Status = "stable"
    doc: str = ""
    examples: tuple[Example, ...] = ()
    extra: str = ""
    pure: bool = True
    prepared: bool = False
    needs: frozenset[str] = frozenset()
    lexemes: bool = False
    annotate: bool = True
    forgiving: bool = False
    query_errors: Literal["target", "query", "bare"] = "target"
    query_source: bool = False
    version: str = ""
    core: bool = False
    missing: str = field(default="", compare=False)

    @property
    def result(self) -> str:
        """What kind of value a call gives, in the words of `emitter.Code`, as the implementation declares it."""
        found = str(getattr(self.call, "__annotations__", {}).get("return", ""))
        if self.prepared:
            found = found.rpartition(", ")[2].rstrip("]") if found.startswith("Callable[") else ""
        return _RESULTS.get(found.partition("[")[0], "any")

    @property
    def label(self) -> str:
        return f"{'method' if self.is_method else 'function'} {self.name}"


_RESULTS: Final = {
    "str": "str", "bool": "bool", "int": "num", "float": "num", "bytes": "value", "list": "value", "dict": "value",
    "Timestamp": "value",
}  # fmt: skip

_FUNCTIONS: dict[str, Declaration] = {}
_METHODS: dict[str, Declaration] = {}
_loaded = False


def function(name: str, **declared: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declares a function. Keyword arguments are the fields of `Declaration`."""
    return _declare(_FUNCTIONS, name, False, declared)


def method(name: str, **declared: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declares a method. Keyword arguments are the fields of `Declaration`."""
    return _declare(_METHODS, name, True, declared)


def _declare(
    table: dict[str, Declaration], name: str, is_method: bool, declared: Mapping[str, Any]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    fields = dict(declared)
    fields["params"] = tuple(fields.get("params", ()))
    fields["examples"] = tuple(fields.get("examples", ()))
    fields["needs"] = frozenset(fields.get("needs", ()))

    def keep(call: Callable[..., Any]) -> Callable[..., Any]:
        assert name not in table, f"{name} is declared twice"
        table[name] = Declaration(name=name, call=call, is_method=is_method, **fields)
        return call

    return keep


def functions() -> Mapping[str, Declaration]:
    """All functions by name."""
    _load()
    return _FUNCTIONS


def methods() -> Mapping[str, Declaration]:
    """All methods by name."""
    _load()
    return _METHODS


def _load() -> None:
    global _loaded
    if _loaded:
        return
    importlib.import_module("hub.mapping.core")
    for package in ("hub.mapping.functions", "hub.mapping.methods"):
        try:
            found = importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name != package:
                raise
            continue
        for module in pkgutil.iter_modules(found.__path__, package + "."):
            importlib.import_module(module.name)
    _loaded = True


# Arguments


class ArgumentError(Exception):
    """Arguments that a declaration does not take. The parser adds the position. `unknown` is a name that it does not
    have, and those that it has."""

    def __init__(self, reason: str, unknown: Unknown | None = None) -> None:
        super().__init__(reason)
        self.unknown = unknown


def arrange(declared: Declaration, positional: Sequence[Any], named: Mapping[str, Any] | None) -> list[Any]:
    """The arguments in declared order, defaults filled in as `Default(value)`.

    Works on whatever the parser hands it (trees), and looks at none of them.
    """
    if declared.variadic:
        if named:
            raise ArgumentError("named arguments are not supported")
        return list(positional)
    params = declared.params
    if named:
        missing = [p.name for p in params if not p.optional and p.name not in named]
        unknown = sorted(set(named) - {param.name for param in params})
        if unknown:
            # The engine's words guess from what is missing; where nothing is, they leave it at that.
            guess = None if missing else (unknown[0], [param.name for param in params])
            raise ArgumentError(f"unknown {_many('parameter', unknown)}{_suggestion(missing)}", guess)
        if missing:
            raise ArgumentError(f"missing {_many('parameter:', missing)}")
        return [named.get(param.name, Default(param.default)) for param in params]
    if len(positional) > len(params):
        raise ArgumentError(f"wrong number of arguments, expected {len(params)}, got {len(positional)}")
    missing = [p.name for p in params[len(positional) :] if not p.optional]
    if missing:
        raise ArgumentError(f"missing {_many('parameter:', missing)}")
    return [*positional, *(Default(param.default) for param in params[len(positional) :])]


def _many(label: str, names: Sequence[str]) -> str:
    plural = label if len(names) == 1 else label.replace("parameter", "parameters")
    return f"{plural} {', '.join(names)}"


def _suggestion(missing: Sequence[str]) -> str:
    if not missing:
        return ""
    return f", did you mean {missing[0]}?" if len(missing) == 1 else f", expected {', '.join(missing)}"


@dataclass(frozen=True, slots=True)
class Default:
    """An argument that was not given: its default."""

    value: Any


def convert(param: Param, value: Value) -> Value:
    """A value as the implementation expects it, or an EvaluationError saying what was expected."""
    expected = param.type
    actual = type(value)
    if expected == "unknown":
        return value
    if expected == "string":
        if actual is str:
            return value
        if actual is bytes:
            return value.decode("utf-8", "surrogateescape")
    elif expected == "integer":
        if actual is int:
            return value
        if actual is not bool and isinstance(value, int):
            return int(value)
        number = value.plain() if actual is Number else value
        if isinstance(number, int) and actual is not bool:
            return number
        if isinstance(number, float) and math.isfinite(number):
            return min(max(int(number), INT64_MIN), INT64_MAX)
    elif expected == "float":
        number = value.plain() if actual is Number else value
        if isinstance(number, int | float) and actual is not bool:
            return float(number)
    elif expected == "bool":
        if actual is bool:
            return value
        if actual is Number:
            return value.text != "0"
        if isinstance(value, int | float):
            return value != 0
    elif expected == "timestamp":
        return timestamp_of(value)
    elif expected == "array":
        if actual is list:
            return value
    elif expected == "object":
        if actual is dict:
            return value
    elif expected == "bytes":
        if actual is bytes:
            return value
        if actual is str:
            return value.encode("utf-8", "surrogateescape")
    elif expected == "query" and callable(value):
        return value
    if expected in ("integer", "float", "bool"):
        raise wrong_type(value, "bool" if expected == "bool" else "number")
    wanted = "query expression" if expected == "query" else expected
    raise EvaluationError(f"wrong argument type, expected {wanted}, got {kind(value)}")


_read_rfc3339: Final = reader("2006-01-02T15:04:05.999999999Z07:00")


def timestamp_of(value: Value) -> Timestamp:
    """A timestamp, from one, from seconds since 1970, or from RFC 3339 text: Go's `IGetTimestamp`."""
    if type(value) is Timestamp:
        return value
    number = value
    if type(value) is Number:
        try:
            number = value.plain()
        except RecordError:
            number = value.text
    if isinstance(number, int) and type(number) is not bool:
        return Timestamp(int64(int(number)) * 1_000_000_000)
    if isinstance(number, float) and math.isfinite(number):
        if not INT64_MIN <= number < INT64_MAX:
            # Go's conversion gives the smallest int64, which its calendar then reads as 2^63.
            return Timestamp((INT64_MAX + 1) * 1_000_000_000)
        whole = math.trunc(number)
        return Timestamp(whole * 1_000_000_000 + int((number - whole) * 1e9))
    if isinstance(number, str | bytes):
        return _read_rfc3339(number if isinstance(number, str) else text(number))
    raise wrong_type(value, "number", "string")


def converter(param: Param) -> Callable[[Value], Value]:
    """`convert` for one parameter, for generated code."""
    return lambda value: convert(param, value)
