"""What the stream does not show: rewrites, partitions that come with rows, and times without a publication."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import psycopg
import pytest

from hub.errors import FatalError, TransientError
from hub.record import SWEEP
from hub_captures.postgres import copier, server, session

pytestmark = pytest.mark.anyio

TABLE = "create table t (id int primary key, x text)"
PARTITIONED = (
    "create table t (id int primary key, x text) partition by range (id)",
    "create table t0 partition of t for values from (0) to (100)",
)


async def settled(out: Any) -> None:
    await out.until(lambda: bool(out.frames) and out.frames[-1].position.is_settled)


async def ready(source: Any, out: Any, *tables: str) -> None:
    await source.copied(out, *tables)
    await source.caught_up(out)
    await settled(out)


async def read_again(source: Any, out: Any, times: int = 1) -> None:
    await out.until(lambda: out.counts.get("resnapshots", 0) >= times)
    await source.caught_up(out)
    await settled(out)


def same(source: Any, out: Any) -> bool:
    there = {(row[0],): row[1] for row in source.rows("select id, x from t")}
    return {key: row["x"] for key, row in source.replica(out, "public.t").rows.items()} == there


def notes(out: Any) -> int:
    return sum(frame.note is not None for frame in out.frames)


def sweeps(source: Any, out: Any) -> int:
    return sum(record.op == SWEEP for record in out.records(source.collection("public.t")))


def publication(source: Any) -> str:
    ((name,),) = source.rows("select quote_ident(pubname) from pg_publication")
    return str(name)


@pytest.mark.parametrize("as_type", ["text", "varchar"])
@pytest.mark.parametrize("running", [True, False])
async def test_a_rewrite_that_keeps_the_type_is_noticed(source: Any, as_type: str, running: bool) -> None:
    source.run(TABLE, "insert into t values (1, 'a'), (2, 'b')")
    rewrite = f"alter table t alter x type {as_type} using upper(x)"
    async with source.capturing(refresh_interval=0.05) as out:
        await ready(source, out, "public.t")
        if running:
            source.run(rewrite)
            await read_again(source, out)
    if not running:
        source.run(rewrite)
        async with source.capturing(out, refresh_interval=0.05):
            await read_again(source, out)
    assert same(source, out)


@pytest.mark.postgres_since(18, "generated columns are published")
async def test_a_generated_column_with_another_expression_is_noticed(source: Any) -> None:
    source.run(
        "create table t (id int primary key, x text generated always as (id * 2 || '') stored)",
        "insert into t values (1), (2)",
    )
    async with source.capturing(refresh_interval=0.05) as out:
        await ready(source, out, "public.t")
        source.run("alter table t alter x set expression as (id * 3 || '')")
        await read_again(source, out)
    assert same(source, out)


async def test_columns_touched_and_files_moved_apart_from_each_other_are_no_rewrite(source: Any) -> None:
    source.run(TABLE, "insert into t values (1, 'a')")
    async with source.capturing(refresh_interval=0.05) as out:
        await ready(source, out, "public.t")
        touched = [out.count_records(source.collection("public.t"))]
        for statement in ("vacuum full t", "alter table t alter x set statistics 7", "vacuum full t"):
            source.run(statement)
            noted = notes(out)
            await out.until(lambda noted=noted: notes(out) > noted)
        touched.append(out.count_records(source.collection("public.t")))
    assert touched[0] == touched[1]
    assert "resnapshots" not in out.counts


async def test_a_partitioned_table_that_was_rewritten_is_read_again(source: Any) -> None:
    source.run(*PARTITIONED, "insert into t values (1, '1'), (2, '2')")
    async with source.capturing(refresh_interval=0.05) as out:
        await ready(source, out, "public.t")
        source.run("alter table t alter x type int using x::int + 1", "insert into t values (3, 3)")
        await read_again(source, out)
    assert same(source, out)


ATTACH = {
    "a table of before": (
        "create table t1 (id int primary key, x text)",
        "insert into t1 values (101, 'old')",
        "alter table t attach partition t1 for values from (100) to (200)",
    ),
    "all in one transaction": (
        "begin; create table t1 (id int not null, x text); insert into t1 values (101, 'old');"
        "alter table t attach partition t1 for values from (100) to (200); commit",
    ),
    "a table with partitions of its own": (
        "create table t1 (id int not null, x text) partition by range (id)",
        "create table t1a partition of t1 for values from (100) to (150)",
        "insert into t1 values (101, 'old')",
        "alter table t attach partition t1 for values from (100) to (200)",
    ),
}


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("how", ATTACH)
async def test_rows_that_come_with_a_partition_are_read(source: Any, how: str, running: bool) -> None:
    source.run(*PARTITIONED, "insert into t values (1, 'a')")
    only = {"tables": ["public.t", "public.marks"], "refresh_interval": 0.05}
    async with source.capturing(**only) as out:
        await ready(source, out, "public.t")
        read = out.count_records(source.collection("public.t"))
        if running:
            source.run(*ATTACH[how])
            await read_again(source, out)
            # The others were not read once more.
            assert out.count_records(source.collection("public.t")) == read + 1
    if not running:
        source.run(*ATTACH[how])
        async with source.capturing(out, **only):
            await read_again(source, out)
    assert same(source, out)


async def test_a_partition_that_is_made_as_one_is_no_reason_to_read(source: Any) -> None:
    source.run(*PARTITIONED, "insert into t values (1, 'a')")
    async with source.capturing(refresh_interval=0.05) as out:
        await ready(source, out, "public.t")
    source.run(
        "create table t1 partition of t for values from (100) to (200) partition by range (id)",
        "create table t1a partition of t1 for values from (100) to (150)",
        "insert into t values (101, 'new')",
    )
    async with source.capturing(out, refresh_interval=0.05):
        source.run("create table t2 partition of t for values from (200) to (300)")
        source.run("insert into t values (201, 'new')")
        await source.caught_up(out)
        await settled(out)
    assert same(source, out)
    assert "resnapshots" not in out.counts


MISSED = {
    "taken out and put in": (
        "alter publication {p} drop table t",
        "update t set x = 'missed' where id = 1",
        "delete from t where id = 2",
        "alter publication {p} add table t",
    ),
    "taken out": ("alter publication {p} drop table t", "update t set x = 'missed' where id = 1"),
    "made anew": (
        "drop publication {p}",
        "delete from t where id = 2",
        "create publication {p} for table t, marks with (publish_via_partition_root)",
    ),
    "without updates": (
        "alter publication {p} set (publish = 'insert')",
        "update t set x = 'missed' where id = 1",
        "alter publication {p} set (publish = 'insert, update, delete, truncate')",
    ),
}


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("how", MISSED)
async def test_a_table_that_was_not_published_all_the_time_is_a_gap(
    source: Any, how: str, running: bool
) -> None:
    if how == "made anew" and source.server.version < 18:
        pytest.skip(
            "before PostgreSQL 18 no slot gets past what is changed meanwhile; that has a test of its own"
        )
    source.run(TABLE, "insert into t values (1, 'a'), (2, 'b')")
    async with source.capturing() as out:
        await ready(source, out, "public.t")
    statements = [statement.format(p=publication(source)) for statement in MISSED[how]]
    if running:
        with pytest.RaisesGroup(pytest.RaisesExc(FatalError, match=r"public\.t.* may be missing.*on_gap")):
            async with source.capturing(out, refresh_interval=0.05):
                await source.caught_up(out)
                source.run(*statements)
                await anyio.sleep_forever()
    else:
        source.run(*statements)
    with anyio.fail_after(30), pytest.raises(FatalError, match=r"public\.t.* may be missing.*on_gap"):
        await source.capture().run(out.crash(), out)
    async with source.capturing(out, on_gap="resnapshot", refresh_interval=0.05):
        await read_again(source, out)
    assert same(source, out)


@pytest.mark.postgres_also(17)
@pytest.mark.parametrize("running", [True, False])
async def test_changes_made_without_the_publication_are_a_gap_that_can_be_got_over(
    source: Any, running: bool
) -> None:
    source.run(TABLE, "insert into t values (1, 'a'), (2, 'b')")
    async with source.capturing() as out:
        await ready(source, out, "public.t")
    statements = [statement.format(p=publication(source)) for statement in MISSED["made anew"]]
    if not running:
        source.run(*statements)
    with anyio.fail_after(60), pytest.RaisesGroup(FatalError) as caught:
        async with source.capturing(out, refresh_interval=0.05):
            if running:
                await source.caught_up(out)
                source.run(*statements)
            await anyio.sleep_forever()
    assert "may be missing" in str(caught.value.exceptions[0])
    assert "on_gap: resnapshot" in str(caught.value.exceptions[0])
    if source.server.version < 18:
        # What a slot cannot be read past is found out by reading it; the capture is started again then.
        with (
            anyio.fail_after(60),
            pytest.RaisesGroup(pytest.RaisesExc(TransientError, match="the slot is given up")),
        ):
            async with source.capturing(out, on_gap="resnapshot"):
                await anyio.sleep_forever()
    async with source.capturing(out, on_gap="resnapshot", refresh_interval=0.05):
        await source.caught_up(out)
        await settled(out)
    assert same(source, out)


async def test_where_no_rows_are_read_it_is_said_that_changes_were_missed(source: Any) -> None:
    source.run(TABLE, "insert into t values (1, 'a')")
    async with source.capturing(snapshot="never", refresh_interval=0.05) as out:
        await out.until(lambda: bool(out.frames))
        await source.caught_up(out)
        source.run(
            f"alter publication {publication(source)} drop table t",
            "update t set x = 'missed'",
            f"alter publication {publication(source)} add table t",
        )
        await out.until(lambda: any("changes of public.t may be missing" in m for m, _ in out.notices))
        source.run("update t set x = 'seen'")
        await source.caught_up(out)
    assert [record.doc["x"] for record in source.changes(out, "public.t")][-1] == "seen"


async def test_the_tables_that_lost_nothing_are_not_read_again(source: Any) -> None:
    source.run(TABLE, "create table u (id int primary key)", "insert into u values (1)")
    async with source.capturing(on_gap="resnapshot", refresh_interval=0.05) as out:
        await ready(source, out, "public.t", "public.u")
        source.run(
            f"alter publication {publication(source)} drop table t",
            "insert into t values (1, 'missed')",
        )
        await read_again(source, out)
    assert same(source, out)
    assert out.counts["resnapshots"] == 1
    assert out.count_records(source.collection("public.u")) == 1


async def test_what_an_open_transaction_wrote_before_a_table_was_taken_up_is_read(source: Any) -> None:
    async with source.capturing(refresh_interval=0.05) as out:
        await ready(source, out, "public.marks")
        with psycopg.connect(source.dsn) as writer:
            writer.execute("lock table marks in row exclusive mode")
            writer.execute("select pg_current_xact_id()")
            source.run("create table t (id int primary key, x text)")
            writer.execute("insert into t values (1, 'open')")
            await out.until(lambda: ("table taken up", {"table": "public.t"}) in out.notices)
            await out.until(lambda: out.counts.get("snapshot_chunk_retries", 0) > 2)
            source.run("insert into t values (2, 'meanwhile')")
            writer.commit()
        await source.copied(out, "public.t")
        await source.caught_up(out)
        await settled(out)
    assert same(source, out)
    assert source.replica(out, "public.t").faults == []


async def test_a_position_is_small_however_long_a_new_table_has_to_wait(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "UNDECIDED_MAX", 10)
    async with source.capturing(refresh_interval=0.05) as out:
        await ready(source, out, "public.marks")
        with psycopg.connect(source.dsn) as writer:
            writer.execute("select pg_current_xact_id()")
            source.run(TABLE)
            await out.until(lambda: ("table taken up", {"table": "public.t"}) in out.notices)
            source.run(*[f"insert into t values ({n}, 'x')" for n in range(300)])
            await source.caught_up(out)
            writer.commit()
        await ready(source, out, "public.t")
    assert max(len(frame.position.xids) for frame in out.frames if frame.position) < 100
    assert same(source, out)
    assert source.replica(out, "public.t").faults == []


@pytest.mark.postgres_since(18, "slots are read past what was written before there was a publication")
async def test_what_an_open_transaction_wrote_beside_a_slot_of_ones_own_is_read(source: Any) -> None:
    source.run(TABLE, f"select pg_create_logical_replication_slot('own_{source.name}', 'pgoutput')")
    try:
        with psycopg.connect(source.dsn) as writer:
            writer.execute("insert into t values (1, 'open')")
            async with source.capturing(slot=f"own_{source.name}") as out:
                await out.until(
                    lambda: (
                        out.counts.get("snapshot_chunk_retries", 0) > 2
                        or bool(source.changes(out, "public.marks"))
                    )
                )
                writer.commit()
                await source.copied(out, "public.t")
                await source.caught_up(out)
    finally:
        async with anyio.create_task_group():
            with anyio.fail_after(30):
                while source.rows(
                    f"select from pg_replication_slots where slot_name = 'own_{source.name}' and active"
                ):
                    await anyio.lowlevel.checkpoint()
        source.run(f"select pg_drop_replication_slot('own_{source.name}')")
    assert same(source, out)


async def test_a_transaction_that_is_open_is_older_than_the_next_to_come(source: Any) -> None:
    with psycopg.connect(source.dsn) as writer:
        found = writer.execute("select pg_current_xact_id()::text").fetchone()
        async with source.capture().server(source.task).connected() as query:
            assert found is not None
            assert await server.first_unborn(query) == int(found[0]) + 1


async def test_a_name_that_comes_back_does_not_keep_rows_of_before(source: Any) -> None:
    source.run(TABLE, "insert into t values (1, 'a'), (2, 'b')")
    async with source.capturing(refresh_interval=0.05) as out:
        await ready(source, out, "public.t")
        source.run("drop table t")
        await out.until(lambda: any("gone" in message for message, _ in out.notices))
        source.run(TABLE, "insert into t values (2, 'c')")
        await out.until(lambda: sweeps(source, out) == 1)
        await source.caught_up(out)
        await settled(out)
        assert same(source, out)
        source.run("drop table t")
        await out.until(lambda: sum("gone" in message for message, _ in out.notices) == 2)
    source.run(TABLE, "insert into t values (3, 'd')")
    async with source.capturing(out, refresh_interval=0.05):
        await out.until(lambda: sweeps(source, out) == 2)
        await source.caught_up(out)
        await settled(out)
    assert same(source, out)


REKEYED = {
    "the primary key": (
        "create table t (id int primary key, x text not null)",
        "alter table t drop constraint t_pkey, add primary key (x)",
    ),
    "the replica identity": (
        "create table t (id int primary key, x text not null unique)",
        "alter table t replica identity using index t_x_key",
    ),
    "while whole rows come": (
        "create table t (id int primary key, x text not null); alter table t replica identity full",
        "alter table t drop constraint t_pkey, add primary key (x)",
    ),
}


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("how", REKEYED)
async def test_after_a_change_of_the_key_every_record_is_known_by_the_new_one(
    source: Any, how: str, running: bool
) -> None:
    source.run(REKEYED[how][0], "insert into t values (1, 'a'), (2, 'b')")
    options = {"refresh_interval": 0.05 if "whole" in how else 3600}
    async with source.capturing(**options) as out:
        await ready(source, out, "public.t")
        if running:
            noted = notes(out)
            source.run(REKEYED[how][1])
            if "whole" in how:
                await out.until(lambda: notes(out) > noted)
    count = len(source.changes(out, "public.t"))
    if not running:
        source.run(REKEYED[how][1])
    async with source.capturing(out, **options):
        source.run(
            "insert into t values (3, 'c')",
            "delete from t where x = 'b'",
            "update t set id = 7 where x = 'a'",
        )
        await source.caught_up(out)
    assert out.schemas(source.collection("public.t"))[-1].key == ("/x",)
    assert "resnapshots" not in out.counts
    assert [(chr(r.op), r.doc["x"]) for r in source.changes(out, "public.t")[count:]] == [
        ("c", "c"),
        ("d", "b"),
        ("u", "a"),
    ]


@pytest.mark.parametrize("running", [True, False])
async def test_a_copy_whose_key_changes_begins_anew(
    source: Any, running: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copier, "CHUNK_ROWS_FIRST", 50)
    monkeypatch.setattr(copier, "CHUNK_ROWS_MAX", 50)
    source.run(
        "create table t (id int primary key, x text not null)",
        "insert into t select g, 'x' || (1000 - g) from generate_series(1, 500) g",
    )
    rekey = "alter table t drop constraint t_pkey, add primary key (x)"
    async with source.capturing(refresh_interval=3600) as out:
        await out.until(lambda: 100 < out.count_records(source.collection("public.t")) < 400)
        if running:
            source.run(rekey)
            await settled(out)
            await source.caught_up(out)
    if not running:
        source.run(rekey)
        async with source.capturing(out, refresh_interval=3600):
            await source.caught_up(out)
            await settled(out)
    replica = source.replica(out, "public.t", ("x",))
    assert {row["id"]: row["x"] for row in replica.rows.values()} == dict(source.rows("select id, x from t"))
