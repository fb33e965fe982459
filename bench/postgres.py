"""PostgreSQL into the durable log, without a sink: the stream beside `pg_recvlogical > /dev/null`, the snapshot
beside a raw COPY, one huge transaction, TLS, and the time from COMMIT to the log. `bench.pipeline` goes on from
there to DuckDB and PostgreSQL.

The stream is read from copies of one slot, so every reader sees the same WAL. Each reader is a process of its own,
set up as `hub run` is, and takes turns with its peer, as the machine is seldom the same twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
import psycopg
import trustme

from bench.result import Result
from hub.log import Log
from hub.options import Secret
from hub.record import TaskName
from hub.runtime.events import Events
from hub.runtime.outlet import LogOutlet
from hub.runtime.process import tuned
from hub.telemetry import TaskStats
from hub.testing.postgres import PostgresMissing, PostgresServer
from hub_captures.postgres import PostgresCapture

SNAPSHOT_ROWS = 1_000_000
MANY_TABLES = 10_000
HUGE_ROWS = 1_000_000
LATENCY_S = 10.0
LATENCY_RATE_PER_S = 1_000
RUNS = 3
TLS_ROWS = 500_000
TICK_S = 0.005
"""How often the event loop is asked whether it still answers."""

TABLE = """
create table {name} (id bigint primary key, a int, b text, c numeric(12,2), d double precision, e boolean,
  f timestamptz, g date, h uuid, i jsonb, j text)
"""
ROWS = """
insert into {name} select i, i % 1000, 'name ' || i, (i % 100000) / 100.0, i * 1.5, i % 2 = 0,
  timestamptz '2026-01-01 00:00:00+00' + i * interval '1 second', date '2026-01-01' + (i % 365)::int,
  gen_random_uuid(), jsonb_build_object('n', i, 'tag', 'value'), repeat('x', 20)
from generate_series({first}, {last}) i
"""
WORKLOAD = """
do $$
begin
  for n in 0..4999 loop
    {insert_100};
    commit;
  end loop;
  for n in 0..1999 loop
    update s set a = a + 1, b = 'changed' where id between n * 100 + 1 and n * 100 + 100;
    commit;
  end loop;
  for n in 0..499 loop
    delete from s where id between n * 100 + 1 and n * 100 + 100;
    commit;
  end loop;
  for n in 1..50000 loop
    {insert_1};
    commit;
  end loop;
  {insert_200k};
