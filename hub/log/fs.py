"""The file system as the log sees it: some twenty calls, so that a simulated one can take its place.

The hard part is what is *not* promised: a write is durable only after `sync`, a size or a new name only
after `fsync` and `sync_dir`, and after a failed sync nothing is known about what reached the disk.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from hub.errors import ConfigError, FatalError

IOV_MAX = 1024
"""Buffers the kernel takes in one `pwritev`."""

_VOLATILE = {"tmpfs", "ramfs"}
_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre"}


class FS(Protocol):
    """What the log asks of a file system. Errors are `OSError`, as the kernel gives them."""

    def open(self, path: Path, *, create: bool = False, write: bool = True) -> int:
        """A descriptor. `create` makes a new file and fails where one exists."""
        ...

    def close(self, fd: int) -> None: ...

    def allocate(self, fd: int, size: int) -> None:
        """Make the file `size` bytes of zeros whose blocks are reserved."""
        ...

    def pwritev(self, fd: int, buffers: Sequence[bytes], offset: int) -> int:
        """Write what can be written at once; returns how many bytes, maybe fewer than given."""
        ...

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of the file."""
        ...

    def sync(self, fd: int) -> None:
        """`fdatasync`: content and the size needed to read it are durable."""
        ...

    def fsync(self, fd: int) -> None: ...
    def sync_dir(self, path: Path) -> None: ...
    def truncate(self, fd: int, size: int) -> None: ...
    def size(self, fd: int) -> int: ...
    def rename(self, old: Path, new: Path) -> None: ...
    def unlink(self, path: Path) -> None: ...
    def listdir(self, path: Path) -> Sequence[str]: ...
    def mkdir(self, path: Path) -> None:
        """The directory and its parents, readable by their owner only; they may exist already."""
        ...

    def lock(self, path: Path, text: str) -> int:
        """Take the lock of a directory for as long as the descriptor is open, and leave `text` in it."""
        ...

    def free(self, path: Path) -> int:
        """Bytes that can still be written below `path`."""
        ...


class OsFS:
    """The real file system."""

    def open(self, path: Path, *, create: bool = False, write: bool = True) -> int:
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_RDWR if write else os.O_RDONLY)
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        return os.open(path, flags, 0o600)

    def close(self, fd: int) -> None:
        os.close(fd)

    def allocate(self, fd: int, size: int) -> None:
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            os.ftruncate(fd, size)

    def pwritev(self, fd: int, buffers: Sequence[bytes], offset: int) -> int:
        return os.pwritev(fd, buffers[:IOV_MAX], offset)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        data = os.pread(fd, size, offset)
        if len(data) == size or not data:
            return data
        pieces = [data]
        missing = size - len(data)
        while missing and data:
            data = os.pread(fd, missing, offset + size - missing)
            pieces.append(data)
            missing -= len(data)
        return b"".join(pieces)

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def sync_dir(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def listdir(self, path: Path) -> Sequence[str]:
        return [entry.name for entry in path.iterdir()]

    def mkdir(self, path: Path) -> None:
        missing = [p for p in (path, *path.parents) if not p.exists()]
        for directory in reversed(missing):
            directory.mkdir(mode=0o700, exist_ok=True)
            self.sync_dir(directory.parent)

    def lock(self, path: Path, text: str) -> int:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(fd, 200, 0).decode("utf-8", "replace").strip() or "unknown"
            os.close(fd)
            raise FatalError(f"{path}: in use by another hub ({owner}); stop it first") from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, text.encode(), 0)
        return fd

    def free(self, path: Path) -> int:
        stat = os.statvfs(path)
        return stat.f_bavail * stat.f_frsize


def write_all(fs: FS, fd: int, buffers: Sequence[bytes], offset: int) -> int:
    """Write every byte, completing short writes. Returns the number of bytes."""
    total = sum(map(len, buffers))
    left = list(buffers)
    done = 0
    while done < total:
        wrote = fs.pwritev(fd, left, offset + done)
        if wrote <= 0:
            raise OSError(errno.EIO, "write made no progress")
        done += wrote
        while left and wrote >= len(left[0]):
            wrote -= len(left[0])
            del left[0]
        if wrote:
            left[0] = left[0][wrote:]
    return total


def refuse_unsafe(path: Path) -> None:
    """Refuse a directory on a file system where a log cannot keep its word. It must exist.

    Raises ConfigError for memory file systems, which forget, and for network ones, whose locks and syncs
    cannot be relied upon.
    """
    try:
        table = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return  # Not a Linux: nobody tells.
    device = path.stat().st_dev
    kind = filesystem_of(table, os.major(device), os.minor(device))
    if kind in _VOLATILE:
        raise ConfigError(
            f"{path} is on {kind}, which forgets everything at power loss; "
            "choose a disk, or set log.allow_unsafe_filesystem if losing the log is fine"
        )
    if kind in _REMOTE or kind.startswith("fuse"):
        raise ConfigError(
            f"{path} is on {kind}, where locks and syncs cannot be relied upon; "
            "choose a local disk, or set log.allow_unsafe_filesystem"
        )


def filesystem_of(mountinfo: str, major: int, minor: int) -> str:
    """The type of the file system of a device, by the mount table; empty when it is not in there."""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        if left.split()[2] == f"{major}:{minor}":
            return right.split()[0]
    return ""
