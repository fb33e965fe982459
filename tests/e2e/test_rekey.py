"""A key whose columns change in PostgreSQL, through the whole hub, into PostgreSQL and DuckDB."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import psycopg

from hub.testing.postgres import PostgresServer, temporary_database
from tests.crash.hub_process import hub_running

WAIT_S = 60
CONFIG = """
captures:
  shop:
    postgres: {{dsn: "{source}", tables: ["public.*"], refresh_interval: 1s}}
materializations:
  rep:
    postgres: {{dsn: "{rep}", schema: rep}}
    commit: {{every: 20ms}}
    bindings:
      - {{from: "shop/*", table: "${{! @table }}"}}
      - {{from: "shop/*", table: "${{! @table }}_soft", deletes: soft}}
  warehouse:
    duckdb: {{path: "{folder}/warehouse.duckdb", copy: {{path: "{folder}/copy.duckdb", every: 0s}}}}
    commit: {{every: 20ms}}
    bindings:
      - {{from: "shop/*", table: "${{! @table }}", deletes: soft}}
log: {{path: "{folder}/data"}}
server: {{address: "127.0.0.1:0"}}
"""
STEPS = (
    # Another column; rows may then have the same id.
    (
        "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (code)",
        "INSERT INTO t VALUES (1, 'c', 3)",
        "UPDATE t SET n = 4 WHERE code = 'a'",
        "DELETE FROM t WHERE code = 'b'",
    ),
    # Both columns, in the transaction of rows before and after.
    (
        "BEGIN",
        "UPDATE t SET n = 5 WHERE code = 'c'",
        "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, code)",
        "INSERT INTO t VALUES (2, 'c', 6), (2, 'b', 6)",
        "COMMIT",
        "UPDATE t SET n = 7 WHERE id = 1 AND code = 'c'",
    ),
    # Back to one, when the rows are gone that it would not tell apart.
    (
        "DELETE FROM t WHERE id = 2",
        "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (code)",
        "INSERT INTO t VALUES (3, 'b', 8)",
        "UPDATE t SET id = 9",
    ),
    # The column that was the key goes.
    (
        "ALTER TABLE t DROP COLUMN id",
        "INSERT INTO t (code, n) VALUES ('d', 9)",
        "UPDATE t SET n = 10 WHERE code = 'a'",
    ),
)


def test_destinations_go_by_the_new_key_under_sigkill(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    chance = random.Random(int(os.environ.get("HUB_TEST_SEED", "6")))
    with (
        temporary_database(postgres_server, "rekeyed") as source,
        temporary_database(postgres_server, "rekeyed_copy") as rep,
        psycopg.connect(source, autocommit=True) as here,
        psycopg.connect(rep, autocommit=True) as there,
    ):
        config, log = tmp_path / "hub.yaml", tmp_path / "hub.log"
        config.write_text(CONFIG.format(source=source, rep=rep, folder=tmp_path))

        def until_same() -> None:
            names = [name for (name,) in run(here, "SELECT attname::text FROM pg_attribute WHERE attrelid = "
                     "'t'::regclass AND attnum > 0 AND NOT attisdropped")]  # fmt: skip
            columns = ", ".join(names)
            wanted = sorted(run(here, f"SELECT {columns} FROM t"))
            until(lambda: sorted(tried(there, f"SELECT {columns} FROM rep.t")) == wanted, log)
            live = f"SELECT {columns} FROM rep.t_soft WHERE _deleted_at IS NULL"
            until(lambda: sorted(tried(there, live)) == wanted, log)

        run(here, "CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL, n int)")
        run(here, "INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2)")
        with hub_running(config, log):
            until_same()
        for step in STEPS:
            at = chance.randrange(len(step))
            with hub_running(config, log):
                for text in step[:at]:
                    run(here, text)
            # Killed; the rest of the step is made while nobody looks.
            for text in step[at:]:
                run(here, text)
            with hub_running(config, log):
                until_same()
        wanted = sorted(run(here, "SELECT code, n FROM t"))
        with hub_running(config, log):
            until(lambda: in_warehouse(tmp_path / "copy.duckdb") == wanted, log)
        keys = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'rep.t'::regclass AND contype = 'p'"
        assert run(there, keys) == [("PRIMARY KEY (code)",)]
        assert '"task_failed"' not in log.read_text()


def run(connection: psycopg.Connection[Any], text: str) -> list[tuple[Any, ...]]:
    cursor = connection.execute(text.encode())
    return cursor.fetchall() if cursor.description else []


def tried(connection: psycopg.Connection[Any], text: str) -> list[tuple[Any, ...]]:
    """The rows, none while the table is not there yet."""
    with contextlib.suppress(psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return connection.execute(text.encode(), prepare=False).fetchall()
    return []


def in_warehouse(copy: Path) -> list[tuple[Any, ...]]:
    """The rows of the copy for readers, which is replaced as a whole."""
    if not copy.exists():
        return []
    with contextlib.closing(duckdb.connect(str(copy), read_only=True)) as connection:
        return sorted(connection.execute("SELECT code, n FROM t WHERE _deleted_at IS NULL").fetchall())


def until(claim: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not claim():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.02)
