"""Append records to files of JSON lines, exactly once.

The hard thing is that a file system has no transactions. The manifest stands in for one: a small file,
replaced by an atomic rename, that holds the cursor, the fence epoch and how many bytes of each file
count. What lies beyond those bytes is what a crash left, and the next `restore` cuts it off. So a reader
sees whole commits by reading as far as the manifest says, and, but for the moment between a crash and
the restart, by simply reading the files. A manifest never names more than it has made durable:

    intent:  new files enter the manifest with 0 bytes, so that a crash leaves nothing unknown
    append:  the staged lines go behind the bytes that count; the files are synced
    commit:  the manifest with the new lengths and the cursor takes the place of the old one

All three happen under a lock and only while the manifest still holds our epoch; a writer that was
overtaken finds a newer one there and touches nothing.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import anyio
import zstandard
from msgspec import Meta

from hub.capture import Finding
from hub.errors import FatalError, Fenced, TransientError
from hub.lines import enveloped, without_removals
from hub.materialization import Binding, BindingSpec, Materialization, Rejected
from hub.options import Interpolated, Size
from hub.record import Batch, Cursor, TaskName
from hub.schema import CollectionSchema
from hub_materializations.file.manifest import (
    MANIFESTS,
    Manifest,
    ManifestFile,
    Part,
    cleaned,
    path_fault,
    sync_folder,
)
from hub_materializations.file.staging import Staging

Compression = Literal["none", "gzip", "zstd"]

TRANSIENT = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
"""What may pass without anybody touching the folder's names or modes."""

FILES_MAX = 10_000
"""Files that one task may write. The manifest names each, and is written with each commit."""


class FileBinding(BindingSpec, frozen=True, kw_only=True):
    """Which collections go to which file."""

    path: Annotated[
        Interpolated,
        Meta(
            description="The file, relative to `root`, such as `orders.ndjson` or `${! @table }.ndjson`. "
            "Empty: the name of the collection.",
            examples=["orders.ndjson"],
        ),
    ] = Interpolated("")
    envelope: Annotated[
        bool,
        Meta(
            description="Write `collection`, `operation`, `metadata` and `document` of a record instead of the "
            "bare document. Without it deletes and truncates are refused, since a bare document cannot say so."
        ),
    ] = False

    @property
    def target(self) -> Interpolated | None:
        return self.path or None


class FileMaterialization(Materialization, frozen=True, kw_only=True):
    """Records as JSON lines in files, each record exactly once. Files only grow.

    What counts of each file is in `<root>/.hub/<task>.json`: its `bytes`, the number of the last part, and the
    cursor. A reader that goes by it sees whole commits at any moment. One that reads the files as they are sees
    the same, but for what a crash may have left behind the last commit until the next start.
    """

    binding_type: ClassVar[type[BindingSpec]] = FileBinding
    delivery = "exactly once"

    root: Annotated[str, Meta(description="The folder of all files. It is made when missing.", min_length=1)]
    compression: Annotated[
        Compression,
        Meta(description="Each commit is one gzip member or zstd frame; readers take them as one file."),
    ] = "none"
    part_bytes: Annotated[
        Size | None,
        Meta(description="Go on in a new numbered file, `orders-000002.ndjson`, once one has this size."),
    ] = None

    async def check(self, task: TaskName) -> Sequence[Finding]:
        return [await anyio.to_thread.run_sync(writable, Path(self.root))]

    @asynccontextmanager
    async def open(self, task: TaskName) -> AsyncIterator[FileSink]:
        sink = FileSink(self, task)
        try:
            yield sink
        finally:
            sink.close()


