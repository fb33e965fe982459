"""XML to objects and back: attributes under `-name`, text beside them under `#text`.

Parsing is expat's, with document types refused, so that no entity can grow. Attributes without quotes
are read all the same, as people have them.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any, Final
from xml.parsers import expat

from hub.mapping.gojson import scalar_text
from hub.mapping.limits import OUTPUT_BYTES_MAX, check_bytes, check_depth
from hub.mapping.values import EvaluationError, Value, real, utf8

_BARE: Final = re.compile(r"""(\s[\w:.\-]+\s*=\s*)([^\s"'<>=/][^\s"'<>=]*?)(?=[\s>]|/>)""")
_TAG: Final = re.compile(r"<[A-Za-z_][^<>]*>")
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT: Final = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_NAME: Final = re.compile(r"[^\s<>&\"'/=]+")


def parse_xml(source: str, *, cast: bool) -> dict[str, Any]:
    """The document as an object with one key, its root element."""
    try:
        return _Reading(cast).read(source)
    except expat.ExpatError:
        mended = _TAG.sub(lambda tag: _BARE.sub(r'\1"\2"', tag.group()), source)
    try:
        return _Reading(cast).read(mended)
    except expat.ExpatError as error:
        raise EvaluationError(f"failed to parse value as XML: {error}") from error


class _Reading:
    def __init__(self, cast: bool) -> None:
        self.cast = cast
        self.stack: list[tuple[str, dict[str, Any], list[str]]] = []
        self.root: dict[str, Any] = {}

    def read(self, source: str) -> dict[str, Any]:
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._refuse
        parser.Parse(utf8(source), True)
        return self.root

    def _refuse(self, *_declared: Any) -> None:
        raise EvaluationError("failed to parse value as XML: document types are not allowed")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        check_depth(len(self.stack))
        self.stack.append((name, {f"-{key}": self._cast(value) for key, value in attributes.items()}, []))

    def _text(self, text: str) -> None:
        if self.stack:
            self.stack[-1][2].append(text)

    def _end(self, _name: str) -> None:
        name, children, texts = self.stack.pop()
        text = "".join(texts).strip()
        value: Any = children
        if not children:
            value = self._cast(text)
        elif text:
            children["#text"] = self._cast(text)
        parent = self.stack[-1][1] if self.stack else self.root
        if name not in parent:
            parent[name] = value
        elif type(parent[name]) is list:
            parent[name].append(value)
        else:
            parent[name] = [parent[name], value]

    def _cast(self, text: str) -> Value:
        if not self.cast:
            return text
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        if _INTEGER.fullmatch(text):
            return int(text)
        return real(float(text)) if _FLOAT.fullmatch(text) else text


def format_xml(value: Value, indent: str, root_tag: str | None) -> bytes:
    """An object as XML. Without a root tag the object must have one key, which names the root."""
    if type(value) is not dict:
        raise EvaluationError("root must be a single object")
    if root_tag is None and len(value) == 1:
        ((name, inner),) = value.items()
    else:
        name, inner = root_tag if root_tag is not None else "doc", value
    writing = _Writing(indent)
    writing.element(name, inner, 0)
    return utf8(("\n" if indent else "").join(writing.lines))


class _Writing:
    def __init__(self, indent: str) -> None:
        self.indent = indent
        self.lines: list[str] = []
        self.size = 0

    def _put(self, depth: int, line: str) -> None:
        self.size += len(self.indent) * depth + len(line) + 1
        if self.size > OUTPUT_BYTES_MAX:
            check_bytes(self.size)
        self.lines.append(self.indent * depth + line)

    def element(self, name: str, value: Value, depth: int) -> None:
        check_depth(depth)
        if not _NAME.fullmatch(name):
            raise EvaluationError(f"{name!r} is no name of an XML element")
        if type(value) is list:
            for item in value:
                self.element(name, item, depth)
            return
        if type(value) is not dict:
            self._put(
                depth, f"<{name}>{_escaped(value)}</{name}>" if value not in ("", None) else f"<{name}/>"
            )
            return
        attributes = "".join(
            f' {key[1:]}="{_escaped(item)}"' for key, item in sorted(value.items()) if key.startswith("-")
        )
        children = [(key, item) for key, item in sorted(value.items()) if key[:1] != "-" and key != "#text"]
        text = _escaped(value["#text"]) if "#text" in value else ""
        if not children:
            self._put(depth, f"<{name}{attributes}>{text}</{name}>" if text else f"<{name}{attributes}/>")
            return
        self._put(depth, f"<{name}{attributes}>{text}")
        for key, item in children:
            self.element(key, item, depth + 1)
        self._put(depth, f"</{name}>")


def _escaped(value: Value) -> str:
    if value is None:
        return ""
    return escape(scalar_text(value), quote=False).replace('"', "&quot;").replace("'", "&apos;")
