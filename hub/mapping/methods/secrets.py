"""Passwords compared with their hashes, and JSON Web Tokens."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable
from typing import Any, Final

from hub.document import decode
from hub.errors import RecordError
from hub.mapping.extras import load, needs
from hub.mapping.gojson import compact
from hub.mapping.receivers import as_object, as_string
from hub.mapping.registry import Example, Param, method
from hub.mapping.values import EvaluationError, Value, utf8

_STRINGS: Final = "String Manipulation"
_TOKENS: Final = "JSON Web Tokens"
_HASHED: Final = Param("hashed_secret", "string", doc="The hash to compare with.")


@method(
    "compare_bcrypt",
    category=_STRINGS,
    annotate=False,
    params=[_HASHED],
    doc="True when the string is the secret that a bcrypt hash was made of.",
    examples=[
        Example(
            'root.ok = this.s.compare_bcrypt("$2y$10$Dtnt5NNzVtMCOZONT705tOcS8It6krJX8bEjnDJnwxiFKsz1C.3Ay")',
            (('{"s":"there-are-many-blobs-in-the-sea"}', '{"ok":true}'),),
        )
    ],
    **needs("bcrypt"),
)
def _compare_bcrypt(target: Value, hashed: str) -> bool:
    secret = utf8(as_string(target))
    try:
        found: bool = load("bcrypt", "method compare_bcrypt").checkpw(secret[:72], utf8(hashed))
    except ValueError as error:
        raise EvaluationError(f"invalid bcrypt hash: {error}") from error
    return found


@method(
    "compare_argon2",
    category=_STRINGS,
    annotate=False,
    params=[_HASHED],
    doc="True when the string is the secret that an Argon2 hash was made of.",
    examples=[
        Example(
            'root.ok = this.s.compare_argon2("$argon2id$v=19$m=4096,t=3,p=1$c2FsdHktbWNzYWx0ZmFjZQ$RMUMwgtS32/mbszd+ke4o4Ej1jFpYiUqY6MHWa69X7Y")',
            (('{"s":"will-i-ever-find-love"}', '{"ok":false}'),),
        )
    ],
    **needs("argon2"),
)
def _compare_argon2(target: Value, hashed: str) -> bool:
    argon2 = load("argon2", "method compare_argon2")
    try:
        parameters = argon2.extract_parameters(hashed)
        if parameters.memory_cost > _MEMORY_KIB_MAX or parameters.time_cost > _ROUNDS_MAX:
            raise EvaluationError("the argon2 hash asks for more work than is allowed here")
        found: bool = argon2.PasswordHasher().verify(hashed, utf8(as_string(target)))
    except argon2.exceptions.VerifyMismatchError:
        return False
    except (argon2.exceptions.InvalidHashError, argon2.exceptions.VerificationError) as error:
        raise EvaluationError(f"invalid argon2 hash: {error}") from error
    return found


_MEMORY_KIB_MAX: Final = 1 << 20
_ROUNDS_MAX: Final = 100


def _packed(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _unpacked(part: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise EvaluationError("failed to parse JWT string: token is malformed") from error


class _Signer:
    """Signing and checking by one algorithm: HMAC, RSA or ECDSA over SHA-2."""

    def __init__(self, algorithm: str, secret: str, *, signs: bool) -> None:
        self.bits = int(algorithm[2:])
        self.kind = algorithm[:2]
        self.secret = utf8(secret)
        self.key: Any = None
        if self.kind != "HS":
            self.key = self._load(signs)

    def _load(self, signs: bool) -> Any:
        serialization = load("cryptography.hazmat.primitives.serialization", "signing with keys")
        try:
            if signs:
                return serialization.load_pem_private_key(self.secret, None)
            return serialization.load_pem_public_key(self.secret)
        except (ValueError, TypeError) as error:
            use = "sign" if signs else "check"
            raise EvaluationError(f"failed to parse the key to {use} with: {error}") from error

    def sign(self, data: bytes) -> bytes:
        if self.kind == "HS":
            return hmac.digest(self.secret, data, f"sha{self.bits}")
        hashes = load("cryptography.hazmat.primitives.hashes", "signing with keys")
        digest = getattr(hashes, f"SHA{self.bits}")()
        asymmetric = load("cryptography.hazmat.primitives.asymmetric", "signing with keys")
        if self.kind == "RS":
            signed: bytes = self.key.sign(data, asymmetric.padding.PKCS1v15(), digest)
            return signed
        pair = asymmetric.utils.decode_dss_signature(self.key.sign(data, asymmetric.ec.ECDSA(digest)))
        size = (self.key.key_size + 7) // 8
        return b"".join(number.to_bytes(size, "big") for number in pair)

    def verifies(self, data: bytes, signature: bytes) -> bool:
        if self.kind == "HS":
            return hmac.compare_digest(self.sign(data), signature)
        hashes = load("cryptography.hazmat.primitives.hashes", "checking signatures")
        asymmetric = load("cryptography.hazmat.primitives.asymmetric", "checking signatures")
        invalid = load("cryptography.exceptions", "checking signatures").InvalidSignature
        digest = getattr(hashes, f"SHA{self.bits}")()
        try:
            if self.kind == "RS":
                self.key.verify(signature, data, asymmetric.padding.PKCS1v15(), digest)
            else:
                half = len(signature) // 2
                pair = (int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))
                encoded = asymmetric.utils.encode_dss_signature(*pair)
                self.key.verify(encoded, data, asymmetric.ec.ECDSA(digest))
        except (invalid, ValueError):
            return False
        return True


def _parser(algorithm: str, secret: str) -> Callable[[Value], Value]:
    signer = _Signer(algorithm, secret, signs=False)

    def run(target: Value) -> Value:
        parts = as_string(target).split(".")
        if len(parts) != 3:
            raise EvaluationError(
                "failed to parse JWT string: token is malformed: token contains an invalid number of segments"
            )
        try:
            header, claims = decode(_unpacked(parts[0])), decode(_unpacked(parts[1]))
        except RecordError as error:
            raise EvaluationError(f"failed to parse JWT string: {error.reason}") from error
        if not isinstance(header, dict) or header.get("alg") != algorithm:
            found = header.get("alg") if isinstance(header, dict) else None
            raise EvaluationError(
                f"failed to parse JWT string: token is unverifiable: incorrect signing method: {found}"
            )
        if not signer.verifies(f"{parts[0]}.{parts[1]}".encode(), _unpacked(parts[2])):
            raise EvaluationError(
                "failed to parse JWT string: token signature is invalid: signature is invalid"
            )
        if not isinstance(claims, dict):
            raise EvaluationError("failed to parse JWT string: token is malformed: claims are no object")
        return claims

    return run


def _encoder(algorithm: str, secret: str, headers: Value) -> Callable[[Value], str]:
    signer = _Signer(algorithm, secret, signs=True)
    header = {"alg": algorithm, "typ": "JWT"}
    if headers is not None:
        header = {**as_object(headers), **header}

    def run(target: Value) -> str:
        data = _packed(compact(header)) + b"." + _packed(compact(as_object(target)))
        return (data + b"." + _packed(signer.sign(data))).decode("ascii")

    return run


def _declare(algorithm: str) -> None:
    name = algorithm.lower()
    symmetric = algorithm.startswith("HS")
    parse_example: list[Example] = []
    if symmetric:
        mapping = f'root.c = this.c.sign_jwt_{name}("secret").parse_jwt_{name}("secret")'
        parse_example = [Example(mapping, (('{"c":{"sub":"ann"}}', '{"c":{"sub":"ann"}}'),))]
    extra = {} if symmetric else needs("cryptography")
    secret = "secret" if symmetric else "key, as PEM text"

    @method(
        f"parse_jwt_{name}",
        category=_TOKENS,
        annotate=False,
        params=[
            Param("signing_secret", "string", doc=f"The {'shared' if symmetric else 'public'} {secret}.")
        ],
        prepared=True,
        doc=f"The claims of a JSON Web Token signed with {algorithm}, or an error when its signature is wrong.",
        examples=parse_example,
        **extra,
    )
    def parse(signing_secret: str) -> Callable[[Value], Value]:
        return _parser(algorithm, signing_secret)

    @method(
        f"sign_jwt_{name}",
        category=_TOKENS,
        annotate=False,
        params=[
            Param("signing_secret", "string", doc=f"The {'shared' if symmetric else 'private'} {secret}."),
            Param("headers", "unknown", None, "An object of further headers."),
        ],
        prepared=True,
        pure=not algorithm.startswith("ES"),
        doc=f"A JSON Web Token of an object of claims, signed with {algorithm}.",
        examples=parse_example,
        **extra,
    )
    def sign(signing_secret: str, headers: Value) -> Callable[[Value], str]:
        return _encoder(algorithm, signing_secret, headers)


for _algorithm in ("HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512"):
    _declare(_algorithm)
