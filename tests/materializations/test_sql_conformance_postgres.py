"""The PostgreSQL materialization through the conformance kit."""

from __future__ import annotations

import itertools

import pytest

from hub.testing.materialization import check_materialization
from hub.testing.postgres import PostgresServer
from tests.materializations.sql_subjects import RUNS, PostgresSubject, check_changing_schema
from tests.materializations.sql_values import check_round_trip


@pytest.mark.anyio
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", RUNS, ids=str)
async def test_postgres_equals_the_model_after_any_history(
    postgres_server: PostgresServer, seeds: range
) -> None:
    numbers = itertools.count(seeds.start)
    await check_materialization(lambda: PostgresSubject(postgres_server, f"kit_{next(numbers)}"), seeds=seeds)


@pytest.mark.anyio
@pytest.mark.timeout(600)
async def test_postgres_in_bulk_equals_the_model_after_any_history(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every load by COPY, straight into the table where rows should be new, else through a temporary one."""
    monkeypatch.setattr("hub_materializations.postgres.ROWS_SMALL", 0)
    monkeypatch.setattr("hub_materializations.postgres.DIRECT_OFF", 0)
    numbers = itertools.count()
    await check_materialization(
        lambda: PostgresSubject(postgres_server, f"bulk_{next(numbers)}"), seeds=RUNS[0]
    )


@pytest.mark.anyio
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(4))
async def test_postgres_needs_no_stop_while_the_schema_changes_fifty_times(
    postgres_server: PostgresServer, seed: int
) -> None:
    await check_changing_schema(PostgresSubject(postgres_server, f"changing_{seed}"), seed)


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(3))
async def test_postgres_gives_back_what_it_was_given(postgres_server: PostgresServer, seed: int) -> None:
    await check_round_trip(PostgresSubject(postgres_server, f"values_{seed}"), seed)
