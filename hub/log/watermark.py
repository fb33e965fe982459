"""How far a journal is durable, for readers in other processes: a small file that the writer overwrites.

It is advice, never proof: recovery does not look at it, and a reader that finds it torn or missing goes by what
later frames attest. Overwriting it is also what wakes the readers, where the system can tell them (inotify).
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import NamedTuple

import anyio
from google_crc32c import value as crc_of

_BODY = struct.Struct("<8sQQ")
_CRC = struct.Struct("<I")
_MAGIC = b"hubTAIL\n"
NAME = "tail"

POLL_S = 0.002
"""How often a reader looks where the system cannot wake it."""


class Mark(NamedTuple):
    """The newest durable frame."""

    epoch: int
    seq: int


class WatermarkWriter:
    """Publishes marks. An error is not one of the log: readers then see new frames later."""

    def __init__(self, directory: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(directory / NAME, flags, 0o600)

    def publish(self, epoch: int, seq: int) -> None:
        body = _BODY.pack(_MAGIC, epoch, seq)
        os.pwrite(self._fd, body + _CRC.pack(crc_of(body)), 0)

    def close(self) -> None:
        os.close(self._fd)


def read_mark(directory: Path) -> Mark | None:
    """The mark, or None when there is none that is whole."""
    try:
        data = (directory / NAME).read_bytes()
    except OSError:
        return None
    if len(data) != _BODY.size + _CRC.size:
        return None
    body = data[: _BODY.size]
    if _CRC.unpack_from(data, _BODY.size)[0] != crc_of(body):
        return None
    magic, epoch, seq = _BODY.unpack(body)
    return Mark(epoch, seq) if magic == _MAGIC else None


class Watch:
    """Waits for the next overwriting of a watermark."""

    def __init__(self, directory: Path) -> None:
        self._fd = -1
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
            modify_or_create = 0x002 | 0x100
            if fd >= 0 and libc.inotify_add_watch(fd, os.fsencode(directory), modify_or_create) >= 0:
                self._fd = fd
            elif fd >= 0:
                os.close(fd)
        except (OSError, AttributeError):
            pass  # No inotify on this system: `wait` polls.

    async def wait(self, timeout_s: float = 1.0) -> None:
        """Return when something may have changed, at the latest after a while."""
        if self._fd < 0:
            await anyio.sleep(POLL_S)
            return
        with anyio.move_on_after(timeout_s):
            await anyio.wait_readable(self._fd)
        try:
            os.read(self._fd, 1 << 16)
        except BlockingIOError:
            pass

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
