"""Fixtures that several parts of the suite share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from hub import registry
from hub.testing.postgres import PostgresMissing, PostgresServer

# Time is never asserted in a test: machines are shared, and a slow moment is no failure.
settings.register_profile("hub", deadline=None)
settings.load_profile("hub")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One real PostgreSQL for the whole run. Make a database of your own in it (`temporary_database`)."""
    try:
        server = PostgresServer()
    except PostgresMissing as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a second distribution with connectors, on the import path as if a user had installed it."""
    folder = Path(__file__).parent / "connectors_of_acme"
    monkeypatch.syspath_prepend(folder)
    registry.entries.cache_clear()
    registry.connector.cache_clear()
    yield folder
    registry.entries.cache_clear()
    registry.connector.cache_clear()
