"""Rows that are read again at somebody's wish: by `hub backfill`, and by a signal from SQL, which is not trusted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from hub.errors import FatalError
from hub.record import READ
from hub_captures.postgres.backfill import version_problem
from hub_captures.postgres.handover import HandOver
from hub_captures.postgres.position import Chunk, Copying, Visibility
from hub_captures.postgres.upkeep import again

pytestmark = pytest.mark.anyio
messages = pytest.mark.postgres_since(14, "messages come in the stream")


async def ready(source: Any, out: Any) -> None:
    await source.copied(out, "public.t")
    await source.caught_up(out)
    await out.until(lambda: out.frames[-1].position.is_settled)


def make(source: Any) -> None:
    source.run("create table t (id int primary key)", "insert into t select generate_series(1, 10)")


def reads(source: Any, out: Any, table: str = "public.t") -> int:
    return sum(record.op == READ for record in out.records(source.collection(table)))


def signal(source: Any, **asked: Any) -> None:
    text = json.dumps(asked).replace("'", "''")
    source.run(f"select pg_logical_emit_message(true, 'hub.signal', '{text}')")


@messages
async def test_some_rows_of_a_table_are_read_again(source: Any) -> None:
    make(source)
    async with source.capturing() as out:
        await ready(source, out)
        source.run(f"comment on publication hub_{source.name} is 'mine'")
        for where in ("id > 7", "id = 1 and 'a%' like '%a%' -- so"):
            before = out.count_records(source.collection("public.t"))
            await source.capture().backfill(source.task, ["public.t"], where=where)
            await source.caught_up(out)
            await out.until(lambda: out.frames[-1].position.is_settled)
            again_read = [record.doc["id"] for record in out.records(source.collection("public.t"))[before:]]
            assert again_read == [
                row[0] for row in source.rows(f"select id from t where ({where}\n) order by id")
            ]
    assert source.changes(out, "public.t") == []
    ((comment,),) = source.rows("select obj_description(oid, 'pg_publication') from pg_publication")
    assert comment.startswith("mine")


@messages
async def test_a_commit_that_waits_for_a_standby_is_not_followed_by_the_row_it_replaced(source: Any) -> None:
    make(source)
    source.run("alter table t add b text")

    def stall(name: str) -> None:
        source.run(f"alter system set synchronous_standby_names = '{name}'", "select pg_reload_conf()")

    async with source.capturing() as out, anyio.create_task_group() as group:
        await ready(source, out)
        before = reads(source, out)
        stall("nobody")
        try:
            while source.rows("show synchronous_standby_names") != [("nobody",)]:
                pass
            group.start_soon(anyio.to_thread.run_sync, source.run, "update t set b = 'new' where id = 1")
            await out.until(lambda: bool(source.changes(out, "public.t")))
            await source.capture().backfill(source.task, [])
            await out.until(
                lambda: out.counts.get("snapshot_chunk_retries", 0) > 0 or reads(source, out) > before
            )
        finally:
            stall("")
        await out.until(lambda: reads(source, out) == before + 10)
    assert source.replica(out, "public.t").rows[(1,)]["b"] == "new"


@messages
async def test_no_table_named_means_every_table(source: Any) -> None:
    make(source)
    source.run("create table u (id int primary key)", "insert into u values (1)")
    async with source.capturing() as out:
        await ready(source, out)
        await source.capture().backfill(source.task, [])
        await out.until(lambda: reads(source, out) == 20)
        await out.until(lambda: reads(source, out, "public.u") == 2)


@messages
@pytest.mark.parametrize(
    "parts, where, message",
    [
        (["public.nowhere"], "", "captures no such table"),
        (["public.t"], "nonsense >", "syntax error"),
        (["public.t"], "nothing = 1", "does not exist"),
        (["public.t"], "true) union select 1 from public.t where (true", "syntax error"),
        (["public.t"], "true)])[1] from public.t where (array[(true", "syntax error"),
        (["public.t"], "true); drop table public.t; select (1", "multiple commands|syntax error"),
    ],
)
async def test_a_wish_that_cannot_be_met_is_an_error_at_once(
    source: Any, parts: list[str], where: str, message: str
) -> None:
    make(source)
    async with source.capturing() as out:
        await ready(source, out)
        with pytest.raises(FatalError, match=message):
            await source.capture().backfill(source.task, parts, where=where)
    assert source.rows("select count(*) from t") == [(10,)]


async def test_a_server_that_sends_no_messages_is_named_with_what_to_do(source: Any) -> None:
    assert "snapshot: always" in (version_problem(13) or "")
    assert version_problem(14) is None
    make(source)
    async with source.capturing() as out:
        await ready(source, out)
        if source.server.version < 14:
            with pytest.raises(FatalError, match="use PostgreSQL 14"):
                await source.capture().backfill(source.task, ["public.t"])


async def test_before_the_first_run_there_is_nothing_to_read_again(source: Any) -> None:
    with pytest.raises(FatalError, match="has not run yet"):
        await source.capture().backfill(source.task, [])


@messages
async def test_sql_in_a_signal_is_only_run_when_the_publications_owner_wrote_it(source: Any) -> None:
    make(source)
    async with source.capturing() as out:
        await ready(source, out)
        signal(source, snapshot=["public.t"], where="pg_sleep(0) is not null")
        signal(source, snapshot=["public.nowhere"])
        signal(source, snapshot=7)
        await source.caught_up(out)
        assert reads(source, out) == 10
        signal(source, snapshot=["public.t"])
        await out.until(lambda: reads(source, out) == 20)
    said = " ".join(message for message, _ in out.notices)
    assert "only the owner of the publication" in said
    assert "names no captured table" in said
    assert "was not understood" in said


def test_a_table_that_is_being_copied_loses_no_row_to_a_wish_for_some() -> None:
    chunk = Chunk(("5",), Visibility(1, 1), 9)
    under_way = HandOver(Copying(chunks=(chunk,), began=True), None)
    assert again(under_way, where="id = 1") == Copying(replace=True)
    assert again(HandOver(Copying(), None), where="id = 1") == Copying()
    waiting = HandOver(Copying(refresh=True, where="a"), None)
    assert again(waiting, where="b") == Copying(refresh=True, where="(a) or (b)")
    assert again(waiting, where="") == Copying(refresh=True, replace=True)
    assert again(None, where="b") == Copying(refresh=True, where="b")


@messages
async def test_the_statements_of_the_guide_work_when_they_are_copied(source: Any) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "postgres.md").read_text()
    (wish,) = re.findall(r"`(SELECT pg_logical_emit_message[^`]+)`", guide)
    (leave,) = re.findall(r"`(SELECT pg_drop_replication_slot[^`]+)`", guide)
    source.run("create table orders (id int primary key)", "insert into orders values (1), (2)")
    source.task = f"{source.name}_shop"
    async with source.capturing() as out:
        await source.copied(out, "public.orders")
        await source.caught_up(out)
        source.run(wish)
        await out.until(lambda: reads(source, out, "public.orders") == 4)
    for statement in leave.replace("hub_shop", f"hub_{source.task}").split(";"):
        if statement.strip():
            source.run(statement)
    assert source.rows("select count(*) from pg_publication") == [(0,)]
