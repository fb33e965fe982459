"""Records that could not be processed, kept with all that is needed to look at them and to retry.

A dead letter is a document of the collection `dead_letters/<task>`: the document as the failing
component got it, its operation and metadata, the error, the component, and where in the log it was.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from hub.catalog import DEAD_LETTERS
from hub.document import encode
from hub.errors import FatalError, RecordError
from hub.materialization import Binding, Rejected
from hub.record import OPERATIONS, Batch, Cursor
from hub.runtime.events import Events
from hub.runtime.stage import Failure, Outcome, settled

NOTICE_EVERY_S = 10.0
"""How often a task says that records became dead letters."""


class DeadLetterNotice:
    """Says that records of a task became dead letters, at once and then at most every `NOTICE_EVERY_S`."""

    def __init__(self, events: Events, task: str) -> None:
        self._events = events
        self._task = task
        self._told = 0
        self._again_at = 0.0

    def say(self, total: int, reason: str) -> None:
        """`total` of them are kept by now, the last for this reason."""
        now = time.monotonic()
        if now < self._again_at:
            return
        self._events.warning(
            "dead_letters",
            task=self._task,
            records=total - self._told,
            collection=dead_letters_of(self._task),
            reason=reason,
        )
        self._told, self._again_at = total, now + NOTICE_EVERY_S


def dead_letters(task: str, failures: Sequence[Failure], at: tuple[str, Cursor | None]) -> Batch:
    """The failures of one chunk as a batch of the task's dead-letter collection."""
    lines_of: dict[int, list[bytes]] = {}
    texts = []
    for failure in failures:
        batch = failure.batch
        lines = lines_of.setdefault(id(batch), [])
        if not lines:
            lines += batch.lines()
        texts.append(encode(_letter(task, failure, lines[failure.index], at)))
    return Batch.of_lines(dead_letters_of(task), texts)


def dead_letters_of(task: str) -> str:
    """The collection of a task's dead letters."""
    return f"{DEAD_LETTERS}/{task}"


def _letter(task: str, failure: Failure, document: bytes, at: tuple[str, Cursor | None]) -> dict[str, Any]:
    journal, upto = at
    place = upto.journals[journal] if upto is not None else None
    return {
        "task": task,
        "collection": failure.batch.collection,
        "component": failure.component,
        "error": failure.error.reason,
        "operation": OPERATIONS[failure.batch.op(failure.index)],
        "document": document,
        "metadata": failure.batch.metadata(failure.index),
        "log": {"journal": journal, "upto": list(place) if place is not None else None},
    }


def rejected(batch: Batch, refusal: Rejected, binding: Binding, outcome: Outcome) -> Batch:
    """What is left of a batch when the destination has refused some of its records."""
    if not refusal.reasons or not all(0 <= index < batch.count for index in refusal.reasons):
        raise FatalError(f"the sink of {binding.target!r} refused records that it was not given: {refusal}")
    errors = {
        index: RecordError(reason, component=binding.target) for index, reason in refusal.reasons.items()
    }
    return settled(batch.with_errors(errors), binding.options.on_error, binding.target, outcome)
