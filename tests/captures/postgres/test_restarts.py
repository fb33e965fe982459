"""Restarts, and everything that could open a silent gap. Numbers are those of docs/postgres.md."""

from __future__ import annotations

import itertools
import time
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from hub.errors import FatalError, TransientError
from hub.record import BACKFILL, SWEEP
from hub_captures.postgres import connection, session, wire
from hub_captures.postgres.position import PostgresPosition

pytestmark = pytest.mark.anyio


async def settled(source: Any, out: Any) -> None:
    """Wait until nothing is under copy any more."""
    await out.until(lambda: bool(out.frames) and out.frames[-1].position.is_settled)


async def test_18_killed_inside_a_transaction_its_rows_come_once_and_in_order(source: Any) -> None:
    out = await source.started()
    killed = RuntimeError("killed")
    pieces = 0

    def kill(batches: Any, position: Any) -> None:
        nonlocal pieces
        if position is None and any(batch.collection.endswith(".t") for batch in batches):
            pieces += 1
            raise killed

    out.on_send = kill
    source.run("insert into t select g, 'x' from generate_series(2, 40001) g")
    with pytest.raises(BaseExceptionGroup):
        async with source.capturing(out, batch=64 * 1024):
            await anyio.sleep_forever()
    assert pieces == 1
    out.on_send = lambda batches, position: None
    async with source.capturing(out, batch=64 * 1024):
        await source.caught_up(out)
    assert [record.doc["id"] for record in source.changes(out, "public.t")] == list(range(2, 40002))


async def test_19_killed_between_the_sync_and_the_feedback_nothing_is_doubled(source: Any) -> None:
    out = await source.started()
    async with source.capturing(out, status_interval=3600):
        source.run("insert into t values (2, 'b')")
        await source.caught_up(out)
    async with source.capturing(out):
        source.run("insert into t values (3, 'c')")
        await source.caught_up(out)
    assert [record.doc["id"] for record in source.changes(out, "public.t")] == [2, 3]


async def test_20_a_killed_walsender_is_a_transient_error_and_nothing_is_lost(source: Any) -> None:
    out = await source.started()
    errors = []
    async with anyio.create_task_group() as group:

        async def run() -> None:
            errors.append(await source.fails(out))

        group.start_soon(run)
        source.run("insert into t values (2, 'b')")
        await source.caught_up(out)
        source.run(
            "select pg_terminate_backend(active_pid) from pg_replication_slots "
            f"where database = '{source.name}' and active_pid is not null"
        )
    assert isinstance(errors[0], TransientError)
    async with source.capturing(out):
        source.run("insert into t values (3, 'c')")
        await source.caught_up(out)
    assert [record.doc["id"] for record in source.changes(out, "public.t")] == [2, 3]


async def test_22_a_large_transaction_is_handed_over_in_pieces(source: Any) -> None:
    out = await source.started()
    sizes: list[int] = []
    out.on_send = lambda batches, position: sizes.append(sum(batch.size for batch in batches))
    async with source.capturing(out, batch=256 * 1024, buffer=1024 * 1024):
        source.run("insert into t select g, repeat('x', 100) from generate_series(2, 60001) g")
        await source.caught_up(out)
    assert len(source.changes(out, "public.t")) == 60_000
    assert len(sizes) > 6
    assert max(sizes) < 4 * 1024 * 1024


async def test_25_a_prepared_transaction_comes_when_it_is_committed(source: Any) -> None:
    out = await source.started()
    async with source.capturing(out):
        source.transaction("insert into t values (2, 'b')", f"prepare transaction '{source.name}_1'")
        source.transaction("insert into t values (3, 'c')", f"prepare transaction '{source.name}_2'")
        source.run("insert into t values (4, 'd')")
        source.run(f"commit prepared '{source.name}_1'", f"rollback prepared '{source.name}_2'")
        await source.caught_up(out)
    assert [record.doc["id"] for record in source.changes(out, "public.t")] == [4, 2]


