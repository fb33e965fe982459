"""The log as its users see it: appends, positions, schemas, readers, limits, and what it refuses."""

from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path

import anyio
import msgspec
import pytest
import zstandard
from google_crc32c import value as crc_of

from hub.control import Control
from hub.errors import ConfigError, Corrupt, FatalError, Full, LogError, Poisoned, RecordError
from hub.log import Committed, Log, LogOptions, OsFS, Reader, Retention, Schema, Transaction
from hub.log.browse import browse, cursor_before
from hub.log.clock import AWAY_US_MAX, LogClock
from hub.log.fs import filesystem_of, refuse_unsafe
from hub.log.transaction import BlockHead, decode_block
from hub.record import Batch, Cursor

pytestmark = pytest.mark.anyio

OPTIONS = LogOptions(segment_bytes=1 << 16, retention=Retention(age_s=None), mark_after_s=60)


def lines(*texts: bytes, collection: str = "a") -> Batch:
    return Batch.of_lines(collection, texts)


async def drained(reader: Reader) -> list[Committed]:
    found: list[Committed] = []
    while reader.lag_frames:
        got = await reader.read()
        found += got
        reader.release(sum(c.size for c in got))
    return found


async def test_batches_come_back_as_they_were(tmp_path: Path) -> None:
    batch = Batch.of_lines(
        "shop/orders",
        [b'{"price":1.10}', b'{"big":12345678901234567890}'],
        ops=b"ud",
        shared={"table": "orders", "n": 1},
        columns={"lsn": [7, None], "before": [b'{"price":1.00}', None]},
    )
    async with Log.open(tmp_path, LogOptions(compress_from_bytes=0, mark_after_s=60)) as log:
        await log.append(Transaction("t", [batch, batch.with_collection("other")], b"p"))
        from_memory = (await log.reader("memory").read())[0]
    async with Log.open(tmp_path, OPTIONS) as log:
        from_disk = (await log.reader("disk").read())[0]
    for found in (from_memory, from_disk):
        one, two = found.items
        assert isinstance(one, Batch) and isinstance(two, Batch)
        assert (one.ndjson, one.ops, one.shared) == (batch.ndjson, b"ud", {"table": "orders", "n": 1})
        assert one.columns_json == batch.columns_json and one.columns["lsn"] == [7, None]
        assert two.collection == "other" and found.complete and found.task == "t"


async def test_positions_notes_and_schemas_survive_restarts_and_retention(tmp_path: Path) -> None:
    with Control(tmp_path / "control.db") as control:
        for number in range(3):
            options = LogOptions(segment_bytes=1 << 16, retention=Retention(age_s=0), fragments_after_s=None)
            async with Log.open(tmp_path, options, control=control) as log:
                if number == 0:
                    await log.append(Transaction("t", [lines(b"0")], b"zeroth", note=b"kept"))
                    await log.append(Transaction("t", [Schema("a", b"1"), lines(b"1")], b"first"))
                else:
                    assert (log.position("t"), log.note("t")) == (b"first", b"kept")
                    assert log.schema("a") == b"1"
                    assert log.collections()["a"].count == 2
                await log.roll()
                await log.keeper.keep()
        assert len(log.writer.segments) <= 2


async def test_a_token_is_written_once(tmp_path: Path) -> None:
    """Scenario 54: a source that delivers again."""
    async with Log.open(tmp_path, OPTIONS) as log:
        first = await log.append(Transaction("http", [lines(b"1")], token=b"request-1"))
        again = await log.append(Transaction("http", [lines(b"1")], token=b"request-1"))
        other = await log.append(Transaction("else", [lines(b"1")], token=b"request-1"))
        assert first == again != other
    async with Log.open(tmp_path, OPTIONS) as log:
        assert await log.append(Transaction("http", [lines(b"1")], token=b"request-1")) == first
        assert log.collections()["a"].count == 2


