"""Queries to Python: each becomes statements that compute it and an expression that names the result.

An expression handed back is free of errors and of effects, so it may be used later, and once. Whatever
can fail is a statement of its own, with its own `except` that puts the value's source into the error; in
CPython that costs nothing until it fails. What is known of a value while generating (`Code.kind`) chooses
between inlined operators and the complete ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hub.mapping import tree
from hub.mapping.binding import constantly
from hub.mapping.registry import Declaration, Default, Param
from hub.mapping.tree import Literal, Query, annotation, literal_of
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
    def attempt(self) -> Iterator[None]:
        """A `try` block."""
        self.tries += 1
        with self.block("try:"):
            yield
        self.tries -= 1

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
        self.emit(f"try: {line}")
        self.emit(f"except RecordError as e: raise {handler} from e")


_KINDS: Final = {str: "str", bool: "bool", int: "num", float: "num"}
_INT64: Final = "-9223372036854775808 <= {0} <= 9223372036854775807"
_ORDER: Final = {"<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}
_REAL: Final = "not 1e-5 <= {0} < 1e16 or {0} % 1 == 0"


INLINED: Final = {
    "length": ("type({0}) is list or type({0}) is dict", "len({0})", "num"),
    "lowercase": ("type({0}) is str and {0}.isascii()", "{0}.lower()", "str"),
    "uppercase": ("type({0}) is str and {0}.isascii()", "{0}.upper()", "str"),
    "string": ("type({0}) is str", "{0}", "str"),
    "not_null": ("{0} is not None", "{0}", "any"),
}
"""Methods whose frequent case is one expression: when it holds, the expression, the kind of the result."""


class QueryGenerator(Emitter):
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
                return self._field(node, scope)
            case tree.Get(target, path):
                return self._path(self.query(target, scope), path)
            case tree.Index(target, index):
                value, at = self.query(target, scope), self.query(index, scope)
                return self._failing(
                    f"element({value.text}, {at.text})", f"annotate(e, {annotation(target)!r})"
                )
            case tree.Slice(target, low, high):
                value = self.query(target, scope)
                bounds = [self.query(bound, scope).text if bound else "None" for bound in (low, high)]
                return self._failing(
                    f"part({value.text}, {bounds[0]}, {bounds[1]})", f"annotate(e, {annotation(target)!r})"
                )
            case tree.Variable(name):
                return self._variable(name)
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
                return self._not(operand, scope)
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

    def _failing(self, expression: str, handler: str | None, kind: str = "any") -> Code:
        made = self.temp()
        if handler is None:
            self.failing += 1
            self.emit(f"{made} = {expression}")
        else:
            self.guarded(f"{made} = {expression}", handler)
        return Code(made, kind)

    # Paths, variables, metadata

    def _no_context(self, field: str) -> Code:
        return self._failing(f"no_context({field!r})", None)

    def _field(self, node: tree.Field, scope: Scope) -> Code:
        if node.base == "root":
            self.uses.add("root")
            return self._path(Code(self._snapshot("root")), node.path)
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
            return self._path(first, node.path[1:])
        return self._path(base, node.path)

    def _snapshot(self, name: str) -> str:
        """A variable that statements assign, as it is now."""
        made = self.temp()
        self.emit(f"{made} = {name}")
        return made

    def _path(self, base: Code, path: Sequence[str]) -> Code:
        if "*" in path:
            return Code(f"search({base.text}, {tuple(path)!r})", json=base.json)
        for segment in path:
            name = self.kept(base).text
            base = Code(
                f"{name}.get({segment!r}) if type({name}) is dict else step({name}, {segment!r})",
                json=base.json,
            )
            base = self.kept(base)
        return base

    def _variable(self, name: str) -> Code:
        variable = self.variables.get(name)
        self.uses.add("variables")
        known = self.definite.get(name)
        if known is not None:
            return known
        if variable is None:
            return self._failing(f"undefined({name!r})", None)
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
        [key] = self._arguments(node.declared, node.bound, scope, None)
        match node.name:
            case "json":
                whole = self._failing(f"st.json({index})", None)
                argument = node.bound[0]
                if not isinstance(argument, Literal | Default):
                    return Code(f"computed(dot_search({whole.text}, {key.text}))", "value")
                if argument.value:
                    whole = self._path(whole, tree.dot_path(argument.value))
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
                    return self._variable(found.value)
                return self._failing(f"lookup(({pairs}), {key.text})", None)

    # Methods

    def _method(self, node: tree.Method, scope: Scope) -> Code:
        if node.name == "bloblang" or not (node.declared.core or node.name == "get"):
            return self._called(node, node.target, scope)
        match node.name:
            case "catch":
                return self._catch(node.target, node.bound[0], scope)
            case "or":
                return self._coalesce(node.target, node.bound[0], scope)
            case "map":
                return self.query(node.bound[0], scope.within(self.kept(self.query(node.target, scope))))
            case "not":
                return self._not(node.target, scope)
            case "get":
                return self._get(node, scope)
            case "apply":
                return self._apply(node, scope)
            case "from":
                [index] = self._arguments(node.declared, node.bound, scope, node.name)
                return self.query(node.target, replace(scope, index=self.kept(index).text))
            case _:
                made = self.temp("f")
                at = self.temp("j")
                with self.block(f"def {made}({at}):"):
                    result = self.query(node.target, replace(scope, index=at))
                    self.emit(f"return {result.text}")
                return self._failing(f"every(st.count, {made})", None)

    def _get(self, node: tree.Method, scope: Scope) -> Code:
        found = literal_of(node.bound[0])
        if found is not None:
            if isinstance(node.target, tree.Field):
                joined = (*node.target.path, *tree.dot_path(found.value))
                return self._field(tree.Field(node.target.base, joined), scope)
            return self._path(self.query(node.target, scope), tree.dot_path(found.value))
        [path] = self._arguments(node.declared, node.bound, scope, node.name)
        target = self.query(node.target, scope)
        return Code(f"dot_search({target.text}, {path.text})", json=target.json)

    def _apply(self, node: tree.Method, scope: Scope) -> Code:
        found = literal_of(node.bound[0])
        [name] = self._arguments(node.declared, node.bound, scope, node.name)
        target = self.query(node.target, scope)
        self.uses.add("apply")
        meta = "meta" if self.writes_meta else "None"
        if found is None:
            known = "{" + ", ".join(f"{key!r}: {local}" for key, local in self.maps.items()) + "}"
            called = f"({known}.get({name.text}) or not_found({name.text}))"
        elif found.value in self.maps:
            called = self.maps[found.value]
        else:
            return self._failing(f"not_found({name.text})", None)
        return self._failing(f"{called}({target.text}, {scope.index}, st, {meta}, budget, depth + 1)", None)

    def _called(self, node: tree.Function | tree.Method, target: Query | None, scope: Scope) -> Code:
        """A call of the library: arguments first, as the engine does, then the target."""
        declared, label = node.declared, node.name
        static = node.prepared is not None
        arguments = [] if static else self._arguments(declared, node.bound, scope, label)
        if target is not None:
            value = self.query(target, scope)
            if declared.lexemes and value.json:
                value = Code(f"lexeme({value.text})")
            targets = [value.text]
        else:
            targets = []
        first = [self.constant(self.context)] if declared.needs else []
        listed = [argument.text for argument in arguments]
        if declared.variadic:
            listed = [f"[{', '.join(listed)}]"]
        annotated = target is not None and declared.annotate
        handler = f"annotate(e, {annotation(target)!r})" if annotated and target is not None else None
        inlined = INLINED.get(node.name) if target is not None and not node.bound else None
        if inlined is not None:
            return self._inlined(inlined, targets[0], f"{self.constant(declared.call, 'c')}", handler)
        if static:
            return self._failing(f"{self.constant(node.prepared, 'p')}({', '.join(targets)})", handler)
        call = self.constant(declared.call, "c")
        if declared.prepared:
            made = self._failing(f"{call}({', '.join(first + listed)})", None)
            return self._failing(f"{made.text}({', '.join(targets)})", handler)
        return self._failing(f"{call}({', '.join(first + targets + listed)})", handler)

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

    def _arguments(
        self, declared: Declaration, bound: Sequence[Any], scope: Scope, label: str | None
    ) -> list[Code]:
        made = []
        for position, argument in enumerate(bound):
            param = Param(str(position)) if declared.variadic else declared.params[position]
            made.append(self._argument(declared, param, argument, scope, label))
        return made

    def _argument(
        self, declared: Declaration, param: Param, argument: Any, scope: Scope, label: str | None
    ) -> Code:
        if param.type == "query":
            if isinstance(argument, Default):
                value = argument.value
                return Code(self.constant(value if value is None else constantly(value)))
            return self._lambda(declared, argument, scope)
        if isinstance(argument, Literal | Default):
            return Code(self.constant(argument.value))
        prefix = f"failed to extract input arg '{param.name}': "
        if label is not None and declared.is_method:
            prefix = f"method '{label}': {prefix}"
        before, start = self.failing, len(self.lines)
        value = self.query(argument, scope)
        if self.failing > before:
            self._wrap(start, f"prefixed(e, {prefix!r})")
        if declared.lexemes and value.json:
            value = Code(f"lexeme({value.text})")
        if param.type == "unknown":
            return self.kept(value)
        return self._failing(f"argument({self.constant(param, 'a')}, {value.text}, {prefix!r})", None)

    def _wrap(self, start: int, handler: str) -> None:
        """Puts the lines since `start` into a `try`."""
        body = self.lines[start:]
        del self.lines[start:]
        self.emit("try:")
        self.lines += [" " + line for line in body]
        self.emit(f"except RecordError as e: raise {handler} from e")

    def _lambda(self, declared: Declaration, body: Query, scope: Scope) -> Code:
        found = literal_of(body)
        if found is not None:
            return Code(self.constant(constantly(found.value)))
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
                self._wrap(start, f"passed(e, {source!r})")
        self.tries = tries
        return Code(name)

    in_map = False
    mutation = False

    # Errors and defaults

    def _catch(self, target: Query, fallback: Query, scope: Scope) -> Code:
        made = self.temp()
        before, start = self.failing, len(self.lines)
        with self.attempt():
            value = self.query(target, scope)
            self.emit(f"{made} = {value.text}")
        if self.failing == before:
            self._unwrapped(start)
            return replace(value, text=made)
        self.failing = before
        caught = self.temp("x")
        with self.block("except RecordError as e:"):
            self.emit(f"{caught} = text_of(e)")
            self.emit(f"{made} = UNSET")
        with self.block(f"if {made} is UNSET:"):
            other = self.query(fallback, scope.within(Code(caught, "str")))
            self.emit(f"{made} = {other.text}")
        return _merged(made, (value, other))

    def _unwrapped(self, start: int) -> None:
        """Takes back the `try` begun at `start`."""
        self.lines[start:] = [line[1:] for line in self.lines[start + 1 :]]

    def _coalesce(self, left: Query, right: Query, scope: Scope) -> Code:
        made = self.temp()
        before, start = self.failing, len(self.lines)
        with self.attempt():
            value = self.query(left, scope)
            self.emit(f"{made} = {value.text}")
        if self.failing == before:
            self._unwrapped(start)
        else:
            self.failing = before
            self.emit(f"except RecordError: {made} = None")
        missing = (
            f"{made} is None" if value.plain else f"{made} is None or {made} is DELETE or {made} is NOTHING"
        )
        with self.block(f"if {missing}:"):
            other = self.query(right, scope)
            self.emit(f"{made} = {other.text}")
        return _merged(made, (replace(value, kind="value") if value.kind == "any" else value, other))

    # Operators

    def _not(self, operand: Query, scope: Scope) -> Code:
        value = self.kept(self.query(operand, scope))
        if value.kind == "bool":
            return Code(f"not {value.text}", "bool")
        return self._failing(f"inverted({value.text}, {annotation(operand)!r})", None, "bool")

    def _binary(self, node: tree.Binary, scope: Scope) -> Code:
        match node.op:
            case "|":
                return self._coalesce(node.left, node.right, scope)
            case "&&" | "||":
                return self._logical(node, scope)
            case "==" | "!=":
                return self._equality(node, scope)
            case "<" | "<=" | ">" | ">=":
                return self._ordering(node, scope)
            case _:
                return self._arithmetic(node.op, node.left, node.right, scope)

    def _logical(self, node: tree.Binary, scope: Scope) -> Code:
        made = self.temp()
        self._truth(made, node.left, scope)
        with self.block(f"if {made}:" if node.op == "&&" else f"if not {made}:"):
            self._truth(made, node.right, scope)
        return Code(made, "bool")

    def _truth(self, made: str, operand: Query, scope: Scope) -> None:
        value = self.query(operand, scope)
        if value.kind == "bool":
            self.emit(f"{made} = {value.text}")
        else:
            self.failing += 1
            self.emit(f"{made} = truth({value.text})")

    def _equality(self, node: tree.Binary, scope: Scope) -> Code:
        left, right = self.kept(self.query(node.left, scope)), self.kept(self.query(node.right, scope))
        sign, complete = ("==", "equal") if node.op == "==" else ("!=", "not_equal")
        a, b = left.text, right.text
        literal = literal_of(node.right)
        if left.kind == right.kind == "str" or (left.json and literal and type(literal.value) is str):
            return Code(f"{a} {sign} {b}", "bool")
        if literal is not None and type(literal.value) is str:
            return Code(f"({a} {sign} {b} if type({a}) is str else {complete}({a}, {b}))", "bool")
        if literal is not None and type(literal.value) is int:
            return Code(f"({a} {sign} {b} if type({a}) is int else {complete}({a}, {b}))", "bool")
        return Code(f"({a} {sign} {b} if type({a}) is str is type({b}) else {complete}({a}, {b}))", "bool")

    def _handler(self, left: Query, right: Query) -> str:
        return f"between(e, {annotation(left)!r}, {annotation(right)!r})"

    def _ordering(self, node: tree.Binary, scope: Scope) -> Code:
        left, right = self.kept(self.query(node.left, scope)), self.kept(self.query(node.right, scope))
        a, b, made = left.text, right.text, self.temp()
        literal = literal_of(node.right)
        number = literal is not None and type(literal.value) in (int, float)
        fast = f"type({a}) is int or type({a}) is float" if number else f"type({a}) is type({b}) is int"
        self.failing += 1
        with self.block(f"if {fast}:"):
            self.emit(f"{made} = {a} {node.op} {b}")
        with self.block("else:"):
            self.guarded(f"{made} = {_ORDER[node.op]}({a}, {b})", self._handler(node.left, node.right))
        return Code(made, "bool")

    def _arithmetic(self, op: str, left_node: Query, right_node: Query, scope: Scope) -> Code:
        left, right = self.kept(self.query(left_node, scope)), self.kept(self.query(right_node, scope))
        a, b, made = left.text, right.text, self.temp()
        slow = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "%": "modulo"}[op]
        handler = self._handler(left_node, right_node)
        self.failing += 1
        head = "if"
        kinds = [self._known(node) for node in (left_node, right_node)]
        if op in "+-*":
            for actual in ("float", "int"):
                tests = [
                    f"type({text}) is {actual}"
                    for text, known in ((a, kinds[0]), (b, kinds[1]))
                    if known != actual
                ]
                if any(known not in (None, actual) for known in kinds):
                    continue
                with self.block(f"{head} {' and '.join(tests) or 'True'}:"):
                    self.emit(f"{made} = {a} {op} {b}")
                    if actual == "float":
                        self.emit(f"if {_REAL.format(made)}: {made} = real({made})")
                    else:
                        self.emit(f"if not {_INT64.format(made)}: {made} = {slow}({a}, {b})")
                head = "elif"
        if head == "if":
            self.guarded(f"{made} = {slow}({a}, {b})", handler)
        else:
            with self.block("else:"):
                self.guarded(f"{made} = {slow}({a}, {b})", handler)
        return Code(made, "value" if op == "+" else "num")

    def _known(self, node: Query) -> str | None:
        found = literal_of(node)
        if found is None:
            return None
        return {int: "int", float: "float"}.get(type(found.value), "other")

    # Literals with queries in them

    def _array(self, items: Sequence[Query], scope: Scope) -> Code:
        codes = [self.kept(self.query(item, scope)) for item in items]
        listed = f"[{', '.join(code.text for code in codes)}]"
        return Code(listed if all(code.plain for code in codes) else f"kept({listed})", "value")

    def _object(self, items: Sequence[tuple[Query, Query]], scope: Scope) -> Code:
        pairs, plain = [], True
        for key, value in items:
            name = literal_of(key)
            if name is not None:
                key_text, shown = repr(name.value), repr(f"failed to resolve '{name.value}' value: ")
            else:
                start, before = len(self.lines), self.failing
                found = self.query(key, scope)
                if self.failing > before:
                    self._wrap(start, "prefixed(e, 'failed to resolve key: ')")
                key_text = self._failing(f"key_of({found.text})", None).text
                shown = f"'failed to resolve \\'' + {key_text} + '\\' value: '"
            start, before = len(self.lines), self.failing
            code = self.kept(self.query(value, scope))
            if self.failing > before:
                self._wrap(start, f"prefixed(e, {shown})")
            pairs.append(f"{key_text}: {code.text}")
            plain = plain and code.plain
        listed = "{" + ", ".join(pairs) + "}"
        return Code(listed if plain else f"kept_fields({listed})", "value")

    # Branches

    def _if(self, node: tree.If, scope: Scope) -> Code:
        tests = []
        for position, (condition, _) in enumerate(node.branches):
            prefix = f"failed to check if condition{f' {position}' if position else ''}: "
            tests.append(self._captured(lambda c=condition, p=prefix: self.condition(c, scope, p, null=True)))
        results = [result for _, result in node.branches]
        return self._branches(tests, results, node.otherwise, scope)

    def _captured(self, generate: Callable[[], str]) -> tuple[list[str], str]:
        """What a piece of code emits, taken out again, and its result."""
        start = len(self.lines)
        result = generate()
        lines = self.lines[start:]
        del self.lines[start:]
        return lines, result

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
            return _merged(made, codes)
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
        return _merged(made, codes)

    def _otherwise(self, made: str, otherwise: Query | None, scope: Scope) -> Code:
        code = Code("NOTHING") if otherwise is None else self.query(otherwise, scope)
        self.emit(f"{made} = {code.text}")
        return code

    def condition(self, node: Query, scope: Scope, prefix: str, *, null: bool) -> str:
        """A test that is True or False; `null` counts as false in expressions."""
        start, before = len(self.lines), self.failing
        value = self.named(self.query(node, scope))
        if self.failing > before:
            self._wrap(start, f"prefixed(e, {prefix!r})")
        if value.kind == "bool":
            return value.text
        self.failing += 1
        known = f"{value.text} is True or {value.text} is not False"
        known += f" and {value.text} is not None" if null else ""
        return f"{known} and not_boolean({value.text}, {annotation(node)!r})"

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
            self._captured(lambda c=case, n=position: self._case_test(n, c, subject, inner))
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
            self._wrap(start, f"prefixed(e, 'failed to check match case {position}: ')")
        return value.text if value.kind == "bool" else f"{self.named(value).text} is True"


def _merged(made: str, codes: Sequence[Code]) -> Code:
    """What is known of a value that comes from one of these."""
    if all(code.json for code in codes):
        return Code(made, json=True)
    kinds = {code.kind for code in codes}
    if len(kinds) == 1:
        return Code(made, kinds.pop())
    return Code(made, "value" if all(code.plain for code in codes) else "any")
