"""Rows on their way into DuckDB: lines as files, and new rows that need no merge."""

from __future__ import annotations

import contextlib
from pathlib import Path

import anyio
import duckdb
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.materialization import Binding
from hub.record import Batch, Cursor, Place, TaskName
from hub.schema import ColumnType, describe
from hub.schema.types import INT64, STRING
from hub.spec import Size
from hub_materializations.duckdb import DuckDBMaterialization
from hub_materializations.sql.binding import SqlBinding
from hub_materializations.sql.memory_file import FILE_BYTES_MIN, KEPT_BYTES, MemoryFiles, cut

BINDING = Binding("t", "t", SqlBinding(source="t"))
UNSIGNED = ColumnType("integer", bits=64, unsigned=True).null(False)


@given(st.lists(st.binary(max_size=9)), st.integers(1, 5), st.integers(1, 20))
def test_lines_are_cut_into_no_more_parts_than_told_and_none_is_cut_itself(
    lines: list[bytes], count: int, size_min: int
) -> None:
    text = b"".join(line.replace(b"\n", b"") + b"\n" for line in lines)
    parts = cut(text, count, size_min)
    assert b"".join(parts) == text
    assert 1 <= len(parts) <= count
    assert all(bytes(part[-1:]) == b"\n" for part in parts if text)


def test_files_hold_what_they_were_given_last() -> None:
    files = MemoryFiles()
    with contextlib.closing(files):
        for size in (1, 8 * KEPT_BYTES, 0, FILE_BYTES_MIN + 1, 3):
            text = b"%07d\n" % size * (size // 8 + 1)
            with files.holding(text) as paths:
                assert b"".join(Path(path).read_bytes() for path in paths) == text
        kept = [Path(path) for path in paths]
    assert not any(path.exists() and path.read_bytes() == text for path in kept)


Batches = list[tuple[int, int, int]]


@pytest.mark.parametrize("column", [INT64.null(False), UNSIGNED, STRING.null(False)], ids=lambda c: c.kind)
@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 8), st.integers(1, 3)),
        min_size=1,
        max_size=8,
    )
)
def test_rows_said_to_be_new_take_the_place_of_those_that_are_there(
    column: ColumnType, batches: Batches
) -> None:
    """Wherever their keys lie: beyond those of the table, in a gap between them, on some or on all of them."""
    model: dict[str, int] = {}

    async def write() -> None:
        async with DuckDBMaterialization(path=":memory:").open(TaskName("bulk")) as sink:
            await sink.restore()
            await sink.describe(BINDING, describe("t", {"id": column, "n": INT64}, ("id",)))
            for number, (start, count, step) in enumerate(batches):
                ids = range(start, start + count * step, step)
                lines = [orjson.dumps({"id": key_of(i), "n": number}) for i in ids]
                await sink.write(BINDING, Batch.of_lines("t", lines, ops=b"c" * count))
                if number % 2:
                    await sink.commit(Cursor({"j": Place(1, number)}))
                model.update({str(key_of(i)): number for i in ids})
            found = sink._driver.fetch('SELECT CAST(id AS VARCHAR), n FROM "t" ORDER BY 1')  # type: ignore[attr-defined]
            assert found == sorted(model.items())

    def key_of(number: int) -> int | str:
        return f"k{number}" if column.kind == "string" else number + (1 << 63 if column is UNSIGNED else -15)

    anyio.run(write)


def test_a_load_that_needs_several_files_is_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "w.duckdb")
    lines = [orjson.dumps({"id": i, "n": i * 7, "text": "x" * (i % 500)}) for i in range(20_000)]

    async def write() -> None:
        async with DuckDBMaterialization(path=path).open(TaskName("bulk")) as sink:
            await sink.restore()
            columns = {"id": INT64.null(False), "n": INT64, "text": STRING}
            await sink.describe(BINDING, describe("t", columns, ("id",)))
            for ops in (b"c", b"u"):
                batch = Batch.of_lines("t", lines, ops=ops * len(lines))
                await sink.prepare(BINDING, batch)  # type: ignore[attr-defined]
                await sink.write(BINDING, batch)
                await sink.commit(Cursor({"j": Place(1, 1)}))

    anyio.run(write)
    with contextlib.closing(duckdb.connect(path)) as connection:
        found = connection.execute(
            "SELECT count(*), sum(n), sum(length(text)), count(DISTINCT id) FROM t"
        ).fetchone()
    assert found == (20_000, 7 * sum(range(20_000)), sum(i % 500 for i in range(20_000)), 20_000)


def test_duckdb_holds_no_more_in_memory_than_it_is_told(tmp_path: Path) -> None:
    spec = DuckDBMaterialization(path=str(tmp_path / "w.duckdb"), memory=Size(64 << 20))

    async def look() -> None:
        async with spec.open(TaskName("bulk")) as sink:
            limit = sink._driver.fetch("SELECT current_setting('memory_limit')")
            assert limit == [("64.0 MiB",)]

    anyio.run(look)
