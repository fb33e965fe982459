"""The MySQL materialization through the conformance kit, against MariaDB."""

from __future__ import annotations

import itertools

import pytest

from hub.testing.mariadb import MariaDBServer
from hub.testing.materialization import check_materialization
from tests.materializations.sql_subjects import RUNS, MySQLSubject, check_changing_schema
from tests.materializations.sql_values import check_round_trip


@pytest.mark.anyio
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", RUNS, ids=str)
async def test_mysql_equals_the_model_after_any_history(mariadb_server: MariaDBServer, seeds: range) -> None:
    numbers = itertools.count(seeds.start)
    await check_materialization(lambda: MySQLSubject(mariadb_server, f"kit_{next(numbers)}"), seeds=seeds)


@pytest.mark.anyio
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(4))
async def test_mysql_needs_no_stop_while_the_schema_changes_fifty_times(
    mariadb_server: MariaDBServer, seed: int
) -> None:
    await check_changing_schema(MySQLSubject(mariadb_server, f"changing_{seed}"), seed)


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(3))
async def test_mysql_gives_back_what_it_was_given(mariadb_server: MariaDBServer, seed: int) -> None:
    await check_round_trip(MySQLSubject(mariadb_server, f"values_{seed}"), seed)


@pytest.mark.anyio
@pytest.mark.timeout(600)
async def test_mysql_in_bulk_equals_the_model_after_any_history(
    mariadb_server: MariaDBServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every load by LOAD DATA LOCAL, straight into the table where rows should be new, else through a temporary one."""
    monkeypatch.setattr("hub_materializations.mysql.ROWS_SMALL", 0)
    monkeypatch.setattr("hub_materializations.mysql.DIRECT_OFF", 0)
    numbers = itertools.count()
    await check_materialization(lambda: MySQLSubject(mariadb_server, f"bulk_{next(numbers)}"), seeds=RUNS[0])
