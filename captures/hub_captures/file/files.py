"""Which files there are, which of them are known, and what comes next of them. Blocking; runs in a thread.

The hard thing is rotation. By renaming: the inode is found under a new name, or is read on through the
open file when no pattern matches the new name. By copying: a new file begins with what was read of
another that is gone or was cut, and carries that one's place on. While the other is still whole, the
copy may be one or a file of its own, and is left alone for `rotate_wait`.
"""

from __future__ import annotations

import glob
import os
import re
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from hub.errors import FatalError, TransientError
from hub.record import Batch, TaskName
from hub_captures.file.reading import Reader
from hub_captures.file.rows import BOM, read_header, take

if TYPE_CHECKING:
    from hub_captures.file.capture import FileCapture

LEFT_MAX = 100
"""Files remembered after they are gone or were cut. Each is named in every position."""

OPEN_MAX = 64
"""Files kept open between reads."""

Identity = tuple[int, int]
"""Device and inode."""


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """How far one file was read. `size` and `modified_ns` are of the file when `byte` was its end: while it
    has them there is nothing new in it. `byte` counts content, that is behind decompression."""

    path: str
    device: int
    inode: int
    byte: int = 0
    digest: str = ""
    size: int = -1
    modified_ns: int = 0


class Found(NamedTuple):
    """A file that a pattern matches. `shown` is its path as text, whatever bytes it is made of."""

    path: str
    shown: str
    size: int
    modified_ns: int


@dataclass
class Gathered:
    """What one look has brought. `moved` says that the position did; `is_end` that all is read for now."""

    batches: list[Batch] = field(default_factory=list)
    notices: list[tuple[str, str]] = field(default_factory=list)
    skipped: int = 0
    moved: bool = False
    is_end: bool = False
    files: list[Mark] = field(default_factory=list)
    left: list[Mark] = field(default_factory=list)


