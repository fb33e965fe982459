"""Delimited text to records, with the strictness and the refusals of Go's encoding/csv.

The hard part is where an error is: in bytes of the line as it stands in the text, also for records that
span several lines.
"""

from __future__ import annotations

from hub.mapping.values import EvaluationError, text, utf8

_BARE = 'bare " in non-quoted-field'
_QUOTE = 'extraneous or missing " in quoted-field'


def check_delimiter(delimiter: str) -> None:
    """Refuses a delimiter that is not one character."""
    if len(delimiter) != 1:
        raise EvaluationError("delimiter value must be exactly one character")


def parse_csv(value: str, delimiter: str, *, lazy_quotes: bool) -> list[list[str]]:
    """All records, each with as many fields as the first."""
    if delimiter in '"\r\n\ufffd':
        raise EvaluationError("csv: invalid field or comment delimiter")
    lines = utf8(value).split(b"\n")
    reading = _Reading(lines, utf8(delimiter), lazy_quotes)
    records: list[list[str]] = []
    while (record := reading.record()) is not None:
        if records and len(record) != len(records[0]):
            raise EvaluationError(f"record on line {reading.start}: wrong number of fields")
        records.append(record)
    return records


class _Reading:
    def __init__(self, lines: list[bytes], delimiter: bytes, lazy: bool) -> None:
        self.lines = lines
        self.delimiter = delimiter
        self.lazy = lazy
        self.number = 0
        self.start = 0

    def _line(self) -> bytes | None:
        """The next line with its line feed, if it has one; `\\r\\n` reads as `\\n`."""
        last = self.number == len(self.lines) - 1
        if self.number >= len(self.lines) or (last and not self.lines[-1]):
            return None
        line = self.lines[self.number]
        self.number += 1
        if line.endswith(b"\r"):
            line = line[:-1]
        return line if last else line + b"\n"

    def record(self) -> list[str] | None:
        line = self._line()
        while line == b"\n" or line == b"":
            line = self._line()
        if line is None:
            return None
        self.start = self.number
        fields: list[bytes] = []
        at = 0
        while True:
            if line[at : at + 1] != b'"':
                at, field, ended = self._plain(line, at)
            else:
                line, at, field, ended = self._quoted(line, at)
            fields.append(field)
            if ended:
                return [text(field) for field in fields]

    def _plain(self, line: bytes, at: int) -> tuple[int, bytes, bool]:
        end = line.find(self.delimiter, at)
        field = line[at:end] if end >= 0 else line[at:].removesuffix(b"\n")
        if not self.lazy and b'"' in field:
            raise self._error(at + field.index(b'"'), _BARE)
        return end + len(self.delimiter), field, end < 0

    def _quoted(self, line: bytes, at: int) -> tuple[bytes, int, bytes, bool]:
        out: list[bytes] = []
        at += 1
        while True:
            end = line.find(b'"', at)
            if end >= 0:
                out.append(line[at:end])
                after = line[end + 1 :]
                if after.startswith(b'"'):
                    out.append(b'"')
                    at = end + 2
                elif after.startswith(self.delimiter):
                    return line, end + 1 + len(self.delimiter), b"".join(out), False
                elif after in (b"", b"\n"):
                    return line, 0, b"".join(out), True
                elif self.lazy:
                    out.append(b'"')
                    at = end + 1
                else:
                    raise self._error(end, _QUOTE)
                continue
            out.append(line[at:])
            following = self._line()
            if following is None:
                if not self.lazy:
                    raise self._error(len(line), _QUOTE)
                return line, 0, b"".join(out), True
            line, at = following, 0

    def _error(self, column: int, why: str) -> EvaluationError:
        where = f"parse error on line {self.number}, column {column + 1}: {why}"
        return EvaluationError(
            where if self.number == self.start else f"record on line {self.start}; {where}"
        )
