"""Tables there are: adopted, widened, refused with a list; names; plans; and what a sink says of bad rows."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import FatalError, Fenced, HubError, TransientError
from hub.materialization import Binding, Materialization, Rejected, Sink
from hub.record import Batch, Cursor, Place, TaskName
from hub.schema import CollectionSchema, ColumnType, describe
from hub.schema.types import BOOLEAN, DECIMAL, FLOAT64, INT32, INT64, JSON, OBJECT, STRING, TIMESTAMPTZ
from hub.spec import Duration, Interpolated, Secret
from hub.testing.postgres import PostgresServer, temporary_database
from hub_materializations.duckdb import DuckDBMaterialization
from hub_materializations.postgres import PostgresMaterialization
from hub_materializations.sql.binding import SqlBinding
from hub_materializations.sql.csv_text import csv_text
from hub_materializations.sql.duckdb_copy import Copy
from hub_materializations.sql.names import NameRule, assigned, fitted
from hub_materializations.sql.sink import SqlSink
from hub_materializations.sqlite import SQLiteMaterialization
from tests.materializations.cut import cutting

TASK = TaskName("tables")


def binding(target: str = "t", collection: str = "c/public.t", **options: Any) -> Binding:
    return Binding(collection, target, SqlBinding(source=collection, **options))


def schema(
    columns: Mapping[str, ColumnType] | None = None, collection: str = "c/public.t"
) -> CollectionSchema:
    return describe(collection, columns or {"id": INT64.null(False), "name": STRING}, ("id",))


def at(seq: int) -> Cursor:
    return Cursor({"j": Place(1, seq)})


@asynccontextmanager
async def opened(materialization: Materialization) -> AsyncIterator[Sink]:
    async with materialization.open(TASK) as sink:
        await sink.restore()
        yield sink


@pytest.fixture
def dsn(postgres_server: PostgresServer) -> Any:
    with temporary_database(postgres_server, "tables") as found:
        yield found


def rows_of(path: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(duckdb.connect(str(path))) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.anyio
async def test_a_table_of_the_users_is_adopted_and_what_is_theirs_stays(dsn: str) -> None:
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE t (note text DEFAULT 'mine', id int PRIMARY KEY, name varchar(3) NOT NULL)"
        )
        connection.execute("CREATE VIEW v AS SELECT id, note FROM t")
        connection.execute("INSERT INTO t VALUES ('kept', 1, 'old'), ('kept', 2, 'old')")
        async with opened(PostgresMaterialization(dsn=Secret(dsn))) as sink:
            await sink.describe(binding(), schema({"id": INT32.null(False), "name": STRING, "more": FLOAT64}))
            docs = [
                {"id": 1, "name": "longer than three", "more": 1.5},
                {"id": 3, "name": None, "more": None},
            ]
            await sink.write(binding(), Batch.of_docs("c/public.t", docs))
            await sink.commit(at(1))
        found = connection.execute("SELECT id, name, more, note FROM t ORDER BY id").fetchall()
        assert found == [
            (1, "longer than three", 1.5, "kept"),
            (2, "old", None, "kept"),
            (3, None, None, "mine"),
        ]
        assert connection.execute("SELECT count(*) FROM v").fetchone() == (3,)


@pytest.mark.anyio
async def test_everything_that_does_not_fit_is_listed_and_nothing_changed(dsn: str) -> None:
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE t (id bigint, place point, total int GENERATED ALWAYS AS (1) STORED, theirs int NOT NULL)"
        )
        async with opened(PostgresMaterialization(dsn=Secret(dsn))) as sink:
            columns = {"id": INT64.null(False), "place": INT32, "total": INT32, "added": STRING}
            with pytest.raises(FatalError) as caught:
                await sink.describe(binding(), schema(columns))
        text = str(caught.value)
        for part in ("ADD PRIMARY KEY", "place is point", "total is generated", "theirs is NOT NULL"):
            assert part in text
        (width,) = (
            connection.execute(
                "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0"
            ).fetchone()
            or ()
        )
        assert width == 4


@pytest.mark.anyio
async def test_a_policy_may_forbid_or_ignore_growth(tmp_path: Path) -> None:
    spec = DuckDBMaterialization(path=str(tmp_path / "w.duckdb"))
    async with opened(spec) as sink:
        await sink.describe(binding(), schema())
        await sink.commit(at(1))
    grown = schema({"id": INT64.null(False), "name": STRING, "more": INT32})
    async with opened(spec) as sink:
        with pytest.raises(FatalError, match="no column more"):
            await sink.describe(binding(evolution="stop"), grown)
    async with opened(spec) as sink:
        ignoring = binding(evolution="ignore")
        await sink.describe(ignoring, grown)
        await sink.write(ignoring, Batch.of_docs("c/public.t", [{"id": 1, "name": "a", "more": 5}]))
        await sink.commit(at(2))
    assert rows_of(tmp_path / "w.duckdb", "FROM t") == [(1, "a")]


@pytest.mark.anyio
async def test_integers_become_floats_in_duckdb_but_never_round(tmp_path: Path) -> None:
    spec = DuckDBMaterialization(path=str(tmp_path / "w.duckdb"))
    floats = schema({"id": INT64.null(False), "n": FLOAT64})
    async with opened(spec) as sink:
        await sink.describe(binding(), schema({"id": INT64.null(False), "n": INT64}))
        await sink.write(binding(), Batch.of_docs("c/public.t", [{"id": 1, "n": 3}]))
        await sink.describe(binding(), floats)
        await sink.write(binding(), Batch.of_docs("c/public.t", [{"id": 2, "n": 0.5}]))
        await sink.commit(at(1))
    assert rows_of(tmp_path / "w.duckdb", "SELECT n FROM t ORDER BY id") == [(3.0,), (0.5,)]
    async with opened(spec) as sink:
        other = binding("u")
        await sink.describe(other, schema({"id": INT64.null(False), "n": INT64}))
        await sink.write(other, Batch.of_docs("c/public.t", [{"id": 1, "n": 2**53 + 1}]))
        with pytest.raises(FatalError, match=r"beyond 2\^53"):
            await sink.describe(other, floats)


@pytest.mark.anyio
async def test_a_schema_that_changes_fifty_times_needs_no_stop(dsn: str) -> None:
    import psycopg

    columns: dict[str, ColumnType] = {"id": INT64.null(False)}
    async with opened(PostgresMaterialization(dsn=Secret(dsn))) as sink:
        kinds = [INT32, INT64, DECIMAL, STRING, BOOLEAN, JSON, TIMESTAMPTZ, OBJECT]
        values = [1, 2, "3.5", "text", True, {"a": 1}, "2024-01-01T00:00:00Z", {"b": 2}]
        for number in range(50):
            name = f"c{number % 12}"
            columns[name] = kinds[number % 8]
            if number % 7 == 6:
                columns.pop(f"c{(number + 3) % 12}", None)
            await sink.describe(binding(), schema(columns))
            doc = {"id": number, name: values[number % 8]}
            await sink.write(binding(), Batch.of_docs("c/public.t", [doc]))
        await sink.commit(at(1))
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT id) FROM t").fetchone() == (50, 50)


@pytest.mark.anyio
async def test_two_collections_do_not_meet_in_a_table_by_accident(tmp_path: Path) -> None:
    async with opened(DuckDBMaterialization(path=str(tmp_path / "w.duckdb"))) as sink:
        await sink.describe(binding(collection="c/one.t"), schema(collection="c/one.t"))
        with pytest.raises(FatalError, match="both be written to the table"):
            await sink.describe(binding(collection="c/two.t"), schema(collection="c/two.t"))
    async with opened(DuckDBMaterialization(path=str(tmp_path / "w.duckdb"))) as sink:
        for collection in ("c/one.t", "c/two.t"):
            on_purpose = binding(collection=collection, table=Interpolated("t"))
            await sink.describe(on_purpose, schema(collection=collection))


@pytest.mark.anyio
async def test_tables_that_differ_in_case_stay_apart_in_any_order(tmp_path: Path) -> None:
    spec = DuckDBMaterialization(path=str(tmp_path / "w.duckdb"))
    for names in (("Orders", "orders"), ("orders", "Orders")):
        async with opened(spec) as sink:
            for name in names:
                one = binding(name, collection=f"c/{name}")
                await sink.describe(one, schema(collection=f"c/{name}"))
                await sink.write(one, Batch.of_docs(f"c/{name}", [{"id": 1, "name": name}]))
            await sink.commit(at(1))
    tables = [name for (name,) in rows_of(tmp_path / "w.duckdb", "SELECT table_name FROM duckdb_tables()")]
    assert len(tables) == 3
    assert rows_of(tmp_path / "w.duckdb", 'SELECT name FROM "Orders"') == [("Orders",)]


@pytest.mark.anyio
async def test_fields_are_chosen_renamed_flattened_and_joined_by_metadata(tmp_path: Path) -> None:
    place = ColumnType(
        "object", properties={"city": STRING, "at": ColumnType("object", properties={"x": INT32})}
    )
    columns = {"id": INT64.null(False), "name": STRING, "secret": STRING, "place": place}
    chosen = binding(
        exclude=["secret"], rename={"name": "label", "place.city": "town"}, nested="flatten",
        metadata={"source_lsn": "lsn", "op": "operation"},
    )  # fmt: skip
    async with opened(DuckDBMaterialization(path=str(tmp_path / "w.duckdb"))) as sink:
        await sink.describe(chosen, schema(columns))
        doc = {"id": 1, "name": "n", "secret": "s", "place": {"city": "c", "at": {"x": 5}}}
        await sink.write(
            chosen,
            Batch.of_docs(
                "c/public.t", [doc, {"id": 2, "place": None}], ops=b"cr", columns={"lsn": [7, None]}
            ),
        )
        await sink.commit(at(1))
    with contextlib.closing(duckdb.connect(str(tmp_path / "w.duckdb"))) as connection:
        found = connection.execute("FROM t ORDER BY id")
        assert [column[0] for column in found.description or ()] == [
            "id",
            "label",
            "town",
            "place_at_x",
            "source_lsn",
            "op",
        ]
        assert found.fetchall() == [(1, "n", "c", 5, 7, "create"), (2, None, None, None, None, "read")]


@pytest.mark.anyio
async def test_refused_records_are_named_and_the_rest_is_written(dsn: str, tmp_path: Path) -> None:
    specs = (PostgresMaterialization(dsn=Secret(dsn)), SQLiteMaterialization(path=str(tmp_path / "w.db")))
    columns = {"id": INT64.null(False), "day": ColumnType("date"), "n": INT32, "raw": ColumnType("bytes")}
    docs = [
        {"id": 1, "n": 1.5},
        {"id": None},
        {"id": 2, "raw": "!!"},
        {"id": 3, "day": "2024-01-01"},
        {"id": 2**63},
    ]
    for spec in specs:
        async with opened(spec) as sink:
            await sink.describe(binding(), schema(columns))
            refused: dict[int, str] = {}
            batch, indexes = Batch.of_docs("c/public.t", docs), list(range(len(docs)))
            while True:
                try:
                    await sink.write(binding(), batch)
                    break
                except Rejected as refusal:
                    refused |= {indexes[index]: reason for index, reason in refusal.reasons.items()}
                    keep = [index for index in range(batch.count) if index not in refusal.reasons]
                    batch, indexes = batch.take(keep), [indexes[index] for index in keep]
            await sink.commit(at(1))
        assert sorted(refused) == [0, 1, 2, 4]
        assert "$.n" in refused[0]


@pytest.mark.anyio
async def test_duckdb_finds_refused_records_when_the_transaction_is_written_again(tmp_path: Path) -> None:
    spec = DuckDBMaterialization(path=str(tmp_path / "w.duckdb"))
    columns = {"id": INT64.null(False), "day": ColumnType("date")}
    batch = Batch.of_docs("c/public.t", [{"id": 1}, {"id": 2, "day": "nonsense"}])
    async with opened(spec) as sink:
        await sink.describe(binding(), schema(columns))
        with pytest.raises(TransientError, match="second try"):
            await sink.write(binding(), batch)
        with pytest.raises(TransientError, match="opened again"):
            await sink.commit(at(1))
    async with opened(spec) as sink:
        await sink.describe(binding(), schema(columns))
        with pytest.raises(Rejected) as caught:
            await sink.write(binding(), batch)
        assert list(caught.value.reasons) == [1]
        await sink.write(binding(), batch.take([0]))
        await sink.commit(at(1))
    assert rows_of(tmp_path / "w.duckdb", "SELECT id FROM t") == [(1,)]


@pytest.mark.anyio
@pytest.mark.parametrize("arrives", [True, False], ids=["answer lost", "commit lost"])
async def test_a_commit_that_nobody_saw_the_end_of_is_read_back(
    dsn: str, postgres_server: PostgresServer, arrives: bool
) -> None:
    async with cutting(postgres_server.port, arrives=arrives) as (port, armed):
        through = PostgresMaterialization(dsn=Secret(f"{dsn} port={port}"))
        async with opened(through) as sink:
            await sink.describe(binding(), schema())
            await sink.commit(at(1))
            await sink.write(binding(), Batch.of_docs("c/public.t", [{"id": 1}]))
            armed.set()
            with pytest.raises(TransientError):
                await sink.commit(at(2))
        armed.clear()
        async with through.open(TASK) as sink:
            assert await sink.restore() == at(2 if arrives else 1)


@pytest.mark.anyio
async def test_a_hanging_writer_with_locks_is_ended(dsn: str) -> None:
    spec = PostgresMaterialization(dsn=Secret(dsn), lock_timeout=Duration(5))
    async with opened(spec) as zombie:
        await zombie.describe(binding(), schema())
        await zombie.commit(at(1))
        await zombie.write(binding(), Batch.of_docs("c/public.t", [{"id": 1, "name": "zombie"}]))
        async with opened(spec) as sink:
            await sink.describe(binding(), schema())
            await sink.write(binding(), Batch.of_docs("c/public.t", [{"id": 1, "name": "newer"}]))
            await sink.commit(at(2))
        with pytest.raises(HubError):
            await zombie.commit(at(3))


@pytest.mark.anyio
async def test_two_tasks_share_a_database(tmp_path: Path) -> None:
    spec = DuckDBMaterialization(path=str(tmp_path / "w.duckdb"))
    async with spec.open(TaskName("one")) as one, spec.open(TaskName("two")) as two:
        for name, sink in (("one", one), ("two", two)):
            await sink.restore()
            await sink.describe(binding(name, f"c/{name}"), schema(collection=f"c/{name}"))
            await sink.commit(at(1))

        async def write(name: str, sink: Sink) -> None:
            for number in range(20):
                await sink.write(binding_of[name], Batch.of_docs(f"c/{name}", [{"id": number}]))
                await sink.commit(at(number + 2))

        binding_of = {name: binding(name, f"c/{name}") for name in ("one", "two")}
        for name, sink in (("one", one), ("two", two)):
            await sink.describe(binding_of[name], schema(collection=f"c/{name}"))
        async with anyio.create_task_group() as group:
            group.start_soon(write, "one", one)
            group.start_soon(write, "two", two)
    assert rows_of(
        tmp_path / "w.duckdb", "SELECT (SELECT count(*) FROM one), (SELECT count(*) FROM two)"
    ) == [(20, 20)]


@pytest.mark.anyio
async def test_a_plan_says_what_would_be_done_and_does_nothing(dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    for spec in (
        DuckDBMaterialization(path=str(path)),
        PostgresMaterialization(dsn=Secret(dsn), schema="new"),
    ):
        texts = await spec.plan(TASK, [(binding(), schema())])
        assert texts[-2].startswith("CREATE TABLE ")
        assert any("hub_cursors" in text for text in texts)
        assert await spec.plan(TASK, [(binding(), schema())]) == texts
    assert not path.exists()
    keyless = describe("c/public.t", {"a": STRING})
    assert (
        "needs a key" in (await DuckDBMaterialization(path=str(path)).plan(TASK, [(binding(), keyless)]))[-1]
    )


@pytest.mark.anyio
async def test_others_read_a_copy_of_the_duckdb_file_while_the_sink_writes(tmp_path: Path) -> None:
    copy = tmp_path / "copy.duckdb"
    spec = DuckDBMaterialization(
        path=str(tmp_path / "w.duckdb"), copy=Copy(path=str(copy), every=Duration(0))
    )
    reading = f"import duckdb; print(duckdb.connect({str(copy)!r}, read_only=True).execute('SELECT count(*) FROM t').fetchone()[0])"
    import sys

    async with opened(spec) as sink:
        await sink.describe(binding(), schema())
        for number in (1, 2):
            await sink.write(binding(), Batch.of_docs("c/public.t", [{"id": number}]))
            await sink.commit(at(number))
            read = await anyio.run_process([sys.executable, "-c", reading], check=False)
            assert read.returncode == 0, read.stderr
            assert int(read.stdout) == number


@pytest.mark.anyio
async def test_check_names_the_cure(dsn: str, tmp_path: Path) -> None:
    good = await PostgresMaterialization(dsn=Secret(dsn)).check(TASK)
    assert all(finding.ok for finding in good)
    (missing,) = await DuckDBMaterialization(path=str(tmp_path / "no" / "w.duckdb")).check(TASK)
    assert not missing.ok
    assert missing.cure.startswith("mkdir")
    (down,) = await PostgresMaterialization(dsn=Secret("host=127.0.0.1 port=1 dbname=x")).check(TASK)
    assert not down.ok


def test_fenced_is_fatal() -> None:
    assert issubclass(Fenced, FatalError)


NAMES = st.lists(st.text(max_size=90), unique=True, max_size=12)


@given(NAMES, NAMES, st.booleans(), st.booleans())
def test_no_two_fields_share_a_column_and_a_second_start_finds_the_same(
    fields: list[str], existing: list[str], folds: bool, short: bool
) -> None:
    rule = NameRule(63 if short else None, folds_case=folds, basic_plane=short)
    fold = str.casefold if folds else str
    unique = list({fold(name): name for name in existing}.values())
    found = assigned({name: name for name in fields}, unique, rule)
    assert len({fold(name) for name in found.values()}) == len(fields)
    columns = [*unique, *(name for name in found.values() if name not in unique)]
    again = assigned({name: name for name in reversed(fields)}, columns, rule)
    if not unique:
        assert again == found
    for name in found.values():
        assert name in unique or fitted(name, rule) == name


CELLS = st.one_of(
    st.none(), st.text(), st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)
)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=8))
def test_csv_text_tells_all_cells_apart(rows: list[tuple[Any, ...]]) -> None:
    """Read back by the rules that COPY is given: quoted cells are text, the bare word null is NULL."""
    text = csv_text(rows).decode()
    at_ = 0
    for row in rows:
        for number, cell in enumerate(row):
            if text[at_] == '"':
                at_ += 1
                read = ""
                while text[at_] != '"':
                    if text[at_] == "\\" and text[at_ + 1] in '"\\':
                        at_ += 1
                    read += text[at_]
                    at_ += 1
                at_ += 1
                assert read == cell
            else:
                end = at_
                while text[end] not in ",\n":
                    end += 1
                word, at_ = text[at_:end], end
                assert not isinstance(cell, str)
                assert (word == "null") == (cell is None)
            assert text[at_] == ("\n" if number == 2 else ",")
            at_ += 1
    assert at_ == len(text)


@pytest.mark.anyio
async def test_a_refused_row_of_a_backfill_is_named_and_the_rest_is_swept(dsn: str, tmp_path: Path) -> None:
    specs = (PostgresMaterialization(dsn=Secret(dsn)), SQLiteMaterialization(path=str(tmp_path / "w.db")))
    columns = {"id": INT64.null(False), "day": ColumnType("date"), "n": INT32}
    docs = [{"id": 1, "n": 1}, {"id": 2, "day": "2024-01-01"}, {"id": 3, "n": 1.5}, {"id": 4}]
    refused_day = [{"id": 1, "n": 1}, {"id": 2, "day": "nonsense"}, {"id": 1, "n": 2}]
    for spec in specs:
        for target, options in (("hard", {}), ("versions", {"mode": "history"})):
            chosen = binding(target, **options)
            async with opened(spec) as sink:
                await sink.describe(chosen, schema(columns))
                await sink.write(chosen, Batch.of_docs("c/public.t", [docs[0], docs[1], docs[3]]))
                await sink.write(chosen, Batch.of_docs("c/public.t", [{}], ops=b"b"))
                with pytest.raises(Rejected) as caught:
                    await sink.write(chosen, Batch.of_docs("c/public.t", docs[:3], ops=b"rrr"))
                assert list(caught.value.reasons) == [2]
                if isinstance(spec, PostgresMaterialization):
                    with pytest.raises(Rejected) as caught:
                        await sink.write(chosen, Batch.of_docs("c/public.t", refused_day, ops=b"rrr"))
                    assert list(caught.value.reasons) == [1]
                await sink.write(chosen, Batch.of_docs("c/public.t", docs[:2], ops=b"rr"))
                await sink.write(chosen, Batch.of_docs("c/public.t", [{}], ops=b"s"))
                await sink.commit(at(1))
                assert isinstance(sink, SqlSink)
                where = "" if target == "hard" else " WHERE _is_current"
                assert sink._driver.fetch(f"SELECT id FROM {target}{where} ORDER BY id") == [(1,), (2,)]
                count = sink._driver.fetch(f"SELECT count(*) FROM {target}")
                assert count == [(2 if target == "hard" else 3,)]