async def test_the_same_token_twice_at_once_is_written_once(tmp_path: Path) -> None:
    async with Log.open(tmp_path, OPTIONS) as log:
        places = set()

        async def append() -> None:
            places.add(await log.append(Transaction("http", [lines(b"1")], token=b"x")))

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(append)
        assert len(places) == 1 and log.collections()["a"].count == 1


async def test_a_large_transaction_is_seen_whole_or_not_at_all(tmp_path: Path) -> None:
    """Scenario 41, small."""
    async with Log.open(tmp_path, OPTIONS) as log:
        large, given_up = log.begin("snapshot"), log.begin("other")
        await large.part([Schema("a", b"s"), lines(b"1", b"2")])
        await given_up.part([lines(b"666")])
        await log.append(Transaction("stream", [lines(b"10")]))
        reader = log.reader("r")
        (seen,) = await reader.read()
        assert seen.task == "stream"
        await large.part([lines(b"3")])
        await given_up.abort()
        await large.commit([lines(b"4")], b"done", b"noted")
        rest = await drained(reader)
        assert [c.complete for c in rest] == [False, False, True] and len({c.place for c in rest}) == 1
        assert [d for c in rest for i in c.items if isinstance(i, Batch) for d in i.docs] == [1, 2, 3, 4]
        assert reader.cursor.journals[log.journal] == rest[-1].place or reader.lag_frames == 0
        with pytest.raises(LogError, match="was aborted"):
            await given_up.part([lines(b"1")])
    async with Log.open(tmp_path, OPTIONS) as log:
        assert log.position("snapshot") == b"done" and log.note("snapshot") == b"noted"
        assert log.schema("a") == b"s"
        assert log.collections()["a"].count == 5
        left = log.begin("snapshot")
        await left.part([lines(b"7")])
    async with Log.open(tmp_path, OPTIONS) as log:
        found = await drained(log.reader("r"))
        assert sum(i.count for c in found for i in c.items if isinstance(i, Batch)) == 5


async def test_a_reader_gets_no_more_than_its_credit(tmp_path: Path) -> None:
    async with Log.open(tmp_path, OPTIONS) as log:
        for _ in range(20):
            await log.append(Transaction("t", [lines(b'"%s"' % (b"x" * 1000))]))
        for fresh in (log.reader("memory", credit_bytes=5_000), log.reader("disk", credit_bytes=5_000)):
            if fresh.name == "disk":
                log.tail.first_seq = log.end.seq + 1
            got = len(await fresh.read())
            assert got == 4
            assert fresh.outstanding_bytes <= 5_000
            with anyio.move_on_after(0.05) as waited:
                while True:
                    await fresh.read()
            assert waited.cancelled_caught
            fresh.release(fresh.outstanding_bytes)
            assert len(await fresh.read()) > 0


async def test_a_reader_that_starts_in_the_middle_gets_the_schemas_that_hold_there(tmp_path: Path) -> None:
    async with Log.open(tmp_path, OPTIONS) as log:
        await log.append(Transaction("t", [Schema("a", b"1"), lines(b"1")]))
        middle = await log.append(Transaction("t", [Schema("b", b"b"), lines(b"2")]))
        await log.append(Transaction("t", [Schema("a", b"2"), lines(b"3")]))
        reader = log.reader("r", start=Cursor({log.journal: middle}), wanted=lambda name: name == "a")
        first = await reader.read()
        assert [c.items for c in first] == [[Schema("a", b"1")]]
        assert (await reader.read())[0].items[0] == Schema("a", b"2")


async def test_the_cursor_moves_past_what_nobody_wanted(tmp_path: Path) -> None:
    async with Log.open(tmp_path, OPTIONS) as log:
        reader = log.reader("r", wanted=lambda name: name == "b")
        place = await log.append(Transaction("t", [lines(b"1")]))
        assert await reader.read() == ()
        assert reader.cursor.journals[log.journal] == place


