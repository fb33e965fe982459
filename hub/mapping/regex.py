"""Regular expressions of users: RE2, so that none of them can hang, with Go's iteration and templates.

Works on UTF-8 bytes, which spares re2 a conversion a call. The hard part is matches of nothing: Go passes
over one that touches the match before it, and steps by whole characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, Protocol

import re2

from hub.mapping.values import EvaluationError, text, utf8

PATTERN_BYTES_MAX: Final = 64 << 10
"""A pattern longer than this is refused; re2 bounds the memory of those that it compiles."""

_OPTIONS: Final = re2.Options()
_OPTIONS.log_errors = False

_MESSAGES: Final = {
    "missing ): ": "missing closing ): ",
    "missing ]: ": "missing closing ]: ",
    "bad repetition operator: ": "invalid nested repetition operator: ",
    "no argument for repetition operator: ": "missing argument to repetition operator: ",
    "invalid repetition size: ": "invalid repeat count: ",
    "invalid named capture group: ": "invalid named capture: ",
    "invalid perl operator: ": "invalid or unsupported Perl syntax: ",
    "trailing \\": "trailing backslash at end of expression: ",
    "invalid UTF-8": "invalid UTF-8: ",
    "pattern too large - compile failed": "expression too large: ",
}
_ANY_BYTE: Final = re.compile(r"(?<!\\)(?:\\\\)*\\C")
_NAME: Final = re.compile(r"\(\?P?<([^>]*)>")


class Match(Protocol):
    """What is used of a match of re2."""

    def start(self) -> int: ...
    def end(self) -> int: ...
    def group(self, index: int = ...) -> bytes | None: ...
    def groups(self) -> tuple[bytes | None, ...]: ...


class Regex:
    """A compiled pattern."""

    __slots__ = ("_compiled", "groups", "names", "search")

    def __init__(self, pattern: str) -> None:
        encoded = utf8(pattern)
        if len(encoded) > PATTERN_BYTES_MAX:
            raise EvaluationError(f"error parsing regexp: longer than {PATTERN_BYTES_MAX} bytes")
        if _ANY_BYTE.search(pattern):
            raise EvaluationError("error parsing regexp: invalid escape sequence: `\\C`")
        for name in _NAME.finditer(pattern):
            if not name.group(1).isascii():
                raise EvaluationError(f"error parsing regexp: invalid named capture: `{name.group()}`")
        try:
            self._compiled: Any = re2.compile(encoded, _OPTIONS)
        except re2.error as error:
            raise EvaluationError(f"error parsing regexp: {_message(error)}") from error
        self.search: Callable[..., Match | None] = self._compiled.search
        self.groups: int = self._compiled.groups
        self.names: dict[str, int] = {
            name if isinstance(name, str) else text(name): index
            for name, index in self._compiled.groupindex.items()
        }

    def matches(self, data: bytes) -> Iterator[Match]:
        """All matches that do not overlap, from left to right."""
        at, last_end = 0, -1
        while at <= len(data):
            found = self.search(data, at)
            if found is None:
                return
            start, end = found.start(), found.end()
            if end > start or start != last_end:
                yield found
            last_end = end
            at = end if end > at else _next_character(data, at)

    def labels(self) -> list[str]:
        """The name of each group, or its number where it has none; `0` is the whole match."""
        found = [str(index) for index in range(self.groups + 1)]
        for name, index in self.names.items():
            found[index] = name
        return found


def _message(error: Exception) -> str:
    given = error.args[0] if error.args else ""
    found = text(given) if isinstance(given, bytes) else str(given)
    for ours, gos in _MESSAGES.items():
        if found.startswith(ours):
            if ours == "invalid perl operator: " and found[len(ours) :] == "":
                break
            return f"{gos}`{found[len(ours) :]}`"
    kind, _, detail = found.partition(": ")
    return f"{kind}: `{detail}`"


def _next_character(data: bytes, at: int) -> int:
    at += 1
    while at < len(data) and data[at] & 0xC0 == 0x80:
        at += 1
    return at


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> Regex:
    """The pattern, compiled once."""
    return Regex(pattern)


_VARIABLE: Final = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})")


def template(pattern: Regex, value: str) -> Callable[[Match], bytes]:
    """A replacement such as `${name}-$1` as a function of the match. `$$` is a dollar; what is no group is nothing."""
    parts: list[bytes | int] = []
    at = 0
    for variable in _VARIABLE.finditer(value):
        parts.append(utf8(value[at : variable.start()]))
        at = variable.end()
        name = variable.group(1) or variable.group(2)
        if name is None:
            parts.append(b"$")
        elif name.isascii() and name.isdigit() and (name == "0" or name[0] != "0"):
            if len(name) < 9 and int(name) <= pattern.groups:
                parts.append(int(name))
        elif name in pattern.names:
            parts.append(pattern.names[name])
    parts.append(utf8(value[at:]))
    if not any(isinstance(part, int) for part in parts):
        fixed = b"".join(part for part in parts if isinstance(part, bytes))
        return lambda _match: fixed

    def expand(match: Match) -> bytes:
        return b"".join([part if isinstance(part, bytes) else match.group(part) or b"" for part in parts])

    return expand
