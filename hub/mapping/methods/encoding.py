"""Encoding, hashing, compression and encryption."""

from __future__ import annotations

import hashlib
import hmac
import uuid
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from hub.mapping.compression import COMPRESSORS, DECOMPRESSORS
from hub.mapping.encodings import DECODERS, ENCODERS
from hub.mapping.extras import load, needs
from hub.mapping.limits import check_bytes
from hub.mapping.receivers import as_bytes, as_data
from hub.mapping.registry import Example, Param, method
from hub.mapping.values import EvaluationError, Value, go_quote, text, utf8

CATEGORY: Final = "Encoding and Encryption"
_SCHEMES: Final = "`base64`, `base64url`, `base64rawurl`, `hex`, `ascii85` or `z85`"


@method(
    "encode",
    category=CATEGORY,
    params=[Param("scheme", "string", doc=f"One of {_SCHEMES}.")],
    prepared=True,
    doc="The bytes of a string written as text.",
    examples=[Example('root.v = this.v.encode("hex")', (('{"v":"hi"}', '{"v":"6869"}'),))],
)
def _encode(scheme: str) -> Callable[[Value], str]:
    encoder = ENCODERS.get(scheme)
    if encoder is None:
        raise EvaluationError(f"unrecognized encoding type: {scheme}")
    return lambda target: encoder(as_data(target)).decode("ascii")


@method(
    "decode",
    category=CATEGORY,
    params=[Param("scheme", "string", doc=f"One of {_SCHEMES}.")],
    prepared=True,
    doc="The bytes that a text stands for.",
    examples=[Example('root.v = this.v.decode("base64").string()', (('{"v":"aGk="}', '{"v":"hi"}'),))],
)
def _decode(scheme: str) -> Callable[[Value], bytes]:
    decoder = DECODERS.get(scheme)
    if decoder is None:
        raise EvaluationError(f"unrecognized encoding type: {scheme}")
    return lambda target: decoder(as_data(target))


_POLYNOMIALS: Final = {"IEEE": 0xEDB88320, "Castagnoli": 0x82F63B78, "Koopman": 0xEB31D82E}


@lru_cache(maxsize=4)
def _crc_table(polynomial: int) -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (polynomial if value & 1 else 0)
        table.append(value)
    return tuple(table)


def _crc32(data: bytes, polynomial: str) -> bytes:
    if polynomial == "IEEE":
        return zlib.crc32(data).to_bytes(4, "big")
    reversed_polynomial = _POLYNOMIALS.get(polynomial)
    if reversed_polynomial is None:
        raise EvaluationError(f"unsupported crc32 hash key {go_quote(polynomial)}")
    table = _crc_table(reversed_polynomial)
    value = 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return (value ^ 0xFFFFFFFF).to_bytes(4, "big")


def _fnv32(data: bytes) -> bytes:
    """FNV-1, 32 bits, in decimal digits."""
    value = 0x811C9DC5
    for byte in data:
        value = (value * 0x01000193 & 0xFFFFFFFF) ^ byte
    return str(value).encode()


def _digest(name: str) -> Callable[[bytes], bytes]:
    return lambda data: hashlib.new(name, data, usedforsecurity=False).digest()


def _xxhash64() -> Callable[[bytes], bytes]:
    hasher = load("xxhash", "hash algorithm xxhash64").xxh64_intdigest
    return lambda data: str(hasher(data)).encode()


@method(
    "hash",
    category=CATEGORY,
    params=[
        Param(
            "algorithm",
            "string",
            doc="`sha256`, `sha512`, `sha3_256`, `sha3_512`, `sha1`, `md5`, `crc32`, `fnv32`, `xxhash64`, `hmac_sha1`, `hmac_sha256` or `hmac_sha512`.",
        ),
        Param("key", "string", None, "The key of an HMAC."),
        Param(
            "polynomial", "string", "IEEE", "The polynomial of `crc32`: `IEEE`, `Castagnoli` or `Koopman`."
        ),
    ],
    prepared=True,
    doc='The hash of a string or of bytes, as bytes: put `.encode("hex")` behind it for text. '
    "`xxhash64` and `fnv32` answer with decimal digits.",
    examples=[
        Example(
            'root.h = this.v.hash("md5").encode("hex")',
            (('{"v":"hi"}', '{"h":"49f68a5c8493ec2c0bf489821c21fc3b"}'),),
        ),
        Example(
            'root.h = this.v.hash("hmac_sha256", "key").encode("hex").slice(0, 8)',
            (('{"v":"hi"}', '{"h":"1c9dc82e"}'),),
        ),
    ],
)
def _hash(algorithm: str, key: str | None, polynomial: str) -> Callable[[Value], bytes]:
    hasher = _hasher(_ALIASES.get(algorithm, algorithm), algorithm, key, polynomial)
    return lambda target: hasher(as_data(target))


