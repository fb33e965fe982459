"""The log as a process: killed, frozen with its file system shut down under it, given failing calls and a full disk.

Each time the acknowledgements that left the process are compared with what the log holds afterwards.
"""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import ClassVar

import anyio
import anyio.to_thread
import pytest

from hub.control import Control
from hub.log import Follower, Log, LogOptions, Retention
from hub.record import Batch

pytestmark = [pytest.mark.rig, pytest.mark.timeout(300)]

WRITER = Path(__file__).with_name("log_writer.py")
LARGE = Path(__file__).with_name("large_transaction.py")
SHIM = Path(__file__).with_name("faultshim.c")
GODOWN = 0x8004587D
"""XFS_IOC_GOINGDOWN, which ext4 has under the same number; 2 = do not flush the journal."""

SOAK = int(os.environ.get("HUB_SOAK", "1"))
SMALL = {"segment_bytes": 1 << 18, "retention": {"age_s": None}}


@pytest.fixture(autouse=True)
def no_writer_outlives_its_test() -> Iterator[None]:
    yield
    for writer in Writer.started:
        writer.kill()
    Writer.started.clear()


class Writer:
    """A log_writer process and the lines it has said so far."""

    started: ClassVar[list[Writer]] = []

    def __init__(self, path: Path, options: dict[str, object] | None = None, **environment: str) -> None:
        self.lines: list[str] = []
        self._rest = b""
        self.process = subprocess.Popen(
            [sys.executable, str(WRITER), str(path), json.dumps(SMALL | (options or {}))],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | environment,
        )
        assert self.process.stdout is not None
        self._out = self.process.stdout
        self.started.append(self)

    def listen(self, seconds: float, *, until: str = "") -> bool:
        """Take in lines for a while, or until one begins with `until`. False when the process has ended."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._out.closed:
                return False
            if select.select([self._out], [], [], left)[0]:
                data = os.read(self._out.fileno(), 1 << 16)
                if not data:
                    return False
                *whole, self._rest = (self._rest + data).split(b"\n")
                new = [line.decode() for line in whole]
                self.lines += new
                if until and any(line.startswith(until) for line in new):
                    return True
        return True

    def finish(self) -> int:
        """Take in what was said to the end."""
        self.listen(30)
        code = self.process.wait(30)
        self._out.close()
        return code

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.finish()

    @property
    def acked(self) -> list[int]:
        return [int(line[4:]) for line in self.lines if line.startswith("ack ")]


def numbers(path: Path, *, unsafe: bool = False) -> list[int]:
    """The numbers in a log, in order, after recovery."""

    async def read() -> list[int]:
        found: list[int] = []
        options = LogOptions(
            segment_bytes=1 << 18, allow_unsafe_filesystem=unsafe, retention=Retention(age_s=None)
        )
        with Control(path / "control.db") as control:
            async with Log.open(path, options, control=control) as log:
                reader = log.reader("check")
                while reader.lag_frames:
                    for committed in await reader.read():
                        for item in committed.items:
                            assert isinstance(item, Batch)
                            found += [d["n"] for d in item.docs]
                        reader.release(committed.size)
        return found

    return anyio.run(read)


def judge(path: Path, acked: list[int], *, unsafe: bool = False) -> None:
    found = numbers(path, unsafe=unsafe)
    assert len(found) == len(set(found)), "doubled"
    assert set(acked) <= set(found), f"lost {sorted(set(acked) - set(found))[:5]}"


def test_no_acknowledged_transaction_is_lost_when_the_writer_is_killed(tmp_path: Path) -> None:
    """Scenario 1."""
    acked: list[int] = []
    for _ in range(8 * SOAK):
        writer = Writer(tmp_path)
        writer.listen(20, until="open")
        writer.listen(random.uniform(0.01, 0.3))
        writer.kill()
        acked += writer.acked
        judge(tmp_path, acked)
    assert len(acked) > 100


@pytest.mark.parametrize("by", ["kill", "power"])
def test_nothing_is_lost_or_doubled_when_fragments_were_being_made(tmp_path: Path, by: str) -> None:
    """Scenario 8: stopped while segments are taken apart, fragments merged and registered, segments unlinked."""
    busy = {"fragments_after_s": 0.0, "keep_every_s": 0.01, "roll_after_s": 0.02}
    with mounted(tmp_path, "ext4", 400) as where:
        acked: list[int] = []
        for _ in range(6 * SOAK):
            writer = Writer(where / "data", busy)
            assert writer.listen(20, until="ack")
            writer.listen(random.uniform(0.05, 0.6))
            if by == "kill":
                writer.kill()
            else:
                cut_power(writer, where, tmp_path / "disk.img")
            acked += writer.acked
            judge(where / "data", acked)
        assert list((where / "data" / "fragments").rglob("*.frag"))


def test_a_second_writer_is_refused_naming_the_first(tmp_path: Path) -> None:
    """Scenario 37."""
    writer = Writer(tmp_path)
    writer.listen(20, until="ack")
    try:
        with pytest.raises(Exception, match=f"pid {writer.process.pid}"):
            numbers(tmp_path)
    finally:
        writer.kill()


@contextmanager
def mounted(tmp_path: Path, kind: str, megabytes: int) -> Iterator[Path]:
    """A file system of its own, in a loop file. Skips where there can be none."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("needs root and loop devices")
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    image, where = tmp_path / "disk.img", tmp_path / "disk"
    where.mkdir()
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, capture_output=True)
    mount(image, where)
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=False, capture_output=True)


