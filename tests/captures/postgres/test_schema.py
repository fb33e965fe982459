"""DDL on captured tables, partitions, filters and publications. Numbers are those of docs/postgres.md."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from psycopg.conninfo import make_conninfo

from hub.errors import ConfigError, FatalError
from hub.options import Secret
from hub.record import READ, SWEEP
from hub.schema import CollectionSchema
from hub.spec import Size

pytestmark = pytest.mark.anyio


def columns(schema: CollectionSchema) -> list[str]:
    return [column.name for column in schema.columns()]


async def settled(source: Any, out: Any) -> None:
    """Wait until nothing is under copy any more."""
    await out.until(lambda: bool(out.frames) and out.frames[-1].position.is_settled)


async def ready(source: Any, out: Any, *tables: str) -> None:
    await source.copied(out, *tables)
    await source.caught_up(out)
    await settled(source, out)


async def test_27_a_column_added_with_a_default_reaches_the_old_rows(source: Any) -> None:
    source.run("create table t (id int primary key)", "insert into t values (1), (2)")
    async with source.capturing(refresh_interval=0.05) as out:
        await ready(source, out, "public.t")
        source.run(
            "alter table t add x int default 7", "insert into t values (3)", "update t set x = 8 where id = 1"
        )
        await out.until(lambda: out.counts.get("resnapshots") == 1)
        await source.caught_up(out)
        await settled(source, out)
    assert [columns(schema) for schema in out.schemas(source.collection("public.t"))] == [["id"], ["id", "x"]]
    rows = source.replica(out, "public.t").rows
    assert rows == {(1,): {"id": 1, "x": 8}, (2,): {"id": 2, "x": 7}, (3,): {"id": 3, "x": 7}}


@pytest.mark.postgres_also(17)
async def test_28_a_schema_stands_between_the_rows_of_one_transaction(source: Any) -> None:
    source.run("create table t (id int primary key)")
    async with source.capturing() as out:
        await ready(source, out, "public.t")
        before = len(out.frames)
        source.transaction(
            "insert into t values (1)", "alter table t add x int", "insert into t values (2, 5)"
        )
        await source.caught_up(out)
    (frame,) = [
        frame
        for frame in out.frames[before:]
        if any(item.collection == source.collection("public.t") for item in frame.items)
    ]
    kinds = [
        columns(item) if isinstance(item, CollectionSchema) else [doc["id"] for doc in item.docs]
        for item in frame.items
        if item.collection == source.collection("public.t")
    ]
    assert kinds == [[1], ["id", "x"], [2]]


async def test_29_columns_dropped_and_renamed_make_a_new_schema(source: Any) -> None:
    source.run("create table t (id int primary key, a int, b int)")
    async with source.capturing() as out:
        await ready(source, out, "public.t")
        source.run("insert into t values (1, 1, 1)", "alter table t drop a", "insert into t values (2, 2)")
        source.run("alter table t rename b to c", "insert into t values (3, 3)")
        await source.caught_up(out)
    assert [columns(schema) for schema in out.schemas(source.collection("public.t"))] == [
        ["id", "a", "b"],
        ["id", "b"],
        ["id", "c"],
    ]
    assert [record.doc for record in source.changes(out, "public.t")] == [
        {"id": 1, "a": 1, "b": 1},
        {"id": 2, "b": 2},
        {"id": 3, "c": 3},
    ]


async def test_30_a_wider_type_needs_no_second_reading(source: Any) -> None:
    source.run("create table t (id int primary key, a int)", "insert into t values (1, 1)")
    async with source.capturing() as out:
        await ready(source, out, "public.t")
        source.run("insert into t values (2, 2)")
        await source.caught_up(out)
        source.run("alter table t alter a type bigint", "insert into t values (3, 3)")
        await source.caught_up(out)
    assert out.schemas(source.collection("public.t"))[-1].columns()[1].type.bits == 64
    assert "resnapshots" not in out.counts


@pytest.mark.postgres_also(17)
@pytest.mark.parametrize("touched", [True, False])
async def test_31_a_rewritten_table_is_read_again(source: Any, touched: bool) -> None:
    source.run("create table t (id int primary key, x int)", "insert into t values (1, 1), (2, 2)")
    async with source.capturing(refresh_interval=0.05 if not touched else 3600) as out:
        await ready(source, out, "public.t")
        source.run("alter table t alter x type text using 'n' || x")
        if touched:
            source.run("insert into t values (3, 'new')")
        await out.until(lambda: out.counts.get("resnapshots") == 1)
        await source.caught_up(out)
        await settled(source, out)
    expected = {(1,): "n1", (2,): "n2"} | ({(3,): "new"} if touched else {})
    assert {key: row["x"] for key, row in source.replica(out, "public.t").rows.items()} == expected


async def test_31_a_rewrite_after_one_that_needs_none_is_noticed_though_the_stream_is_behind(
    source: Any,
) -> None:
    source.run("create table t (id int primary key, x int)", "insert into t values (1, 1), (2, 2)")
    async with source.capturing(refresh_interval=3600) as out:
        await ready(source, out, "public.t")
        source.run("insert into t values (3, 3)")
        await source.caught_up(out)
        out.block()
        source.run(
            "insert into t values (4, 4)",
            "alter table t alter x type bigint",
            "insert into t values (5, 5)",
            "alter table t alter x type text using 'n' || x",
            "insert into t values (6, 'new')",
        )
        out.unblock()
        await source.caught_up(out)
        await settled(source, out)
    rows = source.replica(out, "public.t").rows
    assert [rows[(key,)]["x"] for key in range(1, 7)] == ["n1", "n2", "n3", "n4", "n5", "new"]


@pytest.mark.postgres_also(17)
async def test_31_a_table_rewritten_while_the_hub_was_off_is_read_again(source: Any) -> None:
    source.run("create table t (id int primary key, x int)", "insert into t values (1, 1), (2, 2)")
    async with source.capturing() as out:
        await ready(source, out, "public.t")
    source.run("alter table t alter x type text using 'n' || x")
    async with source.capturing(out, refresh_interval=0.05):
        await out.until(lambda: out.counts.get("resnapshots") == 1)
        await source.caught_up(out)
        await settled(source, out)
    assert {key: row["x"] for key, row in source.replica(out, "public.t").rows.items()} == {
        (1,): "n1",
        (2,): "n2",
    }


async def test_31_rewrites_can_stop_the_capture(source: Any) -> None:
    source.run("create table t (id int primary key, x int)", "insert into t values (1, 1)")
    with pytest.RaisesGroup(pytest.RaisesExc(FatalError, match="was rewritten")):
        async with source.capturing(on_rewrite="stop") as out:
            await ready(source, out, "public.t")
            source.run("alter table t alter x type text using 'n' || x", "insert into t values (3, 'new')")
            await anyio.sleep_forever()


async def test_32_a_recreated_table_begins_anew(source: Any) -> None:
    source.run("create table t (id int primary key)", "insert into t values (1), (2)")
    async with source.capturing(refresh_interval=0.05) as out:
        await ready(source, out, "public.t")
        source.transaction(
            "drop table t", "create table t (id int primary key, y int)", "insert into t values (5, 5)"
        )
        await out.until(
            lambda: any(record.op == SWEEP for record in out.records(source.collection("public.t")))
        )
        source.run("insert into t values (6, 6)")
        await source.caught_up(out)
        await settled(source, out)
    assert source.replica(out, "public.t").rows == {(5,): {"id": 5, "y": 5}, (6,): {"id": 6, "y": 6}}


async def test_33_a_renamed_table_stops_with_a_question_or_is_followed(source: Any) -> None:
    source.run("create table t (id int primary key)", "insert into t values (1)")
    async with source.capturing() as out:
        await ready(source, out, "public.t")
    source.run("alter table t rename to u", "insert into u values (2)")
    with anyio.fail_after(30), pytest.raises(FatalError, match=r"is now called public\.u"):
        await source.capture().run(out.crash(), out)
    async with source.capturing(out, on_rename="follow"):
        await out.until(lambda: out.count_records(source.collection("public.u")) >= 2)
        await source.caught_up(out)
    assert set(source.replica(out, "public.u").rows) == {(1,), (2,)}


async def test_34_maintenance_makes_no_records_and_no_second_reading(source: Any) -> None:
    source.run("create table t (id int primary key, a int)", "insert into t values (1, 1)")
    async with source.capturing(refresh_interval=0.05) as out:
        await ready(source, out, "public.t")
        count = out.count_records(source.collection("public.t"))
        source.run(
            "vacuum full t",
            "cluster t using t_pkey",
            "create index on t (a)",
            "comment on table t is 'x'",
            "analyze t",
        )
        await source.caught_up(out)
        await anyio.sleep(0.2)
        await source.caught_up(out)
        assert out.count_records(source.collection("public.t")) == count
        source.run("insert into t values (2, 2)")
        await source.caught_up(out)
    assert "resnapshots" not in out.counts
    assert len(out.schemas(source.collection("public.t"))) == 1


async def test_35_enum_values_added_and_renamed(source: Any) -> None:
    source.run("create type mood as enum ('a')", "create table t (id int primary key, m mood)")
    async with source.capturing() as out:
        await ready(source, out, "public.t")
        source.run(
            "insert into t values (1, 'a')", "alter type mood add value 'b'", "insert into t values (2, 'b')"
        )
        await source.caught_up(out)
        source.run("alter type mood rename value 'b' to 'c'", "insert into t values (3, 'c')")
        await source.caught_up(out)
    assert [record.doc["m"] for record in source.changes(out, "public.t")] == ["a", "b", "c"]


@pytest.mark.postgres_also(17)
async def test_a_field_that_a_composite_type_gets_while_hub_runs_is_a_field(source: Any) -> None:
    source.run(
        "create type pair as (a int, b text)",
        "create table t (id int primary key, p pair)",
        "insert into t values (0, (1, 'x'))",
    )
    async with source.capturing(refresh_interval=0.05) as out:
        await ready(source, out, "public.t")
        source.run("alter type pair add attribute c int")
        found: list[Any] = [""]
        with anyio.fail_after(30):
            while isinstance(found[-1], str):
                source.run(f"insert into t values ({len(found)}, (1, 'x', 2))")
                await source.caught_up(out)
                found = [record.doc["p"] for record in out.records(source.collection("public.t"))]
        schema = out.schemas(source.collection("public.t"))[-1]
    assert found[-1] == {"a": 1, "b": "x", "c": 2}
    assert "c" in str(schema.schema["properties"]["p"])
    # Before hub has looked, a row that does not fit the type comes as its text.
    assert set(map(str, found[1:-1])) <= {"(1,x,2)"}


async def test_36_a_column_that_came_and_went_while_the_hub_was_off(source: Any) -> None:
    source.run("create table t (id int primary key)", "insert into t values (1)")
    async with source.capturing() as out:
        await ready(source, out, "public.t")
    source.run(
        "alter table t add x text",
        "insert into t values (2, 'x')",
        "alter table t drop x",
        "insert into t values (3)",
    )
    async with source.capturing(out):
        await source.caught_up(out)
    assert [record.doc for record in source.changes(out, "public.t")] == [{"id": 2, "x": "x"}, {"id": 3}]


@pytest.mark.postgres_also(17)
async def test_37_generated_columns_are_alike_in_snapshot_and_stream(source: Any) -> None:
    can_send = source.server.version >= 18
    virtual = ", v int generated always as (id + 2) virtual" if can_send else ""
    source.run(
        f"create table t (id int primary key, s int generated always as (id + 1) stored{virtual})",
        "insert into t values (1)",
    )
    async with source.capturing() as out:
        await ready(source, out, "public.t")
        source.run("insert into t values (2)")
        await source.caught_up(out)
    assert [record.doc for record in out.records(source.collection("public.t"))] == [
        {"id": 1, "s": 2} if can_send else {"id": 1},
        {"id": 2, "s": 3} if can_send else {"id": 2},
    ]


async def test_38_to_40_partitions_come_under_the_name_of_their_root(source: Any) -> None:
    source.run(
        "create table p (id int, k int, x text, primary key (id, k)) partition by range (k)",
        "create table p1 partition of p for values from (0) to (10)",
        "create table other_order (x text, k int not null, id int not null, primary key (id, k))",
        "alter table p attach partition other_order for values from (10) to (20)",
        "insert into p values (1, 1, 'a'), (2, 11, 'b')",
    )
    async with source.capturing() as out:
        await ready(source, out, "public.p")
        source.run("insert into p values (3, 2, 'c'), (4, 12, 'd')", "update p set k = 13 where id = 3")
        await source.caught_up(out)
        source.run("alter table p detach partition other_order")
        if source.server.version >= 15:
            # Before, a walsender that runs goes on sending what was detached, under the name of its root.
            source.run("insert into other_order values ('late', 5, 5)")
        await source.caught_up(out)
    assert source.collection("public.p1") not in {record.collection for record in out.records()}
    changes = source.changes(out, "public.p")
    assert [(chr(record.op), record.doc) for record in changes] == [
        ("c", {"id": 3, "k": 2, "x": "c"}),
        ("c", {"id": 4, "k": 12, "x": "d"}),
        ("d", {"id": 3, "k": 2}),
        ("c", {"id": 3, "k": 13, "x": "c"}),
    ]
    assert set(source.replica(out, "public.p", ("id", "k")).rows) == {(1, 1), (2, 11), (3, 13), (4, 12)}


@pytest.mark.postgres_since(15, "publications have columns and conditions")
async def test_41_row_filters_and_column_lists_hold_in_snapshot_and_stream(source: Any) -> None:
    from hub_captures.postgres.capture import TableOptions

    source.run(
        "create table t (id int primary key, c int, secret text)",
        "alter table t replica identity full",
        "insert into t values (1, 1, 's'), (2, 20, 's')",
    )
    source.run("alter table t replica identity default", "create table only_key (id int primary key, c int)")
    tables = ["public.marks", TableOptions(name="public.t", columns=["id", "c"], where="id < 10 and id > 0")]
    async with source.capturing(tables=tables) as out:
        await ready(source, out, "public.t")
        source.run("insert into t values (3, 3, 's'), (30, 1, 's')", "update t set id = 40 where id = 3")
        source.run("update t set id = 4 where id = 30")
        await source.caught_up(out)
    assert columns(out.schemas(source.collection("public.t"))[0]) == ["id", "c"]
    assert [(chr(record.op), record.doc) for record in out.records(source.collection("public.t"))] == [
        ("r", {"id": 1, "c": 1}),
        ("r", {"id": 2, "c": 20}),
        ("c", {"id": 3, "c": 3}),
        ("d", {"id": 3}),
        ("c", {"id": 4, "c": 1}),
    ]


@pytest.mark.postgres_since(15, "publications have columns and conditions")
async def test_41_filters_and_columns_that_change_in_the_config_change_what_is_captured(source: Any) -> None:
    from hub_captures.postgres.capture import TableOptions

    source.run(
        "create table t (id int primary key, c int, secret text)",
        "insert into t select g, g, 's' from generate_series(1, 6) g",
    )
    out = source.outlet()
    reads: list[int] = []
    for columns_wanted, where in (
        (["id", "c"], "id < 3"),
        (["id", "c"], "(((id)) < 3)"),
        (["id", "c"], "id > 4"),
        (["id", "secret"], "id > 4"),
        ([], ""),
    ):
        tables = ["public.marks", TableOptions(name="public.t", columns=columns_wanted, where=where)]
        first = len(out.frames)
        async with source.capturing(out, tables=tables):
            await source.caught_up(out)
            await out.until(
                lambda first=first: len(out.frames) > first and out.frames[-1].position.is_settled
            )  # type: ignore[misc]
        reads.append(
            sum(record.op == READ for record in out.records(source.collection("public.t"))) - sum(reads)
        )
        replica = source.replica(out, "public.t")
        names = ", ".join(columns_wanted) or "*"
        expected = source.rows(f"select {names} from t where {where or 'true'} order by id")
        assert replica.faults == []
        assert sorted(tuple(row.values()) for row in replica.rows.values()) == expected
    # The same condition written in another way changes nothing.
    assert reads == [2, 0, 2, 2, 6]


async def test_a_given_publication_says_which_tables_come(source: Any) -> None:
    source.run(
        "create table t (id int primary key)",
        "create table u (id int primary key)",
        "create publication given for table t, marks",
    )
    async with source.capturing(publication="given") as out:
        await ready(source, out, "public.t")
        source.run("insert into t values (1)", "insert into u values (1)")
        await source.caught_up(out)
    assert {record.collection for record in out.records()} == {
        source.collection("public.t"),
        source.collection("public.marks"),
    }


async def test_a_table_that_is_named_and_missing_is_a_config_error(source: Any) -> None:
    with pytest.raises(ConfigError, match=r"public\.nowhere: there is no such table"):
        await source.capture(tables=["public.nowhere"]).run(None, source.outlet())


@pytest.mark.postgres_since(14, "messages come in the stream")
async def test_a_whole_table_is_read_again_between_marks_and_loses_no_delete(source: Any) -> None:
    """Deletes of rows that a chunk has shown to be gone are sent on, so that a destination that still has them
    is right at the end of the backfill."""
    source.run("create table t (id int primary key)", "insert into t select generate_series(1, 3000)")
    async with source.capturing(chunk=Size(64 << 10)) as out:
        await ready(source, out, "public.t")
        await source.capture().backfill(source.task, ["public.t"])
        for low in range(1, 3000, 100):
            source.run(
                f"delete from t where id between {low} and {low + 10}", f"insert into t values ({low})"
            )
        await out.until(
            lambda: any(record.op == SWEEP for record in out.records(source.collection("public.t")))
        )
        await source.caught_up(out)
        await settled(source, out)
    replica = source.replica(out, "public.t")
    assert {key for (key,) in replica.rows} == {id for (id,) in source.rows("select id from t")}
    ops = bytes(record.op for record in out.records(source.collection("public.t")))
    assert ops.count(b"b") == ops.count(b"s") == 1


async def test_check_names_the_cure_of_each_failure(source: Any) -> None:
    source.run("create table keyless (a int)", "create unlogged table u (id int primary key)")
    findings = {finding.what: finding for finding in await source.capture().check(source.task)}
    failed = [finding for finding in findings.values() if not finding.ok]
    assert len(failed) == 2
    assert any("REPLICA IDENTITY FULL" in finding.cure and "keyless" in finding.what for finding in failed)
    assert any("SET LOGGED" in finding.cure for finding in failed)


async def test_check_says_which_rights_are_missing(source: Any) -> None:
    role = f"{source.name}_reader"
    source.run(f"create role {role} login", "create table t (id int primary key)")
    try:
        dsn = make_conninfo(source.dsn, user=role)
        findings = await source.capture(dsn=Secret(dsn), tables=["public.t"]).check(source.task)
        cures = [finding.cure for finding in findings if not finding.ok]
        for cure in (
            f'ALTER ROLE "{role}" REPLICATION;',
            f'GRANT SELECT ON "public"."t" TO "{role}";',
            f'GRANT CREATE ON DATABASE "{source.name}" TO "{role}";',
            f'ALTER TABLE "public"."t" OWNER TO "{role}";',
        ):
            assert any(found.startswith(cure) for found in cures), (cure, cures)
    finally:
        source.run(f"drop role {role}")


async def test_08_for_all_tables_with_a_table_without_identity_is_named(source: Any) -> None:
    source.run("create table keyless (a int)", "create publication everything for all tables")
    findings = await source.capture(publication="everything", tables=["public.marks"]).check(source.task)
    (failed,) = [finding for finding in findings if not finding.ok]
    assert "public.keyless" in failed.what
    assert "UPDATE and DELETE fail" in failed.what


async def test_no_error_shows_the_password(source: Any) -> None:
    for dsn in ("host=127.0.0.1 port=1 password=sesame", "postgresql://u:sesame@[", "sesame sesame"):
        (finding, *_) = await source.capture(dsn=Secret(dsn)).check(source.task)
        assert not finding.ok
        assert "sesame" not in repr(finding)
