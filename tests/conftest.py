"""Fixtures that several parts of the suite share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hub.testing.postgres import PostgresMissing, PostgresServer


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One real PostgreSQL for the whole run. Make a database of your own in it (`temporary_database`)."""
    try:
        server = PostgresServer()
    except PostgresMissing as error:
        pytest.skip(str(error))
    with server:
        yield server
