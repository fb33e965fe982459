"""Cells of rows to JSON lines, for one set of columns. Pure.

Many rows are made a column at a time, where a column costs a few steps of Python and its values none. A single row is
made by a function generated for it, which walks a pgoutput message without a loop, a dict or a Python value per column
and fills one template. The hard thing is that column names are hostile: no name ever enters the generated source,
they only stand in constants handed to it.

A row of 11 columns, text to JSON: 0.8 µs among a hundred, 1.8 alone, 4 with a dict and one `orjson.dumps`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any, Final, NamedTuple, TypeVar

import orjson

from hub_captures.postgres.cells import (
    FIRST_COLUMN,
    NULL,
    UNCHANGED,
    Cell,
    Cells,
    Null,
    cells_of_copied,
    cells_of_tuples,
)
from hub_captures.postgres.literals import Convert
from hub_captures.postgres.types import NAMESPACE, Codec

FRAMES_MAX: Final = 64
"""Sets of nulls of one relation for which a frame is kept; for others it is made each time."""

PARTS_MAX: Final = 16
"""Tables of the same columns may differ in their identity; for more identities than this it is made each time."""
ROWS_AT_ONCE: Final = 128
"""Rows are made by so many: 1.0 µs each with all that is around it, 1.1 by the 64, whose columns take as many steps, and by
the 600, whose buffers are large."""

_NULL_JSON = b"null"
_TEXT = ord("t")

T = TypeVar("T")


class RowColumn(NamedTuple):
    """A column as the decoder needs it."""

    name: str
    codec: Codec


class Decoder:
    """Makes JSON lines of one relation's rows, each with a line feed at its end.

    `line(message)` is the quick way for a message that holds one whole tuple, `whole` the one for many rows. Text that is
    no UTF-8 and unchanged values are not for them: they return None. `document` is the way for any row and any
    choice of columns.
    """

    def __init__(self, columns: Sequence[RowColumn]) -> None:
        self.names = tuple(column.name for column in columns)
        self.count = len(columns)
        self._columns = tuple(columns)
        self._labels = [orjson.dumps(column.name) + b":" for column in columns]
        self._converts: list[Convert] = [column.codec.function() for column in columns]
        self.line: Callable[[bytes], bytes | None] = _line_of(columns, self._labels)
        self.whole = Lines(columns, range(len(columns)))
        self._parts: dict[tuple[int, ...], Lines] = {}

    def part(self, indexes: tuple[int, ...]) -> Lines:
        """The quick way for these columns of many rows."""
        made = self._parts.get(indexes)
        if made is None:
            made = Lines(self._columns, indexes)
            if len(self._parts) < PARTS_MAX:
                self._parts[indexes] = made
        return made

    def document(self, cells: Sequence[Cell], indexes: Sequence[int] | None = None) -> bytes:
        """The line of these columns of a row, all by default; unchanged ones are left out."""
        parts = []
        for index in range(self.count) if indexes is None else indexes:
            cell = cells[index]
            if cell is NULL:
                parts.append(self._labels[index] + _NULL_JSON)
            elif cell is not UNCHANGED:
                parts.append(self._labels[index] + self._converts[index](cell))
        return b"{" + b",".join(parts) + b"}\n"

    def field(self, name: str, cell: bytes) -> bytes:
        """One field: its label and its JSON."""
        index = self.names.index(name)
        return self._labels[index] + self._converts[index](cell)

    def unchanged(self, cells: Sequence[Cell]) -> list[str]:
        """The names of the columns that were not sent."""
        return [name for name, cell in zip(self.names, cells, strict=True) if cell is UNCHANGED]


class Lines:
    """The lines of many rows, of the columns at `indexes`."""

    def __init__(self, columns: Sequence[RowColumn], indexes: Sequence[int]) -> None:
        self._width = len(columns)
        self._indexes = tuple(indexes)
        chosen = [columns[index] for index in indexes]
        quoted = self._quoted = [column.codec.is_quoted for column in chosen]
        self._converts = [column.codec.for_columns() for column in chosen]
        labels = [orjson.dumps(column.name) + b":" for column in chosen]
        self._frames = _ByNulls(lambda nulls: _repeated(_frame(labels, quoted, nulls)))

    def of_tuples(self, messages: Sequence[bytes]) -> bytes | None:
        """The lines of messages that hold one tuple each. None when one needs a closer look: a value is unchanged, very
        long, or no UTF-8."""
        return self._by_pieces(messages, lambda piece: cells_of_tuples(piece, self._width))

    def of_copied(self, rows: Sequence[bytes]) -> bytes | None:
        """The lines of COPY rows that have no quotes. None when one holds text that is no UTF-8."""
        return self._by_pieces(rows, cells_of_copied)

    def _by_pieces(
        self, rows: Sequence[bytes], cells_of: Callable[[Sequence[bytes]], Cells | None]
    ) -> bytes | None:
        made = []
        for first in range(0, len(rows), ROWS_AT_ONCE):
            piece = rows[first : first + ROWS_AT_ONCE]
            found = cells_of(piece)
            lines = self._of_cells(found, len(piece)) if found is not None else None
            if lines is None:
                return None
            made.append(lines)
        return b"".join(made)

    def _of_cells(self, found: Cells, count: int) -> bytes | None:
        if not self._indexes:
            return b"{}\n" * count
        cells, has_nulls = found
        stride = 2 * len(self._indexes)
        parts: list[Any] = [b""] * (stride * count)
        nulls = 0
        for at, (index, convert) in enumerate(zip(self._indexes, self._converts, strict=True)):
            column = cells[index :: self._width]
            there: Sequence[Any] = [cell for cell in column if cell is not NULL] if has_nulls else column
            try:
                values = convert(there) if convert is not None and there else there
            except UnicodeDecodeError:
                return None
            if len(there) < count:
                nulls |= 1 << at
                values = _with_nulls(column, values, is_quoted=self._quoted[at])
            parts[2 * at + 1 :: stride] = values
        frame = self._frames[nulls]
        parts[::2] = frame.between * count
        parts[0] = frame.first
        parts.append(frame.last)
        return b"".join(parts)


Frame = Sequence[bytes]
"""What stands before the values of a line, and after the last."""


class Repeated(NamedTuple):
    """The frame of lines that follow each other: `between` begins with the end of one and the beginning of the next."""

    first: bytes
    between: list[bytes]
    last: bytes


class _ByNulls(dict[int, T]):
    """What is made for a set of columns that are null, a bit each."""

    def __init__(self, make: Callable[[int], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, nulls: int) -> T:
        made = self._make(nulls)
        if len(self) < FRAMES_MAX:
            self[nulls] = made
        return made


def _frame(labels: Sequence[bytes], quoted: Sequence[bool], nulls: int) -> Frame:
    """The frame of a row in which quoted columns stand without quotes where they are null."""
    frame, before = [], b"{"
    for index, (label, is_quoted) in enumerate(zip(labels, quoted, strict=True)):
        quote = b'"' if is_quoted and not nulls >> index & 1 else b""
        frame.append(before + label + quote)
        before = quote + b","
    return [*frame, (before[:-1] if labels else before) + b"}\n"]


def _repeated(frame: Frame) -> Repeated:
    first, *middle, last = frame
    return Repeated(first, [last + first, *middle], last)


def _template(frame: Frame) -> bytes:
    return b"%b".join([piece.replace(b"%", b"%%") for piece in frame])


def _with_nulls(column: Sequence[bytes | Null], values: Iterable[bytes], *, is_quoted: bool) -> list[bytes]:
    """A column of JSON, from the values of those that are not null."""
    left = iter(values)
    if is_quoted:
        return [_NULL_JSON if cell is NULL else b'"%b"' % next(left) for cell in column]
    return [_NULL_JSON if cell is NULL else next(left) for cell in column]


def _line_of(columns: Sequence[RowColumn], labels: Sequence[bytes]) -> Callable[[bytes], bytes | None]:
    """A function for the line of one message, None when it holds an unchanged value or text that is no UTF-8, which only
    a SQL_ASCII database sends."""
    quoted = [column.codec.is_quoted for column in columns]
    namespace: dict[str, Any] = dict(NAMESPACE)
    for column in columns:
        namespace |= column.codec.names
    namespace["TEMPLATES"] = _ByNulls(lambda nulls: _template(_frame(labels, quoted, nulls)))
    namespace["NULL"] = _NULL_JSON
    namespace["INT"] = int.from_bytes
    exec(_code("\n".join(_source(columns))), namespace)
    made: Callable[[bytes], bytes | None] = namespace["line"]
    return made


def _source(columns: Sequence[RowColumn]) -> list[str]:
    lines = ["def line(b):", f" nulls, p = 0, {FIRST_COLUMN}", " try:"]
    for index, column in enumerate(columns):
        length = "b[p+4]" if column.codec.is_short else "INT(b[p+1:p+5])"
        is_noted = f"; nulls |= {1 << index}" if column.codec.is_quoted else ""
        lines += [
            f"  if b[p] == {_TEXT}:",
            f"   e = p + 5 + {length}",
            "   v = b[p+5:e]; p = e",
            f"   c{index} = {column.codec.source}",
            f"  elif b[p] == {NULL.value}:",
            f"   c{index} = NULL; p += 1{is_noted}",
            "  else:",
            "   return None",
        ]
    values = "".join([f"c{index}, " for index in range(len(columns))])
    return [*lines, f"  return TEMPLATES[nulls] % ({values})", " except UnicodeDecodeError:", "  return None"]


@lru_cache(maxsize=1024)
def _code(source: str) -> CodeType:
    """Tables whose columns have the same types share their code, which costs more to make than a small table."""
    return compile(source, "<line of a relation>", "exec")
