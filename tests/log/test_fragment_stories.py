"""Fragments on a file system that forgets: segments taken apart, fragments merged and compacted, with faults and power cuts.

Whatever happens, each acknowledged record is read exactly once, from a segment or from a fragment, with its offset; and
of what was compacted the newest version of each key. The rig is shown to bite: bugs are switched on one by one.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from hub.errors import Corrupt, Full, Poisoned, TransientError
from hub.log import Retention, Schema, Transaction, fragment, history, sealer
from hub.log.browse import browse
from hub.log.fragment import Fragment, FragmentWriter
from hub.log.frame import Kind
from hub.log.history import SEALED, History
from hub.log.journal import Frame, Journal
from hub.log.recovery import open_journal
from hub.log.retention import fragments_to_compact, fragments_to_merge
from hub.log.sealer import compact, merge, take_apart
from hub.log.tail import Tail
from hub.log.transaction import encode_transaction
from hub.record import DELETE, Batch, Place
from hub.testing.simfs import PowerLoss, SimFS

DIRECTORY, FRAGMENTS = Path("/log/journal/main"), Path("/log/fragments/main")
KEYS = 5
RULE = Retention(age_s=None, compact=True, compact_after_s=0.0, delete_retention_s=1e9)


class Register:
    """What control.db is to the history: a list that changes whole or not at all, and outlives the power."""

    def __init__(self, sim: SimFS) -> None:
        self._sim = sim
        self.listed: dict[str, bytes] = {}
        self.trimmed: dict[str, int] = {}

    def fragments(self, journal: str) -> list[tuple[str, bytes]]:
        return list(self.listed.items())

    def trims(self, journal: str) -> dict[str, int]:
        return dict(self.trimmed)

    def swap_fragments_now(
        self,
        journal: str,
        *,
        add: Iterable[tuple[str, str, bytes]] = (),
        remove: Iterable[str] = (),
        trims: Mapping[str, int] | None = None,
    ) -> None:
        # The machine may stop before the change or behind it.
        self._sim._meet("register", FRAGMENTS)
        for key in remove:
            self.listed.pop(key, None)
        self.listed |= {key: entry for key, _, entry in add}
        self.trimmed |= trims or {}
        self._sim._meet("registered", FRAGMENTS)


class Opened:
    """A journal with its fragments, as readers and the sealer see a log."""

    learns = False

    def __init__(self, fs: Any, register: Register, rng: random.Random) -> None:
        self.journal = "main"
        self.fs = fs
        self.writer, _ = open_journal(fs, DIRECTORY, segment_bytes=6_000, random=rng.randbytes)
        self.tail = Tail(1 << 60, 0)
        self.history = History(fs, FRAGMENTS, "main", register)  # type: ignore[arg-type]
        self.history.load(self.writer.oldest_seq)

    @property
    def end(self) -> Place:
        return Place(self.writer.epoch, self.writer.written_seq)

    @property
    def oldest_seq(self) -> int:
        return 1

    async def wait_beyond(self, seq: int) -> None:
        raise AssertionError


Row = tuple[int, int, int, bool]
"""Offset, number, key, whether it deletes."""


class FragmentStory:
    """Several lives of one log, and the oracle that judges each recovery."""

    def __init__(self, seed: int, wrap: Callable[[SimFS], Any]) -> None:
        self.sim = SimFS(seed)
        self.fs = wrap(self.sim)
        self.rng = random.Random(seed ^ 0xF4A6)
        self.register = Register(self.sim)
        self.rows: dict[str, list[Row]] = {"a": [], "b": []}
        self.pending: dict[str, list[Row]] = {}
        self.compacted_to = {"a": 0, "b": 0}

    def tell(self) -> None:
        """Raises AssertionError at the first broken promise."""
        rng, sim = self.rng, self.sim
        for _ in range(rng.randint(2, 4)):
            sim.calls = 0
            for _ in range(rng.choice((0, 1, 1, 2))):
                sim.plan(rng.choice(("crash", "crash", "eio", "enospc", "short")), rng.randint(1, 150))
            try:
                self.live()
            except (PowerLoss, Poisoned, TransientError, OSError):
                pass
            if rng.random() < 0.5:
                sim.lose_power()
            else:
                sim.kill()
        sim.faults.clear()
        sim.lose_power()
        self.opened()

    def opened(self) -> Opened:
        try:
            log = Opened(self.fs, self.register, self.rng)
            self.judge(log)
        except Corrupt as error:
            raise AssertionError(f"nothing was damaged, yet: {error}") from error
        return log

    def judge(self, log: Opened) -> None:
        for name, known in self.rows.items():
            found = rows_of(log, name)
            unsure = self.pending.get(name, [])
            assert [row[0] for row in found] == sorted({row[0] for row in found}), f"{name}: doubled"
            assert set(found) <= {*known, *unsure}, f"{name}: something else than was written: {found}"
            # What was appended but not acknowledged counts from when it was seen.
            seen = [row for row in unsure if row in found]
            expected = [*known, *seen]
            limit = self.compacted_to[name]
            kept = {row for row in expected if row[0] >= limit} | newest(expected)
            assert kept <= set(found), f"{name}: lost {sorted(kept - set(found))}"
            self.rows[name] = expected
        self.pending = {}

    def live(self) -> None:
        log = self.opened()
        if not self.rows["a"]:
            schemas = [Schema(name, b'{"key":["/k"]}') for name in self.rows]
            self.append(log, [Transaction("t", schemas)])
        for _ in range(self.rng.randint(5, 30)):
            what = self.rng.random()
            try:
                if what < 0.55:
                    self.append(log, [self.transaction() for _ in range(self.rng.choice((1, 2, 4)))])
                elif what < 0.7:
                    log.writer.roll()
                elif what < 0.9:
                    self.take_apart(log)
                else:
                    self.rewrite(log)
            except Full:
                return

    def transaction(self) -> Transaction:
        batches = []
        for name in self.rng.sample(sorted(self.rows), self.rng.choice((1, 2))):
            rows = self.pending.setdefault(name, [])
            docs, ops = [], b""
            for _ in range(self.rng.randint(1, 3)):
                offset = len(self.rows[name]) + len(rows)
                row = (offset, self.rng.randrange(1 << 30), self.rng.randrange(KEYS), self.rng.random() < 0.2)
                rows.append(row)
                docs.append({"k": row[2], "n": row[1], "pad": "x" * self.rng.choice((0, 300))})
                ops += b"d" if row[3] else b"u"
            batches.append(Batch.of_docs(name, docs, ops=ops))
        return Transaction("t", batches)

    def append(self, log: Opened, transactions: Sequence[Transaction]) -> None:
        frames = [
            Frame(Kind.TRANSACTION, encode_transaction(t, level=1, compress_from=256)) for t in transactions
        ]
        done = 0
        while done < len(frames):
            done += log.writer.write(frames, done)
        for name, rows in self.pending.items():
            self.rows[name] += rows
        self.pending = {}

    def take_apart(self, log: Opened) -> None:
        past = [s for s in log.writer.segments if s.sealed and s.last_seq > log.history.sealed_seq]
        if past:
            take_apart(log, log.history, past[0])  # type: ignore[arg-type]
        for segment in [s for s in log.writer.segments if s.sealed and s.last_seq <= log.history.sealed_seq]:
            if self.rng.random() < 0.8:
                log.writer.drop(segment)
            else:
                return

    def rewrite(self, log: Opened) -> None:
        for name in log.history.collections():
            if self.rng.random() < 0.5:
                run = fragments_to_merge(log.history.of(name)[-8:], 1 << 16) or list(log.history.of(name)[:2])
                if len(run) > 1 and len({f.compacted for f in run}) == 1:
                    merge(log.history, run)
            else:
                chosen = fragments_to_compact(log.history.of(name), RULE, 1 << 60)
                if chosen:
                    end = max(f.first_offset + f.records for f in chosen)
                    self.compacted_to[name] = max(
                        self.compacted_to[name], end, *self._ends(log, name, chosen)
                    )
                    compact(log.history, chosen, RULE, key=("k",), now_us=0, keys_max=100)

    def _ends(self, log: Opened, name: str, chosen: Sequence[Fragment]) -> list[int]:
        last = max(f.last_seq for f in chosen)
        ends = [
            sealer.offsets_of(p)[-1] + 1
            for p, _, _ in log.history.pieces(name, 0, last, from_start=True)
            if p.block.count
        ]
        return ends or [0]


def newest(rows: Sequence[Row]) -> set[Row]:
    """The newest version of each key; deletes are kept in these stories."""
    return set({row[2]: row for row in rows}.values())


def rows_of(log: Opened, name: str) -> list[Row]:
    found: list[Row] = []
    for row in browse(log, lambda wanted: wanted == name):
        for index, (offset, doc) in enumerate(zip(row.offsets, row.batch.docs, strict=True)):
            found.append((offset, doc["n"], doc["k"], row.batch.op(index) == DELETE))
    return found


def broken(seeds: Sequence[int], wrap: Callable[[SimFS], Any] = lambda sim: sim) -> str | None:
    """The first broken promise among these seeds; None when all hold."""
    for seed in seeds:
        try:
            FragmentStory(seed, wrap).tell()
        except AssertionError as error:
            return f"seed {seed}: {error}"
    return None


@pytest.mark.rig
def test_each_record_is_read_once_whatever_happens_while_fragments_are_made(soak_factor: int) -> None:
    """Scenario 8."""
    first = int(os.environ.get("HUB_SEED", "0"))
    count = 1 if "HUB_SEED" in os.environ else 600 * soak_factor
    assert broken(range(first, first + count)) is None


class _Without:
    """A file system that leaves one thing out."""

    def __init__(self, fs: SimFS, **instead: Callable[..., Any]) -> None:
        self._fs = fs
        for name, call in instead.items():
            setattr(self, name, call)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fs, name)


def _no_sync_of_fragments(sim: SimFS) -> Any:
    paths: dict[int, Path] = {}

    def opened(path: Path, **how: Any) -> int:
        fd = sim.open(path, **how)
        paths[fd] = path
        return fd

    def fsync(fd: int) -> None:
        if FRAGMENTS not in paths[fd].parents:
            sim.fsync(fd)

    return _Without(sim, open=opened, fsync=fsync)


def _no_sync_of_folders(sim: SimFS) -> Any:
    def sync_dir(path: Path) -> None:
        if FRAGMENTS not in (path, *path.parents):
            sim.sync_dir(path)

    return _Without(sim, sync_dir=sync_dir)


_replace, _finish, _settled = History.replace, FragmentWriter.finish, history.settled
_drop, _newest, _compacted = Journal.drop, sealer._newest_by_key, sealer._compacted


def _registers_later(self: History, add: Any, remove: Any, trims: Any) -> None:
    """The files of what is replaced go before the register knows."""
    for one in remove:
        self.fs.unlink(one.path(self.directory))
        self.fs.sync_dir(one.path(self.directory).parent)
    with patch.object(self.fs if isinstance(self.fs, SimFS) else self.fs._fs, "unlink", lambda path: None):
        _replace(self, add, remove, trims)


def _seals_without_fragments(self: History, add: Any, remove: Any, trims: Any) -> None:
    """The mark that a segment was taken apart is written before its fragments are listed."""
    if SEALED in trims:
        self._control.swap_fragments_now(self.journal, trims=trims)  # type: ignore[union-attr]
    _replace(self, add, remove, trims)


def _keeps_strangers(present: Any, registered: Any, oldest_seq: int, trims: Any) -> Any:
    """Whatever lies on the disk counts."""
    kept, lost = _settled(present, registered, oldest_seq, trims)
    return list({f.key: f for f in [*kept, *present]}.values()), lost


def _swallows_write_errors(fs: Any, fd: int, buffers: Any, offset: int) -> int:
    try:
        return _write_all(fs, fd, buffers, offset)
    except OSError:
        return sum(map(len, buffers))


_write_all = fragment.write_all


def _one_write(fs: Any, fd: int, buffers: Any, offset: int) -> int:
    fs.pwritev(fd, buffers, offset)
    return sum(map(len, buffers))


def _keeps_the_oldest(pieces: Any, key: Any, keys_max: int) -> Any:
    found, truncated = _newest(pieces, key, keys_max)
    return dict(list(found.items())[: len(found) // 2]), truncated


def _counts_offsets_anew(*arguments: Any) -> Any:
    for piece, body in _compacted(*arguments):
        yield (
            type(piece)(*[None if n == "offsets" else getattr(piece, n) for n in piece.__struct_fields__]),
            body,
        )


def _misses_the_last_frame(log: Any, seq: int, upto: int) -> Any:
    return _frames_after(log, seq, upto - 2)


_frames_after = sealer.frames_after

BUGS: list[tuple[str, Callable[[SimFS], Any], list[Any]]] = [
    ("fragments are not synced", _no_sync_of_fragments, []),
    ("the folders of fragments are not synced", _no_sync_of_folders, []),
    (
        "a write error of a fragment is ignored",
        lambda sim: sim,
        [patch.object(fragment, "write_all", _swallows_write_errors)],
    ),
    (
        "short writes of a fragment are not completed",
        lambda sim: sim,
        [patch.object(fragment, "write_all", _one_write)],
    ),
    (
        "old fragments go before the new ones are registered",
        lambda sim: sim,
        [patch.object(History, "replace", _registers_later)],
    ),
    (
        "a segment counts as taken apart before its fragments do",
        lambda sim: sim,
        [patch.object(History, "replace", _seals_without_fragments)],
    ),
    (
        "fragments that nobody registered count",
        lambda sim: sim,
        [patch.object(history, "settled", _keeps_strangers)],
    ),
    (
        "the end of a segment is not taken apart",
        lambda sim: sim,
        [patch.object(sealer, "frames_after", _misses_the_last_frame)],
    ),
    ("compaction forgets keys", lambda sim: sim, [patch.object(sealer, "_newest_by_key", _keeps_the_oldest)]),
    (
        "compaction counts offsets anew",
        lambda sim: sim,
        [patch.object(sealer, "_compacted", _counts_offsets_anew)],
    ),
]


@pytest.mark.rig
def test_every_seeded_bug_of_fragments_is_caught() -> None:
    missed = []
    for name, wrap, patches in BUGS:
        with ExitStack() as stack:
            for one in patches:
                stack.enter_context(one)
            try:
                caught = broken(range(2_000), wrap)
            except (Corrupt, KeyError, FileNotFoundError) as error:
                caught = f"{type(error).__name__}: {error}"
        print(f"{name:60} {caught or 'MISSED'}"[:180])
        if caught is None:
            missed.append(name)
    assert not missed
