"""Chaos: writers that do everything a source can do, while hub, connections and the source itself are killed in turn.

At the end the source equals a DuckDB and a PostgreSQL destination, and the log is held against the server's own
account of what was committed, read from a second slot: each transaction once, whole, in the order of the commits.
Longer with HUB_CHAOS_S (`make soak`: ten minutes); everything random comes from HUB_TEST_SEED.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, repeat
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from psycopg import errors

from hub import cdc
from hub.log.browse import browse
from hub.log.follower import Follower
from hub.testing.postgres import PostgresServer
from hub_captures.postgres import pgoutput
from hub_captures.postgres.pgoutput import HEADER
from tests.crash.shop_writer import SCHEMA, Writer

CHAOS_S = float(os.environ.get("HUB_CHAOS_S", "30"))
SEED = int(os.environ.get("HUB_TEST_SEED", "20261126"))
WRITERS = 3
CATCH_UP_S = 180 + CHAOS_S * 2
"""The writers never rest, and the hub rarely lives for long."""

CONFIG = """
captures:
  shop:
    postgres:
      dsn: "%(dsn)s"
      tables: [public.*]
      streaming: %(streaming)s
      two_phase: %(two_phase)s
      failover: %(failover)s
      refresh_interval: 1s
      batch: 256KiB
