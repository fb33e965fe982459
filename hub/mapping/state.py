"""What a running mapping sees of the records: documents, raw contents, metadata, errors.

`State` serves a whole batch to the generated function; documents that are no JSON stand in it as
`Unparsed`, and everything but the documents is looked up only when asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hub.document import DocumentError, decode
from hub.errors import RecordError
from hub.mapping.gojson import scalar_text
from hub.mapping.jsonfault import json_fault
from hub.mapping.runtime import STACKS_MAX
from hub.mapping.values import EvaluationError, Value
from hub.record import OPERATIONS, Batch

EMPTY: Final = "message is empty"
NO_PART: Final = "target message part does not exist"


@dataclass(frozen=True, slots=True)
class Message:
    """One record as raw content, for single use: the content need not be JSON."""

    content: bytes = b""
    metadata: Mapping[str, Value] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Unparsed:
    """Stands for a document that is no JSON."""

    why: str


def parsed(content: bytes) -> Any:
    """The document that a message's content is, or why it is none, in the engine's words."""
    try:
        return decode(content)
    except DocumentError as error:
        fault = json_fault(content) if content else EMPTY
        return Unparsed(fault or error.reason)


class State:
    """The records of one run. Indexes may be negative or out of range, as `from` gives them."""

    docs: Sequence[Any]
    count: int

    def column(self, name: str) -> Sequence[Any]:
        """One metadata value of every record."""
        return [self.metadata(index).get(name) for index in range(self.count)]

    def metadata(self, index: int) -> dict[str, Value]:
        """All metadata of a record, in a dictionary of the caller's."""
        raise NotImplementedError

    def content(self, index: int) -> bytes:
        raise NotImplementedError

    def document(self, index: int) -> Any:
        raise NotImplementedError

    def failure(self, index: int) -> RecordError | None:
        raise NotImplementedError

    def place(self, index: int) -> int | None:
        """An index from the front, or None outside of the batch."""
        if index < 0:
            index += self.count
        return index if 0 <= index < self.count else None

    # What generated code calls

    def json(self, index: int) -> Value:
        place = self.place(index)
        if place is None:
            raise EvaluationError(NO_PART)
        found = self.document(place)
        if type(found) is Unparsed:
            raise EvaluationError(NO_PART if found.why == EMPTY else found.why)
        return found

    def metadata_value(self, index: int, key: str) -> Value:
        place = self.place(index)
        found = {} if place is None else self.metadata(place)
        return found.get(key) if key else found

    def metadata_text(self, index: int, key: str) -> Value:
        place = self.place(index)
        return self.text_in({} if place is None else self.metadata(place), key)

    def text_in(self, metadata: Mapping[str, Value], key: str) -> Value:
        if not key:
            return {name: scalar_text(value) for name, value in metadata.items()}
        return (scalar_text(metadata[key]) or None) if key in metadata else None

    def error(self, index: int) -> str | None:
        place = self.place(index)
        found = None if place is None else self.failure(place)
        return None if found is None else str(found)

    def errored(self, index: int) -> bool:
        return self.error(index) is not None

    def error_source(self, index: int, what: str) -> str | None:
        place = self.place(index)
        found = None if place is None else self.failure(place)
        if found is None or not found.component:
            return None
        return found.component if what in ("name", "path") else ""

    def too_deep(self, _error: RecursionError) -> EvaluationError:
        return EvaluationError(
            f"exceeded maximum allowed stacks of {STACKS_MAX}, this could be due to unbounded recursion"
        )

    def broken(self, error: Exception) -> EvaluationError:
        """An exception that is none of the language's: a limit, or a mistake in an implementation."""
        if isinstance(error, StopIteration):
            return EvaluationError("the mapping took too many steps for one record")
        return EvaluationError(f"{type(error).__name__}: {error}")


class Messages(State):
    """Single messages, mapped one at a time."""

    def __init__(self, messages: Sequence[Message], index: int) -> None:
        self.messages = messages
        self.count = len(messages)
        self.documents: dict[int, Any] = {}
        place = self.place(index)
        self.docs = [Unparsed(EMPTY) if place is None else self.document(place)]
        self.first = 0 if place is None else place

    def document(self, index: int) -> Any:
        if index not in self.documents:
            self.documents[index] = parsed(self.messages[index].content)
        return self.documents[index]

    def metadata(self, index: int) -> dict[str, Value]:
        return dict(self.messages[index].metadata) if index < self.count else {}

    def content(self, index: int) -> bytes:
        place = self.place(index)
        return b"" if place is None else self.messages[place].content

    def failure(self, index: int) -> RecordError | None:
        error = self.messages[index].error
        return None if error is None else RecordError(error)


class OneValue(State):
    """A bare value as the context, without a message."""

    def __init__(self, value: Value) -> None:
        self.docs = [value]
        self.count = 0
        self.first = 0

    def metadata(self, index: int) -> dict[str, Value]:
        return {}

    def content(self, index: int) -> bytes:
        return b""

    def failure(self, index: int) -> RecordError | None:
        return None


class Records(State):
    """A whole batch."""

    first = 0

    def __init__(self, batch: Batch, docs: Sequence[Any]) -> None:
        self.batch = batch
        self.docs = docs
        self.count = batch.count
        self._lines: list[bytes] | None = None
        self._shared: dict[str, Value] | None = None

    def column(self, name: str) -> Sequence[Any]:
        batch = self.batch
        if name == "operation":
            if batch.ops is None:
                return ["create"] * batch.count
            return [OPERATIONS.get(op) for op in batch.ops]
        shared = _value(batch.shared.get(name))
        values = batch.columns.get(name)
        if values is None:
            return [shared] * batch.count
        return [shared if value is None else _value(value) for value in values]

    def metadata(self, index: int) -> dict[str, Value]:
        if self._shared is None:
            self._shared = {name: _value(value) for name, value in self.batch.shared.items()}
        found = self._shared.copy()
        for name, values in self.batch.columns.items():
            if (value := values[index]) is not None:
                found[name] = _value(value)
        found["operation"] = OPERATIONS.get(self.batch.op(index))
        return found

    def content(self, index: int) -> bytes:
        place = self.place(index)
        if place is None:
            return b""
        if self._lines is None:
            self._lines = self.batch.lines()
        return self._lines[place]

    def document(self, index: int) -> Any:
        return self.docs[index]

    def failure(self, index: int) -> RecordError | None:
        return (self.batch.errors or {}).get(index)


def _value(found: Any) -> Value:
    """A metadata value; `bytes` there are JSON text that nobody has decoded yet."""
    return decode(found) if type(found) is bytes else found
