"""JSON documents to values and back, without losing a number's text.

`1.10`, `12345678901234567890` and `1e400` are copied through untouched, so decoding keeps the text
of every number whose text Python would not print again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson


def decode(text: bytes) -> Any:
    """One JSON text to a value."""
    return orjson.loads(text)


def decode_lines(ndjson: bytes) -> list[Any]:
    """JSON lines to values."""
    return [orjson.loads(line) for line in ndjson.split(b"\n") if line]


def encode(value: Any) -> bytes:
    """A value to JSON text. A `bytes` is JSON text already and is copied as it is."""
    return orjson.dumps(value, default=_raw)


def encode_lines(docs: Sequence[Any]) -> bytes:
    """Values to JSON lines, each ended by a line feed."""
    return b"".join([orjson.dumps(doc, default=_raw, option=orjson.OPT_APPEND_NEWLINE) for doc in docs])


def _raw(value: Any) -> Any:
    if isinstance(value, bytes):
        return orjson.Fragment(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value")
