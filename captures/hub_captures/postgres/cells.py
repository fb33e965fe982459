"""Rows as PostgreSQL writes them, taken apart into cells: one at a time, or many at once. Pure.

The hard thing is to get at the values without a step of Python for each. A short column of pgoutput is `t`, its length
in four bytes, its text. With `t` and the upper three bytes replaced by one it is what MessagePack calls bin 8, a null
is then the number 110, and a library takes many rows apart at once: 0.4 µs a row of 11 columns, half of what splitting
and slicing each cell take.

Formats: PostgreSQL manual, section 54.9 (Logical Replication Message Formats, TupleData) and COPY (CSV Format);
github.com/msgpack/msgpack, spec.md.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

NULL_MARK: Final = b"\x03"
"""What COPY writes for null in the snapshot."""
DELIMITER: Final = b"\x02"
QUOTE: Final = b"\x01"

FIRST_COLUMN: Final = 33
"""Where the first column of a message's first tuple begins: after kind, OID, the tuple's kind and its count."""

_TEXT: Final = ord("t")
_SHORT, _BIN_8 = b"t\0\0\0", b"\xc4"
_MIDDLE, _BIN_16 = b"t\0\0", b"\xc5"
_MIDDLE_MAX: Final = 0xFFFF
_ARRAY_32 = b"\xdd"


class Null(enum.Enum):
    """A null, by the kind that stands in place of its text."""

    NULL = ord("n")


class Unchanged(enum.Enum):
    """A value that the server did not send because it has not changed (TOAST)."""

    UNCHANGED = ord("u")


NULL: Final = Null.NULL
UNCHANGED: Final = Unchanged.UNCHANGED

Cell = bytes | Null | Unchanged
"""One column of one row: its text, or why there is none."""


class Cells(NamedTuple):
    """Those of many rows, row after row. `has_nulls` is False when there is surely none."""

    values: Sequence[bytes | Null]
    has_nulls: bool


_ABSENT: Mapping[int, Cell] = {each.value: each for each in (NULL, UNCHANGED)}
_values = msgspec.msgpack.Decoder(list[bytes])
_values_and_nulls = msgspec.msgpack.Decoder(list[bytes | Null])


def cells_of_tuples(messages: Sequence[bytes], width: int) -> Cells | None:
    """The cells of messages that hold one tuple of `width` columns each. None when one is unchanged or very long.

    Text holds no NUL, so `t` and three of them are the beginning of a short column and nothing else; and once those are
    replaced, `t` and two are that of a longer one, as long as none has more than 64 KiB. Whatever else there is makes no
    cell, and the whole is refused.
    """
    packed = _ARRAY_32 + (len(messages) * width).to_bytes(4) + b"".join([b[FIRST_COLUMN:] for b in messages])
    packed = packed.replace(_SHORT, _BIN_8)
    with contextlib.suppress(msgspec.DecodeError):
        return Cells(_values.decode(packed), False)
    if max(map(len, messages)) <= _MIDDLE_MAX:
        with contextlib.suppress(msgspec.DecodeError):
            return Cells(_values_and_nulls.decode(packed.replace(_MIDDLE, _BIN_16)), True)
    return None


def cells_of_copied(rows: Sequence[bytes]) -> Cells:
    """The cells of COPY rows (csv with control characters) that have no quotes."""
    joined = b"".join(rows)
    cells: list[bytes | Null] = list(joined.replace(b"\n", DELIMITER).split(DELIMITER))
    cells.pop()
    has_nulls = NULL_MARK in joined
    return Cells([NULL if cell == NULL_MARK else cell for cell in cells] if has_nulls else cells, has_nulls)


def tuple_cells(message: bytes, start: int) -> tuple[list[Cell], int]:
    """The columns of the tuple whose count stands at `start`, and where it ends."""
    count = message[start] << 8 | message[start + 1]
    at = start + 2
    cells: list[Cell] = []
    for _ in range(count):
        kind = message[at]
        if kind == _TEXT:
            end = at + 5 + int.from_bytes(message[at + 1 : at + 5])
            cells.append(message[at + 5 : end])
            at = end
        else:
            cells.append(_ABSENT[kind])
            at += 1
    return cells, at


def copied_cells(row: bytes) -> list[Cell]:
    """The columns of one COPY row, where some are quoted."""
    cells: list[Cell] = []
    at, end = 0, len(row) - 1
    while True:
        if row[at : at + 1] == QUOTE:
            part = bytearray()
            at += 1
            while True:
                close = row.index(QUOTE, at)
                part += row[at:close]
                at = close + 1
                if row[at : at + 1] != QUOTE:
                    break
                part += QUOTE
                at += 1
            cells.append(bytes(part))
        else:
            stop = row.find(DELIMITER, at)
            stop = end if stop < 0 else stop
            plain = row[at:stop]
            cells.append(NULL if plain == NULL_MARK else plain)
            at = stop
        if at >= end:
            return cells
        at += 1


def text_of(cell: Cell) -> str:
    """The text of a key's column, which is always there."""
    return cell.decode(errors="replace") if isinstance(cell, bytes) else ""