_ALIASES: Final = {"hmac-sha1": "hmac_sha1", "hmac-sha256": "hmac_sha256", "hmac-sha512": "hmac_sha512"}


def _hasher(name: str, given: str, key: str | None, polynomial: str) -> Callable[[bytes], bytes]:
    match name:
        case "sha1" | "sha256" | "sha512" | "sha3_256" | "sha3_512" | "md5":
            return _digest(name)
        case "hmac_sha1" | "hmac_sha256" | "hmac_sha512":
            if key is None:
                raise EvaluationError(f"hash algorithm {given} requires a key argument")
            secret, digest = utf8(key), name[5:]
            return lambda data: hmac.digest(secret, data, digest)
        case "xxhash64":
            return _xxhash64()
        case "crc32":
            return lambda data: _crc32(data, polynomial)
        case "fnv32":
            return _fnv32
    raise EvaluationError(f"unrecognized hash type: {given}")


@method(
    "compress",
    category=CATEGORY,
    annotate=False,
    params=[
        Param("algorithm", "string", doc=f"One of {', '.join(f'`{name}`' for name in COMPRESSORS)}."),
        Param("level", "integer", -1, "How hard to try, from 0 to 9, where the algorithm has levels."),
    ],
    prepared=True,
    doc="The bytes of a string, compressed.",
    examples=[
        Example(
            'root.v = this.v.compress("gzip").decompress("gzip").string()', (('{"v":"hi"}', '{"v":"hi"}'),)
        )
    ],
)
def _compress(algorithm: str, level: int) -> Callable[[Value], bytes]:
    compressor = COMPRESSORS.get(algorithm)
    if compressor is None:
        raise EvaluationError(f"compression type not recognised: {algorithm}")
    return lambda target: compressor(as_bytes(target), level)


@method(
    "decompress",
    category=CATEGORY,
    annotate=False,
    params=[Param("algorithm", "string", doc=f"One of {', '.join(f'`{name}`' for name in DECOMPRESSORS)}.")],
    prepared=True,
    doc="The bytes that were compressed.",
    examples=[
        Example(
            'root.v = this.v.decode("base64").decompress("zlib").string()',
            (('{"v":"eNrLyAQAATsA0g=="}', '{"v":"hi"}'),),
        )
    ],
)
def _decompress(algorithm: str) -> Callable[[Value], bytes]:
    decompressor = DECOMPRESSORS.get(algorithm)
    if decompressor is None:
        raise EvaluationError(f"compression type not recognised: {algorithm}")
    return lambda target: decompressor(as_bytes(target))


_AES_PARAMS: Final = (
    Param("scheme", "string", doc="`ctr`, `gcm`, `ofb` or `cbc`."),
    Param("key", "string", doc="The key: 16, 24 or 32 bytes."),
    Param("iv", "string", doc="The initialisation vector: 16 bytes, for `gcm` 12."),
)


