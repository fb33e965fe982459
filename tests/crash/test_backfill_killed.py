"""A destination that went astray is filled anew by `hub backfill`, while the hub is killed and the source goes on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from hub.testing.postgres import PostgresServer
from tests.crash.hub_process import hub_running

ROWS = 6_000
KILLS = 4
CATCH_UP_S = 90

CONFIG = """
captures:
  shop:
    postgres: {dsn: "%(dsn)s", tables: [public.things], chunk: 64KiB}
derivations:
  even:
    from: shop/public.things
    mapping: |
      root = if this.id %% 2 == 1 { deleted() }
materializations:
  lake:
    duckdb: {path: %(duckdb)s}
    bindings: [{from: even, table: things}]
  mirror:
    postgres: {dsn: "%(mirror)s"}
    bindings:
      - {from: "shop/*", table: hard}
      - {from: shop/public.things, table: things}
      - {from: shop/public.things, table: soft, deletes: soft}
      - {from: shop/public.things, table: versions, mode: history}
      - {from: shop/public.things, table: journal, mode: append}
log: {path: %(data)s}
server: {enabled: false}
"""


class Writer(threading.Thread):
    """Changes the source until told to stop."""

    def __init__(self, dsn: str, seed: int) -> None:
        super().__init__(daemon=True)
        self._dsn = dsn
        self._random = random.Random(seed)
        self.stopping = threading.Event()

    def run(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self.stopping.wait(0.002):
                key = self._random.randrange(ROWS)
                text = self._random.choice(
                    (
                        "delete from things where id = %s",
                        "update things set n = n + 1 where id = %s",
                        "insert into things values (%s, 0) on conflict (id) do update set n = 0",
                    )
                )
                connection.execute(text, (key,))

    def finish(self) -> None:
        self.stopping.set()
        self.join()


def run_until(config: Path, output: Path, reached: Callable[[], bool]) -> None:
    """Run the hub until something holds, then stop it as a user does."""
    with hub_running(config, output) as process:
        deadline = time.monotonic() + CATCH_UP_S
        while not reached():
            assert process.poll() is None, output.read_text()[-4000:]
            assert time.monotonic() < deadline, output.read_text()[-4000:]
        process.send_signal(signal.SIGTERM)
        assert process.wait(CATCH_UP_S) == 0, output.read_text()[-4000:]


def ask(config: Path, *names: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hub.cli", "backfill", str(config), *names],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(query.encode()).fetchall()


@pytest.mark.postgres_since(14, "a running capture can be asked for a backfill")
@pytest.mark.timeout(420)
def test_a_backfill_that_is_killed_again_and_again_leaves_the_destinations_equal_to_the_source(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for database in ("backfilled", "astray"):
        postgres_server.run(f"drop database if exists {database}", f"create database {database}")
    source, mirror = postgres_server.dsn_of("backfilled"), postgres_server.dsn_of("astray")
    postgres_server.run(
        "create table things (id bigint primary key, n bigint, note text default repeat('x', 100))",
        f"insert into things select i, i from generate_series(0, {ROWS - 1}) i",
        database="backfilled",
    )
    lake = tmp_path / "lake.duckdb"
    config, output = tmp_path / "shop.yaml", tmp_path / "hub.log"
    config.write_text(CONFIG % {"dsn": source, "mirror": mirror, "duckdb": lake, "data": tmp_path / "data"})

    all_ = "select id, n from things order by id"
    mirrored = "select to_regclass('journal') is not null"

    def is_caught_up() -> bool:
        return rows(mirror, mirrored) == [(True,)] and rows(mirror, all_) == rows(source, all_)

    run_until(config, output, is_caught_up)
    ghosts = f"from generate_series({ROWS}, {ROWS + 500}) i"
    with psycopg.connect(mirror, autocommit=True) as connection:
        connection.execute(f"insert into things (id, n) select i, -1 {ghosts}".encode())
        connection.execute(f"insert into soft (id, n) select i, -1 {ghosts}".encode())
        connection.execute(
            f"insert into versions (id, n, _valid_from, _is_current) select i, -1, now(), true {ghosts}".encode()
        )
        connection.execute("update things set n = -5 where id % 7 = 0")
        connection.execute("delete from things where id % 11 = 0")
        versions = connection.execute("select count(*) from versions").fetchone()
        assert versions is not None
    with duckdb.connect(str(lake)) as file:
        file.execute(f"insert into things (id, n) select i, -1 from range({ROWS}, {ROWS + 500}) t(i)")

    said = ask(config, "mirror", "things", "soft", "versions") + ask(config, "lake")
    assert "asked shop to read public.things again" in said
    assert "rows that are gone will stay: shop/public.things into hard: several collections" in said

    writer = Writer(source, seed)
    writer.start()
    for _ in range(KILLS):
        with hub_running(config, output) as process, pytest.raises(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.6, 1.5))
    writer.finish()

    def is_swept() -> bool:
        active = rows(mirror, "select to_regclass('hub_backfills') is null")
        if active == [(True,)] or rows(mirror, "select count(*) from hub_backfills") != [(0,)]:
            return False
        return rows(mirror, "select count(*) from things where n = -1") == [(0,)] and is_caught_up()

    run_until(config, output, is_swept)
    live = "select id, n from {} where {} order by id"
    want = rows(source, all_)
    assert rows(mirror, live.format("soft", "_deleted_at is null")) == want
    assert rows(mirror, live.format("versions", "_is_current")) == want
    # The rows that are as they were have no second version: what is new was changed meanwhile.
    assert rows(mirror, "select count(*) from versions where id % 2 = 0")[0][0] < versions[0]
    with duckdb.connect(str(lake), read_only=True) as file:
        found = file.execute("select id, n from things order by id").fetchall()
    assert found == [row for row in want if row[0] % 2 == 0]
    assert rows(mirror, "select count(*) from pg_class where relname like 'hub_seen%'") == [(0,)]
