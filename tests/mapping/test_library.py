"""The library of functions and methods: complete, bounded, without a way out of its context."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import random
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.mapping import Context, EvaluationError, Message, ParseError, compile
from hub.mapping.registry import functions, methods

NAMES = Path(__file__).parents[3] / "shared/conformance/bloblang/names.jsonl"


def run(mapping: str, document: Any = None, **context: Any) -> Any:
    compiled = compile(f"root = {mapping}", context=Context(**context))
    return compiled.query(document)


# Names


def test_every_name_of_the_engines_is_known_with_its_parameters() -> None:
    if not NAMES.exists():
        pytest.skip("the recorded names are not here")
    for line in NAMES.read_text().splitlines():
        entry = json.loads(line)
        table = methods() if entry["kind"] == "method" else functions()
        declared = table[entry["name"]]
        wanted = entry.get("params")
        if wanted is None:
            continue
        if isinstance(wanted, dict):
            assert declared.variadic, entry["name"]
            continue
        assert [param.name for param in declared.params] == [param["name"] for param in wanted], entry["name"]
        for ours, theirs in zip(declared.params, wanted, strict=True):
            assert ours.optional == theirs["optional"], (entry["name"], ours.name)


def test_arguments_may_be_named() -> None:
    assert run('"a-b".replace_all(old: "-", new: "+")') == "a+b"
    assert run("range(start: 0, stop: 3)") == [0, 1, 2]
    with pytest.raises(ParseError, match="missing parameter: new"):
        compile('root = "x".replace_all(old: "a")')


# Bounds


@pytest.mark.parametrize(
    ("mapping", "document"),
    [
        ('"0123456789".repeat(this)', 1 << 40),
        ("range(0, this)", 1 << 40),
        ("bytes(this)", 1 << 40),
        ('"x".repeat(60000000).replace_all("x", this)', "0123456789"),
        ('"x".repeat(700000).re_replace_all("x", this)', "0123456789" * 10),
        ('"%999999[1]d".repeat(80).format(1)', None),
        ("nanoid(this)", 1 << 40),
    ],
    ids=["repeat", "range", "bytes", "replace", "regex", "format", "nanoid"],
)
def test_no_call_makes_more_than_it_may(mapping: str, document: Any) -> None:
    with pytest.raises((EvaluationError, ParseError), match="limit"):
        run(mapping, document)


@pytest.mark.parametrize(
    ("algorithm", "bomb"),
    [
        ("gzip", gzip.compress(bytes(65 << 20))),
        ("zlib", zlib.compress(bytes(65 << 20))),
        ("bzip2", bz2.compress(bytes(65 << 20))),
    ],
    ids=["gzip", "zlib", "bzip2"],
)
def test_an_archive_cannot_expand_beyond_the_limit(algorithm: str, bomb: bytes) -> None:
    document = base64.b64encode(bomb).decode()
    with pytest.raises(EvaluationError, match="limit"):
        run(f'this.decode("base64").decompress("{algorithm}")', document)


def test_deep_values_are_refused_instead_of_breaking_the_stack() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = {"a": deep}
    for method in ("collapse()", "merge({})", "infer_schema()", "format_yaml()"):
        with pytest.raises(EvaluationError):
            run(f"this.merge(this).{method}", deep)


def test_xml_with_a_document_type_is_refused() -> None:
    bomb = '<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><r>&b;</r>'
    with pytest.raises(EvaluationError, match="document types are not allowed"):
        run("this.parse_xml()", bomb)


def test_a_schema_fetches_nothing() -> None:
    with pytest.raises(ParseError, match="json schema definition"):
        compile('root = this.json_schema("""{"$ref":"http://127.0.0.1:9/x"}""")')


# What a mapping may reach


def test_what_the_context_forbids_is_refused_when_parsed() -> None:
    for call, facility in (
        ("now()", "now_ns"),
        ("uuid_v4()", "entropy"),
        ('env("HOME")', "environment"),
        ('file("/etc/passwd")', "read_file"),
        ("hostname()", "hostname"),
        ("random_int()", "random"),
    ):
        with pytest.raises(ParseError, match="not allowed"):
            compile(f"root = {call}", context=Context(**{facility: None}))


def test_clock_randomness_and_environment_come_from_the_context() -> None:
    pinned = Context(
        now_ns=lambda: 1_600_000_000_123_456_789,
        entropy=bytes,
        random=lambda _seed: random.Random(7),
        environment={"A": "x"},
        hostname=lambda: "here",
        read_file=lambda path: path.encode(),
    )
    compiled = compile(
        'root = [now(), timestamp_unix_milli(), uuid_v4(), env("A"), env("B"), hostname(), file("p").string(), '
        "ksuid(), ulid(), nanoid(4), uuid_v7(), random_int(min: 1, max: 9)]",
        context=pinned,
    )
    found = compiled.query(None)
    assert found[:3] == [
        "2020-09-13T12:26:40.123456789Z",
        1_600_000_000_123,
        "00000000-0000-4000-8000-000000000000",
    ]
    assert found[3:7] == ["x", None, "here", "p"]
    assert found[7:11] == compiled.query(None)[7:11]


def test_files_beside_the_configuration_do_not_leave_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x":1.10}')
    context = Context(root=tmp_path)
    assert compile('root = file_rel("a.json").string()', context=context).query(None) == '{"x":1.10}'
    assert compile('root = file_rel_json("a.json").x.string()', context=context).query(None) == "1.10"
    for path in ("../a.json", "/etc/passwd", "b/../../a"):
        with pytest.raises(ParseError, match="leaves the folder"):
            compile(f'root = file_rel("{path}")', context=context)


def test_a_missing_package_is_a_mistake_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from hub.mapping import registry

    declared = methods()["slug"]
    monkeypatch.setitem(registry._METHODS, "slug", replace(declared, missing="anyascii"))
    with pytest.raises(ParseError, match=r"pip install 'hub-etl\[mapping\]'"):
        compile("root = this.slug()")


# Round trips


@given(st.binary(max_size=64))
def test_encodings_read_back(data: bytes) -> None:
    for scheme in ("base64", "base64url", "base64rawurl", "hex", "ascii85"):
        found = methods()["encode"].call(scheme)(data)
        assert methods()["decode"].call(scheme)(found) == data
    padded = data + bytes(-len(data) % 4)
    assert methods()["decode"].call("z85")(methods()["encode"].call("z85")(padded)) == padded


@given(st.binary(max_size=200))
def test_compression_reads_back(data: bytes) -> None:
    for algorithm in ("gzip", "zlib", "flate", "zstd", "snappy", "lz4"):
        packed = methods()["compress"].call(algorithm, -1)(data)
        assert methods()["decompress"].call(algorithm)(packed) == data


@given(st.binary(max_size=64).map(lambda data: data[: len(data) // 16 * 16]))
def test_encryption_reads_back(data: bytes) -> None:
    for scheme, vector in (("ctr", 16), ("cbc", 16), ("ofb", 16), ("gcm", 12)):
        arguments = (scheme, "0123456789abcdef", "v" * vector)
        sealed = methods()["encrypt_aes"].call(*arguments)(data)
        assert methods()["decrypt_aes"].call(*arguments)(sealed) == data


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_escapes_read_back(value: str) -> None:
    for escape in ("html", "url_path", "url_query"):
        found = methods()[f"escape_{escape}"].call(value)
        assert methods()[f"unescape_{escape}"].call(found) == value
    assert methods()["unquote"].call(methods()["quote"].call(value)) == value


def test_tokens_are_checked() -> None:
    token = run('{"sub":"ann"}.sign_jwt_hs256("a")')
    assert run('this.parse_jwt_hs256("a")', token) == {"sub": "ann"}
    with pytest.raises(EvaluationError, match="signature is invalid"):
        run('this.parse_jwt_hs256("b")', token)
    with pytest.raises(EvaluationError, match="incorrect signing method"):
        run('this.parse_jwt_hs512("a")', token)


def test_keys_sign_and_check() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    for name, key in (
        ("rs256", rsa.generate_private_key(65537, 2048)),
        ("es256", ec.generate_private_key(ec.SECP256R1())),
        ("es512", ec.generate_private_key(ec.SECP521R1())),
    ):
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        public = (
            key.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode()
        )
        document = {"private": private, "public": public}
        mapping = f'{{"a":1}}.sign_jwt_{name}(this.private).parse_jwt_{name}(this.public)'
        assert run(mapping, document) == {"a": 1}


def test_a_counter_keeps_its_state_and_wraps() -> None:
    compiled = compile("root = counter(min: 2, max: 3)")
    assert [compiled.query(Message(b"{}")) for _ in range(4)] == [2, 3, 2, 3]
