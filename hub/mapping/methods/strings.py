"""String methods: case, trimming, searching, replacing, formatting."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from hub.mapping.gofmt import sprintf
from hub.mapping.limits import check_bytes
from hub.mapping.receivers import as_data, as_string, as_text
from hub.mapping.registry import Example, Param, method
from hub.mapping.values import EvaluationError, Value, text, utf8, wrong_type

CATEGORY: Final = "String Manipulation"
_SPACES: Final = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
_WORD: Final = re.compile(r"\w+(?:['’.·:]\w+)*")


def upper(value: str) -> str:
    """Upper case letter by letter, as Go does: `ß` has no single capital and stays."""
    if value.isascii():
        return value.upper()
    return "".join([_simple(char, char.upper(), char.title()) for char in value])


def lower(value: str) -> str:
    """Lower case letter by letter, as Go does."""
    if value.isascii():
        return value.lower()
    return "".join(["i" if char == "İ" else char.lower() for char in value])


def _simple(char: str, upper_case: str, title: str) -> str:
    if len(upper_case) == 1:
        return upper_case
    return title if len(title) == 1 else char


def _same_type(change: Callable[[str], str]) -> Callable[[Value], Value]:
    """A method of strings that gives bytes back for bytes."""

    def run(target: Value) -> Value:
        if type(target) is str:
            return change(target)
        if type(target) is bytes:
            return utf8(change(text(target)))
        raise wrong_type(target, "string")

    return run


method(
    "uppercase",
    category=CATEGORY,
    doc="The string with every letter in upper case. Letters without a single capital, such as `ß`, stay.",
    examples=[Example("root.code = this.code.uppercase()", (('{"code":"ab-1é"}', '{"code":"AB-1É"}'),))],
)(_same_type(upper))

method(
    "lowercase",
    category=CATEGORY,
    doc="The string with every letter in lower case.",
    examples=[
        Example("root.email = this.email.lowercase()", (('{"email":"Ann@X.IO"}', '{"email":"ann@x.io"}'),))
    ],
)(_same_type(lower))


def _capitalized(value: str) -> str:
    def word(match: re.Match[str]) -> str:
        found = match.group()
        for index, char in enumerate(found):
            if char.isalpha():
                return found[:index] + char.title() + found[index + 1 :].lower()
        return found

    return _WORD.sub(word, value)


method(
    "capitalize",
    category=CATEGORY,
    doc="The string with the first letter of each word in title case and the others in lower case.",
    examples=[
        Example(
            "root.name = this.name.capitalize()",
            (('{"name":"ann o\'hara-lee"}', '{"name":"Ann O\'hara-Lee"}'),),
        )
    ],
)(_same_type(_capitalized))


@method(
    "reverse",
    category=CATEGORY,
    doc="The characters of a string, or the bytes of bytes, from last to first.",
    examples=[Example("root.back = this.word.reverse()", (('{"word":"abé"}', '{"back":"éba"}'),))],
)
def _reverse(target: Value) -> Value:
    if type(target) is bytes:
        return target[::-1]
    return as_text(target)[::-1]


@method(
    "trim",
    category=CATEGORY,
    params=[Param("cutset", "string", None, "Characters to take off; white space by default.")],
    doc="The string without white space, or without any of the given characters, at either end.",
    examples=[
        Example("root.a = this.a.trim()", (('{"a":"  x y "}', '{"a":"x y"}'),)),
        Example('root.a = this.a.trim("-=")', (('{"a":"=-x-y-="}', '{"a":"x-y"}'),)),
    ],
)
def _trim(target: Value, cutset: str | None) -> Value:
    cut = _SPACES if cutset is None else cutset
    if type(target) is str:
        return target.strip(cut) if cut else target
    if type(target) is bytes:
        return utf8(text(target).strip(cut)) if cut else target
    raise wrong_type(target, "string")


@method(
    "trim_prefix",
    category=CATEGORY,
    params=[Param("prefix", "string", doc="What to take off the front.")],
    doc="The string without the prefix; unchanged when it does not start with it.",
    examples=[Example('root.id = this.id.trim_prefix("user_")', (('{"id":"user_7"}', '{"id":"7"}'),))],
)
def _trim_prefix(target: Value, prefix: str) -> Value:
    if type(target) is str:
        return target.removeprefix(prefix)
    if type(target) is bytes:
        return target.removeprefix(utf8(prefix))
    raise wrong_type(target, "string")


@method(
    "trim_suffix",
    category=CATEGORY,
    params=[Param("suffix", "string", doc="What to take off the end.")],
    doc="The string without the suffix; unchanged when it does not end with it.",
    examples=[Example('root.id = this.id.trim_suffix("_v2")', (('{"id":"a_v2"}', '{"id":"a"}'),))],
)
def _trim_suffix(target: Value, suffix: str) -> Value:
    if type(target) is str:
        return target.removesuffix(suffix)
    if type(target) is bytes:
        return target.removesuffix(utf8(suffix))
    raise wrong_type(target, "string")


@method(
    "has_prefix",
    category=CATEGORY,
    params=[Param("value", "string", doc="The prefix to look for.")],
    doc="True when the string starts with the given text.",
    examples=[
        Example(
            'root.internal = this.host.has_prefix("10.")', (('{"host":"10.0.0.1"}', '{"internal":true}'),)
        )
    ],
)
def _has_prefix(target: Value, value: str) -> bool:
    return as_data(target).startswith(utf8(value))


@method(
    "has_suffix",
    category=CATEGORY,
    params=[Param("value", "string", doc="The suffix to look for.")],
    doc="True when the string ends with the given text.",
    examples=[
        Example('root.image = this.file.has_suffix(".png")', (('{"file":"a.png"}', '{"image":true}'),))
    ],
)
def _has_suffix(target: Value, value: str) -> bool:
    return as_data(target).endswith(utf8(value))


@method(
    "index_of",
    category=CATEGORY,
    params=[Param("value", "string", doc="The text to look for.")],
    doc="The position, in bytes, where the text first occurs in the string; -1 when it does not.",
    examples=[
        Example('root.at = this.a.index_of("c")', (('{"a":"abc"}', '{"at":2}'), ('{"a":"x"}', '{"at":-1}')))
    ],
)
def _index_of(target: Value, value: str) -> int:
    return as_data(target).find(utf8(value))


@method(
    "repeat",
    category=CATEGORY,
    params=[Param("count", "integer", doc="How many times.")],
    doc="The string, or bytes, so many times in a row.",
    prepared=True,
    examples=[Example('root.line = "=".repeat(this.n)', (('{"n":3}', '{"line":"==="}'),))],
)
def _repeat(count: int) -> Callable[[Value], Value]:
    if count < 0:
        raise EvaluationError(f"invalid count, must be greater than or equal to zero: {count}")

    def run(target: Value) -> Value:
        if type(target) is not str and type(target) is not bytes:
            raise wrong_type(target, "string")
        check_bytes(len(target) * count)
        return target * count

    return run


_REPLACE_PARAMS: Final = (
    Param("old", "string", doc="The text to look for."),
    Param("new", "string", doc="The text to put in its place."),
)


def _replace_all(target: Value, old: str, new: str) -> Value:
    if type(target) is str:
        if len(new) > len(old):
            check_bytes(len(target) + target.count(old) * len(new))
        return target.replace(old, new)
    if type(target) is bytes:
        return utf8(_replace_all(text(target), old, new))
    raise wrong_type(target, "string")


method(
    "replace_all",
    category=CATEGORY,
    params=_REPLACE_PARAMS,
    doc="The string with every occurrence of one text replaced by another.",
    examples=[Example('root.a = this.a.replace_all("a", "o")', (('{"a":"banana"}', '{"a":"bonono"}'),))],
)(_replace_all)
method(
    "replace",
    category=CATEGORY,
    status="deprecated",
    params=_REPLACE_PARAMS,
    doc="An older name of `replace_all`.",
    examples=[Example('root.a = this.a.replace("a", "o")', (('{"a":"banana"}', '{"a":"bonono"}'),))],
)(_replace_all)


def _replace_all_many(values: list[Any]) -> Callable[[Value], Value]:
    if len(values) % 2:
        raise EvaluationError(
            "invalid arg, replacements should be in pairs and must therefore be even: "
            + sprintf("%v", [values])
        )
    for index, value in enumerate(values):
        if type(value) is not str and type(value) is not bytes:
            raise EvaluationError(
                f"invalid replacement value at index {index}: {wrong_type(value, 'string')}"
            )
    pairs = list(zip(map(as_text, values[::2]), map(as_text, values[1::2]), strict=True))

    def run(target: Value) -> Value:
        for old, new in pairs:
            target = _replace_all(target, old, new)
        if type(target) is not str and type(target) is not bytes:
            raise wrong_type(target, "string")
        return target

    return run


_MANY_PARAMS: Final = (
    Param("values", "array", doc="Pairs in a row: the text to look for, then its replacement."),
)
method(
    "replace_all_many",
    category=CATEGORY,
    params=_MANY_PARAMS,
    doc="The string after several replacements, one after the other: each sees what those before it made.",
    prepared=True,
    examples=[
        Example('root.a = this.a.replace_all_many(["<", "(", ">", ")"])', (('{"a":"<b>"}', '{"a":"(b)"}'),))
    ],
)(_replace_all_many)
method(
    "replace_many",
    category=CATEGORY,
    status="deprecated",
    params=_MANY_PARAMS,
    doc="An older name of `replace_all_many`.",
    prepared=True,
    examples=[
        Example('root.a = this.a.replace_many(["<", "(", ">", ")"])', (('{"a":"<b>"}', '{"a":"(b)"}'),))
    ],
)(_replace_all_many)


@method(
    "format",
    category=CATEGORY,
    variadic=True,
    lexemes=True,
    doc="The string with its verbs (`%s`, `%v`, `%d`, `%.2f`, …, as in Go's fmt) replaced by the arguments. "
    "A number of a document prints with `%v` or `%s` as it is written; call `.number()` or `.int64()` on it for numeric verbs.",
    examples=[
        Example('root.a = "%s is %v, %.1f".format(this.name, this.age, this.h.number())',
                (('{"name":"Ann","age":37,"h":1.728}', '{"a":"Ann is 37, 1.7"}'),)),
    ],
)  # fmt: skip
def _format(target: Value, arguments: list[Value]) -> str:
    found = sprintf(as_string(target), arguments)
    check_bytes(len(found))
    return found
