"""What the parts of a configuration say of each other."""

from __future__ import annotations

import pytest

from hub.config import loads
from hub.errors import ConfigError

pytestmark = pytest.mark.usefixtures("acme")

CAPTURES = "captures: {shop: {feed: {url: u}}, till: {feed: {url: u}}}\n"


def problems(text: str) -> list[str]:
    try:
        loads(CAPTURES + text, environ={})
    except ConfigError as error:
        return [str(problem).removeprefix("config:") for problem in error.problems]
    return []


def of_source(source: str) -> list[str]:
    derivations = "derivations: {loud: {from: shop/x, upper: a}}\n"
    return problems(
        f"{derivations}materializations: {{attic: {{shelf: {{room: r}}, bindings: [{{board: b, from: {source}}}]}}}}"
    )


@pytest.mark.parametrize(
    "source",
    ["shop", "dead_letters/shop", "shop/x", "shop/*", '"*"', '"**"', "l*", '"*/x"', "loud", '[loud, "!shop/x"]'],
)  # fmt: skip
def test_sources_that_can_match(source: str) -> None:
    assert of_source(source) == []


def test_another_task_reads_dead_letters() -> None:
    shelf = "{{shelf: {{room: r}}, bindings: [{{board: b, from: {}}}]}}".format
    assert (
        problems(f"materializations: {{attic: {shelf('shop')}, sick: {shelf('dead_letters/attic')}}}") == []
    )


def test_dead_letters_do_not_circle_through_others() -> None:
    (problem,) = problems(
        "derivations: {sick: {from: dead_letters/b, upper: x}}\n"
        "materializations:\n"
        "  a: {shelf: {room: r}, bindings: [{board: b, from: [shop, sick]}]}\n"
        "  b: {shelf: {room: r}, bindings: [{board: b, from: [till, dead_letters/a]}]}\n"
    )
    assert problem == (
        "4:25: 'a' would read what it has set aside itself; let another task read it (by way of a ← b ← a)"
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("shopp/x", "'shopp/x': no capture or derivation is called 'shopp'; did you mean 'shop'?"),
        ("shopp/*", "'shopp/*': no capture or derivation is called 'shopp'; did you mean 'shop'?"),
        ("x*/a", "'x*/a' matches no capture or derivation; expected one of shop, till, loud"),
        ("loud/x", "'loud/x': 'loud' is a derivation, which is one collection; read it as 'loud'"),
        ("shop/", "'shop/' names no collection"),
        ("''", "'' names no collection"),
        (
            "dead_letters/nobody",
            "no capture or materialization is called 'nobody'; expected one of shop, till, attic",
        ),
        ("dead_letters/*", "'attic' would read what it has set aside itself; let another task read it"),
        ("dead_letters/attic", "'attic' would read what it has set aside itself; let another task read it"),
        ("'!shop/x'", "names no collection to read"),
        ("[]", "names no collection to read"),
    ],
)
def test_sources_that_cannot_match(source: str, message: str) -> None:
    (problem,) = of_source(source)
    assert problem.endswith(message)


def test_one_of_many_sources_has_its_own_place() -> None:
    (problem,) = problems("derivations:\n  loud:\n    from:\n      - shop/x\n      - shopp/x\n    upper: a")
    assert problem.startswith("6:9: ")


def test_a_mistake_in_a_capture_makes_no_mistake_of_its_readers() -> None:
    text = "captures: {shop: {feed: {}}}\nderivations: {loud: {from: shop/x, upper: a}}"
    with pytest.raises(ConfigError) as caught:
        loads(text, environ={})
    assert len(caught.value.problems) == 1


def test_a_circle_of_derivations_is_reported_once() -> None:
    (problem,) = problems(
        "derivations:\n"
        "  a: {from: c, upper: x}\n"
        "  b: {from: a, upper: x}\n"
        "  c: {from: b, upper: x}\n"
        "  d: {from: c, upper: x}\n"
    )
    assert problem == "3:13: derivations read each other in a circle: a ← c ← b ← a"


def test_a_derivation_that_reads_itself_through_a_glob_is_a_circle() -> None:
    assert "circle: a ← a" in problems('derivations: {a: {from: "*", upper: x}}')[0]


def test_many_paths_to_one_derivation_are_no_circle() -> None:
    text = "derivations:\n  d0: {from: shop/x, upper: x}\n"
    text += "".join(f"  d{i}: {{from: ['d{i - 1}', 'd{max(i - 2, 0)}'], upper: x}}\n" for i in range(1, 200))
    assert problems(text) == []


def test_names_of_tasks_are_unique() -> None:
    (problem,) = problems("materializations: {shop: {shelf: {room: r}, bindings: [{from: till, board: b}]}}")
    assert problem == "2:20: 'shop' is in captures too (line 1); every task needs a name of its own"


def test_two_bindings_may_not_share_a_target_unless_records_choose_it() -> None:
    def bound(first: str, second: str) -> list[str]:
        return problems(
            "materializations:\n  attic:\n    shelf: {room: r}\n    bindings:\n"
            f"      - {{from: shop/x, board: '{first}'}}\n      - {{from: till/x, board: '{second}'}}\n"
        )

    assert bound("a", "b") == []
    assert bound("${! @table }", "${! @table }") == []
    assert bound("a", "a") == [
        "7:9: binding 1 already goes into 'a'; list both sources in one 'from', or choose another target"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("collections: {nobody/x: {retention: 1d}}", "no capture or derivation is called 'nobody'"),
        ("collections: {shop/*: {retention: 1d}}", "a collection is named in full here, without wildcards"),
        (
            "derivations: {d: {from: shop, upper: x, key: [/a]}}\ncollections: {d: {key: [/b]}}",
            "the derivation 'd' has a key of its own; keep one of them",
        ),
    ],
)
def test_collections_are_of_this_configuration(text: str, message: str) -> None:
    (problem,) = problems(text)
    assert message in problem
