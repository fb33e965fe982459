"""What the application does to its rows, and the records that come of it. Numbers are those of docs/postgres.md."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hub.record import CREATE, DELETE, READ, TRUNCATE, UPDATE

pytestmark = pytest.mark.anyio


def ops(records: Any) -> str:
    return "".join(chr(record.op) for record in records)


async def test_01_insert_update_same_update_and_delete(source: Any) -> None:
    source.run("create table t (id int primary key, b text, c int)")
    async with source.capturing() as out:
        await source.copied(out, "public.t")
        source.run(
            "insert into t values (1, 'a', 1)",
            "update t set b = 'b' where id = 1",
            "update t set b = 'b' where id = 1",
            "delete from t where id = 1",
        )
        await source.caught_up(out)
    records = source.changes(out, "public.t")
    assert ops(records) == "cuud"
    assert [record.doc for record in records] == [
        {"id": 1, "b": "a", "c": 1},
        {"id": 1, "b": "b", "c": 1},
        {"id": 1, "b": "b", "c": 1},
        {"id": 1},
    ]
    commits = [record.meta["commit_lsn"] for record in records]
    assert commits == sorted(set(commits))
    assert all(
        {"schema", "table", "lsn", "transaction_id", "ts_ms"} <= record.meta.keys() for record in records
    )


async def test_02_a_key_change_is_a_delete_and_a_create_in_one_transaction(source: Any) -> None:
    source.run("create table t (id int primary key, b text, c int)", "insert into t values (2, 'x', 5)")
    async with source.capturing() as out:
        await source.copied(out, "public.t")
        source.run("update t set id = 3 where id = 2")
        await source.caught_up(out)
    deleted, created = source.changes(out, "public.t")
    assert (deleted.op, deleted.doc) == (DELETE, {"id": 2})
    assert (created.op, created.doc) == (CREATE, {"id": 3, "b": "x", "c": 5})
    assert deleted.meta["transaction_id"] == created.meta["transaction_id"]
    assert deleted.meta["key_change"] == b'{"id":3}'
    assert created.meta["key_change"] == b'{"id":2}'


async def test_03_an_unchanged_large_value_is_absent_and_named(source: Any) -> None:
    source.run(
        "create table t (id int primary key, n int, big text)",
        "alter table t alter big set storage external",
        "insert into t values (1, 1, repeat('x', 9000))",
    )
    async with source.capturing() as out:
        await source.copied(out, "public.t")
        source.run(
            "update t set n = 2",
            "update t set big = repeat('y', 9000)",
            "update t set id = 7",
        )
        await source.caught_up(out)
    first, second, deleted, created = source.changes(out, "public.t")
    assert (first.doc, first.meta["unchanged"]) == ({"id": 1, "n": 2}, ["big"])
    assert second.doc["big"] == "y" * 9000
    assert deleted.op == DELETE
    # A destination has no row under the new key to keep the value from, so that the source is asked for it.
    assert created.doc == {"id": 7, "n": 2, "big": "y" * 9000}
    assert "unchanged" not in created.meta


async def test_04_with_full_identity_the_unchanged_value_comes_from_the_old_image(source: Any) -> None:
    source.run(
        "create table t (id int primary key, n int, big text)",
        "alter table t alter big set storage external",
        "alter table t replica identity full",
        "insert into t values (1, 1, repeat('x', 9000))",
    )
    async with source.capturing() as out:
        await source.copied(out, "public.t")
        source.run("update t set n = 2")
        await source.caught_up(out)
    (record,) = source.changes(out, "public.t")
    assert record.doc == {"id": 1, "n": 2, "big": "x" * 9000}
    assert "unchanged" not in record.meta
    assert b'"n":1' in record.meta["before"]


async def test_05_an_insert_and_an_update_of_one_key_in_one_transaction_keep_the_value(source: Any) -> None:
    source.run(
        "create table t (id int primary key, n int, big text)", "alter table t alter big set storage external"
    )
    async with source.capturing() as out:
        await source.copied(out, "public.t")
        source.transaction("insert into t values (1, 1, repeat('x', 9000))", "update t set n = 2")
        await source.caught_up(out)
    assert source.replica(out, "public.t").rows == {(1,): {"id": 1, "n": 2, "big": "x" * 9000}}


async def test_06_the_key_is_that_of_the_replica_identity_index(source: Any) -> None:
    source.run(
        "create table t (id int primary key, code text not null, c int)",
        "create unique index t_code on t (code)",
        "alter table t replica identity using index t_code",
        "insert into t values (1, 'a', 1)",
    )
    async with source.capturing() as out:
        await source.copied(out, "public.t")
        source.run("update t set c = 2", "delete from t")
        await source.caught_up(out)
    assert out.schemas(source.collection("public.t"))[0].key == ("/code",)
    updated, deleted = source.changes(out, "public.t")
    assert updated.doc == {"id": 1, "code": "a", "c": 2}
    assert deleted.doc == {"code": "a"}


async def test_07_a_table_without_key_sends_whole_old_rows(source: Any) -> None:
    source.run(
        "create table t (a int, b text)",
        "alter table t replica identity full",
        "insert into t values (1, 'x')",
    )
    async with source.capturing() as out:
        await source.copied(out, "public.t")
        source.run("update t set b = 'y'", "delete from t")
        await source.caught_up(out)
    assert out.schemas(source.collection("public.t"))[0].key == ()
    updated, deleted = source.changes(out, "public.t")
    assert (updated.doc, updated.meta["before"]) == ({"a": 1, "b": "y"}, b'{"a":1,"b":"x"}')
    assert (deleted.doc, deleted.meta["before"]) == ({"a": 1, "b": "y"}, b'{"a":1,"b":"y"}')


async def test_09_truncate_is_one_record_for_each_table(source: Any) -> None:
    source.run(
        "create table a (id int primary key)",
        "create table b (id int primary key references a)",
        "insert into a values (1)",
        "insert into b values (1)",
    )
    async with source.capturing() as out:
        await source.copied(out, "public.a", "public.b")
        await source.caught_up(out)
        source.run("truncate a restart identity cascade")
        await source.caught_up(out)
    (of_a,), (of_b,) = source.changes(out, "public.a"), source.changes(out, "public.b")
    assert (of_a.op, of_a.doc, of_b.op) == (TRUNCATE, {}, TRUNCATE)
    assert of_a.meta["transaction_id"] == of_b.meta["transaction_id"]
    assert of_a.meta["truncate"] == {"cascade": True, "restart_identity": True}


async def test_10_and_11_what_is_rolled_back_never_appears(source: Any) -> None:
    source.run("create table t (id int primary key)")
    async with source.capturing() as out:
        await source.copied(out, "public.t")
        source.transaction(
            "insert into t values (1)",
            "savepoint s",
            "insert into t values (2)",
            "rollback to savepoint s",
            "insert into t values (3)",
        )
        with source.connect() as connection:
            connection.execute("begin; insert into t values (4); rollback")
        await source.caught_up(out)
    assert [record.doc["id"] for record in source.changes(out, "public.t")] == [1, 3]


async def test_12_upserts(source: Any) -> None:
    source.run("create table t (id int primary key, b text)", "insert into t values (1, 'a')")
    async with source.capturing() as out:
        await source.copied(out, "public.t")
        source.run(
            "insert into t values (1, 'b') on conflict (id) do update set b = excluded.b",
            "insert into t values (1, 'c') on conflict do nothing",
        )
        await source.caught_up(out)
    assert [(chr(record.op), record.doc) for record in source.changes(out, "public.t")] == [
        ("u", {"id": 1, "b": "b"})
    ]


@pytest.mark.postgres_since(15, "there is MERGE")
async def test_12_merge(source: Any) -> None:
    source.run("create table t (id int primary key, b text)", "insert into t values (1, 'a')")
    async with source.capturing() as out:
        await source.copied(out, "public.t")
        source.run(
            "merge into t using (values (1, 'm'), (2, 'n')) v(id, b) on v.id = t.id "
            "when matched then update set b = v.b when not matched then insert values (v.id, v.b)",
        )
        await source.caught_up(out)
    records = source.changes(out, "public.t")
    assert sorted(ops(records)) == ["c", "u"]
    assert records[0].meta["transaction_id"] == records[1].meta["transaction_id"]


async def test_13_cascades_come_in_the_transaction_of_their_cause(source: Any) -> None:
    source.run(
        "create table parent (id int primary key)",
        "create table child (id int primary key, p int references parent on delete cascade on update cascade)",
        "insert into parent values (1), (2)",
        "insert into child values (10, 1), (20, 2)",
    )
    async with source.capturing() as out:
        await source.copied(out, "public.parent", "public.child")
        source.run("delete from parent where id = 1", "update parent set id = 3 where id = 2")
        await source.caught_up(out)
    deleted, updated = source.changes(out, "public.child")
    assert (deleted.op, deleted.doc, updated.doc) == (DELETE, {"id": 10}, {"id": 20, "p": 3})
    causes = source.changes(out, "public.parent")
    assert causes[0].meta["transaction_id"] == deleted.meta["transaction_id"]
    assert causes[0].meta["lsn"] < deleted.meta["lsn"]


async def test_14_copy_of_ten_thousand_rows_is_one_transaction_in_order(source: Any) -> None:
    source.run("create table t (id int primary key)")
    async with source.capturing() as out:
        await source.copied(out, "public.t")
        source.run("insert into t select generate_series(1, 10000)")
        await source.caught_up(out)
    records = source.changes(out, "public.t")
    assert [record.doc["id"] for record in records] == list(range(1, 10001))
    assert len({record.meta["transaction_id"] for record in records}) == 1


HOSTILE = "a\n\t\r\x01\x02\x03\"'\\\\N\\.é☃😀\u2028"


async def test_15_hostile_text_is_exact_by_both_ways(source: Any) -> None:
    source.run("create table t (id int primary key, b text)")
    values = [HOSTILE, "\x03", "\x02", "\x01", "", "\\.", "\\N", "null", " "]
    with source.connect() as connection:
        for number, value in enumerate(values):
            connection.execute("insert into t values (%s, %s)", [number, value])
        async with source.capturing() as out:
            await source.copied(out, "public.t")
            for number, value in enumerate(values):
                connection.execute("insert into t values (%s, %s)", [100 + number, value])
            await source.caught_up(out)
    rows = source.replica(out, "public.t").rows
    for number, value in enumerate(values):
        assert rows[(number,)]["b"] == value
        assert rows[(100 + number,)]["b"] == value


@pytest.mark.postgres_since(14, "messages come in the stream")
async def test_16_logical_messages_are_a_collection(source: Any) -> None:
    source.run("create table t (id int primary key)")
    async with source.capturing(messages=True) as out:
        await source.copied(out, "public.t")
        source.transaction(
            "insert into t values (1)", "select pg_logical_emit_message(true, 'app', '{\"in\": 1}')"
        )
        with source.connect() as connection:
            connection.execute("begin")
            connection.execute("select pg_logical_emit_message(false, 'app', 'at once')")
            connection.execute("select pg_logical_emit_message(true, 'app', 'never')")
            connection.execute("rollback")
        source.run("select pg_logical_emit_message(true, 'app', '\\xff00'::bytea)")
        await source.caught_up(out)
    inside, alone, binary = out.records(f"{source.task}/messages")
    assert (inside.doc, inside.meta["prefix"]) == ({"content": '{"in": 1}'}, "app")
    assert inside.meta["transaction_id"] == source.changes(out, "public.t")[0].meta["transaction_id"]
    assert alone.doc == {"content": "at once"}
    assert binary.doc == {"content_base64": "/wA="}


@pytest.mark.postgres_since(14, "messages come in the stream")
async def test_transactions_have_an_account_of_their_own(source: Any) -> None:
    source.run("create table a (id int primary key, b text)", "create table b (id int primary key)")
    async with source.capturing(transactions=True, messages=True, batch=64 * 1024) as out:
        await source.copied(out, "public.a", "public.b")
        with source.connect() as connection, connection.transaction():
            connection.execute("insert into a select n, repeat('x', 100) from generate_series(1, 3000) n")
            with connection.transaction(force_rollback=True):
                connection.execute("insert into b values (0)")
            connection.execute("insert into b values (1), (2)")
            connection.execute("update a set id = -id where id = 7")
        source.run("create table unseen (id int)", "select pg_logical_emit_message(false, 'app', 'alone')")
        source.run("truncate a, b")
        await source.caught_up(out)
    first = source.changes(out, "public.a")[0].meta
    account = [record.doc for record in out.records(f"{source.task}/transactions")]
    large, truncation, mark = account[:2], account[2:4], account[4:]
    common = {
        "commit_lsn": first["commit_lsn"],
        "transaction_id": first["transaction_id"],
        "ts_ms": first["ts_ms"],
    }
    a, b = (source.collection(f"public.{name}") for name in "ab")
    counts = [{"collection": a, "records": 3002}, {"collection": b, "records": 2}]
    assert large == [
        {**common, "status": "begin"},
        {**common, "status": "end", "records": 3004, "collections": counts},
    ]
    assert truncation[1]["collections"] == [{"collection": a, "records": 1}, {"collection": b, "records": 1}]
    assert [each["status"] for each in mark] == ["begin", "end"]


@contextlib.contextmanager
def origin_of(source: Any) -> Iterator[Callable[[int], None]]:
    """Writes a row of `t` under a replication origin of another server."""
    name = f"{source.name}_origin"
    source.run("create table t (id int primary key)", f"select pg_replication_origin_create('{name}')")
    try:
        yield lambda key: source.run(
            f"select pg_replication_origin_session_setup('{name}'); insert into t values ({key})"
        )
    finally:
        source.run(f"select pg_replication_origin_drop('{name}')")


async def test_17_the_replication_origin_is_named(source: Any) -> None:
    with origin_of(source) as write:
        async with source.capturing() as out:
            await source.copied(out, "public.t")
            write(1)
            await source.caught_up(out)
    assert source.changes(out, "public.t")[0].meta["origin"] == f"{source.name}_origin"


@pytest.mark.postgres_since(16, "what other servers wrote can be left out")
async def test_17_what_came_from_another_origin_can_be_left_out(source: Any) -> None:
    with origin_of(source) as write:
        async with source.capturing(origin="none") as out:
            await source.copied(out, "public.t")
            write(2)
            source.run("insert into t values (3)")
            await source.caught_up(out)
    assert [record.doc["id"] for record in source.changes(out, "public.t")] == [3]


async def test_26_transactions_come_in_the_order_of_their_commits(source: Any) -> None:
    source.run("create table t (id int primary key)")
    async with source.capturing() as out:
        await source.copied(out, "public.t")
        with source.connect() as first, source.connect() as second:
            first.execute("begin; insert into t values (1)")
            second.execute("begin; insert into t values (2); commit")
            first.execute("insert into t values (3); commit")
        await source.caught_up(out)
    assert [record.doc["id"] for record in source.changes(out, "public.t")] == [2, 1, 3]


async def test_a_snapshot_row_says_so(source: Any) -> None:
    source.run("create table t (id int primary key)", "insert into t values (1)")
    async with source.capturing() as out:
        await source.copied(out, "public.t")
    (record,) = out.records(source.collection("public.t"))
    assert (record.op, record.meta["snapshot"], record.doc) == (READ, True, {"id": 1})


async def test_changes_of_several_tables_in_one_transaction_become_visible_together(source: Any) -> None:
    source.run("create table a (id int primary key)", "create table b (id int primary key)")
    async with source.capturing(batch=1) as out:
        await source.copied(out, "public.a", "public.b", "public.marks")
        before = len(out.frames)
        source.transaction(*[f"insert into {'ab'[n % 2]} values ({n})" for n in range(200)])
        await source.caught_up(out)
    frames = [
        frame
        for frame in out.frames[before:]
        if any(
            getattr(item, "collection", "").endswith((".a", ".b")) and hasattr(item, "count")
            for item in frame.items
        )
    ]
    assert len(frames) == 1
    assert UPDATE not in {record.op for record in out.records()}


async def test_70_a_value_of_twenty_megabytes_comes_by_both_ways(source: Any) -> None:
    source.run(
        "create table t (id int primary key, b text)",
        "insert into t select 1, string_agg(md5(n::text), '') from generate_series(1, 655360) n",
    )
    async with source.capturing() as out:
        await source.copied(out, "public.t")
        source.run("insert into t select 2, b from t where id = 1")
        await source.caught_up(out)
    rows = source.replica(out, "public.t").rows
    assert len(rows[(1,)]["b"]) == 20 * 1024 * 1024
    assert rows[(1,)]["b"] == rows[(2,)]["b"]
