"""Rows to JSON lines, by code generated for each relation. Pure.

A generated function walks the tuple of a pgoutput message column by column without a loop, a dict
or a Python value per column, and fills one template. The hard thing is that column names are hostile:
no name ever enters the generated source, they only stand in constants handed to it.

Message formats: PostgreSQL manual, section 54.9 (Logical Replication Message Formats).
Text → JSON costs 1.5 µs a row of 11 columns; the same with a dict and one `orjson.dumps` costs 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any, Final, NamedTuple

import orjson

from hub_captures.postgres.literals import Convert
from hub_captures.postgres.types import NAMESPACE, Codec

NULL_MARK: Final = b"\x03"
"""What COPY writes for null in the snapshot."""
DELIMITER: Final = b"\x02"
QUOTE: Final = b"\x01"
TEMPLATES_MAX: Final = 64
"""Sets of nulls of one relation for which a template is kept; for others it is made each time."""

FIRST_COLUMN: Final = 33
"""Where the first column of a message's first tuple begins: after kind, OID, the tuple's kind and its count."""

_NULL, _TEXT, _UNCHANGED = b"ntu"


class Unchanged:
    """Stands for a value that the server did not send because it has not changed (TOAST)."""

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged()

Add = Callable[[bytes], None]
Cell = bytes | None | Unchanged
"""One column of one row: its text, null, or unchanged."""


class RowColumn(NamedTuple):
    """A column as the decoder needs it."""

    name: str
    codec: Codec


class Decoder:
    """Makes JSON lines of one relation's rows.

    `rows(messages, add, mark)` is the quick way for messages that hold one whole tuple: it adds the line of each, and
    marks its LSN, up to the first that holds an unchanged value, which it returns; None at the end.
    `copied(cells)` is the quick way for the cells of a COPY row. A text that is no UTF-8 stops the one, and the
    other returns None. `document` is the way for any choice of columns. All end in a line feed.
    """

    def __init__(self, columns: Sequence[RowColumn]) -> None:
        self.names = tuple(column.name for column in columns)
        self.count = len(columns)
        self._labels = [orjson.dumps(column.name) + b":" for column in columns]
        self._converts: list[Convert] = [column.codec.function() for column in columns]
        namespace = _namespace(columns, self._labels)
        for name, lines in (
            ("careful", _careful_source(columns)),
            ("rows", _rows_source(columns)),
            ("copied", _copied_source(columns)),
        ):
            exec(_code(name, "\n".join(lines)), namespace)
        self.rows: Callable[[Iterator[bytes], Add, Add], bytes | None] = namespace["rows"]
        self.copied: Callable[[Sequence[bytes]], bytes | None] = namespace["copied"]

    def document(self, cells: Sequence[Cell], indexes: Sequence[int] | None = None) -> bytes:
        """The line of these columns of a row, all by default; unchanged ones are left out."""
        parts = []
        for index in range(self.count) if indexes is None else indexes:
            cell = cells[index]
            if cell is None:
                parts.append(self._labels[index] + b"null")
            elif not isinstance(cell, Unchanged):
                parts.append(self._labels[index] + self._converts[index](cell))
        return b"{" + b",".join(parts) + b"}\n"

    def field(self, name: str, cell: bytes) -> bytes:
        """One field: its label and its JSON."""
        index = self.names.index(name)
        return self._labels[index] + self._converts[index](cell)

    def unchanged(self, cells: Sequence[Cell]) -> list[str]:
        """The names of the columns that were not sent."""
        return [name for name, cell in zip(self.names, cells, strict=True) if cell is UNCHANGED]


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
            cells.append(None if kind == _NULL else UNCHANGED)
            at += 1
    return cells, at


def copied_cells(row: bytes) -> list[bytes | None]:
    """The columns of one COPY row (csv with control characters), where some are quoted."""
    cells: list[bytes | None] = []
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
            cells.append(None if plain == NULL_MARK else plain)
            at = stop
        if at >= end:
            return cells
        at += 1


class _Templates(dict[int, bytes]):
    """The line of a row with a gap for each column, by the set of quoted columns that are null: a bit each."""

    def __init__(self, columns: Sequence[RowColumn], labels: Sequence[bytes]) -> None:
        super().__init__()
        self._labels = [label.replace(b"%", b"%%") for label in labels]
        self._quoted = [column.codec.is_quoted for column in columns]

    def __missing__(self, nulls: int) -> bytes:
        fields = [
            label + (b'"%b"' if is_quoted and not nulls >> index & 1 else b"%b")
            for index, (label, is_quoted) in enumerate(zip(self._labels, self._quoted, strict=True))
        ]
        made = b"{" + b",".join(fields) + b"}\n"
        if len(self) < TEMPLATES_MAX:
            self[nulls] = made
        return made


def _namespace(columns: Sequence[RowColumn], labels: Sequence[bytes]) -> dict[str, Any]:
    namespace: dict[str, Any] = dict(NAMESPACE)
    for column in columns:
        namespace |= column.codec.names
    namespace["TEMPLATES"] = templates = _Templates(columns, labels)
    namespace["TEMPLATE"] = templates[0]
    namespace["SHORT"] = b"t\0\0\0"
    namespace["NULL"] = b"null"
    namespace["NULL_MARK"] = NULL_MARK
    namespace["INT"] = int.from_bytes
    return namespace


_NOT_UTF8 = (" except UnicodeDecodeError:", "  return None")
"""Only a SQL_ASCII database sends such bytes; the careful way replaces them."""


def _rows_source(columns: Sequence[RowColumn]) -> list[str]:
    """Rows whose values are all there and short are split in one go: text holds no NUL, so kind and upper three
    bytes of a short length occur between columns only, and as many of them as there are columns mean that
    none is null, unchanged or long. Not so in the header, where an LSN may hold the same four bytes. A row costs
    1.3 µs that way and 1.75 by the careful one."""
    lines = ["def rows(messages, add, mark):", " try:", "  for b in messages:"]
    lines += [
        f"   parts = b[{FIRST_COLUMN}:].split(SHORT)",
        f"   if len(parts) != {len(columns) + 1}:",
        f"    line = careful(b, {FIRST_COLUMN})",
        "    if line is None: return b",
        "    add(line); mark(b[1:9])",
        "    continue",
        f"   _, {_tuple(len(columns))} = parts",
    ]
    for index, column in enumerate(columns):
        source = column.codec.source
        if source != "v":
            lines.append(f"   v = c{index}[1:]; c{index} = {source}")
    values = [
        f"c{index}[1:]" if column.codec.source == "v" else f"c{index}" for index, column in enumerate(columns)
    ]
    lines.append(f"   add(TEMPLATE % ({''.join([value + ', ' for value in values])})); mark(b[1:9])")
    return [*lines, " except UnicodeDecodeError:", "  return b"]


def _careful_source(columns: Sequence[RowColumn]) -> list[str]:
    lines = ["def careful(b, p):", " nulls = 0", " try:"]
    for index, column in enumerate(columns):
        length = "b[p+4]" if column.codec.is_short else "INT(b[p+1:p+5])"
        lines += [
            f"  if b[p] == {_TEXT}:",
            f"   e = p + 5 + {length}",
            "   v = b[p+5:e]; p = e",
            f"   c{index} = {column.codec.source}",
            f"  elif b[p] == {_NULL}:",
            f"   c{index} = NULL; p += 1" + _noted(index, column),
            "  else:",
            "   return None",
        ]
    return [*lines, f"  return TEMPLATES[nulls] % ({_tuple(len(columns))})", *_NOT_UTF8]


def _copied_source(columns: Sequence[RowColumn]) -> list[str]:
    lines = ["def copied(cells):", " nulls = 0", " try:"]
    if columns:
        lines.append(f"  {_tuple(len(columns))} = cells")
    for index, column in enumerate(columns):
        source = column.codec.source
        lines.append(f"  if c{index} == NULL_MARK: c{index} = NULL" + _noted(index, column))
        if source != "v":
            lines.append(f"  else: v = c{index}; c{index} = {source}")
    return [*lines, f"  return TEMPLATES[nulls] % ({_tuple(len(columns))})", *_NOT_UTF8]


def _noted(index: int, column: RowColumn) -> str:
    return f"; nulls |= {1 << index}" if column.codec.is_quoted else ""


def _tuple(count: int) -> str:
    return "".join(f"c{index}, " for index in range(count))


@lru_cache(maxsize=1024)
def _code(name: str, source: str) -> CodeType:
    """Tables whose columns have the same types share their code, which costs more to make than a small table."""
    return compile(source, f"<{name} of a relation>", "exec")
