"""Methods for human text: HTML without markup, slugs, segments of Unicode."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser
from typing import Any, Final

from hub.mapping.extras import load, needs
from hub.mapping.limits import check_items
from hub.mapping.receivers import as_string
from hub.mapping.registry import Example, Param, method
from hub.mapping.values import EvaluationError, Value

CATEGORY: Final = "String Manipulation"
_SILENT: Final = frozenset(["script", "style", "head", "iframe", "object", "noscript", "template"])


class _Stripper(HTMLParser):
    """Text of an HTML document, with some of its elements."""

    def __init__(self, preserve: frozenset[str]) -> None:
        super().__init__(convert_charrefs=False)
        self.preserve = preserve
        self.out: list[str] = []
        self.silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self.silent += 1
        elif tag in self.preserve and not self.silent:
            self.out.append(f"<{tag}>")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.preserve and not self.silent:
            self.out.append(f"<{tag}/>")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT:
            self.silent = max(self.silent - 1, 0)
        elif tag in self.preserve and not self.silent:
            self.out.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.out.append(escape(data, quote=False).replace('"', "&#34;").replace("'", "&#39;"))

    def handle_entityref(self, name: str) -> None:
        if not self.silent:
            self.out.append(f"&{name};")

    def handle_charref(self, name: str) -> None:
        if not self.silent:
            self.out.append(f"&#{name};")


@method(
    "strip_html",
    category=CATEGORY,
    annotate=False,
    params=[
        Param(
            "preserve",
            "unknown",
            None,
            "An array of the names of elements to keep, without their attributes.",
        )
    ],
    prepared=True,
    doc="The text of an HTML fragment, without its elements, comments, scripts and styles.",
    examples=[
        Example("root.t = this.h.strip_html()", (('{"h":"<p>Hi <b>you</b>!</p>"}', '{"t":"Hi you!"}'),))
    ],
)
def _strip_html(preserve: Value) -> Callable[[Value], str]:
    if preserve is None:
        kept: frozenset[str] = frozenset()
    elif type(preserve) is list and all(type(name) is str for name in preserve):
        kept = frozenset(name.lower() for name in preserve)
    else:
        raise EvaluationError("invalid type for preserve: expected an array of strings")

    def run(target: Value) -> str:
        stripper = _Stripper(kept)
        stripper.feed(as_string(target))
        stripper.close()
        return "".join(stripper.out)

    return run


_AND_AT: Final = {
    "en": ("and", "at"), "de": ("und", "an"), "es": ("y", "en"), "fr": ("et", "a"), "it": ("e", "a"),
    "nl": ("en", "at"), "pl": ("i", "na"), "pt": ("e", "em"), "sv": ("och", "snabel a"), "fi": ("ja", "at"),
    "cs": ("a", "zavinac"), "tr": ("ve", "et"), "da": ("og", "at"), "nb": ("og", "at"), "nn": ("og", "at"),
}  # fmt: skip
_GERMAN: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"})


@method(
    "slug",
    category=CATEGORY,
    annotate=False,
    params=[Param("lang", "string", "en", "The language that `&` and `@` are written out in.")],
    prepared=True,
    doc="The string as it can stand in a URL: lower-case ASCII words with dashes between them.",
    examples=[
        Example("root.s = this.t.slug()", (('{"t":"Crème Brûlée & Café"}', '{"s":"creme-brulee-and-cafe"}'),))
    ],
    **needs("anyascii"),
)
def _slug(lang: str) -> Callable[[Value], str]:
    ampersand, at = _AND_AT.get(lang.lower(), _AND_AT["en"])
    transliterate = load("anyascii", "method slug").anyascii

    def run(target: Value) -> str:
        found = as_string(target).replace("&", f" {ampersand} ").replace("@", f" {at} ")
        if lang.lower() == "de":
            found = found.translate(_GERMAN)
        return re.sub(r"[^a-z0-9_]+", "-", transliterate(found).lower().replace("'", "")).strip("-_")

    return run


@method(
    "unicode_segments",
    category=CATEGORY,
    params=[Param("segmentation_type", "string", doc="`grapheme`, `word` or `sentence`.")],
    prepared=True,
    doc="The parts of a string that people see as characters, words or sentences, by Unicode's rules.",
    examples=[
        Example(
            'root.s = this.t.unicode_segments("sentence")',
            (('{"t":"Hello world. How are you?"}', '{"s":["Hello world. ","How are you?"]}'),),
        )
    ],
    **needs("uniseg"),
)
def _unicode_segments(segmentation_type: str) -> Callable[[Value], list[Any]]:
    parts = {
        "grapheme": "graphemecluster.grapheme_clusters",
        "word": "wordbreak.words",
        "sentence": "sentencebreak.sentences",
    }
    if segmentation_type not in parts:
        raise EvaluationError(f"unrecognized segmentation type: {segmentation_type}")
    module, _, name = parts[segmentation_type].partition(".")
    segments = getattr(load(f"uniseg.{module}", "method unicode_segments"), name)

    def run(target: Value) -> list[Any]:
        found = list(segments(as_string(target)))
        check_items(len(found))
        return found

    return run
