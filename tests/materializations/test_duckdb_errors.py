"""What an error of DuckDB means for the task: opened again, or stopped."""

from __future__ import annotations

import duckdb
import pytest

from hub.errors import FatalError, HubError, TransientError
from hub_materializations.sql.duckdb_driver import mapped


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "Corrupted uncompressed string segment: dictionary offset 9 exceeds dictionary size 1",
            TransientError,
        ),
        (
            "Corrupt database file: computed checksum 1 does not match stored checksum 2 in block 3",
            FatalError,
        ),
        ("IO Error: Corrupted ALP segment: offset 9 exceeds 1", TransientError),
        ('IO Error: Could not set lock on file "w.duckdb": Conflicting lock is held', TransientError),
    ],
)
def test_a_file_is_opened_again_when_that_may_help_and_not_when_it_is_damaged(
    text: str, wanted: type[HubError]
) -> None:
    with pytest.raises(wanted, match=text.partition(":")[0]), mapped("w.duckdb"):
        raise duckdb.IOException(text)


def test_too_little_memory_names_the_options_that_help() -> None:
    connection = duckdb.connect(config={"memory_limit": "4MB", "temp_directory": ""})
    with pytest.raises(TransientError, match="give it more with `memory`"), mapped("w.duckdb"):
        connection.execute("CREATE TABLE t AS SELECT range a, uuid() b FROM range(1_000_000)")
    connection.close()
