"""What a plan says before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from hub.capture import Discovered
from hub.catalog import Catalog
from hub.record import TaskName
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