async def test_a_record_above_the_limit_is_refused_with_its_size_and_place(tmp_path: Path) -> None:
    """Scenario 42."""
    async with Log.open(tmp_path, LogOptions(max_record_bytes=100_000)) as log:
        await log.append(Transaction("t", [lines(b'"%s"' % (b"x" * 90_000))]))
        with pytest.raises(RecordError, match=r"record 1 .* 120002 bytes.*log.max_record"):
            await log.append(Transaction("t", [lines(b"1", b'"%s"' % (b"x" * 120_000))]))


async def test_a_record_of_64_mb_is_stored(tmp_path: Path) -> None:
    big = b'"%s"' % (b"x" * ((64 << 20) - 2))
    async with Log.open(tmp_path, LogOptions(compression_level=None)) as log:
        await log.append(Transaction("t", [lines(big)]))
    async with Log.open(tmp_path) as log:
        (found,) = await log.reader("r").read()
        assert isinstance(found.items[0], Batch) and found.items[0].ndjson == big + b"\n"


class FailingFS(OsFS):
    """Fails one kind of call with an error for as long as it is told to."""

    def __init__(self) -> None:
        self.error: int | None = None

    def sync(self, fd: int) -> None:
        if self.error == errno.EIO:
            raise OSError(self.error, os.strerror(self.error))
        super().sync(fd)

    def open(self, path: Path, *, create: bool = False, write: bool = True) -> int:
        if create and self.error == errno.EMFILE:
            raise OSError(errno.EMFILE, "too many open files")
        return super().open(path, create=create, write=write)


async def test_after_a_failed_sync_the_writer_is_finished_and_a_new_open_goes_on(tmp_path: Path) -> None:
    """Scenario 13."""
    fs = FailingFS()
    async with Log.open(tmp_path, OPTIONS, fs=fs) as log:
        place = await log.append(Transaction("t", [lines(b"1")], b"1"))
        fs.error = errno.EIO
        with pytest.raises(Poisoned, match="recovery"):
            await log.append(Transaction("t", [lines(b"2")], b"2"))
        fs.error = None
        with pytest.raises(Poisoned):
            await log.append(Transaction("t", [lines(b"3")], b"3"))
        assert log.end == place and log.position("t") == b"1"
        reader = log.reader("r")
        await drained(reader)
        with pytest.raises(Poisoned):
            await reader.read()
    async with Log.open(tmp_path, OPTIONS) as log:
        assert log.position("t") in (b"1", b"2")
        await log.append(Transaction("t", [lines(b"4")], b"4"))


async def test_a_disk_that_is_full_from_the_start_means_waiting(tmp_path: Path) -> None:
    fs = FailingFS()
    fs.error = errno.EMFILE
    with Control(tmp_path / "control.db") as control:
        async with Log.open(tmp_path, OPTIONS, fs=fs, control=control) as log:
            reader = log.reader("r")
            with pytest.raises(Full):
                await log.append(Transaction("t", [lines(b"1")], b"1"))
            fs.error = None
            await log.append(Transaction("t", [lines(b"2")], b"2"))
            assert [d for c in await drained(reader) for d in c.items[0].docs] == [2]  # type: ignore[union-attr]


async def test_without_a_descriptor_for_a_segment_appends_wait(tmp_path: Path) -> None:
    """Scenario 20."""
    fs = FailingFS()
    async with Log.open(tmp_path, OPTIONS, fs=fs) as log:
        await log.append(Transaction("t", [lines(b"1")], b"1"))
        fs.error = errno.EMFILE
        log.writer.syncing = False
        with pytest.raises(Full, match="no segment can be made"):
            while True:
                await log.append(Transaction("t", [lines(b'"%s"' % (b"x" * 20_000))], b"1"))
        fs.error = None
        log.writer.syncing = True
        await log.append(Transaction("t", [lines(b"2")], b"2"))
        assert log.position("t") == b"2"


