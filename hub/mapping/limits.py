"""How much one call of a function or method may produce: hostile mappings must not eat the machine."""

from __future__ import annotations

from typing import Final

from hub.mapping.values import EvaluationError

OUTPUT_BYTES_MAX: Final = 64 << 20
"""Bytes of one string or bytes value made by one call."""

ITEMS_MAX: Final = 1_000_000
"""Items of one array or object made by one call."""

DEPTH_MAX: Final = 512
"""Levels of nesting that parsers accept and walks follow."""


def check_bytes(size: int) -> None:
    """Refuses a string that would be too long, before it is made."""
    if size > OUTPUT_BYTES_MAX:
        raise EvaluationError(
            f"the result would have {size} bytes, more than the limit of {OUTPUT_BYTES_MAX}"
        )


def check_items(count: int) -> None:
    """Refuses an array that would be too long, before it is made."""
    if count > ITEMS_MAX:
        raise EvaluationError(f"the result would have {count} items, more than the limit of {ITEMS_MAX}")


def check_depth(depth: int) -> None:
    """Refuses to go further down a value."""
    if depth > DEPTH_MAX:
        raise EvaluationError(f"the value is nested more than {DEPTH_MAX} levels deep")
