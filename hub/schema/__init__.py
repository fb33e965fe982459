"""Schemas of collections: column types, their JSON Schema, inference and widening."""

from hub.schema.collection import CollectionSchema, Column, describe, pointer
from hub.schema.types import ColumnType, of_json_schema, to_json_schema
from hub.schema.widen import infer, widen, widened

__all__ = [
    "CollectionSchema",
    "Column",
    "ColumnType",
    "describe",
    "infer",
    "of_json_schema",
    "pointer",
    "to_json_schema",
    "widen",
    "widened",
]
