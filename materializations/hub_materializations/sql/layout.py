"""The columns that a collection wants in a table: fields, metadata, and what the mode adds.

Pure: from the collection's schema, the binding's options and the table there is (for its names). The
layout says nothing of how the table gets there; that is `evolve.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from hub import cdc
from hub.errors import FatalError
from hub.schema import CollectionSchema, ColumnType, to_json_schema
from hub.schema.types import BOOLEAN, INT64, JSON, STRING, TIMESTAMPTZ

from .binding import Mode, SqlBinding
from .dialect import Dialect, ExistingTable, TableName
from .names import assigned, decodable

Origin = Literal["field", "metadata", "deleted_at", "valid_from", "valid_to", "is_current"]

APPEND_METADATA = {"_operation": cdc.OPERATION, "_ts_ms": cdc.TS_MS}
"""What a row of `mode: append` says of the change it holds, beside the binding's own `metadata`."""

_METADATA_TYPES: dict[str, ColumnType] = {
    cdc.OPERATION: STRING,
    cdc.SCHEMA: STRING,
    cdc.TABLE: STRING,
    cdc.LSN: INT64,
    cdc.COMMIT_LSN: INT64,
    cdc.TRANSACTION_ID: STRING,
    cdc.TS_MS: INT64,
    cdc.SNAPSHOT: BOOLEAN,
    cdc.ORIGIN: STRING,
}


class LayoutColumn(NamedTuple):
    """One column. `path` leads from the document to the value; for metadata it is its name.

    `wanted` is the type of the field, `type` that of the column, which may hold more.
    """

    name: str
    type: ColumnType
    wanted: ColumnType
    in_key: bool
    origin: Origin
    path: tuple[str, ...]

    @property
    def label(self) -> str:
        """The field as a person knows it."""
        return ".".join(self.path) if self.origin == "field" else f"@{self.path[0]}"


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of one table in the order in which rows are written, fields first."""

    table: TableName
    columns: tuple[LayoutColumn, ...]
    mode: Mode
    soft: bool

    @property
    def key(self) -> tuple[LayoutColumn, ...]:
        return tuple(column for column in self.columns if column.in_key)

    @property
    def key_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.key)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def index(self, origin: Origin) -> int:
        return next(i for i, column in enumerate(self.columns) if column.origin == origin)


def layout_of(
    table: TableName,
    schema: CollectionSchema,
    options: SqlBinding,
    dialect: Dialect,
    existing: ExistingTable | None,
) -> Layout:
    """What the table is to look like. FatalError where the options do not fit the collection."""
    key = tuple(options.key) if options.key is not None else schema.key_fields
    if not key and options.mode != "append":
        raise FatalError(
            f"{schema.collection}: `mode: {options.mode}` needs a key and the collection has none. Name the fields "
            f"that identify a record (`key: [id]` in the binding of table {table}), or use `mode: append`."
        )
    fields = list(_fields(_with_key_of(schema, key, options, dialect, existing), key, options))
    extra = list(_extra(options))
    wanted = {(origin, path): _name(path, origin, options) for path, _, origin in fields + extra}
    names = assigned(
        wanted,
        [column.name for column in existing.columns] if existing else (),
        dialect.names,
    )
    in_key = set(key) if options.mode != "append" else set()
    columns = tuple(
        LayoutColumn(
            names[origin, path], column, column, origin == "field" and path[0] in in_key, origin, path
        )
        for path, column, origin in fields + extra
    )
    return Layout(table, columns, options.mode, options.deletes == "soft")


def _with_key_of(
    schema: CollectionSchema,
    key: tuple[str, ...],
    options: SqlBinding,
    dialect: Dialect,
    existing: ExistingTable | None,
) -> CollectionSchema:
    """The schema; a key field that it only names, since no document has come yet, is what the table has."""
    stated = schema.schema.get("properties", {})
    found: dict[str, ColumnType] = {}
    for name in key:
        column = existing.column(options.rename.get(name, name)) if existing is not None else None
        if name not in stated and column is not None:
            found[name] = (dialect.column_type(column.type) or STRING).null(False)
    if not found:
        return schema
    properties = {name: to_json_schema(column) for name, column in found.items()} | stated
    return CollectionSchema(
        schema.collection, schema.key, {**schema.schema, "properties": properties}, schema.is_open
    )


def _fields(
    schema: CollectionSchema, key: tuple[str, ...], options: SqlBinding
) -> Iterator[tuple[tuple[str, ...], ColumnType, Origin]]:
    columns = schema.columns()
    known = {column.name for column in columns}
    for name in key:
        if name not in known:
            yield (name,), JSON.null(False), "field"
    for column in columns:
        chosen = options.include is None or column.name in options.include
        if column.name not in key and (not chosen or column.name in options.exclude):
            continue
        if options.nested == "flatten" and column.name not in key:
            yield from ((path, leaf, "field") for path, leaf in _leaves((column.name,), column.type))
        else:
            yield (column.name,), column.type, "field"


def _leaves(path: tuple[str, ...], column: ColumnType) -> Iterator[tuple[tuple[str, ...], ColumnType]]:
    if column.kind == "object" and column.properties and all(map(decodable, column.properties)):
        for name, inner in column.properties.items():
            yield from _leaves((*path, name), inner.null())
    else:
        yield path, column


def _extra(options: SqlBinding) -> Iterator[tuple[tuple[str, ...], ColumnType, Origin]]:
    metadata = dict(options.metadata)
    if options.mode == "append":
        metadata = {c: n for c, n in APPEND_METADATA.items() if n not in metadata.values()} | metadata
    for column, name in metadata.items():
        yield (name, column), _METADATA_TYPES.get(name, JSON), "metadata"
    if options.mode == "history":
        yield ("_valid_from",), TIMESTAMPTZ, "valid_from"
        yield ("_valid_to",), TIMESTAMPTZ, "valid_to"
        yield ("_is_current",), BOOLEAN, "is_current"
    if options.deletes == "soft":
        yield ("_deleted_at",), TIMESTAMPTZ, "deleted_at"


def _name(path: tuple[str, ...], origin: Origin, options: SqlBinding) -> str:
    if origin == "field":
        return options.rename.get(".".join(path), "_".join(path))
    return path[-1]