end $$
"""
CHANGES = 1_000_000


def measure() -> list[Result]:
    """All of it; some three minutes."""
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as name:
        folder = Path(name)
        with PostgresServer(settings={"max_wal_size": "8GB", "checkpoint_timeout": "1h"}) as server:
            return [
                *_snapshot(server, folder),
                *_many_tables(server, folder),
                *_stream(server, folder),
                *_huge(server, folder),
                *_latency(server, folder),
                *_tls(folder),
            ]


def _workload() -> str:
    # One loop variable stands in the text of each insert.
    def insert(first: str, last: str) -> str:
        return ROWS.format(name="s", first=first, last=last).strip()

    return WORKLOAD.format(
        insert_100=insert("n * 100 + 1", "n * 100 + 100"),
        insert_1=insert("1000000 + n", "1000000 + n"),
        insert_200k=insert("2000001", "2200000"),
    )


def _stream(server: PostgresServer, folder: Path) -> list[Result]:
    server.run(
        TABLE.format(name="s"),
        "create publication bench for table s",
        "select pg_create_logical_replication_slot('origin', 'pgoutput')",
        _workload(),
    )
    results = []
    for way, over_unix, mark in (("unix socket", True, "≥ 0.85"), ("TCP", False, "≥ 1.2")):
        peers, runs = [], []
        for _ in range(RUNS):
            peers.append(_peer(server, over_unix=over_unix))
            runs.append(_hub(server, folder, CHANGES, over_unix=over_unix))
        peer, best = max(peers), min(runs, key=lambda run: run["wall_s"])
        rate = CHANGES / best["wall_s"]
        results += [
            Result(f"pg_recvlogical > /dev/null, {way}", peer, "rows/s"),
            Result(f"stream → log, {way}", rate, "rows/s", "pg_recvlogical", rate / peer, mark),
            *_used(best, CHANGES),
        ]
    return results


def _used(run: dict[str, Any], rows: int) -> list[Result]:
    """What a run took besides time."""
    return [
        Result("  processor time", run["cpu_s"] / rows * 1e6, "CPU s a million", mark="≤ 5"),
        Result("  wake-ups of the reader", run["wake_ups"] / rows * 100, "% of rows", mark="< 1"),
        Result("  turns of the event loop, p50", run["late_p50_s"] * 1e3, "ms late"),
        Result("  turns of the event loop, p99", run["late_p99_s"] * 1e3, "ms late", mark="≤ 20"),
        Result("  turns of the event loop, worst", run["late_max_s"] * 1e3, "ms late"),
        Result("  peak memory", run["peak_bytes"] / 1e6, "MB", mark="≤ 200"),
    ]


def _copied_slot(server: PostgresServer, name: str) -> None:
    server.run(f"select pg_copy_logical_replication_slot('origin', '{name}')")


def _peer(server: PostgresServer, *, over_unix: bool) -> float:
    _copied_slot(server, "peer")
    end = server.rows("select pg_current_wal_lsn()")[0][0]
    began = time.monotonic()
    subprocess.run(
        [
            server.program("pg_recvlogical"),
            "-d",
            server.dsn_of("postgres", over_unix=over_unix),
            "-S",
            "peer",
            "--start",
            "-f",
            "/dev/null",
            "-o",
            "proto_version=1",
            "-o",
            "publication_names=bench",
            "--endpos",
            end,
            "--no-loop",
        ],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    took = time.monotonic() - began
    server.run("select pg_drop_replication_slot('peer')")
    return CHANGES / took


def _hub(
    server: PostgresServer,
    folder: Path,
    rows: int,
    *,
    over_unix: bool,
    sslmode: str = "prefer",
    **options: Any,
) -> dict[str, Any]:
    _copied_slot(server, "reader")
    options |= {"tables": ["public.s"], "slot": "reader", "publication": "bench", "snapshot": "never"}
    dsn = psycopg.conninfo.make_conninfo(server.dsn_of("postgres", over_unix=over_unix), sslmode=sslmode)
    try:
        return _read(dsn, folder, rows, options)
    finally:
        server.run("select pg_drop_replication_slot('reader')")


def _read(dsn: str, folder: Path, rows: int, options: dict[str, Any]) -> dict[str, Any]:
    """Run a capture into a log of its own, in another process, until so many records are durable."""
    with tempfile.TemporaryDirectory(dir=folder) as data:
        command = [sys.executable, "-m", "bench.postgres", dsn, data, str(rows), json.dumps(options)]
        done = subprocess.run(command, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _snapshot(server: PostgresServer, folder: Path) -> list[Result]:
    server.run(TABLE.format(name="t"), ROWS.format(name="t", first=1, last=SNAPSHOT_ROWS), "vacuum analyze t")
    began = time.monotonic()
    size = 0
    with server.connect() as connection, connection.cursor().copy("copy t to stdout") as copy:
        for block in copy:
            size += len(block)
    raw = SNAPSHOT_ROWS / (time.monotonic() - began)
    best = _read(server.dsn_of("postgres", over_unix=True), folder, SNAPSHOT_ROWS, {"tables": ["public.t"]})
    server.run("select pg_drop_replication_slot('hub_bench')", "drop publication hub_bench", "drop table t")
    rate = SNAPSHOT_ROWS / best["wall_s"]
    return [
        Result("raw COPY into nothing", raw, "rows/s"),
        Result("snapshot → log", rate, "rows/s", "raw COPY", rate / raw, "≥ 250k"),
        Result("  processor time", best["cpu_s"] / SNAPSHOT_ROWS * 1e6, "CPU s a million"),
        Result("  peak memory", best["peak_bytes"] / 1e6, "MB", mark="≤ 200"),
    ]


def _many_tables(server: PostgresServer, folder: Path) -> list[Result]:
    """The first snapshot of a database of small tables, ten rows each."""
    server.run("create database many")
    for first in range(0, MANY_TABLES, 500):
        make = TABLE.format(name="%s").replace("\n", " ").strip()
        fill = ROWS.format(name="%s", first=1, last=10).replace("\n", " ").replace("'", "''").strip()
        server.run(
            f"do $$ begin for n in {first}..{first + 499} loop execute format('{make}', 'm' || n); "
            f"execute replace('{fill}', '%s', 'm' || n); end loop; end $$",
            database="many",
        )
    best = _read(server.dsn_of("many", over_unix=True), folder, MANY_TABLES * 10, {"tables": ["public.*"]})
    server.run("select pg_drop_replication_slot('hub_bench')", database="many")
    server.run("drop database many")
    return [
        Result(f"first snapshot of {MANY_TABLES:,} tables → log", MANY_TABLES / best["wall_s"], "tables/s"),
        Result("  peak memory", best["peak_bytes"] / 1e6, "MB", mark="≤ 200"),
    ]


def _huge(server: PostgresServer, folder: Path) -> list[Result]:
    """One transaction of a million rows, read from its first row on."""
    server.run(
        "truncate s",
        "select pg_drop_replication_slot('origin')",
        "select pg_create_logical_replication_slot('origin', 'pgoutput')",
        ROWS.format(name="s", first=1, last=HUGE_ROWS),
    )
    results = []
    for way, options in (("spilled by the server", {}), ("spooled here", {"streaming": True})):
        found = _hub(server, folder, HUGE_ROWS, over_unix=False, **options)
        rate = HUGE_ROWS / found["wall_s"]
        results += [
            Result(f"one transaction of a million rows, {way}", rate, "rows/s"),
            *_used(found, HUGE_ROWS),
        ]
    server.run("select pg_drop_replication_slot('origin')")
    return results


def _tls(folder: Path) -> list[Result]:
    """TCP with and without TLS, on the PostgreSQL 15 of the system: the wheel has no TLS."""
    try:
        server = PostgresServer(version=15, settings={"max_wal_size": "8GB", "checkpoint_timeout": "1h"})
    except PostgresMissing:
        return []
    issued = trustme.CA().issue_cert("127.0.0.1")
    with server:
        owner = server.data.stat()
        for name, part in (
            ("server.key", issued.private_key_pem),
            ("server.crt", issued.cert_chain_pems[0]),
        ):
            path = server.data / name
            part.write_to_path(path)
            os.chown(path, owner.st_uid, owner.st_gid)
            path.chmod(0o600)
        server.restart(ssl="on")
        server.run(
            TABLE.format(name="s"),
            "create publication bench for table s",
            "select pg_create_logical_replication_slot('origin', 'pgoutput')",
            *[
                ROWS.format(name="s", first=first + 1, last=first + 100)
                for first in range(0, TLS_ROWS // 2, 100)
            ],
            ROWS.format(name="s", first=TLS_ROWS // 2 + 1, last=TLS_ROWS),
        )
        plain, sealed = (
            _hub(server, folder, TLS_ROWS, over_unix=False, sslmode=mode) for mode in ("disable", "require")
        )
        without, rate = TLS_ROWS / plain["wall_s"], TLS_ROWS / sealed["wall_s"]
    return [
        Result("stream → log, PostgreSQL 15, TCP", without, "rows/s"),
        Result("the same with TLS", rate, "rows/s", "plain TCP", rate / without, "≥ 100k"),
        *_used(sealed, TLS_ROWS),
    ]


def _latency(server: PostgresServer, folder: Path) -> list[Result]:
    server.run("create table pulse (id bigint primary key, at double precision)")
    rows = int(LATENCY_S * LATENCY_RATE_PER_S)
    with tempfile.TemporaryDirectory(dir=folder) as data:
        options = {"tables": ["public.pulse"]}
        command = [
            sys.executable,
            "-m",
            "bench.postgres",
            server.dsn,
            data,
            str(rows),
            json.dumps(options),
            "--pulses",
        ]
        reader = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert reader.stdout is not None
        reader.stdout.readline()
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            began = time.monotonic()
            for number in range(rows):
                due = began + number / LATENCY_RATE_PER_S
                while (now := time.monotonic()) < due:
                    time.sleep(due - now)
                connection.execute("insert into pulse values (%s, %s)", [number, time.time()])
        output, _ = reader.communicate(timeout=120)
    found = json.loads(output.splitlines()[-1])
    delays = sorted(found["delays_s"])
    return [
        Result("COMMIT sent → durable in the log, p50", statistics.median(delays) * 1e3, "ms", mark="≤ 5"),
        Result(
            "COMMIT sent → durable in the log, p99", delays[len(delays) * 99 // 100] * 1e3, "ms", mark="≤ 30"
        ),
        Result("  peak memory", found["peak_bytes"] / 1e6, "MB", mark="≤ 200"),
    ]


async def _reader(
    dsn: str, folder: Path, rows: int, options: dict[str, Any], *, pulses: bool
) -> dict[str, Any]:
    """Capture into a log until `rows` records are durable; with `pulses`, say when each became so."""
    capture = PostgresCapture(dsn=Secret(dsn), **options)
    stats = TaskStats("bench", "capture", "postgres")
    task = TaskName("bench")
    delays: list[float] = []
    async with Log.open(folder / "log") as log:
        outlet: Any = LogOutlet(task, log, stats, Events(quiet=True), resume=None)
        began, cpu = time.monotonic(), time.process_time()
        async with anyio.create_task_group() as group:
            late: list[float] = []
            group.start_soon(_tick, late)
            group.start_soon(outlet.pump)
            group.start_soon(capture.run, None, outlet)
            if pulses:
                while "slot_lag_bytes" not in stats.gauges:  # noqa: ASYNC110  nothing says when
                    await anyio.sleep(0.02)
                await anyio.sleep(0.5)
                print("ready", flush=True)
                await _watch(outlet, rows, delays)
            else:
                while sum(edge.records for edge in stats.edges.values()) < rows:  # noqa: ASYNC110  nothing says when
                    await anyio.sleep(0.005)
                await outlet.settle()
            wall, cpu = time.monotonic() - began, time.process_time() - cpu
            group.cancel_scope.cancel()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "wall_s": wall,
        "cpu_s": cpu,
        "peak_bytes": peak,
        "delays_s": delays,
        "wake_ups": stats.gauges["stream_wake_ups_total"],
        "late_p50_s": statistics.median(late),
        "late_p99_s": sorted(late)[len(late) * 99 // 100],
        "late_max_s": max(late),
    }


async def _tick(late: list[float]) -> None:
    """Note by how much each turn of the event loop comes later than it was asked for."""
    while True:
        due = time.monotonic() + TICK_S
        await anyio.sleep(TICK_S)
        late.append(time.monotonic() - due)


async def _watch(outlet: Any, rows: int, delays: list[float]) -> None:
    """Note, for each pulse, how long after its writing the position behind it is durable."""
    waiting: list[tuple[int, list[float]]] = []
    send = outlet.send

    async def noting(batches: Any, position: Any, note: bytes | None = None) -> None:
        written = [doc["at"] for batch in batches for doc in batch.docs]
        if written:
            waiting.append((position.lsn, written))
        await send(batches, position, note)

    outlet.send = noting
    while len(delays) < rows:
        await anyio.sleep(0.0005)
        durable, now = outlet.durable.lsn, time.time()
        while waiting and waiting[0][0] <= durable:
            delays += [now - at for at in waiting.pop(0)[1]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dsn")
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", type=int)
    parser.add_argument("options", type=json.loads)
    parser.add_argument("--pulses", action="store_true")
    parser.add_argument("--profile")
    given = parser.parse_args()
    if given.profile:
        import cProfile

        profile = cProfile.Profile()
        profile.enable()
    with tuned():
        found = asyncio.run(_reader(given.dsn, given.folder, given.rows, given.options, pulses=given.pulses))
    if given.profile:
        profile.disable()
        profile.dump_stats(given.profile)
    print(json.dumps(found))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
