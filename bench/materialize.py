"""Rows a second into each SQL destination, beside the raw bulk path of the same driver in the same run.

Both sides start from the same JSON lines. The hub has them in its log, in frames of 1 MiB as a capture writes them,
and its side is all of the way: reading the files, the flow with its commits, the destination. The raw side has them
in memory, decodes them with msgspec and does what one would write by hand for just this table, in one transaction:
COPY, LOAD DATA, executemany or read_json, and one upsert. The latency part writes single changes at a fixed rate and
measures from the change to the commit that makes it visible. Processor time is that of the bench's own process, which
for DuckDB and SQLite is all there is: on a busy machine that ratio is the one to look at.

    python bench/materialize.py [--rows 200000] [--only duckdb] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import random
import sqlite3
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import duckdb
import msgspec
import orjson
import psycopg

from hub.catalog import BindingRule, Catalog, MaterializationTask, Sources
from hub.control import Control
from hub.log import Log, Schema, Transaction
from hub.materialization import Binding, Commit, Materialization
from hub.record import Batch, Cursor, Place, TaskName
from hub.runtime.events import Events
from hub.runtime.flow import Flow
from hub.runtime.tree import Trees
from hub.schema import ColumnType, describe
from hub.schema.types import BOOLEAN, DATE, FLOAT64, INT32, INT64, STRING, TIMESTAMPTZ, UUID
from hub.spec import Secret
from hub.telemetry import Telemetry
from hub.testing.mariadb import MariaDBMissing, MariaDBServer
from hub.testing.postgres import PostgresServer
from hub_materializations.duckdb import DuckDBMaterialization
from hub_materializations.mysql import MySQLMaterialization
from hub_materializations.postgres import PostgresMaterialization
from hub_materializations.sql.binding import SqlBinding
from hub_materializations.sqlite import SQLiteMaterialization

FRAME_BYTES = 1 << 20
COLUMNS: dict[str, ColumnType] = {
    "id": INT64.null(False),
    "name": STRING,
    "amount": ColumnType("decimal", precision=10, scale=2),
    "quantity": INT32,
    "price": FLOAT64,
    "paid": BOOLEAN,
    "at": TIMESTAMPTZ,
    "day": DATE,
    "reference": UUID,
    "note": STRING,
}
NAMES = list(COLUMNS)
SCHEMA = describe("bench", COLUMNS, ("id",))
BINDING = Binding("bench", "bench", SqlBinding(source="bench"))
Row = msgspec.defstruct("Row", [(name, Any, None) for name in NAMES], gc=False)


def lines_of(count: int, start: int, seed: int) -> bytes:
    """Documents of ten columns, some 230 bytes each."""
    chance = random.Random(seed)
    docs = [
        {
            "id": start + i,
            "name": f"customer {i}",
            "amount": f"{chance.randrange(10**6)}.{chance.randrange(100):02}",
            "quantity": chance.randrange(100),
            "price": chance.random(),
            "paid": i % 2 == 0,
            "at": f"2024-01-01T00:00:{i % 60:02}.123456Z",
            "day": f"2024-02-{1 + i % 28:02}",
            "reference": str(uuid.UUID(int=chance.getrandbits(128))),
            "note": f"some text {i}",
        }
        for i in range(count)
    ]
    return b"".join(orjson.dumps(doc) + b"\n" for doc in docs)


def batches_of(lines: bytes, op: bytes) -> Iterator[Batch]:
    start = 0
    while start < len(lines):
        end = lines.find(b"\n", min(start + FRAME_BYTES, len(lines) - 1)) + 1
        text = lines[start:end]
        count = text.count(b"\n")
        yield Batch("bench", count, ndjson=text, ops=op * count)
        start = end


class Took(NamedTuple):
    """Seconds that passed, and seconds of this process's processor time."""

    wall_s: float
    cpu_s: float


