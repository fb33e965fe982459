"""Methods with regular expressions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from hub.mapping.limits import check_bytes, check_items
from hub.mapping.plainregex import plain
from hub.mapping.receivers import as_data
from hub.mapping.regex import Spans, compiled, template
from hub.mapping.registry import Example, Param, method
from hub.mapping.values import Value, text

CATEGORY: Final = "Regular Expressions"
QUICK_BYTES_MAX: Final = 4096
"""Texts and replacements up to this size are not counted while they are put together: their product is
within the limit of a string."""
_PATTERN: Final = Param("pattern", "string", doc="An RE2 expression.")


@method(
    "re_match",
    category=CATEGORY,
    params=[_PATTERN],
    prepared=True,
    doc="True when the expression matches anywhere in the string.",
    examples=[
        Example(
            'root.v = this.v.re_match("^[0-9]+$")',
            (('{"v":"42"}', '{"v":true}'), ('{"v":"4x"}', '{"v":false}')),
        )
    ],
)
def _re_match(pattern: str) -> Callable[[Value], bool]:
    found, quick = compiled(pattern).found, plain(pattern)
    if quick is None:
        return lambda target: found(as_data(target))
    search = quick.search

    def run(target: Value) -> bool:
        if type(target) is str and target.isascii():
            return search(target) is not None
        return found(as_data(target))

    return run


@method(
    "re_find_all",
    category=CATEGORY,
    params=[_PATTERN],
    prepared=True,
    doc="All parts of the string that the expression matches.",
    examples=[
        Example('root.v = this.v.re_find_all("a.")', (('{"v":"paranormal"}', '{"v":["ar","an","al"]}'),))
    ],
)
def _re_find_all(pattern: str) -> Callable[[Value], list[Any]]:
    regex = compiled(pattern)

    def run(target: Value) -> list[Any]:
        data = as_data(target)
        return [text(data[start:end]) for [(start, end), *_] in _bounded(regex.matches(data, groups=False))]

    return run


@method(
    "re_find_all_submatch",
    category=CATEGORY,
    params=[_PATTERN],
    prepared=True,
    doc="All matches of the expression, each as an array of the whole match and its groups.",
    examples=[
        Example(
            'root.v = this.v.re_find_all_submatch("(a)(x?)")',
            (('{"v":"-axa"}', '{"v":[["ax","a","x"],["a","a",""]]}'),),
        )
    ],
)
def _re_find_all_submatch(pattern: str) -> Callable[[Value], list[Any]]:
    regex = compiled(pattern)

    def run(target: Value) -> list[Any]:
        data = as_data(target)
        return [
            [text(data[start:end]) for start, end in spans]
            for spans in _bounded(regex.matches(data, groups=True))
        ]

    return run


def _bounded(matches: Iterator[Spans]) -> list[Spans]:
    found = list(matches)
    check_items(len(found))
    return found


def _labelled(labels: list[str], data: bytes, spans: Spans, *, is_text: bool) -> dict[str, Any]:
    groups = [data[start:end] for start, end in spans]
    return dict(zip(labels, map(text, groups) if is_text else groups, strict=True))


@method(
    "re_find_object",
    category=CATEGORY,
    params=[_PATTERN],
    prepared=True,
    doc="The first match of the expression as an object: the whole match under `0`, each group under its name "
    "or its number. Empty when nothing matches.",
    examples=[
        Example(
            'root.v = this.v.re_find_object("(?P<k>[a-z]+)=([0-9]+)")',
            (('{"v":"x a=1"}', '{"v":{"0":"a=1","2":"1","k":"a"}}'),),
        )
    ],
)
def _re_find_object(pattern: str) -> Callable[[Value], dict[str, Any]]:
    regex = compiled(pattern)
    labels = regex.labels()

    def run(target: Value) -> dict[str, Any]:
        data = as_data(target)
        spans = regex.first(data)
        return {} if spans is None else _labelled(labels, data, spans, is_text=type(target) is str)

    return run


@method(
    "re_find_all_object",
    category=CATEGORY,
    params=[_PATTERN],
    prepared=True,
    doc="All matches of the expression, each as an object like that of `re_find_object`.",
    examples=[
        Example(
            'root.v = this.v.re_find_all_object("(?P<k>[a-z])")',
            (('{"v":"a-b"}', '{"v":[{"0":"a","k":"a"},{"0":"b","k":"b"}]}'),),
        )
    ],
)
def _re_find_all_object(pattern: str) -> Callable[[Value], list[Any]]:
    regex = compiled(pattern)
    labels = regex.labels()

    def run(target: Value) -> list[Any]:
        is_text, data = type(target) is str, as_data(target)
        return [
            _labelled(labels, data, spans, is_text=is_text)
            for spans in _bounded(regex.matches(data, groups=True))
        ]

    return run


_REPLACE: Final = (
    _PATTERN,
    Param("value", "string", doc="The replacement; `$1` or `${name}` stand for groups."),
)


def _replace_all(pattern: str, value: str) -> Callable[[Value], str]:
    regex = compiled(pattern)
    made = template(regex, value)
    fixed = made if isinstance(made, bytes) else b""
    expand = None if isinstance(made, bytes) else made
    check_bytes(len(value))
    quick = plain(pattern) if expand is None and len(fixed) <= QUICK_BYTES_MAX else None
    written = text(fixed).replace("\\", "\\\\")

    def run(target: Value) -> str:
        if quick is not None and type(target) is str and target.isascii() and len(target) <= QUICK_BYTES_MAX:
            return quick.sub(written, target)
        data = as_data(target)
        out = []
        at = size = 0
        for spans in regex.matches(data, groups=expand is not None):
            start, end = spans[0]
            replacement = fixed if expand is None else expand(data, spans)
            size += start - at + len(replacement)
            check_bytes(size)
            out.append(data[at:start])
            out.append(replacement)
            at = end
        if not out:
            return text(data)
        out.append(data[at:])
        return text(b"".join(out))

    return run


method(
    "re_replace_all",
    category=CATEGORY,
    params=_REPLACE,
    prepared=True,
    doc="The string with every match of the expression replaced. In the replacement `$1` and `${name}` are groups, "
    "`$$` is a dollar.",
    examples=[
        Example(
            'root.v = this.v.re_replace_all("([a-z]+)@", "${1} at ")',
            (('{"v":"ann@x.io"}', '{"v":"ann at x.io"}'),),
        )
    ],
)(_replace_all)
method(
    "re_replace",
    category=CATEGORY,
    status="deprecated",
    params=_REPLACE,
    prepared=True,
    doc="An older name of `re_replace_all`.",
    examples=[Example('root.v = this.v.re_replace("a", "o")', (('{"v":"banana"}', '{"v":"bonono"}'),))],
)(_replace_all)
