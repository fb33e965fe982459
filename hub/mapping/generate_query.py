"""Queries to Python: each becomes statements that compute it and an expression that names the result.

An expression handed back is free of errors and of effects, so it may be used later, and once. Whatever
can fail is a statement of its own, with its own `except` that puts the value's source into the error; in
CPython that costs nothing until it fails. What is known of a value while generating (`Code.kind`) chooses
between inlined operators and the complete ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from hub.mapping import tree
from hub.mapping.annotation import annotation
from hub.mapping.emitter import INDENT_MAX, TRIES_MAX, Code, Scope, merged
from hub.mapping.generate_calls import Calls
from hub.mapping.generate_operators import Operators
from hub.mapping.tree import Literal, Query, literal_of
from hub.mapping.values import DELETE, NOTHING

_KINDS: Final = {str: "str", bool: "bool", int: "num", float: "num"}


class QueryGenerator(Calls, Operators):
    """Generates queries. `structured` is False for messages that are no JSON: there `this` is an error."""

    def __init__(
        self, *, structured: bool, maps: dict[str, str], writes_meta: bool, variables: dict[str, str]
    ) -> None:
        super().__init__()
        self.structured = structured
        self.maps = maps
        self.writes_meta = writes_meta
        self.variables = variables
        self.columns: dict[str, str] = {}
        self.definite: dict[str, Code] = {}
        self.uses: set[str] = set()

    def query(self, node: Query, scope: Scope) -> Code:
        """Emits what computes a query, and returns the result."""
        found = literal_of(node)
        if found is not None:
            sentinel = found.value is DELETE or found.value is NOTHING
            kind = "any" if sentinel else _KINDS.get(type(found.value), "value")
            return Code(self.constant(found.value), kind)
        if self.depth > INDENT_MAX or self.tries > TRIES_MAX:
            return self._apart(node, scope)
        return self._query(node, scope)

    def _apart(self, node: Query, scope: Scope) -> Code:
        """A query in a function of its own, so that blocks do not nest too deep."""
        name, tries = self.temp("f"), self.tries
        depth, self.depth, self.tries = self.depth, 1, 0
        lines, self.lines = self.lines, []
        result = self._query(node, scope)
        self.emit(f"return {result.text}")
        body, self.lines = self.lines, lines
        self.depth, self.tries = depth, tries
        self.emit(f"def {name}():")
        self.lines += [" " * depth + line for line in body]
        made = self.temp()
        self.emit(f"{made} = {name}()")
        return replace(result, text=made)

    def _query(self, node: Query, scope: Scope) -> Code:
        match node:
            case tree.Field():
                return self.field_path(node, scope)
            case tree.Get(target, path):
                return self.path_into(self.query(target, scope), path)
            case tree.Index(target, index):
                value, at = self.query(target, scope), self.query(index, scope)
                return self.failing_call(
                    f"element({value.text}, {at.text})", f"annotate(e, {annotation(target)!r})"
                )
            case tree.Slice(target, low, high):
                value = self.query(target, scope)
                bounds = [self.query(bound, scope).text if bound else "None" for bound in (low, high)]
                return self.failing_call(
                    f"part({value.text}, {bounds[0]}, {bounds[1]})", f"annotate(e, {annotation(target)!r})"
                )
            case tree.Variable(name):
                return self.variable(name)
            case tree.Metadata(name):
                return self._metadata(name)
            case tree.Function():
                return self._function(node, scope)
            case tree.Method():
                return self._method(node, scope)
            case tree.MapTo(target, body):
                return self.query(body, scope.within(self.kept(self.query(target, scope))))
            case tree.Lambda(name, body):
                if scope.this is None and not self.structured:
                    return self._no_context("")
                return self.query(body, scope.popped(name))
            case tree.Not(operand):
                return self.inverse(operand, scope)
            case tree.Negate(operand):
                return self._arithmetic("-", Literal(0), operand, scope)
            case tree.Binary():
                return self._binary(node, scope)
            case tree.Array(items):
                return self._array(items, scope)
            case tree.Object(items):
                return self._object(items, scope)
            case tree.If():
                return self._if(node, scope)
            case tree.Match():
                return self._match(node, scope)
        raise AssertionError(node)

    # Paths, variables, metadata

    def _no_context(self, field: str) -> Code:
        return self.failing_call(f"no_context({field!r})", None)

    def field_path(self, node: tree.Field, scope: Scope) -> Code:
        if node.base == "root":
            self.uses.add("root")
            return self.path_into(Code(self._snapshot("root")), node.path)
        base = scope.this if node.base == "this" else scope.names[node.base]
        if base is None:
            if not self.structured:
                return self._no_context(".".join(map(tree.escaped, node.path)))
            self.uses.add("this")
            if not node.path and self.mutation:
                return Code(self._snapshot("this"), json=True)
            base = Code("this", json=True)
        if base.text == "this" and node.path and base.json:
            self.uses.add("d")
            first = Code(f"d.get({node.path[0]!r})", json=True)
            return self.path_into(first, node.path[1:])
        return self.path_into(base, node.path)

    def _snapshot(self, name: str) -> str:
        """A variable that statements assign, as it is now."""
        made = self.temp()
        self.emit(f"{made} = {name}")
        return made

    def path_into(self, base: Code, path: Sequence[str]) -> Code:
        if "*" in path:
            return Code(f"search({base.text}, {tuple(path)!r})", json=base.json)
        for segment in path:
            name = self.named(base).text
            base = Code(
                f"{name}.get({segment!r}) if type({name}) is dict else step({name}, {segment!r})",
                json=base.json,
            )
            base = self.kept(base)
        return base

    def variable(self, name: str) -> Code:
        variable = self.variables.get(name)
        self.uses.add("variables")
        known = self.definite.get(name)
        if known is not None:
            return known
        if variable is None:
            return self.failing_call(f"undefined({name!r})", None)
        self.failing += 1
        made = self.temp()
        self.emit(f"{made} = {variable} if {variable} is not UNSET else undefined({name!r})")
        return Code(made)

    def _metadata(self, name: str) -> Code:
        self.uses.add("meta")
        if self.writes_meta:
            return Code(f"meta.get({name!r})") if name else Code("dict(meta)")
        if not name:
            return Code("st.metadata(i)")
        column = self.columns.setdefault(name, f"m{len(self.columns)}")
        return Code(f"{column}[i]", json=True)

    # Errors and defaults

    def catch(self, target: Query, fallback: Query, scope: Scope) -> Code:
        made = self.temp()
        before, start = self.failing, len(self.lines)
        alike = literal_of(fallback) is not None
        with self.attempt(quiet=alike):
            value = self.query(target, scope)
            self.emit(f"{made} = {value.text}")
        if self.failing == before:
            self.unwrap(start)
            return replace(value, text=made)
        self.failing = before
        if alike:
            other = self.query(fallback, scope)
            self.emit(f"except RecordError: {made} = {other.text}")
            return merged(made, (value, other))
        caught = self.temp("x")
        with self.block("except RecordError as e:"):
            self.emit(f"{caught} = text_of(e)")
            self.emit(f"{made} = UNSET")
        with self.block(f"if {made} is UNSET:"):
            other = self.query(fallback, scope.within(Code(caught, "str")))
            self.emit(f"{made} = {other.text}")
        return merged(made, (value, other))

    def coalesce(self, left: Query, right: Query, scope: Scope) -> Code:
        made = self.temp()
        before, start = self.failing, len(self.lines)
        with self.attempt(quiet=True):
            value = self.query(left, scope)
            self.emit(f"{made} = {value.text}")
        if self.failing == before:
            self.unwrap(start)
        else:
            self.failing = before
            self.emit(f"except RecordError: {made} = None")
        missing = (
            f"{made} is None" if value.plain else f"{made} is None or {made} is DELETE or {made} is NOTHING"
        )
        with self.block(f"if {missing}:"):
            other = self.query(right, scope)
            self.emit(f"{made} = {other.text}")
        return merged(made, (replace(value, kind="value") if value.kind == "any" else value, other))

    # Literals with queries in them

    def _array(self, items: Sequence[Query], scope: Scope) -> Code:
        codes = [self.kept(self.query(item, scope)) for item in items]
        listed = f"[{', '.join(code.text for code in codes)}]"
        found = listed if all(code.plain for code in codes) else f"kept({listed})"
        return self.bounded_literal(found, codes)

    def _object(self, items: Sequence[tuple[Query, Query]], scope: Scope) -> Code:
        pairs, codes = [], []
        for key, value in items:
            name = literal_of(key)
            if name is not None:
                key_text, shown = repr(name.value), repr(f"failed to resolve '{name.value}' value: ")
            else:
                start, before = len(self.lines), self.failing
                found = self.query(key, scope)
                if self.failing > before:
                    self.wrap(start, "prefixed(e, 'failed to resolve key: ')")
                key_text = self.failing_call(f"key_of({found.text})", None).text
                shown = f"'failed to resolve \\'' + {key_text} + '\\' value: '"
            start, before = len(self.lines), self.failing
            code = self.kept(self.query(value, scope))
            if self.failing > before:
                self.wrap(start, f"prefixed(e, {shown})")
            pairs.append(f"{key_text}: {code.text}")
            codes.append(code)
        listed = "{" + ", ".join(pairs) + "}"
        text = listed if all(code.plain for code in codes) else f"kept_fields({listed})"
        return self.bounded_literal(text, codes)

    def bounded_literal(self, text: str, codes: Sequence[Code]) -> Code:
        """A literal, checked for size where two of its parts may be one and the same computed value."""
        if sum(code.kind in ("any", "value") and not code.json for code in codes) < 2:
            return Code(text, "value")
        return self.failing_call(f"bounded({text})", None, "value")

    # Branches

    def _if(self, node: tree.If, scope: Scope) -> Code:
        tests = []
        for position, (condition, _) in enumerate(node.branches):
            prefix = f"failed to check if condition{f' {position}' if position else ''}: "
            tests.append(self.captured(partial(self.condition, condition, scope, prefix, null=True)))
        results = [result for _, result in node.branches]
        return self._branches(tests, results, node.otherwise, scope)

    def _branches(
        self, tests: list[tuple[list[str], str]], results: list[Query], otherwise: Query | None, scope: Scope
    ) -> Code:
        """The result of the first test that holds: a chain of `elif`, or a loop left by `break` where
        tests need statements."""
        made = self.temp()
        self.lines += tests[0][0]
        chained = not any(lines for lines, _ in tests[1:])
        codes = []
        if chained:
            for position, ((_, test), result) in enumerate(zip(tests, results, strict=True)):
                with self.block(f"{'elif' if position else 'if'} {test}:"):
                    codes.append(self.query(result, scope))
                    self.emit(f"{made} = {codes[-1].text}")
            with self.block("else:"):
                codes.append(self._otherwise(made, otherwise, scope))
            return merged(made, codes)
        self.tries += 1
        with self.block("while True:"):
            for position, ((lines, test), result) in enumerate(zip(tests, results, strict=True)):
                if position:
                    self.lines += [" " + line for line in lines]
                with self.block(f"if {test}:"):
                    codes.append(self.query(result, scope))
                    self.emit(f"{made} = {codes[-1].text}")
                    self.emit("break")
            codes.append(self._otherwise(made, otherwise, scope))
            self.emit("break")
        self.tries -= 1
        return merged(made, codes)

    def _otherwise(self, made: str, otherwise: Query | None, scope: Scope) -> Code:
        code = Code("NOTHING") if otherwise is None else self.query(otherwise, scope)
        self.emit(f"{made} = {code.text}")
        return code

    def condition(self, node: Query, scope: Scope, prefix: str, *, null: bool) -> str:
        """A test that is True or False; `null` counts as false in expressions."""
        start, before = len(self.lines), self.failing
        value = self.named(self.query(node, scope))
        if self.failing > before:
            self.wrap(start, f"prefixed(e, {prefix!r})")
        if value.kind == "bool":
            return value.text
        self.failing += 1
        shown = f"lexeme({value.text})" if value.json else value.text
        known = f"{value.text} is True or {value.text} is not False"
        known += f" and {value.text} is not None" if null else ""
        return f"{known} and not_boolean({shown}, {annotation(node)!r})"

    def _match(self, node: tree.Match, scope: Scope) -> Code:
        if node.subject is None:
            if scope.this is None and not self.structured:
                subject = Code("None", json=True)
            else:
                subject = self._query(tree.Field("this"), scope)
        else:
            subject = self.kept(self.query(node.subject, scope))
        inner = scope.within(subject)
        cases, otherwise = [], None
        for case in node.cases:
            if case.test is None:
                otherwise = case.result
                break
            cases.append(case)
        if not cases:
            return Code("NOTHING") if otherwise is None else self.query(otherwise, inner)
        tests = [
            self.captured(partial(self._case_test, position, case, subject, inner))
            for position, case in enumerate(cases)
        ]
        return self._branches(tests, [case.result for case in cases], otherwise, inner)

    def _case_test(self, position: int, case: tree.Case, subject: Code, scope: Scope) -> str:
        assert case.test is not None
        found = literal_of(case.test)
        if found is not None:
            if subject.json and type(found.value) is str:
                return f"{subject.text} == {found.value!r}"
            return f"deep_equal({subject.text}, {self.constant(found.value)})"
        start, before = len(self.lines), self.failing
        value = self.query(case.test, scope)
        if self.failing > before:
            self.wrap(start, f"prefixed(e, 'failed to check match case {position}: ')")
        return value.text if value.kind == "bool" else f"{self.named(value).text} is True"
