"""SIGKILL at random moments, snapshot included: nothing lost, nothing doubled, nothing half visible.

A writer keeps two ledgers in balance: every source transaction adds an amount to one table and takes it from
the other, and does random inserts, updates, deletes and key changes beside it. The hub is killed again and again;
after each kill DuckDB's file is opened, and the second PostgreSQL is watched all the time.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import psycopg
import pytest

from hub.testing.postgres import PostgresServer
from tests.crash.hub_process import hub_running

KILLS = int(os.environ.get("HUB_TEST_KILLS", "20"))
ROWS = 20_000
CATCH_UP_S = 90

CONFIG = """
captures:
  bank:
    postgres: {dsn: "%(dsn)s", tables: [public.*]}
derivations:
  audited:
    from: bank/public.debit
    mapping: |
      root = this
      root.twice = this.amount * 2
materializations:
  lake:
    duckdb: {path: %(duckdb)s}
    bindings:
      - {from: audited, table: debit}
      - {from: bank/public.credit, table: "${! @table }"}
  mirror:
    postgres: {dsn: "%(mirror)s"}
    bindings:
      - {from: bank/*, table: "${! @table }"}
log: {path: %(data)s}
server: {enabled: false}
"""

SCHEMA = f"""
create table debit (id bigint primary key, amount bigint not null, note text, tags text[]);
create table credit (id bigint primary key, amount bigint not null, at timestamptz not null default now());
insert into debit select i, i, repeat('x', i % 100), array['a', null, 'q"' || i] from generate_series(1, {ROWS}) i;
insert into credit select i, -i from generate_series(1, {ROWS}) i;
"""

BALANCE = (
    "select (select coalesce(sum(amount), 0) from debit) + (select coalesce(sum(amount), 0) from credit)"
)


class Writer(threading.Thread):
    """Random transactions until told to stop. Each leaves the ledgers in balance."""

    def __init__(self, dsn: str, seed: int, *, first: int = 1_000_000) -> None:
        super().__init__(daemon=True)
        self._dsn = dsn
        self._random = random.Random(seed)
        self._next = first
        with psycopg.connect(dsn) as connection:
            self._keys = [key for (key,) in connection.execute("select id from debit")]
        self.stopping = threading.Event()
        self.transactions = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with psycopg.connect(self._dsn, autocommit=True) as connection:
                while not self.stopping.is_set():
                    rolled_back = self._random.random() < 0.05
                    with connection.transaction(force_rollback=rolled_back):
                        for _ in range(self._random.choice((1, 1, 2, 3, 20))):
                            self._change(connection, keep=not rolled_back)
                    self.transactions += not rolled_back
        except BaseException as error:
            self.failure = error

    def finish(self) -> None:
        self.stopping.set()
        self.join()
        assert self.failure is None, self.failure

    def _change(self, connection: psycopg.Connection, *, keep: bool) -> None:
        amount = self._random.randrange(1000)
        key = self._random.choice(self._keys)
        kind = self._random.choices(("insert", "update", "delete", "rekey"), (4, 4, 1, 1))[0]
        if kind == "insert" or len(self._keys) < 100:
            new = self._next
            self._next += 1
            connection.execute("insert into debit values (%s, %s, 'é\n\"', '{}')", (new, amount))
            connection.execute("insert into credit values (%s, %s)", (new, -amount))
            if keep:
                self._keys.append(new)
        elif kind == "update":
            connection.execute("update debit set amount = amount + %s where id = %s", (amount, key))
            connection.execute("update credit set amount = amount - %s where id = %s", (amount, key))
        elif kind == "delete":
            connection.execute("delete from debit where id = %s", (key,))
            connection.execute("delete from credit where id = %s", (key,))
            if keep:
                self._keys.remove(key)
        else:
            new = self._next
            self._next += 1
            connection.execute("update debit set id = %s where id = %s", (new, key))
            connection.execute("update credit set id = %s where id = %s", (new, key))
            if keep:
                self._keys[self._keys.index(key)] = new


class Watcher(threading.Thread):
    """Looks at the mirror all the time: the sums of one statement must cancel out."""

    def __init__(self, dsn: str) -> None:
        super().__init__(daemon=True)
        self._dsn = dsn
        self.stopping = threading.Event()
        self.looks = 0
        self.unbalanced: list[object] = []

    def run(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self.stopping.wait(0.003):
                row = connection.execute(BALANCE).fetchone()
                assert row is not None
                self.looks += 1
                if row[0] != 0:
                    self.unbalanced.append(row[0])

    def finish(self) -> None:
        self.stopping.set()
        self.join()


@pytest.mark.timeout(420)
def test_killed_at_random_moments_loses_doubles_and_tears_nothing(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    seed = int(os.environ.get("HUB_TEST_SEED", str(random.randrange(1 << 30))))
    print(f"HUB_TEST_SEED={seed}")
    rng = random.Random(seed)
    for database in ("bank", "mirror"):
        postgres_server.run(f"drop database if exists {database}", f"create database {database}")
    source, mirror = postgres_server.dsn_of("bank"), postgres_server.dsn_of("mirror")
    postgres_server.run(SCHEMA, database="bank")
    lake = tmp_path / "lake.duckdb"
    config = tmp_path / "bank.yaml"
    config.write_text(CONFIG % {"dsn": source, "mirror": mirror, "duckdb": lake, "data": tmp_path / "data"})
    output = tmp_path / "hub.log"

    kills = Kills(config, output, rng)
    in_snapshot = Writer(source, seed)
    in_snapshot.start()
    kills.times(KILLS * 2 // 5)
    in_snapshot.finish()
    kills.until_equal(source, mirror)

    # The snapshot is over: from here on whole transactions arrive, and every look must be balanced.
    streaming, watcher = Writer(source, seed + 1, first=10_000_000), Watcher(mirror)
    streaming.start()
    watcher.start()
    kills.times(KILLS - KILLS * 2 // 5, after_each=lambda: unbalanced_lake(lake))
    streaming.finish()
    kills.until_equal(source, mirror)
    watcher.finish()

    print(
        f"{in_snapshot.transactions} + {streaming.transactions} transactions, {KILLS} kills, {watcher.looks} looks"
    )
    assert streaming.transactions > 100
    assert watcher.looks > 100
    assert watcher.unbalanced == []
    assert kills.found == []
    assert dump(source) == dump(mirror)
    assert dump(source) == dump_lake(lake)


class Kills:
    """Runs the hub and kills it."""

    def __init__(self, config: Path, output: Path, rng: random.Random) -> None:
        self._config = config
        self._output = output
        self._rng = rng
        self.found: list[object] = []

    def times(self, count: int, *, after_each: Callable[[], Sequence[object]] = tuple) -> None:
        for _ in range(count):
            with hub_running(self._config, self._output) as process:
                try:
                    code = process.wait(self._rng.uniform(0.5, 2.0))
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                else:
                    pytest.fail(f"hub ended by itself with {code}:\n{self._tail()}")
            self.found += after_each()

    def until_equal(self, source: str, mirror: str) -> None:
        """Run until the mirror shows all there is, then stop as a user does."""
        with hub_running(self._config, self._output) as process:
            deadline = time.monotonic() + CATCH_UP_S
            want = dump(source)
            while dump(mirror) != want:
                assert process.poll() is None, self._tail()
                assert time.monotonic() < deadline, "did not catch up:\n" + self._tail()
            process.send_signal(signal.SIGTERM)
            assert process.wait(CATCH_UP_S) == 0, self._tail()

    def _tail(self) -> str:
        return self._output.read_text()[-4000:]


def unbalanced_lake(lake: Path) -> list[object]:
    with duckdb.connect(str(lake), read_only=True) as connection:
        row = connection.execute(BALANCE).fetchone()
    assert row is not None
    return [] if row[0] == 0 else [row[0]]


def dump(dsn: str) -> dict[str, list[tuple[object, ...]]]:
    with psycopg.connect(dsn) as connection:
        try:
            return {
                "debit": connection.execute(
                    "select id, amount, note, to_json(tags)::text from debit order by id"
                ).fetchall(),
                "credit": connection.execute('select id, amount, "at" from credit order by id').fetchall(),
            }
        except psycopg.errors.UndefinedTable:
            return {}


def dump_lake(lake: Path) -> dict[str, list[tuple[object, ...]]]:
    with duckdb.connect(str(lake), read_only=True) as connection:
        assert connection.execute("select count(*) from debit where twice <> amount * 2").fetchone() == (0,)
        debit = connection.execute("select id, amount, note, tags from debit order by id").fetchall()
        return {
            "debit": [
                (*row[:3], json.dumps(row[3], separators=(",", ":"), ensure_ascii=False)) for row in debit
            ],
            "credit": connection.execute('select id, amount, "at" from credit order by id').fetchall(),
        }
