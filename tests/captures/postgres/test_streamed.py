"""Transactions that the server streams while they go on, with `streaming: true`."""

from __future__ import annotations

from typing import Any

import pytest

from hub_captures.postgres import connection

pytestmark = pytest.mark.anyio


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
    assert source.rows(query)[0][0] > 0


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
