"""YAML read and written as Go's yaml.v3 does: YAML 1.2 scalars, four spaces an indent.

The hard part is which strings need quotes: all that would be read as something else, also by readers of
YAML 1.1 (`yes`, `2020-01-01`, `12:30`).
"""

from __future__ import annotations

import base64
import re
from functools import cmp_to_key
from typing import Final

import yaml

from hub.mapping.limits import OUTPUT_BYTES_MAX, check_bytes, check_depth
from hub.mapping.timeparse import parse_layout
from hub.mapping.timestamp import Timestamp
from hub.mapping.values import (
    INT64_MAX,
    INT64_MIN,
    EvaluationError,
    Number,
    Value,
    float_g,
    go_quote,
    real,
    uint64,
)

VALUES_MAX: Final = 1_000_000
"""Values in one text, aliases counted as often as they are used: a short text may stand for gigabytes."""

_NOT_UTF8: Final = re.compile("[\ud800-\udfff]")
_INT: Final = re.compile(r"[-+]?(?:0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*)")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?")
_SPECIAL: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_SIXTIES: Final = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_NULLS: Final = frozenset(["", "~", "null", "Null", "NULL"])
_BOOLS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_OLD_BOOLS: Final = frozenset(
    form for word in ("y", "n", "yes", "no", "on", "off") for form in (word, word.capitalize(), word.upper())
)
_LAYOUTS: Final = (
    "2006-1-2T15:4:5.999999999Z07:00",
    "2006-1-2t15:4:5.999999999Z07:00",
    "2006-1-2 15:4:5.999999999",
    "2006-1-2",
)
_PLAIN: Final = "tag:yaml.org,2002:plain"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Marks plain scalars without a tag, so that they can be told from those that have one."""

    yaml_implicit_resolvers: Final = {None: [(_PLAIN, re.compile(""))]}


# Reading


def parse_yaml(value: str) -> Value:
    """The first document of a text."""
    if "\x00" in value:
        raise EvaluationError("yaml: control characters are not allowed")
    if not value.isascii() and _NOT_UTF8.search(value):
        raise EvaluationError("yaml: invalid leading UTF-8 octet")
    loader = _Loader(value)
    try:
        if not loader.check_node():
            return None
        node = loader.get_node()
    except yaml.MarkedYAMLError as error:
        raise EvaluationError(f"yaml: {_why(error, value)}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise EvaluationError(f"yaml: {error}") from error
    finally:
        loader.dispose()
    assert node is not None
    return _Building().value(node, 0)


def _why(error: yaml.MarkedYAMLError, source: str) -> str:
    problem = str(error.problem)
    mark = error.problem_mark
    if problem.startswith("found undefined alias") and mark is not None:
        lines = source.split("\n")
        name = re.match(r"[\w-]*", lines[mark.line][mark.column + 1 :]) if mark.line < len(lines) else None
        return f"unknown anchor '{name.group() if name else ''}' referenced"
    line = error.context_mark.line if error.context_mark is not None else 0
    line = line or (mark.line if mark is not None else 0)
    if line and isinstance(error, yaml.scanner.ScannerError):
        line += 1
    return f"line {line}: {problem}" if line else problem


class _Building:
    """Nodes of one document being made into values."""

    def __init__(self) -> None:
        self.count = 0
        self.open: set[int] = set()

    def value(self, node: yaml.Node, depth: int) -> Value:
        self.count += 1
        if self.count > VALUES_MAX:
            raise EvaluationError("yaml: document contains excessive aliasing")
        check_depth(depth)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if id(node) in self.open:
            raise EvaluationError("yaml: anchor value contains itself")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, depth + 1) for item in node.value]
            assert isinstance(node, yaml.MappingNode)
            return self._mapping(node, depth)
        finally:
            self.open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Value]:
        out: dict[str, Value] = {}
        lines: dict[str, int] = {}
        merged: dict[str, Value] = {}
        for key_node, value_node in node.value:
            if key_node.tag in (_PLAIN, "tag:yaml.org,2002:merge") and key_node.value == "<<":
                self._merge(merged, value_node, depth)
                continue
            key = self.value(key_node, depth + 1)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                if isinstance(key, list | dict):
                    raise EvaluationError(f"yaml: line {line}: invalid map key")
                key = _printed(key)
            if key in out:
                raise EvaluationError(
                    "yaml: unmarshal errors:\n"
                    f"  line {line}: mapping key {go_quote(key)} already defined at line {lines[key]}"
                )
            lines[key] = line
            out[key] = self.value(value_node, depth + 1)
        return merged | out if merged else out

    def _merge(self, merged: dict[str, Value], node: yaml.Node, depth: int) -> None:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for part in parts:
            found = self.value(part, depth + 1)
            if not isinstance(found, dict):
                raise EvaluationError("yaml: map merge requires map or sequence of maps as the value")
            for key, value in found.items():
                merged.setdefault(key, value)


def _scalar(node: yaml.ScalarNode) -> Value:
    text: str = node.value
    match node.tag.removeprefix("tag:yaml.org,2002:"):
        case "plain" | "null" | "timestamp":
            return _resolved(text)
        case "int" | "float" | "bool" as wanted:
            found = _resolved(text)
            if isinstance(found, str):
                raise EvaluationError(f"yaml: cannot decode !!str `{text}` as a !!{wanted}")
            return found
        case "binary":
            try:
                return base64.b64decode(text).decode("utf-8", "surrogateescape")
            except ValueError as error:
                raise EvaluationError("yaml: !!binary value contains invalid base64 data") from error
    return text


def _resolved(text: str) -> Value:
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INT.fullmatch(text):
        whole = _integer(text.replace("_", ""))
        if whole is not None:
            if INT64_MIN <= whole <= INT64_MAX:
                return whole
            return uint64(whole) if 0 < whole < 1 << 64 else real(float(whole))
    if _FLOAT.fullmatch(text):
        return real(float(text.replace("_", "")))
    if _SPECIAL.fullmatch(text):
        raise EvaluationError(f"yaml: {text} has no form in a document")
    if _TIME.fullmatch(text):
        for layout in _LAYOUTS:
            try:
                return parse_layout(layout, text)
            except EvaluationError:
                continue
    return text


def _integer(text: str) -> int | None:
    sign = -1 if text[0] == "-" else 1
    digits = text.lstrip("+-")
    for prefix, base in (("0x", 16), ("0o", 8), ("0b", 2)):
        if digits.startswith(prefix):
            return sign * int(digits[2:], base) if len(digits) > 2 else None
    if len(digits) > 1 and digits[0] == "0":
        return sign * int(digits, 8) if not set(digits) & {"8", "9"} else None
    return sign * int(digits) if len(digits) < 400 else None


def _printed(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return float_g(value) if isinstance(value, float) else str(value)


# Writing

_INDENT: Final = 4


def format_yaml(value: Value) -> str:
    """A value as YAML, keys sorted."""
    writing = _Writing()
    writing.write(value, -1, 0, "", in_sequence=False)
    return "".join(writing.out) + "\n"


class _Writing:
    def __init__(self) -> None:
        self.out: list[str] = []
        self.size = 0

    def put(self, text: str) -> None:
        self.size += len(text)
        if self.size > OUTPUT_BYTES_MAX:
            check_bytes(self.size)
        self.out.append(text)

    def write(self, value: Value, indent: int, depth: int, lead: str, *, in_sequence: bool) -> None:
        """`lead` stands between what is there and a value on the same line."""
        check_depth(depth)
        if isinstance(value, bytes):
            value = list(value)
        if not isinstance(value, list | dict) or not value:
            self.put(lead + _one_line(value, indent))
            return
        aligned = 0 if indent < 0 else _INDENT * ((indent + _INDENT) // _INDENT)
        inner = indent + 2 if in_sequence else aligned
        margin = " " * inner
        first = lead if in_sequence else "" if indent < 0 else "\n" + margin
        if isinstance(value, list):
            for item in value:
                self.put(first + "-")
                self.write(item, inner, depth + 1, " ", in_sequence=True)
                first = "\n" + margin
            return
        for key in sorted(value, key=cmp_to_key(_natural)):
            self.put(first + _key(key) + ":")
            self.write(value[key], inner, depth + 1, " ", in_sequence=False)
            first = "\n" + margin


def _key(key: str) -> str:
    return _double(key) if "\n" in key else _string(key, 0)


def _natural(left: str, right: str) -> int:
    """The order of yaml.v3: runs of digits by their number, letters after everything else."""
    digits = False
    for at in range(min(len(left), len(right))):
        a, b = left[at], right[at]
        if a == b:
            digits = a.isdigit()
            continue
        if a.isalpha() and b.isalpha():
            return -1 if a < b else 1
        if a.isalpha() or b.isalpha():
            return -1 if (a.isalpha() if digits else b.isalpha()) else 1
        first, second = _run(left, at), _run(right, at)
        if int(first or "0") != int(second or "0"):
            return -1 if int(first or "0") < int(second or "0") else 1
        if len(first) != len(second):
            return -1 if len(first) < len(second) else 1
        return -1 if a < b else 1
    return len(left) - len(right)


def _run(value: str, at: int) -> str:
    """The ASCII digits from a place on, of which no more than 18 matter."""
    match = re.compile(r"[0-9]{0,18}").match(value, at)
    return match.group() if match is not None else ""


def _one_line(value: Value, indent: int) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Number):
        return _string(value.text, indent)
    if isinstance(value, str):
        return _string(value, indent)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return float_g(value)
    if isinstance(value, Timestamp):
        return value.rfc3339()
    return "[]" if isinstance(value, list) else "{}"


_UNSAFE: Final = re.compile("[^\t\n -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]")
_INDICATORS: Final = frozenset(",[]{}#&*!|>'\"%@`")


def _string(value: str, indent: int) -> str:
    if not value:
        return '""'
    # The engine writes a block for a text whose first line is blank or begins with one, and not every reader takes it.
    if _UNSAFE.search(value) or " \n" in value or ("\n" in value and value[0] in " \t\n"):
        return _double(value)
    if "\n" in value:
        return _literal(value, indent)
    if _reads_otherwise(value):
        return _double(value)
    if _needs_quotes(value):
        return _double(value) if "\t" in value else "'" + value.replace("'", "''") + "'"
    return value


def _reads_otherwise(value: str) -> bool:
    return (
        value in _NULLS
        or value == "<<"
        or value in _BOOLS
        or value in _OLD_BOOLS
        or any(pattern.fullmatch(value) for pattern in (_INT, _FLOAT, _SPECIAL, _TIME, _SIXTIES))
    )


def _needs_quotes(value: str) -> bool:
    first, second = value[0], value[1:2]
    return (
        first == " "
        or value[-1] in " :"
        or first in _INDICATORS
        or (first in "-?:" and second in ("", " "))
        or value.startswith(("---", "..."))
        or ": " in value
        or " #" in value
        or "\t" in value
    )


def _double(value: str) -> str:
    names = {
        "\0": "\\0", "\a": "\\a", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\v": "\\v", "\f": "\\f",
        "\r": "\\r", "\x1b": "\\e", '"': '\\"', "\\": "\\\\", "\x85": "\\N", "\xa0": "\\_",
        "\u2028": "\\L", "\u2029": "\\P",
    }  # fmt: skip
    out = []
    for char in value:
        code = ord(char)
        if char in names:
            out.append(names[char])
        elif not _UNSAFE.match(char):
            out.append(char)
        elif code < 0x100:
            out.append(f"\\x{code:02X}")
        else:
            out.append(f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}")
    return '"' + "".join(out) + '"'


def _literal(value: str, indent: int) -> str:
    body = value.rstrip("\n")
    trailing = len(value) - len(body)
    chomp = "-" if not trailing else "" if trailing == 1 and body else "+"
    margin = " " * (_INDENT * ((max(indent, 0) + _INDENT) // _INDENT))
    lines = body.split("\n") + [""] * max(trailing - 1, 0)
    return f"|{chomp}\n" + "\n".join(margin + line if line else "" for line in lines)
