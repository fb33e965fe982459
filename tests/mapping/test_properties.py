"""What must hold for any mapping: it prints and parses to itself, and compiled code agrees with a plain
walk over the tree."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.document import encode_lines
from hub.errors import RecordError
from hub.mapping import EvaluationError, Message, ParseError, compile, tree
from hub.mapping import operators as op
from hub.mapping.paths import assign, search, without
from hub.mapping.printer import text_of
from hub.mapping.registry import methods
from hub.mapping.values import DELETE, NOTHING, Number, kind, text, utf8
from hub.record import Batch

# A slow evaluator


@dataclass
class Walk:
    """The meaning of a tree, as plainly as it can be said."""

    document: Any
    root: Any = NOTHING
    variables: dict[str, Any] = field(default_factory=dict)

    def run(self, mapping: tree.Mapping) -> Any:
        for statement in mapping.statements:
            self.statement(statement)
        return self.root

    def statement(self, statement: tree.Statement) -> None:
        if isinstance(statement, tree.IfBlock):
            for condition, body in statement.branches:
                if condition is not None:
                    value = self.value(condition, Context((self.document,)))
                    if not isinstance(value, bool):
                        raise EvaluationError("non-boolean")
                    if not value:
                        continue
                for inner in body:
                    self.statement(inner)
                return
            return
        value = self.value(statement.value, Context((self.document,)))
        if value is NOTHING:
            return
        if isinstance(statement, tree.Let):
            if value is DELETE:
                self.variables.pop(statement.name, None)
            else:
                self.variables[statement.name] = value
        elif isinstance(statement, tree.Assign):
            if not statement.path:
                self.root = value
            elif value is DELETE:
                self.root = without(self.root, statement.path)
            else:
                self.root = assign(self.root, statement.path, value)

    def value(self, node: Any, at: Context) -> Any:
        match node:
            case tree.Literal(value):
                return value
            case tree.Field(base, path):
                found = at.this if base == "this" else self.root if base == "root" else at.names[base]
                return search(found, path)
            case tree.Get(target, path):
                return search(self.value(target, at), path)
            case tree.Variable(name):
                if name not in self.variables:
                    raise EvaluationError("undefined")
                return self.variables[name]
            case tree.Function(name):
                return DELETE if name == "deleted" else NOTHING
            case tree.Not(operand):
                value = self.value(operand, at)
                if not isinstance(value, bool):
                    raise EvaluationError("not a bool")
                return not value
            case tree.Negate(operand):
                return op.negate(self.value(operand, at))
            case tree.Binary("|", left, right):
                return self.fallback(left, right, at, null=True)
            case tree.Binary("&&" | "||" as sign, left, right):
                first = op.truth(self.value(left, at))
                return first if first is (sign == "||") else op.truth(self.value(right, at))
            case tree.Binary(sign, left, right):
                return op.ARITHMETIC[sign](self.value(left, at), self.value(right, at))
            case tree.Array(items):
                return [v for v in (self.value(i, at) for i in items) if v is not DELETE and v is not NOTHING]
            case tree.Object(items):
                made = {}
                for key, item in items:
                    name, value = self.value(key, at), self.value(item, at)
                    if not isinstance(name, str):
                        raise EvaluationError("key")
                    if value is not DELETE and value is not NOTHING:
                        made[name] = value
                return made
            case tree.If(branches, otherwise):
                for test, result in branches:
                    value = self.value(test, at)
                    if value is not None and not isinstance(value, bool):
                        raise EvaluationError("non-boolean")
                    if value:
                        return self.value(result, at)
                return NOTHING if otherwise is None else self.value(otherwise, at)
            case tree.Match(subject, cases):
                value = at.this if subject is None else self.value(subject, at)
                inner = at.within(value)
                for case in cases:
                    if case.test is None or self.hits(case.test, value, inner):
                        return self.value(case.result, inner)
                return NOTHING
            case tree.MapTo(target, body):
                return self.value(body, at.within(self.value(target, at)))
            case tree.Lambda(name, body):
                return self.value(body, at.popped(name))
            case tree.Index(target, index):
                return self.element(self.value(target, at), self.value(index, at))
            case tree.Method():
                return self.method(node, at)
        raise AssertionError(node)

    def hits(self, test: Any, value: Any, at: Context) -> bool:
        found = tree.literal_of(test)
        return op.deep_equal(value, found.value) if found else self.value(test, at) is True

    def fallback(self, left: Any, right: Any, at: Context, *, null: bool) -> Any:
        try:
            value = self.value(left, at)
        except RecordError as error:
            return self.value(right, at if null else at.within(str(error)))
        return self.value(right, at) if null and op.absent(value) else value

    def element(self, value: Any, index: Any) -> Any:
        number = op.plain(index)
        if isinstance(index, str) and isinstance(value, dict):
            return value.get(index)
        if isinstance(number, bool) or not isinstance(number, int):
            raise EvaluationError("index")
        if isinstance(value, str):
            found = utf8(value)
            return text(found[number:][:1]) if -len(found) <= number < len(found) else None
        if isinstance(value, list):
            return value[number] if -len(value) <= number < len(value) else None
        if value is None:
            return None
        raise EvaluationError("no elements")

    def method(self, node: tree.Method, at: Context) -> Any:
        argument = node.arguments[0].value if node.arguments else None
        if node.name in ("catch", "or"):
            return self.fallback(node.target, argument, at, null=node.name == "or")
        target = self.value(node.target, at)
        if node.name == "map":
            return self.value(argument, at.within(target))
        if node.name == "type":
            return kind(target)
        declared = methods()[node.name]
        if argument is None:
            return declared.call(target)
        return declared.call(target, lambda item: self.value(argument, at.within(item)))


@dataclass(frozen=True)
class Context:
    """The contexts around a query, innermost last, and lambda names."""

    stack: tuple[Any, ...]
    names: dict[str, Any] = field(default_factory=dict)

    @property
    def this(self) -> Any:
        return self.stack[-1]

    def within(self, value: Any) -> Context:
        return replace(self, stack=(*self.stack[:1], *self.stack[1:][-1:], value))

    def popped(self, name: str) -> Context:
        names = self.names if name == "_" else {**self.names, name: self.this}
        return Context(self.stack[:-1] or self.stack, names)


# Random mappings

NAMES = ("a", "b", "cd")
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 9), st.sampled_from([0.5, -1.25, 3.0, 1e21, 9223372036854775807]),
    st.sampled_from(["", "x", "é", "true", "12"]),
)  # fmt: skip
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)
literals = st.one_of(
    st.sampled_from(["null", "true", "false", '"x"', '"é\\n"', "0", "1", "7", "2.5", "[]", "{}", "[1, 2]"]),
    st.integers(0, 99).map(str),
)


@st.composite
def paths(draw: Any, bases: tuple[str, ...]) -> str:
    parts = [draw(st.sampled_from(bases))]
    parts += draw(st.lists(st.sampled_from([*NAMES, "0", '"x y"']), max_size=2))
    return ".".join(parts)


def queries(bases: tuple[str, ...] = ("this", "root"), depth: int = 3) -> st.SearchStrategy[str]:
    leaves = literals | paths(bases) | st.sampled_from(["$v", "deleted()", "nothing()"])
    if depth == 0:
        return leaves
    inner = st.deferred(lambda: queries(bases, depth - 1))
    rooted = st.deferred(
        lambda: queries(("root",), depth - 1)
    )  # errors have other words in the slow evaluator
    name = f"x{depth}"
    named = st.deferred(lambda: queries((*bases, name), depth - 1))
    signs = st.sampled_from(["+", "-", "*", "/", "%", "==", "!=", "<", ">=", "&&", "||", "|"])
    return st.one_of(
        leaves,
        st.tuples(inner, signs, inner).map(" ".join),
        st.tuples(inner, signs, inner).map(lambda p: f"({p[0]}) {p[1]} ({p[2]})"),
        inner.map(lambda q: f"-({q})"),
        inner.map(lambda q: f"!({q})"),
        st.lists(inner, max_size=3).map(lambda qs: f"[{', '.join(qs)}]"),
        st.lists(st.tuples(st.sampled_from(['"k"', '"l"']), inner), max_size=2).map(
            lambda ps: "{" + ", ".join(f"{k}: {v}" for k, v in ps) + "}"
        ),
        st.tuples(inner, inner, inner).map(lambda p: f"(if {p[0]} {{ {p[1]} }} else {{ {p[2]} }})"),
        st.tuples(inner, inner).map(lambda p: f"(if {p[0]} {{ {p[1]} }})"),
        st.tuples(inner, inner, inner).map(lambda p: f"(match {p[0]} {{ {p[1]} => {p[2]}, _ => this }})"),
        st.tuples(inner, inner).map(lambda p: f"(match {{ {p[0]} => {p[1]} }})"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]}).({p[1]})"),
        st.tuples(inner, named).map(lambda p: f"({p[0]}).({name} -> {p[1]})"),
        st.tuples(inner, rooted).map(lambda p: f"({p[0]}).catch({p[1]})"),
        st.tuples(inner, rooted).map(lambda p: f"({p[0]}).catch({name} -> {p[1]})"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]}).or({p[1]})"),
        st.tuples(inner, named).map(lambda p: f"({p[0]}).map_each({name} -> {p[1]})"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]}).filter({p[1]})"),
        st.tuples(inner, st.sampled_from(["0", "-1", "1"])).map(lambda p: f"({p[0]})[{p[1]}]"),
        st.tuples(inner, st.sampled_from(["type", "string", "length", "uppercase", "not_null"])).map(
            lambda p: f"({p[0]}).{p[1]}()"
        ),
    )


@st.composite
def mappings(draw: Any) -> str:
    query = queries(depth=2)
    lines = []
    for _ in range(draw(st.integers(1, 4))):
        form = draw(st.sampled_from(["root", "field", "field", "deep", "let", "if"]))
        value = draw(query)
        if form == "if":
            body, other = draw(query), draw(query)
            lines.append(
                f"if ({value}).catch(false) == true {{\n  root.a = {body}\n}} else {{\n  root.b.a = {other}\n}}"
            )
        else:
            target = {"root": "root", "field": "root.a", "deep": "root.a.b", "let": "let v"}[form]
            lines.append(f"{target} = {value}")
    return "\n".join(lines) + "\n"


slow = settings(
    max_examples=int(os.environ.get("MAPPING_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def parsed(text: str) -> Any:
    try:
        return compile(text)
    except ParseError:
        return None


@slow
@given(mappings())
def test_a_printed_tree_parses_to_itself(source: str) -> None:
    compiled = parsed(source)
    if compiled is not None:
        printed = text_of(compiled.tree)
        assert compile(printed).tree == compiled.tree, printed


@slow
@given(mappings(), documents)
def test_compiled_code_agrees_with_a_walk_over_the_tree(source: str, document: Any) -> None:
    compiled = parsed(source)
    if compiled is None:
        return
    before = json.dumps(document)
    try:
        expected: Any = Walk(document).run(compiled.tree)
    except RecordError:
        expected = RecordError
    try:
        found = compiled.query(document)
    except EvaluationError as error:
        assert expected is RecordError, f"{source}\n{error}"
        assert "Error:" not in str(error), error
    else:
        assert expected is not RecordError, source
        assert same(found, expected), (source, found, expected)
    assert json.dumps(document) == before, "the document was changed"


@slow
@given(mappings(), st.lists(documents, min_size=1, max_size=3))
def test_a_batch_is_mapped_like_its_records_one_by_one(source: str, docs: list[Any]) -> None:
    compiled = parsed(source)
    if compiled is None:
        return
    lines = encode_lines(docs)
    batch = Batch("c", len(docs), ndjson=lines)
    mapped, places = compiled.run_indexed(batch)
    dropped = 0
    for index, line in enumerate(lines.splitlines()):
        try:
            outcome = compiled.message([Message(line)])
        except EvaluationError as error:
            assert mapped.errors is not None
            assert str(mapped.errors[list(places).index(index)]) == str(error)
            continue
        dropped += outcome.deleted
        assert outcome.deleted is (index not in places)
    assert mapped.count == len(docs) - dropped


def same(left: Any, right: Any) -> bool:
    if left is DELETE or left is NOTHING or right is DELETE or right is NOTHING:
        return left is right
    if isinstance(left, float) and isinstance(right, float):
        return left == right or (left != left and right != right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return type(left) is type(right) and left == right


@pytest.mark.parametrize(
    "source",
    [
        "root = this.a - (this.b - this.c)",
        "root = -(this.a + 1).abs()",
        "root = !this.a.not()",
        "root = this.(x -> x.a | x.b)",
        'root."a.b"."c d" = this."x~y".z',
        'meta "a b" = @"c d"\nmeta = {}\nlet "v w" = 1',
        'map "m" {\n  root = this\n}\nroot = this.apply("m")',
        "root = (5).string() + 2.5.string()",
        'root = match this { 1 => "a", this.b == 2 => { "k": [1, 2,] } , _ => if true { null } }',
        "if this.a == 1 {\n  root.b = 2\n} else if this.a == 2 {\n  root.b = 3\n} else {\n  root.c = 4\n}",
    ],
)
def test_these_print_and_parse_to_themselves(source: str) -> None:
    found = compile(source + "\n").tree
    assert isinstance(found, tree.Mapping)
    assert compile(text_of(found)).tree == found


def test_numbers_that_are_no_python_numbers_are_equal_by_text() -> None:
    assert Number("1.10") == Number("1.10")
    assert Number("1.10") != Number("1.1")
