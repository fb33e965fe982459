"""What can go wrong, told apart by what should happen next.

A caller never asks which library failed: it asks whether to retry, to stop the task, or to set one
record aside. Foreign errors become one of these where the foreign call is made, `from error`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


class HubError(Exception):
    """Root of every error that hub raises on purpose."""


Severity = Literal["error", "warning"]
"""An error keeps everything from starting. A warning is allowed, and surely not meant."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in one file. Lines and columns count from 1; 0 means the file as a whole."""

    file: str
    line: int
    column: int
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        message = self.message if self.severity == "error" else f"{self.severity}: {self.message}"
        if not self.line:
            return f"{self.file}: {message}"
        return f"{self.file}:{self.line}:{self.column}: {message}"


class ConfigError(HubError):
    """The configuration cannot be used. Carries every problem found, nothing has been started."""

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        if isinstance(problems, str):
            problems = [Problem("config", 0, 0, problems)]
        self.problems = sorted(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class TransientError(HubError):
    """May well succeed later. The engine closes the connector and opens it again after a backoff.

    `retry_after_s` is what the peer asked for, if it said so; the engine waits at least that long.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class FatalError(HubError):
    """A person has to act. Stops this task and no other; the message says what to do."""


class Fenced(FatalError):
    """A newer writer has taken over. Nothing this one still holds may be committed."""


class RecordError(HubError):
    """One record cannot be processed. Dead letter, skip or stop, as the binding says."""

    def __init__(self, reason: str, *, component: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.component = component


class LogError(FatalError):
    """The durable log refuses to go on."""


class Corrupt(LogError):
    """Acknowledged data are damaged. Names file, byte and sequence; nothing is served or repaired."""


class Poisoned(LogError):
    """A write or sync failed, so what is on disk is unknown. Only a new open with recovery goes on."""


class Full(TransientError):
    """No room on disk or under the cap. Nothing was written; the same append may be tried again."""
