"""How the rows of one table are laid out, and the collection they make: decoder, schema and key. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hub.capture import collection_name
from hub.record import TaskName
from hub.schema import CollectionSchema, describe
from hub_captures.postgres.decoder import Decoder, RowColumn
from hub_captures.postgres.types import PgType, codec

ColumnOf = tuple[str, int, int]
"""Name, type OID, type modifier."""


class Layout(NamedTuple):
    """`key_indexes` are the places of the key's columns in a row."""

    decoder: Decoder
    schema: CollectionSchema
    key_indexes: tuple[int, ...]


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
