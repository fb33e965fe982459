"""`hub backfill --from-log`: a mapping was changed and a table went astray; the log is read again, killed on the way."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROWS = 16_000

CONFIG = """
captures:
  shop:
    file: {path: %(source)s, follow: false}
collections:
  shop: {key: [/id]}
derivations:
  some:
    from: shop
    mapping: |
      %(mapping)s
materializations:
  lake:
    sqlite: {path: %(lake)s}
    commit: {rows: 500}
    bindings:
      - {from: some, table: some}
      - {from: shop, table: soft, deletes: soft}%(more)s
log: {path: %(data)s}
server: {enabled: false}
"""


def rows(lake: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(lake)) as connection:
        return connection.execute(query).fetchall()


def hub(*arguments: object, kill_after_s: float | None = None) -> subprocess.CompletedProcess[str] | None:
    """Run hub to its end; None when it was killed before."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hub.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=kill_after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    return subprocess.CompletedProcess((), process.returncode, said)


def done_well(*arguments: object) -> None:
    """Run hub to its end, which is a good one."""
    done = hub(*arguments)
    assert done is not None
    assert done.returncode == 0, done.stdout


@pytest.fixture
def place(tmp_path: Path) -> dict[str, Any]:
    source = tmp_path / "things.ndjson"
    lines = [json.dumps({"id": i % (ROWS // 2), "n": i}) for i in range(ROWS)]
    source.write_text("\n".join(lines) + "\n")
    return {
        "source": source,
        "lake": tmp_path / "lake.db",
        "data": tmp_path / "data",
        "mapping": "root = this",
        "more": "",
        "config": tmp_path / "hub.yaml",
    }


def configure(place: dict[str, Any], **changed: str) -> Path:
    config: Path = place["config"]
    config.write_text(CONFIG % (place | changed))
    return config


@pytest.mark.timeout(300)
def test_a_table_is_made_anew_from_the_log_through_a_new_mapping(place: dict[str, Any]) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    lake = place["lake"]
    done_well("run", configure(place), "--no-live")
    assert rows(lake, "SELECT count(*), sum(n) FROM some")[0][0] == ROWS // 2

    with contextlib.closing(sqlite3.connect(lake)) as connection, connection:
        connection.execute("UPDATE some SET n = -1 WHERE id % 3 = 0")
        connection.execute("DELETE FROM some WHERE id % 5 = 0")
        connection.execute("INSERT INTO some (id, n) VALUES (1000000, 0)")
        connection.execute("INSERT INTO soft (id, n) VALUES (1000000, 0)")
    config = configure(place, mapping="root = if this.id % 2 == 1 { deleted() }")
    done_well("backfill", config, "lake", "--from-log")

    kills = 0
    while (done := hub("run", config, "--no-live", kill_after_s=rng.uniform(0.4, 0.8) * (1 + kills))) is None:
        kills += 1
        swept = rows(lake, "SELECT count(*) FROM some WHERE id = 1000000") == [(0,)]
        marked = rows(lake, "SELECT count(*) FROM soft WHERE _deleted_at IS NOT NULL") == [(1,)]
        assert swept == marked, "tables are swept together"
    assert done.returncode == 0, done.stdout
    assert rows(lake, "SELECT id, n FROM some ORDER BY id") == [
        (i, i + ROWS // 2) for i in range(0, ROWS // 2, 2)
    ]
    assert rows(lake, "SELECT id FROM soft WHERE _deleted_at IS NOT NULL") == [(1_000_000,)]
    assert rows(lake, "SELECT count(*) FROM hub_backfills") == [(0,)]
    again = hub("run", config, "--no-live")
    assert again is not None
    assert "rewound" not in again.stdout
    assert "backfilled_from_the_log" not in again.stdout


GROWING = """
      - {from: some, table: journal, mode: append}
      - {from: some, table: versions, mode: history}"""


def grown(lake: Path) -> list[list[tuple[Any, ...]]]:
    """What stands in the tables that only grow."""
    return [
        rows(lake, "SELECT count(*), sum(n), count(DISTINCT n) FROM journal"),
        rows(lake, "SELECT count(*), sum(n), sum(_is_current), count(_valid_to) FROM versions"),
    ]


@pytest.mark.timeout(300)
def test_tables_that_only_grow_are_made_anew_at_once_and_each_row_once(place: dict[str, Any]) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    lake = place["lake"]
    done_well("run", configure(place, more=GROWING), "--no-live")
    everything = sum(range(ROWS))
    of_all = [[(ROWS, everything, ROWS)], [(ROWS, everything, ROWS // 2, ROWS // 2)]]
    assert grown(lake) == of_all
    with contextlib.closing(sqlite3.connect(lake)) as connection, connection:
        connection.execute("CREATE VIEW theirs AS SELECT count(*) AS c FROM journal")

    # One of them, and none of the others.
    config = configure(place, more=GROWING, mapping='root = this.assign({"n": this.n * 2})')
    done_well("backfill", config, "lake", "journal", "--from-log")
    doubled = [(ROWS, 2 * everything, ROWS)]
    kills = 0
    while (done := hub("run", config, "--no-live", kill_after_s=rng.uniform(0.4, 0.8) * (1 + kills))) is None:
        kills += 1
        assert rows(lake, "SELECT count(*), sum(n), count(DISTINCT n) FROM journal") in (of_all[0], doubled)
        assert grown(lake)[1] == of_all[1]
    assert done.returncode == 0, done.stdout
    assert grown(lake) == [doubled, of_all[1]]
    assert rows(lake, "SELECT c FROM theirs") == [(ROWS,)]
    assert rows(lake, "SELECT sum(n) FROM some") == rows(lake, "SELECT sum(n) FROM soft")

    # All of them, while the source goes on.
    more = [json.dumps({"id": -i, "n": 0}) for i in range(1, 11)]
    with place["source"].open("a") as source:
        source.write("\n".join(more) + "\n")
    config = configure(place, more=GROWING, mapping="root = if this.n % 2 == 1 { deleted() }")
    done_well("backfill", config, "lake", "--from-log")
    kills = 0
    while (done := hub("run", config, "--no-live", kill_after_s=rng.uniform(0.4, 0.8) * (1 + kills))) is None:
        kills += 1
    assert done.returncode == 0, done.stdout
    even = sum(range(0, ROWS, 2))
    assert rows(lake, "SELECT count(*), sum(n) FROM journal WHERE _operation <> 'delete'") == [
        (ROWS // 2 + 10, even)
    ]
    assert rows(lake, "SELECT sum(n), sum(_is_current) FROM versions") == [(even, ROWS // 4 + 10)]
    left = rows(lake, "SELECT name FROM sqlite_master WHERE name LIKE 'hub_new%' OR name LIKE 'hub_seen%'")
    assert left == []
    assert rows(lake, "SELECT count(*) FROM hub_backfills") == [(0,)]


def test_what_cannot_be_read_again_from_the_log_is_said(place: dict[str, Any]) -> None:
    hub("run", configure(place), "--no-live")

    def refused(more: str, *arguments: str) -> str:
        config = configure(place, more=more)
        found = hub("backfill", config, *arguments, "--from-log")
        assert found is not None
        assert found.returncode != 0, found.stdout
        return found.stdout

    assert "name of a materialization" in refused("", "shop")
    assert "is called sone" in refused("", "lake", "sone")
    joined = "\n      - {from: [shop, some], table: all, mode: append}"
    assert "the rows of the others would be lost" in refused(joined, "lake", "shop")
    done_well("backfill", configure(place, more=joined), "lake", "all", "--from-log")
    routed = "\n      - {from: shop, table: 't${! this.id.not_null() }', mode: append}"
    assert "documents say where they go" in refused(routed, "lake")
    done_well("backfill", configure(place, more=routed), "lake", "some", "--from-log")
    config = configure(place, more=GROWING.replace("some", "shop"))
    config.write_text(config.read_text().replace("key: [/id]", "key: [/id], retention: {compact: true}"))
    refusal = hub("backfill", config, "lake", "--from-log")
    assert refusal is not None
    assert "keeps every change: what is there would be lost" in refusal.stdout
    done_well("backfill", config, "lake", "some", "soft", "--from-log")
