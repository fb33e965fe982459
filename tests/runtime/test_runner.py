"""A whole hub around a source and a destination in memory."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from hub.catalog import Catalog, CollectionOptions, DerivationTask, Sources
from hub.catalog import Step as ProcessorStep
from hub.errors import FatalError, Fenced, RecordError, TransientError
from hub.log import Transaction
from hub.materialization import Commit
from hub.options import Duration
from hub.processor import Processor, Transform
from hub.record import Batch
from hub.runtime.events import Events
from hub.runtime.runner import Running, run
from hub.schema import CollectionSchema, ColumnType, describe
from hub.schema.types import INT64
from hub.telemetry import Telemetry
from tests.runtime.memory import Script, Store, rows

pytestmark = pytest.mark.anyio
Make = Callable[..., Catalog]


async def run_hub(catalog: Catalog, telemetry: Telemetry | None = None, **options: Any) -> int:
    with anyio.fail_after(30):
        return await run(catalog, Events(), telemetry or Telemetry(), signals=False, **options)


async def test_everything_arrives_in_order_and_the_hub_ends_with_its_captures(
    make_catalog: Make, script: Script, store: Store
) -> None:
    script.sends = [rows(i, i + 1000) for i in range(200)]
    assert await run_hub(make_catalog()) == 0
    assert [doc["id"] for doc in store.docs()] == [n for i in range(200) for n in (i, i + 1000)]


async def test_a_second_run_goes_on_where_the_first_stopped(
    make_catalog: Make, script: Script, store: Store
) -> None:
    script.sends = [rows(1)]
    await run_hub(make_catalog())
    script.sends += [rows(2)]
    await run_hub(make_catalog())
    assert script.resumed == [0, 1]
    assert [doc["id"] for doc in store.docs()] == [1, 2]


async def test_a_source_transaction_is_committed_whole_across_collections(
    make_catalog: Make, script: Script, store: Store
) -> None:
    script.sends = [
        (rows(1, collection="s/a"), False),
        (rows(1, collection="s/b"), False),
        (rows(2, collection="s/a") + rows(2, collection="s/b"), True),
    ] * 20
    await run_hub(make_catalog(to='${! @t.or("x") }'))
    await run_hub(make_catalog())
    assert all(counts.get("x", 0) % 4 == 0 for counts in store.commits)
    assert len(store.docs("x")) == 80


async def test_records_after_the_last_position_are_gone_when_the_source_fails(
    make_catalog: Make, script: Script, store: Store
) -> None:
    script.sends = [rows(1), (rows(2), False), FatalError("the source is broken"), rows(3)]
    assert await run_hub(make_catalog()) == 1
    assert [doc["id"] for doc in store.docs()] == [1]


async def test_a_transient_error_opens_the_capture_again_at_its_newest_position(
    make_catalog: Make, script: Script, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.runtime.supervisor.BACKOFF_FIRST_S", 0.001)
    script.sends = [rows(1), TransientError("connection lost"), rows(2)]
    telemetry = Telemetry()
    assert await run_hub(make_catalog(), telemetry) == 0
    assert [doc["id"] for doc in store.docs()] == [1, 2]
    assert telemetry.tasks["s"].retries == 1


async def test_a_commit_that_failed_is_done_again_without_doubling(
    make_catalog: Make, script: Script, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.runtime.supervisor.BACKOFF_FIRST_S", 0.001)
    script.sends = [rows(i) for i in range(50)]
    store.failures = [TransientError("no answer"), TransientError("no answer")]
    assert await run_hub(make_catalog()) == 0
    assert [doc["id"] for doc in store.docs()] == list(range(50))
    assert store.opened == 3


async def test_a_fenced_sink_stops_and_the_exit_code_says_so(
    make_catalog: Make, script: Script, store: Store
) -> None:
    script.sends = [rows(1)]
    store.failures = [Fenced("a newer writer has taken over")]
    telemetry = Telemetry()
    assert await run_hub(make_catalog(), telemetry) == 1
    assert telemetry.tasks["d"].state == "failed"
    assert store.docs() == []


async def test_the_durable_position_is_never_ahead_of_what_was_sent(
    make_catalog: Make, script: Script, store: Store
) -> None:
    script.sends = [rows(i) for i in range(300)]
    await run_hub(make_catalog())
    assert script.durable == sorted(script.durable)
    assert all(durable <= index + 1 for index, durable in enumerate(script.durable))


async def test_the_first_stop_lets_the_sink_finish_what_the_log_holds(
    make_catalog: Make, script: Script, store: Store
) -> None:
    script.sends = [rows(i) for i in range(100)]
    script.endless = True

    async def stop_when_sent(running: Running) -> None:
        while running.log.position("s") is None or script.sent < 100:
            await anyio.lowlevel.checkpoint()
        running.supervisor.stop()

    assert await run_hub(make_catalog(commit=Commit(every=Duration(3600))), beside=[stop_when_sent]) == 0
    committed = len(store.docs())
    assert [doc["id"] for doc in store.docs()] == list(range(committed))
    assert committed > 0


async def test_a_stop_does_not_wait_for_a_destination_that_does_not_answer(
    make_catalog: Make, script: Script, store: Store
) -> None:
    script.sends = [rows(1)]
    script.endless = True
    store.opening = anyio.Event()

    async def stop_when_durable(running: Running) -> None:
        while running.log.position("s") is None:
            await anyio.lowlevel.checkpoint()
        running.supervisor.stop()

    telemetry = Telemetry()
    assert await run_hub(make_catalog(), telemetry, beside=[stop_when_durable]) == 0
    assert telemetry.tasks["d"].state == "stopped"
    script.endless = False
    store.opening = None
    assert await run_hub(make_catalog()) == 0
    assert [doc["id"] for doc in store.docs()] == [1]


async def test_a_destination_of_another_log_is_refused(
    make_catalog: Make, script: Script, store: Store
) -> None:
    script.sends = [rows(i) for i in range(10)]
    await run_hub(make_catalog())
    script.sends = [rows(i) for i in range(100, 130)]
    telemetry = Telemetry()
    assert await run_hub(make_catalog(log="another"), telemetry) == 1
    assert [doc["id"] for doc in store.docs()] == list(range(10))


class Odd(Processor, frozen=True, kw_only=True):
    """Refuses odd ids."""

    def start(self, source: CollectionSchema) -> Transform:
        return OddTransform(source)


class OddTransform:
    def __init__(self, schema: CollectionSchema) -> None:
        self.schema = schema

    def process(self, batch: Batch) -> list[Batch]:
        return [
            batch.with_errors({i: RecordError("odd") for i, doc in enumerate(batch.docs) if doc["id"] % 2})
        ]


def odd_derivation(policy: str) -> DerivationTask:
    return DerivationTask("even", Sources("s"), (ProcessorStep("odd", Odd(), policy),), None)  # type: ignore[arg-type]


async def test_a_record_that_fails_becomes_a_dead_letter_with_all_that_is_known(
    make_catalog: Make, script: Script, store: Store
) -> None:
    script.sends = [rows(1, 2, 3, ops=b"cud", table="t")]
    catalog = make_catalog(
        sources=["even", "dead_letters/d"], derivations=[odd_derivation("dead_letter")], to='${! @t.or("x") }'
    )
    telemetry = Telemetry()
    assert await run_hub(catalog, telemetry) == 0
    assert await run_hub(catalog) == 0
    letters = [doc for doc in store.docs("x") if "error" in doc]
    assert [letter["document"] for letter in letters] == [{"id": 1}, {"id": 3}]
    assert [letter["operation"] for letter in letters] == ["create", "delete"]
    assert letters[0] | {"log": None} == {
        "task": "d",
        "collection": "s",
        "component": "even.odd",
        "error": "odd",
        "operation": "create",
        "document": {"id": 1},
        "metadata": {"table": "t"},
        "log": None,
    }
    assert telemetry.tasks["d"].dead_letters == 2


async def test_skip_counts_and_stop_stops(make_catalog: Make, script: Script, store: Store) -> None:
    script.sends = [rows(1, 2, 3)]
    telemetry = Telemetry()
    assert await run_hub(make_catalog(sources=["even"], derivations=[odd_derivation("skip")]), telemetry) == 0
    assert telemetry.tasks["d"].skipped == 2
    store.cursor = None
    store.rows.clear()
    telemetry = Telemetry()
    assert await run_hub(make_catalog(sources=["even"], derivations=[odd_derivation("stop")]), telemetry) == 1
    assert "on_error: stop" in telemetry.tasks["d"].error
    assert store.docs() == []


async def test_records_that_the_destination_refuses_are_set_aside_and_it_is_said(
    make_catalog: Make, script: Script, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    script.sends = [rows(1, 2, 3)]
    store.reject = lambda doc: "too large" if doc["id"] == 2 else None
    telemetry = Telemetry()
    assert await run_hub(make_catalog(), telemetry) == 0
    assert [doc["id"] for doc in store.docs()] == [1, 3]
    assert telemetry.tasks["d"].dead_letters == 1
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (said,) = [event for event in events if event["event"] == "dead_letters"]
    assert said | {"ts": ""} == {
        "ts": "",
        "level": "warning",
        "event": "dead_letters",
        "task": "d",
        "records": 1,
        "collection": "dead_letters/d",
        "reason": "too large",
    }


async def test_a_schema_change_stands_exactly_between_the_records_around_it(
    make_catalog: Make, script: Script, store: Store
) -> None:
    first = describe("s", {"id": INT64.null(False)}, ("id",))
    second = describe("s", {"id": INT64.null(False), "b": ColumnType("uuid")}, ("id",))
    script.sends = [first, rows(1), rows(2), second, rows(3)]
    await run_hub(make_catalog())
    assert [schema for _, schema in store.described] == [first, second]


async def test_an_open_schema_is_learnt_before_the_record_that_needs_it(
    make_catalog: Make, script: Script, store: Store
) -> None:
    script.sends = [[Batch.of_docs("s", [{"id": 1}, {"id": 2, "name": "x", "tags": ["a"]}])]]
    await run_hub(make_catalog())
    columns = {column.name: column.type.kind for column in store.described[-1][1].columns()}
    assert columns == {"id": "integer", "name": "string", "tags": "array"}


async def test_a_key_that_no_schema_states_is_learnt_with_its_type(
    make_catalog: Make, script: Script, store: Store
) -> None:
    script.sends = [[Batch.of_docs("s", [{"n": 1, "id": 7}])]]
    catalog = make_catalog()
    keyed = replace(catalog, collections={"s": CollectionOptions(key=["/id"])})
    await run_hub(keyed)
    assert [(c.name, c.type.kind, c.in_key) for c in store.described[-1][1].columns()] == [
        ("n", "integer", False),
        ("id", "integer", True),
    ]


async def test_with_a_dead_sink_queues_stay_in_their_budgets_and_the_capture_waits_at_the_cap(
    make_catalog: Make, script: Script, store: Store
) -> None:
    noise = random.Random(0)  # which no codec makes smaller
    megabyte = [Batch.of_lines("s", [b'"%s"' % base64.b64encode(noise.randbytes(750)) for _ in range(1000)])]
    script.sends = [megabyte] * 60
    store.gate = anyio.Event()
    telemetry = Telemetry()
    peaks = {"s": 0, "d": 0}
    filled: list[float] = []

    async def watch(running: Running) -> None:
        stats = telemetry.tasks
        while stats["s"].state != "waiting":
            for name in peaks:
                peaks[name] = max(peaks[name], stats[name].queue_bytes)
                assert stats[name].queue_bytes <= stats[name].queue_bytes_max * 1.2 + (2 << 20)
            await anyio.lowlevel.checkpoint()
        filled.append(running.log.fill)
        assert script.sent < 60, "the capture waits"
        assert store.gate is not None
        store.gate.set()

    assert await run_hub(make_catalog(cap=16 << 20, segment=4 << 20), telemetry, beside=[watch]) == 0
    assert filled
    assert filled[0] > 0.5
    assert len(store.docs()) == 60_000


async def test_without_a_backlog_a_commit_takes_all_that_came_during_the_one_before(
    make_catalog: Make, script: Script, store: Store
) -> None:
    script.sends = [rows(0)]
    script.endless = True
    store.gate = anyio.Event()

    async def watch(running: Running) -> None:
        while not store.held:
            await anyio.lowlevel.checkpoint()
        for number in range(1, 50):
            await running.log.append(Transaction("other", rows(number)))
        assert store.gate is not None
        store.gate.set()
        running.supervisor.stop()

    assert await run_hub(make_catalog(), beside=[watch]) == 0
    assert [doc["id"] for doc in store.docs()] == list(range(50))
    assert [commit for commit in store.commits if commit] == [{"": 1}, {"": 49}]


async def test_in_a_backlog_the_next_batch_is_prepared_while_the_last_is_written(
    make_catalog: Make, script: Script, store: Store
) -> None:
    much = [Batch.of_docs("s", [{"id": i, "text": "x" * 1000} for i in range(3000)])]
    script.sends = [much] * 8
    store.gate = anyio.Event()

    async def watch(running: Running) -> None:
        while not (store.held and store.prepared):
            await anyio.lowlevel.checkpoint()
        assert store.gate is not None
        assert not store.commits
        store.gate.set()

    assert await run_hub(make_catalog(), beside=[watch]) == 0
    assert len(store.docs()) == 24_000
