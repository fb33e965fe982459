"""Fixtures that several parts of the suite share."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from hub import registry
from hub.testing.postgres import WANTED, PostgresMissing, PostgresServer

# Time is never asserted in a test: machines are shared, and a slow moment is no failure.
settings.register_profile("hub", deadline=None)
settings.load_profile("hub")


@pytest.fixture(scope="session")
def postgres_servers() -> Iterator[Callable[[int | None], PostgresServer]]:
    """A real PostgreSQL of each major version that is asked for, running until the end; None is the usual one."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def running(version: int | None) -> PostgresServer:
            return stack.enter_context(PostgresServer(version=version))

        yield running


@pytest.fixture
def postgres_server(
    request: pytest.FixtureRequest, postgres_servers: Callable[[int | None], PostgresServer]
) -> PostgresServer:
    """One real PostgreSQL for the whole run. Make a database of your own in it (`temporary_database`)."""
    try:
        server = postgres_servers(getattr(request, "param", None))
    except PostgresMissing as error:
        pytest.skip(str(error))
    since = request.node.get_closest_marker("postgres_since")
    if since is not None and server.version < since.args[0]:
        version, what = since.args
        pytest.skip(f"{what} since PostgreSQL {version}, this is {server.version}")
    return server


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `postgres_also` on that version too, unless all tests run on a version that was chosen."""
    also = metafunc.definition.get_closest_marker("postgres_also")
    if also is not None and "postgres_server" in metafunc.fixturenames and not os.environ.get(WANTED):
        versions = [pytest.param(None, id="usual"), *(pytest.param(v, id=str(v)) for v in also.args)]
        metafunc.parametrize("postgres_server", versions, indirect=True)


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
