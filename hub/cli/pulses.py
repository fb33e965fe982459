"""Single-row commits whose way from the source into the warehouse is timed.

The warehouse is looked at from inside the hub's process, because a DuckDB file that one process
writes is open to no other.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import psycopg

LOOK_S = 0.002


class Looks:
    """When each pulse was first seen in the warehouse, on the monotonic clock."""

    def __init__(self, warehouse: Path) -> None:
        self._warehouse = warehouse
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._shows_table = False
        self.seen: dict[int, float] = {}

    def look(self) -> int:
        """The newest pulse that the warehouse shows; 0 while it shows none."""
        try:
            if self._connection is None:
                if not self._warehouse.exists():
                    return 0
                self._connection = duckdb.connect(str(self._warehouse))
            row = self._connection.execute("select max(id) from pulse").fetchone()
        except duckdb.Error:
            return 0
        self._shows_table = True
        now = time.monotonic()
        newest = int(row[0]) if row and row[0] is not None else 0
        for pulse in range(newest, 0, -1):
            if pulse in self.seen:
                break
            self.seen[pulse] = now
        return newest

    def ready(self) -> bool:
        """True as soon as the table is there."""
        self.look()
        return self._shows_table

    def wait(self, pulse: int, timeout_s: float) -> bool:
        """Until this pulse is visible."""
        until = time.monotonic() + timeout_s
        while self.look() < pulse:
            if time.monotonic() > until:
                return False
            time.sleep(LOOK_S)
        return True

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Look all the time, in a thread of its own."""
        done = threading.Event()

        def look() -> None:
            while not done.wait(LOOK_S):
                self.look()

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def latencies_s(self, sent: Mapping[int, float]) -> list[float]:
        """From COMMIT's return to the first look that shows the row."""
        return [self.seen[pulse] - at for pulse, at in sent.items() if pulse in self.seen]


class Pulses:
    """Writes pulses. The table is `pulse (id bigint primary key, …)`."""

    def __init__(self, source: psycopg.Connection[Any]) -> None:
        self._source = source
        self.newest = 0
        self.sent: dict[int, float] = {}

    def write(self) -> None:
        self.newest += 1
        self._source.execute("insert into pulse (id) values (%s)", (self.newest,))
        self.sent[self.newest] = time.monotonic()