async def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "data"
    options = LogOptions(segment_bytes=1 << 16, retention=Retention(age_s=None), fragments_after_s=0.0)
    with Control(path / "control.db") as control:
        async with Log.open(path, options, control=control) as log:
            await log.append(Transaction("t", [lines(b"1")]))
            await log.roll()
            await log.keeper.keep()
            modes = {found: stat.S_IMODE(found.stat().st_mode) for found in [path, *sorted(path.rglob("*"))]}
    assert {oct(mode) for found, mode in modes.items() if found.is_dir()} == {"0o700"}
    assert {oct(mode) for found, mode in modes.items() if found.is_file()} == {"0o600"}, modes


@pytest.mark.parametrize("name", ["LOCK", "tail", "000000000001.seg"])
async def test_links_are_not_followed(tmp_path: Path, name: str) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    async with Log.open(data, OPTIONS) as log:
        await log.append(Transaction("t", [lines(b"1")]))
    victim = data / "journal" / log.journal / name
    other.write_bytes(victim.read_bytes())
    before = other.read_bytes()
    victim.unlink()
    victim.symlink_to(other)
    with pytest.raises(FatalError, match=r"cannot be opened.*symbolic links"):
        async with Log.open(data, OPTIONS):
            pass
    assert other.read_bytes() == before


async def test_what_is_private_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Control(tmp_path / "data" / "control.db") as control:
            async with Log.open(tmp_path / "data", OPTIONS, control=control) as log:
                await log.append(Transaction("t", [lines(b"1")]))
                found = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
                modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in found}
    finally:
        os.umask(before)
    assert not {name: oct(mode) for name, mode in modes.items() if mode & 0o077}


def test_a_block_is_never_inflated_beyond_what_its_head_states() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(50 << 20))
    head = BlockHead("a", 1, 0, 0, 0, 1, 1_000, len(bomb), crc_of(bomb), 0, 0, b"")
    for lies in (head, msgspec.structs.replace(head, raw_len=1 << 40)):
        with pytest.raises(Corrupt, match="states another length"):
            decode_block(lies, bomb, "test")
    unstated = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(50 << 20))
    nameless = msgspec.structs.replace(head, stored_len=len(unstated), crc=crc_of(unstated))
    with pytest.raises(Corrupt):
        decode_block(nameless, unstated, "test")


def test_memory_file_systems_are_refused_unless_told() -> None:
    """Scenario 23."""
    path = Path("/dev/shm") / f"hub-test-{os.getpid()}"
    if not Path("/dev/shm").is_mount():
        pytest.skip("/dev/shm is no tmpfs here")
    path.mkdir()
    try:
        with pytest.raises(ConfigError, match="tmpfs"):
            refuse_unsafe(path)
    finally:
        path.rmdir()


def test_network_file_systems_are_known_by_the_mount_table() -> None:
    table = (
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        "40 22 0:44 / /mnt/share rw - nfs4 server:/export rw,vers=4.2\n"
        "41 22 0:45 / /mnt/ssh rw - fuse.sshfs host:/ rw\n"
    )
    assert [filesystem_of(table, 254, 0), filesystem_of(table, 0, 44), filesystem_of(table, 0, 45)] == [
        "ext4",
        "nfs4",
        "fuse.sshfs",
    ]
    assert filesystem_of(table, 9, 9) == ""


