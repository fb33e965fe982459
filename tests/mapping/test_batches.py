"""Mappings over whole batches: documents, metadata, operations, errors, and what is dropped."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hub.mapping import compile
from hub.record import Batch


def batch(*docs: Any, **rest: Any) -> Batch:
    return Batch.of_lines("shop", [json.dumps(doc).encode() for doc in docs], **rest)


def mapped(text: str, *docs: Any, kind: Any = "mapping", **rest: Any) -> Batch:
    return compile(text, kind).run(batch(*docs, **rest))


def out(found: Batch) -> list[Any]:
    return [json.loads(line) for line in found.lines()]


def test_each_record_is_mapped() -> None:
    found = mapped("root.double = this.n * 2", {"n": 1}, {"n": 2.5})
    assert out(found) == [{"double": 2}, {"double": 5}]
    assert found.ndjson == b'{"double":2}\n{"double":5}\n'


def test_dropped_records_are_left_out_and_their_places_known() -> None:
    found, places = compile("root = if this.n == 2 { deleted() }").run_indexed(
        batch({"n": 1}, {"n": 2}, {"n": 3}, ops=b"cud", columns={"k": ["a", "b", "c"]})
    )
    assert out(found) == [{"n": 1}, {"n": 3}]
    assert list(places) == [0, 2]
    assert found.ops == b"cd"
    assert found.columns["k"] == ["a", "c"]


def test_a_record_that_fails_keeps_its_document_and_metadata_and_is_flagged() -> None:
    found = mapped(
        'meta x = "set"\nroot.up = this.name.uppercase()', {"name": "a"}, {"name": 5}, shared={"t": 1}
    )
    assert out(found) == [{"up": "A"}, {"name": 5}]
    assert found.errors is not None
    assert str(found.errors[1]) == (
        "failed assignment (line 2): expected string value, got number from field `this.name` (5)"
    )
    assert found.metadata(0) == {"t": 1, "x": "set"}
    assert found.metadata(1) == {"t": 1}


def test_flags_of_earlier_steps_are_seen_and_kept() -> None:
    source = batch({"a": 1}, {"a": 2})
    from hub.errors import RecordError

    flagged = source.with_errors({1: RecordError("broken", component="parse")})
    found = compile("root.bad = errored()\nroot.why = error()\nroot.who = error_source_name()").run(flagged)
    assert out(found) == [
        {"bad": False, "why": None, "who": None},
        {"bad": True, "why": "broken", "who": "parse"},
    ]
    assert found.errors is not None and set(found.errors) == {1}


def test_documents_of_the_source_batch_never_change() -> None:
    docs = [{"a": {"b": 1}, "l": [1, 2]}]
    source = Batch.of_docs("shop", docs)
    found = compile("root = this\nroot.a.b = 2\nroot.a.c = 3\nroot.l.0 = 9\nroot.a.d = root.a").run(source)
    assert docs == [{"a": {"b": 1}, "l": [1, 2]}]
    assert out(found) == [{"a": {"b": 2, "c": 3, "d": {"b": 2, "c": 3}}, "l": [9, 2]}]


def test_a_mutation_reads_what_it_has_changed() -> None:
    docs = [{"a": 1, "b": {"c": 2}}]
    source = Batch.of_docs("shop", docs)
    found = compile("root.a = 99\nroot.d = this.a\nroot.b = deleted()", "mutation").run(source)
    assert out(found) == [{"a": 99, "d": 99}]
    assert docs == [{"a": 1, "b": {"c": 2}}]


def test_the_text_of_numbers_survives_untouched_copies() -> None:
    source = Batch.of_lines(
        "shop", [b'{"v":1.10,"w":12345678901234567890}', b'{"v":1e400,"w":-0}', b'{"v":2.0,"w":1}']
    )
    found = compile("root.a = this.v\nroot.b = [this.w]").run(source)
    assert found.lines() == [
        b'{"a":1.10,"b":[12345678901234567890]}',
        b'{"a":1e400,"b":[-0]}',
        b'{"a":2.0,"b":[1]}',
    ]


def test_computed_numbers_print_as_go_prints_them() -> None:
    found = mapped(
        "root.a = this.n * 1.0\nroot.b = this.n / 2\nroot.c = this.big * 10.0\nroot.d = this.n % 2",
        {"n": 4, "big": 1e20},
    )
    assert found.ndjson == b'{"a":4,"b":2,"c":1e+21,"d":0}\n'


def test_integers_wrap_at_64_bits() -> None:
    found = mapped("root.a = this.n + 1\nroot.b = this.n * 2", {"n": 9223372036854775807})
    assert out(found) == [{"a": -9223372036854775808, "b": -2}]


def test_metadata_of_batch_and_record_is_read_by_name() -> None:
    found = mapped(
        "root.op = @operation\nroot.t = @table\nroot.l = @lsn\nroot.none = @nope\nroot.before = @before.a",
        {"a": 1},
        {"a": 2},
        ops=b"cu",
        shared={"table": "orders"},
        columns={"lsn": [1, 2], "before": [None, b'{"a":1}']},
    )
    assert out(found) == [
        {"op": "create", "t": "orders", "l": 1, "none": None, "before": None},
        {"op": "update", "t": "orders", "l": 2, "none": None, "before": 1},
    ]


def test_assigned_metadata_is_shared_where_alike_and_a_column_where_not() -> None:
    found = mapped(
        'meta kind = "x"\nmeta n = this.n\nmeta old = deleted()', {"n": 1}, {"n": 2}, shared={"old": 1}
    )
    assert dict(found.shared) == {"kind": "x"}
    assert dict(found.columns) == {"n": [1, 2]}
    assert out(found) == [{"n": 1}, {"n": 2}]


def test_assigning_the_operation_changes_it() -> None:
    found = mapped('meta operation = if this.gone { "delete" }', {"gone": True}, {"gone": False}, ops=b"uu")
    assert found.ops == b"du"


def test_functions_see_other_records_of_the_batch() -> None:
    found = mapped(
        'root.i = batch_index()\nroot.n = batch_size()\nroot.all = json("a").from_all()\nroot.first = json("a").from(0)'
        '\nroot.last = json("a").from(-1)\nroot.here = this.a.from_all()',
        {"a": 1},
        {"a": 2},
    )
    assert out(found)[1] == {"i": 1, "n": 2, "all": [1, 2], "first": 1, "last": 2, "here": [2, 2]}


def test_raw_results_are_the_json_they_spell_or_a_string() -> None:
    found = mapped("root = this.raw", {"raw": "text"}, {"raw": '{"a":1}'}, {"raw": "7"})
    assert out(found) == ["text", {"a": 1}, 7]


def test_bytes_and_times_in_documents_become_strings() -> None:
    found = mapped(
        'root.b = content().slice(0, 2)\nroot.t = "2020-01-02T03:04:05Z".ts_parse("2006-01-02T15:04:05Z07:00")',
        {"a": 1},
    )
    assert out(found) == [{"b": "eyI=", "t": "2020-01-02T03:04:05Z"}]
    assert not found.has_docs


def test_plain_results_are_kept_as_values() -> None:
    assert mapped("root.a = this.a", {"a": 1}).has_docs


def test_a_line_that_is_no_json_is_one_record_that_may_still_be_mapped() -> None:
    source = Batch("shop", 2, ndjson=b'{"a":1}\nnot json\n')
    found = compile("root.a = this.a").run(source)
    assert found.errors is not None and set(found.errors) == {1}
    assert "unable to reference message as structured (with 'this.a')" in str(found.errors[1])
    assert found.lines() == [b'{"a":1}', b"not json"]
    raw = compile("root.text = content().string()").run(source)
    assert out(raw) == [{"text": '{"a":1}'}, {"text": "not json"}]
    assert raw.errors is None


def test_an_empty_batch_stays_empty() -> None:
    found = mapped("root.a = this.b")
    assert (found.count, found.ndjson, found.errors) == (0, b"", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("orders", "orders"),
        ("a-${! 1 + 1 }", "a-2"),
        ("${! @table }_x", "orders_x"),
        ("${! @table.uppercase() }", "ORDERS"),
        ("${! this.a }", ["1", "2"]),
        ("${! @lsn }", ["7", "8"]),
        ("${{! this.a }}", "${! this.a }"),
    ],
)
def test_interpolated_text_is_one_string_when_it_is_the_same_for_all(text: str, expected: Any) -> None:
    source = batch({"a": 1}, {"a": 2}, shared={"table": "orders"}, columns={"lsn": [7, 8]})
    assert compile(text, "field").resolve(source) == expected


def test_interpolated_text_tells_which_record_fails() -> None:
    found = compile("${! this.a.uppercase() }", "field").resolve(batch({"a": "x"}, {"a": 1}))
    assert isinstance(found, list)
    assert found[0] == "X"
    assert str(found[1]) == "expected string value, got number from field `this.a` (1)"


def test_a_query_gives_values_for_a_batch() -> None:
    assert compile("this.a > 1", "query").values(batch({"a": 1}, {"a": 2})) == [False, True]
