"""Transactions that the server streams while they go on, with `streaming: true`."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from hub.testing.postgres import PostgresMissing, PostgresServer
from hub_captures.postgres import connection

pytestmark = [pytest.mark.anyio, pytest.mark.postgres_since(14, "transactions are streamed")]


@pytest.mark.postgres_also(17)
async def test_23_streamed_transactions_leave_out_what_was_rolled_back(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection._WALSENDER_SETTINGS, "logical_decoding_work_mem", "64kB")
    out = await source.started()
    async with source.capturing(out, streaming=True):
        with source.connect() as writer:
            writer.execute("begin")
            writer.execute("insert into t select g, repeat('x', 100) from generate_series(2, 3001) g")
            writer.execute("savepoint s")
            writer.execute("insert into t select g, repeat('y', 100) from generate_series(10002, 13001) g")
            writer.execute("rollback to savepoint s")
            source.run("insert into t values (0, 'between')")
            writer.execute("insert into t select g, repeat('z', 100) from generate_series(20002, 23001) g")
            writer.execute("commit")
            writer.execute("begin")
            writer.execute("insert into t select g, repeat('v', 100) from generate_series(30002, 33001) g")
            writer.execute("rollback")
        await source.caught_up(out)
    found = [record.doc["id"] for record in source.changes(out, "public.t")]
    assert found == [0, *range(2, 3002), *range(20002, 23002)]
    query = f"select stream_txns from pg_stat_replication_slots where slot_name = 'hub_{source.task}'"
    with anyio.fail_after(30):
        # The statistics of PostgreSQL 14 come a little later.
        while not source.rows(query)[0][0]:
            await anyio.lowlevel.checkpoint()


@pytest.mark.postgres_also(17)
async def test_23_a_streamed_transaction_names_its_origin(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection._WALSENDER_SETTINGS, "logical_decoding_work_mem", "64kB")
    out = await source.started()
    origin = f"{source.name}_origin"
    source.run(f"select pg_replication_origin_create('{origin}')")
    try:
        async with source.capturing(out, streaming=True):
            with source.connect() as writer:
                writer.execute(f"select pg_replication_origin_session_setup('{origin}')")
                writer.execute("insert into t select g, repeat('x', 100) from generate_series(2, 3001) g")
            await source.caught_up(out)
    finally:
        source.run(f"select pg_replication_origin_drop('{origin}')")
    changes = source.changes(out, "public.t")
    assert len(changes) == 3000
    assert {record.meta["origin"] for record in changes} == {origin}


async def test_25_relations_stated_in_a_stream_that_is_prepared_count_for_the_rows_after_it(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection._WALSENDER_SETTINGS, "logical_decoding_work_mem", "64kB")
    try:
        server = PostgresServer(version=15)
    except PostgresMissing as missing:
        pytest.skip(f"PostgreSQL 15 states them only once: {missing}")
    with server:
        server.run("create table marks (id text primary key)")
        own = type(source)(server, "postgres", server.dsn)
        options = {"two_phase": True, "streaming": True}
        out = await own.started(**options)
        async with own.capturing(out, **options):
            large = "insert into t select g, repeat('x', 100) from generate_series(10, 3009) g"
            own.transaction(large, "prepare transaction 'one'")
            own.run("insert into t values (2, 'after')", "commit prepared 'one'")
            await own.caught_up(out)
        assert [each.doc["id"] for each in own.changes(out, "public.t")] == [2, *range(10, 3010)]
