"""What a plan says before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from hub.capture import Discovered
from hub.catalog import Catalog, DerivationTask, Sources, Step
from hub.options import MappingText
from hub.record import TaskName
from hub.registry import connector
from hub.runtime.preview import preview
from hub.schema import describe
from hub.schema.types import INT64
from tests.runtime.memory import Script, ScriptedCapture, Store

pytestmark = pytest.mark.anyio


async def test_a_plan_routes_every_collection_by_the_metadata_its_records_will_share(
    make_catalog: Callable[..., Catalog], script: Script, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def discover(self: ScriptedCapture, task: TaskName) -> Sequence[Discovered]:
        schema = describe("s/public.orders", {"id": INT64.null(False)}, ("id",))
        return [Discovered(schema, "note", {"table": "orders"})]

    monkeypatch.setattr(ScriptedCapture, "discover", discover)
    plan = await preview(make_catalog(to="${! @table }"))
    [sink] = plan.materializations
    assert sink.routes == (("s/public.orders", "orders"),)
    assert sink.delivery == "exactly once"
    assert plan.problems == []
    assert store.opened == 0


async def test_a_plan_warns_of_a_field_that_the_source_does_not_have(
    make_catalog: Callable[..., Catalog], script: Script, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def discover(self: ScriptedCapture, task: TaskName) -> Sequence[Discovered]:
        return [Discovered(describe("s", {"amount": INT64}))]

    monkeypatch.setattr(ScriptedCapture, "discover", discover)
    mapping = connector("processor", "mapping")(mapping=MappingText("root.a = this.amont"))
    derivation = DerivationTask("d1", Sources("s"), (Step("mapping", mapping, "skip"),), None)
    plan = await preview(make_catalog(sources=["d1"], derivations=[derivation]))
    [warning] = plan.warnings
    assert "no field amont; did you mean 'amount'?" in warning
