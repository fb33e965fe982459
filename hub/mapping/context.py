"""Everything outside a record that a mapping can reach: clock, randomness, environment, files, log.

One object holds them all, so that a test can pin every one of them and a configuration can forbid
them. A mapping has no other way out; what is `None` here is refused when the mapping is compiled.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub.mapping.values import EvaluationError


@dataclass(slots=True)
class Counters:
    """Named counters that `count()` shares between all mappings of one process."""

    values: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, name: str) -> int:
        """One more than the last answer for this name; the first is 1."""
        with self.lock:
            found = self.values[name] = self.values.get(name, 0) + 1
            return found


@dataclass(slots=True)
class Context:
    """What a mapping may use besides the record. Each `None` forbids what it names.

    `now_ns` is the wall clock in nanoseconds. `entropy(n)` gives n random bytes; `random(seed)` a
    seeded generator. `read_file` takes the path as written. `root` is the folder that `import`,
    `from` and relative files may not leave. `extensions` are values that connectors lend to their
    functions (caches, schema registries), by function name.
    """

    now_ns: Callable[[], int] | None = time.time_ns
    entropy: Callable[[int], bytes] | None = secrets.token_bytes
    random: Callable[[int], random.Random] | None = random.Random
    environment: Mapping[str, str] | None = field(default_factory=lambda: os.environ)
    hostname: Callable[[], str] | None = socket.gethostname
    read_file: Callable[[str], bytes] | None = lambda path: Path(path).read_bytes()
    root: Path | None = None
    counters: Counters = field(default_factory=Counters)
    extensions: Mapping[str, Any] = field(default_factory=dict)

    def require(self, name: str) -> Any:
        """The facility of this name, or an error that says it is forbidden here."""
        found = getattr(self, name)
        if found is None:
            raise EvaluationError(f"{name} is not allowed in this mapping")
        return found


SHARED = Context()
"""The context of mappings that were given none: the real clock, randomness, environment and files."""
