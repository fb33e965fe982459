"""Variables in configs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.config import lint, loads
from hub.config.document import read, value_of
from hub.config.environment import Unset, substituted
from hub.options import unwritten

ENVIRON = {"HOST": "db", "PORT": "5432", "EMPTY": "", "NASTY": "x: [1]\n- {a: b}", "LOOP": "${HOST}"}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("${HOST}", "db"),
        ("${HOST}:${PORT}", "db:5432"),
        ("${NOPE:local}", "local"),
        ("${NOPE:}", ""),
        ("${NOPE:${HOST}}", "db"),
        ("${NOPE:{a}}", "{a}"),
        ("${EMPTY:x}", ""),
        ("${LOOP}", "${HOST}"),
        ("$${HOST}", "${HOST}"),
        ("$HOST costs 5$", "$HOST costs 5$"),
        ("${! @table }-${HOST}", "${! @table }-db"),
    ],
)
def test_variables_are_filled_in(text: str, meant: str) -> None:
    assert substituted(text, ENVIRON) == meant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "${HOTS}",
            "environment variable HOTS is not set; set it, or write ${HOTS:default}; did you mean 'HOST'?",
        ),
        ("${a b}", "'${a b}' names no environment variable"),
        ("${HOST", "'${' is never closed; write $${ where the text itself is meant"),
    ],
)
def test_what_cannot_be_filled_in_says_why(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"\$\{") as caught:
        substituted(text, ENVIRON)
    assert str(caught.value).startswith(message)


def test_only_a_missing_variable_is_unset() -> None:
    with pytest.raises(Unset):
        substituted("${NOPE}", {})


def values(text: str) -> object:
    document = read("c.yaml", text.encode(), lambda scalar: substituted(scalar, ENVIRON))
    assert document.problems == []
    return unwritten(value_of(document.root))


def test_an_unquoted_variable_is_typed_by_what_it_holds_a_quoted_one_is_text() -> None:
    assert values("{a: '$${X}', b: 1}") == {"a": "${X}", "b": 1}
    assert values("a: ${PORT}\nb: '${PORT}'\nc: ${EMPTY}") == {"a": 5432, "b": "5432", "c": ""}


def test_a_variable_never_becomes_structure() -> None:
    assert values('a: ${NASTY}\nb: ["${NASTY}"]') == {"a": ENVIRON["NASTY"], "b": [ENVIRON["NASTY"]]}


def test_names_hold_no_variables() -> None:
    assert values("'${HOST}': 1") == {"${HOST}": 1}


@pytest.mark.usefixtures("acme")
def test_an_unset_variable_is_one_mistake_at_its_place() -> None:
    text = "captures:\n  shop:\n    feed: {url: '${NOPE}', pages: ${PAGES}}\n"
    with pytest.raises(Exception, match="NOPE") as caught:
        loads(text, environ={})
    assert [line.partition(": ")[0] for line in str(caught.value).splitlines()] == [
        "config:3:17",
        "config:3:36",
    ]


@pytest.mark.usefixtures("acme")
def test_unset_variables_can_be_accepted_when_linting(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("captures:\n  shop:\n    feed: {url: '${NOPE}', pages: x}\n")
    (problem,) = lint(file, {}, unset_ok=True)
    assert "captures.shop.feed.pages" in problem.message
