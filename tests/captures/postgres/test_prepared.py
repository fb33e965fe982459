"""Two-phase commit with `two_phase: true`: transactions that are sent at PREPARE, and count at COMMIT PREPARED."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import anyio
import msgspec
import pytest

from hub.errors import FatalError, TransientError
from hub_captures.postgres import connection, server

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.postgres_since(15, "transactions are sent at their PREPARE"),
    pytest.mark.postgres_also(17),
]


@pytest.fixture
def two_phase(source: Any) -> Iterator[Any]:
    """The source, without a prepared transaction left at the end, which would keep the database from being dropped."""
    yield source
    gone = f"select gid from pg_prepared_xacts where database = '{source.name}'"
    for (gid,) in source.rows(gone):
        source.run(f"rollback prepared '{gid}'")


def prepare(source: Any, name: str, *statements: str) -> str:
    """Run statements in one transaction and prepare it. The end of it, as `commit prepared` takes it."""
    gid = f"'{source.name}_{name}'"
    source.transaction(*statements, f"prepare transaction {gid}")
    return gid


def ids(source: Any, out: Any, table: str = "public.t") -> list[int]:
    return [record.doc["id"] for record in source.changes(out, table)]


def confirmed(source: Any) -> int:
    query = f"select (confirmed_flush_lsn - '0/0')::bigint from pg_replication_slots where slot_name = 'hub_{source.task}'"
    return int(source.rows(query)[0][0])


async def held(out: Any, count: int) -> None:
    """Wait until so many transactions are held by the capture."""
    await out.until(lambda: out.gauges.get("prepared_transactions") == count)


async def test_25_prepared_transactions_come_at_their_commit_and_never_when_rolled_back(
    two_phase: Any,
) -> None:
    source = two_phase
    out = await source.started(two_phase=True)
    async with source.capturing(out, two_phase=True, transactions=True):
        first = prepare(source, "1", "insert into t values (2, 'b')", "update t set b = 'z' where id = 1")
        second = prepare(source, "2", "insert into t values (3, 'c')")
        source.run("insert into t values (4, 'd')")
        third = prepare(source, "3", "insert into t values (5, 'e')")
        await held(out, 3)
        assert out.gauges["prepared_lag_bytes"] > 0
        source.run(f"commit prepared {third}", "insert into t values (6, 'f')")
        source.run(f"rollback prepared {second}", f"commit prepared {first}", "insert into t values (7, 'g')")
        await source.caught_up(out)
        await held(out, 0)
    assert ids(source, out) == [4, 5, 6, 2, 1, 7]
    changes = source.changes(out, "public.t")
    lsns = [record.meta["commit_lsn"] for record in changes]
    assert lsns == sorted(lsns)
    assert changes[3].meta["transaction_id"] == changes[4].meta["transaction_id"]
    accounts = [record.doc for record in out.records(source.collection("transactions"))]
    ends = [doc for doc in accounts if doc["status"] == "end" and doc["commit_lsn"] == lsns[3]]
    assert [doc["records"] for doc in ends] == [2]


async def test_25_killed_between_prepare_and_commit_every_transaction_comes_once(two_phase: Any) -> None:
    source = two_phase
    out = await source.started(two_phase=True)
    async with source.capturing(out, two_phase=True):
        source.run("insert into t values (2, 'before')")
        first = prepare(source, "1", "insert into t values (3, 'first')")
        source.run("insert into t values (4, 'between')")
        second = prepare(source, "2", "insert into t values (5, 'second')")
        await source.caught_up(out)
        await held(out, 2)
    prepared_lsn = out.durable.prepared_lsn
    assert prepared_lsn < out.durable.lsn
    source.run(f"commit prepared {second}", "insert into t values (6, 'away')")
    async with source.capturing(out, two_phase=True, status_interval=1):
        await source.caught_up(out)
        await held(out, 1)
        await anyio.sleep(1.2)
        assert confirmed(source) <= prepared_lsn
    async with source.capturing(out, two_phase=True, status_interval=1):
        source.run(f"commit prepared {first}", "insert into t values (7, 'after')")
        await source.caught_up(out)
        while confirmed(source) <= prepared_lsn:  # noqa: ASYNC110  the server says nothing of itself
            await anyio.sleep(0.05)
    assert ids(source, out) == [2, 4, 5, 6, 3, 7]
    assert out.durable.prepared_lsn is None


async def test_25_killed_at_any_record_sent_every_transaction_comes_once(two_phase: Any) -> None:
    source = two_phase
    out = await source.started(two_phase=True)
    pick = random.Random(25)
    open_gids: list[tuple[str, list[int]]] = []
    expected: list[int] = []
    key = 10

    def act() -> None:
        nonlocal key
        keys = [key, key + 1]
        key += 2
        rows = ", ".join(f"({each}, 'x')" for each in keys)
        if pick.random() < 0.4:
            source.run(f"insert into t values {rows}")
            expected.extend(keys)
        elif pick.random() < 0.6 or not open_gids:
            open_gids.append((prepare(source, str(key), f"insert into t values {rows}"), keys))
        else:
            gid, wrote = open_gids.pop(pick.randrange(len(open_gids)))
            commits = pick.random() < 0.7
            source.run(f"{'commit' if commits else 'rollback'} prepared {gid}")
            expected.extend(wrote if commits else [])
        if len(open_gids) > 3:
            gid, wrote = open_gids.pop(0)
            source.run(f"commit prepared {gid}")
            expected.extend(wrote)

    for _ in range(12):
        until_killed = pick.randint(1, 5)

        def kill(batches: Any, position: Any) -> None:
            nonlocal until_killed
            until_killed -= bool(batches)
            if until_killed <= 0:
                raise TransientError("killed")

        out.on_send = kill
        for _ in range(3):
            act()
        with pytest.raises(BaseExceptionGroup):
            async with source.capturing(out, two_phase=True, batch=1):
                while True:
                    act()
                    await anyio.sleep(pick.random() / 20)
    out.on_send = lambda batches, position: None
    for gid, wrote in open_gids:
        source.run(f"commit prepared {gid}")
        expected.extend(wrote)
    open_gids.clear()
    async with source.capturing(out, two_phase=True):
        await source.caught_up(out)
    assert ids(source, out) == expected


async def test_25_a_crashed_server_keeps_what_is_prepared(source: Any) -> None:
    with source.server.another() as machine:
        machine.run("create table marks (id text primary key)")
        own = type(source)(machine, "postgres", machine.dsn)
        out = await own.started(two_phase=True)
        errors: list[BaseException] = []

        async def run() -> None:
            try:
                await own.capture(two_phase=True).run(out.crash(), out)
            except TransientError as error:
                errors.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            first = prepare(own, "1", "insert into t values (2, 'first')")
            second = prepare(own, "2", "insert into t values (3, 'second')")
            own.run("insert into t values (4, 'between')")
            await own.caught_up(out)
            await held(out, 2)
            machine.kill()
        assert len(errors) == 1
        machine.start()
        own.run("insert into t values (5, 'after')", f"commit prepared {second}")
        async with own.capturing(out, two_phase=True):
            await own.caught_up(out)
            own.run(f"commit prepared {first}")
            await own.caught_up(out)
        assert ids(own, out) == [4, 5, 3, 2]


@pytest.mark.parametrize("streaming", [False, True])
async def test_25_a_large_prepared_transaction_waits_in_a_file(
    two_phase: Any, monkeypatch: pytest.MonkeyPatch, *, streaming: bool
) -> None:
    source = two_phase
    monkeypatch.setitem(connection._WALSENDER_SETTINGS, "logical_decoding_work_mem", "64kB")
    options = {"two_phase": True, "streaming": streaming, "batch": 64 * 1024}
    out = await source.started(**options)
    large = "insert into t select g, repeat('x', 100) from generate_series({}, {}) g"
    async with source.capturing(out, **options):
        first = prepare(
            source,
            "1",
            large.format(10_001, 13_000),
            "savepoint s",
            large.format(20_001, 23_000),
            "rollback to savepoint s",
            large.format(30_001, 33_000),
        )
        second = prepare(source, "2", large.format(40_001, 43_000))
        source.run("insert into t values (2, 'between')")
        await held(out, 2)
        assert out.gauges["spooled_bytes"] > 9_000 * 100
    async with source.capturing(out, **options):
        await held(out, 2)
        source.run(f"rollback prepared {second}", f"commit prepared {first}")
        await source.caught_up(out)
        await out.until(lambda: out.gauges["spooled_bytes"] == 0)
    assert ids(source, out) == [2, *range(10_001, 13_001), *range(30_001, 33_001)]
    streamed = f"select stream_txns from pg_stat_replication_slots where slot_name = 'hub_{source.task}'"
    assert (source.rows(streamed)[0][0] > 0) is streaming


async def test_25_prepared_transactions_beside_a_snapshot_leave_no_wrong_row(
    two_phase: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = two_phase
    monkeypatch.setattr("hub_captures.postgres.copier.CHUNK_ROWS_FIRST", 200)
    monkeypatch.setattr("hub_captures.postgres.copier.CHUNK_ROWS_MAX", 200)
    source.run(
        "create table t (id int primary key, b text)",
        "insert into t select g, 'old' from generate_series(1, 4000) g",
        "create table marks_of_slot (id int primary key)",
    )
    pick = random.Random(7)
    open_gids: list[str] = []

    def act(number: int) -> None:
        if len(open_gids) > 3:
            gid = open_gids.pop(pick.randrange(len(open_gids)))
            source.run(f"{'commit' if pick.random() < 0.8 else 'rollback'} prepared {gid}")
        # Each transaction has rows of its own: prepared ones lock what they have written.
        keys = [number + 50 * pick.randrange(80) for _ in range(3)]
        statements = [
            f"update t set b = 'by {number}' where id = {keys[0] + 1}",
            f"delete from t where id = {keys[1] + 1}",
            f"insert into t values ({5000 + number}, 'new')",
        ]
        open_gids.append(prepare(source, f"{number}", *statements))

    async with source.capturing(two_phase=True) as out:
        await out.until(lambda: bool(out.frames))
        for number in range(50):
            act(number)
            await anyio.sleep(0.005)
        for gid in open_gids:
            source.run(f"commit prepared {gid}")
        await source.copied(out, "public.t")
        await source.caught_up(out)
        await source.settled(out)
    replica = source.replica(out, "public.t")
    assert replica.faults == []
    there = {(key,): text for key, text in source.rows("select id, b from t")}
    assert {key: row["b"] for key, row in replica.rows.items()} == there


async def test_25_what_was_prepared_before_the_slot_was_told_so_comes_at_its_commit(two_phase: Any) -> None:
    source = two_phase
    source.run("create table t (id int primary key, b text)")
    async with source.capturing() as out:
        await source.copied(out, "public.t")
        await source.caught_up(out)
    first = prepare(source, "1", "insert into t values (2, 'without')")
    async with source.capturing(out):
        source.run("insert into t values (3, 'passed')")
        await source.caught_up(out)
    async with source.capturing(out, two_phase=True):
        second = prepare(source, "2", "insert into t values (4, 'with')")
        await held(out, 1)
        source.run(f"commit prepared {first}")
        await source.caught_up(out)
    third = prepare(source, "3", "insert into t values (5, 'with again')")
    async with source.capturing(out, two_phase=False):
        source.run(f"commit prepared {second}", f"commit prepared {third}")
        await source.caught_up(out)
    assert ids(source, out) == [3, 2, 4, 5]
    assert any("two_phase is off" in text for text, _ in out.notices)


async def test_49_a_slot_that_waits_for_a_prepared_transaction_says_for_which(
    two_phase: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = two_phase
    monkeypatch.setattr("hub_captures.postgres.start.WAIT_NOTICE_S", 0.05)
    monkeypatch.setattr("hub_captures.postgres.checks._OLD_S", 0.0)
    source.run("create table t (id int primary key, b text)")
    gid = prepare(source, "1", "insert into t values (1, 'a')")
    findings = await source.capture().check(source.task)
    assert any(f"COMMIT PREPARED {gid}" in finding.cure for finding in findings if not finding.ok)
    async with source.capturing() as out:
        await out.until(lambda: any(fields.get("gid") == gid.strip("'") for _, fields in out.notices))
        source.run(f"commit prepared {gid}")
        await source.copied(out, "public.t")


async def test_25_a_table_altered_inside_a_prepared_transaction_is_read_as_each_row_was(
    two_phase: Any,
) -> None:
    source = two_phase
    out = await source.started(two_phase=True)
    changes = (
        "insert into t values ({0}, 'old')",
        "alter table t add column c int",
        "insert into t values ({1}, 'new', 7)",
    )
    async with source.capturing(out, two_phase=True):
        source.run("insert into t values (2, 'b')")
        void = prepare(source, "1", *[each.format(3, 4) for each in changes])
        await held(out, 1)
        source.run(f"rollback prepared {void}", "insert into t values (5, 'e')")
        kept = prepare(source, "2", *[each.format(6, 7) for each in changes])
        await held(out, 1)
        source.run(f"commit prepared {kept}", "insert into t values (8, 'h', 9)")
        await source.caught_up(out)
    docs = [record.doc for record in source.changes(out, "public.t")]
    assert docs == [
        {"id": 2, "b": "b"},
        {"id": 5, "b": "e"},
        {"id": 6, "b": "old"},
        {"id": 7, "b": "new", "c": 7},
        {"id": 8, "b": "h", "c": 9},
    ]


async def test_25_a_column_list_changed_meanwhile_lays_out_neither_the_old_rows_nor_the_new_ones_wrongly(
    two_phase: Any,
) -> None:
    source = two_phase
    source.run(
        "create table t (id int primary key, b text, c int)",
        "create publication given for table t (id, b), marks",
    )
    options = {"two_phase": True, "publication": "given", "snapshot": "never"}
    async with source.capturing(**options) as out:
        await out.until(lambda: bool(out.frames))
        source.run("insert into t values (1, 'a', 1)")
        gid = prepare(source, "1", "insert into t values (2, 'b', 2)")
        await held(out, 1)
        source.run("alter publication given set table t, marks", "insert into t values (3, 'c', 3)")
        source.run(f"commit prepared {gid}", "insert into t values (4, 'd', 4)")
        await source.caught_up(out)
    assert [record.doc for record in source.changes(out, "public.t")] == [
        {"id": 1, "b": "a"},
        {"id": 3, "b": "c", "c": 3},
        {"id": 2, "b": "b"},
        {"id": 4, "b": "d", "c": 4},
    ]


async def test_25_a_table_made_inside_a_prepared_transaction_is_taken_up(two_phase: Any) -> None:
    source = two_phase
    source.run("create publication given for all tables")
    async with source.capturing(two_phase=True, publication="given") as out:
        await source.copied(out, "public.marks")
        gid = prepare(source, "1", "create table made (id int primary key)", "insert into made values (1)")
        await held(out, 1)
        source.run(f"commit prepared {gid}", "insert into made values (2)")
        await source.copied(out, "public.made")
        await source.caught_up(out)
        await source.settled(out)
    replica = source.replica(out, "public.made")
    assert (sorted(replica.rows), replica.faults) == ([(1,), (2,)], [])


async def test_25_a_commit_whose_rows_somebody_else_has_read_stops_the_capture(two_phase: Any) -> None:
    source = two_phase
    out = await source.started(two_phase=True)
    gid = prepare(source, "1", "insert into t values (2, 'b')")
    source.run("insert into t values (3, 'c')")
    slot = f"hub_{source.task}"
    async with source.capturing(out, two_phase=True, status_interval=1):
        await source.caught_up(out)
        await held(out, 1)
    # As a position would be that somebody has edited.
    out.durable = msgspec.structs.replace(out.durable, prepared_lsn=None)
    source.run(f"select pg_replication_slot_advance('{slot}', pg_current_wal_lsn())")
    source.run(f"commit prepared {gid}")
    with anyio.fail_after(30), pytest.raises(FatalError, match="somebody else"):
        await source.capture(two_phase=True).run(out.crash(), out)


async def test_25_the_check_says_what_becomes_of_a_slot(two_phase: Any) -> None:
    source = two_phase
    source.run("create table t (id int primary key, b text)")
    async with source.capturing() as out:
        await source.copied(out, "public.t")
    findings = await source.capture(two_phase=True).check(source.task)
    assert any("is told at the next start" in finding.what for finding in findings)
    async with source.capturing(out, two_phase=True):
        await source.caught_up(out)
    async with source.capture().server(source.task).connected() as query:
        slot = await server.slot_of(query, f"hub_{source.task}")
    assert slot is not None
    assert slot.two_phase
    findings = await source.capture().check(source.task)
    assert any("will go on so" in finding.what for finding in findings)


async def test_25_a_slot_that_sends_at_prepare_is_not_known_to_standbys_on_17(two_phase: Any) -> None:
    source = two_phase
    if source.server.version != 17:
        pytest.skip("only PostgreSQL 17 has both and does not know how they go together")
    how = f"select two_phase, failover from pg_replication_slots where slot_name = 'hub_{source.task}'"
    out = await source.started()
    assert source.rows(how) == [(False, True)]
    error = await source.fails(out, two_phase=True, failover=True)
    assert "set failover: false" in str(error)
    async with source.capturing(out, two_phase=True, failover=False):
        await source.caught_up(out)
        assert source.rows(how) == [(True, False)]
    error = await source.fails(out)
    assert "set failover: false" in str(error)
    findings = await source.capture().check(source.task)
    assert [finding.cure for finding in findings if not finding.ok and "failover: false" in finding.cure]
    async with source.capturing(out, failover=False):
        source.run("insert into t values (2, 'b')")
        await source.caught_up(out)
    assert ids(source, out) == [2]
