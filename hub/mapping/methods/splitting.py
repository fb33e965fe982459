"""Strings and arrays cut at delimiters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from hub.mapping.operators import equal
from hub.mapping.receivers import as_array, as_text
from hub.mapping.registry import Example, Param, method
from hub.mapping.values import EvaluationError, Value, kind, text, utf8, wrong_type

CATEGORY: Final = "String Manipulation"


@method(
    "split",
    category=CATEGORY,
    params=[
        Param("delimiter", "unknown", doc="The text between the parts; of an array, the item between them."),
        Param("empty_as_null", "bool", False, "Give null for empty parts."),
    ],
    doc="The parts of a string between a delimiter; an empty delimiter splits into characters. "
    "An array is split at the items that equal the delimiter, and empty groups are left out.",
    prepared=True,
    examples=[
        Example('root.parts = this.a.split(",")', (('{"a":"x,,y"}', '{"parts":["x","","y"]}'),)),
        Example('root.parts = this.a.split(",", true)', (('{"a":"x,,y"}', '{"parts":["x",null,"y"]}'),)),
        Example("root.runs = this.a.split(0)", (('{"a":[1,2,0,3]}', '{"runs":[[1,2],[3]]}'),)),
    ],
)
def _split(delimiter: Value, empty_as_null: bool) -> Callable[[Value], list[Any]]:
    separator = text(delimiter) if type(delimiter) is bytes else delimiter

    def run(target: Value) -> list[Any]:
        if type(target) is list:
            return split_array(target, lambda item: equal(item, delimiter))
        if type(separator) is not str:
            why = f"wrong argument type, expected string, got {kind(delimiter)}"
            raise EvaluationError(
                f"method 'split': failed to extract input arg 'delimiter': {why}", placed=True
            )
        if type(target) is not str and type(target) is not bytes:
            raise wrong_type(target, "string")
        parts: list[Any] = _split_text(as_text(target), separator)
        if type(target) is bytes:
            parts = [utf8(part) for part in parts]
        return [part or None for part in parts] if empty_as_null else parts

    return run


def _split_text(value: str, separator: str) -> list[str]:
    return value.split(separator) if separator else list(value)


@method(
    "split_by",
    category=CATEGORY,
    status="experimental",
    params=[Param("predicate", "query", doc="True for a character or item to split at.")],
    doc="The parts of a string between characters, or of an array between items, for which a query is true.",
    examples=[
        Example(
            'root.a = this.a.split_by(c -> c == "-" || c == " ")', (('{"a":"a-b c"}', '{"a":["a","b","c"]}'),)
        )
    ],
)
def _split_by(target: Value, predicate: Callable[[Value], Value]) -> list[Any]:
    if type(target) is str:
        return ["".join(part) for part in split_array(list(target), predicate, keep_empty=True)]
    return split_array(as_array(target), predicate)


def split_array(
    items: Sequence[Value], at: Callable[[Value], Value], *, keep_empty: bool = False
) -> list[Any]:
    """The runs of items between those for which `at` is true."""
    runs: list[list[Value]] = [[]]
    for item in items:
        if at(item) is True:
            runs.append([])
        else:
            runs[-1].append(item)
    return runs if keep_empty else [run for run in runs if run]
