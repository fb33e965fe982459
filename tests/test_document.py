"""Documents to values and back: the text of numbers survives, and bad text ends in a stated error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.document import (
    DocumentError,
    Number,
    Real,
    decode,
    decode_lines,
    encode,
    encode_lines,
    float_text,
    real,
)
from hub.errors import RecordError

numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?", fullmatch=True)
texts = st.recursive(
    st.one_of(numbers, st.sampled_from(["null", "true", "false"]), st.text(max_size=5).map(json.dumps)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: f"[{','.join(items)}]"),
        st.dictionaries(st.sampled_from(["a", "b", "1e5", "x.00"]), inner, max_size=3).map(
            lambda pairs: "{" + ",".join(f'"{key}":{value}' for key, value in pairs.items()) + "}"
        ),
    ),
    max_leaves=12,
)


def spelled(text: bytes) -> Any:
    """What a JSON text says, numbers by their spelling."""
    return json.loads(text, parse_int=lambda n: ("n", n), parse_float=lambda n: ("n", n))


@settings(max_examples=300, deadline=None)
@given(st.lists(texts, max_size=5), st.booleans())
def test_numbers_keep_their_text_in_any_batch(found: list[str], spaced: bool) -> None:
    lines = [(text.replace(":", ": ") if spaced and '"' not in text else text).encode() for text in found]
    ndjson = b"".join(line + b"\n" for line in lines)
    docs = decode_lines(ndjson)
    assert len(docs) == len(lines)
    for printed, line in zip(encode_lines(docs).splitlines(), lines, strict=True):
        assert spelled(printed) == spelled(line)
        assert spelled(encode(decode(line))) == spelled(line)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1", 1),
        (b"1.5", 1.5),
        (b"9223372036854775807", 9223372036854775807),
        (b"1.10", Number("1.10")),
        (b"12345678901234567890123", Number("12345678901234567890123")),
        (b"1e400", Number("1e400")),
        (b"-0", Number("-0")),
        (b'{"a":1,"a":2}', {"a": 2}),
        (b'"\\ud800x"', "\ufffdx"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
    ],
)
def test_single_texts(text: bytes, expected: Any) -> None:
    assert decode(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"nope",
        b"NaN",
        b"Infinity",
        b"[1] 2",
        b"{'a':1}",
        b"[" * 5000 + b"]" * 5000,
        b"\x00",
        b"01",
    ],
)
def test_text_that_is_no_document_is_an_error_with_its_line(text: bytes) -> None:
    with pytest.raises(DocumentError):
        decode(text)
    if text:
        with pytest.raises(DocumentError) as caught:
            decode_lines(b'{"a":1}\n' + text + b"\n")
        assert caught.value.index == 1
        assert str(caught.value).startswith("line 2: ")


def test_one_line_can_not_pass_for_two() -> None:
    for text in (b"1,2\n", b"1 2\n", b"[1\n2]\n", b'{"a":1},{"b":2}\n'):
        with pytest.raises(DocumentError):
            decode_lines(text)


def test_a_number_computes_as_int64_or_float64() -> None:
    assert Number("10000").plain() == 10000
    assert type(Number("12345678901234567890").plain()) is Real
    assert Number("1.50").plain() == 1.5
    with pytest.raises(RecordError, match="value out of range"):
        Number("1e400").plain()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.0, "2"),
        (-0.0, "-0"),
        (0.1, "0.1"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e-7, "1.5e-7"),
        (1e-6, "0.000001"),
        (123456789.125, "123456789.125"),
    ],
)
def test_computed_floats_print_as_go_prints_them(value: float, text: str) -> None:
    assert float_text(value) == text
    assert encode_lines([real(value)]) == text.encode() + b"\n"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_printed_float_reads_back_as_itself(value: float) -> None:
    assert float(float_text(value)) == value
    assert float(encode(real(value))) == value


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 300])
def test_a_batch_of_any_size_is_printed_in_order(count: int) -> None:
    assert encode_lines([{"n": n} for n in range(count)]) == b"".join(b'{"n":%d}\n' % n for n in range(count))


def test_what_has_no_json_form_is_base64_in_documents_and_raw_in_metadata() -> None:
    assert encode_lines([{"b": b"\x00\xff"}]) == b'{"b":"AP8="}\n'
    assert encode({"before": b'{"a":1.10}'}) == b'{"before":{"a":1.10}}'


def test_strings_that_are_no_utf8_and_integers_beyond_64_bits_are_printed() -> None:
    assert encode_lines(["a\udcffb"]) == '"a\ufffdb"\n'.encode()
    assert encode_lines([1 << 70]) == f"{1 << 70}\n".encode()
