"""Text as it must be written elsewhere: literals, HTML, URLs, paths."""

from __future__ import annotations

import html
import posixpath
import re
from contextlib import suppress
from typing import Final
from urllib.parse import quote

from hub.mapping.reader import unquote
from hub.mapping.receivers import as_array, as_string, as_text
from hub.mapping.registry import Example, method
from hub.mapping.urls import unescape_url
from hub.mapping.values import EvaluationError, Value, go_quote, utf8, wrong_type

CATEGORY: Final = "String Manipulation"


@method(
    "quote",
    category=CATEGORY,
    doc="The string as a double-quoted literal, with escapes where they are needed.",
    examples=[Example("root.q = this.a.quote()", (('{"a":"x\\ty"}', '{"q":"\\"x\\\\ty\\""}'),))],
)
def _quote(target: Value) -> str:
    return go_quote(as_string(target))


@method(
    "unquote",
    category=CATEGORY,
    doc="The text of a quoted literal: in double quotes, back quotes, or one character in single quotes.",
    examples=[Example("root.a = this.q.unquote()", (('{"q":"\\"x\\\\ty\\""}', '{"a":"x\\ty"}'),))],
)
def _unquote(target: Value) -> str:
    literal = as_string(target)
    inside = literal[1:-1]
    if literal == "''":
        return ""
    if len(literal) > 1 and literal[0] == literal[-1]:
        if literal[0] == "`" and "`" not in inside:
            return inside.replace("\r", "")
        if literal[0] in _INSIDE and _INSIDE[literal[0]].fullmatch(inside):
            with suppress(ValueError):
                return unquote(inside.replace("\\'", "'") if literal[0] == "'" else inside)
    raise EvaluationError("invalid syntax")


_INSIDE: Final = {
    '"': re.compile(r'(?:[^"\\\n]|\\.)*'),
    "'": re.compile(r"[^'\\\n]|\\([^xuU0-7]|x..|u.{4}|U.{8}|[0-7]{3})"),
}


@method(
    "escape_html",
    category=CATEGORY,
    doc="The string with `<`, `>`, `&` and both quotes written as HTML entities.",
    examples=[
        Example("root.a = this.a.escape_html()", (('{"a":"a < \\"b\\""}', '{"a":"a &lt; &#34;b&#34;"}'),))
    ],
)
def _escape_html(target: Value) -> str:
    found = html.escape(as_string(target), quote=False)
    return found.replace("'", "&#39;").replace('"', "&#34;")


@method(
    "unescape_html",
    category=CATEGORY,
    doc="The string with HTML entities replaced by the characters they stand for.",
    examples=[
        Example("root.a = this.a.unescape_html()", (('{"a":"a &lt; b &amp; c"}', '{"a":"a < b & c"}'),))
    ],
)
def _unescape_html(target: Value) -> str:
    return html.unescape(as_string(target))


@method(
    "escape_url_query",
    category=CATEGORY,
    doc="The string as it can stand in the query of a URL; a space becomes `+`.",
    examples=[Example("root.q = this.q.escape_url_query()", (('{"q":"a b&c"}', '{"q":"a+b%26c"}'),))],
)
def _escape_url_query(target: Value) -> str:
    return quote(utf8(as_string(target)), safe=" ").replace(" ", "+")


@method(
    "escape_url_path",
    category=CATEGORY,
    doc="The string as it can stand as one segment of a URL's path; a space becomes `%20`.",
    examples=[Example("root.p = this.p.escape_url_path()", (('{"p":"a b/c"}', '{"p":"a%20b%2Fc"}'),))],
)
def _escape_url_path(target: Value) -> str:
    return quote(utf8(as_string(target)), safe="$&+:=@")


@method(
    "unescape_url_query",
    category=CATEGORY,
    doc="The text that a part of a URL's query stands for; `+` is a space.",
    examples=[Example("root.q = this.q.unescape_url_query()", (('{"q":"a+b%26c"}', '{"q":"a b&c"}'),))],
)
def _unescape_url_query(target: Value) -> str:
    return unescape_url(as_string(target), plus=True)


@method(
    "unescape_url_path",
    category=CATEGORY,
    doc="The text that a segment of a URL's path stands for.",
    examples=[Example("root.p = this.p.unescape_url_path()", (('{"p":"a%20b%2Fc"}', '{"p":"a b/c"}'),))],
)
def _unescape_url_path(target: Value) -> str:
    return unescape_url(as_string(target), plus=False)


@method(
    "filepath_join",
    category=CATEGORY,
    doc="One path of an array of elements, cleaned: no empty elements, no `.`, `..` resolved.",
    examples=[Example("root.p = this.p.filepath_join()", (('{"p":["/a","../b","c"]}', '{"p":"/b/c"}'),))],
)
def _filepath_join(target: Value) -> str:
    parts = []
    for index, item in enumerate(as_array(target)):
        if type(item) is not str and type(item) is not bytes:
            raise EvaluationError(f"path element {index}: {wrong_type(item, 'string')}")
        parts.append(as_text(item))
    joined = "/".join(part for part in parts if part)
    return clean_path(joined) if joined else ""


def clean_path(path: str) -> str:
    """The shortest path that means the same; `.` for nothing."""
    found = posixpath.normpath(path)
    return found[1:] if found.startswith("//") else found


@method(
    "filepath_split",
    category=CATEGORY,
    doc="A path as an array of its folder, with the slash, and its last element.",
    examples=[Example("root.p = this.p.filepath_split()", (('{"p":"/a/b.txt"}', '{"p":["/a/","b.txt"]}'),))],
)
def _filepath_split(target: Value) -> list[str]:
    path = as_string(target)
    cut = path.rfind("/") + 1
    return [path[:cut], path[cut:]]
