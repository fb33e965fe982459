"""control.db: cursors, holds, the witness of each journal, the list of fragments, small state of tasks.

SQLite on one connection with WAL and `synchronous=FULL`. It never has the power to delete data: losing it
costs cursors of destinations that keep none of their own, and the fragments are found again by their names.
A second connection is refused (SQLite before 3.51.3 can damage a WAL database under two), so the file is
guarded by a lock that names its owner.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

import anyio
import anyio.to_thread

from hub.errors import FatalError, TransientError
from hub.record import Cursor, Place

T = TypeVar("T")

VERSION = 1
_TABLES = """
CREATE TABLE cursors (task TEXT PRIMARY KEY, cursor BLOB NOT NULL, updated_us INTEGER NOT NULL) STRICT;
CREATE TABLE holds (name TEXT PRIMARY KEY, cursor BLOB NOT NULL, seen_us INTEGER NOT NULL) STRICT;
CREATE TABLE witness (journal TEXT PRIMARY KEY, epoch INTEGER NOT NULL, seq INTEGER NOT NULL) STRICT;
CREATE TABLE rewinds (task TEXT PRIMARY KEY, cursor BLOB NOT NULL, asked_us INTEGER NOT NULL) STRICT;
CREATE TABLE state (task TEXT, name TEXT, value BLOB NOT NULL, PRIMARY KEY (task, name)) STRICT;
CREATE TABLE fragments (journal TEXT, name TEXT, collection TEXT NOT NULL, entry BLOB NOT NULL,
    PRIMARY KEY (journal, name)) STRICT;
