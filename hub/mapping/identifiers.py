"""Identifiers that sort by time or by nothing: UUID 7, KSUID, ULID, Snowflake, NanoID.

Pure functions of a time and of random bytes. The formats are those of their specifications: RFC 9562,
segmentio/ksuid, ulid/spec, Twitter's Snowflake with the epoch 2010-11-04, ai/nanoid.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Final

from hub.mapping.values import EvaluationError

_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_NANOID: Final = "_-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_KSUID_EPOCH_S: Final = 1_400_000_000
_SNOWFLAKE_EPOCH_MS: Final = 1_288_834_974_657


def uuid_v7(nanos: int, entropy: bytes) -> str:
    """A UUID 7 of a time in nanoseconds and 10 random bytes."""
    millis = nanos // 1_000_000 & 0xFFFFFFFFFFFF
    # As in the engine, the 12 bits behind the version hold what is left of the millisecond.
    fraction = (nanos % 1_000_000) * 4096 // 1_000_000
    rest = int.from_bytes(entropy[:8], "big") & 0x3FFFFFFFFFFFFFFF
    whole = millis << 80 | 7 << 76 | fraction << 64 | 0b10 << 62 | rest
    return str(uuid.UUID(int=whole))


def ksuid(nanos: int, entropy: bytes) -> str:
    """A KSUID of a time and 16 random bytes."""
    stamp = (nanos // 1_000_000_000 - _KSUID_EPOCH_S) & 0xFFFFFFFF
    return _digits(stamp << 128 | int.from_bytes(entropy, "big"), _BASE62, 27)


def ulid(nanos: int, entropy: bytes, encoding: str) -> str:
    """A ULID of a time and 10 random bytes, in Crockford's base 32 or in hexadecimal digits."""
    whole = (nanos // 1_000_000 & 0xFFFFFFFFFFFF) << 80 | int.from_bytes(entropy, "big")
    return f"{whole:032x}" if encoding == "hex" else _digits(whole, _CROCKFORD, 26)


def _digits(value: int, alphabet: str, width: int) -> str:
    out = []
    for _ in range(width):
        value, digit = divmod(value, len(alphabet))
        out.append(alphabet[digit])
    return "".join(reversed(out))


def nanoid(length: int, alphabet: str | None, entropy: Callable[[int], bytes]) -> str:
    """So many characters of an alphabet, each as likely as the others."""
    if length < 0:
        raise EvaluationError("negative id length")
    chosen = _NANOID if alphabet is None else alphabet
    if not chosen or len(chosen) > 255:
        raise EvaluationError("alphabet must not be empty and contain no more than 255 chars")
    mask = (1 << (len(chosen) - 1).bit_length()) - 1
    out: list[str] = []
    while len(out) < length:
        # Bytes beyond the alphabet are thrown away: the remainder of a division would favour its front.
        wanted = max((length - len(out)) * 2, 16)
        out += [chosen[byte & mask] for byte in entropy(wanted) if byte & mask < len(chosen)]
    return "".join(out[:length])


def snowflake(node: int, now_ns: Callable[[], int]) -> Callable[[], str]:
    """A generator of Snowflake ids: 41 bits of milliseconds, 10 of the node, 12 of a sequence."""
    lock = threading.Lock()
    last = sequence = 0

    def run() -> str:
        nonlocal last, sequence
        with lock:
            millis = max(now_ns() // 1_000_000 - _SNOWFLAKE_EPOCH_MS, last)
            sequence = sequence + 1 & 0xFFF if millis == last else 0
            if millis == last and not sequence:
                # The sequence of this millisecond is used up: borrow the next one.
                millis += 1
            last = millis
            return str(millis << 22 | node << 12 | sequence)

    return run
