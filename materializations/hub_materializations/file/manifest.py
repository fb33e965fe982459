"""The manifest of a task's files: what counts of each, the cursor, and the fence.

The hard thing is that it is the only truth. It is replaced by an atomic rename, after everything it
names is durable; `cleaned` cuts the files back to it; and it is changed under a lock, by the holder of
the newest epoch only.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import msgspec

from hub.errors import FatalError
from hub.record import Cursor, TaskName

MANIFESTS = ".hub"
"""The folder below the root that holds one manifest a task."""

NAME_BYTES_MAX = 240
"""What file systems allow for one name is 255; the rest is for the number of the part."""


class Part(msgspec.Struct):
    """How far one path has come. The parts before `number` are complete; `bytes` of this one count.

    `number` is 0 where parts are not numbered, that is without `part_bytes`.
    """

    path: str
    number: int
    bytes: int

    @property
    def name(self) -> str:
        """The file of this part: `a/orders.ndjson`, or `a/orders-000002.ndjson` where parts are numbered."""
        if not self.number:
            return self.path
        folder, slash, name = self.path.rpartition("/")
        stem, dot, endings = name.partition(".") if not name.startswith(".") else (name, "", "")
        return f"{folder}{slash}{stem}-{self.number:06}{dot}{endings}"


class Manifest(msgspec.Struct):
    """What counts, as of the last commit. Stored as JSON in `<root>/.hub/<task>.json`."""

    task: str
    epoch: int
    cursor: Cursor | None
    files: list[Part]
    version: int = 1


class ManifestFile:
    """Where a task's manifest lives: `<root>/.hub/<task>.json`."""

    def __init__(self, root: Path, task: TaskName) -> None:
        self.path = root / MANIFESTS / f"{quote(task, safe='')}.json"

    def read(self) -> Manifest | None:
        """What counts; None before the first `replace`."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Manifest)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise FatalError(f"{self.path} is damaged: {error}; restore it from a backup") from error

    def replace(self, manifest: Manifest) -> None:
        """Make this what counts. Whole or not at all, and durable on return."""
        fresh = self.path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(manifest))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        sync_folder(fresh.parent)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Commits and restores of one task, in all processes of this machine, come one at a time."""
        with self.path.with_suffix(".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def cleaned(root: Path, part: Part) -> bool:
    """Cut off what does not count. False when the part need not stay in the manifest."""
    path = root / part.name
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        # Somebody has taken the file away. Numbers go on, so that none is used twice.
        part.number += bool(part.number and part.bytes)
        part.bytes = 0
        return part.number > 1
    if size < part.bytes:
        raise FatalError(
            f"{path}: {size} bytes, but {part.bytes} were committed; put the file back, or move it away to go "
            "on with a new one"
        )
    if not part.bytes:
        path.unlink()
        sync_folder(path.parent)
        return part.number > 1
    if size > part.bytes:
        with path.open("r+b") as file:
            file.truncate(part.bytes)
            os.fsync(file.fileno())
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def path_fault(path: str) -> str:
    """Why a path, which may come from a document, is not one below the root. Empty when it is."""
    if any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) < 0xE000 for char in path):
        return "holds a control character"
    names = path.split("/")
    if any(name in ("", ".", "..") for name in names):
        return "must be relative, without empty names, `.` and `..`"
    if names[0].lower() == MANIFESTS:
        return f"{MANIFESTS} is the folder of the manifests"
    if any(len(name.encode()) > NAME_BYTES_MAX for name in names):
        return f"a name is longer than {NAME_BYTES_MAX} bytes"
    return ""
