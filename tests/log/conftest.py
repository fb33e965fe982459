"""The rigs of the log, as callables: each tells one story by its seed and returns what went wrong, if anything."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from hub.errors import Corrupt, FatalError, Full, Poisoned
from hub.log.frame import Kind
from hub.log.fs import FS
from hub.log.journal import Frame, Journal
from hub.log.recovery import open_journal
from hub.log.segment import scan
from hub.log.transaction import Encoded, Transaction, decode_head, decode_items, encode_transaction
from hub.record import Batch
from hub.testing.simfs import PowerLoss, SimFS

DIRECTORY = Path("/log/journal/main")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def soak() -> int:
    """How many times as long the rigs run: HUB_SOAK, 1 in CI."""
    return int(os.environ.get("HUB_SOAK", "1"))


@pytest.fixture
def soak_factor() -> int:
    return soak()


def transaction(number: int, padding: int) -> Encoded:
    """Transaction `number` of task t, whose position is its number."""
    text = b'{"n":%d,"pad":"%s"}' % (number, b"x" * padding)
    batch = Batch.of_lines("c", [text])
    return encode_transaction(Transaction("t", [batch], b"%d" % number), level=None, compress_from=0)


def numbers_in(fs: FS, journal: Journal) -> list[int]:
    """The numbers of all transactions that a reader of this journal may see."""
    found_numbers: list[int] = []
    for segment in journal.segments:
        fd = fs.open(segment.path, write=False)
        last = segment.header.base_seq - 1
        for found in scan(fs, fd, segment.header, upto=segment.last_seq):
            last = found.header.seq
            if found.header.kind == Kind.TRANSACTION:
                head, start = decode_head(found.payload, "rig")
                (item,) = decode_items(found.payload, head, start, lambda _: True, "rig")
                assert isinstance(item, Batch)
                number = item.docs[0]["n"]
                assert item.ndjson == b'{"n":%d,"pad":"%s"}\n' % (number, b"x" * len(item.docs[0]["pad"]))
                found_numbers.append(number)
        fs.close(fd)
        assert last == segment.last_seq, f"{segment.path.name}: frame {last + 1} cannot be read"
    return found_numbers


class PowerStory:
    """Several lives of one journal under planned faults, and the oracle that judges each recovery."""

    def __init__(self, seed: int, fs: FS | None = None) -> None:
        self.sim = fs if isinstance(fs, SimFS) else SimFS(seed)
        self.fs: FS = fs or self.sim
        self.rng = random.Random(seed ^ 0x5EED)
        self.sent = 0
        self.acked: list[int] = []
        self.shown: list[int] = []
        self.states = 0

    def tell(self) -> None:
        """Raises AssertionError at the first broken promise."""
        rng, sim = self.rng, self.sim
        for _ in range(rng.randint(1, 4)):
            sim.calls = 0
            for _ in range(rng.choice((0, 1, 1, 2, 3))):
                reach = rng.choice((12, 40, 120))
                sim.plan(rng.choice(("crash", "crash", "eio", "enospc", "short")), rng.randint(1, reach))
            try:
                self.live()
            except PowerLoss:
                sim.lose_power()
            except (Poisoned, OSError):
                self.end_life()
            else:
                self.end_life()
        sim.faults.clear()
        sim.lose_power()
        journal = self.open()
        journal.abandon()

    def end_life(self) -> None:
        if self.rng.random() < 0.5:
            self.sim.lose_power()
        else:
            self.sim.kill()

    def open(self) -> Journal:
        try:
            journal, _ = open_journal(
                self.fs, DIRECTORY, segment_bytes=self.rng.choice((6_000, 20_000)), random=self.rng.randbytes
            )
        except Corrupt as error:
            raise AssertionError(f"nothing was damaged, yet: {error}") from error
        self.judge(journal)
        return journal

    def judge(self, journal: Journal) -> None:
        """Acknowledged and shown transactions are there, in order, and nothing is there that was not sent."""
        found = numbers_in(self.fs, journal)
        assert found == sorted(set(found)), f"out of order or doubled: {found}"
        assert set(self.acked) <= set(found), f"lost: {sorted(set(self.acked) - set(found))}"
        assert found[: len(self.shown)] == self.shown, "what was shown before is not shown any more"
        assert not found or found[-1] <= self.sent
        position = journal.state.positions.get("t")
        assert position == (b"%d" % found[-1] if found else None), "position and documents disagree"
        self.shown = found
        self.states += 1

    def live(self) -> None:
        rng = self.rng
        journal = self.open()
        try:
            for _ in range(rng.randint(1, 25)):
                what = rng.random()
                if what < 0.15:
                    journal.mark()
                elif what < 0.2:
                    journal.roll()
                else:
                    self.append(journal)
            if rng.random() < 0.5:
                journal.close()
        except Full:
            self.judge(journal)

    def append(self, journal: Journal) -> None:
        frames: list[Frame] = []
        first = self.sent + 1
        for _ in range(self.rng.choice((1, 1, 2, 5))):
            self.sent += 1
            frames.append(
                Frame(Kind.TRANSACTION, transaction(self.sent, self.rng.choice((0, 30, 700, 5_000))))
            )
        done = 0
        while done < len(frames):
            try:
                placed = journal.write(frames, done)
            except Full:
                if self.rng.random() < 0.5:
                    raise
                return
            numbers = list(range(first + done, first + done + placed))
            self.acked += numbers
            self.shown += numbers
            done += placed


def power_stories(seeds: Sequence[int], wrap: Callable[[SimFS], FS] | None = None) -> str | None:
    """The first broken promise among these seeds, with the seed; None when all hold."""
    for seed in seeds:
        sim = SimFS(seed)
        story = PowerStory(seed, sim)
        if wrap is not None:
            story.fs = wrap(sim)
        try:
            story.tell()
        except AssertionError as error:
            return f"seed {seed}: {error}"
    return None


class Damage(NamedTuple):
    """What came of damaging a log in many ways, one at a time."""

    cases: int
    detected: int
    harmless: int
    lost: list[str]
    """Opened without a word, and acknowledged transactions missing at the end."""
    wrong: list[str]
    """Opened without a word, and something else read than was written."""


@cache
def damaged_log(*, marked: bool) -> tuple[SimFS, list[int]]:
    """A log of two sealed segments and a live one, left as a crash leaves it."""
    sim = SimFS(1)
    journal, _ = open_journal(sim, DIRECTORY, segment_bytes=2_048, random=random.Random(1).randbytes)
    number = 0
    while len(journal.segments) < 3 or journal.live is None or journal.live.end < 900:
        number += 2
        frames = [Frame(Kind.TRANSACTION, transaction(n, 40)) for n in (number - 1, number)]
        done = 0
        while done < 2:
            done += journal.write(frames, done)
    if marked:
        journal.mark()
    sim.kill()
    return sim, list(range(1, number + 1))


def damage_stories(*, marked: bool = True, step: int = 1) -> Damage:
    """Flip a bit of every byte, cut every file at every length, zero sectors: one at a time, then open and read."""
    sim, numbers = damaged_log(marked=marked)
    changes: list[tuple[str, Path, Callable[[bytearray], None]]] = []

    def flip(at: int) -> Callable[[bytearray], None]:
        def change(data: bytearray) -> None:
            data[at] ^= 1 << (at % 8)

        return change

    def cut(at: int) -> Callable[[bytearray], None]:
        return lambda data: data.__delitem__(slice(at, None))

    def zero(at: int) -> Callable[[bytearray], None]:
        def change(data: bytearray) -> None:
            span = data[at : at + 512]
            data[at : at + 512] = bytes(len(span))

        return change

    for path, content in sim.files().items():
        size, name = len(content), path.name
        changes += [(f"{name}: bit of byte {at}", path, flip(at)) for at in range(0, size, step)]
        changes += [(f"{name}: cut at {at}", path, cut(at)) for at in range(0, size, 3 * step)]
        changes += [(f"{name}: zeroed at {at}", path, zero(at)) for at in range(0, size, 128 * step)]
    detected = harmless = 0
    lost: list[str] = []
    wrong: list[str] = []
    for name, path, change in changes:
        twin = sim.copy()
        before = twin.files()[path]
        twin.corrupt(path, change)
        if twin.files()[path] == before:
            harmless += 1
            continue
        try:
            journal, _ = open_journal(twin, DIRECTORY, segment_bytes=2_048, random=random.Random(2).randbytes)
            found = numbers_in(twin, journal)
        except (FatalError, AssertionError):
            detected += 1
            continue
        if found == numbers:
            harmless += 1
        elif found == numbers[: len(found)]:
            lost.append(name)
        else:
            wrong.append(name)
    return Damage(len(changes), detected, harmless, lost, wrong)


@pytest.fixture
def tell_damage_stories() -> Callable[..., Damage]:
    return damage_stories


@pytest.fixture
def tell_power_stories() -> Callable[..., str | None]:
    return power_stories


@pytest.fixture
def power_story() -> type[PowerStory]:
    return PowerStory
