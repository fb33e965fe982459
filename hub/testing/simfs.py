"""A file system in memory that forgets what was not synced: every legal state after power loss, by seed.

It keeps for each file what is on the disk and what the page cache shows. A write dirties pages of 4 KiB; a sync
copies dirty pages to the disk. Power loss keeps, of each dirty page, nothing, all, or some of its 512-byte
sectors, in any combination; sizes, and names made, moved or removed since the last `sync_dir`, may or may not
have happened. After a failed sync the pages count as clean though they never reached the disk, as on Linux:
they are shown until the power goes, and written only when they are dirtied again.

Faults are planned by the number of the call that meets them, so that a seed is a whole story.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

PAGE = 4096
SECTOR = 512

Fault = Literal["crash", "eio", "enospc", "short"]


class PowerLoss(BaseException):
    """The machine is gone. Not an Exception: no handler of the code under test may see it."""


class _File:
    """What the disk has and what the cache shows. `dirty` are page numbers still to be written."""

    __slots__ = ("cache", "dirty", "disk", "sized")

    def __init__(self) -> None:
        self.disk = bytearray()
        self.cache = bytearray()
        self.dirty: set[int] = set()
        self.sized = False

    def write(self, data: bytes, offset: int) -> None:
        end = offset + len(data)
        if end > len(self.cache):
            self.cache.extend(bytes(end - len(self.cache)))
            self.sized = True
        self.cache[offset:end] = data
        self.dirty.update(range(offset // PAGE, (end + PAGE - 1) // PAGE))

    def resize(self, size: int) -> None:
        if size < len(self.cache):
            del self.cache[size:]
            self.dirty = {page for page in self.dirty if page * PAGE < size}
        else:
            self.cache.extend(bytes(size - len(self.cache)))
        self.sized = True

    def flush(self) -> None:
        self._take_size()
        for page in self.dirty:
            span = slice(page * PAGE, min((page + 1) * PAGE, len(self.cache)))
            self.disk[span] = self.cache[span]
        self.dirty.clear()

    def flush_failed(self, rng: random.Random) -> None:
        """Some pages and the size may have been written; all pages are clean now."""
        if self.sized and rng.random() < 0.5:
            self._take_size()
        for page in self.dirty:
            start, end = page * PAGE, min((page + 1) * PAGE, len(self.cache), len(self.disk))
            if start < end and rng.random() < 0.3:
                self.disk[start:end] = self.cache[start:end]
        self.dirty.clear()

    def lose_power(self, rng: random.Random) -> None:
        if self.sized and rng.random() < 0.5:
            self._take_size()
        mood = rng.random()
        for page in sorted(self.dirty):
            choice = rng.random() if mood < 0.6 else mood
            start, end = page * PAGE, min((page + 1) * PAGE, len(self.cache), len(self.disk))
            if choice < 0.3 or start >= end:
                continue
            for at in range(start, end, SECTOR):
                if choice > 0.75 or rng.random() < 0.5:
                    span = slice(at, min(at + SECTOR, end))
                    self.disk[span] = self.cache[span]
        self.cache = bytearray(self.disk)
        self.dirty.clear()
        self.sized = False

    def _take_size(self) -> None:
        self.sized = False
        size = len(self.cache)
        if size < len(self.disk):
            del self.disk[size:]
        else:
            self.disk.extend(bytes(size - len(self.disk)))


class SimFS:
    """An FS whose disk, cache and faults are at hand. One instance lives through all crashes of a story."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.calls = 0
        self.faults: dict[int, Fault] = {}
        self.room_bytes: int | None = None
        self.trace: list[str] = []
        self._names: dict[Path, _File] = {}
        self._disk_names: dict[Path, _File] = {}
        self._pending: list[_Change] = []
        self._open: dict[int, tuple[_File, Path]] = {}
        self._next_fd = 3

    # The machine

    def lose_power(self) -> None:
        """Come back with what the disk has."""
        names = dict(self._disk_names)
        for change in self._pending:
            if self.rng.random() < 0.5:
                _happen(names, change)
        for file in {id(f): f for f in [*names.values(), *self._names.values()]}.values():
            file.lose_power(self.rng)
        self._names = names
        self._disk_names = dict(names)
        self._pending.clear()
        self.kill()

    def kill(self) -> None:
        """The process is gone, the machine is not: the cache stays."""
        self._open.clear()
        self.faults.clear()

    def plan(self, fault: Fault, calls_from_now: int) -> None:
        self.faults[self.calls + calls_from_now] = fault

    def corrupt(self, path: Path, change: Callable[[bytearray], None]) -> None:
        """Damage a file, on the disk and in the cache."""
        file = self._names[path]
        change(file.cache)
        file.disk = bytearray(file.cache)

    def copy(self) -> SimFS:
        """Another machine with the same disk, and nothing in its cache that is not on it."""
        other = SimFS(0)
        for path, file in self._names.items():
            twin = other._names[path] = _File()
            twin.disk, twin.cache = bytearray(file.cache), bytearray(file.cache)
        other._disk_names = dict(other._names)
        return other

    def files(self) -> dict[Path, bytes]:
        """All files as they are shown now."""
        return {path: bytes(file.cache) for path, file in self._names.items()}

    def _meet(self, call: str, path: Path) -> Fault | None:
        self.calls += 1
        fault = self.faults.pop(self.calls, None)
        if fault == "crash":
            raise PowerLoss
        if fault == "eio":
            raise OSError(errno.EIO, f"{call} failed", str(path))
        return fault

    # The calls

    def open(self, path: Path, *, create: bool = False, write: bool = True) -> int:
        fault = self._meet("open", path)
        if create:
            if path in self._names:
                raise FileExistsError(errno.EEXIST, "exists", str(path))
            if fault == "enospc":
                raise OSError(errno.ENOSPC, "no room", str(path))
            file = self._names[path] = _File()
            self._pending.append(("create", path, None, file))
        elif path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "not found", str(path))
        self._next_fd += 1
        self._open[self._next_fd] = (self._names[path], path)
        return self._next_fd

    def close(self, fd: int) -> None:
        _, path = self._open.pop(fd)
        self._meet("close", path)

    def allocate(self, fd: int, size: int) -> None:
        file, path = self._open[fd]
        if self._meet("allocate", path) == "enospc" or not self._has_room(size):
            raise OSError(errno.ENOSPC, "no room", str(path))
        file.resize(size)

    def pwritev(self, fd: int, buffers: Sequence[bytes], offset: int) -> int:
        file, path = self._open[fd]
        data = b"".join(buffers)
        try:
            fault = self._meet("pwritev", path)
        except (PowerLoss, OSError):
            # Part of it may have reached the cache before it failed.
            file.write(data[: self.rng.randrange(len(data) + 1)], offset)
            raise
        if fault == "enospc":
            file.write(data[: self.rng.randrange(len(data) + 1)], offset)
            raise OSError(errno.ENOSPC, "no room", str(path))
        if fault == "short":
            data = data[: self.rng.randrange(1, len(data) + 1)]
        file.write(data, offset)
        return len(data)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return bytes(self._open[fd][0].cache[offset : offset + size])

    def sync(self, fd: int) -> None:
        file, path = self._open[fd]
        try:
            self._meet("sync", path)
        except OSError:
            file.flush_failed(self.rng)
            raise
        file.flush()

    def fsync(self, fd: int) -> None:
        self.sync(fd)

    def sync_dir(self, path: Path) -> None:
        self._meet("sync_dir", path)
        waiting = self._pending
        self._pending = [change for change in waiting if change[1].parent != path]
        for change in waiting:
            if change[1].parent == path:
                _happen(self._disk_names, change)

    def truncate(self, fd: int, size: int) -> None:
        file, path = self._open[fd]
        self._meet("truncate", path)
        file.resize(size)

    def size(self, fd: int) -> int:
        return len(self._open[fd][0].cache)

    def rename(self, old: Path, new: Path) -> None:
        self._meet("rename", old)
        file = self._names.pop(old)
        self._names[new] = file
        self._pending.append(("rename", old, new, file))

    def unlink(self, path: Path) -> None:
        self._meet("unlink", path)
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "not found", str(path))
        file = self._names.pop(path)
        self._pending.append(("unlink", path, None, file))

    def listdir(self, path: Path) -> Sequence[str]:
        depth = len(path.parts)
        return sorted({found.parts[depth] for found in self._names if path in found.parents})

    def mkdir(self, path: Path) -> None:
        """Directories are always there."""

    def lock(self, path: Path, text: str) -> int:
        self._next_fd += 1
        self._open[self._next_fd] = (_File(), path)
        return self._next_fd

    def free(self, path: Path) -> int:
        return (1 << 40) if self.room_bytes is None else self.room_bytes - self._used()

    def _used(self) -> int:
        return sum(len(file.cache) for file in self._names.values())

    def _has_room(self, size: int) -> bool:
        return self.room_bytes is None or self._used() + size <= self.room_bytes


_Change = tuple[str, Path, Path | None, _File]
"""A name that was made, moved or removed, and may not be on the disk yet."""


def _happen(names: dict[Path, _File], change: _Change) -> None:
    """Let a change of names reach the disk."""
    kind, path, other, file = change
    if kind == "create":
        names[path] = file
    elif kind == "rename":
        assert other is not None
        if names.get(path) is file:
            del names[path]
        names[other] = file
    elif names.get(path) is file:
        del names[path]
