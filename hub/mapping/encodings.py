"""Bytes as text and back: base64, hex, Ascii85, Z85, with the refusals of Go's decoders."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Final

from hub.mapping.values import EvaluationError

_Z85: Final = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_Z85_VALUES: Final = {char: index for index, char in enumerate(_Z85)}
_STANDARD: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_URL: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_NOT_HEX: Final = re.compile(rb"[^0-9a-fA-F]")


def _z85_encode(data: bytes) -> bytes:
    if len(data) % 4:
        raise EvaluationError("z85: wrongly aligned input data")
    out = bytearray()
    for start in range(0, len(data), 4):
        whole = int.from_bytes(data[start : start + 4], "big")
        out += bytes(_Z85[whole // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return bytes(out)


def _z85_decode(data: bytes) -> bytes:
    if len(data) % 5:
        raise EvaluationError("z85: wrongly aligned input data")
    out = bytearray()
    for start in range(0, len(data), 5):
        whole = 0
        for byte in data[start : start + 5]:
            if byte not in _Z85_VALUES:
                raise EvaluationError(f"z85: invalid input byte: {shown_byte(byte)}")
            whole = whole * 85 + _Z85_VALUES[byte]
        out += (whole & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(out)


def shown_byte(byte: int) -> str:
    """A byte as Go's `%#U` prints it: `U+007A 'z'`."""
    char = chr(byte)
    return f"U+{byte:04X} '{char}'" if char.isprintable() else f"U+{byte:04X}"


def _ascii85_decode(data: bytes) -> bytes:
    out = bytearray()
    group: list[int] = []
    for index, byte in enumerate(data):
        if byte <= 0x20:
            continue
        if byte == 0x7A and not group:
            out += b"\0\0\0\0"
            continue
        if not 0x21 <= byte <= 0x75:
            raise EvaluationError(f"illegal ascii85 data at input byte {index}")
        group.append(byte - 0x21)
        if len(group) == 5:
            out += _from_85(group)
            group = []
    if len(group) == 1:
        raise EvaluationError("illegal ascii85 data at input byte 1")  # of the rest, as Go counts
    if group:
        out += _from_85(group + [84] * (5 - len(group)))[: len(group) - 1]
    return bytes(out)


def _from_85(digits: list[int]) -> bytes:
    whole = 0
    for digit in digits:
        whole = whole * 85 + digit
    return (whole & 0xFFFFFFFF).to_bytes(4, "big")


def _hex_decode(data: bytes) -> bytes:
    bad = _NOT_HEX.search(data)
    if bad is not None:
        raise EvaluationError(f"encoding/hex: invalid byte: {shown_byte(data[bad.start()])}")
    if len(data) % 2:
        raise EvaluationError("unexpected EOF")
    return binascii.unhexlify(data)


def _base64_decoder(alphabet: frozenset[int], *, padded: bool) -> Callable[[bytes], bytes]:
    def decode(data: bytes) -> bytes:
        kept = data.replace(b"\r", b"").replace(b"\n", b"")
        ended = len(kept) if padded else -1
        body = kept
        if padded:
            body = kept.rstrip(b"=")
            ended = len(body)
        # Go looks at whole groups of four first, and of a rest that is too short only at its length.
        for index, byte in enumerate(body[: len(kept) // 4 * 4] if padded else body):
            if byte not in alphabet:
                raise EvaluationError(f"illegal base64 data at input byte {index}")
        rest = len(body) % 4
        if padded:
            signs = len(kept) - ended
            if signs and (rest < 2 or signs > 4 - rest):
                at = ended if rest < 2 else ended + 4 - rest
                raise EvaluationError(f"illegal base64 data at input byte {at}")
            if len(kept) % 4:
                raise EvaluationError("unexpected EOF")
        elif rest == 1:
            raise EvaluationError("illegal base64 data at input byte 0")
        return base64.b64decode(body + b"=" * (-len(body) % 4), b"-_" if alphabet is _URL else b"+/")

    return decode


ENCODERS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "base64": base64.b64encode,
    "base64url": base64.urlsafe_b64encode,
    "base64rawurl": lambda data: base64.urlsafe_b64encode(data).rstrip(b"="),
    "hex": binascii.hexlify,
    "ascii85": base64.a85encode,
    "z85": _z85_encode,
}
DECODERS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "base64": _base64_decoder(_STANDARD, padded=True),
    "base64url": _base64_decoder(_URL, padded=True),
    "base64rawurl": _base64_decoder(_URL, padded=False),
    "hex": _hex_decode,
    "ascii85": _ascii85_decode,
    "z85": _z85_decode,
}
