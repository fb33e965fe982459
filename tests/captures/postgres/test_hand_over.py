"""The hand-over from snapshot to stream: exact under concurrent writers, stalled commits and kills."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest

from hub.record import DELETE

KEYS = 40_000
TRANSACTIONS = 1_500


class Writer(threading.Thread):
    """Random inserts, updates, deletes, key changes and rollbacks. Every version written is greater than all before."""

    def __init__(self, dsn: str, seed: int, transactions: int) -> None:
        super().__init__(daemon=True)
        self.random = random.Random(seed)
        self.dsn = dsn
        self.transactions = transactions
        self.done = 0
        self.errors: list[BaseException] = []

    def run(self) -> None:
        try:
            with psycopg.connect(self.dsn) as connection:
                while self.done < self.transactions:
                    self._transaction(connection)
                    self.done += 1
        except BaseException as error:
            self.errors.append(error)

    def _transaction(self, connection: psycopg.Connection[Any]) -> None:
        pick = self.random
        try:
            for _ in range(pick.randint(1, 4)):
                key, other = pick.randrange(KEYS), pick.randrange(KEYS)
                match pick.randrange(4):
                    case 0:
                        connection.execute(
                            "insert into t values (%s, nextval('versions')) on conflict do nothing", [key]
                        )
                    case 1:
                        connection.execute("update t set v = nextval('versions') where id = %s", [key])
                    case 2:
                        connection.execute("delete from t where id = %s", [key])
                    case _:
                        connection.execute(
                            "update t set id = %s, v = nextval('versions') where id = %s "
                            "and not exists (select from t where id = %s)",
                            [other, key, other],
                        )
            connection.rollback() if pick.random() < 0.1 else connection.commit()
        except (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected):
            connection.rollback()


@contextlib.contextmanager
def writers(dsn: str, count: int = 3, transactions: int = TRANSACTIONS) -> Iterator[list[Writer]]:
    found = [Writer(dsn, seed, transactions) for seed in range(count)]
    for writer in found:
        writer.start()
    yield found
    for writer in found:
        writer.join()
        assert not writer.errors


async def finished(found: list[Writer]) -> None:
    """Wait for the writers while the capture runs."""
    for writer in found:
        await anyio.to_thread.run_sync(writer.join)


def prepare(source: Any) -> None:
    source.run(
        "create sequence versions",
        "create table t (id int primary key, v bigint not null, filler text default repeat('x', 60))",
        f"insert into t select g, nextval('versions') from generate_series(0, {KEYS - 1}) g where g % 3 > 0",
    )


def verify(source: Any, out: Any) -> None:
    """No fault, no version that goes back, and the same rows as the source."""
    records = out.records(source.collection("public.t"))
    replica = source.replica(out, "public.t")
    assert replica.faults == []
    newest: dict[Any, int] = {}
    for record in records:
        if record.op != DELETE:
            key = record.doc["id"]
            assert record.doc["v"] > newest.get(key, 0), f"a stale row: {record}"
            newest[key] = record.doc["v"]
    expected = {row[0]: row[1] for row in source.rows("select id, v from t")}
    assert {key[0]: row["v"] for key, row in replica.rows.items()} == expected


@pytest.mark.anyio
async def test_three_random_writers_leave_no_wrong_stale_or_double_row(source: Any) -> None:
    prepare(source)
    with writers(source.dsn) as found:
        async with source.capturing(chunk=64 * 1024) as out:
            await finished(found)
            await source.copied(out, "public.t")
            await source.caught_up(out)
    verify(source, out)


@pytest.mark.anyio
async def test_killed_at_random_moments_of_the_snapshot_nothing_is_lost_or_doubled(source: Any) -> None:
    prepare(source)
    chance = random.Random(7)
    out = source.outlet(auto_sync=False)

    async def sync_now_and_then() -> None:
        while True:
            await anyio.sleep(chance.uniform(0, 0.03))
            out.sync()

    with writers(source.dsn) as found:
        for _ in range(12):
            async with source.capturing(out, chunk=64 * 1024), anyio.create_task_group() as group:
                group.start_soon(sync_now_and_then)
                await anyio.sleep(chance.uniform(0.03, 0.3))
                group.cancel_scope.cancel()
        async with source.capturing(out, chunk=64 * 1024), anyio.create_task_group() as group:
            group.start_soon(sync_now_and_then)
            await finished(found)
            await source.copied(out, "public.t")
            await source.caught_up(out)
            group.cancel_scope.cancel()
    verify(source, out)


def stall(source: Any, on: bool) -> None:
    """Let commits wait for a standby that is not there, or go on."""
    name = "nobody" if on else ""
    source.run(f"alter system set synchronous_standby_names = '{name}'", "select pg_reload_conf()")


@contextlib.contextmanager
def stalls(source: Any) -> Iterator[None]:
    """Where commits may be stalled; at the end none is."""
    try:
        yield
    finally:
        source.run("alter system reset synchronous_standby_names", "select pg_reload_conf()")


@pytest.mark.anyio
async def test_commits_that_wait_for_a_standby_are_not_lost(source: Any) -> None:
    prepare(source)
    chance = random.Random(3)
    with stalls(source), writers(source.dsn, transactions=300) as found:
        async with source.capturing(chunk=64 * 1024) as out:
            while any(writer.is_alive() for writer in found):
                stall(source, True)
                await anyio.sleep(chance.uniform(0.01, 0.05))
                stall(source, False)
                await anyio.sleep(chance.uniform(0.0, 0.03))
            await source.copied(out, "public.t")
            await source.caught_up(out)
    verify(source, out)


@pytest.mark.anyio
@pytest.mark.timeout(600)
@pytest.mark.skipif("HUB_LONG" not in os.environ, reason="takes a minute or more; HUB_LONG=1 runs it")
async def test_forty_thousand_transactions_with_stalls_and_kills(source: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(globals(), "KEYS", 200_000)
    prepare(source)
    chance = random.Random(5)
    out = source.outlet(auto_sync=False)

    async def sync_now_and_then() -> None:
        while True:
            await anyio.sleep(chance.uniform(0, 0.05))
            out.sync()

    async def stall_now_and_then() -> None:
        while True:
            await anyio.to_thread.run_sync(stall, source, True)
            await anyio.sleep(chance.uniform(0.01, 0.06))
            await anyio.to_thread.run_sync(stall, source, False)
            await anyio.sleep(chance.uniform(0.2, 0.6))

    with stalls(source), writers(source.dsn, transactions=14_000) as found:
        async with anyio.create_task_group() as outer:
            outer.start_soon(stall_now_and_then)
            while any(writer.is_alive() for writer in found):
                async with source.capturing(out, chunk=256 * 1024), anyio.create_task_group() as group:
                    group.start_soon(sync_now_and_then)
                    await anyio.sleep(chance.uniform(0.5, 2.5))
                    group.cancel_scope.cancel()
            outer.cancel_scope.cancel()
        stall(source, False)
    async with source.capturing(out, chunk=256 * 1024), anyio.create_task_group() as group:
        group.start_soon(sync_now_and_then)
        await source.copied(out, "public.t")
        await source.caught_up(out)
        group.cancel_scope.cancel()
    verify(source, out)
