"""What a GeoIP lookup answers: every field that this kind of lookup knows, also those the database leaves out.

Mappings written for the engine read `City.Names.en` and `Country.IsoCode` without asking whether they are there,
so a field without data is empty, zero or false, and an address that is not in the database gives a whole object of
those. The names are the engine's: those of the database in camel case, with a few spelt otherwise.
"""

from __future__ import annotations

from typing import Any, Final

from hub.mapping.values import EvaluationError, Value, real

Shape = dict[str, Any]
"""Names in the database, each with what stands for it when it is not there: a value, the shape of an object, or
a list of the shape of its items."""

_PLACE: Final[Shape] = {"names": None, "geoname_id": 0}
_CONTINENT: Final[Shape] = {**_PLACE, "code": ""}
_COUNTRY: Final[Shape] = {**_PLACE, "iso_code": "", "is_in_european_union": False}
_SURE: Final[Shape] = {"confidence": 0}
_LOCATION: Final[Shape] = {
    "time_zone": "",
    "latitude": 0.0,
    "longitude": 0.0,
    "metro_code": 0,
    "accuracy_radius": 0,
}
_TRAITS: Final[Shape] = {"is_anonymous_proxy": False, "is_anycast": False, "is_satellite_provider": False}
_ASN: Final[Shape] = {"autonomous_system_organization": "", "autonomous_system_number": 0}
_ISP: Final[Shape] = {
    **_ASN,
    "isp": "",
    "mobile_country_code": "",
    "mobile_network_code": "",
    "organization": "",
}
_BY_COUNTRY: Final[Shape] = {
    "continent": _CONTINENT,
    "country": _COUNTRY,
    "registered_country": _COUNTRY,
    "represented_country": {**_COUNTRY, "type": ""},
    "traits": _TRAITS,
}

SHAPES: Final[dict[str, Shape]] = {
    "anonymous_ip": {
        "is_anonymous": False,
        "is_anonymous_vpn": False,
        "is_hosting_provider": False,
        "is_public_proxy": False,
        "is_residential_proxy": False,
        "is_tor_exit_node": False,
    },
    "asn": _ASN,
    "city": {
        **_BY_COUNTRY,
        "city": _PLACE,
        "postal": {"code": ""},
        "subdivisions": [{**_PLACE, "iso_code": ""}],
        "location": _LOCATION,
    },
    "connection_type": {"connection_type": ""},
    "country": _BY_COUNTRY,
    "domain": {"domain": ""},
    "enterprise": {
        **_BY_COUNTRY,
        "city": {**_PLACE, **_SURE},
        "postal": {"code": "", **_SURE},
        "subdivisions": [{**_PLACE, **_SURE, "iso_code": ""}],
        "country": {**_COUNTRY, **_SURE},
        "registered_country": {**_COUNTRY, **_SURE},
        "location": _LOCATION,
        "traits": {
            **_TRAITS,
            **_ISP,
            "connection_type": "",
            "domain": "",
            "user_type": "",
            "static_ip_score": 0.0,
            "is_legitimate_proxy": False,
        },
    },
    "isp": _ISP,
}
"""The fields of each kind of lookup, as the reader of the engine declares them."""

_SPELT: Final = {
    "geoname_id": "GeoNameID",
    "isp": "ISP",
    "is_anonymous_vpn": "IsAnonymousVPN",
    "static_ip_score": "StaticIPScore",
}

_SERVES: Final = {
    "Anonymous-IP": {"anonymous_ip"},
    "ASN": {"asn"},
    "City": {"city", "country"},
    "Country": {"city", "country"},
    "Location": {"city", "country"},
    "Connection-Type": {"connection_type"},
    "Domain": {"domain"},
    "Enterprise": {"enterprise", "city", "country"},
    "ISP": {"isp", "asn"},
}


def check_kind(kind: str, database: str) -> None:
    """Refuses a database that has no answers of this kind, by its type: `GeoLite2-City`, `GeoIP2-ISP`, …"""
    label = database.partition("compat=")[2].rstrip(")") or database.removeprefix("GeoIP2-Precision-")
    words = (
        label.replace("-Lite", "").removeprefix("GeoIP2-").removeprefix("GeoLite2-").removeprefix("GeoIP-")
    )
    words = words.removeprefix("DBIP-")
    served = next((kinds for name, kinds in _SERVES.items() if words.startswith(name)), None)
    if served is None:
        raise EvaluationError(f'geoip2: reader does not support the "{database}" database type')
    if kind not in served:
        raise EvaluationError(f"geoip2: the {_METHODS[kind]} method does not support the {database} database")


_METHODS: Final = {
    "anonymous_ip": "AnonymousIP", "asn": "ASN", "city": "City", "connection_type": "ConnectionType",
    "country": "Country", "domain": "Domain", "enterprise": "Enterprise", "isp": "ISP",
}  # fmt: skip


def answer(kind: str, found: Any) -> Value:
    """A record of the database, or None, as the lookup of this kind gives it."""
    return _filled(SHAPES[kind], found)


def _filled(shape: Shape, found: Any) -> dict[str, Value]:
    given = found if isinstance(found, dict) else {}
    return {_name(key): _value(empty, given.get(key)) for key, empty in shape.items()}


def _value(empty: Any, found: Any) -> Value:
    if isinstance(empty, dict):
        return _filled(empty, found)
    if isinstance(empty, list):
        return [_filled(empty[0], item) for item in found] if isinstance(found, list) else None
    if isinstance(empty, float):
        return real(float(found)) if isinstance(found, int | float) else real(empty)
    return empty if found is None else found


def _name(key: str) -> str:
    return _SPELT.get(key) or "".join(part[:1].upper() + part[1:] for part in key.split("_"))
