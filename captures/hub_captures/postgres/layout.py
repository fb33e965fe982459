"""How the rows of a table are laid out, and the collection they make: decoder, schema and key.

`layout` is pure. `Layouts` makes those of a run, and states what a row means before the first comes. There may be ten
thousand tables, but seldom as many different ones: whatever follows from the columns alone is made once for all
tables that have the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from hub.capture import Outlet, collection_name
from hub.record import TaskName
from hub.schema import CollectionSchema, describe
from hub_captures.postgres.catalog import Table, load_types
from hub_captures.postgres.connection import Connection
from hub_captures.postgres.decoder import Decoder, RowColumn
from hub_captures.postgres.position import PostgresPosition
from hub_captures.postgres.types import PgType, codec

SHAPES_MAX = 512
"""So many different sets of columns are remembered. One more is only made again when a table is met anew."""

ColumnOf = tuple[str, int, int]
"""Name, type OID, type modifier."""


class Shape(NamedTuple):
    """What tables of the same columns and the same key have in common. `key` is in the pointers of a schema,
    `document` the JSON Schema of a row, `key_indexes` are the places of the key's columns in a row."""

    decoder: Decoder
    key: tuple[str, ...]
    document: dict[str, Any]
    key_indexes: tuple[int, ...]


class Layout(NamedTuple):
    """`key_indexes` are the places of the key's columns in a row."""

    decoder: Decoder
    schema: CollectionSchema
    key_indexes: tuple[int, ...]


class Layouts:
    """The layouts of one run. `types` are those that were asked for so far, by OID."""

    def __init__(self, out: Outlet[PostgresPosition], query: Connection, types: dict[int, PgType]) -> None:
        self.types = types
        self._out = out
        self._query = query
        self._shape = lru_cache(SHAPES_MAX)(self._made)
        self._described: dict[str, CollectionSchema] = {}

    def _made(self, columns: tuple[ColumnOf, ...], key: tuple[str, ...]) -> Shape:
        return shape(columns, key, self.types)

    async def renew(self) -> bool:
        """Look whether composite types have other fields by now, of which the stream says nothing. True when some have:
        layouts that were made before are out of date."""
        fresh: dict[int, PgType] = {}
        await load_types(self._query, [oid for oid, each in self.types.items() if each.kind == "c"], fresh)
        changed = {oid: each for oid, each in fresh.items() if self.types.get(oid) != each}
        if changed:
            self.types.update(changed)
            self._shape.cache_clear()
        return bool(changed)

    async def of_tables(self, tables: Sequence[Table]) -> list[Layout]:
        """How the rows of tables are laid out, after it was said what they mean."""
        await load_types(self._query, {c.type_oid for table in tables for c in table.columns}, self.types)
        made = []
        for table in tables:
            columns = [(column.name, column.type_oid, column.modifier) for column in table.columns]
            made.append(await self.one(table.schema, table.name, columns, table.key))
            await self.describe(made[-1].schema)
        return made

    async def one(self, schema: str, table: str, columns: Sequence[ColumnOf], key: Sequence[str]) -> Layout:
        """The layout of rows with these columns."""
        await load_types(self._query, [oid for _, oid, _ in columns], self.types)
        return _layout(self._out.task, schema, table, self._shape(tuple(columns), tuple(key)))

    def is_described(self, schema: CollectionSchema) -> bool:
        """Whether the last that was stated of the collection is this."""
        return self._described.get(schema.collection) == schema

    async def describe(self, schema: CollectionSchema) -> None:
        """State what the records of a collection mean, unless it was the last that was stated."""
        if not self.is_described(schema):
            await self._out.describe(schema)
            self._described[schema.collection] = schema


def layout(
    task: TaskName,
    schema: str,
    table: str,
    columns: Sequence[ColumnOf],
    key: Sequence[str],
    types: Mapping[int, PgType],
) -> Layout:
    """The layout of rows with these columns. Only key columns are stated as never null: the others may
    lose that without a word in the stream, and are absent when unchanged."""
    return _layout(task, schema, table, shape(columns, key, types))


def _layout(task: TaskName, schema: str, table: str, made: Shape) -> Layout:
    described = CollectionSchema(collection_name(task, schema, table), made.key, made.document)
    return Layout(made.decoder, described, made.key_indexes)


def shape(columns: Sequence[ColumnOf], key: Sequence[str], types: Mapping[int, PgType]) -> Shape:
    """What follows from the columns and the key."""
    made = [RowColumn(name, codec(oid, modifier, types)) for name, oid, modifier in columns]
    names = [column.name for column in made]
    key = tuple(key) if set(key) <= set(names) else ()
    fields = {column.name: column.codec.column.null(column.name not in key) for column in made}
    described = describe("", fields, key)
    return Shape(Decoder(made), described.key, described.schema, tuple(names.index(name) for name in key))
