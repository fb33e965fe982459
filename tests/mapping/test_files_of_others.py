"""GeoIP databases and Parquet files, written here, looked up and read by mappings."""

from __future__ import annotations

import datetime
import decimal
import ipaddress
import struct
from pathlib import Path
from typing import Any

import duckdb
import pytest

from hub.mapping import EvaluationError, Message, ParseError, compile

# A MaxMind database, after the published format (version 2.0): a binary trie, the records, a map about itself.


class Short(int):
    """An integer of 16 bits."""


class Long(int):
    """An integer of 64 bits."""


def encoded(value: Any) -> bytes:
    if isinstance(value, dict):
        return _control(7, len(value)) + b"".join(encoded(k) + encoded(v) for k, v in value.items())
    if isinstance(value, list):
        return _control(11, len(value)) + b"".join(map(encoded, value))
    if isinstance(value, bool):
        return _control(14, int(value))
    if isinstance(value, float):
        return _control(3, 8) + struct.pack(">d", value)
    if isinstance(value, int):
        data = value.to_bytes((value.bit_length() + 7) // 8, "big")
        return _control({Short: 5, Long: 9}.get(type(value), 6), len(data)) + data
    data = value.encode()
    return _control(2, len(data)) + data


def _control(kind: int, size: int) -> bytes:
    assert size < 285
    length, more = (size, b"") if size < 29 else (29, bytes([size - 29]))
    return (bytes([kind << 5 | length]) if kind < 8 else bytes([length, kind - 7])) + more


def database(kind: str, records: dict[str, Any]) -> bytes:
    """Records by network, all of them IPv6."""
    nodes: list[list[int | None]] = [[None, None]]
    data = b""
    leaves: list[tuple[int, int, int]] = []
    for network, record in records.items():
        net = ipaddress.IPv6Network(network)
        bits = f"{int(net.network_address):0128b}"[: net.prefixlen]
        node = 0
        for bit in bits[:-1]:
            following = nodes[node][int(bit)]
            if following is None:
                following = nodes[node][int(bit)] = len(nodes)
                nodes.append([None, None])
            node = following
        leaves.append((node, int(bits[-1]), len(data)))
        data += encoded(record)
    count = len(nodes)
    for node, side, offset in leaves:
        nodes[node][side] = count + 16 + offset
    tree = b"".join((count if side is None else side).to_bytes(3, "big") for node in nodes for side in node)
    about = {
        "binary_format_major_version": Short(2),
        "binary_format_minor_version": Short(0),
        "build_epoch": Long(1_700_000_000),
        "database_type": kind,
        "description": {"en": "made by a test"},
        "ip_version": Short(6),
        "languages": ["en"],
        "node_count": count,
        "record_size": Short(24),
    }
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + encoded(about)


CITY = {
    "city": {"geoname_id": 2643743, "names": {"en": "London", "de": "London"}},
    "country": {"iso_code": "GB", "geoname_id": 2635167, "names": {"en": "United Kingdom"}},
    "location": {"latitude": 51.5142, "longitude": -0.5, "time_zone": "Europe/London"},
    "subdivisions": [{"iso_code": "ENG", "names": {"en": "England"}}],
}


@pytest.fixture
def city(tmp_path: Path) -> Path:
    path = tmp_path / "city.mmdb"
    path.write_bytes(database("GeoLite2-City", {"::81.2.69.0/120": CITY, "2001:db8::/32": CITY}))
    return path


def looked_up(method: str, path: Path, address: str) -> Any:
    return compile(f'root = this.geoip_{method}("{path}")').query(address)


@pytest.mark.parametrize("address", ["81.2.69.142", "2001:db8::7"])
def test_an_address_has_the_fields_of_its_record_under_the_engine_s_names(city: Path, address: str) -> None:
    found = looked_up("city", city, address)
    assert found["City"] == {"GeoNameID": 2643743, "Names": {"en": "London", "de": "London"}}
    assert found["Country"] == {
        "GeoNameID": 2635167,
        "IsInEuropeanUnion": False,
        "IsoCode": "GB",
        "Names": {"en": "United Kingdom"},
    }
    assert found["Subdivisions"] == [{"GeoNameID": 0, "IsoCode": "ENG", "Names": {"en": "England"}}]
    assert (found["Location"]["Latitude"], found["Location"]["TimeZone"]) == (51.5142, "Europe/London")


def test_what_the_database_does_not_know_is_there_and_empty(city: Path) -> None:
    text = f'root = this.ip.geoip_country("{city}").Country'
    outcome = compile(text).message([Message(b'{"ip":"9.9.9.9"}')])
    assert outcome.content == b'{"GeoNameID":0,"IsInEuropeanUnion":false,"IsoCode":"","Names":null}'
    assert looked_up("city", city, "9.9.9.9")["Subdivisions"] is None
    assert looked_up("city", city, "81.2.69.1")["Postal"] == {"Code": ""}


@pytest.mark.parametrize(
    ("kind", "method", "record", "expected"),
    [
        (
            "GeoLite2-ASN",
            "asn",
            {"autonomous_system_number": 7, "autonomous_system_organization": "Acme"},
            {"AutonomousSystemNumber": 7, "AutonomousSystemOrganization": "Acme"},
        ),
        (
            "GeoIP2-Connection-Type",
            "connection_type",
            {"connection_type": "Cable"},
            {"ConnectionType": "Cable"},
        ),
        ("GeoIP2-Domain", "domain", {"domain": "x.io"}, {"Domain": "x.io"}),
        (
            "GeoIP2-Anonymous-IP",
            "anonymous_ip",
            {"is_anonymous_vpn": True},
            {
                "IsAnonymous": False,
                "IsAnonymousVPN": True,
                "IsHostingProvider": False,
                "IsPublicProxy": False,
                "IsResidentialProxy": False,
                "IsTorExitNode": False,
            },
        ),
        (
            "GeoIP2-ISP",
            "isp",
            {"isp": "Acme", "autonomous_system_number": 7},
            {
                "AutonomousSystemNumber": 7,
                "AutonomousSystemOrganization": "",
                "ISP": "Acme",
                "MobileCountryCode": "",
                "MobileNetworkCode": "",
                "Organization": "",
            },
        ),
    ],
)
def test_every_kind_of_database_has_its_method(
    tmp_path: Path, kind: str, method: str, record: dict[str, Any], expected: dict[str, Any]
) -> None:
    path = tmp_path / "some.mmdb"
    path.write_bytes(database(kind, {"::1.2.3.0/120": record}))
    assert looked_up(method, path, "1.2.3.4") == expected


def test_an_enterprise_database_answers_as_a_city_too(tmp_path: Path) -> None:
    path = tmp_path / "enterprise.mmdb"
    record = CITY | {"traits": {"isp": "Acme", "static_ip_score": 1.5}, "postal": {"confidence": 9}}
    path.write_bytes(database("GeoIP2-Enterprise", {"::1.2.3.0/120": record}))
    found = looked_up("enterprise", path, "1.2.3.4")
    assert (found["Traits"]["ISP"], found["Traits"]["StaticIPScore"]) == ("Acme", 1.5)
    assert found["Postal"] == {"Code": "", "Confidence": 9}
    assert looked_up("city", path, "1.2.3.4")["City"]["Names"]["en"] == "London"


def test_lookups_that_cannot_be_are_refused(city: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="value nope does not appear to be a valid v4 or v6 IP address"):
        looked_up("city", city, "nope")
    with pytest.raises(EvaluationError, match="expected string value, got number"):
        looked_up("city", city, 5)  # type: ignore[arg-type]
    with pytest.raises(ParseError, match="the ASN method does not support the GeoLite2-City database"):
        looked_up("asn", city, "1.2.3.4")
    with pytest.raises(ParseError, match="failed to open GeoIP database"):
        looked_up("city", tmp_path / "missing.mmdb", "1.2.3.4")
    (tmp_path / "broken.mmdb").write_bytes(b"\x00" * 100)
    with pytest.raises(ParseError, match="failed to open GeoIP database"):
        looked_up("city", tmp_path / "broken.mmdb", "1.2.3.4")
    (tmp_path / "other.mmdb").write_bytes(database("My-Own", {"::1.2.3.0/120": {}}))
    with pytest.raises(ParseError, match='reader does not support the "My-Own" database type'):
        looked_up("city", tmp_path / "other.mmdb", "1.2.3.4")


# Parquet


def parquet(path: Path, select: str) -> bytes:
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"COPY ({select}) TO '{path}' (FORMAT parquet)")
    return path.read_bytes()


