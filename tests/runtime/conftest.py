"""A hub around a source and a destination in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hub.catalog import (
    BindingRule,
    CaptureTask,
    Catalog,
    DerivationTask,
    LogSection,
    MaterializationTask,
    ServerSection,
    Sources,
)
from hub.materialization import Commit
from hub.options import Interpolated, Size
from hub.record import TaskName
from tests.runtime.memory import (
    SCRIPTS,
    STORES,
    Script,
    ScriptedCapture,
    Store,
    StoreBinding,
    StoreMaterialization,
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def script() -> Script:
    SCRIPTS["s"] = Script([])
    return SCRIPTS["s"]


@pytest.fixture
def store() -> Store:
    STORES["d"] = Store()
    return STORES["d"]


@pytest.fixture
def make_catalog(tmp_path: Path) -> Callable[..., Catalog]:
    """A catalog of one capture `s` and one materialization `d`."""

    def make(
        *,
        sources: Sequence[str] = ("s", "s/*"),
        to: str = "",
        on_error: str = "dead_letter",
        derivations: Sequence[DerivationTask] = (),
        commit: Commit | None = None,
        cap: int | None = None,
        segment: int = 1 << 20,
        log: str = "log",
    ) -> Catalog:
        binding = StoreBinding(source=list(sources), to=Interpolated(to), on_error=on_error)
        rule = BindingRule(Sources(sources), binding)
        task = MaterializationTask(
            TaskName("d"), "store", StoreMaterialization(store="d"), (rule,), commit or Commit()
        )
        return Catalog(
            file="test.yaml",
            root=tmp_path,
            captures={TaskName("s"): CaptureTask(TaskName("s"), "scripted", ScriptedCapture(script="s"))},
            derivations={derivation.name: derivation for derivation in derivations},
            materializations={TaskName("d"): task},
            log=LogSection(
                path=log, cap=Size(cap) if cap else None, segment=Size(segment), tail=Size(1 << 20)
            ),
            server=ServerSection(enabled=False),
        )

    return make