async def test_42_a_table_made_later_is_taken_up_with_its_rows(source: Any) -> None:
    out = await source.started()
    async with source.capturing(out, refresh_interval=0.05):
        source.run("create table later (id int primary key)", "insert into later values (1)")
        await source.copied(out, "public.later")
        source.run("insert into later values (2)")
        await source.caught_up(out)
        await out.until(lambda: out.frames[-1].position.is_settled)
    assert set(source.replica(out, "public.later").rows) == {(1,), (2,)}


@pytest.mark.postgres_also(17)
async def test_43_a_publication_younger_than_the_slot_is_refused(source: Any) -> None:
    slot = f"{source.name}_given"
    source.run("create table t (id int primary key)")
    source.run(f"select pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    source.run("create publication given for table t, marks")
    error = await source.fails(source.outlet(), slot=slot, publication="given")
    assert isinstance(error, FatalError)
    assert "younger than the slot" in str(error)


async def test_44_a_slot_that_was_read_beyond_the_position_is_a_gap(source: Any) -> None:
    out = await source.started()
    source.run("insert into t values (2, 'b')")
    source.run(f"select pg_replication_slot_advance('hub_{source.task}', pg_current_wal_lsn())")
    count = out.count_records()
    error = await source.fails(out)
    assert isinstance(error, FatalError)
    assert "beyond the position" in str(error)
    assert out.count_records() == count


async def test_45_a_position_beyond_the_servers_wal_is_refused(source: Any) -> None:
    out = await source.started()
    out.durable = msgspec.structs.replace(out.durable, lsn=out.durable.lsn + (1 << 40))
    error = await source.fails(out)
    assert isinstance(error, FatalError)
    assert "the server is behind the position" in str(error)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"system_id": "1"}, "another server"),
        ({"database_oid": 1}, "another database"),
        ({"slot": "other"}, "slot other"),
    ],
)
async def test_a_position_of_another_source_is_refused(
    source: Any, change: dict[str, Any], said: str
) -> None:
    out = await source.started()
    out.durable = msgspec.structs.replace(out.durable, **change)
    error = await source.fails(out)
    assert isinstance(error, FatalError)
    assert said in str(error)


async def test_46_a_second_hub_on_the_slot_is_told_the_pid(source: Any) -> None:
    out = await source.started()
    async with source.capturing(out):
        source.run("insert into t values (2, 'b')")
        await source.caught_up(out)
        error = await source.fails(source.outlet(out.durable))
        assert isinstance(error, TransientError)
        assert "in use by the connection with pid" in str(error)
        source.run("insert into t values (3, 'c')")
        await source.caught_up(out)
    assert [record.doc["id"] for record in source.changes(out, "public.t")] == [2, 3]


@pytest.mark.postgres_also(17)
async def test_47_after_a_lost_slot_the_tables_are_read_again_when_allowed(source: Any) -> None:
    out = await source.started()
    source.run(
        f"select pg_drop_replication_slot('hub_{source.task}')",
        "delete from t",
        "insert into t values (9, 'z')",
    )
    error = await source.fails(out)
    assert isinstance(error, FatalError)
    assert "is gone" in str(error)
    assert "on_gap" in str(error)
    async with source.capturing(out, on_gap="resnapshot"):
        await source.caught_up(out)
        await settled(source, out)
    records = out.records(source.collection("public.t"))
    assert {BACKFILL, SWEEP} <= {record.op for record in records}
    assert source.replica(out, "public.t").rows == {(9,): {"id": 9, "b": "z"}}
    assert out.counts["resnapshots"] == 1


async def test_48_an_idle_source_confirms_the_wal_of_others(source: Any) -> None:
    out = await source.started()
    async with source.capturing(out, status_interval=1):
        source.server.run("create table if not exists elsewhere (a text)")
        source.server.run("insert into elsewhere select repeat('x', 1000) from generate_series(1, 5000)")
        ((end,),) = source.rows("select (pg_current_wal_lsn() - '0/0')::bigint")
        await out.until(lambda: out.durable is not None and out.durable.lsn >= end - (1 << 20))
        with anyio.fail_after(20):
            while source.rows(  # noqa: ASYNC110  the server says nothing of itself
                f"select 1 from pg_replication_slots where slot_name = 'hub_{source.task}' "
                f"and confirmed_flush_lsn - '0/0' < {end - (1 << 20)}"
            ):
                await anyio.sleep(0.1)
    assert source.changes(out, "public.t") == []