async def through_log(materialization: Materialization, lines: bytes, op: bytes, folder: Path) -> Took:
    """From the start of a flow, with all lines in the log's files, to their last commit and the end."""
    rule = BindingRule(Sources(["bench"]), SqlBinding(source="bench"))
    task = MaterializationTask(TaskName("bench"), "bench", materialization, (rule,), Commit())
    catalog = Catalog(file="bench", root=folder, materializations={task.name: task})
    async with Log.open(folder) as log:
        await log.append(Transaction("source", [Schema("bench", SCHEMA.encode())]))
        for batch in batches_of(lines, op):
            await log.append(Transaction("source", [batch]))
    with Control(folder / "control.db") as control:
        async with Log.open(folder) as log:
            stats = Telemetry().task(task.name, "materialization", "bench")
            flow = Flow(task, log, control, Trees(catalog, task), stats, Events(quiet=True))
            flow.drain()
            start = Took(time.perf_counter(), time.process_time())
            await flow.run()
            took = since(start)
    assert sum(edge.records for edge in stats.edges.values()) == lines.count(b"\n")
    return took


async def latencies(materialization: Materialization, per_s: int, seconds: float) -> list[float]:
    """Milliseconds from a change to the commit that holds it, at `per_s` changes a second."""
    found: list[float] = []
    pending: list[tuple[float, bytes]] = []
    line = lines_of(1, 0, 1)[:-1]
    stop = time.perf_counter() + seconds

    async def produce() -> None:
        number = 0
        begin = time.perf_counter()
        while (now := time.perf_counter()) < stop:
            due = int((now - begin) * per_s)
            while number < due:
                number += 1
                pending.append(
                    (begin + number / per_s, line.replace(b'"id":0', b'"id":%d' % (number % 5000)))
                )
            await anyio.sleep(0.0005)

    async with materialization.open(TaskName("latency")) as sink, anyio.create_task_group() as group:
        await sink.restore()
        await sink.describe(BINDING, SCHEMA)
        await sink.commit(Cursor({"j": Place(1, 1)}))
        group.start_soon(produce)
        while time.perf_counter() < stop or pending:
            taken, pending[:] = list(pending), []
            if not taken:
                await anyio.sleep(0.0005)
                continue
            batch = Batch.of_lines("bench", [text for _, text in taken], ops=b"u" * len(taken))
            await sink.write(BINDING, batch)
            await sink.commit(Cursor({"j": Place(1, 2)}))
            done = time.perf_counter()
            found += [(done - made) * 1000 for made, _ in taken]
    return found[len(found) // 10 :]


@dataclass(slots=True)
class Contender:
    """A destination: the hub's way in, and the driver's own."""

    name: str
    materialization: Materialization
    insert: Callable[[bytes], None]
    update: Callable[[bytes], None]


def tuples(lines: bytes) -> list[tuple[Any, ...]]:
    return list(map(msgspec.structs.astuple, msgspec.json.Decoder(Row).decode_lines(lines)))


def duckdb_contender(folder: Path) -> Contender:
    types = [
        "BIGINT",
        "VARCHAR",
        "DECIMAL(10,2)",
        "INTEGER",
        "DOUBLE",
        "BOOLEAN",
        "TIMESTAMPTZ",
        "DATE",
        "UUID",
        "VARCHAR",
    ]
    spec = ", ".join(f"'{name}': '{kind}'" for name, kind in zip(NAMES, types, strict=True))

    def run(lines: bytes, statement: str) -> None:
        path = folder / "raw.ndjson"
        path.write_bytes(lines)
        reader = f"read_json('{path}', format = 'newline_delimited', columns = {{{spec}}})"
        with contextlib.closing(duckdb.connect(str(folder / "raw.duckdb"))) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            columns = ", ".join(f'"{name}" {kind}' for name, kind in zip(NAMES, types, strict=True))
            connection.execute(f"CREATE TABLE IF NOT EXISTS bench ({columns})")
            connection.execute(statement.format(reader=reader))

    setting = ", ".join(f'"{name}" = s."{name}"' for name in NAMES[1:])
    return Contender(
        "duckdb",
        DuckDBMaterialization(path=str(folder / "hub.duckdb")),
        lambda lines: run(lines, "INSERT INTO bench FROM {reader}"),
        lambda lines: run(
            lines,
            f"MERGE INTO bench t USING {{reader}} s ON t.id = s.id WHEN MATCHED THEN UPDATE SET {setting} "
            "WHEN NOT MATCHED THEN INSERT",
        ),
    )


def postgres_contender(server: PostgresServer) -> Contender:
    types = [
        "bigint",
        "text",
        "numeric(10,2)",
        "integer",
        "float8",
        "boolean",
        "timestamptz",
        "date",
        "uuid",
        "text",
    ]
    columns = ", ".join(f'"{name}" {kind}' for name, kind in zip(NAMES, types, strict=True))
    listed = ", ".join(f'"{name}"' for name in NAMES)
    server.run("CREATE SCHEMA raw", f"CREATE TABLE raw.bench ({columns}, PRIMARY KEY (id))")

    def copy(connection: psycopg.Connection[Any], table: str, lines: bytes) -> None:
        with connection.cursor() as cursor, cursor.copy(f"COPY {table} ({listed}) FROM STDIN") as target:
            for row in tuples(lines):
                target.write_row(row)

    def insert(lines: bytes) -> None:
        with server.connect() as connection, connection.transaction():
            copy(connection, "raw.bench", lines)

    def update(lines: bytes) -> None:
        setting = ", ".join(f'"{name}" = excluded."{name}"' for name in NAMES[1:])
        with server.connect() as connection, connection.transaction():
            connection.execute("CREATE TEMP TABLE stage (LIKE raw.bench) ON COMMIT DROP")
            copy(connection, "stage", lines)
            connection.execute(
                f"INSERT INTO raw.bench SELECT * FROM stage ON CONFLICT (id) DO UPDATE SET {setting}".encode()
            )

    return Contender("postgres", PostgresMaterialization(dsn=Secret(server.dsn)), insert, update)


def sqlite_contender(folder: Path) -> Contender:
    marks = ", ".join("?" * len(NAMES))
    columns = ", ".join(f'"{name}"' for name in NAMES)
    setting = ", ".join(f'"{name}" = excluded."{name}"' for name in NAMES[1:])

    def run(lines: bytes, tail: str) -> None:
        with contextlib.closing(sqlite3.connect(folder / "raw.db", isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"CREATE TABLE IF NOT EXISTS bench ({columns}, PRIMARY KEY (id))")
            connection.execute("BEGIN")
            connection.executemany(f"INSERT INTO bench VALUES ({marks}){tail}", tuples(lines))
            connection.execute("COMMIT")

    return Contender(
        "sqlite",
        SQLiteMaterialization(path=str(folder / "hub.db")),
        lambda lines: run(lines, ""),
        lambda lines: run(lines, f" ON CONFLICT (id) DO UPDATE SET {setting}"),
    )


def mysql_contender(server: MariaDBServer, folder: Path) -> Contender:
    types = [
        "bigint",
        "longtext",
        "decimal(10,2)",
        "int",
        "double",
        "boolean",
        "datetime(6)",
        "date",
        "varchar(36)",
        "longtext",
    ]
    columns = ", ".join(f"`{name}` {kind}" for name, kind in zip(NAMES, types, strict=True))
    listed = ", ".join(f"`{name}`" for name in NAMES)
    at = NAMES.index("paid")

    def run(lines: bytes, way: str) -> None:
        path = folder / "raw.csv"
        with path.open("w", newline="") as file:
            # The same as LOAD DATA wants it; there are no NULLs and no quotes in these rows.
            rows = [(*row[:at], int(row[at]), row[at + 1][:-1], *row[at + 2 :]) for row in tuples(lines)]
            csv.writer(file, lineterminator="\n").writerows(rows)
        with (
            contextlib.closing(server.connect(local_infile=True)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(f"CREATE TABLE IF NOT EXISTS raw_bench ({columns}, PRIMARY KEY (id))")
            cursor.execute("BEGIN")
            cursor.execute(
                f"LOAD DATA LOCAL INFILE '{path}' {way} INTO TABLE raw_bench CHARACTER SET utf8mb4 "
                f"FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"' ({listed})"
            )
            cursor.execute("COMMIT")

    materialization = MySQLMaterialization(
        port=server.port, user=server.user, password=Secret(server.password), database=server.database
    )
    return Contender(
        "mysql",
        materialization,
        lambda lines: run(lines, ""),
        lambda lines: run(lines, "REPLACE"),
    )


def since(start: Took) -> Took:
    return Took(time.perf_counter() - start.wall_s, time.process_time() - start.cpu_s)


def timed(function: Callable[[bytes], None], lines: bytes) -> Took:
    start = Took(time.perf_counter(), time.process_time())
    function(lines)
    return since(start)


def measured(contender: Contender, rows: int, rounds: int, log: Path) -> dict[str, Any]:
    """Rows a second and processor time a row, hub and raw taking turns; the best round of each."""
    found: dict[str, Any] = {"destination": contender.name}
    runs: dict[str, list[Took]] = {}
    for number in range(rounds):
        fresh = lines_of(rows, number * rows, number)
        changed = lines_of(rows, number * rows, number + 100)
        for label, lines, raw, op in (
            ("insert", fresh, contender.insert, b"c"),
            ("update", changed, contender.update, b"u"),
        ):
            hub = anyio.run(through_log, contender.materialization, lines, op, log)
            runs.setdefault(f"{label}_hub", []).append(hub)
            runs.setdefault(f"{label}_raw", []).append(timed(raw, lines))
    for label in ("insert", "update"):
        hub, raw = (Took(*map(min, zip(*runs[f"{label}_{side}"], strict=True))) for side in ("hub", "raw"))
        found[f"{label}_hub_rows_s"] = round(rows / hub.wall_s)
        found[f"{label}_raw_rows_s"] = round(rows / raw.wall_s)
        found[f"{label}_ratio"] = round(raw.wall_s / hub.wall_s, 2)
        found[f"{label}_hub_cpu_us"] = round(hub.cpu_s / rows * 1e6, 2)
        found[f"{label}_raw_cpu_us"] = round(raw.cpu_s / rows * 1e6, 2)
    return found


def with_latency(contender: Contender, found: dict[str, Any], seconds: float) -> None:
    times = sorted(anyio.run(latencies, contender.materialization, 1000, seconds))
    found["latency_p50_ms"] = round(statistics.median(times), 1)
    found["latency_p99_ms"] = round(times[int(len(times) * 0.99)], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="of the latency part")
    parser.add_argument("--only", action="append", choices=["duckdb", "postgres", "sqlite", "mysql"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    wanted: Sequence[str] = options.only or ["duckdb", "postgres", "sqlite", "mysql"]
    results = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in wanted:
            if name == "duckdb":
                contender = duckdb_contender(folder)
            elif name == "sqlite":
                contender = sqlite_contender(folder)
            elif name == "postgres":
                server = stack.enter_context(PostgresServer(settings={"fsync": "on"}))
                contender = postgres_contender(server)
            else:
                try:
                    contender = mysql_contender(stack.enter_context(MariaDBServer()), folder)
                except MariaDBMissing as error:
                    print(f"mysql: {error}")
                    continue
            log = folder / f"{name}-log"
            log.mkdir()
            found = measured(contender, options.rows, options.rounds, log)
            with_latency(contender, found, options.seconds)
            results.append(found)
            if not options.json:
                print(
                    "  ".join(
                        f"{key}={value:,}" if isinstance(value, int) else f"{key}={value}"
                        for key, value in found.items()
                    )
                )
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