CREATE TABLE trims (journal TEXT, collection TEXT, seq INTEGER NOT NULL, PRIMARY KEY (journal, collection)) STRICT;
"""


class Hold(NamedTuple):
    """A registered reader: nothing after its cursor is let go. `seen_us` is when it last moved or said so."""

    name: str
    cursor: Cursor
    seen_us: int


class Control:
    """The control database. Reads are answered from memory; writes are durable when they return.

    The coroutines hop to a thread; the methods that end in `_now` are the same, for callers that block anyway.
    Raises TransientError when the disk is full, FatalError when the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_fd = _take_lock(path)
        self._limiter: anyio.CapacityLimiter | None = None
        self._mutex = threading.Lock()
        try:
            self._db = self._open()
            self._load()
        except sqlite3.Error as error:
            os.close(self._lock_fd)
            raise FatalError(
                f"{path}: cannot be used ({error}); move it away to start from the log and the destinations alone"
            ) from error

    def _open(self) -> sqlite3.Connection:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.close(fd)
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA trusted_schema=OFF")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version={VERSION}; COMMIT;")
        elif version != VERSION:
            raise FatalError(
                f"{self.path}: version {version}, this hub knows {VERSION}; use the newer hub that wrote it"
            )
        return db

    def _load(self) -> None:
        rows = self._db.execute
        self._cursors = {task: Cursor.decode(c) for task, c in rows("SELECT task, cursor FROM cursors")}
        self._holds = {
            n: Hold(n, Cursor.decode(c), s) for n, c, s in rows("SELECT name, cursor, seen_us FROM holds")
        }
        self._witness = {j: Place(e, s) for j, e, s in rows("SELECT journal, epoch, seq FROM witness")}
        self._rewinds = {task: Cursor.decode(c) for task, c in rows("SELECT task, cursor FROM rewinds")}
        self._state = {(t, n): v for t, n, v in rows("SELECT task, name, value FROM state")}
        self._moved_holds: set[str] = set()

    def cursor(self, task: str) -> Cursor | None:
        """How far the task's destination has been brought, where the destination does not keep that itself."""
        return self._cursors.get(task)

    async def set_cursor(self, task: str, cursor: Cursor) -> None:
        await self._hop(lambda: self.set_cursor_now(task, cursor))

    def set_cursor_now(self, task: str, cursor: Cursor) -> None:
        values = (task, cursor.encode(), _now_us())
        self._write([("INSERT OR REPLACE INTO cursors VALUES (?,?,?)", values)])
        self._cursors[task] = cursor

    def holds(self) -> Sequence[Hold]:
        """All registered readers."""
        return list(self._holds.values())

    async def hold(self, name: str, cursor: Cursor) -> None:
        """Register a reader, or move it. Moves are written within a second: an old hold only keeps more."""
        if name in self._holds:
            self._holds[name] = Hold(name, cursor, _now_us())
            self._moved_holds.add(name)
        else:
            await self._hop(lambda: self.hold_now(name, cursor))

    def hold_now(self, name: str, cursor: Cursor) -> None:
        made = Hold(name, cursor, _now_us())
        self._write([("INSERT OR REPLACE INTO holds VALUES (?,?,?)", (name, cursor.encode(), made.seen_us))])
        self._holds[name] = made

    async def release(self, name: str) -> None:
        """Forget a reader: retention no longer waits for it."""
        await self._hop(lambda: self.release_now(name))

    def release_now(self, name: str) -> None:
        self._write([("DELETE FROM holds WHERE name = ?", (name,))])
        self._holds.pop(name, None)
        self._moved_holds.discard(name)

    def witness(self, journal: str) -> Place | None:
        """The newest frame that was ever known durable, so that its loss is noticed."""
        return self._witness.get(journal)

    def witnessed(self) -> Sequence[str]:
        """The journals that were ever known here."""
        return list(self._witness)

    async def note(self, journal: str, place: Place) -> None:
        """Write down how far a journal is durable, and the holds that moved. Call it about once a second."""
        await self._hop(lambda: self.note_now(journal, place))

    def note_now(self, journal: str, place: Place) -> None:
        moved = [self._holds[name] for name in list(self._moved_holds) if name in self._holds]
        changes: list[tuple[str, tuple[object, ...]]] = [
            ("INSERT OR REPLACE INTO holds VALUES (?,?,?)", (h.name, h.cursor.encode(), h.seen_us))
            for h in moved
        ]
        if self._witness.get(journal) != place:
            changes.append(("INSERT OR REPLACE INTO witness VALUES (?,?,?)", (journal, *place)))
        if changes:
            self._write(changes)
            self._witness[journal] = place
            self._moved_holds.difference_update(h.name for h in moved if self._holds.get(h.name) == h)

    def rewind(self, task: str) -> Cursor | None:
        """Where somebody asked this task to start again. Apply it at restore, then `rewound`."""
        return self._rewinds.get(task)

    def ask_rewind_now(self, task: str, cursor: Cursor) -> None:
        """Ask a task to start again from a cursor at its next restore. Its hold moves back at once."""
        hold = self._holds.get(task)
        changes: list[tuple[str, tuple[object, ...]]] = [
            ("INSERT OR REPLACE INTO rewinds VALUES (?,?,?)", (task, cursor.encode(), _now_us()))
        ]
        if hold is not None:
            changes.append(("UPDATE holds SET cursor = ? WHERE name = ?", (cursor.encode(), task)))
        self._write(changes)
        self._rewinds[task] = cursor
        if hold is not None:
            self._holds[task] = hold._replace(cursor=cursor)

    async def rewound(self, task: str) -> None:
        """The task has taken its rewind up."""
        await self._hop(lambda: self._write([("DELETE FROM rewinds WHERE task = ?", (task,))]))
        self._rewinds.pop(task, None)

    def forget_journal_now(self, journal: str) -> None:
        """Forget all about a journal that is gone."""
        tables = ("witness", "fragments", "trims")
        self._write([(f"DELETE FROM {table} WHERE journal = ?", (journal,)) for table in tables])
        self._witness.pop(journal, None)

    def forget_witness_now(self, journal: str) -> None:
        """Accept that a journal ends before what was once known durable."""
        self._write([("DELETE FROM witness WHERE journal = ?", (journal,))])
        self._witness.pop(journal, None)

    def state(self, task: str, name: str) -> bytes | None:
        """A small value a task keeps here under a name."""
        return self._state.get((task, name))

    async def set_state(self, task: str, name: str, value: bytes | None) -> None:
        """Keep a small value; None forgets it."""
        await self._hop(lambda: self.set_state_now(task, name, value))

    def set_state_now(self, task: str, name: str, value: bytes | None) -> None:
        if value is None:
            change: tuple[str, tuple[object, ...]] = (
                "DELETE FROM state WHERE task=? AND name=?",
                (task, name),
            )
        else:
            change = ("INSERT OR REPLACE INTO state VALUES (?,?,?)", (task, name, value))
        self._write([change])
        if value is None:
            self._state.pop((task, name), None)
        else:
            self._state[task, name] = value

    def tasks(self) -> Mapping[str, Cursor]:
        """The cursors of all tasks that keep theirs here."""
        return dict(self._cursors)

    def fragments(self, journal: str) -> list[tuple[str, bytes]]:
        """Name and entry of each fragment of a journal."""
        with self._mutex:
            return list(self._db.execute("SELECT name, entry FROM fragments WHERE journal = ?", (journal,)))

    def swap_fragments_now(
        self,
        journal: str,
        *,
        add: Iterable[tuple[str, str, bytes]] = (),
        remove: Iterable[str] = (),
        trims: Mapping[str, int] | None = None,
    ) -> None:
        """Register fragments (name, collection, entry), strike others off and note trims, all in one transaction:
        a trim without its fragments would let go of the segments they were made of."""
        changes: list[tuple[str, tuple[object, ...]]] = [
            ("INSERT OR REPLACE INTO fragments VALUES (?,?,?,?)", (journal, name, collection, entry))
            for name, collection, entry in add
        ]
        changes += [
            ("DELETE FROM fragments WHERE journal = ? AND name = ?", (journal, name)) for name in remove
        ]
        changes += [
            ("INSERT OR REPLACE INTO trims VALUES (?,?,?)", (journal, c, s)) for c, s in (trims or {}).items()
        ]
        if changes:
            self._write(changes)

    def trims(self, journal: str) -> dict[str, int]:
        """For each collection the newest frame whose records of it were let go by retention."""
        with self._mutex:
            return dict(self._db.execute("SELECT collection, seq FROM trims WHERE journal = ?", (journal,)))

    def close(self) -> None:
        """Flush what may wait, and let go of the file."""
        moved = [self._holds[name] for name in self._moved_holds if name in self._holds]
        try:
            if moved:
                sql = "INSERT OR REPLACE INTO holds VALUES (?,?,?)"
                self._write([(sql, (h.name, h.cursor.encode(), h.seen_us)) for h in moved])
        finally:
            self._db.close()
            os.close(self._lock_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _hop(self, call: Callable[[], T]) -> T:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(1)
        return await anyio.to_thread.run_sync(call, limiter=self._limiter)

    def _write(self, changes: Sequence[tuple[str, tuple[object, ...]]]) -> None:
        with self._mutex:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                for sql, values in changes:
                    self._db.execute(sql, values)
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if "full" in str(error):
                    raise TransientError(f"{self.path}: no room on the disk", retry_after_s=1.0) from error
                raise FatalError(f"{self.path}: {error}") from error


class Peek(NamedTuple):
    """What another process may know of a control.db in use."""

    holds: Sequence[Hold]
    cursors: Mapping[str, Cursor]
    rewinds: Mapping[str, Cursor]
    fragments: Mapping[str, Sequence[tuple[str, bytes]]]
    """By journal, as `Control.fragments` gives them."""


def peek(path: Path) -> Peek:
    """Look into control.db while a hub has it open: into a copy, since a second connection is never opened."""
    if not path.exists():
        return Peek((), {}, {}, {})
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            if Path(f"{path}{suffix}").exists():
                shutil.copyfile(f"{path}{suffix}", Path(folder) / f"control.db{suffix}")
        with Control(Path(folder) / "control.db") as control:
            fragments = {journal: control.fragments(journal) for journal in control.witnessed()}
            return Peek(control.holds(), control.tasks(), dict(control._rewinds), fragments)


def _take_lock(path: Path) -> int:
    fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(fd, 100, 0).decode("utf-8", "replace") or "unknown"
        os.close(fd)
        raise FatalError(f"{path}: in use by another hub ({owner}); stop it first") from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"pid {os.getpid()}".encode(), 0)
    return fd


def _now_us() -> int:
    return time.time_ns() // 1000
