"""hub: change data capture and topics to warehouses, through a durable log, in one process.

These are the names that authors of connectors use. They are loaded at first use, so that
`import hub` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hub.capture import Capture, Discovered, Finding, Outlet, collection_name
    from hub.errors import ConfigError, FatalError, Fenced, RecordError, TransientError
    from hub.materialization import Binding, BindingSpec, Materialization, Rejected, Sink
    from hub.processor import Processor, Transform
    from hub.record import Batch, Cursor, Position, TaskName
    from hub.schema import CollectionSchema
    from hub.spec import Duration, Interpolated, MappingText, MutationText, Secret, Size, Spec

_HOMES = {
    "hub.capture": ("Capture", "Discovered", "Finding", "Outlet", "collection_name"),
    "hub.errors": ("ConfigError", "FatalError", "Fenced", "RecordError", "TransientError"),
    "hub.materialization": ("Binding", "BindingSpec", "Materialization", "Rejected", "Sink"),
    "hub.processor": ("Processor", "Transform"),
    "hub.record": ("Batch", "Cursor", "Position", "TaskName"),
    "hub.schema": ("CollectionSchema",),
    "hub.spec": ("Duration", "Interpolated", "MappingText", "MutationText", "Secret", "Size", "Spec"),
}

__all__ = [  # noqa: RUF022  in the order of their homes
    "Capture", "Discovered", "Finding", "Outlet", "collection_name",
    "ConfigError", "FatalError", "Fenced", "RecordError", "TransientError",
    "Binding", "BindingSpec", "Materialization", "Rejected", "Sink",
    "Processor", "Transform",
    "Batch", "Cursor", "Position", "TaskName",
    "CollectionSchema",
    "Duration", "Interpolated", "MappingText", "MutationText", "Secret", "Size", "Spec",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'hub' has no attribute {name!r}")
