"""Damage to what stands beside the segments: fragments, the watermark, control.db, the lock. None of it shows anything wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from hub.control import Control
from hub.errors import FatalError
from hub.log import Follower, Log, LogOptions, OsFS, Retention, Schema, Transaction
from hub.log.browse import browse
from hub.log.fragment import read_fragment, read_pieces
from hub.log.transaction import decode_block
from hub.log.watermark import read_mark
from hub.record import Batch

OPTIONS = LogOptions(
    retention=Retention(age_s=None), fragments_after_s=0.0, keep_every_s=3600, mark_after_s=60, tail_bytes=0
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A log whose first ten transactions stand in a fragment, and the eleventh in a segment."""

    async def run() -> None:
        with Control(tmp_path / "control.db") as control:
            async with Log.open(tmp_path, OPTIONS, control=control) as log:
                await log.append(Transaction("t", [Schema("a", b"{}")]))
                for number in range(10):
                    await log.append(Transaction("t", [Batch.of_lines("a", [b"%d" % number])], b"p"))
                await log.roll()
                await log.keeper.keep()
                await log.append(Transaction("t", [Batch.of_lines("a", [b"10"])], b"p"))

    anyio.run(run)
    return tmp_path


def changes(content: bytes) -> Iterator[tuple[str, bytes]]:
    """A bit of every byte flipped, cut at every length, zeroed from every 16th byte on."""
    for at in range(len(content)):
        yield f"bit of byte {at}", content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :]
        yield f"cut at {at}", content[:at]
    for at in range(0, len(content), 16):
        yield f"zeroed from {at}", content[:at] + bytes(len(content) - at)


def through_fragment(path: Path, root: Path) -> list[int]:
    fragment = read_fragment(OsFS(), path)
    found: list[int] = []
    for piece, body in read_pieces(OsFS(), root, fragment, 0):
        item = decode_block(piece.block, body, "test")
        if isinstance(item, Batch):
            found += item.docs
    return found


@pytest.mark.rig
def test_no_damage_of_any_byte_of_a_fragment_is_served(data: Path) -> None:
    (path,) = (data / "fragments").rglob("*.frag")
    content, root = path.read_bytes(), path.parent.parent
    assert through_fragment(path, root) == list(range(10))
    wrong = []
    for name, changed in changes(content):
        path.write_bytes(changed)
        try:
            if through_fragment(path, root) != list(range(10)) and changed != content:
                wrong.append(name)
        except FatalError:
            pass
    assert wrong == []


def test_a_damaged_fragment_is_refused_when_the_log_opens_or_is_read(data: Path) -> None:
    (path,) = (data / "fragments").rglob("*.frag")
    content = path.read_bytes()

    async def run() -> None:
        with Control(data / "control.db") as control:
            async with Log.open(data, OPTIONS, control=control) as log:
                list(browse(log, lambda _: True))

    for changed in (content[:-1], content[: len(content) // 2], b"", bytes(len(content)), content + b"x"):
        path.write_bytes(changed)
        with pytest.raises(FatalError, match=r"\.frag"):
            anyio.run(run)


def test_whatever_the_watermark_says_nobody_is_shown_what_is_not_there(data: Path) -> None:
    """Scenarios 30 and 35. A mark beyond the file's end is damage of the file, not a reason to wait for ever."""
    (tail,) = (data / "journal").glob("*/tail")
    content = tail.read_bytes()
    for name, changed in changes(content):
        tail.write_bytes(changed)
        mark = read_mark(tail.parent)
        assert mark is None or changed == content, name
        log = Follower(data)
        log.refresh()
        assert [d for row in browse(log, lambda _: True) for d in row.batch.docs] == list(range(11)), name


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:100],
        lambda data: b"",
        lambda data: b"\xff" * len(data),
        lambda data: data[:4096] + b"\xa5" * (len(data) - 4096),
    ],
    ids=["cut", "empty", "overwritten", "all-but-the-first-page"],
)
def test_a_damaged_control_db_is_refused_or_told_again_and_loses_nothing(
    data: Path, change: Callable[[bytes], bytes]
) -> None:
    """Scenario 31."""
    control_db = data / "control.db"
    control_db.write_bytes(change(control_db.read_bytes()))

    async def run() -> list[int]:
        with Control(control_db) as control:
            async with Log.open(data, OPTIONS, control=control) as log:
                return [d for row in browse(log, lambda _: True) for d in row.batch.docs]

    try:
        found = anyio.run(run)
    except FatalError as error:
        assert "move it away" in str(error)
        for file in data.glob("control.db*"):
            file.unlink()
        found = anyio.run(run)
    assert found == list(range(11))


def test_what_the_lock_file_says_does_not_matter(data: Path) -> None:
    (lock,) = (data / "journal").glob("*/LOCK")
    lock.write_bytes(b"\xff\0pid 1 on nowhere" * 100)

    async def run() -> None:
        with Control(data / "control.db") as control:
            async with Log.open(data, OPTIONS, control=control) as log:
                assert log.position("t") == b"p"

    anyio.run(run)
