"""What a mapping reads and writes, found from its tree."""

from __future__ import annotations

from collections.abc import Sequence

from hub.mapping import tree


def reads(found: tree.Mapping | tree.Interpolation | tree.Query) -> frozenset[tuple[str, ...]]:
    """Paths of the document that may be read."""
    return frozenset({()})


def writes(found: tree.Mapping | tree.Interpolation | tree.Query) -> frozenset[tuple[str, ...]]:
    """Paths of the new document that may be assigned."""
    return frozenset(node.path for node in tree.walk(found) if isinstance(node, tree.Assign))


def source_of(mapping: tree.Mapping, field: str, *, mutation: bool) -> str | None:
    return None


def projected(mapping: tree.Mapping, fields: Sequence[str]) -> tree.Mapping:
    return mapping


def metadata_only(found: tree.Mapping | tree.Interpolation | tree.Query) -> frozenset[str] | None:
    return None
