"""Rows beyond `max_record`: what becomes of them, and of the memory that they take."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from hub.errors import FatalError, TransientError
from hub_captures.postgres import session

pytestmark = pytest.mark.anyio


async def test_an_oversized_row_stops_the_capture_or_goes_without_its_largest_field(source: Any) -> None:
    out = await source.started()
    options = {"max_record": 10_000}
    source.run("alter table t add c text", "insert into t values (2, repeat('x', 20000), 'small')")
    error = await source.fails(out, **options)
    assert isinstance(error, FatalError)
    assert "max_record" in str(error)
    async with source.capturing(out, on_oversized="omit", **options):
        await source.caught_up(out)
    (record,) = source.changes(out, "public.t")
    assert (record.doc, record.meta["oversized"]) == ({"id": 2, "c": "small"}, ["b"])


@pytest.mark.parametrize("way", ["stream", "snapshot"])
async def test_70_what_an_oversized_row_goes_without_is_copied_nowhere(source: Any, way: str) -> None:
    write = "insert into t values (2, repeat('x', 30000000), 'small')"
    source.run("create table t (id int primary key, b text, c text)", *([write] if way == "snapshot" else []))
    tracemalloc.start()
    try:
        async with source.capturing(on_oversized="omit", max_record=10_000) as out:
            await source.copied(out, "public.t")
            if way == "stream":
                tracemalloc.reset_peak()
                source.run(write)
            await source.caught_up(out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (record,) = [each for each in out.records(source.collection("public.t")) if each.doc["id"] == 2]
    assert (record.doc, record.meta["oversized"]) == ({"id": 2, "c": "small"}, ["b"])
    assert peak < 20_000_000


async def test_70_an_oversized_row_whose_key_changes_keeps_apart_what_it_lacks(source: Any) -> None:
    source.run(
        "create table t (id int primary key, b text, c text)",
        "alter table t alter b set storage external",
        "insert into t values (1, repeat('x', 5000), 'c')",
    )
    async with source.capturing(max_record=10_000, on_oversized="omit") as out:
        await source.copied(out, "public.t")
        source.run("update t set id = 2, c = repeat('y', 20000)")
        await source.caught_up(out)
    created = source.changes(out, "public.t")[-1]
    assert created.doc == {"id": 2, "b": "x" * 5000}
    assert created.meta["oversized"] == ["c"]
    assert "unchanged" not in created.meta


async def test_70_after_a_huge_row_the_stream_begins_anew_and_the_row_does_not_come_again(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = await source.started()
    monkeypatch.setattr(session, "GIVE_BACK_BYTES", 15_000)
    options = {"max_record": 10_000, "on_oversized": "omit"}
    source.run("insert into t values (2, repeat('x', 20000))")
    error = await source.fails(out, **options)
    assert isinstance(error, TransientError)
    assert "a new connection" in str(error)
    async with source.capturing(out, **options):
        source.run("insert into t values (3, repeat('x', 12000)), (4, 'd')")
        await source.caught_up(out)
    assert [record.doc["id"] for record in source.changes(out, "public.t")] == [2, 3, 4]


async def test_an_oversized_row_of_the_snapshot_is_treated_alike(source: Any) -> None:
    source.run(
        "create table t (id int primary key, b text)",
        "insert into t values (1, repeat('x', 20000)), (2, 'b')",
    )
    error = await source.fails(source.outlet(), max_record=10_000)
    assert isinstance(error, FatalError)
    async with source.capturing(on_oversized="omit", max_record=10_000) as out:
        await source.copied(out, "public.t")
    first, second = out.records(source.collection("public.t"))
    assert (first.doc, first.meta["oversized"]) == ({"id": 1}, ["b"])
    assert "oversized" not in second.meta


async def test_70_after_the_copy_of_a_huge_row_there_is_a_new_connection_once(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "GIVE_BACK_BYTES", 150_000)
    source.run(
        "create table t (id int primary key, b text)",
        "insert into t select g, repeat('x', 200000) from generate_series(1, 3) g",
        "insert into t values (4, 'd')",
    )
    out = source.outlet()
    error = await source.fails(out)
    assert isinstance(error, TransientError)
    assert "a new connection" in str(error)
    async with source.capturing(out):
        source.run("insert into t values (5, 'e')")
        await source.caught_up(out)
    replica = source.replica(out, "public.t")
    assert (replica.faults, sorted(replica.rows)) == ([], [(1,), (2,), (3,), (4,), (5,)])
