"""No table is published when that would make the application's UPDATE and DELETE fail."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from hub.errors import ConfigError
from hub.options import Secret
from hub_captures.postgres.capture import TableOptions

pytestmark = pytest.mark.anyio
parts = pytest.mark.postgres_since(15, "publications have columns and conditions")

BARE = {
    "no key": ("create table t (id int, x text)",),
    "identity nothing": (
        "create table t (id int primary key, x text)",
        "alter table t replica identity nothing",
    ),
    "a deferrable key": ("create table t (id int primary key deferrable, x text)",),
    "a deferrable key of partitions": (
        "create table t (id int primary key deferrable, x text) partition by range (id)",
        "create table t0 partition of t for values from (0) to (100)",
    ),
    "an index that is gone": (
        "create table t (id int not null, x text)",
        "create unique index t_id on t (id)",
        "alter table t replica identity using index t_id",
        "drop index t_id",
    ),
    "only the root of partitions": (
        "create table t (id int, x text) partition by range (id)",
        "create table t0 partition of t for values from (0) to (100)",
        "alter table t replica identity full",
    ),
}
SOUND = {
    "the primary key": TableOptions(name="public.t", columns=["id", "x"], where="id > 0"),
    "everything": TableOptions(name="public.t"),
    "full": TableOptions(name="public.full_t", where="x <> 'secret'"),
}
HARMFUL = {
    "where": TableOptions(name="public.t", where="x <> 'secret'"),
    "columns": TableOptions(name="public.t", columns=["x"]),
    "columns and full": TableOptions(name="public.full_t", columns=["id", "x"]),
}


def unwritten(source: Any) -> None:
    """The application goes on."""
    source.run("insert into t values (1, 'a')", "update t set x = 'b'", "delete from t")


@pytest.mark.parametrize("how", BARE)
async def test_a_table_without_identity_is_left_out_until_it_has_one(source: Any, how: str) -> None:
    source.run("create table early (id int)", "insert into early values (1)")
    async with source.capturing(refresh_interval=0.05) as out:
        await out.until(lambda: bool(out.frames))
        source.run("update early set id = 2", *BARE[how])
        await out.until(lambda: out.gauges.get("tables_left_out") == 2)
        unwritten(source)
        said = [fields["table"] for message, fields in out.notices if message == "a table is left out"]
        assert said == ["public.early", "public.t"]
        source.run("insert into t values (2, 'c')")
        source.run("alter table early replica identity full")
        await source.copied(out, "public.early")
        assert out.gauges["tables_left_out"] == 1


@pytest.mark.parametrize("tables", [["public.p"], ["public.*"]])
async def test_a_child_by_inheritance_is_published_for_its_own_sake_only(
    source: Any, tables: list[str]
) -> None:
    source.run("create table p (id int primary key, x text)", "create table t (y int) inherits (p)")
    async with source.capturing(tables=[*tables, "public.marks"]) as out:
        source.run("insert into p values (1, 'a')")
        unwritten(source)
        await source.caught_up(out)
    listed = {row[0] for row in source.rows("select tablename from pg_publication_tables")}
    assert listed == {"p", "marks"}
    async with source.capturing(out, tables=["public.marks"]):
        await source.caught_up(out)
    assert [row[0] for row in source.rows("select tablename from pg_publication_tables")] == ["marks"]


async def test_a_table_that_somebody_has_locked_does_not_hold_up_the_capture_of_others(source: Any) -> None:
    source.run("create table t (id int primary key, x text)")
    with source.connect() as holder:
        holder.execute("begin; lock table t in share update exclusive mode")
        async with source.capturing(refresh_interval=1) as out:
            await source.caught_up(out)
            assert {fields.get("table") for what, fields in out.notices if "not captured yet" in what} == {
                "public.t"
            }
            source.run("insert into t values (3, 'c')")
            holder.execute("commit")
            await source.copied(out, "public.t")
            await source.caught_up(out)
    assert {key[0] for key in source.replica(out, "public.t").rows} == {3}


async def test_a_strangers_table_is_left_out_until_it_may_be_published(source: Any) -> None:
    user = f"{source.name}_user"
    source.run(
        f"create role {user} login replication",
        f"grant create on database {source.name} to {user}",
        f"alter table marks owner to {user}",
        "create table t (id int primary key, x text)",
    )
    dsn = Secret(source.dsn.replace("user=postgres", f"user={user}"))
    try:
        async with source.capturing(dsn=dsn, refresh_interval=0.05) as out:
            await source.copied(out, "public.marks")
            source.run("create table u (id int primary key)")
            await out.until(lambda: out.gauges.get("tables_left_out") == 2)
            cures = [fields["cure"] for message, fields in out.notices if message == "a table is left out"]
            assert all("OWNER TO" in cure for cure in cures)
            source.run(f"alter table t owner to {user}", f"alter table u owner to {user}")
            await source.copied(out, "public.t", "public.u")
            assert out.gauges["tables_left_out"] == 0
    finally:
        source.run(f"drop owned by {user} cascade", f"revoke all on database {source.name} from {user}")
        source.run(f"drop role {user}")


@pytest.mark.parametrize("how", BARE)
async def test_a_table_without_identity_that_is_named_is_an_error(source: Any, how: str) -> None:
    source.run(*BARE[how])
    out = source.outlet()
    with anyio.fail_after(30), pytest.raises(ConfigError, match=r"public\.t has no replica identity"):
        await source.capture(tables=["public.t"]).run(None, out)
    unwritten(source)
    assert source.rows(
        "select count(*) from pg_replication_slots where slot_name like '%" + source.task + "'"
    ) == [(0,)]
    findings = await source.capture(tables=["public.t"]).check(out.task)
    assert [finding.what for finding in findings if "replica identity" in finding.what and not finding.ok]


@parts
@pytest.mark.parametrize("how", HARMFUL)
async def test_options_under_which_updates_would_fail_are_an_error(source: Any, how: str) -> None:
    source.run(
        "create table t (id int primary key, x text)",
        "create table full_t (id int, x text)",
        "alter table full_t replica identity full",
    )
    out = source.outlet()
    with anyio.fail_after(30), pytest.raises(ConfigError, match="UPDATE and DELETE fail in the application"):
        await source.capture(tables=[HARMFUL[how]]).run(None, out)
    for table in ("t", "full_t"):
        source.run(f"insert into {table} values (1, 'a')", f"update {table} set x = 'b'")


@parts
@pytest.mark.parametrize("how", SOUND)
async def test_options_that_leave_the_identity_whole_are_fine(source: Any, how: str) -> None:
    source.run(
        "create table t (id int primary key, x text)",
        "create table full_t (id int, x text)",
        "alter table full_t replica identity full",
    )
    name = SOUND[how].name
    async with source.capturing(tables=[SOUND[how], "public.marks"]) as out:
        await source.copied(out, name)
        source.run(f"insert into {name} values (1, 'a')", f"update {name} set x = 'b'", f"delete from {name}")
        await source.caught_up(out)
        assert [chr(record.op) for record in source.changes(out, name)] == ["c", "u", "d"]


@pytest.mark.parametrize("running", [True, False])
async def test_a_published_table_that_loses_its_identity_stays_and_it_is_said(
    source: Any, running: bool
) -> None:
    source.run("create table t (id int primary key, x text)", "insert into t values (1, 'a')")
    async with source.capturing() as out:
        await source.copied(out, "public.t")
        await source.caught_up(out)
    if not running:
        source.run("alter table t drop constraint t_pkey")
    async with source.capturing(out, refresh_interval=0.05):
        if running:
            source.run("alter table t drop constraint t_pkey")
        await out.until(lambda: any(m == "a table is published all the same" for m, _ in out.notices))
        source.run("insert into t values (2, 'b')")
        await source.caught_up(out)
    assert source.changes(out, "public.t")[-1].doc == {"id": 2, "x": "b"}