class FileSink:
    """See `hub.materialization.Sink`."""

    def __init__(self, options: FileMaterialization, task: TaskName) -> None:
        self._options = options
        self._root = Path(options.root).absolute()
        self._file = ManifestFile(self._root, task)
        self._manifest = Manifest(task, 0, None, [])
        self._parts: dict[str, Part] = {}
        self._staging = Staging(self._root / MANIFESTS)
        self._paths: set[str] = set()
        self._folders: set[str] = set()

    async def restore(self) -> Cursor | None:
        return await anyio.to_thread.run_sync(self._restore)

    async def describe(self, binding: Binding, schema: CollectionSchema) -> None:
        pass

    async def write(self, binding: Binding, batch: Batch) -> None:
        options = binding.options
        assert isinstance(options, FileBinding)
        target = binding.target or default_path(binding.collection, self._options.compression)
        if target not in self._paths and (fault := self._path_fault(target)):
            raise Rejected(dict.fromkeys(range(batch.count), f"path {target!r}: {fault}"))
        if not options.envelope and (refused := without_removals(batch)):
            raise Rejected(refused)
        self._staging.add(target, enveloped(batch) if options.envelope else batch.ndjson)
        if self._staging.is_full:
            await anyio.to_thread.run_sync(self._spill)

    async def commit(self, upto: Cursor) -> None:
        await anyio.to_thread.run_sync(self._commit, upto)

    def _path_fault(self, path: str) -> str:
        """Why this new path cannot be written; empty, and the path is known, when it can."""
        if fault := path_fault(path):
            return fault
        folders = list(accumulate(path.split("/")[:-1], "{}/{}".format))
        if path in self._folders or any(folder in self._paths for folder in folders):
            return "is a file and a folder at once"
        self._paths.add(path)
        self._folders.update(folders)
        return ""

    def close(self) -> None:
        """Forget what was not committed."""
        self._staging.clear()

    def _restore(self) -> Cursor | None:
        with mapped(self._root):
            self._file.path.parent.mkdir(parents=True, exist_ok=True)
            with self._file.locked():
                manifest = self._file.read() or self._manifest
                manifest.epoch += 1
                manifest.files = [part for part in manifest.files if cleaned(self._root, part)]
                self._file.replace(manifest)
        self._manifest = manifest
        self._parts = {part.path: part for part in manifest.files}
        for path in self._parts:
            self._path_fault(path)
        return manifest.cursor

    def _spill(self) -> None:
        with mapped(self._root):
            self._staging.spill()

    def _commit(self, upto: Cursor) -> None:
        with mapped(self._root), self._file.locked():
            found = self._file.read()
            if found is None or found.epoch != self._manifest.epoch:
                raise Fenced(
                    f"{self._file.path}: another writer of task {self._manifest.task!r} has taken over"
                )
            fresh = self._begun(self._staging.targets)
            if fresh:
                self._file.replace(self._manifest)
            for target in self._staging.targets:
                self._append(self._parts[target], is_new=target in fresh)
            self._manifest.cursor = upto
            self._file.replace(self._manifest)
        self._staging.clear()

    def _begun(self, targets: Sequence[str]) -> set[str]:
        """Enter files that are about to be made into the manifest. Returns their targets."""
        fresh: set[str] = set()
        part_bytes = self._options.part_bytes
        for target in targets:
            part = self._parts.get(target)
            if part is None:
                if len(self._parts) >= FILES_MAX:
                    raise FatalError(
                        f"{self._root}: task {self._manifest.task!r} writes more than {FILES_MAX} files"
                    )
                part = self._parts[target] = Part(target, 1 if part_bytes else 0, 0)
                self._manifest.files.append(part)
            elif part_bytes and (part.bytes >= part_bytes or not part.number):
                part.number += 1
                part.bytes = 0
            if not part.bytes:
                fresh.add(target)
        return fresh

    def _append(self, part: Part, *, is_new: bool) -> None:
        path = self._root / part.name
        if is_new:
            self._make_folder(path.parent)
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if is_new else 0)
        try:
            descriptor = os.open(path, flags, 0o666)
        except FileExistsError as error:
            raise FatalError(f"{path} exists and was not written by this task; move it away") from error
        except FileNotFoundError as error:
            raise TransientError(f"{path} was taken away; going on with a new file") from error
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            size = os.fstat(descriptor).st_size
            if size != part.bytes:
                raise FatalError(f"{path}: {size} bytes, expected {part.bytes}: somebody else writes to it")
            file.seek(part.bytes)
            for piece in compressed(self._staging.pieces(part.path), self._options.compression):
                rest = memoryview(piece)
                while rest:
                    rest = rest[file.write(rest) :]
            os.fdatasync(descriptor)
            part.bytes = file.tell()
        if is_new:
            sync_folder(path.parent)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder below the root. One that a symbolic link leads out of the root is refused."""
        missing = folder
        while not missing.exists():
            missing = missing.parent
        if not missing.resolve().is_relative_to(self._root.resolve()):
            raise FatalError(f"{folder}: a symbolic link leads out of {self._root}")
        folder.mkdir(parents=True, exist_ok=True)
        while folder != missing:
            folder = folder.parent
            sync_folder(folder)


@contextmanager
def mapped(root: Path) -> Iterator[None]:
    """What the file system says, as errors of ours. A retry opens the sink again, and restores."""
    try:
        yield
    except OSError as error:
        message = f"{error.filename or root}: {error.strerror}"
        if error.errno in TRANSIENT:
            raise TransientError(message) from error
        raise FatalError(f"{message}; see to the folder, then start again") from error


def writable(root: Path) -> Finding:
    """Whether files could be made below this folder."""
    nearest = root.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        return Finding(False, f"{nearest} is no folder", "choose another `root`")
    if not os.access(nearest, os.W_OK | os.X_OK):
        return Finding(False, f"{nearest} may not be written", f"chown or chmod {nearest} for this user")
    return Finding(True, f"{root} can be written")


def default_path(collection: str, compression: Compression) -> str:
    """The path of a collection without `path`: its name, one folder for each slash."""
    ending = {"none": ".ndjson", "gzip": ".ndjson.gz", "zstd": ".ndjson.zst"}[compression]
    return collection + ending


def compressed(pieces: Iterator[bytes], compression: Compression) -> Iterator[bytes]:
    """The pieces as one member or frame of their own."""
    if compression == "none":
        yield from pieces
        return
    compress, finish = _compressor(compression)
    for piece in pieces:
        yield compress(piece)
    yield finish()


def _compressor(compression: Compression) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    if compression == "zstd":
        zstd = zstandard.ZstdCompressor(level=3).compressobj()
        return zstd.compress, zstd.flush
    deflate = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return deflate.compress, deflate.flush