def rows(data: bytes, arguments: str = "") -> Any:
    return compile(f"root = content().parse_parquet({arguments})").message([Message(data)]).value


def test_the_rows_of_a_parquet_file_are_objects(tmp_path: Path) -> None:
    data = parquet(
        tmp_path / "rows.parquet",
        "SELECT * FROM (VALUES (1, 'a', 1.5::DOUBLE, true, NULL::INTEGER), (2, 'é', -0.25, false, 7)) "
        "t(id, name, score, ok, n)",
    )
    assert rows(data) == [
        {"id": 1, "name": "a", "score": 1.5, "ok": True, "n": None},
        {"id": 2, "name": "é", "score": -0.25, "ok": False, "n": 7},
    ]


def test_nested_columns_times_and_decimals_have_a_json_form(tmp_path: Path) -> None:
    data = parquet(
        tmp_path / "rows.parquet",
        "SELECT [1, 2] AS list, {'a': 'x', 'b': [NULL]} AS inner, TIMESTAMP '2026-01-02 03:04:05.5' AS at, "
        "DATE '2026-01-02' AS day, 12.50::DECIMAL(10, 2) AS price, 'raw'::BLOB AS raw, 9223372036854775807 AS big",
    )
    outcome = compile("root = content().parse_parquet().index(0)").message([Message(data)])
    assert outcome.content == (
        b'{"at":"2026-01-02T03:04:05.5Z","big":9223372036854775807,"day":"2026-01-02","inner":{"a":"x","b":[null]},'
        b'"list":[1,2],"price":12.50,"raw":"cmF3"}'
    )


