"""A standby is promoted: with the slot on it the capture goes on, without what was captured it is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from hub.errors import FatalError, TransientError
from hub.options import Secret
from hub.testing.postgres import PostgresServer
from hub_captures.postgres import snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.postgres_also(17)]
failover_slots = pytest.mark.postgres_since(17, "standbys keep slots")

SYNCED = "select 1 from pg_replication_slots where slot_name = 'hub_postgres' and synced and not temporary"


@pytest.fixture
def pair(source: Any) -> Iterator[tuple[Any, PostgresServer]]:
    """A source on a primary of its own, and the standby of that, which the source's DSN names too."""
    syncs = {"sync_replication_slots": "on"} if source.server.version >= 17 else {}
    with source.server.another() as primary, primary.standby(slot="standby", settings=syncs) as standby:
        dsn = (
            f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
            "?target_session_attrs=read-write"
        )
        made = type(source)(primary, "postgres", dsn)
        made.run("create table marks (id text primary key)", "create table t (id int primary key, b text)")
        made.run("insert into t values (1, 'a')")
        yield made, standby


async def synced(source: Any, standby: PostgresServer) -> None:
    """Wait until the standby has the slot. It takes one over only when the slot has moved since it first looked, and the
    slot only moves with the WAL."""
    with anyio.fail_after(90):
        while not standby.rows(SYNCED):
            source.run(
                "insert into marks values (gen_random_uuid()::text)", "select pg_log_standby_snapshot()"
            )
            await anyio.sleep(0.2)


async def nudged(source: Any, out: Any, claim: Callable[[], bool]) -> None:
    """Let the primary say what a standby waits for, until something holds."""
    with anyio.fail_after(90):
        while not claim():
            source.run(
                "select pg_log_standby_snapshot()", "insert into marks values (gen_random_uuid()::text)"
            )
            await anyio.sleep(0.1)


async def captured(source: Any, **options: Any) -> Any:
    """An outlet after a first run, which has copied one row and followed another."""
    async with source.capturing(status_interval=1, **options) as out:
        await source.copied(out, "public.t")
        source.run("insert into t values (2, 'b')")
        await source.caught_up(out)
        await out.until(lambda: out.durable is not None and out.durable.is_settled)
    return out


@failover_slots
async def test_53_a_promoted_standby_has_the_slot_and_the_capture_goes_on(pair: Any) -> None:
    source, standby = pair
    primary = source.server
    primary.run("alter system set synchronized_standby_slots = 'standby'", "select pg_reload_conf()")
    out = await captured(source)
    errors: list[BaseException] = []
    async with anyio.create_task_group() as group:

        async def run() -> None:
            try:
                await source.capture(status_interval=1).run(out.crash(), out)
            except TransientError as error:
                errors.append(error)

        group.start_soon(run)
        source.run("insert into t values (3, 'c')")
        await source.caught_up(out)
        await synced(source, standby)
        primary.kill()
    standby.promote()
    async with source.capturing(out):
        source.run("insert into t values (4, 'd')")
        await source.caught_up(out)
    assert len(errors) == 1
    assert [record.doc["id"] for record in source.changes(out, "public.t")] == [2, 3, 4]
    assert source.replica(out, "public.t").faults == []
    assert out.durable.timeline == 2


@pytest.mark.postgres_since(18, "standbys know from where a slot sends transactions at their PREPARE")
async def test_53_what_was_prepared_on_the_lost_primary_comes_at_its_commit_on_the_promoted_one(
    pair: Any,
) -> None:
    source, standby = pair
    primary = source.server
    primary.run("alter system set synchronized_standby_slots = 'standby'", "select pg_reload_conf()")
    out = await captured(source, two_phase=True)
    errors: list[BaseException] = []
    async with anyio.create_task_group() as group:

        async def run() -> None:
            try:
                await source.capture(status_interval=1, two_phase=True).run(out.crash(), out)
            except TransientError as error:
                errors.append(error)

        group.start_soon(run)
        await synced(source, standby)
        source.transaction("insert into t values (3, 'c')", "prepare transaction 'one'")
        source.transaction("insert into t values (4, 'd')", "prepare transaction 'two'")
        source.run("insert into t values (5, 'between')")
        await source.caught_up(out)
        await out.until(lambda: out.gauges["prepared_transactions"] == 2)
        primary.kill()
    assert len(errors) == 1
    standby.promote()
    source.run("commit prepared 'two'")
    async with source.capturing(out, two_phase=True):
        await source.caught_up(out)
        source.run("rollback prepared 'one'", "insert into t values (6, 'after')")
        await source.caught_up(out)
    assert [record.doc["id"] for record in source.changes(out, "public.t")] == [2, 5, 4, 6]
    assert source.replica(out, "public.t").faults == []


