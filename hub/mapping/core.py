"""Declarations of the functions and methods whose meaning the compiler itself gives.

They are here so that the parser, the lints and the documentation know them like any other; none of
these implementations is ever called, but for `bloblang`, which compiles its argument.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from hub.mapping.registry import Example, Param, function, method
from hub.mapping.values import EvaluationError, Value

_MESSAGE = "Message Info"
_GENERAL = "General"


def _compiled(*_arguments: Any) -> Any:
    raise AssertionError("the compiler gives this one its meaning")


def _function(name: str, doc: str, *params: Param, category: str = _MESSAGE, **more: Any) -> None:
    function(name, category=category, doc=doc, params=params, core=True, **more)(_compiled)


def _method(name: str, doc: str, *params: Param, **more: Any) -> None:
    method(name, category=_GENERAL, doc=doc, params=params, core=True, **more)(_compiled)


_function("batch_index", "The place of the record in its batch, from 0.")
_function("batch_size", "How many records the batch holds.")
_function(
    "content",
    "The record as it came in, as bytes.",
    examples=(
        Example("root.doc = content().string()", (('{"foo":"bar"}', '{"doc":"{\\"foo\\":\\"bar\\"}"}'),)),
    ),
)
_function("error", "Why the record is flagged as failed, or null.")
_function("errored", "True when the record is flagged as failed.")
_function("error_source_label", "The label of the component that flagged the record, or null.")
_function("error_source_name", "The name of the component that flagged the record, or null.")
_function("error_source_path", "The config path of the component that flagged the record, or null.")
_function("error_source_type", "The kind of component that flagged the record, or null.")
_function("flow_id", "The id that follows the record through the program; null when it has none.")
_function(
    "json",
    "A value of the record as it came in, by dot path; the whole document without one. "
    "Follows `from` and `from_all`.",
    Param("path", "string", "", "The dot path."),
    examples=(
        Example('root.mapped = json("foo.bar")', (('{"foo":{"bar":"hello"}}', '{"mapped":"hello"}'),)),
    ),
)
_function(
    "metadata",
    "A metadata value of the record as it came in, or all of them. Follows `from` and `from_all`.",
    Param("key", "string", "", "The name; all metadata without one."),
)
_function(
    "meta",
    "Like `metadata`, but every value as a string.",
    Param("key", "string", "", "The name; all metadata without one."),
    status="deprecated",
)
_function(
    "root_meta",
    "A metadata value of the record being built, as a string. Write `@name` instead.",
    Param("key", "string", "", "The name; all metadata without one."),
    status="deprecated",
)
_function("tracing_id", "The trace id of the record; zeros when it has none.", status="experimental")
_function("tracing_span", "The tracing span of the record, or null.", status="experimental")
_function(
    "deleted",
    "A value that deletes what it is assigned to; assigned to `root`, it drops the record.",
    category=_GENERAL,
    examples=(Example("root = this\nroot.bar = deleted()", (('{"bar":1,"baz":2}', '{"baz":2}'),)),),
)
_function("nothing", "A value that leaves what it is assigned to as it is.", category=_GENERAL, status="beta")
_function(
    "var",
    "The variable of this name. Write `$name` instead.",
    Param("name", "string", doc="The name."),
    category=_GENERAL,
    status="deprecated",
)
_method(
    "apply",
    "The result of a map of this mapping with the target as its context.",
    Param("mapping", "string", doc="The map's name."),
    examples=(
        Example(
            'map thing {\n  root.inner = this.first\n}\nroot.foo = this.doc.apply("thing")',
            (('{"doc":{"first":"hello"}}', '{"foo":{"inner":"hello"}}'),),
        ),
    ),
)
_method(
    "catch",
    "The target, or this instead if the target fails. The context of the argument is the error's text.",
    Param("fallback", "query", doc="What to answer instead.", scalars=True),
    examples=(Example("root.n = this.n.number().catch(0)", (('{"n":"x"}', '{"n":0}'),)),),
)
_method(
    "or",
    "The target, or this instead if the target fails or is null.",
    Param("fallback", "query", doc="What to answer instead.", scalars=True),
    examples=(Example('root.n = this.n.or("none")', (("{}", '{"n":"none"}'),)),),
)
_method(
    "from",
    "The target as seen from another record of the batch: `content`, `json`, `meta`, `metadata`, `error` follow it.",
    Param("index", "integer", doc="The record's place; negative counts from the end."),
)
_method("from_all", "The target as seen from each record of the batch, as an array.")
_method(
    "map",
    "A query with the target as its context.",
    Param("query", "query", doc="The query."),
    examples=(Example("root.n = this.a.map(this.b + 1)", (('{"a":{"b":1}}', '{"n":2}'),)),),
)
_method(
    "not",
    "The opposite of a bool.",
    examples=(Example("root.n = this.a.not()", (('{"a":true}', '{"n":false}'),)),),
)


@method(
    "bloblang",
    category=_GENERAL,
    doc="The target mapped by a mapping given as text. It can import nothing.",
    params=[Param("mapping", "string", doc="The mapping.")],
    prepared=True,
    core=True,
    status="beta",
    examples=(
        Example(
            "root.body = this.body.bloblang(this.mapping)",
            (
                (
                    '{"body":{"foo":"hello"},"mapping":"root.foo = this.foo.uppercase()"}',
                    '{"body":{"foo":"HELLO"}}',
                ),
            ),
        ),
    ),
)
@lru_cache(maxsize=256)
def bloblang(mapping: str) -> Callable[[Value], Value]:
    """Compiles a mapping whose text is a value."""
    from hub.mapping.compiled import compile
    from hub.mapping.reader import ParseError

    try:
        found = compile(mapping)
    except ParseError as error:
        raise EvaluationError(error.told()) from error
    return found.value_of
