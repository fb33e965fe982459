"""What a collection holds: its key and the schema of its documents.

Captures describe their collections with it, the log carries it in the order of the records it
holds for, and sinks make their tables from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from hub.schema.types import JSON, ColumnType, of_json_schema, to_json_schema


class Column(NamedTuple):
    """One top-level field of a collection's documents."""

    name: str
    type: ColumnType
    in_key: bool


class CollectionSchema(msgspec.Struct, frozen=True):
    """Key and JSON Schema (draft 2020-12) of one collection.

    `key` names top-level fields as JSON pointers (`/id`), in the key's order; empty for a collection
    without a key. `is_open` says that documents may hold fields the schema does not list: whoever
    needs columns must then infer them from the documents.
    """

    collection: str
    key: tuple[str, ...] = ()
    schema: dict[str, Any] = {}
    is_open: bool = False

    @property
    def key_fields(self) -> tuple[str, ...]:
        """The names of the key's fields, without the pointer syntax."""
        return tuple(pointer[1:].replace("~1", "/").replace("~0", "~") for pointer in self.key)

    def columns(self) -> list[Column]:
        """The top-level fields in the schema's order. Key fields that it does not list come first."""
        properties: Mapping[str, Any] = self.schema.get("properties", {})
        key = self.key_fields
        missing = [Column(name, JSON, True) for name in key if name not in properties]
        return missing + [
            Column(name, of_json_schema(fragment), name in key) for name, fragment in properties.items()
        ]

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, stored: bytes) -> CollectionSchema:
        return msgspec.json.decode(stored, type=cls)


def pointer(name: str) -> str:
    """The JSON pointer (RFC 6901) of a top-level field."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def describe(
    collection: str, columns: Mapping[str, ColumnType], key: tuple[str, ...] = (), *, is_open: bool = False
) -> CollectionSchema:
    """The schema of documents with these top-level fields. `key` holds field names."""
    return CollectionSchema(
        collection,
        tuple(pointer(name) for name in key),
        {
            "type": "object",
            "properties": {name: to_json_schema(column) for name, column in columns.items()},
            "required": [name for name, column in columns.items() if not column.nullable],
        },
        is_open,
    )
