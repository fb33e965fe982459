"""Methods with regular expressions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hub.mapping.limits import check_bytes, check_items
from hub.mapping.receivers import as_data
from hub.mapping.regex import Match, compiled, template
from hub.mapping.registry import Example, Param, method
from hub.mapping.values import Value, text

CATEGORY: Final = "Regular Expressions"
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
    search = compiled(pattern).search
    return lambda target: search(as_data(target)) is not None


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
    return lambda target: [text(match.group() or b"") for match in _bounded(regex.matches(as_data(target)))]


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
        return [
            [text(group or b"") for group in (match.group(), *match.groups())]
            for match in _bounded(regex.matches(as_data(target)))
        ]

    return run


def _bounded(matches: Any) -> list[Match]:
    found: list[Match] = list(matches)
    check_items(len(found))
    return found


def _labelled(labels: list[str], match: Match, *, is_text: bool) -> dict[str, Any]:
    groups = (match.group(), *match.groups())
    if is_text:
        return {label: text(group or b"") for label, group in zip(labels, groups, strict=True)}
    return {label: group or b"" for label, group in zip(labels, groups, strict=True)}


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
        match = regex.search(as_data(target))
        return {} if match is None else _labelled(labels, match, is_text=type(target) is str)

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
        is_text = type(target) is str
        return [
            _labelled(labels, match, is_text=is_text) for match in _bounded(regex.matches(as_data(target)))
        ]

    return run


_REPLACE: Final = (
    _PATTERN,
    Param("value", "string", doc="The replacement; `$1` or `${name}` stand for groups."),
)


def _replace_all(pattern: str, value: str) -> Callable[[Value], str]:
    regex = compiled(pattern)
    expand = template(regex, value)
    check_bytes(len(value))

    def run(target: Value) -> str:
        data = as_data(target)
        out = []
        at = size = 0
        for match in regex.matches(data):
            replacement = expand(match)
            size += match.start() - at + len(replacement)
            check_bytes(size)
            out.append(data[at : match.start()])
            out.append(replacement)
            at = match.end()
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
