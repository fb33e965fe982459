"""Types survive their JSON Schema; widening never loses a value."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hub.schema import (
    CollectionSchema,
    ColumnType,
    describe,
    infer,
    of_json_schema,
    to_json_schema,
    widen,
    widened,
)
from hub.schema.types import (
    BOOLEAN,
    BYTES,
    DATE,
    DECIMAL,
    FLOAT32,
    FLOAT64,
    INT16,
    INT32,
    INT53,
    INT64,
    INTERVAL,
    JSON,
    OBJECT,
    STRING,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    TIMETZ,
    UINT64,
    UUID,
)

plain = (
    st.sampled_from(
        [
            BOOLEAN,
            INT16,
            INT32,
            INT53,
            INT64,
            UINT64,
            FLOAT32,
            FLOAT64,
            DECIMAL,
            STRING,
            DATE,
            TIMESTAMP,
            TIMESTAMPTZ,
            TIME,
            TIMETZ,
            INTERVAL,
            UUID,
            BYTES,
            JSON,
            OBJECT,
        ]
    )
    | st.builds(
        lambda p, s: ColumnType("decimal", precision=p + s, scale=s), st.integers(1, 20), st.integers(0, 10)
    )
    | st.builds(lambda n: ColumnType("string", length=n), st.integers(1, 500))
)
types = st.recursive(
    st.builds(lambda t, n: t.null(n), plain, st.booleans()),
    lambda inner: (
        st.builds(lambda t, n: ColumnType("array", items=t, nullable=n), inner, st.booleans())
        | st.builds(
            lambda p: ColumnType("object", properties=p), st.dictionaries(st.sampled_from("ab"), inner)
        )
    ),
    max_leaves=4,
)
documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=4,
)


@given(types)
def test_a_type_is_read_back_from_its_schema(column: ColumnType) -> None:
    assert of_json_schema(to_json_schema(column)) == column


@given(types, types)
def test_widening_does_not_depend_on_the_order_and_settles(one: ColumnType, other: ColumnType) -> None:
    wide = widen(one, other)
    assert wide == widen(other, one)
    assert widen(wide, one) == wide
    assert widen(one, one) == one


@given(st.lists(st.dictionaries(st.sampled_from("abc"), documents), max_size=5), st.integers(0, 5))
def test_what_is_learnt_covers_every_document_and_is_then_stable(
    docs: list[dict[str, Any]], cut: int
) -> None:
    known: dict[str, ColumnType] = {}
    for part in (docs[:cut], docs[cut:]):
        known = widened(known, part) or known
    assert widened(known, docs) is None
    for doc in docs:
        for name, value in doc.items():
            assert value is None or known[name].kind in ("json", *kinds(value))


def kinds(value: Any) -> tuple[str, ...]:
    found = infer([value])
    assert found is not None
    return (
        (found.kind, "float", "decimal") if found.kind in ("integer", "float", "decimal") else (found.kind,)
    )


def test_a_collection_schema_survives_its_encoding_and_keeps_the_order_of_columns() -> None:
    schema = describe("c", {"z": INT64.null(False), "a/b~": UUID, "m": DECIMAL}, ("z", "a/b~"))
    again = CollectionSchema.decode(schema.encode())
    assert again == schema
    assert [column.name for column in again.columns()] == ["z", "a/b~", "m"]
    assert again.key_fields == ("z", "a/b~")
    assert [column.in_key for column in again.columns()] == [True, True, False]


def test_what_inference_sees_as_text_does_not_undo_what_is_known() -> None:
    known = {"at": TIMESTAMPTZ, "n": ColumnType("decimal", precision=10, scale=2), "f": FLOAT64, "i": INT16}
    assert widened(known, [{"at": "2026-01-01T00:00:00Z", "n": "1.50", "f": "NaN", "i": 5}]) is None
