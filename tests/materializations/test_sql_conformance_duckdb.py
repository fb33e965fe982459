"""The DuckDB materialization through the conformance kit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hub.testing.materialization import check_materialization
from tests.materializations.sql_subjects import RUNS, DuckDBSubject, check_changing_schema
from tests.materializations.sql_values import check_round_trip


@pytest.mark.anyio
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", RUNS, ids=str)
async def test_duckdb_equals_the_model_after_any_history(files: Callable[[], Path], seeds: range) -> None:
    await check_materialization(lambda: DuckDBSubject(files()), seeds=seeds)


@pytest.mark.anyio
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(4))
async def test_duckdb_needs_no_stop_while_the_schema_changes_fifty_times(
    files: Callable[[], Path], seed: int
) -> None:
    await check_changing_schema(DuckDBSubject(files()), seed)


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(3))
async def test_duckdb_gives_back_what_it_was_given(files: Callable[[], Path], seed: int) -> None:
    await check_round_trip(DuckDBSubject(files()), seed)
