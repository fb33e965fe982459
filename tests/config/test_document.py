"""YAML with places: what is read as what, what is refused, and where."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.config import document
from hub.config.document import Document, read, value_of
from hub.options import Written, unwritten


def parsed(text: str | bytes) -> Document:
    return read("c.yaml", text.encode() if isinstance(text, str) else text, str)


def value(text: str) -> Any:
    made = parsed(text)
    assert made.problems == []
    return unwritten(value_of(made.root))


def problem(text: str | bytes) -> str:
    (found,) = parsed(text).problems
    return str(found).removeprefix("c.yaml:")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("5", 5),
        ("-7", -7),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12345678901234567890123", 12345678901234567890123),
        ("'5'", "5"),
        ('"true"', "true"),
    ],
)
def test_unquoted_scalars_are_what_json_and_yaml_1_2_call_them(written: str, meant: object) -> None:
    assert value(f"a: {written}") == {"a": meant}


@pytest.mark.parametrize(
    "word",
    [
        "NO",
        "yes",
        "on",
        "Off",
        "010",
        "0o17",
        "0x1F",
        "12:30:45",
        "1_000",
        "+5",
        ".5",
        "5.",
        ".inf",
        "2024-01-01",
    ],
)
def test_the_traps_of_yaml_1_1_are_text(word: str) -> None:
    assert value(f"a: {word}") == {"a": word}


@pytest.mark.parametrize("number", ["1e400", "0.10000000000000000555", "9" * 500])
def test_a_number_that_would_lose_digits_stays_text(number: str) -> None:
    assert value(f"a: {number}") == {"a": number}


def test_names_are_the_text_that_stands_there() -> None:
    assert value("{NO: 1, 010: 2, null: 3, 1.10: 4}") == {"NO": 1, "010": 2, "null": 3, "1.10": 4}


def test_an_unquoted_number_keeps_its_text() -> None:
    made = value_of(parsed("a: 1.10").root)["a"]
    assert isinstance(made, Written)
    assert (made.text, made.value) == ("1.10", 1.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "3:1: 'a' is written twice; first on line 1"),
        ("a:\n\tb: 1", "2:1: a tab cannot indent YAML; use spaces"),
        (b"a: 1\nb: \xff", "2:4: not UTF-8: byte 0xFF; save the file as UTF-8"),
        ("é: \x07", "1:4: character U+0007 is not allowed in YAML"),
        (
            "a: b: c",
            "1:5: a colon is not expected here; quote the text if it belongs to it, or check the indentation",
        ),
        ("a: @x", "1:4: '@' cannot begin a value; quote it"),
        ("a: {b: ${C}}", '1:9: a variable inside { } or [ ] has to be quoted, as in "${NAME}"'),
        ("a: 1\n---\nb: 2", "2:1: a second document begins here; a config is one document"),
        ("a: !!int 5", "1:4: tag 'tag:yaml.org,2002:int' is not supported; remove it"),
        ("a: *b", "1:4: alias *b stands before any anchor &b"),
        ("a: &b [*b]", "1:8: alias *b stands inside what it names"),
        ("[1]: 2", "1:1: a name must be text"),
        (
            "a: &x {y: 1}\nb:\n  <<: *x",
            "3:3: merge keys (<<) are not part of YAML 1.2; write the options out",
        ),
        (
            "a: [1, 2",
            "2:1: did not find expected ',' or ']' (while parsing a flow sequence that begins on line 1)",
        ),
    ],
)
def test_what_is_refused_says_where_and_why(text: str | bytes, message: str) -> None:
    assert problem(text) == message


def test_aliases_stand_for_their_anchor() -> None:
    assert value("a: &x {y: 1}\nb: [*x, *x]") == {"a": {"y": 1}, "b": [{"y": 1}, {"y": 1}]}


def test_a_bomb_of_aliases_is_refused_before_it_goes_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 20)]
    assert "more than 100000 values, counting what aliases stand for" in problem("\n".join(lines))


def test_deep_nesting_is_refused() -> None:
    assert problem("[" * 100_000) == "1:65: nested more than 64 deep"


def test_a_file_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "FILE_BYTES_MAX", 10)
    assert "larger than 10 bytes" in problem("a: 12345678901")


def test_a_byte_order_mark_is_no_content() -> None:
    assert value("\ufeffa: 1") == {"a": 1}


def test_values_and_names_have_places() -> None:
    made = parsed("a:\n  b: [x, {c: y}]\n")
    assert made.place(("a", "b", 1, "c")) == (2, 14)
    assert made.place(("a", "b", 1, "c"), at_name=True) == (2, 11)
    assert made.place(("a", "b", 7)) == (2, 6)


@pytest.mark.parametrize(
    ("text", "inner", "place"),
    [
        ("a:\n  m: |\n    root = this\n    root.b = ?\n", (2, 10), (4, 14)),
        ("a:\n  m: |2\n      x\n    ?\n", (2, 1), (4, 5)),
        ("a:\n  m: |\n\n    x\n    ?\n", (3, 1), (5, 5)),
        ("a:\n  m: root = ?\n", (1, 8), (2, 13)),
        ("a:\n  m: 'root = ?'\n", (1, 8), (2, 14)),
        ('a:\n  m: "root = ?"\n', (1, 8), (2, 14)),
    ],
)
def test_a_place_inside_a_text_is_a_place_in_the_file(
    text: str, inner: tuple[int, int], place: tuple[int, int]
) -> None:
    assert parsed(text).inner_place(("a", "m"), inner) == (place, "")


@pytest.mark.parametrize(
    "text", ["a:\n  m: >\n    x\n    y ?\n", 'a:\n  m: "x\\ny ?"\n', "a:\n  m: 'it''s ?'\n"]
)
def test_a_place_inside_a_text_that_the_file_holds_otherwise_is_said_in_words(text: str) -> None:
    place, words = parsed(text).inner_place(("a", "m"), (1, 3))
    assert place == (2, 6)
    assert words == " (line 1, column 3 of this text)"


@given(st.text() | st.text(alphabet="-:[]{}&*!|>'\"%@`#,? \n\tax0~<"))
def test_any_text_is_read_or_refused(text: str) -> None:
    made = parsed(text.encode("utf-8", "surrogatepass"))
    for problem in made.problems:
        assert problem.message
        assert problem.line <= text.count("\n") + len(text.splitlines()) + 1


words = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=100)
"""JSON writes other characters as pairs of surrogates, which YAML does not know, nor names over 1024 characters."""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_json_is_read_as_itself(tree: object) -> None:
    assert value(json.dumps({"a": tree}).replace("\x7f", "\\u007f")) == {"a": tree}
