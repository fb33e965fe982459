"""Methods that look up or prepare values for elsewhere: GeoIP databases, SQL vectors."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from hub.mapping.context import Context
from hub.mapping.extras import load, needs
from hub.mapping.geoip import answer, check_kind
from hub.mapping.receivers import as_array, as_float, as_string
from hub.mapping.registry import Example, Param, method
from hub.mapping.values import EvaluationError, Float32, Value

_GEOIP: Final = {
    "anonymous_ip": "whether the address hides who uses it",
    "asn": "the autonomous system of the address",
    "city": "city, country, location and more of the address",
    "connection_type": "how the address is connected",
    "country": "the country of the address",
    "domain": "the domain of the address",
    "enterprise": "all that an enterprise database knows of the address",
    "isp": "the provider of the address",
}


@lru_cache(maxsize=16)
def _database(path: str) -> Any:
    maxminddb = load("maxminddb", "GeoIP lookups")
    try:
        return maxminddb.open_database(path)
    except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
        raise EvaluationError(f"failed to open GeoIP database {path}: {error}") from error


def _declare(kind: str, what: str) -> None:
    @method(
        f"geoip_{kind}",
        category="GeoIP",
        annotate=False,
        params=[Param("path", "string", doc="The path of a MaxMind database (mmdb).")],
        needs=["read_file"],
        prepared=True,
        pure=False,
        doc=f"Looks an IP address up in a MaxMind database: {what}. An address that is not in there has the same fields, "
        "with nothing in them.",
        **needs("maxminddb"),
    )
    def lookup(context: Context, path: str) -> Callable[[Value], Value]:
        context.require("read_file")
        database = _database(path)
        check_kind(kind, database.metadata().database_type)

        def run(target: Value) -> Value:
            address = as_string(target)
            try:
                found = database.get(address)
            except ValueError as error:
                raise EvaluationError(
                    f"value {address} does not appear to be a valid v4 or v6 IP address"
                ) from error
            return answer(kind, found)

        return run


for _kind, _what in _GEOIP.items():
    _declare(_kind, _what)


@method(
    "vector",
    category="SQL",
    annotate=False,
    doc="An array of numbers as a vector for a database: every item as a float of 32 bits.",
    examples=[Example("root.v = this.v.vector()", (('{"v":[0.5,2]}', '{"v":[0.5,2]}'),))],
)
def _vector(target: Value) -> list[Any]:
    return [Float32(as_float(item)) for item in as_array(target)]
