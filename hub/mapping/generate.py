"""Statements and whole mappings to Python: one function that maps a batch.

The hard part is that documents are never changed in place though a mapping is written as if they were.
The generator follows which containers of `root` the mapping has made itself (`owned`): the first
assignment below one that may be shared copies it, later ones set it directly. Reading `root` hands
containers out, so after that nothing is owned any more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass
from typing import Any, Final

from hub.mapping import runtime, tree
from hub.mapping.context import Context
from hub.mapping.emitter import Code, Scope
from hub.mapping.generate_query import QueryGenerator
from hub.mapping.parse import BLOCKS_MAX
from hub.mapping.reader import line_and_column
from hub.mapping.tree import Assign, IfBlock, Let, Literal, MapDefinition, Query, SetMeta, Statement
from hub.mapping.values import DELETE, EvaluationError

CONDITION: Final = "failed to check if condition {0}: "

assert BLOCKS_MAX < 16


@dataclass(frozen=True, slots=True)
class Generated:
    """Python source of a mapping, its constants, and what it uses."""

    source: str
    constants: Dictionary[str, Any]
    columns: Dictionary[str, str]
    writes_meta: bool

    def function(self) -> Any:
        """The function `run(st)` that the source defines."""
        names = dict(runtime.NAMES) | dict(self.constants)
        try:
            code = compile(self.source, "<mapping>", "exec", dont_inherit=True)
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise EvaluationError("the mapping is nested too deep to be compiled") from error
        exec(code, names)
        return names["run"]


def generate(
    mapping: tree.Mapping, context: Context, *, mutation: bool = False, structured: bool = True
) -> Generated:
    """Python for a mapping. `structured` False makes the variant for messages that are no JSON."""
    writes_meta = any(isinstance(node, SetMeta) for node in tree.walk(mapping))
    names = {definition.name: f"map{n}" for n, definition in enumerate(mapping.maps)}
    constants: dict[str, Any] = {}
    definitions: list[str] = []
    for definition in mapping.maps:
        inner = StatementGenerator(mapping, context, names, constants, writes_meta=False, structured=True)
        inner.map_function(definition, names[definition.name])
        definitions += inner.lines
    outer = StatementGenerator(
        mapping, context, names, constants, writes_meta=writes_meta, structured=structured, mutation=mutation
    )
    outer.batch_function(mapping)
    return Generated("\n".join(definitions + outer.lines) + "\n", constants, outer.columns, writes_meta)


def generate_query(query: Query, context: Context, *, structured: bool = True) -> Generated:
    """Python for one expression."""
    whole = tree.Mapping((Assign((), query),))
    constants: dict[str, Any] = {}
    generator = StatementGenerator(whole, context, {}, constants, writes_meta=False, structured=structured)
    generator.query_function(query)
    return Generated("\n".join(generator.lines) + "\n", constants, generator.columns, False)


def generate_text(text: tree.Interpolation, context: Context, *, structured: bool = True) -> Generated:
    """Python for interpolated text."""
    constants: dict[str, Any] = {}
    generator = StatementGenerator(
        tree.Mapping(()), context, {}, constants, writes_meta=False, structured=structured
    )
    generator.text_function(text)
    return Generated("\n".join(generator.lines) + "\n", constants, generator.columns, False)


class StatementGenerator(QueryGenerator):
    """Generates the statements of one mapping or one map."""

    def __init__(
        self,
        mapping: tree.Mapping,
        context: Context,
        maps: dict[str, str],
        constants: dict[str, Any],
        *,
        writes_meta: bool,
        structured: bool,
        mutation: bool = False,
    ) -> None:
        super().__init__(structured=structured, maps=maps, writes_meta=writes_meta, variables={})
        self.context = context
        self.constants = constants
        self.mutation = mutation and structured
        self.text = mapping.text
        self.owned: set[tuple[str, ...]] = set()
        # What is known of `root` here: nothing was assigned yet, or it is an object for certain.
        self.blank = not self.mutation
        self.is_object = False

    def batch_function(self, mapping: tree.Mapping) -> None:
        """`def run(st)`: maps all records of a batch."""
        self._declare(mapping.statements)
        self.depth = 3
        scope = Scope()
        for statement in mapping.statements:
            self.emit(f"line = {line_and_column(self.text, statement.at)[0]}")
            self._statement(statement, scope)
        body, self.lines, self.depth = self.lines, [], 0
        self.emit("def run(st):")
        self.depth = 1
        for line in ("docs = st.docs", "results = []", "done = results.append", "errors = {}; odd = []"):
            self.emit(line)
        self.emit("metas = []" if self.writes_meta else "metas = None")
        for name, column in self.columns.items():
            self.emit(f"{column} = st.column({name!r})")
        self._hoist(body)
        self.emit("for i, this in enumerate(docs, st.first):")
        self.depth = 2
        if "variables" in self.uses or self.variables:
            for local in self.variables.values():
                self.emit(f"{local} = UNSET")
        self.emit("root = this" if self.mutation else "root = NOTHING")
        if self.writes_meta:
            self.emit("meta = st.metadata(i)")
        if "budget" in self.uses or "apply" in self.uses:
            self.emit("budget = steps(); depth = 0")
        self.emit("line = 0")
        self.emit("try:")
        self.emit(" d = this if type(this) is dict else viewed(this)" if "d" in self.uses else " pass")
        self.lines += body
        self._closing()

    def _closing(self) -> None:
        self.emit("except RecordError as e:")
        self.emit(" errors[i] = (line, e); root = NOTHING")
        self.emit("except RecursionError as e:")
        self.emit(" errors[i] = (line, st.too_deep(e)); root = NOTHING")
        self.emit("except Exception as e:")
        self.emit(" errors[i] = (line, st.broken(e)); root = NOTHING")
        self.emit("if type(root) is not dict: odd.append(i)")
        self.emit("done(root)")
        if self.writes_meta:
            self.emit("metas.append(meta)")
        self.depth = 1
        self.emit("return results, errors, metas, odd")

    def _hoist(self, body: list[str]) -> None:
        """Moves functions that read nothing of the record in front of the loop."""
        position = 0
        while position < len(body):
            head = re.match(r"( +)def (f\d+)\((\w+)\):$", body[position])
            if not head:
                position += 1
                continue
            stop = position + 1
            indent = len(head[1])
            while stop < len(body) and len(body[stop]) - len(body[stop].lstrip(" ")) > indent:
                stop += 1
            lines = body[position:stop]
            if _stands_alone(lines, head[3]):
                self.lines += [" " + line[indent:] for line in lines]
                del body[position:stop]
            else:
                position += 1

    def map_function(self, definition: MapDefinition, name: str) -> None:
        """`def mapN(this, i, st, meta, budget, depth)`: one map of the mapping."""
        self.in_map = True
        self.text = definition.text
        self._declare(definition.statements)
        self.depth = 2
        self._map_meta()
        for statement in definition.statements:
            self.emit(f"line = {line_and_column(self.text, statement.at)[0]}")
            self._statement(statement, Scope())
        body, self.lines, self.depth = self.lines, [], 0
        self.emit(f"def {name}(this, i, st, meta, budget, depth):")
        self.depth = 1
        self.emit(f"if depth > STACKS_MAX: raise TooDeep({definition.name!r})")
        self.emit("line = 0")
        for column_name, column in self.columns.items():
            self.emit(f"{column} = st.column({column_name!r})")
        for local in self.variables.values():
            self.emit(f"{local} = UNSET")
        self.emit("root = NOTHING")
        self.emit("try:")
        self.emit(" next(budget)")
        self.emit(" d = this if type(this) is dict else viewed(this)")
        self.lines += body
        self.emit("except RecordError as e: raise map_failed(e, line) from e")
        self.emit(f"except RecursionError as e: raise map_failed(TooDeep({definition.name!r}), line) from e")
        self.emit("return root")

    def _map_meta(self) -> None:
        """Inside of a map the metadata being built may come from its caller."""
        self.meta_from_caller = True

    meta_from_caller = False

    def _metadata(self, name: str) -> Code:
        if not self.meta_from_caller:
            return super()._metadata(name)
        current = "(st.metadata(i) if meta is None else meta)"
        return Code(f"{current}.get({name!r})" if name else f"dict{current}")

    def query_function(self, query: Query) -> None:
        """`def run(st)` whose results are the values of one expression."""
        self.depth = 3
        result = self.query(query, Scope())
        self.emit(f"root = {result.text}")
        self._query_loop()

    def text_function(self, text: tree.Interpolation) -> None:
        """`def run(st)` whose results are strings."""
        self.depth = 3
        parts = [
            repr(part) if isinstance(part, str) else f"field_text({self.query(part, Scope()).text})"
            for part in text.parts
        ]
        self.emit(f"root = {' + '.join(parts) or repr('')}")
        self._query_loop()

    def _query_loop(self) -> None:
        body, self.lines, self.depth = self.lines, [], 0
        self.emit("def run(st):")
        self.depth = 1
        for line in (
            "docs = st.docs",
            "results = []",
            "done = results.append",
            "errors = {}; odd = []",
            "metas = None",
        ):
            self.emit(line)
        for name, column in self.columns.items():
            self.emit(f"{column} = st.column({name!r})")
        self._hoist(body)
        self.emit("for i, this in enumerate(docs, st.first):")
        self.depth = 2
        self.emit("line = 0; root = NOTHING; budget = steps(); depth = 0")
        self.emit("try:")
        self.emit(" d = this if type(this) is dict else viewed(this)" if "d" in self.uses else " pass")
        self.lines += body
        self._closing()

    def _declare(self, statements: tuple[Statement, ...]) -> None:
        names = [
            node.name for statement in statements for node in tree.walk(statement) if isinstance(node, Let)
        ]
        self.variables = {name: f"v{n}" for n, name in enumerate(dict.fromkeys(names))}
        self.certain = {name for name in names if names.count(name) == 1}

    # Statements

    def _statement(self, statement: Statement, scope: Scope) -> None:
        match statement:
            case Assign(path, value):
                self._assign(path, value, scope)
            case Let(name, value):
                self._let(name, value, scope)
            case SetMeta(name, value):
                self._set_meta(name, value, scope)
            case IfBlock():
                self._if_block(statement, scope)

    def _value(self, value: Query, scope: Scope) -> Code:
        """A value to be kept; what it shares with `root` is not owned any more."""
        self.uses.discard("root")
        mutated = self.mutation and _reads_this(value)
        code = self.query(value, scope)
        self.doubling = False
        if ("root" in self.uses or mutated) and code.kind not in ("str", "bool", "num"):
            self.owned.clear()
            self.doubling = True
        return code

    doubling = False

    def _assign(self, path: tuple[str, ...], value: Query, scope: Scope) -> None:
        code = self._value(value, scope)
        if not path:
            self._assign_root(code)
            self.blank, self.is_object = False, isinstance(value, tree.Object)
            return
        if literal_is_deleted(value):
            self._delete(path)
            return
        if code.plain:
            self._set(path, code.text)
            return
        name = self.named(code).text
        owned, blank, is_object = set(self.owned), self.blank, self.is_object
        with self.block(f"if {name} is DELETE:"):
            self._delete(path)
        self.owned = set(owned)
        with self.block(f"elif {name} is not NOTHING:"):
            self.blank = blank
            self._set(path, name)
        self.owned &= owned
        self.blank, self.is_object = False, is_object

    def _assign_root(self, code: Code) -> None:
        if code.plain:
            self.emit(f"root = {code.text}")
        else:
            name = self.named(code).text
            self.emit(f"if {name} is not NOTHING: root = {name}")
        self.owned.clear()

    def _set(self, path: tuple[str, ...], value: str) -> None:
        """An assignment below `root`: inline where everything on the way is an object, else by helpers."""
        if self.mutation and not value.isidentifier():
            name = self.temp()
            self.emit(f"{name} = {value}")
            value = name
        if self.blank and not self.doubling:
            for segment in reversed(path):
                value = f"{{{segment!r}: {value}}}"
            self.emit(f"root = {value}")
            self.owned = {path[:position] for position in range(len(path))}
            self.blank, self.is_object = False, True
            return
        self.blank = False
        fresh = () not in self.owned
        if fresh and self.mutation:
            self.emit("old = root")
        tests, steps, container = [] if self.is_object else ["type(root) is dict"], [], "root"
        if fresh:
            steps.append("root = root.copy()")
        for position, segment in enumerate(path[:-1]):
            inner = self.temp("n")
            tests.append(f"type({inner} := {container}.get({segment!r})) is dict")
            if path[: position + 1] not in self.owned:
                steps.append(f"{inner} = {container}[{segment!r}] = {inner}.copy()")
            container = inner
        steps.append(f"{container}[{path[-1]!r}] = {value}")
        if tests:
            self.emit(f"if {' and '.join(tests)}: {'; '.join(steps)}")
            if len(path) == 2 and self.is_object and not fresh:
                self.emit(f"elif {path[0]!r} not in root: root[{path[0]!r}] = {{{path[1]!r}: {value}}}")
            self.emit(f"else: root = assign(root, {path!r}, {value})")
        else:
            self.emit("; ".join(steps))
        if fresh and self.mutation:
            self.uses.add("d")
            self.emit("if this is old: this = root; d = this if type(this) is dict else viewed(this)")
        if self.doubling:
            self.failing += 1
            self.emit("weighed(root)")
        self.owned = {known for known in self.owned if known[: len(path)] != path}
        self.owned.update(path[:position] for position in range(len(path)))

    def _delete(self, path: tuple[str, ...]) -> None:
        self.blank = False
        if self.mutation:
            self.emit("old = root")
        self.emit(f"root = without(root, {path!r})")
        if self.mutation:
            self.uses.add("d")
            self.emit("if this is old: this = root; d = this if type(this) is dict else viewed(this)")
        self.owned = {known for known in self.owned if known[: len(path)] != path}

    def _let(self, name: str, value: Query, scope: Scope) -> None:
        code = self._value(value, scope)
        local = self.variables[name]
        if code.plain:
            self.emit(f"{local} = {code.text}")
            if name in self.certain and not self._conditional:
                self.definite[name] = Code(local, code.kind, code.json)
            return
        kept = self.named(code).text
        self.emit(f"if {kept} is not NOTHING: {local} = {kept} if {kept} is not DELETE else UNSET")

    _conditional = 0

    def _set_meta(self, name: str | None, value: Query, scope: Scope) -> None:
        code = self.named(self._value(value, scope))
        text = code.text
        if name is None:
            deleted, written = "meta = {}", f"meta = new_metadata({text})"
        else:
            deleted, written = f"without_key(meta, {name!r})", f"meta[{name!r}] = {text}"
        if code.plain:
            self.emit(written)
            return
        self.emit(f"if {text} is DELETE: {deleted}")
        self.emit(f"elif {text} is not NOTHING: {written}")

    def _if_block(self, statement: IfBlock, scope: Scope) -> None:
        self._conditional += 1
        self.blank = False
        owned, depth, is_object = set(self.owned), self.depth, self.is_object
        stays_object = is_object
        after: list[set[tuple[str, ...]]] = []
        for position, (condition, statements) in enumerate(statement.branches, 1):
            self.owned = set(owned)
            self.is_object = is_object
            if condition is None:
                self._statements(statements, scope)
            else:
                mutated = self.mutation
                test = self.condition(condition, scope, CONDITION.format(position), null=False)
                if mutated:
                    self.owned.clear()
                    owned = set()
                with self.block(f"if {test}:"):
                    self._statements(statements, scope)
                self.emit("else:")
                self.depth += 1
            after.append(self.owned)
            stays_object = stays_object and self.is_object
        if statement.branches[-1][0] is not None:
            self.emit("pass")
            after.append(set(owned))
        elif not statement.branches[-1][1]:
            self.emit("pass")
        self.depth = depth
        self.owned = set.intersection(*after)
        self.is_object = stays_object
        self._conditional -= 1

    def _statements(self, statements: tuple[Statement, ...], scope: Scope) -> None:
        for statement in statements:
            self._statement(statement, scope)


def literal_is_deleted(value: Query) -> bool:
    """True for `deleted()` itself."""
    found = tree.literal_of(value)
    return isinstance(found, Literal) and found.value is DELETE


def _reads_this(value: Query) -> bool:
    return any(
        (isinstance(node, tree.Field) and node.base == "this") or isinstance(node, tree.Match | tree.Lambda)
        for node in tree.walk(value)
    )


_NAME: Final = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\b([A-Za-z_]\w*)\b")
_RECORD: Final = re.compile(r"(this|d|root|i|meta|odd|budget|depth|line|old|st|v\d+|m\d+)$")


def _stands_alone(lines: list[str], param: str) -> bool:
    """True when a generated function reads its parameter, its own names and globals only."""
    used: set[str] = set()
    made = {param}
    for line in lines[1:]:
        used.update(name for name in _NAME.findall(line) if name)
        found = re.match(r" *(?:try: |if .*?: )?([a-z]+\d+) = ", line)
        if found:
            made.add(found[1])
        found = re.match(r" *def (\w+)\((\w*)\)", line)
        if found:
            made.update(found.groups())
    return not any(
        _RECORD.match(name) or (re.fullmatch(r"[tfxnj]\d+", name) and name not in made) for name in used
    )
