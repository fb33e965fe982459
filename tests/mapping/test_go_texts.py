"""Texts that Go prints: fmt verbs, JSON, YAML. The expected ones were printed by Go."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.mapping.gofmt import sprintf
from hub.mapping.gojson import compact, indented, scalar_text
from hub.mapping.values import EvaluationError, Number, real
from hub.mapping.yamltext import format_yaml, parse_yaml


@pytest.mark.parametrize(
    ("layout", "arguments", "printed"),
    [
        ("%s is %v", ["x", None], "x is <nil>"),
        ("%d %s", ["x", 5], "%!d(string=x) %!s(int64=5)"),
        ("%5d|%-5d|%05d|%+d", [42, 42, 42, 42], "   42|42   |00042|+42"),
        ("%5d|", [Number("5")], "%!d(json.Number=    5)|"),
        ("%x %X % x %#x", ["hi", "hi", "hi", 255], "6869 6869 68 69 0xff"),
        ("%q %#q %+q", ['a"b', "a`b", "é"], '"a\\"b" "a`b" "\\u00e9"'),
        ("%8.3f|%e|%g", [3.14159, 1234.5678, real(1e21)], "   3.142|1.234568e+03|1e+21"),
        ("%v", [[1, "a", None, {"b": 1.5, "a": True}]], "[1 a <nil> map[a:true b:1.5]]"),
        (
            "%#v",
            [{"a": [1, "x", None]}],
            'map[string]interface {}{"a":[]interface {}{1, "x", interface {}(nil)}}',
        ),
        ("%T %T %T", [1, Number("1"), b"x"], "int64 json.Number []uint8"),
        ("%d", [1, 2, None], "1%!(EXTRA int64=2, <nil>)"),
        ("%d %d", [1], "1 %!d(MISSING)"),
        ("100%", [], "100%!(NOVERB)"),
        ("%[2]d %[1]d", [1, 2], "2 1"),
        ("%[3]d %*d", [1, 2], "%!d(BADINDEX) 2"),
        ("%*d|%.*f", [5, 1, 2, 3.14159], "    1|3.14"),
        ("%c %U %#U", [233, 233, 233], "é U+00E9 U+00E9 'é'"),
        ("%t %v", [True, b"ab"], "true [97 98]"),
        ("%x %.2x", [1.5, 1e21], "0x1.8p+00 0x1.b2p+69"),
    ],
)
def test_verbs_print_as_go_prints_them(layout: str, arguments: list[Any], printed: str) -> None:
    assert sprintf(layout, arguments) == printed


@given(
    st.text(), st.lists(st.integers(-(2**63), 2**63 - 1) | st.text() | st.none() | st.floats(), max_size=4)
)
def test_any_layout_prints_something(layout: str, arguments: list[Any]) -> None:
    assert isinstance(sprintf(layout, arguments), str)


def test_json_is_sorted_and_escaped_as_go_does() -> None:
    value = {"b": "<&>\u2028", "a": [real(2.0), Number("1.10"), real(1e21), b"hi", "\udcff"]}
    assert compact(value) == b'{"a":[2,1.10,1e+21,"aGk=","\xef\xbf\xbd"],"b":"\\u003c\\u0026\\u003e\\u2028"}'
    assert indented({"a": [1, {}], "b": []}, "\t") == b'{\n\t"a": [\n\t\t1,\n\t\t{}\n\t],\n\t"b": []\n}'
    assert scalar_text(real(1e6)) == "1e+06"


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(_JSON, st.text(" \t", max_size=3))
def test_indents_change_nothing_but_white_space(value: Any, indent: str) -> None:
    assert json.loads(indented(value, indent)) == value


@given(_JSON)
def test_yaml_reads_back_what_it_wrote(value: Any) -> None:
    assert parse_yaml(format_yaml(value)) == value


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"y": "yes", "n": "1", "t": "a: b", "e": ""}, 'e: ""\n"n": "1"\nt: \'a: b\'\n"y": "yes"\n'),
        (
            {"b": [[1, [2]], {"a": [{"x": 1}]}, {}, []]},
            "b:\n    - - 1\n      - - 2\n    - a:\n        - x: 1\n    - {}\n    - []\n",
        ),
        (
            {"a": "x\ny\n", "b": "x\ny", "c": "x\n\n"},
            "a: |\n    x\n    y\nb: |-\n    x\n    y\nc: |+\n    x\n\n",
        ),
    ],
)
def test_yaml_is_written_as_go_writes_it(value: Any, written: str) -> None:
    assert format_yaml(value) == written


def test_yaml_aliases_cannot_expand_without_end() -> None:
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))
    with pytest.raises(EvaluationError, match="aliasing"):
        parse_yaml(f"a0: &a0 [x, x, x, x, x, x, x, x, x]\n{levels}\n")


def test_yaml_that_contains_itself_is_refused() -> None:
    with pytest.raises(EvaluationError, match="contains itself"):
        parse_yaml("&a [*a]")


def test_yaml_is_safe() -> None:
    assert parse_yaml("!!python/object/apply:os.system ['true']") == ["true"]
