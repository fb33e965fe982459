"""The HTTP capture, over real sockets: 200 means durable, and nothing else does."""

from __future__ import annotations

import gzip
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
import trustme
import zstandard

from hub.errors import FatalError, TransientError
from hub.options import Duration, Secret, Size
from hub.record import TaskName
from hub.testing.outlet import MemoryOutlet
from hub_captures.http_server import HttpServerCapture
from hub_captures.http_server import intake as intake_module
from hub_captures.http_server.intake import HttpPosition

pytestmark = pytest.mark.anyio

Outlet = MemoryOutlet[HttpPosition]
Serving = Callable[..., AbstractAsyncContextManager[tuple[httpx.AsyncClient, Outlet]]]


def outlet(resume: HttpPosition | None = None, **options: Any) -> Outlet:
    return MemoryOutlet("t", HttpPosition, resume, **options)


@pytest.fixture
def serving() -> Serving:
    @asynccontextmanager
    async def serving(
        out: Outlet | None = None, verify: Any = True, **options: Any
    ) -> AsyncIterator[tuple[httpx.AsyncClient, Outlet]]:
        out = out or outlet()
        capture = HttpServerCapture(**{"address": "127.0.0.1:0"} | options)
        async with anyio.create_task_group() as group:
            group.start_soon(capture.run, out.durable, out)
            await out.until(lambda: bool(out.notices))
            url = out.notices[0][1]["url"]
            async with httpx.AsyncClient(base_url=url, verify=verify, timeout=20) as client:
                yield client, out
            group.cancel_scope.cancel()

    return serving


async def test_takes_a_document_an_array_and_lines(serving: Serving) -> None:
    async with serving(paths=["orders", "events-*"], keep_headers=["X-Kind"]) as (client, out):
        one = await client.post(
            "/", content=b'{\n "n": 1.10,\r\n "s": "a\\nb"}', headers={"content-type": "application/json"}
        )
        assert one.json() == {"records": 1, "collection": "t", "replayed": False}
        many = await client.post("/orders", json=[{"a": 1}, "two"], headers={"X-Kind": "k"})
        assert many.json()["records"] == 2
        lines = await client.post(
            "/events-x/",
            content=b'{"a":1}\n\n2',
            headers={"content-type": "application/x-ndjson; charset=utf-8"},
        )
        assert lines.json() == {"records": 2, "collection": "t/events-x", "replayed": False}
    assert [batch.lines() for batch in out.batches("t")] == [[b'{  "n": 1.10,   "s": "a\\nb"}']]
    assert [(record.doc, record.meta) for record in out.records("t/orders")] == [
        ({"a": 1}, {"path": "/orders", "x-kind": "k"}),
        ("two", {"path": "/orders", "x-kind": "k"}),
    ]
    assert [record.doc for record in out.records("t/events-x")] == [{"a": 1}, 2]
    assert out.schemas("t/orders")[0].is_open


async def test_answers_only_when_the_records_are_durable(serving: Serving) -> None:
    out = outlet(auto_sync=False)
    answered = anyio.Event()
    async with serving(out) as (client, _), anyio.create_task_group() as group:

        async def post() -> None:
            assert (await client.post("/", json=1)).status_code == 200
            answered.set()

        group.start_soon(post)
        await out.until(lambda: out.count_records() == 1)
        with anyio.move_on_after(0.05):
            await answered.wait()
        assert not answered.is_set()
        out.sync()


async def test_requests_that_come_while_one_is_synced_share_the_next_transaction(serving: Serving) -> None:
    out = outlet(auto_sync=False)
    async with serving(out) as (client, _), anyio.create_task_group() as group:
        for i in range(20):
            group.start_soon(lambda i=i: client.post("/", json=i))
        await out.until(lambda: out.count_records() >= 1)
        while out.count_records() < 20:
            out.sync()
            await anyio.lowlevel.checkpoint()
        out.sync()
    assert len(out.frames) < 20
    assert sorted(record.doc for record in out.records()) == list(range(20))


