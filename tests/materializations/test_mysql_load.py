"""LOAD DATA LOCAL: exact, never a file of ours, and statements where it is not to be had."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pymysql
import pytest

from hub.materialization import Binding, Rejected
from hub.record import Batch, Cursor, Place, TaskName
from hub.schema import ColumnType, describe
from hub.schema.types import BYTES, INT32, INT64, STRING
from hub.spec import Secret
from hub.testing.mariadb import MariaDBMissing, MariaDBServer
from hub_materializations.mysql import MySQLMaterialization
from hub_materializations.sql.binding import SqlBinding
from hub_materializations.sql.mysql_load import FORMAT, LoadingConnection
from hub_materializations.sql.sink import SqlSink

pytestmark = pytest.mark.anyio
SCHEMA = describe("c", {"id": INT64.null(False), "text": STRING, "small": INT32, "blob": BYTES}, ("id",))
HOSTILE = ["null", "NULL", "\\N", "", 'a"b', "a,b", "a\\", "\n\t\b\f\r", "\x01\x1a\x7f", "😀", "%s %%", "'"]


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDBServer]:
    try:
        made = MariaDBServer()
    except MariaDBMissing as error:
        pytest.skip(str(error))
    with made:
        yield made


@pytest.fixture
def database(server: MariaDBServer, request: pytest.FixtureRequest) -> str:
    name = f"load_{abs(hash(request.node.name))}"
    ask(server, f"CREATE OR REPLACE DATABASE {name}")
    return name


def ask(server: MariaDBServer, text: str) -> Any:
    with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(text)
        return cursor.fetchall()


def materialization(server: MariaDBServer, database: str, **options: Any) -> MySQLMaterialization:
    return MySQLMaterialization(
        port=server.port, user=server.user, password=Secret(server.password), database=database, **options
    )


def binding(**options: Any) -> Binding:
    return Binding("c", "t", SqlBinding(source="c", **options))


@asynccontextmanager
async def opened(made: MySQLMaterialization, schema: Any = SCHEMA) -> AsyncIterator[SqlSink]:
    async with made.open(TaskName("t")) as sink:
        await sink.restore()
        await sink.describe(binding(), schema)
        yield sink


def docs(count: int, **rest: Any) -> list[dict[str, Any]]:
    return [
        {
            "id": i,
            "text": None if i % 7 == 0 else HOSTILE[i % len(HOSTILE)],
            "small": i if i % 5 else None,
            "blob": None if i % 3 else "AAH/Jw==",
            **rest,
        }
        for i in range(count)
    ]


def held(server: MariaDBServer, database: str) -> list[tuple[Any, ...]]:
    return list(ask(server, f"SELECT id, text, small, `blob` FROM {database}.t ORDER BY id"))


def expected(documents: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(d["id"], d["text"], d["small"], d["blob"] and b"\x00\x01\xff'") for d in documents]


@pytest.mark.parametrize("options", [{}, {"local_infile": False}])
async def test_many_rows_are_exact_by_either_way(
    server: MariaDBServer, database: str, options: dict[str, Any]
) -> None:
    async with opened(materialization(server, database, **options)) as sink:
        await sink.write(binding(), Batch.of_docs("c", docs(1000)))
        await sink.commit(Cursor({"j": Place(1, 1)}))
        assert held(server, database) == expected(docs(1000))
        changed = docs(1200, text="new")
        await sink.write(binding(), Batch.of_docs("c", changed, ops=b"u" * 1200))
        await sink.write(binding(), Batch.of_docs("c", docs(200), ops=b"d" * 200))
        await sink.commit(Cursor({"j": Place(1, 2)}))
    assert held(server, database) == expected(changed[200:])


async def test_rows_that_are_new_by_the_source_and_there_already_are_updated(
    server: MariaDBServer, database: str
) -> None:
    async with opened(materialization(server, database)) as sink:
        await sink.write(binding(), Batch.of_docs("c", docs(500), ops=b"r" * 500))
        await sink.write(binding(), Batch.of_docs("c", docs(700, text="new"), ops=b"r" * 700))
        await sink.commit(Cursor({"j": Place(1, 1)}))
    assert held(server, database) == expected(docs(700, text="new"))


async def test_refused_rows_are_named_and_none_is_clipped(server: MariaDBServer, database: str) -> None:
    ask(
        server,
        f"CREATE TABLE {database}.t (id bigint PRIMARY KEY, text varchar(3), small int, `blob` longblob)",
    )
    narrow = describe(
        "c",
        {"id": INT64.null(False), "text": ColumnType("string", length=3), "small": INT32, "blob": BYTES},
        ("id",),
    )
    documents = [{"id": i, "text": "long" if i in (150, 300) else "abc"} for i in range(400)]
    async with opened(materialization(server, database), narrow) as sink:
        with pytest.raises(Rejected) as refusal:
            await sink.write(binding(), Batch.of_docs("c", documents))
        assert set(refusal.value.reasons) == {150, 300}
        rest = [document for document in documents if document["id"] not in (150, 300)]
        await sink.write(binding(), Batch.of_docs("c", rest))
        await sink.commit(Cursor({"j": Place(1, 1)}))
    assert ask(server, f"SELECT count(*), max(text) FROM {database}.t") == ((398, "abc"),)


async def test_a_server_that_forbids_it_gets_statements_and_is_said_to(
    server: MariaDBServer, database: str
) -> None:
    made = materialization(server, database)
    plan = await made.plan(TaskName("t"), [(binding(), SCHEMA)])
    assert plan[-1] == "-- many rows go in by LOAD DATA LOCAL"
    async with opened(made) as sink:
        ask(server, "SET GLOBAL local_infile = 0")
        try:
            await sink.write(binding(), Batch.of_docs("c", docs(500)))
            await sink.commit(Cursor({"j": Place(1, 1)}))
            findings = [finding.what for finding in await made.check(TaskName("t"))]
        finally:
            ask(server, "SET GLOBAL local_infile = 1")
    assert held(server, database) == expected(docs(500))
    assert any("the server's local_infile is off" in text for text in findings)


async def test_a_user_without_temporary_tables_gets_statements(server: MariaDBServer, database: str) -> None:
    socket = str(server.path / "socket")
    with (
        contextlib.closing(pymysql.connect(unix_socket=socket, user="root")) as root,
        root.cursor() as cursor,
    ):
        cursor.execute(f"CREATE OR REPLACE USER {database} IDENTIFIED BY 'x'")
        cursor.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER ON {database}.* TO {database}")
    made = MySQLMaterialization(port=server.port, user=database, password=Secret("x"), database=database)
    async with opened(made) as sink:
        for _ in range(2):
            await sink.write(binding(), Batch.of_docs("c", docs(500), ops=b"u" * 500))
        await sink.commit(Cursor({"j": Place(1, 1)}))
    assert held(server, database) == expected(docs(500))


@pytest.mark.parametrize("offered", [None, b"1\n"])
def test_a_server_that_asks_for_a_file_gets_nothing_and_loses_the_connection(
    server: MariaDBServer, tmp_path: Path, offered: bytes | None
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("42\n")
    ask(server, "CREATE OR REPLACE TABLE hub.asked (id bigint)")
    connection = LoadingConnection(
        host="127.0.0.1",
        port=server.port,
        user=server.user,
        password=server.password,
        database=server.database,
        autocommit=True,
        local_infile=True,
    )
    statement = f"LOAD DATA LOCAL INFILE '{secret}' INTO TABLE asked {FORMAT}"
    with pytest.raises(pymysql.err.OperationalError, match="which it was not offered"):
        if offered is None:
            connection.cursor().execute(statement)
        else:
            connection.load(statement, offered)
    assert not connection.open
    assert ask(server, "SELECT count(*) FROM hub.asked") == ((0,),)
