"""Rows as CSV text, written by a JSON encoder.

A JSON array without its brackets is almost a line of CSV with the quote `"`, the escape `\\` and the
unquoted word `null` for NULL: strings are quoted (so that an empty string and the text `null` stay
what they are), numbers are not. What is left are the escapes of control characters, which CSV has not:
they are put back as the characters they stand for, in the few batches that hold any.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

_ENCODER = msgspec.json.Encoder(decimal_format="string")
_ESCAPE = re.compile(rb'\\(?:(["\\])|([bfnrt])|u00([0-9a-f]{2}))', re.IGNORECASE)
_CONTROL = re.compile(rb"\\[bfnrtu]")
_CHARACTERS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def csv_text(rows: Sequence[tuple[Any, ...]]) -> bytes:
    """The rows, each ended by a line feed. Cells are None, str, int, float, bool or Decimal."""
    if not rows:
        return b""
    lines = _ENCODER.encode_lines(rows if isinstance(rows, list) else list(rows))
    text = lines[1:-2].replace(b"]\n[", b"\n") + b"\n"
    return _ESCAPE.sub(_plain, text) if _CONTROL.search(text) else text


def _plain(match: re.Match[bytes]) -> bytes:
    quoted, letter, code = match.groups()
    if quoted:
        return match[0]
    return _CHARACTERS[letter] if letter else bytes([int(code, 16)])
