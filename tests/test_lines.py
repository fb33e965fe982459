"""JSON lines: what is one JSON value on one line, said without decoding it, exactly as a decoder would."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.document import decode_lines
from hub.errors import FatalError
from hub.lines import check, enveloped, fault, without_removals
from hub.record import Batch

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def texts(value: object, *, ascii: bool) -> bytes:
    return json.dumps(value, ensure_ascii=ascii).encode(errors="replace")


@given(st.lists(st.builds(texts, JSON, ascii=st.booleans())), st.sampled_from([b"\n", b"\r\n", b" \n\t\n"]))
def test_good_lines_pass_unchanged(documents: list[bytes], ending: bytes) -> None:
    lines = check(b"".join([text + ending for text in documents]))
    assert not lines.bad
    assert lines.count == len(documents)
    assert lines.ndjson.split(b"\n")[:-1] == documents


@given(st.builds(texts, JSON, ascii=st.booleans()), st.data())
def test_agrees_with_a_decoder_on_damaged_lines(text: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(at, min(at + 2, len(text))))
    damage = data.draw(
        st.binary(max_size=2) | st.sampled_from([b'"', b"\\", b"{", b"}", b",", b"1", b"\xed\xa0\x80"])
    )
    damaged = (text[:at] + damage + text[end:]).replace(b"\n", b"")
    try:
        orjson.loads(damaged)
        is_json = True
    except orjson.JSONDecodeError as error:
        # orjson refuses numbers that a float64 cannot hold. They are JSON, and copied as text.
        is_json = "number is infinity" in str(error)
    if damaged.strip(b" \t\r"):
        assert (fault(damaged.strip(b" \t\r")) == "") is is_json
        assert bool(check(damaged + b"\n").bad) is not is_json


def test_two_values_on_one_line_do_not_make_up_for_one_on_two() -> None:
    lines = check(b'{"a":1}{"b":2}\n{"c":\n3}\n1,2\n[4\n,5]\n')
    assert [bad.index for bad in lines.bad] == [0, 1, 2, 3, 4, 5]
    assert [bad.byte for bad in lines.bad] == [0, 15, 21, 24, 28, 31]
    assert all(isinstance(doc, str) for doc in decode_lines(lines.ndjson))


def test_deep_nesting_is_a_bad_line_and_no_crash() -> None:
    (bad,) = check(b"[" * 100_000 + b"\n").bad
    assert bad.reason == "nested too deeply"


def test_a_batch_flags_or_leaves_out_bad_lines() -> None:
    lines = check(b"1\nx\n2\n")
    flagged = lines.batch("c", where="f", at=100, skip=False)
    assert flagged.docs == [1, "x", 2]
    assert flagged.errors is not None
    assert flagged.errors[1].reason.startswith("f: line at byte 102: not JSON")
    assert lines.batch("c", where="f", skip=True).docs == [1, 2]
    with pytest.raises(FatalError, match="f: line at byte 102: not JSON"):
        lines.refuse_bad(where="f", at=100)


def test_envelopes_carry_the_document_untouched() -> None:
    batch = Batch.of_lines("c", [b'{"n":1.10}', b"{}"], ops=b"ud", columns={"key": [b"[1]", None]})
    assert enveloped(batch) == (
        b'{"collection":"c","operation":"update","metadata":{"key":[1]},"document":{"n":1.10}}\n'
        b'{"collection":"c","operation":"delete","metadata":{},"document":{}}\n'
    )
    assert list(without_removals(batch)) == [1]
    assert without_removals(Batch.of_lines("c", [b"1"])) == {}