def mount(image: Path, where: Path) -> None:
    done = subprocess.run(["mount", "-o", "loop", str(image), str(where)], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.decode().strip()}")


def cut_power(writer: Writer, where: Path, image: Path) -> None:
    """Freeze the writer, shut its file system down without a flush, kill it, and mount again with journal replay.

    It is frozen first: a file system shut down under a running fdatasync may answer success.
    """
    writer.process.send_signal(signal.SIGSTOP)
    while "T" not in Path(f"/proc/{writer.process.pid}/stat").read_text().rsplit(")", 1)[1][:3]:
        time.sleep(0.001)
    fd = os.open(where, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, GODOWN, array.array("I", [2]))
    finally:
        os.close(fd)
    writer.kill()
    subprocess.run(["umount", str(where)], check=True)
    mount(image, where)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_no_acknowledged_transaction_is_lost_when_the_power_is_cut(tmp_path: Path, kind: str) -> None:
    """Scenarios 2 and 3."""
    acked: list[int] = []
    with mounted(tmp_path, kind, 400) as where:
        for _ in range(6 * SOAK):
            writer = Writer(where / "data")
            assert writer.listen(20, until="open")
            writer.listen(random.uniform(0.02, 0.35))
            cut_power(writer, where, tmp_path / "disk.img")
            acked += writer.acked
            judge(where / "data", acked)
        assert len(acked) > 100


def test_the_power_cut_bites(tmp_path: Path) -> None:
    """The same cut, with a log that does not sync: acknowledged transactions are gone, and it is noticed."""
    with mounted(tmp_path, "ext4", 400) as where:
        lost = False
        for _ in range(5):
            data = where / f"data{_}"
            writer = Writer(data, {"durability": "os"})
            assert writer.listen(20, until="ack")
            writer.listen(0.2)
            cut_power(writer, where, tmp_path / "disk.img")
            if not set(writer.acked) <= set(numbers(data)):
                lost = True
                break
        assert lost


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("shim") / "faultshim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SHIM), "-ldl"], check=True)
    return library


@pytest.mark.parametrize(
    ("call", "code"),
    [("fdatasync", errno.EIO), ("fsync", errno.EIO), ("pwritev", errno.EIO), ("ftruncate", errno.EROFS)],
)
def test_a_failing_call_poisons_the_writer_and_loses_nothing(
    tmp_path: Path, shim: Path, call: str, code: int
) -> None:
    """Scenarios 13, 14, 19."""
    for _ in range(2 * SOAK):
        nth = random.randint(1, 60) if call in ("fdatasync", "pwritev") else random.randint(1, 8)
        path = tmp_path / f"{_}"
        writer = Writer(path, LD_PRELOAD=str(shim), FAULT=f"{call}:{nth}:{code}", FAULT_PATH=".seg")
        assert writer.finish() == 3 and writer.lines[-1] == "poisoned", writer.lines[-3:]
        judge(path, writer.acked)


def test_short_writes_are_completed(tmp_path: Path, shim: Path) -> None:
    """Scenario 16."""
    writer = Writer(tmp_path, LD_PRELOAD=str(shim), FAULT_SHORT="30", FAULT_PATH=".seg")
    writer.listen(20, until="open")
    writer.listen(0.5)
    writer.kill()
    assert len(writer.acked) > 20
    judge(tmp_path, writer.acked)


def test_no_space_for_a_write_is_full_and_passes(tmp_path: Path, shim: Path) -> None:
    writer = Writer(tmp_path, LD_PRELOAD=str(shim), FAULT=f"pwritev:20:{errno.ENOSPC}", FAULT_PATH=".seg")
    assert writer.listen(20, until="full")
    writer.listen(20, until="ack")
    writer.kill()
    judge(tmp_path, writer.acked)


def test_a_slow_disk_means_waiting_and_not_acknowledging(tmp_path: Path, shim: Path) -> None:
    """Scenario 21."""
    writer = Writer(tmp_path, {"tasks": 2}, LD_PRELOAD=str(shim), FAULT_DELAY_MS="300", FAULT_PATH=".seg")
    writer.listen(20, until="open")
    writer.listen(1.5)
    writer.kill()
    assert 0 < len(writer.acked) <= 14
    judge(tmp_path, writer.acked)