async def test_a_key_is_kept_once_also_over_a_restart(serving: Serving) -> None:
    out = outlet()
    key = {"Idempotency-Key": "k1"}
    async with serving(out) as (client, _):
        assert (await client.post("/", json=1, headers=key)).json()["replayed"] is False
        assert (await client.post("/", json=1, headers=key)).json()["replayed"] is True
        assert (await client.post("/", json=2, headers=key)).status_code == 422
    again = outlet(out.durable)
    async with serving(again) as (client, _):
        assert (await client.post("/", json=1, headers=key)).json()["replayed"] is True
        assert (await client.post("/", json=1, headers={"Idempotency-Key": "k2"})).json()["replayed"] is False
    assert out.count_records() == again.count_records() == 1
    assert again.durable is not None
    assert again.durable.requests == 2


async def test_the_same_key_twice_at_once_waits_for_the_first(serving: Serving) -> None:
    out = outlet(auto_sync=False)
    answers: list[bool] = []
    async with serving(out) as (client, _), anyio.create_task_group() as group:

        async def post() -> None:
            answers.append(
                (await client.post("/", json=1, headers={"Idempotency-Key": "k"})).json()["replayed"]
            )

        for _ in range(5):
            group.start_soon(post)
        await out.until(lambda: out.count_records() == 1)
        with anyio.move_on_after(0.05):
            await anyio.sleep_forever()
        assert not answers
        out.sync()
    assert sorted(answers) == [False, True, True, True, True]
    assert out.count_records() == 1


async def test_only_the_last_keys_are_remembered(serving: Serving) -> None:
    async with serving(idempotency_keys=2) as (client, out):
        for key in "abc":
            await client.post("/", json=1, headers={"Idempotency-Key": key})
        assert (await client.post("/", json=1, headers={"Idempotency-Key": "b"})).json()["replayed"] is True
        assert (await client.post("/", json=1, headers={"Idempotency-Key": "a"})).json()["replayed"] is False
    assert out.durable is not None
    assert len(out.durable.keys) == 2 * (intake_module.KEY_BYTES + intake_module.SUM_BYTES)


async def test_a_stop_answers_what_is_open(serving: Serving) -> None:
    out = outlet(auto_sync=False)
    statuses: list[int] = []
    async with anyio.create_task_group() as group, serving(out) as (client, _):
        other = httpx.AsyncClient(base_url=client.base_url)

        async def post() -> None:
            statuses.append((await other.post("/", json=1)).status_code)

        group.start_soon(post)
        await out.until(lambda: out.count_records() == 1)
    await other.aclose()
    assert statuses == [503]


JSON = {"content-type": "application/json"}
NDJSON = {"content-type": "application/x-ndjson"}


@pytest.mark.parametrize(
    ("headers", "body", "problems"),
    [
        (NDJSON, b'1\n{"a"\n2\nx\n', [(1, 2), (3, 9)]),
        (JSON, b'{"a":', []),
        (JSON, b'[{"a":1},]', []),
        (JSON, b"[1] [2]", []),
        (JSON, b"", []),
        (JSON, b'["\xff"]', []),
        (JSON, b"[" * 100_000, []),
        (JSON | {"content-encoding": "gzip"}, b"junk", []),
        (JSON | {"content-encoding": "gzip"}, gzip.compress(b"[1,2]", mtime=0)[:-4], []),
        (JSON | {"content-encoding": "zstd"}, zstandard.compress(b"[1,2]")[:-1], []),
        (JSON | {"Idempotency-Key": "x" * 300}, b"1", []),
    ],
)
async def test_a_malformed_body_is_refused_whole(
    serving: Serving, headers: dict[str, str], body: bytes, problems: list[tuple[int, int]]
) -> None:
    async with serving() as (client, out):
        answer = await client.post("/", content=body, headers=headers)
        assert answer.status_code == 400
        assert [(p["record"], p["byte"]) for p in answer.json().get("problems", [])] == problems
        assert answer.json()["error"]
        assert (await client.post("/", json=1)).status_code == 200
    assert out.count_records() == 1


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_compressed_bodies_are_taken_up_to_the_limit(serving: Serving, encoding: str) -> None:
    pack = {"gzip": gzip.compress, "zstd": zstandard.compress}[encoding]
    headers = NDJSON | {"content-encoding": encoding}
    async with serving(body_bytes=Size(10_000)) as (client, out):
        assert (await client.post("/", content=pack(b"1\n2\n"), headers=headers)).status_code == 200
        assert (await client.post("/", content=pack(bytes(50 << 20)), headers=headers)).status_code == 413
    assert [record.doc for record in out.records()] == [1, 2]


