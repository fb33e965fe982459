"""What happens, told to people: one structured line an event.

Every text passes through the redactor, which knows the values of all secrets in the configuration,
so that none of them reaches a log through somebody else's error message.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TextIO

import orjson

Level = Literal["info", "warning", "error"]


class Events:
    """Writes events as JSON lines, by default to stderr: stdout belongs to records."""

    def __init__(
        self,
        redact: Callable[[str], str] = lambda text: text,
        *,
        stream: TextIO | None = None,
        quiet: bool = False,
    ) -> None:
        self._redact = redact
        self._stream = stream
        self._quiet = quiet
        self.recent: list[str] = []

    def info(self, event: str, **fields: Any) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write("warning", event, fields)

    def error(self, event: str, *, error: BaseException | None = None, **fields: Any) -> None:
        """`error` is somebody's bug: its traceback is kept, once."""
        if error is not None:
            fields["traceback"] = "".join(traceback.format_exception(error))
        self._write("error", event, fields)

    @contextmanager
    def forwarding(self, logger: str) -> Iterator[None]:
        """Write what a part of the engine logs by a logger of this name as events too."""
        handler = _Forwarding(self)
        logging.getLogger(logger).addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger(logger).removeHandler(handler)

    def _write(self, level: Level, event: str, fields: dict[str, Any]) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        text = orjson.dumps({"ts": stamp, "level": level, "event": event, **fields}, default=str).decode()
        text = self._redact(text)
        self.recent = [*self.recent[-RECENT_EVENTS:], text]
        if not self._quiet:
            print(text, file=self._stream or sys.stderr, flush=True)


class _Forwarding(logging.Handler):
    """Makes events of log records."""

    def __init__(self, events: Events) -> None:
        super().__init__(logging.WARNING)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        self._events.warning(record.name.removeprefix("hub."), message=record.getMessage())


RECENT_EVENTS = 50
"""Events kept in memory for the live view."""
