"""Functions that need something a connector or the configuration lends: caches and schema registries.

What they reach is found in the context's `extensions` under the name of the kind of thing: `caches`, an
object with `get`, `set`, `add` and `delete`, and `schema_registry`, a function of a schema's id and a payload.
"""

from __future__ import annotations

from typing import Any, Final

from hub.mapping.context import Context
from hub.mapping.receivers import as_data
from hub.mapping.registry import Param, function
from hub.mapping.values import EvaluationError, Value

CATEGORY: Final = "Environment"

_RESOURCE: Final = Param("resource", "string", doc="The name of the cache.")
_KEY: Final = Param("key", "string", doc="The key.")
_VALUE: Final = Param("value", "unknown", doc="The value.")
_TTL: Final = Param("ttl", "string", None, "How long to keep it, such as `5m`.")


def _caches(context: Context) -> Any:
    found = context.extensions.get("caches")
    if found is None:
        raise EvaluationError("no caches are configured for this mapping")
    return found


@function(
    "cache_get",
    category=CATEGORY,
    status="experimental",
    params=[_RESOURCE, _KEY],
    needs=["extensions"],
    pure=False,
    doc="The value of a key in a cache, or an error when there is none.",
)
def _cache_get(context: Context, resource: str, key: str) -> Value:
    return _caches(context).get(resource, key)


@function(
    "cache_set",
    category=CATEGORY,
    status="experimental",
    params=[_RESOURCE, _KEY, _VALUE, _TTL],
    needs=["extensions"],
    pure=False,
    doc="Sets a key of a cache and answers with the value.",
)
def _cache_set(context: Context, resource: str, key: str, value: Value, ttl: str | None) -> Value:
    _caches(context).set(resource, key, value, ttl)
    return value


@function(
    "cache_add",
    category=CATEGORY,
    status="experimental",
    params=[_RESOURCE, _KEY, _VALUE, _TTL],
    needs=["extensions"],
    pure=False,
    doc="Sets a key of a cache and answers with the value; an error when the key is there already.",
)
def _cache_add(context: Context, resource: str, key: str, value: Value, ttl: str | None) -> Value:
    _caches(context).add(resource, key, value, ttl)
    return value


@function(
    "cache_delete",
    category=CATEGORY,
    status="experimental",
    params=[_RESOURCE, _KEY],
    needs=["extensions"],
    pure=False,
    doc="Deletes a key of a cache and answers with null.",
)
def _cache_delete(context: Context, resource: str, key: str) -> None:
    _caches(context).delete(resource, key)


@function(
    "with_schema_registry_header",
    category="Encoding",
    params=[
        Param("schema_id", "integer", doc="The id of the schema in the registry."),
        Param("message", "unknown", doc="The encoded message, a string or bytes."),
    ],
    doc="A message behind the five bytes that name its schema: a zero, and the id as four bytes, high ones first.",
)
def _with_schema_registry_header(schema_id: int, message: Value) -> bytes:
    if not 0 <= schema_id < 1 << 32:
        raise EvaluationError(f"the id of a schema must have 32 bits, got {schema_id}")
    return b"\x00" + schema_id.to_bytes(4, "big") + as_data(message)
