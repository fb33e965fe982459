"""TLS, passwords and several hosts, against PostgreSQL 15 and 17 where they are installed (the wheel of 18 has no TLS)."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from psycopg.conninfo import make_conninfo

from hub.errors import FatalError, TransientError
from hub.options import Secret
from hub.testing.postgres import WANTED, PostgresMissing, PostgresServer, temporary_database
from hub_captures.postgres import connection
from hub_captures.postgres.wire import ChangeStream

pytestmark = pytest.mark.anyio
_numbers = itertools.count()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module", params=[None] if os.environ.get(WANTED) else [15, 17])
def tls_server(request: pytest.FixtureRequest, authority: trustme.CA) -> Iterator[PostgresServer]:
    """A server with TLS; users `scram` (password), `cert` (client certificate)."""
    try:
        server = PostgresServer(version=request.param)
    except PostgresMissing as error:
        pytest.skip(str(error))
    with server:
        if not server.rows("select 1 from pg_settings where name = 'ssl_library' and setting <> ''"):
            pytest.skip("this server was built without TLS")
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(server.data / "server.key")
        issued.cert_chain_pems[0].write_to_path(server.data / "server.crt")
        authority.cert_pem.write_to_path(server.data / "root.crt")
        owner = server.data.stat()
        for name in ("server.key", "server.crt", "root.crt"):
            path = server.data / name
            os.chown(path, owner.st_uid, owner.st_gid)
            path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        server.run(
            "set password_encryption = 'scram-sha-256'; create role scram login replication superuser password 'sesame'",
            "create role cert login replication superuser",
        )
        (server.data / "pg_hba.conf").write_text(
            "host all postgres 127.0.0.1/32 trust\n"
            "hostssl all scram 127.0.0.1/32 scram-sha-256\n"
            "hostssl all cert 127.0.0.1/32 cert clientcert=verify-full\n"
            "local all all trust\n"
        )
        server.restart(
            ssl="on", ssl_cert_file="server.crt", ssl_key_file="server.key", ssl_ca_file="root.crt"
        )
        yield server


@pytest.fixture
def tls_source(source: Any, tls_server: PostgresServer) -> Iterator[Any]:
    name = f"tls_{next(_numbers)}"
    with temporary_database(tls_server, name) as dsn:
        made = type(source)(tls_server, name, dsn)
        made.run("create table marks (id text primary key)", "create table t (id int primary key, b text)")
        made.run("insert into t values (1, 'a')")
        yield made


async def captures(source: Any, dsn: str, **options: Any) -> None:
    """A row by the snapshot and one by the stream."""
    async with source.capturing(dsn=Secret(dsn), **options) as out:
        await source.copied(out, "public.t")
        source.run("insert into t values (2, 'b')")
        await source.caught_up(out)
    assert set(source.replica(out, "public.t").rows) == {(1,), (2,)}


async def test_76_tls_with_a_verified_server_and_a_password(
    tls_source: Any, authority: trustme.CA, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    dsn = make_conninfo(
        tls_source.dsn,
        user="scram",
        password="sesame",
        sslmode="verify-full",
        sslrootcert=str(tmp_path / "ca.pem"),
    )
    await captures(tls_source, dsn)


async def test_76_many_rows_over_tls_take_few_wake_ups(tls_source: Any) -> None:
    dsn = make_conninfo(tls_source.dsn, user="scram", password="sesame", sslmode="require")
    async with tls_source.capturing(dsn=Secret(dsn), refresh_interval=0.1) as out:
        await tls_source.copied(out, "public.t")
        tls_source.run("insert into t select n, 'x' from generate_series(2, 30000) n")
        await tls_source.caught_up(out)
        await out.until(lambda: out.gauges.get("stream_wake_ups_total", 0) > 0)
        wake_ups = out.gauges["stream_wake_ups_total"]
    assert len(tls_source.changes(out, "public.t")) == 29_999
    assert wake_ups < 29_999 / 20


async def test_76_why_the_server_ends_a_stream_is_not_lost_over_tls(tls_source: Any) -> None:
    tls_source.run("create publication p for table t")
    dsn = make_conninfo(tls_source.dsn, user="scram", password="sesame", sslmode="require")
    stopped, ended = anyio.Event(), anyio.Event()

    def take(found: list[bytes]) -> list[bytes] | None:
        # In the middle of many rows, some of which are still on their way.
        if len(found) < 32 or stopped.is_set():
            return None
        stopped.set()
        return []

    def after(got: int) -> None:
        if stream.failure is not None:
            ended.set()

    async with tls_source.capture(dsn=Secret(dsn)).server("reader").connected(replication=True) as wire:
        await wire.execute("CREATE_REPLICATION_SLOT s TEMPORARY LOGICAL pgoutput")
        stream = ChangeStream(wire, take, lambda row: False, after, bytes_max=1 << 20)
        await stream.start("START_REPLICATION SLOT s LOGICAL 0/0 (proto_version '1', publication_names 'p')")
        stream.resume()
        tls_source.run("insert into t select n, 'x' from generate_series(2, 1000) n")
        with anyio.fail_after(30):
            await stopped.wait()
            tls_source.run(f"select pg_terminate_backend({wire.info.backend_pid}, 30000)")
            stream.resume()
            await ended.wait()

    assert "terminating connection due to administrator command" in str(stream.failure)


async def test_a_client_certificate(tls_source: Any, authority: trustme.CA, tmp_path: Path) -> None:
    issued = authority.issue_cert("cert@example.org", common_name="cert")
    issued.private_key_pem.write_to_path(tmp_path / "client.key")
    (tmp_path / "client.key").chmod(stat.S_IRUSR | stat.S_IWUSR)
    issued.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    dsn = make_conninfo(
        tls_source.dsn,
        user="cert",
        sslmode="require",
        sslcert=str(tmp_path / "client.pem"),
        sslkey=str(tmp_path / "client.key"),
    )
    await captures(tls_source, dsn)


async def test_a_server_of_another_authority_is_refused(tls_source: Any, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    dsn = make_conninfo(
        tls_source.dsn,
        user="scram",
        password="sesame",
        sslmode="verify-ca",
        sslrootcert=str(tmp_path / "ca.pem"),
    )
    with pytest.raises(FatalError, match="certificate"):
        await tls_source.capture(dsn=Secret(dsn)).run(None, tls_source.outlet())


async def test_a_wrong_password_is_fatal_and_is_not_shown(tls_source: Any) -> None:
    dsn = make_conninfo(tls_source.dsn, user="scram", password="open barley", sslmode="require")
    with pytest.raises(FatalError, match="password authentication failed") as caught:
        await tls_source.capture(dsn=Secret(dsn)).run(None, tls_source.outlet())
    assert "barley" not in str(caught.value)


async def test_a_password_command_a_password_file_and_a_service(
    tls_source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await captures(
        tls_source,
        make_conninfo(tls_source.dsn, user="scram", sslmode="require"),
        password_command=["sh", "-c", "echo sesame"],
    )
    (tmp_path / "pgpass").write_text("*:*:*:scram:sesame\n")
    (tmp_path / "pgpass").chmod(stat.S_IRUSR | stat.S_IWUSR)
    (tmp_path / "service").write_text(
        f"[shop]\nhost=127.0.0.1\nport={tls_source.server.port}\ndbname={tls_source.name}\nuser=scram\nsslmode=require\n"
    )
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "service"))
    found = await tls_source.capture(dsn=Secret("service=shop")).check(tls_source.task)
    assert all(finding.ok for finding in found), found


async def test_a_password_command_that_fails_says_so(tls_source: Any) -> None:
    dsn = make_conninfo(tls_source.dsn, user="scram", sslmode="require")
    capture = tls_source.capture(dsn=Secret(dsn), password_command=["sh", "-c", "echo no vault >&2; exit 3"])
    with pytest.raises(TransientError, match="ended with 3: no vault"):
        await capture.run(None, tls_source.outlet())


async def test_the_writable_one_of_several_hosts_is_found(tls_source: Any) -> None:
    port = tls_source.server.port
    dsn = (
        f"postgresql://scram:sesame@127.0.0.1:1,127.0.0.1:{port}/{tls_source.name}"
        "?sslmode=require&target_session_attrs=read-write"
    )
    await captures(tls_source, dsn)


async def test_a_publication_younger_than_the_slot_is_refused_on_an_old_version(tls_source: Any) -> None:
    slot = f"{tls_source.name}_given"
    tls_source.run(f"select pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    tls_source.run("create publication given for table t, marks")
    with pytest.raises(FatalError, match="younger than the slot"):
        await tls_source.capture(slot=slot, publication="given").run(None, tls_source.outlet())


@pytest.mark.anyio
@pytest.mark.postgres_also(17)
async def test_patience_and_rights_that_a_database_sets_are_not_those_of_the_capture(source: Any) -> None:
    wanted = {
        "default_transaction_read_only": "off",
        "idle_in_transaction_session_timeout": "0",
        "idle_session_timeout": "0",
        "lock_timeout": "0",
        "statement_timeout": "0",
        "transaction_timeout": "0",
    }
    query = "select name from pg_settings where name = any(array[{}])"
    known = [row[0] for row in source.rows(query.format(", ".join([f"'{name}'" for name in wanted])))]
    source.run("create table t (id int primary key)", "insert into t values (1)")
    # In an order in which the last one forbids no other.
    for name in sorted(known, reverse=True):
        source.run(f"alter database {source.name} set {name} = '{'on' if 'read_only' in name else '1h'}'")
    for replication in (False, True):
        async with source.capture().server(source.task).connected(replication=replication) as session:
            for name in known:
                ((value,),) = await connection.rows(session, "asking", f"show {name}")
                assert (name, value) == (name, wanted[name])
    async with source.capturing() as out:
        await source.copied(out, "public.t")
