"""Databases that several tests of destinations share."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hub.testing.mariadb import MariaDBMissing, MariaDBServer
from tests.materializations.sql_databases import database as database


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDBServer]:
    """One real MariaDB for the whole run. Make a database of your own in it."""
    try:
        server = MariaDBServer()
    except MariaDBMissing as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture
def files() -> Iterator[Callable[[], Path]]:
    """New paths, in memory where there is such a place: the kit's accidents are not power cuts."""
    numbers = itertools.count()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield lambda: Path(folder) / f"{next(numbers)}.db"
