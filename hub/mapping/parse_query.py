"""Queries: from text to tree, by recursive descent.

The alternatives are tried in the engine's order and fail in its words. What the engine reads more than
once (a match's subject that turns out to be its first case) is read once here and remembered by position,
so hostile text takes linear time; nesting has a limit with a name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hub.mapping import binding, tree
from hub.mapping.binding import Mistake
from hub.mapping.context import SHARED, Context
from hub.mapping.reader import (
    NAME,
    SNAKE,
    Failure,
    Reader,
    Reading,
    delimited,
    expecting,
    one_of,
    optional,
    required,
)
from hub.mapping.tree import Argument, Case, Literal, Query
from hub.mapping.values import real

NESTING_MAX: Final = 48
"""Queries within queries: parentheses, arguments, literals, branches."""

_OPERATORS: Final = ("&&", "||", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", ">", "<", "|")


class QueryReader(Reader):
    """Reads queries of one text. `names` are the lambda names in scope."""

    def __init__(self, text: str, context: Context = SHARED) -> None:
        super().__init__(text)
        self.context = context
        self.names: frozenset[str] = frozenset()
        self.unclear: list[int] = []
        self._seen: dict[tuple[int, frozenset[str]], Reading[Query] | Failure] = {}
        self._depth = 0

    # Arithmetic

    def query(self, at: int) -> Reading[Query]:
        """One expression, after blanks."""
        at = self.skip_blanks(at)
        key = (at, self.names)
        found = self._seen.get(key)
        if found is None:
            if self._depth >= NESTING_MAX:
                raise Failure(at, reason=f"queries may be nested {NESTING_MAX} deep at most")
            self._depth += 1
            try:
                found = self._arithmetic(at)
            except Failure as failure:
                found = failure
            finally:
                self._depth -= 1
            self._seen[key] = found
        if isinstance(found, Failure):
            raise found
        return found

    def _arithmetic(self, at: int) -> Reading[Query]:
        operands: list[tuple[Query, int]] = []
        operators: list[str] = []
        stop = at
        while True:
            sign = stop if self.text.startswith("-", stop) else -1
            operand, stop = self._term(stop if sign < 0 else self.skip(stop + 1))
            operands.append((operand, sign))
            op, after = self._operator(stop)
            if op is None:
                break
            operators.append(op)
            stop = self.skip(after)
        if "&&" in operators and "||" in operators:
            self.unclear.append(at)
        return self._checked(lambda: binding.grouped(operands, operators, at), at), stop

    def _operator(self, at: int) -> Reading[str | None]:
        at = self.skip_blanks(at)
        for op in _OPERATORS:
            if self.text.startswith(op, at):
                return op, at + len(op)
        return None, at

    def _checked(self, build: Callable[[], Query], at: int) -> Query:
        try:
            return build()
        except Mistake as mistake:
            raise Failure(at, reason=str(mistake), unknown=mistake.unknown) from mistake

    # Terms and their tails

    def _term(self, at: int) -> Reading[Query]:
        start, negative = at, self.text.startswith("!", at)
        if negative:
            at = self.skip_blanks(at + 1)
        found, at = expecting(self._primary, at, "query")
        while True:
            if self.text.startswith("[", at):
                found, at = self._brackets_tail(found, at)
            elif self.text.startswith(".", at):
                found, at = self._tail(found, self.skip(at + 1))
            else:
                return (tree.Not(found, start) if negative else found), at

    def _tail(self, target: Query, at: int) -> Reading[Query]:
        return required(
            lambda at: one_of(
                at,
                lambda at: self._map_to(target, at),
                lambda at: self._method(target, at),
                lambda at: self._field_of(target, at),
            ),
            at,
        )

    def _map_to(self, target: Query, at: int) -> Reading[Query]:
        stop = self.skip(expecting(lambda at: self.char(at, "("), at, "method"))
        body, stop = self.query(stop)
        return tree.MapTo(target, body, at), self.char(self.skip(stop), ")")

    def _method(self, target: Query, at: int) -> Reading[Query]:
        name, stop = self.run(at, SNAKE, "method")
        arguments, stop = self._arguments(stop)
        return (
            self._checked(lambda: binding.method(target, name, arguments, self.context, at), stop),
            stop,
        )

    def _field_of(self, target: Query, at: int) -> Reading[Query]:
        name, stop = expecting(
            lambda at: one_of(at, lambda at: self.run(at, NAME, "field path"), self.quoted), at, "field path"
        )
        if isinstance(target, tree.Field):
            return tree.Field(target.base, (*target.path, name), target.bare, target.at), stop
        if isinstance(target, tree.Get):
            return tree.Get(target.target, (*target.path, name), target.at), stop
        return tree.Get(target, (name,), at), stop

    def _brackets_tail(self, target: Query, at: int) -> Reading[Query]:
        """`[i]`, `[low:high]`: an extension of the language."""
        parts: list[Query | None] = [None]
        stop = self.skip(at + 1)
        colons = 0
        while not self.text.startswith("]", stop):
            if self.text.startswith(":", stop) and colons == 0:
                colons = 1
                parts.append(None)
                stop = self.skip(stop + 1)
            elif parts[-1] is None:
                parts[-1], stop = required(self.query, stop)
                stop = self.skip(stop)
            else:
                raise Failure(stop, ("closing square bracket",), "required")
        if not colons and parts[0] is None:
            raise Failure(stop, ("index",), "required")
        if colons:
            return tree.Slice(target, parts[0], parts[1], at), stop + 1
        assert parts[0] is not None
        return tree.Index(target, parts[0], at), stop + 1

    # Primaries

    def _primary(self, at: int) -> Reading[Query]:
        return one_of(
            at,
            self._match,
            self._if,
            self._lambda,
            self._parenthesis,
            self._literal,
            self._function,
            self._metadata,
            self._variable,
            self._field_root,
        )

    def _match(self, at: int) -> Reading[Query]:
        stop = self.blanks(self.term(at, "match"))
        subject, stop = optional(self.query, stop)
        cases, stop = required(self._cases, self.skip(stop))
        return tree.Match(subject, tuple(cases), at), stop

    def _cases(self, at: int) -> Reading[list[Case]]:
        return delimited(
            self.skip(self.char(at, "{")),
            self._case,
            self._case_end,
            lambda at: self.char(self.skip(at), "}"),
        )

    def _case_end(self, at: int) -> int:
        at = self.skip_blanks(at)
        return self.skip(one_of(at, lambda at: self.char(at, ","), self.line_break))

    def _case(self, at: int) -> Reading[Case]:
        test, stop = one_of(at, self._any_case, self._test_case)
        result, stop = self.query(self.skip_blanks(stop))
        return Case(test, result), stop

    def _any_case(self, at: int) -> Reading[Query | None]:
        stop = expecting(lambda at: self.char(at, "_"), at, "match case")
        return None, self.term(self.skip_blanks(stop), "=>")

    def _test_case(self, at: int) -> Reading[Query | None]:
        test, stop = expecting(self.query, at, "match case")
        return test, self.term(self.skip_blanks(stop), "=>")

    def _if(self, at: int) -> Reading[Query]:
        branch, stop = self._if_branch(self.blanks(self.term(at, "if")))
        branches = [branch]
        while True:
            found, stop = optional(self._else_if, stop)
            if found is None:
                break
            branches.append(found)
        otherwise, stop = optional(self._else, stop)
        return tree.If(tuple(branches), otherwise, at), stop

    def _if_branch(self, at: int) -> Reading[tuple[Query, Query]]:
        condition, stop = required(self.query, at)
        result, stop = self._braced(stop)
        return (condition, result), stop

    def _braced(self, at: int) -> Reading[Query]:
        stop = self.skip(required(lambda at: self.char(at, "{"), self.skip(at)))
        result, stop = required(self.query, stop)
        return result, required(lambda at: self.char(at, "}"), self.skip(stop))

    def _else_if(self, at: int) -> Reading[tuple[Query, Query]]:
        return self._if_branch(self.blanks(self.term(self.skip(at), "else if")))

    def _else(self, at: int) -> Reading[Query]:
        return self._braced(self.term(self.skip(at), "else"))

    def _lambda(self, at: int) -> Reading[Query]:
        name, body_at = expecting(self._lambda_head, at, "function")
        outer = self.names
        if name != "_":
            if name in outer:
                raise Failure(at, reason=f"context label `{name}` would shadow a parent context")
            if name in ("root", "this"):
                raise Failure(at, reason=f"context label `{name}` is not allowed")
            self.names = outer | {name}
        try:
            body, stop = required(self.query, body_at)
        finally:
            self.names = outer
        if isinstance(body, tree.Lambda):
            raise Failure(
                at,
                reason="it would be in poor taste to capture the same context under both "
                f"'{name}' and '{body.name}'",
            )
        return tree.Lambda(name, body, at), stop

    def _lambda_head(self, at: int) -> Reading[str]:
        name, stop = self.run(at, NAME, "context name")
        return name, self.blanks(self.term(self.blanks(stop), "->"))

    def _parenthesis(self, at: int) -> Reading[Query]:
        stop = self.skip(expecting(lambda at: self.char(at, "("), at, "function"))
        inner, stop = self.query(stop)
        close = expecting(lambda at: self._closing(at), self.skip(stop), "closing bracket")
        return inner, close

    def _closing(self, at: int) -> int:
        if self.text.startswith(")", at):
            return at + 1
        raise Failure(at, ("closing bracket",), "required")

    def _literal(self, at: int) -> Reading[Query]:
        return one_of(
            at,
            self._boolean,
            lambda at: self._value(self.number, at),
            lambda at: self._value(self.triple_quoted, at),
            lambda at: self._value(self.quoted, at),
            lambda at: (Literal(None, at=at), self.term(at, "null")),
            self._array,
            self._object,
        )

    def _boolean(self, at: int) -> Reading[Query]:
        for word, value in (("true", True), ("false", False)):
            if self.text.startswith(word, at):
                return Literal(value, at=at), at + len(word)
        raise Failure(at, ("boolean",))

    def _value(self, read: Callable[[int], Reading[Any]], at: int) -> Reading[Query]:
        value, stop = read(at)
        if type(value) is float:
            value = real(value)
        return Literal(value, at=at), stop

    def _array(self, at: int) -> Reading[Query]:
        start = self.skip(expecting(lambda at: self.char(at, "["), at, "array"))
        items, stop = delimited(
            start,
            lambda at: expecting(self.query, at, "object"),
            self._comma,
            lambda at: self.char(self.skip(at), "]"),
        )
        return binding.array(items, at), stop

    def _object(self, at: int) -> Reading[Query]:
        start = self.skip(expecting(lambda at: self.char(at, "{"), at, "object"))
        items, stop = delimited(start, self._pair, self._comma, lambda at: self.char(self.skip(at), "}"))
        return self._checked(lambda: binding.object_(items, at), at), stop

    def _pair(self, at: int) -> Reading[tuple[Query, Query]]:
        key, stop = one_of(
            at,
            lambda at: self._value(self.quoted, at),
            lambda at: expecting(self.query, at, "object"),
        )
        value_at = self.skip(self.char(self.skip_blanks(stop), ":"))
        value, stop = expecting(self.query, value_at, "object")
        return (key, value), stop

    def _comma(self, at: int) -> int:
        return self.skip(self.char(self.skip_blanks(at), ","))

    def _function(self, at: int) -> Reading[Query]:
        name, stop = self.run(at, SNAKE, "function")
        arguments, stop = self._arguments(stop)
        return self._checked(lambda: binding.function(name, arguments, self.context, at), stop), stop

    def _arguments(self, at: int) -> Reading[list[Argument]]:
        start = self.skip(expecting(lambda at: self.char(at, "("), at, "function arguments"))
        return delimited(
            start,
            lambda at: required(lambda at: expecting(self._argument, at, "function argument"), at),
            lambda at: required(lambda at: expecting(self._comma, at, "comma"), at),
            lambda at: required(
                lambda at: expecting(lambda at: self.char(self.skip(at), ")"), at, "closing bracket"), at
            ),
        )

    def _argument(self, at: int) -> Reading[Argument]:
        return one_of(at, self._named_argument, self._nameless_argument)

    def _named_argument(self, at: int) -> Reading[Argument]:
        name, stop = self.run(at, SNAKE, "snake-case")
        stop = self.skip_blanks(self.char(stop, ":"))
        value, stop = required(lambda at: expecting(self.query, at, "argument value"), stop)
        return Argument(name, value), stop

    def _nameless_argument(self, at: int) -> Reading[Argument]:
        value, stop = self.query(at)
        return Argument("", value), stop

    def _metadata(self, at: int) -> Reading[Query]:
        stop = expecting(lambda at: self.char(at, "@"), at, "metadata path")
        name, stop = optional(
            lambda at: one_of(at, lambda at: self.run(at, NAME, "metadata path"), self.quoted), stop
        )
        return tree.Metadata(name or "", at), stop

    def _variable(self, at: int) -> Reading[Query]:
        stop = expecting(lambda at: self.char(at, "$"), at, "variable path")
        name, stop = self.run(stop, NAME, "variable path")
        return tree.Variable(name, at), stop

    def _field_root(self, at: int) -> Reading[Query]:
        name, stop = self.run(at, NAME, "field path")
        if name in ("this", "root") or name in self.names:
            return tree.Field(name, at=at), stop
        return tree.Field("this", (name,), True, at), stop
