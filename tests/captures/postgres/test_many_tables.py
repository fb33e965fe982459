"""A database of many tables: what is asked of the server, and what stands in each position, does not grow with it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from hub_captures.postgres import catalog, copier

pytestmark = pytest.mark.anyio


def make(source: Any, count: int) -> None:
    source.run(
        f"do $$ begin for n in 1..{count} loop execute format('create table t%s (id int primary key, v int)', n); "
        "execute format('insert into t%s select g, %s from generate_series(1, 3) g', n, n); end loop; end $$"
    )


async def settled(out: Any) -> None:
    await out.until(lambda: bool(out.frames) and out.frames[-1].position.is_settled)


def copied_exactly(source: Any, out: Any, count: int) -> None:
    for number in range(1, count + 1):
        replica = source.replica(out, f"public.t{number}")
        assert replica.faults == []
        assert {key[0]: row["v"] for key, row in replica.rows.items()} == dict(
            source.rows(f"select id, v from t{number}")
        )


async def test_small_tables_are_read_many_at_a_time_and_the_catalog_once_for_all_of_them(
    source: Any, monkeypatch: Any
) -> None:
    make(source, 400)
    monkeypatch.setattr(copier, "CHUNK_S", 60)
    asked: list[int] = []
    tables = catalog.tables

    async def counted(*arguments: Any, **options: Any) -> Any:
        found = await tables(*arguments, **options)
        asked.append(len(found))
        return found

    monkeypatch.setattr(catalog, "tables", counted)
    async with source.capturing() as out:
        await settled(out)
        await source.caught_up(out)
    copied_exactly(source, out, 400)
    assert out.gauges["snapshot_tables_left"] == 0
    assert sum(asked) < 400 * 8, "each table's columns were read a few times, however many tables there are"
    assert len(asked) < 20
    reads = {frame.position.lsn for frame in out.frames if any(i for i in frame.items)}
    assert len(reads) < 40


async def test_the_catalog_is_not_read_for_each_table_that_a_publication_has_and_nobody_wants(
    source: Any, monkeypatch: Any
) -> None:
    make(source, 100)
    source.run("create publication given for all tables")
    whole = 0
    tables = catalog.tables

    async def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal whole
        whole += options.get("oids") is None
        return await tables(*arguments, **options)

    monkeypatch.setattr(catalog, "tables", counted)
    async with source.capturing(publication="given", tables=["public.marks"], refresh_interval=600) as out:
        await source.caught_up(out)
        source.run(*[f"insert into t{n} values (9, 9)" for n in range(1, 101)])
        await source.caught_up(out)
    assert whole < 10


async def test_a_position_is_small_however_many_tables_there_are(source: Any, monkeypatch: Any) -> None:
    make(source, 400)
    monkeypatch.setattr(copier, "TABLES_AT_ONCE", 40)
    async with source.capturing() as out:
        await settled(out)
        source.run("insert into t7 values (9, 9)")
        await source.caught_up(out)
    assert max(len(frame.position.encode()) for frame in out.frames) < 400 * 6 + 2000
    assert len(out.frames[-1].position.encode()) < 200
    notes = [frame.note for frame in out.frames if frame.note is not None]
    assert len(notes[-1]) == 1 + 32 * 401
    assert len(notes) <= 400 // 40 + 3


async def test_a_restart_among_many_tables_reads_each_once(source: Any, monkeypatch: Any) -> None:
    make(source, 120)
    monkeypatch.setattr(copier, "TABLES_AT_ONCE", 10)
    out = source.outlet()
    for stop_at in (30, 70):
        async with source.capturing(out):
            await out.until(lambda least=stop_at: out.count_records() >= least * 3)  # type: ignore[misc]
        source.run(f"update t{stop_at} set v = v + 1000", f"insert into t{121 - stop_at} values (77, 7)")
    async with source.capturing(out):
        await settled(out)
        await source.caught_up(out)
    copied_exactly(source, out, 120)


async def test_a_table_that_somebody_has_locked_does_not_keep_the_others_waiting(
    source: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("hub_captures.postgres.snapshot.LOCK_WAIT_MS", 20)
    monkeypatch.setattr(copier, "DEFER_S", 0.2)
    monkeypatch.setattr(copier, "DEFER_MAX_S", 0.2)
    make(source, 12)
    out = source.outlet()
    with source.connect() as connection:

        def lock(batches: Any, position: Any) -> None:
            # The first position is sent before a table is read, and after the slot, which waits for transactions.
            out.on_send = lambda batches, position: None
            connection.execute("begin; lock table t5 in access exclusive mode")

        out.on_send = lock
        async with source.capturing(out):
            others = [f"public.t{n}" for n in range(1, 13) if n != 5]
            await source.copied(out, *others)
            source.run("insert into t1 values (50, 50)")
            await source.caught_up(out)
            assert out.count_records(source.collection("public.t5")) == 0
            assert ("the copy waits for a lock on the table", {"table": "public.t5"}) in out.notices
            await anyio.to_thread.run_sync(connection.execute, "insert into t5 values (8, 8)")
            await anyio.to_thread.run_sync(connection.execute, "commit")
            await settled(out)
            await source.caught_up(out)
    copied_exactly(source, out, 12)
