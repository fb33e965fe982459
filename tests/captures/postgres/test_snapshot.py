"""The snapshot: every kind of key, rows that move, and tables that change while they are read."""

from __future__ import annotations

import contextlib
from typing import Any

import anyio
import psycopg
import pytest

from hub.errors import FatalError, TransientError
from hub.options import Secret
from hub.record import READ
from hub.testing.postgres import temporary_database
from hub_captures.postgres import connection, snapshot

pytestmark = pytest.mark.anyio

KEYS = {
    "integer": ("id int primary key", "{n}"),
    "negative and large integers": ("id bigint primary key", "({n} - 1500) * 1000000007::bigint"),
    "text under C": ("id text primary key", "'k' || {n}"),
    "text under a linguistic collation": (
        'id text collate "unicode" primary key',
        "chr(97 + {n} % 26) || {n} || 'É'",
    ),
    "uuid": ("id uuid primary key", "md5({n}::text)::uuid"),
    "numeric": ("id numeric primary key", "({n} - 1500) / 10.0"),
    "timestamp with infinity": (
        "id timestamptz primary key",
        "case {n} when 1 then '-infinity' when 2 then '0044-03-15 00:00:00+00 BC' when 3000 then 'infinity' "
        "else timestamptz '2024-01-01' + {n} * interval '0.7 seconds' end",
    ),
    "bytea": ("id bytea primary key", "decode(md5({n}::text), 'hex')"),
    "unique index without a primary key": ("id int not null unique", "{n}"),
    "case-insensitive text of an extension": ("id citext primary key", "'K' || {n}"),
    "composite": ("id int, k text, primary key (k, id)", "{n}, 'k' || {n} % 7"),
}


async def settled(out: Any) -> None:
    await out.until(lambda: bool(out.frames) and out.frames[-1].position.is_settled)


def linguistic_collation(source: Any) -> str:
    """A collation of this server that orders texts otherwise than by their bytes, or by a rule that Python lacks."""
    for name in ("unicode", "pg_unicode_fast", "und-x-icu"):
        with contextlib.suppress(psycopg.Error):
            if source.rows(f"select 'a' < 'B' collate \"{name}\""):
                return name
    pytest.skip("this server has no collation but the order of bytes")


