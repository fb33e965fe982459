"""Reading mapping text: characters, names, strings, numbers, and how failures are told.

Each reading method takes a position and returns what it found and the position behind it, or raises
`Failure`. The engine reports the failure that got furthest, with all that was expected there, and stops
at once at a fatal one; `one_of` and `delimited` keep that bookkeeping, so that error texts are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hub.errors import HubError
from hub.mapping.values import text as go_text
from hub.nearest import Unknown, did_you_mean

T = TypeVar("T")
Reading = tuple[T, int]

NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
SNAKE = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
DIGITS = frozenset("0123456789")


class Failure(Exception):
    """Something else was expected at `at`. A fatal one (with a reason) ends all trying."""

    def __init__(
        self,
        at: int,
        expected: tuple[str, ...] = (),
        reason: str | None = None,
        unknown: Unknown | None = None,
    ) -> None:
        super().__init__(at, expected, reason)
        self.at = at
        self.expected = expected
        self.reason = reason
        self.unknown = unknown
        self.imported: ParseError | None = None

    @property
    def fatal(self) -> bool:
        return self.reason is not None

    def message(self, text: str) -> str:
        """The failure in words, without its position."""
        reason = self.reason or ""
        if not self.expected:
            if reason:
                return reason
            return f"encountered unexpected {'input' if self.at < len(text) else 'end of input'}"
        names = list(dict.fromkeys(self.expected))
        if len(self.expected) == 1:
            listed = names[0]
        else:
            listed = ", ".join(names[:-1]) + ("," if len(names) > 2 else "") + " or " + names[-1]
        return f"{reason}: expected {listed}" if reason else f"expected {listed}"


class ParseError(HubError):
    """A mapping that cannot be used. Lines and columns count characters from 1.

    `str()` is one line, `line L char C: what`, in the engine's words; `pretty()` adds the name that may have been meant,
    and the line of text with a caret under it.
    """

    def __init__(
        self,
        message: str,
        text: str,
        at: int,
        file: str = "",
        cause: ParseError | None = None,
        unknown: Unknown | None = None,
    ) -> None:
        self.message = message
        self.text = text
        self.file = file
        self.cause = cause
        self.unknown = unknown
        self.at = at
        self.line, self.column = line_and_column(text, at)
        super().__init__(f"line {self.line} char {self.column}: {message}")

    @property
    def hint(self) -> str:
        """What may have been meant where a name is unknown, to go behind the message. Looked for only when it is shown:
        a mapping that is a value may fail for each record."""
        if self.cause is not None:
            return self.cause.hint
        return did_you_mean(*self.unknown) if self.unknown is not None else ""

    def told(self) -> str:
        """The error by what stands at its place, for a mapping that is a value and has no lines to show."""
        found = self.text[self.at : self.at + 5]
        if "expected " in self.message and "unexpected " not in self.message:
            return f"{self.message}, {f'got: {found}' if found else 'but reached end of input'}"
        return f"{self.message}: {found}" if found else self.message

    def pretty(self) -> str:
        """The error with its line and a caret, and the same for the imported file it comes from."""
        shown = self.text.split("\n")[self.line - 1][: self.column + 60]
        number = str(self.line)
        margin = " " * len(number)
        name = f"{self.file}: " if self.file else ""
        out = f"{name}{self}{'' if self.cause else self.hint}\n{margin} |\n{number} | {shown}\n{margin} | {' ' * (self.column - 1)}^---"
        return f"{out}\n\n{self.cause.pretty()}" if self.cause else out


def line_and_column(text: str, at: int) -> tuple[int, int]:
    """Line and column of an offset, both from 1."""
    start = text.rfind("\n", 0, at) + 1
    return text.count("\n", 0, at) + 1, at - start + 1


class Reader:
    """The lexical level of the language over one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.end = len(text)

    def char(self, at: int, wanted: str) -> int:
        if at < self.end and self.text[at] == wanted:
            return at + 1
        raise Failure(at, (wanted,))

    def term(self, at: int, wanted: str) -> int:
        if self.text.startswith(wanted, at):
            return at + len(wanted)
        raise Failure(at, (wanted,))

    def run(self, at: int, allowed: frozenset[str], expected: str) -> Reading[str]:
        text, end, stop = self.text, self.end, at
        while stop < end and text[stop] in allowed:
            stop += 1
        if stop == at:
            raise Failure(at, (expected,))
        return text[at:stop], stop

    def blanks(self, at: int) -> int:
        """At least one space or tab."""
        stop = self.skip_blanks(at)
        if stop == at:
            raise Failure(at, ("whitespace",))
        return stop

    def skip_blanks(self, at: int) -> int:
        text, end = self.text, self.end
        while at < end and text[at] in " \t":
            at += 1
        return at

    def line_break(self, at: int, *, lenient: bool = False) -> int:
        """A line break, after a comment perhaps. `lenient` takes a comment that ends the text as well."""
        text = self.text
        if text.startswith("#", at):
            stop = text.find("\n", at)
            if stop >= 0:
                return stop + 1
            if lenient:
                return self.end
            raise Failure(self.end, ("line break",))
        if text.startswith("\n", at):
            return at + 1
        if text.startswith("\r", at):
            if text.startswith("\n", at + 1):
                return at + 2
            at += 1
        raise Failure(at, ("line break",))

    def skip(self, at: int, *, lenient: bool = False) -> int:
        """Any blanks, line breaks and comments."""
        while True:
            at = self.skip_blanks(at)
            try:
                at = self.line_break(at, lenient=lenient)
            except Failure:
                return at
            if at >= self.end:
                return at

    def quoted(self, at: int) -> Reading[str]:
        """A string in double quotes, with Go's escapes."""
        text = self.text
        if not text.startswith('"', at):
            raise Failure(at, ("quoted string",))
        stop = at + 1
        while stop < self.end:
            char = text[stop]
            if char == '"':
                try:
                    return unquote(text[at + 1 : stop]), stop + 1
                except ValueError:
                    raise Failure(
                        at, reason="failed to unescape quoted string contents: invalid syntax"
                    ) from None
            stop += 2 if char == "\\" else 1
        raise Failure(self.end, ("end quote",), "required")

    def triple_quoted(self, at: int) -> Reading[str]:
        """A string in three double quotes, as it stands."""
        if not self.text.startswith('"""', at) or self.end - at < 6:
            raise Failure(at, ("quoted string",))
        stop = self.text.find('"""', at + 3)
        if stop < 0:
            raise Failure(self.end, ("end triple-quote",), "required")
        return self.text[at + 3 : stop], stop + 3

    def number(self, at: int) -> Reading[int | float]:
        """An int64 or a float64; no exponent."""
        start = at + 1 if self.text.startswith("-", at) else at
        digits, stop = self.run(start, DIGITS, "number")
        negative = start != at
        if self.text.startswith(".", stop) and self.text[stop + 1 : stop + 2] in DIGITS:
            fraction, stop = self.run(stop + 1, DIGITS, "number")
            found = float(f"{digits}.{fraction}")
            if found == float("inf"):
                shown = f"{digits}.{fraction}"
                raise Failure(
                    at,
                    reason=f"failed to parse '{shown}' as float: "
                    f'strconv.ParseFloat: parsing "{shown}": value out of range',
                )
            return (-found if negative else found), stop
        if len(digits.lstrip("0")) > 19 or int(digits) >= 1 << 63:
            raise Failure(
                at,
                reason=f"failed to parse '{digits}' as integer: "
                f'strconv.ParseInt: parsing "{digits}": value out of range',
            )
        return (-int(digits) if negative else int(digits)), stop