class Files:
    """The files of one capture while it runs. `known` are the marks of its position; None: it has none yet."""

    def __init__(
        self,
        options: FileCapture,
        task: TaskName,
        known: tuple[Sequence[Mark], Sequence[Mark]] | None,
        *,
        sample_bytes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._task = task
        self._clock = clock
        self._batch_bytes = sample_bytes or int(options.batch_bytes)
        self._from_end = known is None and options.start == "end" and sample_bytes is None
        self._follow = options.follow and sample_bytes is None
        files, left = known or ((), ())
        self._marks: dict[Identity, Mark] = {(mark.device, mark.inode): mark for mark in files}
        self._left: list[Mark] = list(left)
        self._readers: OrderedDict[Identity, Reader] = OrderedDict()
        self._found: Mapping[Identity, Found] = {}
        self._twins: dict[Identity, float] = {}
        self._vanished: dict[Identity, float] = {}
        self._pending: list[Identity] = []
        self._is_first = True
        self._now = Gathered()

    def close(self) -> None:
        while self._readers:
            self._readers.popitem()[1].close()

    def gather(self) -> Gathered:
        """Up to a batch of what comes next, from as many files as it takes."""
        self._now = Gathered()
        if not self._pending:
            self._scan()
        left = self._batch_bytes
        while self._pending and left > 0:
            size, at_end = self._read(self._pending[0], left)
            left -= size
            if at_end:
                self._pending.pop(0)
            elif not size and not self._now.batches:
                continue
            elif not size:
                break
        self._now.is_end = not self._pending
        self._now.files = list(self._marks.values())
        self._now.left = list(self._left)
        return self._now

    def _scan(self) -> None:
        """Look at names and sizes, recognize files, and list those that have something new."""
        try:
            self._found = find(self._options.patterns, self._options.exclude)
        except OSError as error:
            raise TransientError(f"{error.filename}: {error.strerror}") from error
        if self._is_first and not self._follow:
            for pattern in self._options.patterns:
                if not find([pattern], []):
                    raise FatalError(nothing_matches(pattern))
        if len(self._found) > self._options.files_max:
            raise FatalError(
                f"{len(self._found)} files match, files_max is {self._options.files_max}; move files away that "
                "have been read, or raise it"
            )
        for identity, found in self._found.items():
            self._vanished.pop(identity, None)
            mark = self._marks.get(identity)
            if mark is not None and mark.path != found.shown:
                self._marks[identity] = msgspec.structs.replace(mark, path=found.shown)
                self._now.moved = True
        for identity in [known for known in self._marks if known not in self._found]:
            self._lose(identity)
        for identity, found in self._ordered():
            if identity not in self._marks:
                self._meet(identity, found)
        self._twins = {identity: since for identity, since in self._twins.items() if identity in self._found}
        self._pending = [identity for identity, found in self._ordered() if self._has_news(identity, found)]
        self._pending += self._vanished
        self._is_first = False

    def _ordered(self) -> list[tuple[Identity, Found]]:
        files = list(self._found.items())
        if self._options.order == "modified":
            files.sort(key=lambda item: (item[1].modified_ns, item[1].path))
        return files

    def _has_news(self, identity: Identity, found: Found) -> bool:
        mark = self._marks.get(identity)
        return mark is not None and (mark.size, mark.modified_ns) != (found.size, found.modified_ns)

    def _lose(self, identity: Identity) -> None:
        """A file that no pattern matches any more. While it is open it is read on until it is quiet."""
        reader = self._readers.get(identity)
        if reader is not None and self._follow:
            now, size, mark = self._clock(), reader.stat().st_size, self._marks[identity]
            quiet_since = self._vanished.get(identity, now) if size == mark.size else now
            self._vanished[identity] = quiet_since
            if size != mark.size or now - quiet_since < self._options.rotate_wait:
                return
        if not self._found:
            return  # Everything is gone at once: rather a disk that comes back than files that do not.
        if reader is not None and self._follow:
            self._read(identity, self._batch_bytes, final=True)
        self._leave(identity)

    def _leave(self, identity: Identity) -> None:
        mark = self._marks.pop(identity)
        self._vanished.pop(identity, None)
        if reader := self._readers.pop(identity, None):
            reader.close()
        if mark.byte:
            self._left = [*self._left, mark][-LEFT_MAX:]
        self._now.moved = True

    def _meet(self, identity: Identity, found: Found) -> None:
        """A file that is new by its inode. It may go on where another stopped."""
        for mark in reversed(self._left):
            known = (mark.device, mark.inode) == identity
            if (known or is_rotation(mark.path, found.shown)) and self._proves(identity, found, mark):
                self._left.remove(mark)
                self._begin(identity, found, mark)
                self._now.notices.append((f"goes on with {mark.path} at byte {mark.byte}", found.shown))
                return
        if self._follow and self._is_twin(identity, found):
            since = self._twins.setdefault(identity, self._clock())
            if self._clock() - since < self._options.rotate_wait:
                return
        self._twins.pop(identity, None)
        self._begin(identity, found, None)
        if self._is_first and self._from_end:
            self._to_end(identity)

    def _is_twin(self, identity: Identity, found: Found) -> bool:
        return any(
            mark.byte and is_rotation(mark.path, found.shown) and self._proves(identity, found, mark)
            for mark in self._marks.values()
        )

    def _proves(self, identity: Identity, found: Found, mark: Mark) -> bool:
        """True when the file begins with what was read up to `mark`."""
        reader = self._open(identity, found, None)
        if reader is None or (reader.is_plain and found.size < mark.byte):
            return False
        try:
            return reader.seek(mark.byte, mark.digest)
        finally:
            self._shut(identity)

    def _begin(self, identity: Identity, found: Found, mark: Mark | None) -> None:
        byte, digest = (mark.byte, mark.digest) if mark else (0, "")
        self._marks[identity] = Mark(found.shown, *identity, byte, digest)
        self._now.moved = True

    def _to_end(self, identity: Identity) -> None:
        """Pass over what is there at the first start, up to the last whole line."""
        mark = self._marks[identity]
        reader = self._open(identity, self._found[identity], mark)
        if reader is None:
            return
        byte, digest = reader.last_line_end(self._batch_bytes)
        self._shut(identity)
        self._marks[identity] = msgspec.structs.replace(mark, byte=byte, digest=digest)

    def _read(self, identity: Identity, size_max: int, *, final: bool = False) -> tuple[int, bool]:
        """Take the next records of one file. Returns the bytes taken, and whether that was the end for now."""
        if identity not in self._marks:
            return 0, True
        reader = self._open(identity, self._found.get(identity), self._marks[identity])
        if reader is None:
            return 0, True
        before = reader.stat()
        if not reader.is_unchanged():
            self._cut(identity)
            return 0, False
        # A chunk has the full size, or a line that fits into `batch_bytes` might never fit into what is left.
        chunk = reader.read(self._batch_bytes)
        at_end = len(chunk) < self._batch_bytes
        if not at_end and size_max < self._batch_bytes:
            return size_max, False
        size = self._take(reader, chunk, final=at_end and self._is_final(reader, forced=final))
        if not size and not at_end:
            raise FatalError(too_long(reader.shown, reader.at, self._batch_bytes))
        mark = self._marks[identity]
        seen = (before.st_size, before.st_mtime_ns) if at_end else (-1, 0)
        moved = Mark(mark.path, *identity, reader.at, reader.digest(), *seen)
        if moved != mark:
            self._marks[identity] = moved
            self._now.moved = True
        return size, at_end

    def _is_final(self, reader: Reader, *, forced: bool) -> bool:
        """True when a file that was read to its end will not grow, so that its last line is whole as it is."""
        if not reader.is_torn:
            return forced or not self._follow or not reader.is_plain
        if forced:
            self._now.notices.append(("was taken away before its compressed data were whole", reader.shown))
        elif not self._follow:
            raise FatalError(f"{reader.shown}: compressed data end too early")
        return False

    def _take(self, reader: Reader, chunk: bytes, *, final: bool) -> int:
        options = self._options
        skipped = 0
        if not reader.at:
            if chunk.startswith(BOM):
                skipped = len(BOM)
            if options.format == "csv":
                skipped = self._read_header(reader, final=final)
                if not skipped:
                    return 0
        rest = chunk[skipped:] if skipped else chunk
        lines, size = take(rest, options.format, reader.header, options.delimiter, final=final)
        at = reader.at + skipped
        if size or skipped:
            reader.advance(chunk[: skipped + size] if skipped + size < len(chunk) else chunk)
        if options.on_error == "stop":
            lines.refuse_bad(where=reader.shown, at=at)
        elif options.on_error == "skip":
            self._now.skipped += len(lines.bad)
        skip = options.on_error == "skip"
        batch = lines.batch(self._task, where=reader.shown, at=at, skip=skip, shared={"path": reader.shown})
        if batch.count:
            self._now.batches.append(batch)
        return skipped + size

    def _read_header(self, reader: Reader, *, final: bool) -> int:
        """The size of the CSV header, once it is whole; then the reader has its names."""
        beginning = reader.beginning(self._batch_bytes)
        reader.header, size = read_header(beginning, self._options.delimiter, reader.shown, final=final)
        return size

    def _cut(self, identity: Identity) -> None:
        """A file that no longer holds what was read: it was cut, or written anew. It starts over."""
        mark = self._marks[identity]
        self._shut(identity)
        self._left = [*self._left, mark][-LEFT_MAX:]
        self._marks[identity] = Mark(mark.path, *identity)
        self._now.notices.append((f"was cut or written anew after byte {mark.byte}; starts over", mark.path))
        self._now.moved = True

    def _open(self, identity: Identity, found: Found | None, mark: Mark | None) -> Reader | None:
        """The open file at its mark. None when it is gone or another by now: the next scan will tell."""
        reader = self._readers.get(identity)
        if reader is not None:
            self._readers.move_to_end(identity)
            return reader
        if found is None:
            return None
        try:
            reader = Reader(found.path, found.shown, self._options.compression)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TransientError(f"{found.shown}: {error.strerror}") from error
        self._readers[identity] = reader
        now = reader.stat()
        if (now.st_dev, now.st_ino) != identity:
            self._shut(identity)
            return None
        if len(self._readers) > OPEN_MAX:
            self._readers.popitem(last=False)[1].close()
        if mark is not None and mark.byte:
            if self._options.format == "csv":
                self._read_header(reader, final=True)
            if not reader.seek(mark.byte, mark.digest):
                self._cut(identity)
                return self._open(identity, found, None)
        return reader

    def _shut(self, identity: Identity) -> None:
        self._readers.pop(identity).close()


def find(patterns: Sequence[str], exclude: Sequence[str]) -> dict[Identity, Found]:
    """The regular files that match, each once however many names it has, in the order of the names."""
    names = {name for pattern in patterns for name in matching(pattern)}
    names -= {name for pattern in exclude for name in matching(pattern)}
    found: dict[Identity, Found] = {}
    for name in sorted(names):
        try:
            now = os.stat(name)  # noqa: PTH116  the name may hold bytes that are no text
        except FileNotFoundError:
            continue
        if stat.S_ISREG(now.st_mode):
            shown = os.fsencode(name).decode(errors="backslashreplace")
            found.setdefault((now.st_dev, now.st_ino), Found(name, shown, now.st_size, now.st_mtime_ns))
    return found


def matching(pattern: str) -> list[str]:
    """Names that match. Not pathlib's, whose globs take neither absolute patterns nor names that are no text."""
    return glob.glob(pattern, recursive=True)  # noqa: PTH207


_COMPRESSED = re.compile(r"\.(gz|zst|zstd)$")
_NUMBERED = re.compile(r"(?P<base>.+?)[.-](?P<number>\d[\d.T_-]*)")


def is_rotation(old: str, new: str) -> bool:
    """True when rotation may have given the content of `old` the name `new`.

    `app.log` becomes `app.log`, `app.log.1`, `app.log-20240131`; `app.log.1` becomes `app.log.2`; each
    possibly compressed. Nothing else: files with names of their own may well begin alike.
    """
    new = _COMPRESSED.sub("", new)
    if new in (old, _COMPRESSED.sub("", old)):
        return True
    rotated = _NUMBERED.fullmatch(new)
    if rotated is None:
        return False
    before = _NUMBERED.fullmatch(_COMPRESSED.sub("", old))
    if before is None or before["base"] != rotated["base"]:
        return rotated["base"] == old
    numbers = before["number"], rotated["number"]
    return all(number.isdigit() for number in numbers) and int(numbers[1]) == int(numbers[0]) + 1


def nothing_matches(pattern: str) -> str:
    """The message for a pattern without files."""
    return f"no file matches {pattern!r} (looked from {os.getcwd()})"  # noqa: PTH109


def too_long(shown: str, byte: int, limit: int) -> str:
    """The message for a line that does not fit."""
    return f"{shown}: the line at byte {byte} is longer than batch_bytes, {limit}; raise it"
