"""Mapping text is hostile: whatever it says, it ends, soon, in a value or in the language's own error."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from hub.mapping import Context, EvaluationError, Message, ParseError, compile
from hub.mapping.importing import FolderImporter
from hub.mapping.runtime import NAMES

SEEDS = [
    "root = this",
    'root.a = this.b.uppercase() + "x" | "y"',
    'root = match this.a {\n  1 => "x"\n  this > 2 => deleted()\n  _ => nothing()\n}\n',
    "if this.a == 1 {\n  root.b = 2\n} else {\n  meta c = @d\n}\n",
    'map m {\n  root.x = this.apply("m")\n}\nroot = this.apply("m").catch(err -> err)\n',
    'let v = this.arr.map_each(x -> x.a * -1.5 / 2 % 3)\nroot."q\\u00e9".z = $v[0].fold(0, t -> t.tally + t.value)\n',
    'root = "%v %s".format(this.a, [1, {"b": null}].string()) # note\n',
    'root.t = "2020-01-01".ts_parse("2006-01-02").ts_unix()\nroot.r = this.s.re_replace_all("a+", "b")\n',
]
ALPHABET = "abcthisroot.$@()[]{}\"'\\|&!=<>+-*/%,:_0123456789 \n\t#\u00e9\x00\ud7ff"


def tried(text: str, document: bytes = b'{"a":1,"b":"x","arr":[{"a":1},2],"s":"aab"}') -> None:
    """Compiles and runs; anything but the language's own errors escapes."""
    for kind in ("mapping", "field"):
        try:
            compiled = compile(text, kind)  # type: ignore[arg-type]
        except ParseError as error:
            assert error.line >= 1 and error.column >= 1
            assert "^---" in error.pretty()
            continue
        for content in (document, b"not json", b"[1]"):
            try:
                compiled.message([Message(content)])
            except EvaluationError as error:
                assert "Error: " not in str(error).split("\n")[0][:60], (text, str(error))


def mutated(rng: random.Random) -> str:
    text = rng.choice(SEEDS)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(4):
            case 0:
                text = text[:at] + rng.choice(ALPHABET) + text[at:]
            case 1:
                text = text[:at] + text[at + rng.randint(1, 4) :]
            case 2:
                other = rng.choice(SEEDS)
                start = rng.randrange(len(other))
                text = text[:at] + other[start : start + rng.randint(1, 20)] + text[at:]
            case _:
                text = text[:at]
    return text


def test_broken_texts_end_in_the_language_s_own_errors() -> None:
    rng = random.Random(int(os.environ.get("MAPPING_SEED", "7")))
    for _ in range(int(os.environ.get("MAPPING_INPUTS", "400"))):
        tried(mutated(rng))


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
    tried(text)


def test_parsing_takes_time_linear_in_nested_matches() -> None:
    tried("root = " + "match { x " * 30 + "=> 1" + " }" * 30)


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
