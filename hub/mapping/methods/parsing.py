"""Texts of other formats to values and back: JSON, YAML, CSV, logfmt, URLs, forms."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from hub.document import decode
from hub.errors import RecordError
from hub.mapping.csvtext import check_delimiter, parse_csv
from hub.mapping.gojson import compact, indented
from hub.mapping.jsonfault import json_fault
from hub.mapping.limits import check_depth, check_items
from hub.mapping.logfmt import parse_logfmt
from hub.mapping.receivers import as_data, as_string, as_text
from hub.mapping.registry import Example, Param, method
from hub.mapping.urls import parse_form, parse_url
from hub.mapping.values import EvaluationError, Number, Value, real
from hub.mapping.yamltext import format_yaml, parse_yaml

CATEGORY: Final = "Parsing"


@method(
    "parse_json",
    category=CATEGORY,
    params=[Param("use_number", "bool", None, "Keep the text of numbers; else they become floats.")],
    prepared=True,
    doc="The JSON value that a string or bytes begin with.",
    examples=[
        Example("root.v = this.v.parse_json()", (('{"v":"{\\"a\\":[1]}"}', '{"v":{"a":[1]}}'),)),
        Example("root.v = this.v.parse_json(use_number: true)", (('{"v":"1.10"}', '{"v":1.10}'),)),
    ],
)
def _parse_json(use_number: bool | None) -> Callable[[Value], Value]:
    if use_number:
        return lambda target: _first_json(as_data(target))
    return lambda target: _floats(_first_json(as_data(target)), 0)


def _first_json(data: bytes) -> Value:
    try:
        return decode(data)
    except RecordError:
        pass
    try:
        # Whatever follows the first value is not looked at, as in the engine.
        given = data.decode("utf-8", "replace").lstrip(" \t\r\n")
        _, end = _SCANNER.raw_decode(given)
        if given[end : end + 1] in (".", "e", "E") and given[end - 1].isdigit():
            raise ValueError("a number that stops too soon")
        return decode(given[:end].encode())
    except (ValueError, RecordError, RecursionError) as error:
        why = json_fault(data) if data.strip(b" \t\r\n") else "EOF"
        raise EvaluationError(f"failed to parse value as JSON: {why or error}") from error


def _no_constant(name: str) -> Any:
    raise ValueError(name)


_SCANNER: Final = json.JSONDecoder(parse_constant=_no_constant)


def _floats(value: Value, depth: int) -> Value:
    """The value with every number as a float64."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is list or kind is dict:
        check_depth(depth)
        if kind is list:
            return [_floats(item, depth + 1) for item in value]
        return {key: _floats(item, depth + 1) for key, item in value.items()}
    if kind is Number:
        try:
            return real(float(value.plain()))
        except RecordError as error:
            why = f"json: cannot unmarshal number {value.text} into Go value of type float64"
            raise EvaluationError(f"failed to parse value as JSON: {why}") from error
    return real(float(value))


@method(
    "format_json",
    category=CATEGORY,
    status="beta",
    params=[
        Param("indent", "string", "    ", "What each level is indented by; no line breaks when empty."),
        Param("no_indent", "bool", False, "Write everything on one line."),
        Param("escape_html", "bool", True, "Write `<`, `>` and `&` as escapes."),
    ],
    doc="The value as JSON text, in bytes: put `.string()` behind it for a string.",
    examples=[
        Example(
            "root.v = this.v.format_json(no_indent: true).string()",
            (('{"v":{"b":1,"a":"<"}}', '{"v":"{\\"a\\":\\"\\\\u003c\\",\\"b\\":1}"}'),),
        ),
        Example(
            "root.v = this.v.format_json().string()", (('{"v":{"a":1}}', '{"v":"{\\n    \\"a\\": 1\\n}"}'),)
        ),
    ],
)
def _format_json(target: Value, indent: str, no_indent: bool, escape_html: bool) -> bytes:
    if no_indent or not indent:
        return compact(target, escape_html=escape_html)
    return indented(target, indent, escape_html=escape_html)


@method(
    "parse_yaml",
    category=CATEGORY,
    doc="The first YAML document of a string.",
    examples=[Example("root.v = this.v.parse_yaml()", (('{"v":"a: [1, yes]"}', '{"v":{"a":[1,"yes"]}}'),))],
)
def _parse_yaml(target: Value) -> Value:
    try:
        return parse_yaml(as_text(target))
    except EvaluationError as error:
        if error.text.startswith("expected "):
            raise
        raise error.within("failed to parse value as YAML: ") from error