materializations:
  lake:
    duckdb: {path: %(lake)s}
    bindings:
      - {from: [shop/*, "!shop/public.event"], table: "${! @table }"}
      - {from: shop/public.event, table: event, mode: append}
  mirror:
    postgres: {dsn: "%(mirror)s"}
    bindings:
      - {from: [shop/*, "!shop/public.event"], table: "${! @table }"}
      - {from: shop/public.event, table: event, mode: append}
log: {path: %(data)s}
server: {enabled: false}
"""

COUNTED = ("account", "item", "big", "event")
"""Tables whose every change is in the log. `morph` is rewritten under way, and its rows are then read again."""


class Hub:
    """The hub as a process, which is started again when it was killed."""

    def __init__(self, config: Path, output: Path) -> None:
        self._config = config
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hub.cli", "run", str(self._config), "--no-live"],
                stdout=output,
                stderr=output,
            )

    def kill(self) -> None:
        if self._process is not None:
            self.check()
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(CATCH_UP_S) == 0, self.tail()
        self._process = None

    def check(self) -> None:
        assert self._process is not None
        assert self._process.poll() is None, f"the hub ended by itself:\n{self.tail()}"
        assert "task_failed" not in self.tail(), self.tail()

    def tail(self) -> str:
        return self._output.read_text()[-6000:]


@contextmanager
def chaos(tmp_path: Path, mirror: str) -> Iterator[tuple[PostgresServer, Hub]]:
    settings = {"logical_decoding_work_mem": "64kB", "max_prepared_transactions": "20"}
    with PostgresServer(settings=settings) as server:
        config = tmp_path / "shop.yaml"
        streaming, two_phase = (
            "true" if SEED % wide >= wide // 2 and server.version >= since else "false"
            for wide, since in ((2, 14), (4, 15))
        )
        lake, data = tmp_path / "lake.duckdb", tmp_path / "data"
        config.write_text(
            CONFIG
            % {
                "dsn": server.dsn,
                "streaming": streaming,
                "two_phase": two_phase,
                # Together with prepared transactions that is refused on 17.
                "failover": "false" if two_phase == "true" and server.version == 17 else "true",
                "lake": lake,
                "mirror": mirror,
                "data": data,
            }
        )
        hub = Hub(config, tmp_path / "hub.log")
        try:
            yield server, hub
        finally:
            hub.kill()


@pytest.mark.rig
@pytest.mark.timeout(CHAOS_S * 3 + CATCH_UP_S * 3)
def test_hub_connections_and_source_are_killed_in_turn_and_all_ends_equal(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    print(f"HUB_TEST_SEED={SEED} HUB_CHAOS_S={CHAOS_S}")
    rng = random.Random(SEED)
    postgres_server.run("drop database if exists chaos_mirror", "create database chaos_mirror")
    mirror = postgres_server.dsn_of("chaos_mirror")
    killed: Counter[str] = Counter()
    with chaos(tmp_path, mirror) as (server, hub):
        server.run(*SCHEMA)
        hub.start()
        until(hub, lambda: is_equal(server.dsn, mirror), "the first rows were not copied")
        writers = [Writer(server.dsn, number, SEED + number) for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        ends_at = time.monotonic() + CHAOS_S
        while time.monotonic() < ends_at:
            time.sleep(rng.uniform(0.3, 2.5))
            kind = rng.choices(("hub", "server", "walsender", "connections", "both"), (4, 2, 2, 1, 1))[0]
            killed[kind] += 1
            disturb(kind, server, hub)
        for writer in writers:
            writer.finish()
        until(hub, lambda: is_equal(server.dsn, mirror), lambda: difference(server.dsn, mirror))
        hub.stop()
        want = contents(server.dsn)
        assert lake_contents(tmp_path / "lake.duckdb", want) == want
        truth = committed(server)
        done = sum([writer.done for writer in writers], Counter[str]())
        print(f"{len(truth)} transactions, killed {dict(killed)}, done {dict(done)}")
        assert logged(tmp_path / "data") == truth


def disturb(kind: str, server: PostgresServer, hub: Hub) -> None:
    if kind in ("hub", "both"):
        hub.kill()
    if kind in ("server", "both"):
        server.kill()
        server.start()
    if kind == "walsender":
        server.run("select pg_terminate_backend(pid) from pg_stat_replication")
    if kind == "connections":
        server.run(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'hub/%'"
        )
    if kind in ("hub", "both"):
        hub.start()
    hub.check()


def until(hub: Hub, claim: Callable[[], bool], what: str | Callable[[], object]) -> None:
    deadline = time.monotonic() + CATCH_UP_S
    while not claim():
        hub.check()
        assert time.monotonic() < deadline, f"{what() if callable(what) else what}:\n{hub.tail()}"
        time.sleep(0.1)


def tables_of(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        return {
            name
            for (name,) in connection.execute(
                "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' "
                "and relname not like 'hub\\_%'"
            )
        }


Contents = dict[str, tuple[list[str], list[tuple[Any, ...]]]]


def contents(dsn: str, like: Contents | None = None) -> Contents:
    """Every table: its columns and rows, in order. With `like`, the tables and columns that stand there."""
    found: Contents = {}
    with psycopg.connect(dsn) as connection:
        names = sorted(like or tables_of(dsn))
        for name in names:
            if like is not None:
                columns = like[name][0]
            else:
                columns = [
                    column
                    for (column,) in connection.execute(
                        "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 "
                        "and not attisdropped order by attname",
                        (name,),
                    )
                ]
            found[name] = (columns, connection.execute(_select(name, columns)).fetchall())
    return found


def lake_contents(lake: Path, like: Contents) -> Contents:
    with duckdb.connect(str(lake), read_only=True) as connection:
        return {
            name: (columns, connection.execute(_select(name, columns)).fetchall())
            for name, (columns, _) in like.items()
        }


def _select(name: str, columns: Sequence[str]) -> str:
    listed = ", ".join(f'"{column}"' for column in columns)
    order = ", ".join(str(place + 1) for place in range(len(columns)))
    return f'select {listed} from "{name}" order by {order}'


def is_equal(source: str, mirror: str) -> bool:
    return not difference(source, mirror)


def difference(source: str, mirror: str) -> list[str]:
    want = contents(source)
    try:
        have = contents(mirror, want)
    except (errors.UndefinedTable, errors.UndefinedColumn) as error:
        return [str(error)]
    return [
        f"{name}: {len(have[name][1])} rows, {len(want[name][1])} wanted; "
        f"too many {list(set(have[name][1]) - set(want[name][1]))[:3]}, missing {list(set(want[name][1]) - set(have[name][1]))[:3]}"
        for name in want
        if sorted(have[name][1], key=repr) != sorted(want[name][1], key=repr)
    ]


Account = list[tuple[int, dict[str, int]]]
"""Transactions in the order of their commits: id, and records by table."""


def committed(server: PostgresServer) -> Account:
    """The server's own account, from a slot that nobody has read so far."""
    found: Account = []
    names: dict[int, str] = {}
    counted: Counter[str] = Counter()
    xid = 0
    with (
        server.connect() as connection,
        connection.cursor(name="witness", withhold=True, binary=True) as cursor,
    ):
        cursor.execute(
            "select data from pg_logical_slot_get_binary_changes('witness', null, null, 'proto_version', '1', "
            "'publication_names', 'witness')"
        )
        for (data,) in cursor:
            b = bytes(HEADER) + data
            match chr(data[0]):
                case "B":
                    xid, counted = pgoutput.begin(b).xid, Counter()
                case "R":
                    relation = pgoutput.relation(b)
                    names[relation.oid] = relation.table
                case "I" | "U" | "D":
                    # A change of the key is a delete and a create.
                    is_two = data[0:1] == b"U" and data[5:6] == b"K"
                    counted[names[int.from_bytes(data[1:5])]] += 1 + is_two
                case "T":
                    counted.update([names[oid] for oid in pgoutput.truncate(b).oids])
                case "C" if counted:
                    found.append((xid, dict(counted)))
    return found


def logged(data: Path) -> Account:
    """The hub's account. Fails when one transaction comes twice, or after one that was committed later."""
    by_commit: dict[int, tuple[int, Counter[str]]] = {}
    places: dict[int, int] = {}
    newest_of_table: dict[str, int] = {}
    wanted = {f"shop/public.{name}" for name in COUNTED}
    log = Follower(data)
    log.refresh()
    for row in browse(log, wanted.__contains__):
        batch = row.batch
        if cdc.SNAPSHOT in batch.shared:
            continue
        table = batch.collection.rpartition(".")[2]
        commits, xids = (
            batch.columns.get(name) or repeat(batch.shared[name], batch.count)
            for name in (cdc.COMMIT_LSN, cdc.TRANSACTION_ID)
        )
        for (commit, xid), records in groupby(zip(commits, xids, strict=True)):
            assert commit >= newest_of_table.get(table, 0), "a transaction after one that committed later"
            assert places.setdefault(commit, row.piece.seq) == row.piece.seq, "a transaction in two frames"
            newest_of_table[table] = commit
            by_commit.setdefault(commit, (xid, Counter()))[1][table] += sum(1 for _ in records)
    ordered = sorted(by_commit)
    assert [places[commit] for commit in ordered] == sorted(places.values()), "frames out of order"
    return [(xid, dict(counted)) for xid, counted in (by_commit[commit] for commit in ordered)]
