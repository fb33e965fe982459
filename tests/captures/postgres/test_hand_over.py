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

from hub.errors import TransientError
from hub.record import DELETE, UPDATE
from hub_captures.postgres import copier
from hub_captures.postgres.ranges import Ranges

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


@pytest.mark.postgres_also(17)
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


@contextlib.contextmanager
def ranges_read(monkeypatch: pytest.MonkeyPatch, at_first: Any = lambda ranges: None) -> Iterator[list[int]]:
    """Of each chunk that was read in parallel, in how many ranges. `at_first` is called before the second."""
    counts: list[int] = []
    read = Ranges.read

    async def counted(self: Ranges, *arguments: Any) -> Any:
        if len(counts) == 1:
            at_first(self)
        piece = await read(self, *arguments)
        counts.append(len(piece.reads))
        return piece

    with monkeypatch.context() as patch:
        patch.setattr(Ranges, "read", counted)
        patch.setattr(copier, "CHUNK_ROWS_FIRST", 1000)
        patch.setattr(copier, "CHUNK_ROWS_MAX", 1000)
        yield counts


@pytest.mark.anyio
async def test_58_four_workers_read_a_table_that_is_written_to(source: Any, monkeypatch: Any) -> None:
    prepare(source)
    with ranges_read(monkeypatch) as counts, writers(source.dsn, transactions=800) as found:
        async with source.capturing(workers=4) as out:
            await source.copied(out, "public.t")
            await finished(found)
            await source.caught_up(out)
    verify(source, out)
    assert sum(counts) > 20
    assert 4 in counts


@pytest.mark.anyio
async def test_58_a_worker_that_is_killed_loses_nothing(source: Any, monkeypatch: Any) -> None:
    prepare(source)
    out = source.outlet()

    def kill_one(ranges: Any) -> None:
        for process in list(ranges._pool._processes.values())[:1]:
            process.kill()

    with ranges_read(monkeypatch, kill_one) as counts, writers(source.dsn, transactions=300) as found:
        with pytest.raises(TransientError, match="a process that reads"), anyio.fail_after(60):
            await source.capture(workers=2).run(None, out)
        counts.append(0)
        async with source.capturing(out, workers=2):
            await source.copied(out, "public.t")
            await finished(found)
            await source.caught_up(out)
    verify(source, out)
    assert 2 in counts[counts.index(0) :]


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


@pytest.mark.postgres_also(17)
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
@pytest.mark.parametrize("workers", [1, 2])
async def test_forty_thousand_transactions_with_stalls_and_kills(
    source: Any, monkeypatch: Any, workers: int
) -> None:
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
                async with (
                    source.capturing(out, chunk=256 * 1024, workers=workers),
                    anyio.create_task_group() as group,
                ):
                    group.start_soon(sync_now_and_then)
                    # Worker processes need a moment to begin.
                    await anyio.sleep(chance.uniform(0.5, 2.5) * (1 if workers == 1 else 4))
                    group.cancel_scope.cancel()
            outer.cancel_scope.cancel()
        stall(source, False)
    async with (
        source.capturing(out, chunk=256 * 1024, workers=workers),
        anyio.create_task_group() as group,
    ):
        group.start_soon(sync_now_and_then)
        await out.until(lambda: bool(out.frames) and out.frames[-1].position.is_settled)
        await source.caught_up(out)
        group.cancel_scope.cancel()
    verify(source, out)


@pytest.mark.anyio
@pytest.mark.timeout(1200)
@pytest.mark.skipif("HUB_LONG" not in os.environ, reason="takes minutes; HUB_LONG=1 runs it")
async def test_58_ten_million_rows_by_four_workers_while_rows_are_updated(source: Any) -> None:
    rows = 10_000_000
    source.run(
        "create table t (id bigint primary key, v bigint not null)",
        f"insert into t select g, 1 from generate_series(1, {rows}) g",
    )
    updates = 300
    seen = bytearray(rows + 1)
    newest: dict[int, int] = {}

    def look(batches: Any, position: Any) -> None:
        """Account for what is sent without keeping it."""
        for batch in batches:
            if batch.collection.endswith(".t"):
                for index, line in enumerate(batch.lines()):
                    key, version = (int(part.split(b":")[1]) for part in line[1:-1].split(b","))
                    assert batch.op(index) == UPDATE or not seen[key], f"{key} was read twice"
                    assert seen[key] or batch.op(index) != UPDATE
                    assert version > newest.get(key, 0)
                    seen[key] = 1
                    if version > 1:
                        newest[key] = version

    out = source.outlet()
    out.on_send = look
    out.keeps_records = False

    def update() -> None:
        with source.connect() as connection:
            for _ in range(updates):
                connection.execute(
                    "update t set v = v + 1 where id in "
                    "(select 1 + (random() * 9999999)::bigint from generate_series(1, 50))"
                )

    async with source.capturing(out, workers=4, tables=["public.t", "public.marks"]):
        await anyio.to_thread.run_sync(update)
        await out.until(lambda: bool(out.frames) and out.frames[-1].position.is_settled, timeout_s=900)
        ((end,),) = source.rows("select (pg_current_wal_lsn() - '0/0')::bigint")
        source.run("insert into marks values ('end')")
        await out.until(lambda: out.frames[-1].position.lsn >= end, timeout_s=300)
    assert sum(seen) == rows
    assert newest == dict(source.rows("select id, v from t where v > 1"))
