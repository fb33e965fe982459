"""A second distribution with connectors, as if a user had installed one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub import registry


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder on the import path that holds the distribution `acme-connectors`."""
    folder = Path(__file__).parent / "connectors"
    monkeypatch.syspath_prepend(folder)
    registry.entries.cache_clear()
    registry.connector.cache_clear()
    yield folder
    registry.entries.cache_clear()
    registry.connector.cache_clear()