async def test_a_time_is_found_across_a_clock_that_jumped_back(tmp_path: Path) -> None:
    """Scenario 43: the log's times never go back, so what was appended since a time is all that follows it."""
    steady = [0]
    second = 1_000_000
    wall = 5_000 * second
    starts: list[int] = []
    for back_s in (0, 1_000, 2_000):
        async with Log.open(
            tmp_path, OPTIONS, wall=lambda back_s=back_s: wall - back_s * second, steady=lambda: steady[0]
        ) as log:
            for number in range(2):
                steady[0] += 10 * second
                starts.append(log.writer.clock.now_us())
                await log.append(Transaction("t", [lines(b"%d" % (len(starts) * 10 + number))], b"p"))
            assert starts == sorted(starts)
    async with Log.open(tmp_path, OPTIONS, wall=lambda: wall, steady=lambda: steady[0]) as log:
        for index, since_us in enumerate(starts):
            found = [row.piece.ts_us for row in browse(log, lambda _: True, since_us=since_us)]
            assert len(found) == len(starts) - index
            reader = log.reader("r", start=cursor_before(log, since_us=since_us))
            assert len(await drained(reader)) == len(starts) - index


async def test_weaker_durability_is_said_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "hub.log"):
        async with Log.open(tmp_path, LogOptions(durability="interval", interval_s=0.01)) as log:
            place = await log.append(Transaction("t", [lines(b"1")]))
            with anyio.fail_after(5):
                while log.writer.durable_seq < place.seq:  # noqa: ASYNC110
                    await anyio.sleep(0.005)
    assert "power loss may take the last interval" in caplog.text


async def test_appends_at_once_share_a_sync(tmp_path: Path) -> None:
    async with Log.open(tmp_path, OPTIONS) as log:
        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(log.append, Transaction(f"t{number}", [lines(b"%d" % number)], b"p"))
        assert log.stats.transactions == 200 and log.stats.groups < 60
        assert sorted(d for c in await drained(log.reader("r")) for d in c.items[0].docs) == list(range(200))  # type: ignore[union-attr]


async def test_what_is_not_wanted_any_more_while_it_waits_leaves_the_queue_whole(tmp_path: Path) -> None:
    """An append that is cancelled is there as a whole or not at all, and takes nobody with it."""
    async with Log.open(tmp_path, OPTIONS) as log:
        with anyio.move_on_after(0):
            await log.append(Transaction("t", [lines(b"1")], b"1"))
        await log.append(Transaction("t", [lines(b"2")], b"2"))
        assert log.queued_bytes == 0 and log.position("t") == b"2"
        found = [
            d for c in await drained(log.reader("r")) for i in c.items if isinstance(i, Batch) for d in i.docs
        ]
        assert found in ([2], [1, 2])


def test_time_never_goes_back_and_a_jump_does_not_move_it() -> None:
    """Scenarios 12 and 43."""
    wall, steady = [1_000_000_000], [0]
    clock = LogClock(0, wall=lambda: wall[0], steady=lambda: steady[0])
    steady[0] += 5_000_000
    wall[0] -= 3_600_000_000
    assert clock.now_us() == 1_005_000_000 and clock.jumped_us < 0
    wall[0] += 10 * 365 * 86_400 * 1_000_000
    assert clock.now_us() == 1_005_000_000 and clock.jumped_us > 0
    behind = LogClock(wall[0] + 7_000_000, wall=lambda: wall[0], steady=lambda: steady[0])
    assert behind.now_us() == wall[0] + 7_000_000 and behind.set_back_us == 7_000_000
    ahead = LogClock(1_000_000_000, wall=lambda: wall[0], steady=lambda: steady[0])
    assert ahead.now_us() == 1_000_000_000 + AWAY_US_MAX


async def test_a_jump_of_ten_years_while_the_hub_was_down_drops_nothing_young(tmp_path: Path) -> None:
    """Scenario 12: age counts at most a week of absence."""
    year_us = 365 * 86_400 * 1_000_000
    options = LogOptions(retention=Retention(age_s=30 * 86_400), fragments_after_s=None)
    with Control(tmp_path / "control.db") as control:
        async with Log.open(tmp_path, options, control=control, wall=lambda: 50 * year_us) as log:
            await log.append(Transaction("t", [lines(b"1")]))
        async with Log.open(tmp_path, options, control=control, wall=lambda: 60 * year_us) as log:
            await log.keeper.keep()
            assert len(await drained(log.reader("r"))) == 1