@failover_slots
async def test_a_standby_that_lacks_what_was_captured_is_refused(pair: Any) -> None:
    source, standby = pair
    out = await captured(source)
    async with source.capturing(out, status_interval=1):
        await synced(source, standby)
        standby.kill()
        source.run("insert into t values (3, 'c')")
        await source.caught_up(out)
    source.server.kill()
    standby.start()
    standby.promote()
    # Other rows take the place of those that were captured, so that the WAL alone does not show it.
    standby.run("insert into t select n, repeat('x', 1000) from generate_series(3, 1000) n")
    with pytest.raises(FatalError, match="the server is on timeline 2 and left that one at"):
        await source.capture().run(out.crash(), out)


@pytest.mark.postgres_since(16, "a standby can be read from")
async def test_a_standby_is_read_in_place_of_its_primary(pair: Any) -> None:
    source, standby = pair
    out = source.outlet()
    with pytest.raises(FatalError, match=r"this is a standby.*CREATE PUBLICATION"):
        await source.capture(dsn=Secret(standby.dsn)).run(None, out)
    source.run("create publication given for table t, marks with (publish_via_partition_root = true)")
    await nudged(source, out, lambda: bool(standby.rows("select 1 from pg_publication")))
    async with source.capturing(out, dsn=Secret(standby.dsn), publication="given"):
        await nudged(source, out, lambda: out.durable is not None and out.durable.is_settled)
        source.run("insert into t values (2, 'b')", "delete from t where id = 1")
        await source.caught_up(out)
    replica = source.replica(out, "public.t")
    assert (replica.faults, set(replica.rows)) == ([], {(2,)})


@pytest.mark.postgres_since(16, "a standby can be read from")
async def test_what_runs_on_the_primary_while_a_standby_is_read_is_not_lost(
    pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, standby = pair
    writer = source.connect()
    read, reads = snapshot.read_chunk, 0

    async def read_beside_a_writer(*given: Any) -> Any:
        """The second chunk is read while a transaction is open, and one that began later is over."""
        nonlocal reads
        reads += 1
        piece = await read(*given)
        if reads == 1:
            writer.execute("begin; update t set b = 'y' where id = 150")
            source.run("insert into marks values ('later')")
            while not standby.rows("select from marks where id = 'later'"):
                await anyio.lowlevel.checkpoint()
        elif reads == 2:
            writer.execute("commit")
        return piece

    monkeypatch.setattr("hub_captures.postgres.copier.read_chunk", read_beside_a_writer)
    for name in ("CHUNK_ROWS_FIRST", "CHUNK_ROWS_MAX"):
        monkeypatch.setattr(f"hub_captures.postgres.copier.{name}", 100)
    source.run(
        "insert into t select n, 'x' from generate_series(2, 1000) n",
        "create publication given for table t with (publish_via_partition_root = true)",
    )
    out = source.outlet()
    await nudged(source, out, lambda: bool(standby.rows("select 1 from pg_publication")))
    with contextlib.closing(writer):
        async with source.capturing(out, dsn=Secret(standby.dsn), publication="given"):
            await nudged(source, out, lambda: out.durable is not None and out.durable.is_settled)
    replica = source.replica(out, "public.t")
    assert (len(replica.rows), replica.faults) == (1000, [])
    assert replica.rows[(150,)]["b"] == "y"


@failover_slots
async def test_a_slot_that_was_made_without_it_becomes_known_to_standbys(source: Any) -> None:
    query = f"select failover from pg_replication_slots where slot_name = 'hub_{source.task}'"
    source.run("create table t (id int primary key)")
    async with source.capturing(failover=False) as out:
        await source.copied(out, "public.t")
    assert source.rows(query) == [(False,)]
    async with source.capturing(out):
        await source.caught_up(out)
    assert source.rows(query) == [(True,)]
