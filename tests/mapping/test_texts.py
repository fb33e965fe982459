"""What the compiler tells of a text: errors with a caret, warnings, what it reads and writes, projections."""

from __future__ import annotations

from typing import Any

import pytest

from hub.mapping import DELETE, NOTHING, EvaluationError, Message, ParseError, compile, tree
from hub.mapping.parse import Files


def failure(text: str, **options: Any) -> ParseError:
    with pytest.raises(ParseError) as caught:
        compile(text, **options)
    return caught.value


def test_a_parse_error_shows_the_line_with_a_caret() -> None:
    error = failure("root.a = 1\nroot.b = this.x.uppercasee()\n", file="m.blobl")
    assert (error.line, error.column) == (2, 29)
    assert error.pretty() == (
        "m.blobl: line 2 char 29: unrecognised method 'uppercasee'; did you mean 'uppercase'?\n"
        "  |\n2 | root.b = this.x.uppercasee()\n  |                             ^---"
    )


def test_a_parameter_that_is_unknown_is_told_with_the_one_that_is_near() -> None:
    """Where the engine says nothing of its own. Its words stay as they are in `str()`, by which errors are compared."""
    error = failure('root = this.a.parse_csv(delimeter: ";")')
    assert str(error).endswith("unknown parameter delimeter")
    assert error.hint == "; did you mean 'delimiter'?"
    assert failure('root = this.a.replace_all(od: "a", new: "b")').hint == ""


def test_what_may_have_been_meant_in_an_imported_file_is_said_once() -> None:
    error = failure('import "a.blobl"', importer=Files({"a.blobl": "map x {\n  root = this.uppercas()\n}\n"}))
    assert error.hint == "; did you mean 'uppercase'?"
    assert error.pretty().count("did you mean") == 1


def test_an_error_in_an_imported_file_shows_both_places() -> None:
    error = failure('import "a.blobl"', importer=Files({"a.blobl": "map x {\n  root = \n}\n"}))
    assert error.pretty().count("^---") == 2
    assert "failed to parse import 'a.blobl': line 2 char" in str(error)


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("this[0]", [1, 2, 3], 1),
        ("this[-1]", [1, 2, 3], 3),
        ("this[9]", [1, 2, 3], None),
        ("this[1:3]", [1, 2, 3, 4], [2, 3]),
        ("this[:-1]", [1, 2, 3], [1, 2]),
        ("this.a[1].b[0]", {"a": [0, {"b": ["x"]}]}, "x"),
        ("this[this.length() - 1]", [1, 2], 2),
        ("this[1:]", "h\u00e9llo", "\u00e9llo"),
        ('this."with-dash"', {"with-dash": 1}, 1),
        ("this.a | [1][0]", {}, 1),
        ("null[0]", None, None),
    ],
)
def test_brackets_and_dashes_are_understood(text: str, value: Any, expected: Any) -> None:
    assert compile(text, "query").query(value) == expected


def test_a_comment_may_end_the_text() -> None:
    assert compile("root = 1 # one").query(None) == 1
    assert compile("this.a # one").query({"a": 2}) == 2
    assert compile("root.a = [ # first\n  1, # second\n]\n# last").query(None) == {"a": [1]}


def test_an_index_into_what_has_no_elements_is_an_error() -> None:
    with pytest.raises(
        EvaluationError, match=r"expected array, string or bytes value, got number from field `this.a`"
    ):
        compile("this.a[0]", "query").query({"a": 5})


SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "name": {"type": "string"},
        "address": {"type": "object", "properties": {"city": {"type": "string"}}},
        "free": {"type": "object"},
    },
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("root = this.a || this.b && this.c", ["line 1 char 8: && and || bind equally"]),
        ("root = this.a || (this.b && this.c)", []),
        ('root = this.a.length() == "3"', ["line 1 char 8: number == string is always false"]),
        ("root = this.a.string() != 3", ["line 1 char 8: string != number is always true"]),
        ('root = "5" == 5', ["line 1 char 8: string == number is always false"]),
        ("root = 1 == true", ["line 1 char 8: number == bool is always false"]),
        ("root = true == 1", []),
        (
            "root = match this.a.string() { 5 => 1, _ => 2 }",
            ["line 1 char 32: a string never matches a number"],
        ),
        ("root = this.a.string() > 3", ["line 1 char 8: string > number always fails"]),
        ("root = this.a.length() == true", ["line 1 char 8: number == bool is always false"]),
        ("let x = 1\nlet y = 2\nroot = $x", ["line 2 char 1: variable y is never used"]),
        ('let x = 1\nroot = var("x")', []),
        ("let x = 1\nroot = var(this.n)", []),
        ("root.a = this.nme", ["line 1 char 10: the schema has no field nme; did you mean 'name'?"]),
        ("root.a = this.address.town", ["line 1 char 10: the schema has no field address.town"]),
        ('root.a = this.id == "7"', ["line 1 char 10: number == string is always false"]),
    ],
)
def test_warnings(text: str, expected: list[str]) -> None:
    schema = SCHEMA if any("schema" in start or "this.id" in text for start in [*expected, ""]) else None
    found = [str(warning) for warning in compile(text, schema=schema).warnings]
    assert len(found) == len(expected), found
    assert all(shown.startswith(start) for shown, start in zip(found, expected, strict=True)), found