async def test_49_a_slot_that_waits_for_a_transaction_says_for_which(source: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("hub_captures.postgres.start.WAIT_NOTICE_S", 0.05)
    source.run("create table t (id int primary key)")
    with source.connect() as connection:
        connection.execute("begin; insert into t values (1)")
        pid = connection.info.backend_pid
        async with source.capturing() as out:
            await out.until(lambda: any(fields.get("pid") == pid for _, fields in out.notices))
            connection.execute("commit")
            await source.copied(out, "public.t")


async def test_50_a_loop_that_was_blocked_beyond_the_servers_patience_loses_nothing(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = await source.started()
    monkeypatch.setitem(connection._WALSENDER_SETTINGS, "wal_sender_timeout", "1s")
    errors = []
    async with anyio.create_task_group() as group:

        async def run() -> None:
            errors.append(await source.fails(out))

        group.start_soon(run)
        source.run("insert into t values (2, 'b')")
        await source.caught_up(out)
        source.run("insert into t values (3, 'c')")
        # Nobody answers the server meanwhile, which is what this is about.
        time.sleep(3)  # noqa: ASYNC251
    assert isinstance(errors[0], TransientError)
    async with source.capturing(out):
        source.run("insert into t values (4, 'd')")
        await source.caught_up(out)
    assert [record.doc["id"] for record in source.changes(out, "public.t")] == [2, 3, 4]


async def test_51_while_the_log_is_full_feedback_stands_still_and_all_comes_after(source: Any) -> None:
    out = await source.started()
    async with source.capturing(out, status_interval=1, buffer=256 * 1024, batch=64 * 1024):
        out.block()
        source.run("insert into t select g, repeat('x', 1000) from generate_series(2, 5001) g")
        durable = out.durable.lsn
        await anyio.sleep(2.2)
        query = f"select confirmed_flush_lsn - '0/0' from pg_replication_slots where slot_name = 'hub_{source.task}'"
        assert source.rows(query)[0][0] <= durable
        out.unblock()
        await source.caught_up(out)
    assert len(source.changes(out, "public.t")) == 5000


async def test_52_the_server_is_never_told_more_than_is_durable(source: Any) -> None:
    source.run("create table t (id int primary key, b text)")
    out = source.outlet(auto_sync=False)
    query = f"select (confirmed_flush_lsn - '0/0')::bigint from pg_replication_slots where slot_name = 'hub_{source.task}'"
    async with source.capturing(out, status_interval=1):
        await source.copied(out, "public.t")
        for key in range(30):
            source.run(f"insert into t values ({key}, 'x')")
            if key % 7 == 0:
                out.sync()
            await anyio.sleep(0.05)
            durable = out.durable.lsn if out.durable else 0
            confirmed = source.rows(query)[0][0]
            first = out.frames[0].position.lsn
            assert confirmed <= max(durable, first)


async def test_a_source_that_is_read_once_ends_and_leaves_nothing_behind(source: Any) -> None:
    source.run("create table t (id int primary key, b text)", "insert into t values (1, 'a')")
    out = source.outlet()
    with anyio.fail_after(30):
        await source.capture(snapshot="only").run(None, out)
    assert [record.doc["id"] for record in out.records(source.collection("public.t"))] == [1]
    assert source.rows(f"select 1 from pg_replication_slots where database = '{source.name}'") == []
    with anyio.fail_after(30):
        await source.capture(snapshot="only").run(out.durable, out)
    assert out.count_records(source.collection("public.t")) == 1


async def test_without_a_snapshot_only_changes_come(source: Any) -> None:
    source.run("create table t (id int primary key, b text)", "insert into t values (1, 'a')")
    async with source.capturing(snapshot="never") as out:
        await out.until(lambda: bool(out.frames))
        source.run("insert into t values (2, 'b')")
        await source.caught_up(out)
    assert [record.doc["id"] for record in out.records(source.collection("public.t"))] == [2]


async def test_a_position_survives_its_stored_form(source: Any) -> None:
    out = await source.started()
    assert PostgresPosition.decode(out.durable.encode()) == out.durable


@pytest.mark.postgres_also(17)
async def test_21_a_crashed_server_loses_and_doubles_nothing(source: Any, tmp_path_factory: Any) -> None:
    with source.server.another() as server:
        server.run("create table marks (id text primary key)", "create table t (id int primary key)")
        own = type(source)(server, "postgres", server.dsn)
        out = own.outlet(auto_sync=False)
        for round_number in range(4):
            errors: list[BaseException] = []

            async def run(errors: list[BaseException] = errors) -> None:
                errors.append(await own.fails(out))

            async with anyio.create_task_group() as group:
                group.start_soon(run)
                first = round_number * 1000
                own.run(f"insert into t select generate_series({first}, {first + 499})")
                if round_number:
                    await own.caught_up(out)
                if round_number % 2:
                    out.sync()
                own.run(f"insert into t select generate_series({first + 500}, {first + 999})")
                server.kill()
            assert isinstance(errors[0], TransientError)
            server.start()
        async with own.capturing(out):
            await own.caught_up(out)
            await settled(own, out)
        replica = own.replica(out, "public.t")
        assert replica.faults == []
        assert set(replica.rows) == {(number,) for number in range(4000)}


async def test_much_that_is_left_to_the_copy_does_not_fill_the_buffer(source: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("hub_captures.postgres.copier.CHUNK_ROWS_FIRST", 100)
    monkeypatch.setattr("hub_captures.postgres.copier.CHUNK_ROWS_MAX", 100)
    source.run(
        "create table a (id int primary key, b text)",
        "create table z (id int primary key, b text)",
        "insert into a select n, 'x' from generate_series(1, 3000) n",
    )
    async with source.capturing(buffer=64 * 1024, batch=32 * 1024) as out:
        await out.until(lambda: out.count_records(source.collection("public.a")) > 0)
        for first in range(0, 3000, 500):
            source.run(
                f"insert into z select n, repeat('x', 100) from generate_series({first}, {first + 499}) n"
            )
        await source.caught_up(out)
        await settled(source, out)
    assert len(source.replica(out, "public.z").rows) == 3000
    assert len(source.replica(out, "public.a").rows) == 3000


async def test_45_after_a_gap_the_server_is_told_nothing_of_the_old_position(source: Any) -> None:
    out = await source.started()
    old = msgspec.structs.replace(out.durable, lsn=out.durable.lsn + (1 << 40))
    out = source.outlet(old, auto_sync=False)
    query = (
        f"select confirmed_flush_lsn - '0/0' from pg_replication_slots where slot_name = 'hub_{source.task}'"
    )
    async with source.capturing(out, on_gap="resnapshot", status_interval=1):
        await source.caught_up(out)
        source.run("insert into t values (2, 'b')")
        await source.caught_up(out)
        first = out.frames[0].position.lsn
        await anyio.sleep(1.5)
        assert source.rows(query)[0][0] <= first
        out.sync()
        with anyio.fail_after(20):
            while source.rows(query)[0][0] <= first:  # noqa: ASYNC110  the server says nothing of itself
                await anyio.sleep(0.05)


async def test_77_others_get_their_turn_during_a_large_transaction(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = await source.started()
    turns = [0]
    """Bytes that each callback of the stream has handled, and 0 for a turn of somebody else between them."""
    after = session.Session._after

    def noting(self: session.Session, got: int) -> None:
        turns.append(got)
        after(self, got)

    async def tick() -> None:
        while True:
            if turns[-1]:
                turns.append(0)
            await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(session.Session, "_after", noting)
    source.run("insert into t select g, repeat('x', 100) from generate_series(2, 60001) g")
    async with source.capturing(out), anyio.create_task_group() as group:
        group.start_soon(tick)
        await source.caught_up(out)
        seen = tuple(turns)
        group.cancel_scope.cancel()
    assert sum(seen) > 60_000 * 100
    assert max(seen) < wire.CALLBACK_BYTES_MAX + 1000
    assert all(0 in pair for pair in itertools.pairwise(seen)), "two callbacks with nobody between them"
