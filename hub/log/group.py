"""What one commit of the log is about: the frames that go together, and the counters of all of them."""

from __future__ import annotations

import anyio

from hub.log.journal import Frame


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


class Group:
    """The frames that will be committed together, and the event that ends the wait for them."""

    __slots__ = ("done", "frames")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.frames: list[Frame] = []
