"""What every SQL database is put through. Its own file says how a subject is made."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import ClassVar

import pytest

from hub.testing.materialization import Subject, check_materialization
from tests.materializations.sql_subjects import RUNS, check_changing_schema
from tests.materializations.sql_values import check_round_trip

Made = Callable[[str], Subject]
"""A subject in an empty place of this name."""


@pytest.mark.anyio
@pytest.mark.timeout(600)
class Conformance:
    """The kit, a schema that changes without end, and values of every type. `made` is a fixture of the subclass."""

    @pytest.mark.parametrize("seeds", RUNS, ids=str)
    async def test_it_equals_the_model_after_any_history(self, made: Made, seeds: range) -> None:
        numbers = itertools.count(seeds.start)
        await check_materialization(lambda: made(f"kit_{next(numbers)}"), seeds=seeds)

    @pytest.mark.parametrize("seed", range(4))
    async def test_it_needs_no_stop_while_the_schema_changes_fifty_times(self, made: Made, seed: int) -> None:
        await check_changing_schema(made(f"changing_{seed}"), seed)

    @pytest.mark.parametrize("seed", range(3))
    async def test_it_gives_back_what_it_was_given(self, made: Made, seed: int) -> None:
        await check_round_trip(made(f"values_{seed}"), seed)


class BulkConformance(Conformance):
    """The same for a database that many rows go into by another way than few."""

    module: ClassVar[str]

    async def test_in_bulk_it_equals_the_model_after_any_history(
        self, made: Made, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every load in bulk, straight into the table where rows should be new, else through a temporary one."""
        monkeypatch.setattr(f"{self.module}.ROWS_SMALL", 0)
        monkeypatch.setattr(f"{self.module}.DIRECT_OFF", 0)
        numbers = itertools.count()
        await check_materialization(lambda: made(f"bulk_{next(numbers)}"), seeds=RUNS[0])
