"""Writing Python: lines, temporaries, constants, and what is known of an expression.

Blocks, temporaries and `try` statements are counted here, so that what nests too deep for CPython can be put
into a function of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hub.mapping.tree import Field, Query
from hub.mapping.values import DELETE, NOTHING

TRIES_MAX: Final = 7
INDENT_MAX: Final = 24
"""Beyond these depths generated code goes into a function of its own: CPython nests 20 blocks."""


@dataclass(frozen=True, slots=True)
class Code:
    """An expression: its text, what kind of value it gives if known, whether it comes straight from a document.

    Kinds: `str`, `bool`, `num` (an int or float that was computed), `value` (no sentinel), `any`.
    """

    text: str
    kind: str = "any"
    json: bool = False

    @property
    def plain(self) -> bool:
        """True when the value cannot be `deleted()` or `nothing()`."""
        return self.json or self.kind != "any"


@dataclass(frozen=True, slots=True)
class Scope:
    """What names mean at one place: `this`, the context around it, lambda names, the record's index.

    `this` is None where it is the document itself.
    """

    this: Code | None = None
    outer: Code | None = None
    names: dict[str, Code] = field(default_factory=dict)
    index: str = "i"
    lambdas: int = 0

    def within(self, value: Code) -> Scope:
        """The scope of a query whose context is `value`."""
        return replace(self, this=value, outer=self.this)

    def popped(self, name: str) -> Scope:
        """The scope of a lambda's body: the context under a name, `this` the outer one again."""
        names = self.names
        if name != "_":
            names = {**names, name: self.this or Code("this", json=True)}
        return replace(self, this=self.outer, outer=None, names=names)


class Emitter:
    """Lines of Python, temporaries and constants."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 0
        self.tries = 0
        self.failing = 0
        self.quiet = False
        self.constants: dict[str, Any] = {}
        self.temps = 0

    def emit(self, line: str) -> None:
        self.lines.append(" " * self.depth + line)

    def temp(self, prefix: str = "t") -> str:
        self.temps += 1
        return f"{prefix}{self.temps}"

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.emit(head)
        self.depth += 1
        before = len(self.lines)
        yield
        if len(self.lines) == before:
            self.emit("pass")
        self.depth -= 1

    @contextmanager
    def attempt(self, *, quiet: bool) -> Iterator[None]:
        """A `try` block. When it is `quiet` nobody will look at the error, and none is put together."""
        outside, self.quiet = self.quiet, quiet
        self.tries += 1
        with self.block("try:"):
            yield
        self.tries -= 1
        self.quiet = outside

    def constant(self, value: Any, prefix: str = "k") -> str:
        """An expression for a value known now."""
        if value is None or value is True or value is False:
            return repr(value)
        if type(value) in (str, int, float, bytes):
            return repr(value)
        if value is DELETE:
            return "DELETE"
        if value is NOTHING:
            return "NOTHING"
        for name, known in self.constants.items():
            if known is value:
                return name
        name = f"{prefix}{len(self.constants)}"
        self.constants[name] = value
        return name

    def kept(self, code: Code) -> Code:
        """The value under a name that may be used more than once."""
        if re.fullmatch(r"\w+|'[^'\\]*'|-?\d+(\.\d+)?", code.text):
            return code
        name = self.temp()
        self.emit(f"{name} = {code.text}")
        return replace(code, text=name)

    def named(self, code: Code) -> Code:
        """The value under a name, literals too."""
        if code.text.isidentifier():
            return code
        name = self.temp()
        self.emit(f"{name} = {code.text}")
        return replace(code, text=name)

    def guarded(self, line: str, handler: str) -> None:
        """A statement that can fail, and what its error becomes."""
        self.failing += 1
        if self.quiet:
            self.emit(line)
            return
        self.emit(f"try: {line}")
        self.emit(f"except RecordError as e: raise {handler} from e")

    # What the parts of the generator call of each other

    def query(self, node: Query, scope: Scope) -> Code:
        """Emits what computes a query, and returns the result."""
        raise NotImplementedError

    def coalesce(self, left: Query, right: Query, scope: Scope) -> Code:
        """`left | right`."""
        raise NotImplementedError

    def catch(self, target: Query, fallback: Query, scope: Scope) -> Code:
        """`target.catch(fallback)`."""
        raise NotImplementedError

    def inverse(self, operand: Query, scope: Scope) -> Code:
        """`!operand`."""
        raise NotImplementedError

    def field_path(self, node: Field, scope: Scope) -> Code:
        """A path into the context, `root` or a lambda's value."""
        raise NotImplementedError

    def path_into(self, base: Code, path: Sequence[str]) -> Code:
        """A path into any value."""
        raise NotImplementedError

    def variable(self, name: str) -> Code:
        """`$name`."""
        raise NotImplementedError

    def failing_call(self, expression: str, handler: str | None, kind: str = "any") -> Code:
        """An expression that can fail, as a statement; without a handler its error is complete."""
        made = self.temp()
        if handler is None:
            self.failing += 1
            self.emit(f"{made} = {expression}")
        else:
            self.guarded(f"{made} = {expression}", handler)
        return Code(made, kind)

    def wrap(self, start: int, handler: str) -> None:
        """Puts the lines since `start` into a `try`."""
        if self.quiet:
            return
        body = self.lines[start:]
        del self.lines[start:]
        self.emit("try:")
        self.lines += [" " + line for line in body]
        self.emit(f"except RecordError as e: raise {handler} from e")

    def unwrap(self, start: int) -> None:
        """Takes back the `try` begun at `start`."""
        self.lines[start:] = [line[1:] for line in self.lines[start + 1 :]]

    def captured(self, generate: Callable[[], str]) -> tuple[list[str], str]:
        """What a piece of code emits, taken out again, and its result."""
        start = len(self.lines)
        result = generate()
        lines = self.lines[start:]
        del self.lines[start:]
        return lines, result


def merged(made: str, codes: Sequence[Code]) -> Code:
    """What is known of a value that comes from one of these."""
    if all(code.json for code in codes):
        return Code(made, json=True)
    kinds = {code.kind for code in codes}
    if len(kinds) == 1:
        return Code(made, kinds.pop())
    return Code(made, "value" if all(code.plain for code in codes) else "any")
