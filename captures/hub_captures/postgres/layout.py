"""How the rows of a table are laid out, and the collection they make: decoder, schema and key.

`layout` is pure. `Layouts` makes those of a run, each once, and states what a row means before the first comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hub.capture import Outlet, collection_name
from hub.record import TaskName
from hub.schema import CollectionSchema, describe
from hub_captures.postgres.catalog import Table, load_types
from hub_captures.postgres.connection import Connection
from hub_captures.postgres.decoder import Decoder, RowColumn
from hub_captures.postgres.position import PostgresPosition
from hub_captures.postgres.types import PgType, codec

ColumnOf = tuple[str, int, int]
"""Name, type OID, type modifier."""


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
        self._made: dict[tuple[object, ...], Layout] = {}
        self._described: dict[str, CollectionSchema] = {}

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
        wanted = (schema, table, tuple(columns), tuple(key))
        made = self._made.get(wanted)
        if made is None:
            await load_types(self._query, [oid for _, oid, _ in columns], self.types)
            made = layout(self._out.task, schema, table, columns, key, self.types)
            self._made[wanted] = made
        return made

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
    made = [RowColumn(name, codec(oid, modifier, types)) for name, oid, modifier in columns]
    names = [column.name for column in made]
    key = tuple(key) if set(key) <= set(names) else ()
    fields = {column.name: column.codec.column.null(column.name not in key) for column in made}
    described = describe(collection_name(task, schema, table), fields, key)
    return Layout(Decoder(made), described, tuple(names.index(name) for name in key))
