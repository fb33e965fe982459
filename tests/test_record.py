"""Batches keep their records whatever form they are in."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hub.errors import RecordError
from hub.record import Batch, Cursor, Place, concat

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def batches(draw: st.DrawFn, *, least: int = 0) -> Batch:
    docs = draw(st.lists(values, min_size=least, max_size=6))
    n = len(docs)
    ops = draw(
        st.none() | st.binary(min_size=n, max_size=n).map(lambda raw: bytes(b"cudrt"[b % 5] for b in raw))
    )
    shared = draw(st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), max_size=2))
    columns = {
        name: draw(st.lists(st.integers(-5, 5) | st.none(), min_size=n, max_size=n))
        for name in draw(st.sets(st.sampled_from("xyz")))
    }
    made = Batch.of_docs("c", docs, ops=ops, shared=shared, columns=columns)
    if draw(st.booleans()):
        made = Batch("c", n, ndjson=made.ndjson, ops=ops, shared=shared, columns_json=made.columns_json)
    return made


def contents(batch: Batch) -> list[tuple[Any, int, dict[str, Any]]]:
    return [(batch.docs[i], batch.op(i), batch.metadata(i)) for i in range(batch.count)]


@given(batches())
def test_bytes_and_values_are_the_same_documents(batch: Batch) -> None:
    again = Batch("c", batch.count, ndjson=batch.ndjson)
    assert again.docs == batch.docs
    assert len(batch.lines()) == batch.count
    assert Batch.of_lines("c", batch.lines()).ndjson == batch.ndjson


@given(batches(), st.data())
def test_take_keeps_each_record_with_its_operation_and_metadata(batch: Batch, data: st.DataObject) -> None:
    keep = sorted(data.draw(st.sets(st.sampled_from(range(batch.count)))) if batch.count else [])
    assert contents(batch.take(keep)) == [contents(batch)[i] for i in keep]


@given(batches(), st.integers(1, 40))
def test_pieces_are_all_records_in_order(batch: Batch, bytes_max: int) -> None:
    rows = [row for piece in batch.pieces(bytes_max) for row in contents(piece)]
    assert rows == contents(batch)


@given(batches(), st.randoms())
def test_arranging_moves_records_with_all_they_have(batch: Batch, rng: Any) -> None:
    order = list(range(batch.count))
    rng.shuffle(order)
    assert contents(batch.arranged(order)) == [contents(batch)[i] for i in order]


@given(st.lists(batches(least=1), min_size=1, max_size=4))
def test_concat_is_all_records_in_order(parts: list[Batch]) -> None:
    assert contents(concat(parts)) == [row for part in parts for row in contents(part)]


@given(st.lists(batches(least=1), min_size=1, max_size=3))
def test_errors_stay_with_their_records(parts: list[Batch]) -> None:
    flagged = [part.with_errors({part.count - 1: RecordError("last")}) for part in parts]
    whole = concat(flagged)
    assert whole.errors is not None
    ends = [sum(part.count for part in parts[: i + 1]) - 1 for i in range(len(parts))]
    assert sorted(whole.errors) == ends
    assert sorted(whole.take(ends).errors or {}) == list(range(len(ends)))


def test_raw_json_in_metadata_is_carried_as_it_is() -> None:
    batch = Batch.of_docs("c", [{}], columns={"before": [b'{"n":1.10}']})
    assert batch.columns_json == b'{"before":[{"n":1.10}]}'


def test_a_cursor_survives_its_encoding() -> None:
    cursor = Cursor.START.moved("main", Place(3, 14)).moved("other", Place(1, 5))
    assert Cursor.decode(cursor.encode()) == cursor
    assert cursor.moved("main", Place(4, 1)).journals["main"] > cursor.journals["main"]