class _Aes:
    """AES in one mode with one key and vector."""

    def __init__(self, scheme: str, key: bytes, vector: bytes, action: str) -> None:
        if len(key) not in (16, 24, 32):
            raise EvaluationError(f"crypto/aes: invalid key size {len(key)}")
        if scheme not in ("ctr", "gcm", "ofb", "cbc"):
            raise EvaluationError(f"unrecognized {action} type: {scheme}")
        if scheme != "gcm" and len(vector) != 16:
            raise EvaluationError("the key must match the initialisation vector size")
        if scheme == "gcm" and len(vector) != 12:
            raise EvaluationError(f"the initialisation vector of gcm must have 12 bytes, got {len(vector)}")
        ciphers = load("cryptography.hazmat.primitives.ciphers", "AES encryption")
        self.aead: Any = load("cryptography.hazmat.primitives.ciphers.aead", "AES encryption")
        self.scheme, self.key, self.vector = scheme, key, vector
        modes = ciphers.modes
        mode = {"ctr": modes.CTR, "cbc": modes.CBC}.get(scheme)
        self.cipher: Any = ciphers.Cipher(
            ciphers.algorithms.AES(key),
            modes.ECB() if mode is None else mode(vector),
        )

    def encrypt(self, data: bytes) -> bytes:
        if self.scheme == "gcm":
            sealed: bytes = self.aead.AESGCM(self.key).encrypt(self.vector, data, None)
            return sealed
        if self.scheme == "cbc" and len(data) % 16:
            raise EvaluationError("plaintext is not a multiple of the block size")
        return self._ofb(data) if self.scheme == "ofb" else self._run(self.cipher.encryptor(), data)

    def decrypt(self, data: bytes) -> bytes:
        if self.scheme == "gcm":
            invalid = load("cryptography.exceptions", "AES decryption").InvalidTag
            try:
                opened: bytes = self.aead.AESGCM(self.key).decrypt(self.vector, data, None)
            except invalid as error:
                raise EvaluationError(
                    "gcm decrypting failed: cipher: message authentication failed"
                ) from error
            return opened
        if self.scheme == "cbc" and len(data) % 16:
            raise EvaluationError("ciphertext is not a multiple of the block size")
        return self._ofb(data) if self.scheme == "ofb" else self._run(self.cipher.decryptor(), data)

    def _run(self, stream: Any, data: bytes) -> bytes:
        done: bytes = stream.update(data) + stream.finalize()
        return done

    def _ofb(self, data: bytes) -> bytes:
        """The key stream of output feedback: each block is the encryption of the one before it."""
        stream = self.cipher.encryptor()
        block, keys = self.vector, bytearray()
        while len(keys) < len(data):
            block = stream.update(block)
            keys += block
        return bytes(a ^ b for a, b in zip(data, keys, strict=False))


@method(
    "encrypt_aes",
    category=CATEGORY,
    params=_AES_PARAMS,
    prepared=True,
    doc="The bytes of a string encrypted with AES. `cbc` does not pad: the text must be a multiple of 16 bytes.",
    examples=[
        Example(
            'root.v = this.v.encrypt_aes("ctr", "0123456789abcdef", "0123456789abcdef").encode("hex")',
            (('{"v":"hello"}', '{"v":"1a1712e471"}'),),
        )
    ],
    **needs("cryptography"),
)
def _encrypt(scheme: str, key: str, iv: str) -> Callable[[Value], str]:
    aes = _Aes(scheme, utf8(key), utf8(iv), "encryption")

    def run(target: Value) -> str:
        data = as_data(target)
        check_bytes(len(data))
        return text(aes.encrypt(data))

    return run


@method(
    "decrypt_aes",
    category=CATEGORY,
    params=_AES_PARAMS,
    prepared=True,
    doc="The bytes that were encrypted with AES.",
    examples=[
        Example(
            'root.v = this.v.decode("hex").decrypt_aes("ctr", "0123456789abcdef", "0123456789abcdef").string()',
            (('{"v":"1a1712e471"}', '{"v":"hello"}'),),
        )
    ],
    **needs("cryptography"),
)
def _decrypt(scheme: str, key: str, iv: str) -> Callable[[Value], bytes]:
    aes = _Aes(scheme, utf8(key), utf8(iv), "decryption")
    return lambda target: aes.decrypt(as_data(target))


_NAMESPACES: Final = {
    "dns": uuid.NAMESPACE_DNS,
    "url": uuid.NAMESPACE_URL,
    "oid": uuid.NAMESPACE_OID,
    "x500": uuid.NAMESPACE_X500,
}


@method(
    "uuid_v5",
    category=CATEGORY,
    params=[
        Param(
            "ns",
            "string",
            None,
            "The namespace: `dns`, `url`, `oid`, `x500` or a UUID; the nil UUID by default.",
        )
    ],
    doc="The UUID of version 5 for a name in a namespace: the same name always gives the same UUID. Null stays null.",
    examples=[
        Example(
            'root.id = this.v.uuid_v5("dns")',
            (('{"v":"example.com"}', '{"id":"cfbff0d1-9375-5685-968c-48ce8b15ae17"}'),),
        )
    ],
)
def _uuid_v5(target: Value, ns: str | None) -> str | None:
    if target is None:
        return None
    space = uuid.UUID(int=0) if ns is None else _NAMESPACES.get(ns.lower())
    if space is None:
        try:
            space = uuid.UUID(ns)
        except ValueError as error:
            raise EvaluationError(f"invalid ns uuid: {go_quote(ns or '')}") from error
    digest = hashlib.sha1(space.bytes + as_data(target), usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))
