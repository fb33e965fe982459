"""Mapping text is hostile: whatever it says, it ends, soon, in a value or in the language's own error."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hub.mapping import Context, EvaluationError, Message, ParseError, compile
from hub.mapping.importing import FolderImporter
from hub.mapping.runtime import NAMES
from tests.mapping.fuzz import DOCUMENTS, KINDS, texts, tried


def test_hostile_texts_and_documents_end_in_the_language_s_own_errors() -> None:
    rng = random.Random(7)
    make = texts(rng)
    for _ in range(400):
        tried(make(), rng.choice(DOCUMENTS), (rng.choice(KINDS), "mapping"))


@pytest.mark.parametrize(
    "text",
    [
        "root = " + "(" * 5000 + "1" + ")" * 5000,
        "root = " + "[" * 5000,
        "root = " + "!" * 5000 + "true",
        "root = " + "-" * 5000 + "1",
        "root = this" + ".a" * 20000,
        "root = " + "match { " * 2000,
        "root = " + "match this { " * 40 + "_ => 1" + " }" * 40,
        "root = " + "if true { " * 45 + "1" + " }" * 45,
        "if true {\n" * 500 + "root = 1\n" + "}\n" * 500,
        "root = " + "a -> " * 3000 + "1",
        "root = " + "this.(" * 3000 + "1" + ")" * 3000,
        "root = " + " + ".join(["1"] * 20000),
        "root = " + " | ".join(["this.a"] * 300),
        'root = "' + "\\x41" * 50000 + '"',
        "root = this" + ".catch(1)" * 200,
        "x" * 3_000_000,
    ],
    ids=lambda text: text[:20],
)
def test_deep_and_long_texts_are_refused_or_run(text: str) -> None:
    tried(text, DOCUMENTS[0])


def test_parsing_takes_time_linear_in_nested_matches() -> None:
    tried("root = " + "match { x " * 30 + "=> 1" + " }" * 30, DOCUMENTS[0])


def test_a_map_that_applies_itself_is_stopped() -> None:
    compiled = compile('map m {\n  root = this.apply("m")\n}\nroot = this.apply("m")\n')
    with pytest.raises(EvaluationError, match="exceeded maximum allowed stacks of 5000"):
        compiled.query({})


def test_queries_nested_in_queries_have_a_budget_of_steps() -> None:
    body = "x0"
    for depth in range(6):
        body = f"this.map_each(x{depth} -> {body})" if depth else "this.map_each(x0 -> x0)"
    many = [0] * 400
    compiled = compile("root = this.map_each(a -> this.map_each(b -> this.map_each(c -> 1)))")
    with pytest.raises(EvaluationError, match="too many steps"):
        compiled.query(many)


@pytest.mark.parametrize(
    "text",
    [
        "let x = [1]\n" + "let x = [$x, $x]\n" * 60 + "root = $x\n",
        "root.a = 1\n" + "root.b = root\nroot.a = root\n" * 40,
        'let x = "xxxxxxxxxxxxxxxx"\n' + "let x = $x + $x\n" * 60 + "root = $x\n",
        'let x = {"a": 1}\n' + 'let x = {"a": $x, "b": $x}\n' * 60 + "root.y = $x\n",
        "root = range(0, 60).fold([1], item -> [item.tally, item.tally])\n",
    ],
    ids=["arrays", "root", "strings", "objects", "fold"],
)
def test_values_that_double_are_stopped(text: str) -> None:
    with pytest.raises(EvaluationError):
        compile(text).message([Message(b"{}")])


def test_generated_code_has_no_builtins_and_only_named_helpers() -> None:
    assert NAMES["__builtins__"] == {}
    assert not {"eval", "exec", "open", "getattr", "__import__", "compile"} & set(NAMES)


def test_names_of_python_mean_nothing() -> None:
    compiled = compile(
        'root.a = this.__class__\nroot.b = __builtins__\nroot.c = this."__init__".__globals__\nlet st = 1\nroot.d = docs'
    )
    assert compiled.query({}) == {"a": None, "b": None, "c": None, "d": None}


def test_strings_of_the_text_cannot_become_code() -> None:
    nasty = "x'); import os; ('"
    compiled = compile(f'root."{nasty}" = this."{nasty}"\nmeta "{nasty}" = "{nasty}"\nlet "{nasty}" = 1')
    assert compiled.query({nasty: 5}) == {nasty: 5}


def test_a_context_forbids_what_it_does_not_give() -> None:
    context = Context(environment=None, read_file=None, now_ns=None)
    for text in ('root = env("HOME")', 'root = file("/etc/passwd")', "root = now()"):
        with pytest.raises(ParseError, match="not allowed"):
            compile(text, context=context)


def test_imports_never_leave_their_root(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.blobl").write_text("map secret {\n  root = 1\n}\n")
    (tmp_path / "inside" / "ok.blobl").write_text("map ok {\n  root = 2\n}\n")
    (tmp_path / "inside" / "link.blobl").symlink_to(tmp_path / "secret.blobl")
    root = tmp_path / "inside"
    importer = FolderImporter(root, root)
    assert compile('import "ok.blobl"\nroot = this.apply("ok")', importer=importer).query(None) == 2
    for path in (
        "../secret.blobl",
        str(tmp_path / "secret.blobl"),
        "link.blobl",
        "none.blobl",
        "a\\u0000b",
        ".",
    ):
        with pytest.raises(ParseError, match="failed to read import"):
            compile(f'import "{path}"', importer=importer)
    with pytest.raises(ParseError, match="imports are disabled"):
        compile('import "ok.blobl"')


def test_files_that_import_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.blobl").write_text('import "b.blobl"\nmap a {\n  root = 1\n}\n')
    (tmp_path / "b.blobl").write_text('import "a.blobl"\nmap b {\n  root = 1\n}\n')
    with pytest.raises(ParseError, match="chained"):
        compile('import "a.blobl"', file=str(tmp_path / "main.blobl"))
