"""The mapping processor keeps a destination a view of the mapped collection."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hub.mapping import ParseError
from hub.processor import Transform
from hub.record import Batch
from hub.schema import CollectionSchema, describe
from hub.schema.types import FLOAT64, INT64, STRING
from hub.spec import MappingText
from hub_processors.mapping import MappingProcessor

SOURCE = describe(
    "shop/orders",
    {"id": INT64, "name": STRING, "amount": FLOAT64},
    ("id",),
)


def started(text: str) -> Transform:
    return MappingProcessor(mapping=MappingText(text)).start(SOURCE)


def changes(*records: tuple[str, dict[str, Any]], **rest: Any) -> Batch:
    lines = [json.dumps(doc).encode() for _, doc in records]
    return Batch.of_lines("shop/orders", lines, ops="".join(op for op, _ in records).encode(), **rest)


def shown(batches: Any) -> list[tuple[str, Any]]:
    return [
        (chr(batch.op(index)), json.loads(line))
        for batch in batches
        for index, line in enumerate(batch.lines())
    ]


def test_records_are_mapped_and_their_operations_kept() -> None:
    found = started("root = this\nroot.name = this.name.uppercase()").process(
        changes(("r", {"id": 1, "name": "a"}), ("u", {"id": 1, "name": "b"}))
    )
    assert shown(found) == [("r", {"id": 1, "name": "A"}), ("u", {"id": 1, "name": "B"})]


def test_a_delete_goes_through_for_its_key_though_other_fields_are_missing() -> None:
    found = started("root = this\nroot.name = this.name.uppercase()\nroot.big = this.amount > 5").process(
        changes(
            ("c", {"id": 1, "name": "a", "amount": 1}),
            ("d", {"id": 1}),
            ("c", {"id": 2, "name": "b", "amount": 9}),
        )
    )
    assert shown(found) == [
        ("c", {"id": 1, "name": "A", "amount": 1, "big": False}),
        ("d", {"id": 1}),
        ("c", {"id": 2, "name": "B", "amount": 9, "big": True}),
    ]
    assert not any(batch.errors for batch in found)


def test_an_update_that_leaves_the_filter_deletes_the_row() -> None:
    found = started("root = this\nroot = if this.amount < 5 { deleted() }").process(
        changes(
            ("u", {"id": 1, "amount": 9}),
            ("u", {"id": 2, "amount": 1}),
            ("c", {"id": 3, "amount": 1}),
            ("u", {"id": 4, "amount": 7}),
            ("d", {"id": 5}),
        )
    )
    assert [(op, doc["id"]) for op, doc in shown(found)] == [("u", 1), ("d", 2), ("u", 4), ("d", 5)]


def test_a_renamed_key_is_followed() -> None:
    transform = started("root.key = this.id\nroot.name = this.name.uppercase()")
    assert transform.schema.key == ("/key",)
    assert shown(transform.process(changes(("d", {"id": 5}), ("u", {"id": 6, "name": "x"})))) == [
        ("d", {"key": 5}),
        ("u", {"key": 6, "name": "X"}),
    ]


def test_truncates_pass_untouched() -> None:
    found = started("root = this.name.uppercase()").process(changes(("t", {}), ("c", {"id": 1, "name": "x"})))
    assert shown(found) == [("t", {}), ("c", "X")]


def test_metadata_stays_with_its_record() -> None:
    found = started("root = this\nroot.lsn = @lsn\nroot = if this.amount < 5 { deleted() }").process(
        changes(
            ("u", {"id": 1, "amount": 1}),
            ("u", {"id": 2, "amount": 9}),
            ("d", {"id": 3}),
            columns={"lsn": [10, 20, 30]},
        )
    )
    metas = [batch.metadata(index)["lsn"] for batch in found for index in range(batch.count)]
    assert metas == [10, 20, 30]


def test_a_record_that_fails_is_flagged_where_it_stands() -> None:
    [found] = started("root.x = this.name.uppercase()").process(
        changes(("c", {"id": 1, "name": "a"}), ("c", {"id": 2, "name": 7}), ("c", {"id": 3, "name": "b"}))
    )
    assert set(found.errors or ()) == {1}
    assert shown([found])[1] == ("c", {"id": 2, "name": 7})


def test_copied_fields_keep_their_type_and_the_key_its_place() -> None:
    schema = started("root = this\nroot.name = deleted()\nroot.total = this.amount * 2").schema
    assert schema.key == ("/id",)
    assert schema.is_open
    assert set(schema.schema["properties"]) == {"id", "amount"}
    assert started('root = {"other": this.name}').schema.key == ()


def test_a_mistake_is_a_parse_error_at_the_start() -> None:
    with pytest.raises(ParseError):
        started("root = ")


def test_the_marks_of_a_backfill_pass_untouched_also_without_a_key() -> None:
    marked = changes(("b", {}), ("r", {"id": 1, "name": "x"}), ("s", {}))
    found = started("root = this.name.uppercase()").process(marked)
    assert shown(found) == [("b", {}), ("r", "X"), ("s", {})]
    mapping = MappingProcessor(mapping=MappingText("root = this.name.uppercase()"))
    keyless = mapping.start(CollectionSchema("shop/orders"))
    assert shown(keyless.process(marked)) == [("b", {}), ("r", "X"), ("s", {})]
