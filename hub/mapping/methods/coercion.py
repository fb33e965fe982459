"""Methods that turn a value into one of another type, or insist on what it is."""

from __future__ import annotations

from typing import Any, Final

from hub.mapping.conversions import finite, parse_float
from hub.mapping.gojson import scalar_text
from hub.mapping.receivers import as_float, as_moment, as_text
from hub.mapping.registry import Example, Param, method
from hub.mapping.timestamp import Timestamp
from hub.mapping.values import EvaluationError, Number, Value, kind, utf8, wrong_type

CATEGORY: Final = "Type Coercion"

_TRUE: Final = frozenset(["1", "t", "T", "true", "TRUE", "True"])
_FALSE: Final = frozenset(["0", "f", "F", "false", "FALSE", "False"])


@method(
    "array",
    category=CATEGORY,
    doc="The value itself when it is an array, else an array that holds just the value.",
    examples=[Example("root.v = this.v.array()", (('{"v":5}', '{"v":[5]}'), ('{"v":[1,2]}', '{"v":[1,2]}')))],
)
def _array(target: Value) -> list[Any]:
    return target if type(target) is list else [target]


@method(
    "bool",
    category=CATEGORY,
    forgiving=True,
    lexemes=True,
    params=[Param("default", "bool", None, "What to answer for a value that is no boolean.")],
    doc="The value as a boolean: numbers are true unless they are 0, and `true`, `t`, `1`, `false`, `f`, `0` "
    "are understood as text. With a default there are no errors.",
    examples=[
        Example("root.v = this.v.bool()", (('{"v":0}', '{"v":false}'), ('{"v":"true"}', '{"v":true}'))),
        Example("root.v = this.v.bool(false)", (('{"v":"maybe"}', '{"v":false}'),)),
    ],
)
def _bool(target: Value, default: bool | None) -> bool:
    if type(target) is bool:
        return target
    if isinstance(target, Number):
        return target.text != "0"
    if isinstance(target, int | float):
        return target != 0
    if isinstance(target, str | bytes):
        found = as_text(target)
        if found in _TRUE or found in _FALSE:
            return found in _TRUE
    if default is not None:
        return default
    raise wrong_type(target, "bool")


@method(
    "bytes",
    category=CATEGORY,
    lexemes=True,
    doc="The value as bytes: of a string its UTF-8, of anything else the bytes of its text.",
    examples=[Example("root.v = this.v.bytes().length()", (('{"v":"é"}', '{"v":2}'),))],
)
def _bytes(target: Value) -> bytes:
    return target if type(target) is bytes else utf8(scalar_text(target))


@method(
    "string",
    category=CATEGORY,
    lexemes=True,
    doc="The value as text: strings and the numbers of a document as they are, computed floats in `%g` "
    "form, objects and arrays as JSON.",
    examples=[
        Example("root.v = this.v.string()", (('{"v":1.50}', '{"v":"1.50"}'), ('{"v":{"b":1,"a":[]}}', '{"v":"{\\"a\\":[],\\"b\\":1}"}')))
    ],
)  # fmt: skip
def _string(target: Value) -> str:
    return scalar_text(target)


@method(
    "number",
    category=CATEGORY,
    forgiving=True,
    params=[Param("default", "float", None, "What to answer for a value that is no number.")],
    doc="The value as a float, from a number or the text of one. With a default there are no errors.",
    examples=[
        Example("root.v = this.v.number()", (('{"v":"1.50"}', '{"v":1.5}'),)),
        Example("root.v = this.v.number(0)", (('{"v":"many"}', '{"v":0}'),)),
    ],
)
def _number(target: Value, default: float | None) -> float:
    try:
        if isinstance(target, str | bytes):
            return finite(parse_float(as_text(target)))
        return finite(as_float(target))
    except EvaluationError:
        if default is None:
            raise
        return finite(default)


@method(
    "timestamp",
    category=CATEGORY,
    forgiving=True,
    params=[Param("default", "timestamp", None, "What to answer for a value that is no timestamp.")],
    doc="The value as a timestamp: seconds since 1970 from a number, RFC 3339 from a string. "
    "With a default there are no errors.",
    examples=[
        Example("root.t = this.t.timestamp()", (('{"t":1597405526.5}', '{"t":"2020-08-14T11:45:26.5Z"}'),)),
        Example('root.t = this.t.timestamp("2020-01-01T00:00:00Z")', (('{"t":"soon"}', '{"t":"2020-01-01T00:00:00Z"}'),)),
    ],
)  # fmt: skip
def _timestamp(target: Value, default: Timestamp | None) -> Timestamp:
    try:
        return as_moment(target)
    except EvaluationError:
        if default is None:
            raise
        return default


@method(
    "not_null",
    category=CATEGORY,
    doc="The value itself, or an error when it is null: to be caught with `catch` or to refuse the record.",
    examples=[
        Example('root.v = this.v.not_null().catch("none")', (('{"v":1}', '{"v":1}'), ("{}", '{"v":"none"}')))
    ],
)
def _not_null(target: Value) -> Value:
    if target is None:
        raise EvaluationError("value is null")
    return target


@method(
    "not_empty",
    category=CATEGORY,
    doc="The string, array or object itself, or an error when it is empty.",
    examples=[
        Example("root.v = this.v.not_empty()", (('{"v":[1]}', '{"v":[1]}'),)),
        Example('root.v = this.v.not_empty().catch("?")', (('{"v":""}', '{"v":"?"}'),)),
    ],
)
def _not_empty(target: Value) -> Value:
    if type(target) not in (str, list, dict):
        raise wrong_type(target, "string", "array", "object")
    if not target:
        raise EvaluationError(f"{kind(target)} value is empty")
    return target


@method(
    "type",
    category=CATEGORY,
    doc="The name of the value's type: `string`, `bytes`, `number`, `bool`, `timestamp`, `array`, `object`, `null`.",
    examples=[Example("root.t = this.v.type()", (('{"v":1}', '{"t":"number"}'), ("{}", '{"t":"null"}')))],
)
def _type(target: Value) -> str:
    return kind(target)