def test_byte_arrays_are_strings_when_asked_for(tmp_path: Path) -> None:
    data = parquet(tmp_path / "rows.parquet", "SELECT 'raw'::BLOB AS raw")
    assert rows(data) == [{"raw": b"raw"}]
    assert rows(data, "byte_array_as_string: true") == [{"raw": "raw"}]


def test_a_file_without_rows_is_an_empty_array(tmp_path: Path) -> None:
    assert rows(parquet(tmp_path / "rows.parquet", "SELECT 1 AS a WHERE false")) == []


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet at all", b"PAR1" + b"\x00" * 64 + b"PAR1"])
def test_what_is_no_parquet_is_refused(data: bytes) -> None:
    with pytest.raises(EvaluationError, match="failed to read parquet"):
        rows(data)


def test_a_parquet_file_that_lost_a_piece_is_refused(tmp_path: Path) -> None:
    data = parquet(tmp_path / "rows.parquet", "SELECT i AS a, i::VARCHAR AS b FROM range(1000) t(i)")
    for cut in (len(data) // 2, len(data) - 9):
        with pytest.raises(EvaluationError, match="failed to read parquet"):
            rows(data[:cut])


def test_the_document_of_a_row_holds_no_python_objects(tmp_path: Path) -> None:
    data = parquet(
        tmp_path / "rows.parquet",
        "SELECT TIME '01:02:03' AS t, INTERVAL 1 DAY AS i, uuid() AS u, {'k': 1} AS s",
    )
    [row] = rows(data)
    assert not any(
        isinstance(value, datetime.date | datetime.time | datetime.timedelta | decimal.Decimal)
        for value in row.values()
    )