async def test_bodies_beyond_the_limit_are_refused(serving: Serving) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"1\n" * 1000

    async with serving(body_bytes=Size(10_000)) as (client, out):
        assert (await client.post("/", content=b"1" * 10_001, headers=JSON)).status_code == 413
        assert (await client.post("/", content=chunks(), headers=NDJSON)).status_code == 413
        assert (await client.post("/", content=b"1" * 10_000, headers=JSON)).status_code == 200
    assert out.count_records() == 1


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 405),
        ("POST", "/other", JSON, 404),
        ("POST", "/", {}, 415),
        ("POST", "/", {"content-type": "text/plain"}, 415),
        ("POST", "/", JSON | {"content-encoding": "br"}, 415),
        ("POST", "/", JSON | {"host": "evil.example"}, 421),
        ("POST", "/", JSON | {"host": "localhost:99"}, 200),
        ("POST", "/", JSON | {"host": "[::1]"}, 200),
    ],
)
async def test_other_requests_are_refused(
    serving: Serving, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    async with serving(paths=["orders"]) as (client, _):
        answer = await client.request(method, path, content=b"1", headers=headers)
        assert answer.status_code == status


async def test_without_room_the_client_is_told_to_wait(serving: Serving) -> None:
    async with serving() as (client, out):
        out.block()
        answer = await client.post("/", json=1)
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        out.unblock()
        assert (await client.post("/", json=1)).status_code == 200
        assert out.counts == {"refused_requests": 1}


async def test_open_requests_hold_no_more_than_their_budget(serving: Serving) -> None:
    out = outlet(auto_sync=False)
    async with serving(out, body_bytes=Size(600), queue_bytes=Size(1000)) as (client, _):
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: client.post("/", content=b"1" * 600, headers=JSON))
            await out.until(lambda: out.count_records() == 1)
            assert (await client.post("/", content=b"1" * 600, headers=JSON)).status_code == 429
            out.sync()
        out.sync()


async def test_a_token_is_needed_when_one_is_set(serving: Serving) -> None:
    async with serving(token=Secret("s3cret")) as (client, out):
        for header, status in (("", 401), ("Bearer wrong", 401), ("Bearer s3cret", 200)):
            answer = await client.post("/", json=1, headers={"Authorization": header} if header else {})
            assert answer.status_code == status
    assert out.count_records() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "0.0.0.0:80"}, "other machines"),
        ({"address": "[::]:80"}, "other machines"),
        ({"address": "example.com:80"}, "other machines"),
        ({"token": Secret("")}, "empty"),
        ({"tls_key": "k"}, "go together"),
        ({"address": "127.0.0.1:99999"}, "up to 65535"),
        ({"body_bytes": Size(10), "queue_bytes": Size(1)}, "never fits"),
    ],
)
def test_unsafe_or_senseless_options_are_named(options: dict[str, Any], message: str) -> None:
    found = [text for _, text in HttpServerCapture(**options).problems()]
    assert message in "; ".join(found)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"address": "[::1]:80"},
        {"address": "0.0.0.0:80", "allow_anonymous": True},
        {"address": "0.0.0.0:80", "token": Secret("x")},
    ],
)
def test_safe_options_pass(options: dict[str, Any]) -> None:
    assert not list(HttpServerCapture(**options).problems())


