"""Calls to Python: functions, methods, their arguments, and queries handed over as lambdas.

The library's implementations are called; the few that depend on where they stand (`catch`, `from`, `apply`,
`json`, …) are written out here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from hub.mapping import tree
from hub.mapping.annotation import annotation
from hub.mapping.binding import constantly
from hub.mapping.emitter import Code, Emitter, Scope
from hub.mapping.gofmt import plain_layout
from hub.mapping.limits import OUTPUT_BYTES_MAX
from hub.mapping.registry import Declaration, Default, Param
from hub.mapping.tree import Literal, Query, literal_of

INLINED: Final = {
    "length": ("type({0}) is list or type({0}) is dict", "len({0})", "num"),
    "lowercase": ("type({0}) is str and {0}.isascii()", "{0}.lower()", "str"),
    "uppercase": ("type({0}) is str and {0}.isascii()", "{0}.upper()", "str"),
    "not_null": ("{0} is not None", "{0}", "any"),
}
"""Methods whose frequent case is one expression: when it holds, the expression, the kind of the result."""


SHARING: Final = frozenset(
    ["append", "concat", "merge", "assign", "zip", "with", "set", "map_each", "map_each_key"]
)
"""Methods whose result may hold one and the same value more than once."""


class Calls(Emitter):
    """Generates calls."""

    structured: bool
    maps: dict[str, str]
    writes_meta: bool
    variables: dict[str, str]
    uses: set[str]
    in_map = False
    mutation = False

    # Functions

    def _function(self, node: tree.Function, scope: Scope) -> Code:
        if not node.declared.core:
            return self._called(node, None, scope)
        index = scope.index
        match node.name:
            case "batch_index":
                return Code(index, "num")
            case "batch_size":
                return Code("st.count", "num")
            case "content":
                return Code(f"st.content({index})")
            case "error":
                return Code(f"st.error({index})")
            case "errored":
                return Code(f"st.errored({index})", "bool")
            case "error_source_label" | "error_source_name" | "error_source_path" | "error_source_type":
                return Code(f"st.error_source({index}, {node.name[13:]!r})")
            case "tracing_id":
                return Code("'00000000000000000000000000000000'", "str")
            case "tracing_span" | "flow_id":
                return Code("None", json=True)
        [key] = self._arguments(node.declared, node.bound, scope)
        match node.name:
            case "json":
                whole = self.failing_call(f"st.json({index})", None)
                argument = node.bound[0]
                if not isinstance(argument, Literal | Default):
                    return Code(f"computed(dot_search({whole.text}, {key.text}))", "value")
                if argument.value:
                    whole = self.path_into(whole, tree.dot_path(argument.value))
                return Code(f"computed({whole.text})", "value")
            case "metadata":
                return Code(f"st.metadata_value({index}, {key.text})")
            case "meta":
                return Code(f"st.metadata_text({index}, {key.text})")
            case "root_meta":
                self.uses.add("meta")
                current = "meta" if self.writes_meta else "st.metadata(i)"
                return Code(f"st.text_in({current}, {key.text})")
            case _:
                self.uses.add("variables")
                pairs = "".join(f"({name!r}, {local})," for name, local in self.variables.items())
                found = literal_of(node.bound[0])
                if found is not None:
                    return self.variable(found.value)
                return self.failing_call(f"lookup(({pairs}), {key.text})", None)

    # Methods

    def _method(self, node: tree.Method, scope: Scope) -> Code:
        if node.name == "format":
            layout = literal_of(node.target)
            known = plain_layout(layout.value) if layout is not None and type(layout.value) is str else None
            if known is not None and len(known[1]) == len(node.bound) and "d" not in known[1]:
                return self._formatted(node, *known, scope)
        if node.name == "bloblang" or not (node.declared.core or node.name == "get"):
            return self._called(node, node.target, scope)
        match node.name:
            case "catch":
                return self.catch(node.target, node.bound[0], scope)
            case "or":
                return self.coalesce(node.target, node.bound[0], scope)
            case "map":
                return self.query(node.bound[0], scope.within(self.kept(self.query(node.target, scope))))
            case "not":
                return self.inverse(node.target, scope)
            case "get":
                return self._get(node, scope)
            case "apply":
                return self._apply(node, scope)
            case "from":
                [index] = self._arguments(node.declared, node.bound, scope)
                return self.query(node.target, replace(scope, index=self.kept(index).text))
            case _:
                made = self.temp("f")
                at = self.temp("j")
                with self.block(f"def {made}({at}):"):
                    result = self.query(node.target, replace(scope, index=at))
                    self.emit(f"return {result.text}")
                return self.failing_call(f"every(st.count, {made})", None)

    def _formatted(
        self, node: tree.Method, literals: Sequence[str], verbs: Sequence[str], scope: Scope
    ) -> Code:
        """`format` of a layout that is known and has no verbs but `%v` and `%s`."""
        tests, pieces, arguments = [], [repr(literals[0])], []
        for position, argument in enumerate(node.bound):
            computed = sum(not isinstance(before, Literal) for before in node.bound[:position])
            value = self.named(self._evaluated(node.declared, str(computed), argument, scope))
            known = [f"type({value.text}) is str"] if value.kind != "str" else []
            if known and verbs[position] == "v":
                known.append(f"type({value.text}) is int")
            tests += [f"({' or '.join(known)})"] if known else []
            pieces += [f"f'{{{value.text}}}'", repr(literals[position + 1])]
            arguments.append(f"lexeme({value.text})" if value.json else value.text)
        made = self.temp()
        with self.block(f"if {' and '.join(tests) or 'True'}:"):
            self.emit(f"{made} = {' '.join(pieces)}")
            self.emit(f"if len({made}) > {OUTPUT_BYTES_MAX}: check_bytes(len({made}))")
        with self.block("else:"):
            call = f"{self.constant(node.declared.call, 'c')}({self.query(node.target, scope).text}, [{', '.join(arguments)}])"
            self.guarded(f"{made} = {call}", f"annotate(e, {annotation(node.target)!r})")
        self.failing += 1
        return Code(made, "str")

    def _get(self, node: tree.Method, scope: Scope) -> Code:
        found = literal_of(node.bound[0])
        if found is not None:
            if isinstance(node.target, tree.Field):
                joined = (*node.target.path, *tree.dot_path(found.value))
                return self.field_path(tree.Field(node.target.base, joined), scope)
            return self.path_into(self.query(node.target, scope), tree.dot_path(found.value))
        [path] = self._arguments(node.declared, node.bound, scope)
        target = self.query(node.target, scope)
        return Code(f"dot_search({target.text}, {path.text})", json=target.json)

    def _apply(self, node: tree.Method, scope: Scope) -> Code:
        found = literal_of(node.bound[0])
        [name] = self._arguments(node.declared, node.bound, scope)
        target = self.query(node.target, scope)
        self.uses.add("apply")
        meta = "meta" if self.writes_meta else "None"
        if found is None:
            known = "{" + ", ".join(f"{key!r}: {local}" for key, local in self.maps.items()) + "}"
            called = f"({known}.get({name.text}) or not_found({name.text}))"
        elif found.value in self.maps:
            called = self.maps[found.value]
        else:
            return self.failing_call(f"not_found({name.text})", None)
        return self.failing_call(
            f"{called}({target.text}, {scope.index}, st, {meta}, budget, depth + 1)", None
        )

    def _called(self, node: tree.Function | tree.Method, target: Query | None, scope: Scope) -> Code:
        """A call of the library: arguments first, as the engine does, then the target."""
        declared = node.declared
        static = node.prepared is not None
        arguments = [] if static else self._arguments(declared, node.bound, scope)
        if target is not None:
            if declared.forgiving and not isinstance(node.bound[0], Default):
                value = self.catch(target, Literal(None), scope)
            else:
                value = self.query(target, scope)
            if node.name == "string":
                return self._string(node, value)
            if declared.lexemes and value.json:
                value = Code(f"lexeme({value.text})")
            targets = [value.text]
        else:
            targets = []
        first = [self.constant(self.context)] if declared.needs else []
        listed = [argument.text for argument in arguments]
        if declared.variadic:
            listed = [f"[{', '.join(listed)}]"]
        if node.name in SHARING and self._may_share(node):
            made = self._uncounted(node, declared, static, targets, first, listed)
            return self.failing_call(f"weighed({made.text})", None)
        return self._uncounted(node, declared, static, targets, first, listed)

    def _string(self, node: tree.Function | tree.Method, value: Code) -> Code:
        """`string`: most values are text or small integers, which need no call."""
        target = self.named(value).text
        slow = f"lexeme({target})" if value.json else target
        made = self.temp()
        with self.block(f"if type({target}) is str or type({target}) is int:"):
            self.emit(f"{made} = f'{{{target}}}'")
        with self.block("else:"):
            self.guarded(f"{made} = {self.constant(node.declared.call, 'c')}({slow})", "e")
        return Code(made, "str")

    def _may_share(self, node: tree.Function | tree.Method) -> bool:
        """True when one value may come into the result more than once: a variable, `root`, what a lambda
        closes over, or any computed target of a method that joins values."""
        parts: list[Any] = [argument.value for argument in node.arguments]
        own: set[str] = set()
        if node.name.startswith("map_each"):
            own = {part.name for part in parts if isinstance(part, tree.Lambda)}
        elif isinstance(node, tree.Method):
            parts.append(node.target)
        closed = bool(own)
        for part in parts:
            for inner in tree.walk(part):
                if isinstance(inner, tree.Variable):
                    return True
                outside = isinstance(inner, tree.Field) and inner.base not in own
                if outside and (closed or inner.base != "this"):
                    return True
        return False

    def _uncounted(
        self,
        node: tree.Function | tree.Method,
        declared: Declaration,
        static: bool,
        targets: list[str],
        first: list[str],
        listed: list[str],
    ) -> Code:
        target = node.target if isinstance(node, tree.Method) else None
        annotated = target is not None and declared.annotate
        handler = f"annotate(e, {annotation(target)!r})" if annotated and target is not None else None
        inlined = INLINED.get(node.name) if target is not None and not node.bound else None
        if inlined is not None:
            return self._inlined(inlined, targets[0], self.constant(declared.call, "c"), handler)
        if static:
            return self.failing_call(
                f"{self.constant(node.prepared, 'p')}({', '.join(targets)})", handler, declared.result
            )
        call = self.constant(declared.call, "c")
        if declared.prepared:
            made = self.failing_call(f"{call}({', '.join(first + listed)})", None)
            return self.failing_call(f"{made.text}({', '.join(targets)})", handler, declared.result)
        return self.failing_call(f"{call}({', '.join(first + targets + listed)})", handler, declared.result)

    def _inlined(self, inlined: tuple[str, str, str], target: str, call: str, handler: str | None) -> Code:
        """A method's frequent case without a call."""
        test, fast, kind = inlined
        value = self.named(Code(target)).text
        made = self.temp()
        with self.block(f"if {test.format(value)}:"):
            self.emit(f"{made} = {fast.format(value)}")
        with self.block("else:"):
            self.guarded(f"{made} = {call}({value})", handler or "e")
        return Code(made, kind)

    context: Any = None

    def _arguments(self, declared: Declaration, bound: Sequence[Any], scope: Scope) -> list[Code]:
        made, computed = [], 0
        for position, argument in enumerate(bound):
            param = Param(str(computed)) if declared.variadic else declared.params[position]
            computed += not isinstance(argument, Literal | Default)
            made.append(self._argument(declared, param, argument, scope))
        return made

    def _argument(self, declared: Declaration, param: Param, argument: Any, scope: Scope) -> Code:
        if param.type == "query":
            if isinstance(argument, Default):
                value = argument.value
                return Code(self.constant(value if value is None else constantly(value)))
            return self._lambda(declared, argument, scope)
        if isinstance(argument, Literal | Default):
            return Code(self.constant(argument.value))
        value = self._evaluated(declared, param.name, argument, scope)
        if declared.lexemes and value.json:
            value = Code(f"lexeme({value.text})")
        if param.type == "unknown":
            return self.kept(value)
        return self.failing_call(
            f"argument({self.constant(param, 'a')}, {value.text}, {_place(declared, param.name)!r})", None
        )

    def _evaluated(self, declared: Declaration, name: str, argument: Query, scope: Scope) -> Code:
        """An argument's value; an error says which argument it was."""
        before, start = self.failing, len(self.lines)
        value = self.query(argument, scope)
        if self.failing > before:
            self.wrap(start, f"prefixed(e, {_place(declared, name)!r})")
        return value

    def _lambda(self, declared: Declaration, body: Query, scope: Scope) -> Code:
        found = literal_of(body)
        if found is not None:
            constant = constantly(found.value)
            constant.source = annotation(body)
            return Code(self.constant(constant))
        name, param = self.temp("f"), self.temp("x")
        inner = replace(scope.within(Code(param)), lambdas=scope.lambdas + 1)
        tries, self.tries = self.tries, 0
        with self.block(f"def {name}({param}):"):
            if inner.lambdas > 1 or self.in_map:
                self.uses.add("budget")
                self.emit("next(budget)")
            start, before = len(self.lines), self.failing
            result = self.query(body, inner)
            self.emit(f"return {result.text}")
            if self.failing > before and declared.query_errors != "target":
                source = annotation(body) if declared.query_errors == "query" else ""
                self.wrap(start, f"passed(e, {source!r})")
        if declared.query_source:
            self.emit(f"{name}.source = {annotation(body)!r}")
        self.tries = tries
        return Code(name)


def _place(declared: Declaration, name: str) -> str:
    """Where the errors of an argument come from."""
    kind = "method" if declared.is_method else "function"
    return f"{kind} '{declared.name}': failed to extract input arg '{name}': "
