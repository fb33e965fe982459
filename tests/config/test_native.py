"""The native dialect: what a file means, and every mistake of it at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.catalog import Sources
from hub.config import lint, load, loads
from hub.errors import ConfigError, Problem
from hub.log.options import LogOptions, Retention

pytestmark = pytest.mark.usefixtures("acme")

FEED = "captures: {shop: {feed: {url: u}}}\n"


def problems(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads(text, file="c.yaml", environ=environ)
    return [str(problem).removeprefix("c.yaml:") for problem in caught.value.problems]


def feed(options: str) -> object:
    return loads(f"captures: {{shop: {{feed: {{url: u, {options}}}}}}}").captures["shop"].capture  # type: ignore[index]


def test_a_whole_file() -> None:
    catalog = loads(
        """
captures:
  shop:
    feed: {url: "http://${HOST}", every: 5m, limit: 1MiB}
collections:
  shop/orders: {key: [/id], retention: 7d}
derivations:
  loud: {from: shop/orders, upper: name, key: [/id], on_error: stop}
  louder:
    from: [shop/*, "!shop/orders"]
    processors:
      - upper: {field: name}
      - {upper: street, on_error: skip}
materializations:
  attic:
    shelf: {room: attic}
    commit: {every: 5s, rows: 10}
    bindings:
      - {from: loud, board: top}
      - {from: dead_letters/attic2, board: low}
  attic2:
    shelf: {room: cellar}
    bindings: [{from: "**", board: top}]
log: {path: here, cap: 10GiB, retention: {age: 1d, bytes: 1GiB}, durability: os}
server: {address: "[::1]:80"}
""",
        root="/srv",
        environ={"HOST": "x"},
    )
    assert catalog.captures["shop"].capture.url == "http://x"  # type: ignore[index,attr-defined]
    assert catalog.key_of("shop/orders") == ("/id",)
    assert catalog.key_of("loud") == ("/id",)
    assert catalog.key_of("louder") is None
    loud, louder = catalog.derivations["loud"], catalog.derivations["louder"]
    assert [(step.name, step.on_error) for step in loud.processors] == [("upper", "stop")]
    assert [(step.name, step.on_error) for step in louder.processors] == [
        ("upper", "dead_letter"),
        ("upper#2", "skip"),
    ]
    assert louder.sources == Sources(["shop/*", "!shop/orders"])
    attic = catalog.materializations["attic"]  # type: ignore[index]
    assert (attic.connector, attic.commit.every, attic.commit.rows) == ("shelf", 5.0, 10)
    assert [rule.options.target for rule in attic.bindings] == ["top", "low"]
    assert catalog.log_path == Path("/srv/here")
    options = catalog.log_options()
    assert (options.cap_bytes, options.durability) == (10 << 30, "os")
    assert options.retention == Retention(age_s=86400.0, bytes=1 << 30)
    assert options.retention_of("shop/orders") == Retention(age_s=7 * 86400.0)
    assert (catalog.server.host, catalog.server.port) == ("::1", 80)


def test_the_log_keeps_a_week_and_whatever_is_not_read_yet() -> None:
    options = loads(FEED).log_options()
    assert options == LogOptions()
    assert (options.retention.age_s, options.retention.until_consumed) == (7 * 86400.0, True)


def test_the_log_stands_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(FEED)
    assert load(tmp_path / "c.yaml").log_path == tmp_path / "data"


def test_ten_mistakes_are_ten_problems_with_their_places() -> None:
    text = """\
captures:
  shop:
    feed: {urll: x, every: 5 minutes}
  other:
    feeed: {}
derivations:
  loud: {from: shopp/orders, upper: name}
  a: {from: b, upper: x}
  b: {from: a, upper: x}
materializations:
  attic:
    shelf: {room: r}
    commit: {rows: 0}
    bindings:
      - {from: loud, board: "${NOPE}"}
      - {from: loud}
logs: {}
log: {cap: 5 apples}
"""
    assert problems(text) == [
        "3:5: captures.shop.feed: missing option 'url': Where the feed is.",
        "3:12: captures.shop.feed.urll: unknown option 'urll'; did you mean 'url'?",
        "3:28: captures.shop.feed.every: expected a duration such as 100ms, 30s, 1h30m or 7d, got '5 minutes'",
        "5:5: captures.other.feeed: unknown capture 'feeed'; did you mean 'feed'?",
        "7:16: 'shopp/orders': no capture or derivation is called 'shopp'; did you mean 'shop'?",
        "8:13: derivations read each other in a circle: a ← b ← a",
        "13:20: materializations.attic.commit.rows: expected `int` >= 1",
        "15:29: environment variable NOPE is not set; set it, or write ${NOPE:default}",
        "16:9: materializations.attic.bindings.1: missing option 'board': The board.",
        "17:1: logs: unknown section 'logs'; did you mean 'log'?",
        "18:12: log.cap: expected a size such as 64KiB, 32MiB or 1GB, got '5 apples'",
    ]


def test_one_mistake_does_not_hide_another_beside_it() -> None:
    text = """\
captures: {shop: {feed: {url: u}}}
derivations: {d: {from: shopp, key: id, upper: x}}
materializations:
  m:
    shelf: {rom: r}
    bindings: [{from: shp, bord: b}]
"""
    places = [problem.partition(": ")[0] for problem in problems(text)]
    assert places == ["2:25", "2:37", "5:5", "5:13", "6:16", "6:23", "6:28"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "c.yaml: the file is empty"),
        ("# nothing", "c.yaml: the file is empty"),
        ("[1]", "1:1: expected sections such as captures"),
        ("input: {}\npipeline: {}", "1:1: 'input' is a section of a Redpanda Connect config"),
        ("sinks: {}", "1:1: 'sinks' is a section of a Decodable config"),
        ("captures: {x: {endpoint: {}}}", "1:16: 'endpoint' belongs to an Estuary Flow config"),
        ("log: {}", "c.yaml:1:1: captures: no captures: nothing would run"),
        ("captures: 5", "1:11: captures: expected names with their options"),
        ("captures: {a b: {feed: {url: u}}}", "1:12: captures.a b: 'a b' cannot be a name"),
        ("captures: {dead_letters: {feed: {url: u}}}", "1:12: captures.dead_letters: 'dead_letters' is where dead letters go"),
        ("captures: {a: {}}", "1:12: captures.a: missing its capture; expected one of"),
        ("captures: {a: {feed: {url: u}, radio: {}}}", "1:32: captures.a.radio: an entry is one capture, here are feed and radio"),
        ("captures: {a: {radio: {}}}", "1:16: captures.a.radio: capture 'radio' needs the module 'acme_antenna'"),
        ("captures: {a: {feed: 5}}", "1:22: captures.a.feed: expected options, as a mapping of names to values, got a number"),
        (FEED + "derivations: {d: {from: shop/x}}", "2:15: derivations.d: missing its processor"),
        (FEED + "derivations: {d: {upper: x}}", "2:15: derivations.d: missing option 'from'"),
        (FEED + "derivations: {d: {from: shop/x, processors: []}}", "2:45: derivations.d.processors: expected 'processors'"),
        (
            FEED + "derivations: {d: {from: shop/x, upper: x, processors: [{upper: x}]}}",
            "2:33: derivations.d.upper: 'upper' stands beside 'processors'; move it into the list",
        ),
        (FEED + "derivations: {d: {from: shop/x, processors: [{}]}}", "2:46: derivations.d.processors.0: missing its processor"),
        (FEED + "materializations: {m: {shelf: {room: r}}}", "2:23: materializations.m.bindings: missing 'bindings'"),
        (FEED + "materializations: {m: {shelf: {room: r}, bindings: []}}", "2:52: materializations.m.bindings: expected"),
        (
            FEED + "materializations: {m: {shelf: {room: r}, bindings: [{from: shop/x, board: b}], comit: {}}}",
            "2:80: materializations.m.comit: unknown materialization 'comit'; did you mean 'commit'?",
        ),
        (FEED + "collections: {shop/x: {key: [id]}}", "2:30: collections.shop/x.key.0: expected `str` matching regex"),
        (FEED + "log: {retention: [1d]}", "2:18: log.retention: expected a duration or options, got a list"),
        (FEED + "server: {address: '0.0.0.0:1'}", "2:19: server.address: 0.0.0.0:1 can be reached from other machines"),
        (FEED + "server: {address: nowhere}", "2:19: server.address: expected host:port such as 127.0.0.1:4195"),
    ],
)  # fmt: skip
def test_each_mistake_says_where_and_what_is_expected(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(text, file="c.yaml", environ={})
    (problem,) = caught.value.problems
    assert message.removeprefix("c.yaml:").strip() in str(problem)


def test_an_option_of_text_gets_the_text_that_stands_there() -> None:
    made = feed("tags: [NO, 010, 1.10, true, 12:30:45]")
    assert made.tags == ["NO", "010", "1.10", "true", "12:30:45"]  # type: ignore[attr-defined]


def test_an_option_of_any_type_gets_what_json_has() -> None:
    made = feed("constants: {a: 1.10, b: 010, c: true, d: [1, 0.10000000000000000555]}")
    assert made.constants == {"a": 1.1, "b": "010", "c": True, "d": [1, "0.10000000000000000555"]}  # type: ignore[attr-defined]


def test_a_number_option_takes_numbers_only() -> None:
    assert feed("rate: 5").rate == 5.0  # type: ignore[attr-defined]
    assert feed("rate: 0.12345678901234567890").rate == 0.12345678901234568  # type: ignore[attr-defined]
    assert "got `str`" in problems("captures: {shop: {feed: {url: u, pages: '5'}}}")[0]
    assert "got `bool`" in problems("captures: {shop: {feed: {url: u, pages: true}}}")[0]


def test_a_mistake_in_a_mapping_text_stands_in_the_file() -> None:
    text = "captures:\n  shop:\n    feed:\n      url: u\n      text: |\n        root = this\n        root.a = )\n"
    (problem,) = problems(text)
    assert problem.startswith("7:18: captures.shop.feed.text: ")


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ("this.x.uppercas()", "3:54: unrecognised method 'uppercas'; did you mean 'uppercase'?"),
        ("uuid_v44()", "3:47: unrecognised function 'uuid_v44'; did you mean 'uuid_v4'?"),
        ("this.x.nothing_like_it()", "3:61: unrecognised method 'nothing_like_it'"),
    ],
)
def test_a_function_or_method_that_is_unknown_is_told_with_the_one_that_is_near(
    mapping: str, expected: str
) -> None:
    text = f"{FEED}derivations:\n  d: {{from: shop/x, mapping: root = {mapping}}}\n"
    (problem,) = problems(text)
    place, _, message = expected.partition(": ")
    assert problem == f"{place}: derivations.d.mapping.mapping: {message}"


def test_mappings_import_what_stands_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "shared.blobl").write_text("map loud {\n  root = this.uppercase()\n}\n")
    (tmp_path / "bad.blobl").write_text("root = )")
    text = 'captures:\n  shop:\n    feed:\n      url: u\n      text: |\n        import "./{}.blobl"\n        root = 1\n'
    (tmp_path / "c.yaml").write_text(text.format("shared"))
    made = load(tmp_path / "c.yaml").captures["shop"].capture  # type: ignore[index]
    made.text.compiled()  # type: ignore[attr-defined]
    (tmp_path / "c.yaml").write_text(text.format("bad"))
    with pytest.raises(ConfigError, match=r"c\.yaml:6:\d+: captures.shop.feed.text: .*bad\.blobl"):
        load(tmp_path / "c.yaml")


NAMES = [
    "captures", "collections", "derivations", "materializations", "log", "server", "shop", "shop/x", "feed", "upper",
    "shelf", "bindings", "commit", "from", "processors", "key", "on_error", "url", "login", "password", "retention",
    "address", "token", "room", "board", "every", "<<", "", "dead_letters/shop", "*", "!shop", "${X}", "endpoint",
]  # fmt: skip

trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(NAMES) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=30,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(NAMES[:6]), trees))
def test_any_tree_is_a_catalog_or_a_config_error(tree: dict[str, object]) -> None:
    try:
        loads(json.dumps(tree, ensure_ascii=False), environ={"X": "1"})
    except ConfigError as error:
        assert error.problems


WARNED = FEED + "derivations: {d: {from: shop/x, mapping: 'root.a = this.b || this.c && this.d'}}\n"


def test_a_warning_keeps_nothing_from_being_loaded(tmp_path: Path) -> None:
    assert "d" in loads(WARNED).derivations
    (tmp_path / "c.yaml").write_text(WARNED)
    (found,) = lint(tmp_path / "c.yaml")
    assert (found.line, found.column, found.severity) == (2, 52, "warning")


def test_a_warning_is_not_among_the_errors_of_a_file() -> None:
    assert problems(WARNED + "logs: {}\n") == ["3:1: logs: unknown section 'logs'; did you mean 'log'?"]


def test_a_warning_in_a_list_of_options_leaves_its_neighbours_readable(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        FEED + "derivations:\n  d:\n    from: shop/x\n    processors:\n"
        "      - mapping: let a = 1\n      - mapping: root = this.nope()\n"
    )
    found = [(problem.line, problem.column, problem.severity) for problem in lint(tmp_path / "c.yaml")]
    assert found == [(6, 18, "warning"), (7, 36, "error")]


def test_problems_are_ordered_by_place_whatever_their_severity() -> None:
    warning, error = Problem("f", 1, 2, "b", "warning"), Problem("f", 1, 2, "c")
    assert sorted([error, warning, Problem("f", 2, 1, "a")])[:2] == [warning, error]
    assert [str(warning), str(error)] == ["f:1:2: warning: b", "f:1:2: c"]
    assert str(Problem("f", 0, 0, "b", "warning")) == "f: warning: b"
