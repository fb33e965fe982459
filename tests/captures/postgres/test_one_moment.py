"""`consistent_snapshot`: all tables as they were at one moment, and what a restart makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from hub.record import BACKFILL, READ

pytestmark = pytest.mark.anyio

TABLES = ("public.accounts", "public.savings", "public.keyless")


def make(source: Any) -> None:
    source.run(
        "create table accounts (id int primary key, v int, filler text default repeat('x', 100))",
        "create table savings (id int primary key, v int, filler text default repeat('x', 100))",
        "create table keyless (id int, v int, filler text default repeat('x', 100))",
        "alter table keyless replica identity full",
        *[
            f"insert into {name} select g, 100, repeat('x', 100) from generate_series(1, 3000) g"
            for name in TABLES
        ],
    )


def transferring(source: Any, out: Any, connection: Any) -> None:
    """With each piece of the copy that is sent, money goes from one table to another."""
    at = 0

    def transfer(batches: Any, position: Any) -> None:
        nonlocal at
        if any(batch.shared.get("snapshot") for batch in batches):
            for _ in range(5):
                at += 1
                connection.execute(
                    f"with a as (update accounts set v = v - 10 where id = {at}), "
                    f"b as (update savings set v = v + 7 where id = {3001 - at}) "
                    f"update keyless set v = v + 3 where id = {at}"
                )

    out.on_send = transfer


async def settled(out: Any) -> None:
    await out.until(lambda: bool(out.frames) and out.frames[-1].position.is_settled)


def totals(source: Any, out: Any) -> set[tuple[int, int]]:
    """By the moment that was read: what all accounts together held."""
    found: dict[int, int] = {}
    for name in TABLES:
        for record in out.records(source.collection(name)):
            if record.op == READ:
                found[record.meta["lsn"]] = found.get(record.meta["lsn"], 0) + record.doc["v"]
    return set(found.items())


def equal(source: Any, out: Any) -> None:
    for name in TABLES[:2]:
        replica = source.replica(out, name)
        assert replica.faults == []
        assert {key[0]: row["v"] for key, row in replica.rows.items()} == dict(
            source.rows(f"select id, v from {name}")
        )


@pytest.mark.parametrize("workers", [1, 2])
async def test_all_tables_are_read_as_of_one_moment_while_they_are_written_to(
    source: Any, workers: int
) -> None:
    make(source)
    out = source.outlet()
    with source.connect() as connection:
        transferring(source, out, connection)
        async with source.capturing(out, consistent_snapshot=True, chunk=64 * 1024, workers=workers):
            await settled(out)
            await source.caught_up(out)
    ((_, total),) = totals(source, out)
    assert total == 3 * 3000 * 100
    equal(source, out)
    assert source.rows("select sum(v) from accounts")[0][0] < 3000 * 100


async def test_a_restart_in_the_middle_begins_anew_at_another_moment(source: Any) -> None:
    make(source)
    out = source.outlet()
    with source.connect() as connection:
        transferring(source, out, connection)
        async with source.capturing(out, consistent_snapshot=True, chunk=64 * 1024):
            await out.until(lambda: 4000 < out.count_records() < 9000)
        first = len(out.frames)
        async with source.capturing(out, consistent_snapshot=True, chunk=64 * 1024):
            await settled(out)
            await source.caught_up(out)
    equal(source, out)
    replaced = [
        batch.collection
        for frame in out.frames[first:]
        for batch in frame.items
        if getattr(batch, "ops", None) == bytes([BACKFILL])
    ]
    assert replaced, "what the first run sent was replaced"
    totals_by_moment = sorted(totals(source, out))
    assert len(totals_by_moment) == 2
    assert totals_by_moment[-1][1] == 3 * 3000 * 100


async def test_no_table_can_be_altered_before_all_are_read_and_nothing_is_held_afterwards(
    source: Any,
) -> None:
    make(source)
    out = source.outlet()
    seen: list[list[Any]] = []

    def look(batches: Any, position: Any) -> None:
        if any(batch.shared.get("snapshot") for batch in batches):
            seen.append(source.rows("select distinct relation::regclass::text from pg_locks where mode = "
                                    "'AccessShareLock' and relation in ('accounts'::regclass, 'savings'::regclass)"))  # fmt: skip

    out.on_send = look
    async with source.capturing(out, consistent_snapshot=True, chunk=64 * 1024):
        await settled(out)
        held = source.rows(
            "select count(*) from pg_stat_activity where datname = current_database() "
            "and application_name like 'hub/%' and state like 'idle in transaction%'"
        )
    assert all(len(locked) == 2 for locked in seen)
    assert held == [(0,)]


@pytest.mark.parametrize("options", [{"snapshot": "when_needed"}, {"on_gap": "resnapshot"}])
async def test_when_the_changes_since_the_position_are_lost_the_tables_are_replaced(
    source: Any, options: Any
) -> None:
    source.run("create table t (id int primary key, v int)", "insert into t values (1, 1), (2, 2)")
    out = source.outlet()
    async with source.capturing(out, **options):
        await settled(out)
    source.run(
        f"select pg_drop_replication_slot('hub_{source.name}')",
        "delete from t where id = 1",
        "insert into t values (3, 3)",
    )
    before = len(out.frames)
    async with source.capturing(out, **options):
        await out.until(lambda: len(out.frames) > before and out.frames[-1].position.is_settled)
        await source.caught_up(out)
    assert out.counts["resnapshots"] == 1
    replica = source.replica(out, "public.t")
    assert replica.faults == []
    assert {key[0] for key in replica.rows} == {2, 3}
