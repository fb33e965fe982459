"""PostgreSQL → log → DuckDB: snapshot and stream beside pg_recvlogical, and commit-to-visible latency."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

from bench.latency import RATE_PER_S, latencies_s
from bench.process import cpu_s, resident_bytes, running
from bench.result import Result
from hub.testing.postgres import PostgresServer

SNAPSHOT_ROWS = 1_000_000
STREAM_ROWS = 500_000
WAIT_S = 300

TABLE = """
create table t (id bigint primary key, a int, b text, c numeric(12,2), d double precision, e boolean,
  f timestamptz, g date, h uuid, i jsonb, j text)
"""
FILL = """
insert into t select i, i %% 1000, 'name ' || i, (i %% 100000) / 100.0, i * 1.5, i %% 2 = 0,
  timestamptz '2026-01-01 00:00:00+00' + i * interval '1 second', date '2026-01-01' + (i %% 365),
  gen_random_uuid(), jsonb_build_object('n', i), repeat('x', 20)
from generate_series({first}, {last}) i
""".replace("%%", "%")


def measure() -> list[Result]:
    """Rows a second, and milliseconds from COMMIT to a row that a reader of the warehouse sees."""
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as name, PostgresServer() as server:
        folder = Path(name)
        server.run(
            TABLE, FILL.format(first=1, last=SNAPSHOT_ROWS), "create table pulse (id bigint primary key)"
        )
        return [*_throughput(server, folder), *_latency(server, folder)]


def _config(server: PostgresServer, folder: Path, name: str, tables: list[str]) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(
        json.dumps(
            {
                "captures": {name: {"postgres": {"dsn": server.dsn, "tables": tables}}},
                "materializations": {
                    f"{name}_lake": {
                        "duckdb": {"path": str(folder / f"{name}.duckdb")},
                        "bindings": [{"from": f"{name}/*", "table": "${! @table }"}],
                    }
                },
                "log": {"path": str(folder / f"{name}-data")},
                "server": {"address": "127.0.0.1:0", "enabled": True},
            }
        )
    )
    return path


def _throughput(server: PostgresServer, folder: Path) -> list[Result]:
    config = _config(server, folder, "bulk", ["public.t"])
    log = folder / "bulk.log"
    began = time.monotonic()
    with running("run", str(config), "--no-live", log=log) as process:
        _until(log, SNAPSHOT_ROWS, process)
        snapshot_s = time.monotonic() - began
        cpu = cpu_s(process.pid)
    snapshot = Result(
        "snapshot → DuckDB",
        SNAPSHOT_ROWS / snapshot_s,
        "rows/s",
        f"{cpu / SNAPSHOT_ROWS * 1e6:.1f} CPU µs a row",
    )
    # The same WAL is read twice from two copies of a slot, so the peer sees exactly what the hub sees.
    slot = server.rows("select slot_name from pg_replication_slots")[0][0]
    server.run(f"select pg_copy_logical_replication_slot('{slot}', 'peer')")
    publication = server.rows("select pubname from pg_publication")[0][0]
    with server.connect() as connection:
        for start in range(SNAPSHOT_ROWS + 1, SNAPSHOT_ROWS + STREAM_ROWS, 100):
            connection.execute(FILL.format(first=start, last=start + 99).encode())
    end = server.rows("select pg_current_wal_lsn()")[0][0]
    peer_s = _peer(server, publication, end)
    before = time.monotonic()
    with running("run", str(config), "--no-live", log=log) as process:
        _until(log, STREAM_ROWS, process)
        stream_s = time.monotonic() - before
        cpu = cpu_s(process.pid)
        peak = resident_bytes(process.pid)
    rate, peer = STREAM_ROWS / stream_s, STREAM_ROWS / peer_s
    return [
        snapshot,
        Result("stream → DuckDB", rate, "rows/s", "pg_recvlogical", rate / peer, "≥ 0.5"),
        Result("  processor time", cpu / STREAM_ROWS * 1e6, "CPU µs a row"),
        Result("  memory at the end", peak / 1e6, "MB"),
        Result("pg_recvlogical > /dev/null", peer, "rows/s"),
    ]


def _peer(server: PostgresServer, publication: str, end: str) -> float:
    command = [
        server.program("pg_recvlogical"), "-d", server.dsn, "-S", "peer", "--start", "-f", "/dev/null",
        "-o", "proto_version=1", "-o", f"publication_names={publication}", "--endpos", end, "--no-loop",
    ]  # fmt: skip
    began = time.monotonic()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    took = time.monotonic() - began
    server.run("select pg_drop_replication_slot('peer')")
    return took


def _until(log: Path, rows: int, process: subprocess.Popen[bytes]) -> None:
    """Until the hub has committed so many records to the warehouse, by its own metrics."""
    address = None
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(log.read_text()[-2000:])
        if address is None:
            for line in log.read_text().splitlines():
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    address = event["address"] if event.get("event") == "serving" else address
        elif _committed(address) >= rows:
            return
        time.sleep(0.02)
    raise RuntimeError("did not catch up:\n" + log.read_text()[-2000:])


def _committed(address: str) -> int:
    with urlopen(f"http://{address}/metrics") as answer:
        text = answer.read().decode()
    found = 0.0
    lag = 1.0
    for line in text.splitlines():
        if line.startswith("hub_records_total") and 'kind="materialization"' in line:
            found += float(line.rsplit(" ", 1)[1])
        if line.startswith("hub_lag_seconds") and 'kind="materialization"' in line:
            lag = float(line.rsplit(" ", 1)[1])
    return int(found) if lag == 0 else 0


def _latency(server: PostgresServer, folder: Path) -> list[Result]:
    """At 1 000 single-row commits a second; the reader of the warehouse lives in the hub's process, since DuckDB
    lets no other process in."""
    found = latencies_s(_config(server, folder, "slow", ["public.pulse"]), server, folder / "slow.duckdb")
    cuts = statistics.quantiles(found, n=100)
    return [
        Result(
            "commit → visible in DuckDB, p50", cuts[49] * 1e3, "ms", f"at {RATE_PER_S} rows/s", mark="≤ 30 ms"
        ),
        Result("commit → visible in DuckDB, p99", cuts[98] * 1e3, "ms"),
    ]
