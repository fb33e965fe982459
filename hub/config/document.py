"""YAML text to a tree in which every value knows its line and column.

The tree is built from parser events instead of YAML objects, so that the limits hold while a hostile
file is being read, and so that the traps of YAML 1.1 stay shut: an unquoted scalar is a number,
a boolean or null only where JSON and YAML 1.2 say so. `NO`, `010`, `0x1F`, `12:30:45` and `1_000` are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from hub.config.environment import Unset
from hub.errors import Problem, Severity
from hub.options import Written
from hub.spec import Path

FILE_BYTES_MAX = 4 << 20
DEPTH_MAX = 64
VALUES_MAX = 100_000
"""Values of one file, each alias counted as what it stands for."""

NUMBER_CHARACTERS_MAX = 400
"""A longer number is text; Python would take its time to read it."""

Place = tuple[int, int]
"""Line and column, from 1."""

Substitute = Callable[[str], str]
"""Replaces what a scalar refers to. Raises `Unset` or another `ValueError` when it cannot."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Scalar:
    """One word or text. `style` is as YAML's: empty for plain, a quote, `|` or `>`."""

    place: Place
    text: str
    style: str
    value: Any = None
    failed: bool = False
    """True when a variable in it could not be filled in. That is reported, so nothing else of it need be."""


@dataclass(slots=True)
class Sequence:
    """A list."""

    place: Place
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Table:
    """A YAML mapping (the word `mapping` belongs to the language). Keys are the text that stands there."""

    place: Place
    entries: dict[str, Node] = field(default_factory=dict)
    names: dict[str, Place] = field(default_factory=dict)


Node = Scalar | Sequence | Table


class Document:
    """One file: its tree, its lines, and the problems found so far."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.lines = text.splitlines()
        self.root: Node | None = None
        self.problems: list[Problem] = []

    def report(self, place: Place, message: str, severity: Severity = "error") -> None:
        """Note a problem at a place of the file; line 0 is the file as a whole."""
        self.problems.append(Problem(self.file, place[0], place[1], message, severity))

    def node(self, path: Path) -> Node | None:
        """The node at a path, if there is one."""
        found = self.root
        for step in path:
            found = _below(found, step)
        return found

    def nearest(self, path: Path) -> Node | None:
        """The node at a path, or the nearest one above it."""
        found = self.node(path)
        return self.nearest(path[:-1]) if found is None and path else found

    def names(self, path: Path) -> Mapping[str, Place]:
        """The names written at a path, with their places; none where there is no mapping."""
        found = self.node(path)
        return found.names if isinstance(found, Table) else {}

    def place(self, path: Path, *, at_name: bool = False) -> Place:
        """Where the value at a path stands, or with `at_name` its name."""
        if at_name and path and (name := self.names(path[:-1]).get(str(path[-1]))):
            return name
        found = self.nearest(path)
        return found.place if found is not None else (0, 0)

    def inner_place(self, path: Path, inner: Place) -> tuple[Place, str]:
        """Where a line and column of a text option stand in the file.

        Exact when the text's line stands in the file as it is, which goes for block scalars and for
        simple strings on one line. Else, as in folded text, escapes or substituted variables, it is where
        the text begins, and the second result says the place within it.
        """
        found = self.nearest(path)
        if not isinstance(found, Scalar):
            return self.place(path), ""
        line, column = inner
        rows = str(found.value).split("\n")
        row = rows[line - 1] if 0 < line <= len(rows) else None
        at = found.place[0] + (line if found.style in ("|", ">") else line - 1)
        if row is not None and 0 < at <= len(self.lines):
            source = self.lines[at - 1]
            if found.style == "|" and source.endswith(row) and not source[: len(source) - len(row)].strip():
                return (at, len(source) - len(row) + column), ""
            start = found.place[1] - 1 + (found.style in ("'", '"'))
            if found.style in ("", "'", '"') and len(rows) == 1 and source.startswith(row, start):
                return (at, start + column), ""
        return found.place, f" (line {line}, column {column} of this text)"


def _below(node: Node | None, step: str | int) -> Node | None:
    if isinstance(node, Table):
        return node.entries.get(str(step))
    if isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
        return node.items[step]
    return None


def value_of(node: Node | None) -> Any:
    """The value of a tree: dicts, lists, text, None, and `Written` for unquoted numbers and booleans."""
    if isinstance(node, Table):
        return {name: value_of(item) for name, item in node.entries.items()}
    if isinstance(node, Sequence):
        return [value_of(item) for item in node.items]
    return node.value if node is not None else None


def read(file: str, content: bytes, substitute: Substitute, *, unset_ok: bool = False) -> Document:
    """Parse one file. Mistakes are in `problems`; after a mistake of syntax the tree is missing.

    With `unset_ok` it is no mistake when `substitute` raises `Unset`.
    """
    text = ""
    problem: tuple[Place, str] | None = None
    if len(content) > FILE_BYTES_MAX:
        problem = (0, 0), f"the file is larger than {FILE_BYTES_MAX} bytes, which is the most that is read"
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = content[: error.start].decode("utf-8", "replace")
            problem = (
                _place_at(before),
                f"not UTF-8: byte 0x{content[error.start]:02X}; save the file as UTF-8",
            )
    document = Document(file, text)
    if problem is not None:
        document.report(*problem)
        return document
    try:
        document.root = _Builder(document, substitute, unset_ok).build(text)
    except yaml.reader.ReaderError as error:
        before = text.partition(chr(error.character))[0]
        document.report(_place_at(before), f"character U+{error.character:04X} is not allowed in YAML")
    except yaml.MarkedYAMLError as error:
        document.report(*_explained(error, document.lines))
    except _Refused as error:
        document.report(error.place, str(error))
    return document


class _Refused(Exception):
    """The file goes beyond a limit, or does what cannot be gone on from."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place