_ESCAPES = {
    "a": b"\a", "b": b"\b", "f": b"\f", "n": b"\n", "r": b"\r", "t": b"\t", "v": b"\v",
    "\\": b"\\", '"': b'"',
}  # fmt: skip
_OCTAL = frozenset("01234567")
_HEX = frozenset("0123456789abcdefABCDEF")


def unquote(body: str) -> str:
    """The contents of a Go interpreted string literal; a ValueError when it is none."""
    if "\n" in body:
        raise ValueError("line break in string")
    if "\\" not in body:
        return body
    out = bytearray()
    at = 0
    while at < len(body):
        char = body[at]
        if char != "\\":
            out += char.encode("utf-8", "surrogatepass")
            at += 1
            continue
        mark = body[at + 1 : at + 2]
        if mark in _ESCAPES and mark:
            out += _ESCAPES[mark]
            at += 2
        elif mark in ("x", "u", "U"):
            width = {"x": 2, "u": 4, "U": 8}[mark]
            digits = body[at + 2 : at + 2 + width]
            if len(digits) != width or not _HEX.issuperset(digits):
                raise ValueError("bad escape")
            code = int(digits, 16)
            if mark == "x":
                out.append(code)
            elif code > 0x10FFFF or 0xD800 <= code < 0xE000:
                raise ValueError("bad code point")
            else:
                out += chr(code).encode()
            at += 2 + width
        else:
            digits = body[at + 1 : at + 4]
            if len(digits) != 3 or not _OCTAL.issuperset(digits) or int(digits, 8) > 255:
                raise ValueError("bad escape")
            out.append(int(digits, 8))
            at += 4
    return go_text(bytes(out))


def expecting(read: Callable[[int], T], at: int, *expected: str) -> T:
    """Reads; a failure that is not fatal expects these things instead."""
    try:
        return read(at)
    except Failure as failure:
        if failure.fatal:
            raise
        raise Failure(failure.at, expected) from None


def required(read: Callable[[int], T], at: int) -> T:
    """Reads; any failure is fatal."""
    try:
        return read(at)
    except Failure as failure:
        if failure.fatal:
            raise
        raise Failure(failure.at, failure.expected, "required") from None


def optional(read: Callable[[int], Reading[Any]], at: int) -> Reading[Any]:
    """Reads, or finds None; fatal failures remain."""
    try:
        return read(at)
    except Failure as failure:
        if failure.fatal:
            raise
        return None, at


def one_of(at: int, *choices: Callable[[int], T]) -> T:
    """The first choice that reads. Otherwise the failure that got furthest; equal ones are joined."""
    best: Failure | None = None
    for read in choices:
        try:
            return read(at)
        except Failure as failure:
            if failure.fatal:
                raise
            if best is None or failure.at > best.at:
                best = failure
            elif failure.at == best.at:
                best = Failure(best.at, best.expected + failure.expected)
    assert best is not None
    raise best


def delimited(
    at: int,
    item: Callable[[int], Reading[T]],
    delimiter: Callable[[int], int],
    stop: Callable[[int], int],
) -> Reading[list[T]]:
    """Items between delimiters up to `stop`; a delimiter before the stop is allowed."""
    found: list[T] = []
    while True:
        try:
            value, at = item(at)
        except Failure:
            try:
                return found, stop(at)
            except Failure:
                pass
            raise
        found.append(value)
        try:
            at = delimiter(at)
        except Failure as failure:
            try:
                return found, stop(at)
            except Failure as other:
                reason = failure.reason if failure.reason is not None else other.reason
                raise Failure(failure.at, failure.expected + other.expected, reason) from None
