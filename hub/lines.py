"""JSON lines as bytes: checked on the way in, put in envelopes on the way out, never decoded.

The hard thing is to be sure that each line is exactly one JSON value without paying for its values:
msgspec's `Raw` walks the grammar of a value and builds nothing, which leaves only UTF-8 to check.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from hub.document import encode
from hub.errors import FatalError, RecordError
from hub.record import DELETE, OPERATIONS, TRUNCATE, Batch

_walk = msgspec.json.Decoder(msgspec.Raw).decode
# Of 190-byte lines: split and walk 0.42 µs a line, orjson.loads of each 1.27, of all as one array 0.92.


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no JSON value: which of the records it would be, the byte it begins at, and why."""

    index: int
    byte: int
    reason: str


@dataclass(frozen=True, slots=True)
class Lines:
    """Checked lines. A bad one is still among them, its text as a JSON string, so that it can be kept."""

    ndjson: bytes
    count: int
    bad: Sequence[BadLine] = ()

    def batch(
        self, collection: str, *, where: str, at: int = 0, skip: bool, shared: Mapping[str, Any] | None = None
    ) -> Batch:
        """These lines as a batch. Bad ones are left out with `skip`, else flagged in `Batch.errors`.

        `where` names the source and `at` the byte of it that the lines begin at, for the messages.
        """
        whole = Batch(collection, self.count, ndjson=self.ndjson, shared=shared)
        if not self.bad:
            return whole
        errors = {bad.index: RecordError(located(bad, where, at)) for bad in self.bad}
        if skip:
            return whole.take([index for index in range(self.count) if index not in errors])
        return whole.with_errors(errors)

    def refuse_bad(self, *, where: str, at: int = 0) -> None:
        """Raise a `FatalError` that names the first bad line, if there is one."""
        if self.bad:
            raise FatalError(f"{located(self.bad[0], where, at)} (on_error: stop)")


def located(bad: BadLine, where: str, at: int) -> str:
    """The message of a bad line: where it is, and what is wrong."""
    return f"{where}: line at byte {at + bad.byte}: {bad.reason}"


def check(chunk: bytes) -> Lines:
    """Check whole lines, each ended by a line feed. Blank lines are no records; CRLF becomes LF."""
    lines = chunk.split(b"\n")
    assert not lines[-1], "whole lines only"
    lines.pop()
    try:
        if not chunk.isascii():
            chunk.decode()
        deque(map(_walk, lines), maxlen=0)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _checked_one_by_one(lines)
    # A raw carriage return inside a JSON string is not JSON, so here it can only end a line.
    return Lines(chunk.replace(b"\r\n", b"\n") if b"\r" in chunk else chunk, len(lines))


def _checked_one_by_one(lines: Sequence[bytes]) -> Lines:
    good: list[bytes] = []
    bad: list[BadLine] = []
    byte = 0
    for line in lines:
        text = line.rstrip(b" \t\r")
        if text:
            reason = fault(text)
            if reason:
                bad.append(BadLine(len(good), byte, reason))
                text = encode(text.decode(errors="backslashreplace"))
            good.append(text)
        byte += len(line) + 1
    return Lines(b"".join([text + b"\n" for text in good]), len(good), bad)


def fault(text: bytes) -> str:
    """Why a text is not exactly one JSON value; empty when it is one."""
    try:
        text.decode()
        _walk(text)
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte {error.start} of the line)"
    except msgspec.DecodeError as error:
        found = str(error)
        return (
            "JSON ends too early" if "truncated" in found else found.replace("JSON is malformed", "not JSON")
        )
    except RecursionError:
        return "nested too deeply"
    return ""


def without_removals(batch: Batch) -> dict[int, str]:
    """The records that bare documents cannot express, with the reason, for a sink to refuse."""
    if batch.ops is None or (DELETE not in batch.ops and TRUNCATE not in batch.ops):
        return {}
    return {
        index: f"a line with a bare document cannot say {OPERATIONS[op]!r}; set `envelope: true`, or filter "
        "such records with a mapping"
        for index, op in enumerate(batch.ops)
        if op in (DELETE, TRUNCATE)
    }


def enveloped(batch: Batch) -> bytes:
    """Each record as one line with `collection`, `operation`, `metadata` and `document`, in that order."""
    collection = encode(batch.collection)
    pieces: list[bytes] = []
    for index, line in enumerate(batch.lines()):
        operation = OPERATIONS[batch.op(index)].encode()
        pieces += (
            b'{"collection":' + collection + b',"operation":"' + operation,
            b'","metadata":' + encode(batch.metadata(index)) + b',"document":' + line + b"}\n",
        )
    return b"".join(pieces)
