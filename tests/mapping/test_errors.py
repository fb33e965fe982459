"""What errors say, and where they come from, as on the real engine; and that an error costs one record only."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hub.mapping import EvaluationError, Message, ParseError, compile
from hub.record import Batch


def failure(text: str, document: str = "{}", kind: Any = "mapping") -> str:
    with pytest.raises(EvaluationError) as caught:
        compile(text, kind).message([Message(document.encode(), {"m": "v"})])
    return str(caught.value)


def outcome(text: str, document: str) -> str:
    mapped = compile(text).message([Message(document.encode())])
    assert mapped.content is not None
    return mapped.content.decode()


@pytest.mark.parametrize(
    ("query", "document", "error"),
    [
        ("metadata().uppercase()", "{}", "expected string value, got object from metadata object"),
        ("this.v.uppercase()", '{"v":1e-7}', "expected string value, got number from field `this.v` (1e-7)"),
        (
            "this.v.uppercase()",
            '{"v":-9223372036854775809}',
            "expected string value, got number from field `this.v` (-9223372036854775809)",
        ),
        (
            "meta(this.v)",
            '{"v":1}',
            "function 'meta': failed to extract input arg 'key': wrong argument type, expected string, got number",
        ),
        ('this.v.concat([1], throw("q"))', '{"v":[]}', "method 'concat': failed to extract input arg '0': q"),
        (
            'this.v.parse_csv(delimiter: "ab")',
            '{"v":[1]}',
            "field `this.v`: delimiter value must be exactly one character",
        ),
        ('this.v.bloblang("root = ")', '{"v":1}', None),
        (
            "this.v.sort_by(x -> x.a)",
            '{"v":[{},{}]}',
            "sort_by element 1: expected number or string value, got null from field `x.a`",
        ),
        ('this.v.sort(x -> throw("e"))', '{"v":[1,2]}', "e"),
        (
            "this.v.map_each(x -> x * 2)",
            '{"v":["a"]}',
            "field `this.v`: failed to process element 0: cannot multiply types string (from field `x`) and number "
            "(from number literal)",
        ),
        (
            "this.v.map_each(x -> x.number())",
            '{"v":["a"]}',
            'failed to process element 0: field `x`: strconv.ParseFloat: parsing "a": invalid syntax',
        ),
        (
            "this.v.floor()",
            '{"v":1e400}',
            'field `this.v`: failed to parse number: strconv.ParseFloat: parsing "1e400": value out of range',
        ),
        ("this.v.abs()", '{"v":1e400}', "expected number or integer value, got number (1e400)"),
        (
            "this.v.ts_unix()",
            '{"v":1e400}',
            'parsing time "1e400" as "2006-01-02T15:04:05.999999999Z07:00": cannot parse "1e400" as "2006"',
        ),
        ('json("a")', "", "target message part does not exist"),
    ],
)
def test_errors_name_the_source_of_the_value(query: str, document: str, error: str | None) -> None:
    if error is None:
        with pytest.raises(ParseError, match="expected query, but reached end of input"):
            compile(f"root = {query}")
    else:
        assert failure(f"root = {query}", document) == f"failed assignment (line 1): {error}"


def test_a_condition_that_is_no_boolean_is_shown_as_the_document_has_it() -> None:
    assert failure("if this.v {\n  root = 1\n}", '{"v":1}') == (
        "failed assignment (line 1): field `this.v` resolved to a non-boolean value 1 (json.Number)"
    )


def test_text_that_asks_for_the_document_of_no_document_says_what_it_was_doing() -> None:
    assert failure('${! if this.ok { "y" } }', "not json", "field") == (
        "failed to check if condition: context was undefined, unable to reference `ok`"
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "root.v = 1 + -false",
            "line 1 char 10: cannot subtract types number (from number literal) and bool",
        ),
        ("root.v = -null == (5 * false)", "line 1 char 20: cannot multiply types number"),
        ("root = throw(why: [1], nope: 1)", "field why: wrong argument type, expected string, got array"),
    ],
)
def test_mistakes_are_told_in_the_engine_s_order(text: str, error: str) -> None:
    with pytest.raises(ParseError) as caught:
        compile(text)
    assert error in str(caught.value)


@pytest.mark.parametrize(
    ("query", "document", "value"),
    [
        ("this.v && true", '{"v":0.0}', "true"),
        ("this.v && true", '{"v":-0}', "true"),
        ("this.v && true", '{"v":0}', "false"),
        ("(this.v * 1.5) && true", '{"v":0}', "false"),
        ("this.v == this.w", '{"v":1e400,"w":1e400}', "true"),
        ("this.v.timestamp().bool(true)", '{"v":"no time"}', "true"),
        ("this.v.uppercase().number(5)", '{"v":1}', "5"),
        ("this.v.abs()", '{"v":9223372036854775808}', "9223372036854776000"),
        ("[(this.v * 1.5).string()]", '{"v":823045}', '["1.2345675e+06"]'),
        ("this.v", '{"v":-9223372036854775809}', "-9223372036854775809"),
        ("this.v.sort_by(x -> x.nope)", '{"v":[1]}', "[1]"),
        ("this.v.sort(x -> x.left > x.right)", '{"v":[1,3,2]}', "[3,2,1]"),
    ],
)
def test_values_at_the_edges(query: str, document: str, value: str) -> None:
    assert outcome(f"root = {query}", document) == value
    [line] = compile(f"root.x = {query}").run(Batch.of_lines("c", [document.encode()])).lines()
    assert line.decode() == f'{{"x":{value}}}'


DEEP = b'{"v":' + b"[" * 300 + b"]" * 300 + b"}"


@pytest.mark.parametrize(
    "text",
    [
        "root.w = this.v",
        "root = this\nroot.v = this.v.map_each(x -> [x, this.v])",
        "meta deep = this.v",
        "root.w = this.v.string()",
        "root = this.v.fold(this.v, x -> [x])",
    ],
)
def test_a_record_that_cannot_be_printed_is_set_aside_alone(text: str) -> None:
    batch = Batch.of_lines("c", [b'{"v":[1],"n":0}', DEEP, b'{"v":[2],"n":0}'])
    mapped = compile(text).run(batch)
    assert mapped.errors is not None
    assert set(mapped.errors) == {1}
    assert mapped.lines()[1] == DEEP
    assert mapped.count == 3


def test_a_deep_document_that_only_passes_through_is_left_as_it_is() -> None:
    mapped = compile('meta kind = "x"').run(Batch.of_lines("c", [DEEP, b"{}"]))
    assert not mapped.errors
    assert mapped.lines() == [DEEP, b"{}"]


def test_what_a_method_makes_of_nothing_prints_as_null() -> None:
    [line] = compile("root.x = nothing().array()").run(Batch.of_lines("c", [b"{}"])).lines()
    assert line == b'{"x":[null]}'


@pytest.mark.parametrize("number", ["2", "2.5", "18446744073709551615", "-0", "1e3"])
def test_any_number_has_a_messagepack(number: str) -> None:
    text = "root.v = this.v.number().format_msgpack().parse_msgpack()"
    assert float(json.loads(outcome(text, f'{{"v":{number}}}'))["v"]) == float(number)


@pytest.mark.parametrize(
    ("text", "error"),
    [('"a\\u0000b"', "yaml: control characters"), ('"\\xff"', "yaml: invalid leading UTF-8")],
)
def test_yaml_that_is_no_text_is_refused(text: str, error: str) -> None:
    assert error in failure(f"root = {text}.parse_yaml()")