async def _until_closed(url: httpx.URL, first: bytes, drip: bytes) -> bytes:
    """Send something now, then a byte at a time, until the server closes. What it said."""
    assert url.port is not None
    said = b""
    async with await anyio.connect_tcp("127.0.0.1", url.port) as stream:
        with anyio.fail_after(10):
            await stream.send(first)
            async with anyio.create_task_group() as group:

                async def dripping() -> None:
                    try:
                        while True:
                            await anyio.sleep(0.02)
                            await stream.send(drip)
                    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                        pass

                group.start_soon(dripping)
                try:
                    while True:
                        said += await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    group.cancel_scope.cancel()
    return said


async def test_slow_clients_are_cut_off(serving: Serving) -> None:
    async with serving(head_timeout=Duration(0.2), body_timeout=Duration(0.2)) as (client, _):
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        assert await _until_closed(client.base_url, b"", b"") == b""
        assert await _until_closed(client.base_url, head, b"X") == b""
        assert b" 408 " in await _until_closed(client.base_url, head + b"Content-Length: 1000\r\n\r\n", b"1")
        whole = head + b"Content-Length: 1\r\n\r\n1"
        assert b" 200 " in await _until_closed(client.base_url, whole, b"")
        assert b" 200 " in await _until_closed(client.base_url, whole, b"P")
        assert (await client.post("/", json=1)).status_code == 200


async def test_a_connection_too_many_is_closed(serving: Serving) -> None:
    async with serving(connections_max=2) as (client, _):
        port = client.base_url.port
        assert port is not None
        async with await anyio.connect_tcp("127.0.0.1", port), await anyio.connect_tcp("127.0.0.1", port):
            with pytest.raises(httpx.TransportError):
                await client.post("/", json=1)


async def test_speaks_tls(serving: Serving, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    paths = {"tls_certificate": str(tmp_path / "cert"), "tls_key": str(tmp_path / "key")}
    async with serving(verify=context, **paths) as (client, _):
        assert client.base_url.scheme == "https"
        assert (await client.post("/", json=1)).status_code == 200
    with pytest.raises(FatalError, match="tls_certificate"):
        await HttpServerCapture(tls_certificate="no", tls_key="no", address="127.0.0.1:0").run(None, outlet())


async def test_an_address_in_use_is_tried_again_and_named_by_check(serving: Serving) -> None:
    async with serving() as (client, _):
        taken = HttpServerCapture(address=f"127.0.0.1:{client.base_url.port}")
        with pytest.raises(TransientError, match="cannot listen"):
            await taken.run(None, outlet())
        (finding,) = await taken.check(TaskName("t"))
        assert not finding.ok
    (finding,) = await taken.check(TaskName("t"))
    assert finding.ok


async def test_paths_make_no_more_collections_than_the_limit(serving: Serving) -> None:
    async with serving(paths=["*"], collections_max=2) as (client, _):
        statuses = [(await client.post(f"/{name}", json=1)).status_code for name in ("a", "b", "c", "a", "")]
    assert statuses == [200, 200, 404, 200, 200]


async def test_a_hostile_path_stays_in_the_collections_of_the_task(serving: Serving) -> None:
    async with serving(paths=["*"]) as (client, _):
        answer = await client.post("/%2e%2e/%00x/dead_letters", json=1)
    assert json.loads(answer.content)["collection"] == "t/%2E%2E%2F%00x%2Fdead_letters"


async def test_discovers_its_collections() -> None:
    found = await HttpServerCapture(paths=["orders", "x-*"]).discover(TaskName("t"))
    assert [one.schema.collection for one in found] == ["t", "t/orders"]
