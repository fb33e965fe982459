"""The marks of a backfill on their way from the log to a destination."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hub.config import load
from hub.errors import FatalError
from hub.record import Batch, TaskName
from hub.runtime.stage import Outcome
from hub.runtime.tree import Trees
from hub.schema import CollectionSchema, describe
from hub.schema.types import INT64

CONFIG = """
captures:
  shop: {generate: {count: 1, mapping: "root.id = 1"}}
derivations:
  both: {from: [shop/a, shop/b], mapping: "root = this"}
  mapped: {from: shop/a, mapping: "root = this"}
materializations:
  lake:
    %s
    bindings:
%s
"""


def marked(
    tmp_path: Path, bindings: str, sink: str = "sqlite: {path: lake.db}", ops: bytes = b"brrsc"
) -> tuple[list[Any], Outcome]:
    """What becomes of read rows between marks, or what else `ops` says: for each write its table and operations."""
    config = tmp_path / "hub.yaml"
    config.write_text(CONFIG % (sink, "\n".join(f"      - {line}" for line in bindings.splitlines())))
    catalog = load(config)
    trees = Trees(catalog, catalog.materializations[TaskName("lake")])
    trees.restart(describe("shop/a", {"id": INT64.null(False)}, ("id",)))
    outcome = Outcome()
    docs = [{}, {"id": 1}, {"id": 2}, {}, {"id": 3}]
    trees.run(Batch.of_docs("shop/a", docs, ops=ops, shared={"table": "a"}), outcome)
    found = [(b.target, w.ops) for b, w in outcome.writes() if not isinstance(w, CollectionSchema)]
    return found, outcome


@pytest.mark.parametrize("source", ["shop/a", "mapped"])
def test_a_mark_comes_in_a_batch_of_its_own_also_through_a_mapping(tmp_path: Path, source: str) -> None:
    found, outcome = marked(tmp_path, f"{{from: {source}, table: things}}")
    assert [ops for _, ops in found] == [b"b", b"rr", b"s", b"c"]
    assert {target for target, _ in found} == {"things"}
    assert not outcome.unswept


@pytest.mark.parametrize(
    "bindings",
    [
        "{from: shop/*, table: things}",
        "{from: both, table: things}",
    ],
)
def test_where_several_collections_meet_nothing_is_swept_and_somebody_is_told(
    tmp_path: Path, bindings: str
) -> None:
    found, outcome = marked(tmp_path, bindings)
    assert b"".join(ops for _, ops in found) == b"rrc"
    assert list(outcome.unswept.values()) == ["several collections are written there"]


def test_where_documents_say_the_table_nothing_is_swept_and_no_dead_letter_made(tmp_path: Path) -> None:
    found, outcome = marked(tmp_path, '{from: shop/a, table: "t${! this.id.not_null() }"}')
    assert [target for target, _ in found] == ["t1", "t2", "t3"]
    assert not outcome.failures
    assert len(outcome.unswept) == 1


def test_a_destination_that_cannot_sweep_never_sees_a_mark(tmp_path: Path) -> None:
    found, outcome = marked(tmp_path, "{from: shop/a}", "stdout: {}")
    assert b"".join(ops for _, ops in found) == b"rrc"
    assert not outcome.unswept


@pytest.mark.parametrize("bindings", ["{from: shop/*, table: things}", "{from: both, table: things}"])
def test_where_several_collections_meet_a_truncation_of_one_empties_nothing_and_is_a_dead_letter(
    tmp_path: Path, bindings: str
) -> None:
    found, outcome = marked(tmp_path, bindings, ops=b"tcctc")
    assert b"".join(ops for _, ops in found) == b"ccc"
    assert [failure.index for failure in outcome.failures] == [0, 3]
    assert "several collections are written" in outcome.failures[0].error.reason
    with pytest.raises(FatalError, match="would empty things"):
        marked(tmp_path, bindings.replace("}", ", on_error: stop}"), ops=b"tcctc")
    _, outcome = marked(tmp_path, bindings.replace("}", ", on_error: skip}"), ops=b"tcctc")
    assert outcome.skipped == 2


@pytest.mark.parametrize(
    "bindings",
    [
        "{from: shop/a, table: things}",
        "{from: mapped, table: things}",
        "{from: shop/*, table: things, mode: append}",
    ],
)
def test_a_truncation_of_whatever_is_all_of_a_table_or_only_adds_to_it_goes_through(
    tmp_path: Path, bindings: str
) -> None:
    found, outcome = marked(tmp_path, bindings, ops=b"tcctc")
    assert b"".join(ops for _, ops in found) == b"tcctc"
    assert not outcome.failures