@pytest.mark.parametrize("kind", KEYS)
async def test_57_every_kind_of_key_is_copied_exactly_beside_changes(
    source: Any, kind: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr("hub_captures.postgres.copier.CHUNK_ROWS_FIRST", 300)
    monkeypatch.setattr("hub_captures.postgres.copier.CHUNK_ROWS_MAX", 300)
    definition, value = KEYS[kind]
    columns = "id, k, v" if kind == "composite" else "id, v"
    if '"unicode"' in definition:
        definition = definition.replace('"unicode"', f'"{linguistic_collation(source)}"')
    source.run(
        "create extension citext",
        f"create table t ({definition}, v int)".replace(
            "primary key (k, id), v int", "v int, primary key (k, id)"
        ),
    )
    if kind.startswith("unique"):
        source.run("alter table t replica identity full")
    source.run(
        f"insert into t ({columns}) select {value.format(n='n')}, 0 from generate_series(1, 3000) n where n % 3 > 0"
    )
    async with source.capturing() as out:
        # The changes fall into the copy, at keys before and behind the cursor.
        await out.until(lambda: out.count_records(source.collection("public.t")) > 0)
        with source.connect() as connection:
            for n in (3, 900, 1500, 2700, 2999):
                connection.execute(
                    f"insert into t ({columns}) select {value.format(n=n)}, 1 on conflict do nothing".encode()
                )
                connection.execute(
                    f"update t set v = v + 1 where ctid in (select ctid from t offset {n // 2} limit 5)"
                )
                connection.execute(
                    f"delete from t where ctid in (select ctid from t offset {n // 3} limit 5)".encode()
                )
                await anyio.sleep(0.005)
        await source.caught_up(out)
        await settled(out)
    key = ("k", "id") if kind == "composite" else ("id",)
    replica = source.replica(out, "public.t", key)
    assert replica.faults == []
    expected = [row[0] for row in source.rows("select v from t")]
    assert sorted(row["v"] for row in replica.rows.values()) == sorted(expected)
    if "extension" not in kind:
        assert sum(record.op == READ for record in out.records(source.collection("public.t"))) > 0
        batches = [
            batch for batch in out.batches(source.collection("public.t")) if batch.shared.get("snapshot")
        ]
        assert len(batches) > 3


async def test_57_a_table_without_key_is_read_in_one_state(source: Any) -> None:
    source.run(
        "create table t (a int, b text)",
        "alter table t replica identity full",
        "insert into t select n, 'x' from generate_series(1, 3000) n",
    )
    async with source.capturing(chunk=64 * 1024) as out:
        source.run("insert into t values (0, 'new')", "delete from t where a = 1")
        await source.caught_up(out)
        await settled(out)
    rows: list[Any] = []
    for record in out.records(source.collection("public.t")):
        rows.remove(record.doc) if chr(record.op) == "d" else rows.append(record.doc)
    assert sorted(row["a"] for row in rows) == sorted(row[0] for row in source.rows("select a from t"))


class Gate:
    """Lets a test act between two chunks."""

    def __init__(self, monkeypatch: Any, at_chunk: int) -> None:
        self.reached, self.opened = anyio.Event(), anyio.Event()
        self.count = 0
        read = snapshot.read_chunk

        async def gated(connection: Any, wanted: Any, *rest: Any) -> Any:
            if wanted.cursor is not None:
                self.count += 1
                if self.count == at_chunk and not self.opened.is_set():
                    self.reached.set()
                    raise snapshot.NotYet
                if self.count > at_chunk and not self.opened.is_set():
                    raise snapshot.NotYet
            return await read(connection, wanted, *rest)

        monkeypatch.setattr("hub_captures.postgres.copier.read_chunk", gated)
        monkeypatch.setattr("hub_captures.postgres.copier.CHUNK_ROWS_FIRST", 100)
        monkeypatch.setattr("hub_captures.postgres.copier.CHUNK_ROWS_MAX", 100)


async def in_the_middle(source: Any, out: Any, gate: Gate, *statements: str) -> None:
    """Run statements while the copy of `t` stands, and let the stream bring them before it goes on."""
    with anyio.fail_after(30):
        await gate.reached.wait()
    source.run(*statements)
    ((end,),) = source.rows("select (pg_current_wal_lsn() - '0/0')::bigint")
    source.run("insert into marks values ('in the middle')")
    await out.until(lambda: bool(out.frames) and out.frames[-1].position.lsn >= end)
    gate.opened.set()


async def copied_around(source: Any, monkeypatch: Any, *statements: str, **options: Any) -> Any:
    """A copy of 1,000 rows with statements after its first chunk."""
    source.run(
        "create table t (id int primary key, v int)",
        "insert into t select n, 0 from generate_series(1, 1000) n",
    )
    gate = Gate(monkeypatch, 1)
    async with source.capturing(tables=["public.t", "public.marks"], **options) as out:
        await in_the_middle(source, out, gate, *statements)
        await settled(out)
        await source.caught_up(out)
    return out


def equal(source: Any, out: Any) -> None:
    replica = source.replica(out, "public.t")
    assert replica.faults == []
    assert {key[0] for key in replica.rows} == {row[0] for row in source.rows("select id from t")}
    assert sorted(row["v"] for row in replica.rows.values()) == sorted(
        row[0] for row in source.rows("select v from t")
    )


async def test_59_rows_behind_and_before_the_cursor(source: Any, monkeypatch: Any) -> None:
    out = await copied_around(
        source,
        monkeypatch,
        "delete from t where id in (50, 500)",
        "insert into t values (50, 7), (0, 7), (5000, 7)",
        "update t set v = 3 where id in (51, 501)",
    )
    equal(source, out)
    kinds = {(chr(record.op), record.doc["id"]) for record in source.changes(out, "public.t")}
    assert ("d", 50) in kinds
    assert ("d", 500) not in kinds
    assert ("u", 501) not in kinds


async def test_60_a_row_that_crosses_the_cursor_and_back(source: Any, monkeypatch: Any) -> None:
    out = await copied_around(
        source,
        monkeypatch,
        "update t set id = 2000, v = 1 where id = 50",
        "update t set id = 60000, v = 2 where id = 60",
        "update t set id = 60, v = 3 where id = 60000",
        "update t set id = -5, v = 4 where id = 700",
    )
    equal(source, out)


async def test_61_truncated_in_the_middle(source: Any, monkeypatch: Any) -> None:
    out = await copied_around(
        source, monkeypatch, "begin; truncate t; insert into t values (5, 5), (900, 9); commit"
    )
    equal(source, out)


async def test_61_altered_in_the_middle(source: Any, monkeypatch: Any) -> None:
    out = await copied_around(
        source,
        monkeypatch,
        "alter table t add w int default 9",
        "insert into t values (-1, 1, 2), (2000, 2, 2)",
    )
    equal(source, out)
    names = [
        [column.name for column in schema.columns()] for schema in out.schemas(source.collection("public.t"))
    ]
    assert names[0] == ["id", "v"]
    assert names[-1] == ["id", "v", "w"]


@pytest.mark.parametrize(
    "statement",
    [
        "alter table t alter v type text using 'n' || v",
        "alter table t add w int default 9",
        "alter table t add w uuid default gen_random_uuid()",
    ],
)
async def test_61_rewritten_in_the_middle_also_the_rows_that_were_read_are_read_again(
    source: Any, monkeypatch: Any, statement: str
) -> None:
    out = await copied_around(source, monkeypatch, statement)
    assert out.counts["resnapshots"] == 1
    rows = source.replica(out, "public.t").rows
    for row in source.rows("select to_jsonb(t) from t"):
        assert rows[(row[0]["id"],)] == row[0]


async def test_61_dropped_in_the_middle(source: Any, monkeypatch: Any) -> None:
    source.run(
        "create table t (id int primary key, v int)",
        "insert into t select n, 0 from generate_series(1, 1000) n",
    )
    gate = Gate(monkeypatch, 1)
    async with source.capturing() as out:
        await in_the_middle(source, out, gate, "drop table t")
        await settled(out)
        await source.caught_up(out)
    assert any("gone" in message for message, _ in out.notices)


@pytest.mark.parametrize("running", [True, False])
async def test_61_a_table_whose_order_only_the_server_knows_is_dropped_in_the_middle(
    source: Any, monkeypatch: Any, running: bool
) -> None:
    source.run(
        "create table t (id numeric primary key, v int)",
        "insert into t select n, 0 from generate_series(1, 1000) n",
    )
    gate = Gate(monkeypatch, 1)
    statements = ("update t set v = 1 where id in (5, 500)", "drop table t")
    async with source.capturing() as out:
        with anyio.fail_after(30):
            await gate.reached.wait()
        if running:
            await in_the_middle(source, out, gate, *statements)
            await settled(out)
            await source.caught_up(out)
    if not running:
        source.run(*statements)
        gate.opened.set()
        async with source.capturing(out):
            await source.caught_up(out)
            await settled(out)


async def test_57_text_that_the_server_orders_by_the_bytes_of_another_encoding(
    source: Any, postgres_server: Any, monkeypatch: Any
) -> None:
    name = f"{source.name}_koi8"
    with temporary_database(postgres_server, name, "encoding koi8r template template0 locale 'C'") as dsn:
        russian = type(source)(postgres_server, name, dsn)
        russian.run(
            "create table marks (id text primary key)",
            "create table t (id text primary key, v int)",
            "insert into t select chr(n), 0 from generate_series(192, 255) n",
        )
        gate = Gate(monkeypatch, 1)
        for limit in ("CHUNK_ROWS_FIRST", "CHUNK_ROWS_MAX"):
            monkeypatch.setattr(f"hub_captures.postgres.copier.{limit}", 10)
        async with russian.capturing() as out:
            await in_the_middle(russian, out, gate, "update t set v = 1")
            await settled(out)
            await russian.caught_up(out)
        equal(russian, out)


async def test_62_what_came_before_a_timeout_is_kept(source: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("hub_captures.postgres.copier.CHUNK_ROWS_FIRST", 100_000)
    monkeypatch.setitem(connection._SETTINGS, "statement_timeout", "1s")
    where = snapshot._where
    # One row takes longer than a statement may.
    monkeypatch.setattr(
        snapshot,
        "_where",
        lambda conditions: where([*conditions, "(id <> 40000 or (select true from pg_sleep(9)))"]),
    )
    source.run("create table t (id int primary key)", "insert into t select generate_series(1, 60000)")
    out = source.outlet()
    with pytest.raises(TransientError, match="statement timeout"), anyio.fail_after(30):
        await source.capture(tables=["public.t"]).run(None, out)
    (state,) = out.frames[-1].position.copying.values()
    assert 0 < state.rows < 40_000
    assert state.chunks[-1].upper == (str(state.rows),)


async def test_rows_that_a_policy_hides_are_an_error_and_not_missing(source: Any) -> None:
    role = f"reader_{source.name}"
    source.run(
        "create table t (id int primary key, owner text)",
        "insert into t values (1, 'a'), (2, 'b')",
        "alter table t enable row level security",
        "create policy own on t using (owner = 'a')",
        f"create role {role} login replication",
        f"grant select on all tables in schema public to {role}",
        "create publication chosen for table t with (publish_via_partition_root = true)",
    )
    try:
        capture = source.capture(
            dsn=Secret(f"{source.dsn} user={role}"), tables=["public.t"], publication="chosen"
        )
        failed = [finding for finding in await capture.check(source.task) if not finding.ok]
        assert [finding.cure for finding in failed] == [f'ALTER ROLE "{role}" BYPASSRLS;']
        with pytest.raises(FatalError, match="row-level security"), anyio.fail_after(30):
            await capture.run(None, source.outlet())
    finally:
        source.run(f"drop owned by {role}", f"drop role {role}")


@pytest.mark.parametrize("is_written", [False, True])
async def test_a_copy_that_is_far_ahead_of_the_stream_waits_for_it(
    source: Any, monkeypatch: Any, is_written: bool
) -> None:
    source.run(
        "create table t (id int primary key, v int)",
        "insert into t select n, 0 from generate_series(1, 300) n",
    )
    for limit in ("CHUNK_ROWS_FIRST", "CHUNK_ROWS_MAX"):
        monkeypatch.setattr(f"hub_captures.postgres.copier.{limit}", 10)
    monkeypatch.setattr("hub_captures.postgres.handover.CHUNKS_MAX", 3)
    async with source.capturing() as out:
        if is_written:
            for number in range(1, 200):
                source.run(f"update t set v = {number} where id % 3 = {number % 3}")
                await anyio.lowlevel.checkpoint()
        await settled(out)
        await source.caught_up(out)
    chunks = [
        len(state.chunks)
        for frame in out.frames
        if frame.position is not None
        for state in frame.position.copying.values()
    ]
    assert 0 < max(chunks) <= 3
    replica = source.replica(out, "public.t")
    assert replica.faults == []
    assert {key[0]: row["v"] for key, row in replica.rows.items()} == dict(source.rows("select id, v from t"))
