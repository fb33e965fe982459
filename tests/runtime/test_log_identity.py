"""What a destination is told when the log behind it is not the one it was written from, or keeps less than it might."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace

import anyio
import pytest

from hub.catalog import Catalog
from hub.control import Control
from hub.record import Cursor
from hub.runtime.events import Events
from hub.runtime.runner import run
from hub.telemetry import Telemetry
from tests.runtime.memory import Script, Store, rows

pytestmark = pytest.mark.anyio


async def told(catalog: Catalog) -> tuple[int, str, Telemetry]:
    """Exit code and events of a run."""
    stream, telemetry = io.StringIO(), Telemetry()
    with anyio.fail_after(30):
        code = await run(catalog, Events(stream=stream), telemetry, signals=False)
    return code, stream.getvalue(), telemetry


async def test_a_destination_of_a_wiped_data_directory_is_not_written_until_somebody_says_so(
    make_catalog: Callable[..., Catalog], script: Script, store: Store
) -> None:
    script.sends = [rows(1), rows(2)]
    catalog = make_catalog()
    await told(catalog)
    shutil.rmtree(catalog.log_path)
    script.sends = [rows(n) for n in range(3, 40)]
    code, text, _ = await told(catalog)
    assert code == 1 and "the data directory was wiped or is another one" in text
    assert "hub log rewind" in text and [doc["id"] for doc in store.docs()] == [1, 2]
    (name,) = catalog.materializations
    with Control(catalog.log_path / "control.db") as control:
        control.ask_rewind_now(name, Cursor.START)
    code, text, _ = await told(catalog)
    assert code == 0 and [doc["id"] for doc in store.docs()] == list(range(1, 40))


async def test_weaker_durability_is_named_when_the_hub_starts_and_in_its_metrics(
    make_catalog: Callable[..., Catalog], script: Script
) -> None:
    catalog = make_catalog()
    script.sends = [rows(1)]
    _, text, telemetry = await told(catalog)
    assert "power loss" not in text and b"hub_log_may_lose_acknowledged 0.0" in telemetry.exposition()
    weaker = replace(catalog, log=type(catalog.log)(path=catalog.log.path, durability="os"))
    _, text, telemetry = await told(weaker)
    events = [json.loads(line) for line in text.splitlines()]
    (warning,) = [event for event in events if event["event"] == "log"]
    assert warning["level"] == "warning" and "power loss may take whatever the kernel" in warning["message"]
    assert next(event for event in events if event["event"] == "started")["durability"] == "os"
