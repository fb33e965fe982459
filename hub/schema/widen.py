"""The narrowest type that holds two others, and types read off documents.

The hard thing is to be honest: what no common type can hold without loss becomes `json`, which
holds everything, and never a type that would round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from hub.schema.types import BOOLEAN, DECIMAL, FLOAT64, INT53, INT64, JSON, OBJECT, STRING, UINT64, ColumnType

_TEXT_KINDS = frozenset(
    {"string", "decimal", "date", "timestamp", "timestamptz", "time", "timetz", "interval", "uuid", "bytes"}
)
_INT64_MAX = (1 << 63) - 1
_INT64_MIN = -(1 << 63)


def widen(one: ColumnType, other: ColumnType) -> ColumnType:
    """The narrowest type whose JSON form covers both. Commutative; `widen(t, t) == t`."""
    nullable = one.nullable or other.nullable
    return _widen(one, other).null(nullable)


def _widen(one: ColumnType, other: ColumnType) -> ColumnType:
    if one.null() == other.null():
        return one
    kinds = {one.kind, other.kind}
    if kinds == {"integer"}:
        if one.unsigned != other.unsigned:
            return ColumnType("decimal", precision=20, scale=0)
        return ColumnType("integer", bits=max(one.bits or 64, other.bits or 64), unsigned=one.unsigned)
    if kinds == {"float"}:
        return FLOAT64
    if kinds == {"integer", "float"}:
        integer = one if one.kind == "integer" else other
        return FLOAT64 if (integer.bits or 64) <= 53 else DECIMAL
    if kinds == {"integer", "decimal"}:
        decimal, integer = (one, other) if one.kind == "decimal" else (other, one)
        digits = {16: 5, 32: 10, 53: 16, 64: 20}[integer.bits or 64]
        if decimal.precision is None:
            return DECIMAL
        whole = max(decimal.precision - (decimal.scale or 0), digits)
        return ColumnType("decimal", precision=whole + (decimal.scale or 0), scale=decimal.scale or 0)
    if kinds == {"decimal"}:
        if one.precision is None or other.precision is None:
            return DECIMAL
        scale = max(one.scale or 0, other.scale or 0)
        whole = max(one.precision - (one.scale or 0), other.precision - (other.scale or 0))
        return ColumnType("decimal", precision=whole + scale, scale=scale)
    if kinds == {"float", "decimal"}:
        return DECIMAL
    if kinds == {"string"}:
        lengths = (one.length, other.length)
        return (
            STRING if None in lengths else ColumnType("string", length=max(filter(None, lengths), default=0))
        )
    if kinds == {"array"}:
        items = widen(one.items or JSON, other.items or JSON)
        return ColumnType("array", items=items)
    if kinds == {"object"}:
        return OBJECT if None in (one.properties, other.properties) else _widen_objects(one, other)
    if kinds <= _TEXT_KINDS:
        return STRING
    return JSON


def _widen_objects(one: ColumnType, other: ColumnType) -> ColumnType:
    assert one.properties is not None
    assert other.properties is not None
    merged = dict(one.properties)
    for name, column in other.properties.items():
        merged[name] = widen(merged[name], column) if name in merged else column.null()
    for name in merged.keys() - other.properties.keys():
        merged[name] = merged[name].null()
    return ColumnType("object", properties=merged)


def infer(values: Iterable[Any]) -> ColumnType | None:
    """The narrowest type of these values; None when all are null.

    Integers have room from the start, so that a column need not widen with its thousandth row. Text stays
    text: guessing dates from strings would make the type depend on the first rows seen.
    """
    found: ColumnType | None = None
    kinds: dict[type, list[Any]] = {}
    nullable = False
    for value in values:
        kinds.setdefault(type(value), []).append(value)
    for kind, group in kinds.items():
        if kind is type(None):
            nullable = True
            continue
        column = _of_values(kind, group)
        found = column if found is None else widen(found, column)
    return found.null(nullable) if found is not None else None


def _of_values(kind: type, values: Sequence[Any]) -> ColumnType:
    if kind is bool:
        return BOOLEAN
    if issubclass(kind, int):
        low, high = min(values), max(values)
        if low >= -(1 << 53) and high <= 1 << 53:
            return INT53
        if low >= _INT64_MIN and high <= _INT64_MAX:
            return INT64
        if low >= 0 and high <= (1 << 64) - 1:
            return UINT64
        return DECIMAL
    if issubclass(kind, float):
        return FLOAT64
    if issubclass(kind, str):
        return STRING
    if issubclass(kind, dict):
        return OBJECT
    if issubclass(kind, (list, tuple)):
        items = infer(item for value in values for item in value)
        return ColumnType("array", items=items.null() if items is not None else None)
    return JSON


def widened(known: Mapping[str, ColumnType], docs: Sequence[Any]) -> dict[str, ColumnType] | None:
    """The columns after these documents, or None when `known` covers them already.

    Columns are looked at one at a time and by the type of their values first, which costs some 30 ns
    a field; only a field whose values are new to its type is looked at more closely.
    """
    names = dict.fromkeys(name for doc in docs for name in doc)
    changed: dict[str, ColumnType] | None = None
    for name in names:
        column = infer(doc.get(name) for doc in docs)
        before = known.get(name)
        if column is None:
            continue
        after = column.null() if before is None else fit(before, column)
        if after != before:
            changed = dict(known) if changed is None else changed
            changed[name] = after
    return changed


def fit(known: ColumnType, seen: ColumnType) -> ColumnType:
    """`known`, widened only when values of the inferred type `seen` are not legal in it.

    Inference sees JSON, so a decimal looks like a string and an int16 like an int64: as long as the
    known type's JSON form may be what was seen, the known type, which says more, stays.
    """
    if seen.kind == "string" and known.kind in _TEXT_KINDS | {"float"}:
        return known
    if seen.kind == "integer" and known.kind == "float":
        return known
    if seen.kind == "integer" and known.kind == "integer":
        return widen(known, seen.null(known.nullable)) if known.bits == 53 else known
    if known.kind == "json":
        return known
    if seen.kind == known.kind == "array":
        items = fit(known.items, seen.items) if known.items and seen.items else (known.items or seen.items)
        return msgspec.structs.replace(known, items=items)
    if seen.kind == known.kind:
        return known
    return widen(known, seen.null(known.nullable))