def test_a_full_disk_pauses_appends_and_they_go_on_when_there_is_room(tmp_path: Path) -> None:
    """Scenario 17, on a real small disk."""
    with mounted(tmp_path, "ext4", 24) as where:
        ballast = where / "ballast"
        ballast.write_bytes(bytes(16 << 20))
        writer = Writer(where / "data", {"segment_bytes": 1 << 20})
        assert writer.listen(60, until="full")
        writer.listen(0.3)
        before = len(writer.acked)
        ballast.unlink()
        writer.listen(20, until="ack")
        writer.listen(0.3)
        writer.kill()
        assert len(writer.acked) > before
        judge(where / "data", writer.acked)


def test_a_transaction_of_a_gigabyte_needs_a_fraction_of_it_in_memory(tmp_path: Path) -> None:
    """Scenario 41: in parts, invisible until its commit, then whole; never more than 128 MB in memory."""
    done = subprocess.run(
        [sys.executable, str(LARGE), str(tmp_path), "1024"], capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    records, peak_kib = map(int, done.stdout.split())
    assert records > 1_000_000 and peak_kib < 128 << 10


@contextmanager
def memory_limited(writer: Writer, megabytes: int) -> Iterator[None]:
    """A control group with so much memory, and the writer in it. Skips where none can be made."""
    root = Path("/sys/fs/cgroup")
    first, limit = root / "memory", "memory.limit_in_bytes"
    if (root / "cgroup.controllers").exists():
        first, limit = root, "memory.max"
    group = first / f"hub-test-{os.getpid()}"
    try:
        if first == root:
            (root / "cgroup.subtree_control").write_text("+memory")
        group.mkdir()
        (group / limit).write_text(str(megabytes << 20))
        (group / "cgroup.procs").write_text(str(writer.process.pid))
    except OSError as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"no control group with a limit can be made: {error}")
    try:
        yield
    finally:
        writer.kill()
        group.rmdir()


def test_nothing_is_lost_when_the_kernel_kills_for_want_of_memory(tmp_path: Path) -> None:
    """Scenario 11: the out-of-memory killer, in a control group."""
    writer = Writer(tmp_path, {"hoard": True})
    assert writer.listen(20, until="ack")
    with memory_limited(writer, 150):
        assert not writer.listen(60, until="never"), "it was not killed"
        assert writer.finish() == -signal.SIGKILL
    assert len(writer.acked) > 10
    judge(tmp_path, writer.acked)


def test_an_unreadable_fragment_stops_its_readers_and_nobody_else(tmp_path: Path, shim: Path) -> None:
    """Scenario 22: the disk fails under what is read; the error says where, appends go on."""
    code = f"""
import anyio
from pathlib import Path
from hub.control import Control
from hub.errors import TransientError
from hub.log import Follower, Log, LogOptions, Retention, Transaction
from hub.record import Batch

async def main(path):
    options = LogOptions(retention=Retention(age_s=None), fragments_after_s=0.0, keep_every_s=3600, tail_bytes=0)
    with Control(path / "control.db") as control:
        async with Log.open(path, options, control=control) as log:
            for name in ("sick", "well"):
                await log.append(Transaction("t", [Batch.of_lines(name, [b"1", b"2"])], b"p"))
            await log.roll()
            await log.keeper.keep()
            try:
                await log.reader("r", wanted=lambda name: name == "sick").read()
            except TransientError as error:
                print(error)
            found = await log.reader("r", wanted=lambda name: name == "well").read()
            await log.append(Transaction("t", [Batch.of_lines("well", [b"3"])], b"q"))
            print(sum(item.count for c in found for item in c.items))

anyio.run(main, Path({str(tmp_path)!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"LD_PRELOAD": str(shim), "FAULT_READS": "fragments", "FAULT_PATH": "sick-"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said, count = done.stdout.splitlines()
    assert "collection 'sick'" in said and "offset 0" in said and "Input/output error" in said
    assert count == "2"


def test_a_reader_of_another_process_misses_and_doubles_nothing_while_the_writer_is_killed(
    tmp_path: Path,
) -> None:
    """Scenario 34."""
    data = tmp_path / "data"
    writer = Writer(data)
    assert writer.listen(20, until="ack")
    acked: list[int] = []
    seen: list[int] = []

    async def follow() -> None:
        nonlocal writer
        async with Follower.open(data) as log:
            reader = log.reader("watching")
            for life in range(4):
                while len(seen) < 40 * (life + 1):
                    for committed in await reader.read():
                        reader.release(committed.size)
                        seen.extend(d["n"] for i in committed.items if isinstance(i, Batch) for d in i.docs)
                await anyio.to_thread.run_sync(writer.kill)
                acked.extend(writer.acked)
                writer = Writer(data)
                assert await anyio.to_thread.run_sync(partial(writer.listen, 20, until="ack"))
            await anyio.to_thread.run_sync(writer.kill)
            acked.extend(writer.acked)

    anyio.run(follow)
    judge(data, acked)
    assert seen == numbers(data)[: len(seen)]
