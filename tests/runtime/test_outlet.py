"""From sends to transactions: what is gathered, in which order, and what is never made durable early."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub.log import Schema
from hub.record import Batch
from hub.runtime.outlet import Item, merged

items = st.lists(
    st.builds(lambda name, n: Batch.of_docs(name, [n]), st.sampled_from("abc"), st.integers(0, 99))
    | st.builds(lambda name, n: Schema(name, b"%d" % n), st.sampled_from("abc"), st.integers(0, 99)),
    max_size=12,
)


def seen_by(name: str, given_items: list[Item]) -> list[object]:
    found: list[object] = []
    for item in given_items:
        if item.collection == name:
            found += item.docs if isinstance(item, Batch) else [item.text]
    return found


@given(items)
def test_merging_keeps_the_order_inside_every_collection(sent: list[Item]) -> None:
    for name in "abc":
        assert seen_by(name, merged(sent)) == seen_by(name, sent)


@given(items)
def test_merging_leaves_one_batch_a_collection_between_schemas(sent: list[Item]) -> None:
    last: dict[str, Item] = {}
    for item in merged(sent):
        before = last.get(item.collection)
        assert not (isinstance(item, Batch) and isinstance(before, Batch))
        last[item.collection] = item