class _Builder:
    """One pass over the parser's events. A node's weight is the number of values it stands for."""

    def __init__(self, document: Document, substitute: Substitute, unset_ok: bool) -> None:
        self.document = document
        self.unset_ok = unset_ok
        self.substitute = substitute
        self.anchors: dict[str, tuple[Node, int] | None] = {}
        self.values = 0

    def build(self, text: str) -> Node | None:
        events = yaml.parse(text, Loader=_Loader)
        root: Node | None = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Refused(_place(event), "a second document begins here; a config is one document")
            elif isinstance(event, yaml.NodeEvent):
                root, _ = self.node(event, events, 1)
        return root

    def node(self, event: Any, events: Iterator[Any], depth: int) -> tuple[Node, int]:
        place = _place(event)
        if depth > DEPTH_MAX:
            raise _Refused(place, f"nested more than {DEPTH_MAX} deep")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event.anchor or "", place)
        self.charge(1, place)
        if event.tag not in (None, "!"):
            self.document.report(place, f"tag {event.tag!r} is not supported; remove it")
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        made: Node
        if isinstance(event, yaml.ScalarEvent):
            made, weight = self.scalar(event, place), 1
        elif isinstance(event, yaml.SequenceStartEvent):
            made, weight = self.sequence(place, events, depth)
        else:
            made, weight = self.table(place, events, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = made, weight
        return made, weight

    def charge(self, values: int, place: Place) -> None:
        self.values += values
        if self.values > VALUES_MAX:
            raise _Refused(place, f"more than {VALUES_MAX} values, counting what aliases stand for")

    def alias(self, anchor: str, place: Place) -> tuple[Node, int]:
        if anchor not in self.anchors:
            raise _Refused(place, f"alias *{anchor} stands before any anchor &{anchor}")
        known = self.anchors[anchor]
        if known is None:
            raise _Refused(place, f"alias *{anchor} stands inside what it names")
        self.charge(known[1], place)
        return known

    def sequence(self, place: Place, events: Iterator[Any], depth: int) -> tuple[Sequence, int]:
        made = Sequence(place)
        total = 1
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            item, weight = self.node(event, events, depth + 1)
            made.items.append(item)
            total += weight
        return made, total

    def table(self, place: Place, events: Iterator[Any], depth: int) -> tuple[Table, int]:
        made = Table(place)
        total = 1
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            at = _place(event)
            name = event.value if isinstance(event, yaml.ScalarEvent) else None
            if name is None:
                self.document.report(at, "a name must be text")
                self.node(event, events, depth + 1)
            elif name == "<<" and not event.style:
                self.document.report(at, "merge keys (<<) are not part of YAML 1.2; write the options out")
                name = None
            elif name in made.names:
                self.document.report(at, f"{name!r} is written twice; first on line {made.names[name][0]}")
                name = None
            item, weight = self.node(next(events), events, depth + 1)
            total += weight
            if name is not None:
                made.names[name] = at
                made.entries[name] = item
        return made, total

    def scalar(self, event: Any, place: Place) -> Scalar:
        made = Scalar(place, event.value, event.style or "")
        try:
            text = self.substitute(event.value)
        except ValueError as error:
            if not (self.unset_ok and isinstance(error, Unset)):
                self.document.report(place, str(error))
            made.failed = True
            return made
        made.value = text if made.style or (not text and event.value) else plain_value(text)
        return made


_NULL = frozenset(["", "~", "null", "Null", "NULL"])
_BOOLEANS: Mapping[str, bool] = {
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def plain_value(text: str) -> Any:
    """What an unquoted scalar stands for. A number is what JSON calls one; anything else is text."""
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return Written(text, _BOOLEANS[text])
    if len(text) <= NUMBER_CHARACTERS_MAX and (match := _NUMBER.fullmatch(text)):
        if not (match[1] or match[2]):
            return Written(text, int(text))
        number = float(text)
        if number not in (float("inf"), float("-inf")):
            return Written(text, number)
    return text


def _place(event: Any) -> Place:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _place_at(before: str) -> Place:
    lines = before.split("\n")
    return len(lines), len(lines[-1]) + 1


def _explained(error: yaml.MarkedYAMLError, lines: list[str]) -> tuple[Place, str]:
    """The parser's own words, with the cure for the mistakes that people make most."""
    mark = error.problem_mark or error.context_mark
    place = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
    message = error.problem or str(error)
    row = lines[place[0] - 1] if 0 < place[0] <= len(lines) else ""
    if "\t" in row[: len(row) - len(row.lstrip())] or row[place[1] - 1 : place[1]] == "\t":
        message = "a tab cannot indent YAML; use spaces"
    elif "mapping values are not allowed" in message:
        message = "a colon is not expected here; quote the text if it belongs to it, or check the indentation"
    elif "cannot start any token" in message:
        message = f"{row[place[1] - 1 : place[1]]!r} cannot begin a value; quote it"
    elif "flow" in (error.context or "") and "${" in row[: place[1]]:
        message = 'a variable inside { } or [ ] has to be quoted, as in "${NAME}"'
    elif error.context and error.context_mark is not None:
        message += f" ({error.context} that begins on line {error.context_mark.line + 1})"
    return place, message
