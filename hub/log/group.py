"""What one commit of the log is about: the frames that go together, and the counters of all of them."""

from __future__ import annotations

import asyncio

import anyio

from hub.log.journal import Frame
from hub.log.transaction import Encoded


class Stats:
    """Counters since open."""

    def __init__(self) -> None:
        self.transactions = 0
        self.records = 0
        self.raw_bytes = 0
        self.stored_bytes = 0
        self.groups = 0
        self.group_s = 0.0
        self.full = 0


class Waiting(Frame):
    """A frame that somebody waits for. `answer` comes when it is durable, or has failed with `error`."""

    __slots__ = ("answer", "error")

    def __init__(self, kind: int, body: Encoded, answer: asyncio.Future[None]) -> None:
        super().__init__(kind, body)
        self.answer = answer
        self.error: Exception | None = None


class Group:
    """The frames that will be committed together, and the event that says that all of them are answered."""

    __slots__ = ("done", "frames")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.frames: list[Waiting] = []

    def answer(self, done: int, error: Exception | None) -> None:
        """Wake who waits, in order: the first `done` frames are durable, the others failed."""
        for frame in self.frames[done:]:
            frame.error = error
        for frame in self.frames:
            # It is done already where whoever waited was cancelled.
            if not frame.answer.done():
                frame.answer.set_result(None)
        self.done.set()
