"""The mutation processor changes documents in place, and keeps a destination a view as `mapping` does."""

from __future__ import annotations

import json
from typing import Any

from hub.processor import Transform
from hub.record import Batch
from hub.schema import describe
from hub.schema.types import FLOAT64, INT64, STRING
from hub.spec import MutationText
from hub_processors.mutation import MutationProcessor

SOURCE = describe("shop/orders", {"id": INT64, "name": STRING, "amount": FLOAT64}, ("id",))


def started(text: str) -> Transform:
    return MutationProcessor(mutation=MutationText(text)).start(SOURCE)


def mapped(text: str, ops: str, *docs: dict[str, Any], **rest: Any) -> list[tuple[str, Any]]:
    lines = [json.dumps(doc).encode() for doc in docs]
    batch = Batch.of_lines("shop/orders", lines, ops=ops.encode(), **rest)
    return [
        (chr(made.op(index)), json.loads(line))
        for made in started(text).process(batch)
        for index, line in enumerate(made.lines())
    ]


def test_fields_that_are_not_assigned_stay() -> None:
    assert mapped("root.name = deleted()", "c", {"id": 1, "name": "a", "amount": 2.5}) == [
        ("c", {"id": 1, "amount": 2.5})
    ]


def test_this_is_the_document_as_changed_so_far() -> None:
    assert mapped('root.name = "b"\nroot.copy = this.name', "c", {"id": 1, "name": "a"}) == [
        ("c", {"id": 1, "name": "b", "copy": "b"})
    ]


def test_a_delete_keeps_its_key_and_needs_no_other_field() -> None:
    text = 'root.name = this.name.uppercase()\nroot.label = this.name + "!"'
    assert mapped(text, "cd", {"id": 1, "name": "a"}, {"id": 1}) == [
        ("c", {"id": 1, "name": "A", "label": "A!"}),
        ("d", {"id": 1}),
    ]


def test_an_update_that_is_dropped_leaves_the_view() -> None:
    text = "root = if this.amount < 5 { deleted() }"
    [(op, doc)] = mapped(text, "u", {"id": 1, "name": "a", "amount": 1})
    assert (op, doc["id"]) == ("d", 1)


def test_what_an_update_did_not_touch_is_left_alone_and_what_is_made_of_it_too() -> None:
    batch = Batch.of_lines(
        "shop/orders",
        [b'{"id":1,"amount":2}'],
        ops=b"u",
        columns={"unchanged": [["name"]]},
    )
    [made] = started("root.label = this.name.uppercase()\nroot.amount = this.amount * 2").process(batch)
    assert made.docs == [{"id": 1, "amount": 4}]
    assert sorted(made.columns["unchanged"][0]) == ["label", "name"]


def test_the_schema_keeps_what_is_not_assigned() -> None:
    properties = started('root.name = deleted()\nroot.kind = "x"').schema.schema["properties"]
    assert {"id", "amount", "kind"} <= set(properties)


def test_a_field_that_the_source_does_not_have_is_warned_of() -> None:
    [warning] = MutationProcessor(mutation=MutationText("root.x = this.nope")).warnings(SOURCE)
    assert warning.startswith("line 1: ")