@method(
    "format_yaml",
    category=CATEGORY,
    lexemes=True,
    doc="The value as YAML text, in bytes. The numbers of a document are written as strings, as the engine does; "
    "call `.number()` on those that should be numbers.",
    examples=[
        Example("root.v = this.v.format_yaml().string()", (('{"v":{"a":["x"]}}', '{"v":"a:\\n    - x\\n"}'),))
    ],
)
def _format_yaml(target: Value) -> bytes:
    return format_yaml(target).encode("utf-8", "surrogateescape")


@method(
    "parse_csv",
    category=CATEGORY,
    params=[
        Param("parse_header_row", "bool", True, "Take the first record as names of the fields."),
        Param("delimiter", "string", ",", "The character between fields."),
        Param("lazy_quotes", "bool", False, "Allow quotes inside fields."),
    ],
    doc="The records of comma-separated text: objects by the names of the first record, or arrays without it.",
    examples=[
        Example("root.v = this.v.parse_csv()", (('{"v":"a,b\\n1,2"}', '{"v":[{"a":"1","b":"2"}]}'),)),
        Example(
            'root.v = this.v.parse_csv(parse_header_row: false, delimiter: "|")',
            (('{"v":"1|2"}', '{"v":[["1","2"]]}'),),
        ),
    ],
)
def _parse_csv(target: Value, parse_header_row: bool, delimiter: str, lazy_quotes: bool) -> list[Any]:
    check_delimiter(delimiter)
    records = parse_csv(as_text(target), delimiter, lazy_quotes=lazy_quotes)
    if not records:
        raise EvaluationError("zero records were parsed")
    check_items(len(records))
    if not parse_header_row:
        return list(records)
    names = records[0]
    return [dict(zip(names, record, strict=True)) for record in records[1:]]


@method(
    "parse_logfmt",
    category=CATEGORY,
    doc='The pairs of a line such as `level=info msg="all good"`; a key alone is true.',
    examples=[
        Example(
            "root.v = this.v.parse_logfmt()",
            (
                (
                    '{"v":"level=info msg=\\"all good\\" done"}',
                    '{"v":{"done":true,"level":"info","msg":"all good"}}',
                ),
            ),
        )
    ],
)
def _parse_logfmt(target: Value) -> dict[str, Any]:
    return parse_logfmt(as_string(target))


@method(
    "parse_url",
    category=CATEGORY,
    doc="The parts of a URL: `scheme`, `user`, `host`, `path`, `raw_query`, `fragment` and others.",
    examples=[
        Example(
            "root.host = this.v.parse_url().host",
            (('{"v":"https://ann@x.io:81/a?b=c#d"}', '{"host":"x.io:81"}'),),
        )
    ],
)
def _parse_url(target: Value) -> dict[str, Any]:
    return parse_url(as_string(target))


@method(
    "parse_form_url_encoded",
    category=CATEGORY,
    annotate=False,
    doc="The fields of a URL's query or of a form. A field that comes more than once has an array of its values.",
    examples=[
        Example(
            "root.v = this.v.parse_form_url_encoded()",
            (('{"v":"a=1&a=2&b=x+y"}', '{"v":{"a":["1","2"],"b":"x y"}}'),),
        )
    ],
)
def _parse_form(target: Value) -> dict[str, Any]:
    return parse_form(as_string(target))


@method(
    "parse_big_decimal",
    category=CATEGORY,
    params=[Param("scale", "integer", doc="How many of the digits are decimals.")],
    prepared=True,
    doc="The decimal number, as text, that bytes hold in two's complement, high bytes first, as Debezium and Kafka "
    "Connect write them.",
    examples=[
        Example(
            'root.v = this.v.decode("base64").parse_big_decimal(2)', (('{"v":"AMjI"}', '{"v":"514.00"}'),)
        )
    ],
)
def _parse_big_decimal(scale: int) -> Callable[[Value], str]:
    if not 0 <= scale <= 10_000:
        raise EvaluationError(f"scale must be between 0 and 10000, got {scale}")

    def run(target: Value) -> str:
        data = as_data(target)
        if len(data) > 4096:
            raise EvaluationError(f"a decimal of {len(data)} bytes is longer than the limit of 4096")
        whole = int.from_bytes(data, "big", signed=True)
        if not scale:
            return str(whole)
        digits = str(abs(whole)).rjust(scale + 1, "0")
        return f"{'-' if whole < 0 else ''}{digits[:-scale]}.{digits[-scale:]}"

    return run
