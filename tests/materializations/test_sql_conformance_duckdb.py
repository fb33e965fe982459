"""The DuckDB materialization through the conformance kit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.materializations.sql_conformance import Conformance, Made
from tests.materializations.sql_subjects import DuckDBSubject


class TestDuckDB(Conformance):
    @pytest.fixture
    def made(self, files: Callable[[], Path]) -> Made:
        return lambda _name: DuckDBSubject(files())