def test_fields_that_the_schema_leaves_open_are_no_mistakes() -> None:
    text = "root.a = this.free.what\nroot.b = this.address.city\nroot.c = this.address.(town)"
    assert compile(text, schema=SCHEMA).warnings == ()


@pytest.mark.parametrize(
    ("text", "reads", "writes"),
    [
        ("root = this", {()}, {()}),
        ("root.a = this.b.c\nroot.d.e = f", {("b", "c"), ("f",)}, {("a",), ("d", "e")}),
        ("root.a = this.b.(c | d.e)", {("b",), ("b", "c"), ("b", "d", "e")}, {("a",)}),
        ("root.a = this.l.map_each(x -> x.y + this.z)", {("l",), ("z",)}, {("a",)}),
        ('root.a = json("p.q")', {("p", "q")}, {("a",)}),
        ("root.a = match this.k { 1 => this.v, _ => null }", {("k",), ("k", "v")}, {("a",)}),
        ("root.a = @t\nlet x = 1\nroot.b = $x", set(), {("a",), ("b",)}),
        ("if this.c == 1 {\n  root.a = content()\n}", {("c",), ()}, {("a",)}),
    ],
)
def test_reads_and_writes(text: str, reads: set[Any], writes: set[Any]) -> None:
    compiled = compile(text)
    assert compiled.reads == reads
    assert compiled.writes == writes


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        ("root = this", "id", "id"),
        ("root = this\nroot.id = this.id + 1", "id", None),
        ("root = this\nroot.x.y = 1", "x", None),
        ("root = this\nroot.x = deleted()", "x", None),
        ("root.key = this.id", "key", "id"),
        ("root.key = this.id", "id", None),
        ('root = {"key": this.id, "n": this.n.string()}', "key", "id"),
        ('root = {"key": this.id, "n": this.n.string()}', "n", None),
        ('root = this.without("secret")', "id", "id"),
        ('root = this.without("secret")', "secret", None),
        ("meta x = 1", "id", "id"),
        ("root = if this.x == 1 { deleted() }", "id", "id"),
        ("root = this\nif this.x == 1 {\n  root.id = 2\n}", "id", None),
        ("root = this\nif this.x == 1 {\n  root.y = 2\n}", "id", "id"),
        ("root = this.sub", "id", None),
        ("let v = this.id\nroot.id = $v", "id", None),
    ],
)
def test_where_a_field_comes_from(text: str, field: str, expected: str | None) -> None:
    assert compile(text).source_of(field) == expected


def test_a_mutation_keeps_what_it_does_not_assign() -> None:
    compiled = compile("root.a = this.b", "mutation")
    assert compiled.source_of("id") == "id"
    assert compiled.source_of("a") is None


def test_a_projection_evaluates_only_what_the_fields_need() -> None:
    compiled = compile(
        "let k = this.id\nlet n = this.name.uppercase()\nmeta who = this.name.uppercase()\nroot = this\n"
        "root.key = $k.string()\nroot.name = $n\nroot.n = this.tags.length()\n"
        "root = if this.amount > 5 { deleted() }\n"
    )
    with pytest.raises(EvaluationError):
        compiled.query({"id": 7})
    assert compiled.project(["key"]).query({"id": 7}) == {"id": 7, "key": "7"}


def test_a_projection_takes_object_literals_apart() -> None:
    compiled = compile('root = {"key": this.id, "name": this.name.uppercase()}')
    assert compiled.project(["key"]).query({"id": 7}) == {"key": 7}


def test_the_tree_is_plain_data() -> None:
    found = compile("root.a = this.b + 1").tree
    assert found == tree.Mapping(
        (tree.Assign(("a",), tree.Binary("+", tree.Field("this", ("b",)), tree.Literal(1))),)
    )


def test_single_use_of_messages_and_values() -> None:
    assert compile("root = content().uppercase()").query(Message(b"not json")) == b"NOT JSON"
    assert compile("root.up = this.a.uppercase()").query({"a": "x"}) == {"up": "X"}
    assert compile("root = deleted()").query({}) is DELETE
    assert compile('meta x = "y"').query({}) is NOTHING
    assert compile("this.a + 1", "query").query({"a": 1}) == 2
    assert compile("root.t = @topic\nroot.e = error()").query(Message(b"{}", {"topic": "a"}, "bad")) == {
        "t": "a",
        "e": "bad",
    }


def test_a_mapping_in_a_value_is_compiled_and_run() -> None:
    compiled = compile("root = this.doc.bloblang(this.text)")
    assert compiled.query({"doc": {"a": 1}, "text": "root.b = this.a + 1"}) == {"b": 2}
    with pytest.raises(EvaluationError, match="expected query, but reached end of input"):
        compiled.query({"doc": {}, "text": "root = "})


def test_long_chains_of_branches_compile() -> None:
    cases = "\n".join(f'  this.a.string() == "{n}" => {n}' for n in range(300))
    assert compile(f"root = match {{\n{cases}\n  _ => -1\n}}").query({"a": 299}) == 299
    blocks = " else ".join(f"if this.a == {n} {{\n  root.v = {n}\n}}" for n in range(60))
    assert compile(blocks).query({"a": 59}) == {"v": 59}
