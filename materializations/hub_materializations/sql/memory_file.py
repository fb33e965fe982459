"""Bytes as a file that a library can open by its path, without touching a disk where the system allows."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def memory_file(data: bytes) -> Iterator[str]:
    """The path of a file that holds `data` as long as the block runs."""
    if not hasattr(os, "memfd_create"):
        with tempfile.NamedTemporaryFile(suffix=".ndjson") as file:
            file.write(data)
            file.flush()
            yield file.name
        return
    number = os.memfd_create("hub")
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(number, rest) :]
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)
