"""Each rig is shown to bite: known bugs are switched on one by one, and one of the rigs has to notice each.

A rig that stops noticing has rotted. The bugs are put in here, from outside: production code has no switch for
them. Run with -s to see the list and which rig caught what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from hub.log import frame, journal, recovery, segment, transaction
from hub.log.journal import Journal
from hub.log.segment import Segment
from hub.testing.simfs import SimFS

SEEDS = range(3_000)


class _Wrapped:
    """A file system with one thing wrong."""

    def __init__(self, fs: SimFS) -> None:
        self._fs = fs
        self.paths: dict[int, Path] = {}
        self.syncs = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fs, name)

    def open(self, path: Path, *, create: bool = False, write: bool = True) -> int:
        fd = self._fs.open(path, create=create, write=write)
        self.paths[fd] = path
        return fd


class NoGroupSync(_Wrapped):
    def sync(self, fd: int) -> None:
        pass


class EverySecondSync(_Wrapped):
    def sync(self, fd: int) -> None:
        self.syncs += 1
        if self.syncs % 2:
            self._fs.sync(fd)


class SyncRetried(_Wrapped):
    def sync(self, fd: int) -> None:
        try:
            self._fs.sync(fd)
        except OSError:
            self._fs.sync(fd)


class NoDirectorySync(_Wrapped):
    def sync_dir(self, path: Path) -> None:
        pass


class NoSyncBeforeRename(_Wrapped):
    def fsync(self, fd: int) -> None:
        if not self.paths[fd].name.endswith(".tmp"):
            self._fs.fsync(fd)


class WriteErrorIgnored(_Wrapped):
    def pwritev(self, fd: int, buffers: list[bytes], offset: int) -> int:
        try:
            return self._fs.pwritev(fd, buffers, offset)
        except OSError:
            return sum(map(len, buffers))


class NoFsyncOfSegments(_Wrapped):
    def fsync(self, fd: int) -> None:
        if self.paths[fd].name.endswith(".tmp"):
            self._fs.fsync(fd)


class SyncErrorIgnored(_Wrapped):
    def sync(self, fd: int) -> None:
        try:
            self._fs.sync(fd)
        except OSError:
            pass


class _Anything:
    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 0


def _truncates(self: Journal, pos: int, size: int) -> None:
    self.fs.truncate(self._fd, pos)
    self.fs.fsync(self._fd)


def _no_seal(self: Journal, live: Segment) -> None:
    live.sealed = True
    self.live = None
    self._close_fd()


def _shrinks_first(self: Journal, live: Segment) -> None:
    self.fs.truncate(self._fd, live.end)
    self.fs.fsync(self._fd)
    _seal(self, live)


_seal = Journal._seal
_pack = frame.pack_frame_header
_put = Journal._put
_write_all = recovery.write_all


def _attests_too_much(
    kind: int, salt: int, segno: int, seq: int, epoch: int, ts: int, durable: int, *rest: int
) -> Any:
    return _pack(kind, salt, segno, seq, epoch, ts, seq, *rest)


def _acknowledges_early(self: Journal, buffers: list[bytes], pos: int, size: int) -> None:
    try:
        _put(self, buffers, pos, size)
    except journal.Poisoned:
        self.poisoned = None


def _one_write(fs: Any, fd: int, buffers: list[bytes], offset: int) -> int:
    fs.pwritev(fd, buffers, offset)
    return sum(map(len, buffers))


Bug = tuple[str, Callable[[SimFS], Any] | None, list[Any]]

BUGS: list[Bug] = [
    ("no fdatasync after a group", NoGroupSync, []),
    ("fdatasync after every second group", EverySecondSync, []),
    ("a failed fdatasync is tried again", SyncRetried, []),
    ("an error of fdatasync is ignored", SyncErrorIgnored, []),
    ("no fsync of the directory", NoDirectorySync, []),
    ("no fsync before the rename", NoSyncBeforeRename, []),
    ("no fsync of seals and of recovery", NoFsyncOfSegments, []),
    ("an error of pwritev is ignored", WriteErrorIgnored, []),
    ("short writes are not completed", None, [patch.object(journal, "write_all", _one_write)]),
    ("acknowledged although the group failed", None, [patch.object(Journal, "_put", _acknowledges_early)]),
    (
        "checksums of payloads are not compared",
        None,
        [patch.object(segment, "crc_of", lambda _: _Anything())],
    ),
    ("segments are not sealed", None, [patch.object(Journal, "_seal", _no_seal)]),
    ("a segment shrinks before its SEAL is durable", None, [patch.object(Journal, "_seal", _shrinks_first)]),
    ("frames attest themselves", None, [patch.object(journal, "pack_frame_header", _attests_too_much)]),
    (
        "the live segment is truncated when the disk is full",
        None,
        [patch.object(Journal, "_zero", _truncates)],
    ),
    (
        "recovery does not write the unattested tail again",
        None,
        [patch.object(recovery, "write_all", lambda *_: 0), patch.object(recovery, "_zero", lambda *_: None)],
    ),
]


DAMAGE_BUGS: list[tuple[str, dict[str, bool], list[Any]]] = [
    (
        "recovery cuts at the first bad frame, as others do",
        {},
        [patch.object(recovery, "rest_is", lambda *_: (False, None))],
    ),
    ("no marker attests the last group", {"marked": False}, []),
    (
        "checksums are compared nowhere",
        {},
        [
            patch.object(segment, "crc_of", lambda _: _Anything()),
            patch.object(transaction, "crc_of", lambda _: _Anything()),
        ],
    ),
]


@contextmanager
def _switched_on(patches: list[Any]) -> Iterator[None]:
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


@pytest.mark.rig
def test_every_seeded_bug_is_caught_by_a_rig(
    tell_power_stories: Callable[..., str | None], tell_damage_stories: Callable[..., Any]
) -> None:
    missed: list[str] = []
    # Made while nothing is wrong yet: the bugs are those of reading.
    for marked in (True, False):
        tell_damage_stories(marked=marked, step=5_000)
    for name, wrap, patches in BUGS:
        with _switched_on(patches):
            caught = None
            try:
                caught = tell_power_stories(SEEDS, wrap)
            except Exception as error:
                caught = f"{type(error).__name__}: {error}"
        print(f"{name:60} {caught or 'MISSED'}"[:180])
        if caught is None:
            missed.append(name)
    for name, how, patches in DAMAGE_BUGS:
        with _switched_on(patches):
            try:
                found = tell_damage_stories(step=3, **({"marked": True} | how))
                seen = found.wrong + [lost for lost in found.lost if "zeroed" not in lost]
            except Exception as error:
                seen = [f"{type(error).__name__}: {error}"]
        print(f"{name:60} {f'{len(seen)} silent: {seen[0]}' if seen else 'MISSED'}"[:180])
        if not seen:
            missed.append(name)
    assert not missed
