"""The log against the disk it stands on: every figure beside raw pwritev + fdatasync of the same bytes, same run.

python bench/log.py [--path DIR] [--seconds S] [--rss-minutes M] [--only NAME]… [--json]

`--only memory --rss-minutes 10` is the long run at full speed with one slow reader.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from hub.control import Control
from hub.log import Follower, Log, LogOptions, Retention, Transaction
from hub.log.fs import OsFS
from hub.log.identity import readable
from hub.log.recovery import open_journal
from hub.record import Batch, Cursor

Row = dict[str, object]
SEGMENT = 64 << 20


def documents(count: int, size: int) -> bytes:
    """NDJSON that looks like rows of a shop: names, numbers, times, and a part that does not repeat."""
    rng = random.Random(7)
    lines = []
    for number in range(count):
        row = {
            "id": number * 7919,
            "customer": f"customer {rng.randrange(100_000)}",
            "email": f"user{rng.randrange(100_000)}@example.com",
            "status": rng.choice(("new", "paid", "sent", "returned")),
            "amount": f"{rng.randrange(100_000)}.{rng.randrange(100):02}",
            "at": f"2026-11-{rng.randrange(1, 29):02}T{rng.randrange(24):02}:{rng.randrange(60):02}:07Z",
        }
        text = json.dumps(row, separators=(",", ":"))
        filler = size - len(text) - len(',"note":""') - 1
        words = " ".join(rng.choice(WORDS) for _ in range(max(0, filler) // 6 + 1))
        row["note"] = words[: max(0, filler)]
        lines.append(json.dumps(row, separators=(",", ":")).encode() + b"\n")
    return b"".join(lines)


WORDS = [
    "gift",
    "urgent",
    "fragile",
    "please",
    "ring",
    "twice",
    "leave",
    "with",
    "neighbour",
    "box",
    "blue",
    "large",
]


def raw_append(path: Path, data: bytes, seconds: float) -> tuple[float, float]:
    """Frames a second and bytes a second of pwritev + fdatasync into a preallocated file."""
    fd = os.open(path / "raw", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    size = max(SEGMENT, len(data) * 8)
    os.posix_fallocate(fd, 0, size)
    os.fsync(fd)
    frames, pos = 0, 0
    started = time.perf_counter()
    while (took := time.perf_counter() - started) < seconds:
        if pos + len(data) > size:
            os.ftruncate(fd, 0)
            os.posix_fallocate(fd, 0, size)
            os.fsync(fd)
            pos = 0
        os.pwritev(fd, [data], pos)
        os.fdatasync(fd)
        pos += len(data)
        frames += 1
    os.close(fd)
    (path / "raw").unlink()
    return frames / took, frames * len(data) / took


def options(level: int | None, **more: object) -> LogOptions:
    return LogOptions(compression_level=level, retention=Retention(age_s=0), keep_every_s=0.5, **more)  # type: ignore[arg-type]


async def log_append(
    path: Path, batch: Batch, level: int | None, seconds: float
) -> tuple[float, float, float]:
    """Frames a second, CPU seconds a frame, stored part of the raw bytes: one task, one frame after the other."""
    frames = 0
    with Control(path / "control.db") as control:
        async with Log.open(path, options(level), control=control) as log:
            cpu, started = time.process_time(), time.perf_counter()
            while (took := time.perf_counter() - started) < seconds:
                await log.append(Transaction("t", [batch], b"p"))
                frames += 1
            cpu = time.process_time() - cpu
            return frames / took, cpu / frames, log.stats.stored_bytes / log.stats.raw_bytes


def append_rows(path: Path, seconds: float) -> list[Row]:
    """Raw, plain log and compressed log take turns, so that all three meet the same disk."""
    rows: list[Row] = []
    for size, count in ((200, 1), (200, 100), (200, 1000), (1000, 1), (1000, 100), (1000, 1000)):
        data = documents(count, size)
        batch = Batch("a", count, ndjson=data)
        raw: list[float] = []
        plain: list[tuple[float, float, float]] = []
        packed: list[tuple[float, float, float]] = []
        for turn in range(3):
            for kind in range(3):
                where = path / f"{size}-{count}-{turn}-{kind}"
                where.mkdir()
                if kind == 0:
                    raw.append(raw_append(where, data, seconds)[0])
                else:
                    found = run(log_append, where, batch, None if kind == 1 else 1, seconds)
                    (plain if kind == 1 else packed).append(found)
                shutil.rmtree(where)
        rows.append(
            {
                "append": f"{size} B x {count}",
                "raw rec/s": max(raw) * count,
                "log rec/s": max(p[0] for p in plain) * count,
                "of raw": max(p[0] for p in plain) / max(raw),
                "zstd-1 rec/s": max(p[0] for p in packed) * count,
                "size": packed[0][2],
                "CPU us/rec": min(p[1] for p in plain) / count * 1e6,
                "zstd CPU us/rec": min(p[1] for p in packed) / count * 1e6,
            }
        )
    return rows


async def many_tasks(path: Path, tasks: int, seconds: float) -> Row:
    """Each task appends one record after the other; beside it one sync for each record, and one for a whole group."""
    latencies: list[float] = []
    data = documents(1, 200)
    batch = Batch("a", 1, ndjson=data)
    alone = raw_append(path, data, seconds / 4)[0]
    groups = raw_append(path, data * tasks, seconds / 4)[0]
    async with Log.open(path, options(None)) as log:
        cpu, end = time.process_time(), time.perf_counter() + seconds

        async def append() -> None:
            while (started := time.perf_counter()) < end:
                await log.append(Transaction("t", [batch], b"p"))
                latencies.append(time.perf_counter() - started)

        async with anyio.create_task_group() as group:
            for _ in range(tasks):
                group.start_soon(append)
        cpu = time.process_time() - cpu
        syncs = log.stats.groups
    latencies.sort()
    return {
        "tasks x 1 record": tasks,
        "commits/s": len(latencies) / seconds,
        "raw, a sync each": alone,
        "raw, a sync a group": groups * tasks,
        "syncs/s": syncs / seconds,
        "CPU us/commit": cpu / len(latencies) * 1e6,
        "p50 ms": latencies[len(latencies) // 2] * 1e3,
        "p99 ms": latencies[len(latencies) * 99 // 100] * 1e3,
    }


async def read_back(path: Path, size: int, count: int, level: int | None, megabytes: int) -> Row:
    """Warm reading of sealed segments, checksums compared, and of the tail in memory."""
    data = documents(count, size)
    batch = Batch("a", count, ndjson=data)
    keep = LogOptions(compression_level=level, retention=Retention(age_s=None), tail_bytes=0)
    async with Log.open(path, keep) as log:
        for _ in range((megabytes << 20) // len(data)):
            await log.append(Transaction("t", [batch], b"p"))
        best = 0.0
        for _ in range(3):
            reader = log.reader("r", credit_bytes=1 << 40)
            total, started = 0, time.perf_counter()
            while reader.lag_frames:
                for committed in await reader.read(8 << 20):
                    total += committed.size
            best = max(best, total / (time.perf_counter() - started))
    return {"read back": f"{size} B x {count}", "codec": "zstd-1" if level else "none", "MB/s": best / 1e6}


def recovery(path: Path, size: int, count: int) -> Row:
    """Opening a full segment that was never sealed."""
    data = documents(count, size)
    batch = Batch("a", count, ndjson=data)

    async def fill() -> None:
        async with Log.open(path, LogOptions(compression_level=None, mark_after_s=60)) as log:

            async def append() -> None:
                while log.writer.live is not None and log.writer.live.end < SEGMENT - 64 * (len(data) + 500):
                    await log.append(Transaction("t", [batch], b"p"))

            async with anyio.create_task_group() as group:
                for _ in range(32):
                    group.start_soon(append)
            log.writer.abandon()

    anyio.run(fill)
    started = time.perf_counter()
    journal, report = open_journal(OsFS(), path / "journal" / readable(path, None), segment_bytes=SEGMENT)
    took = time.perf_counter() - started
    journal.abandon()
    return {
        "recovery": f"{size} B x {count}",
        "MB": report.scanned_bytes / 1e6,
        "s": took,
        "s/64 MB": took * SEGMENT / report.scanned_bytes,
    }


async def hand_over(path: Path, count: int) -> Row:
    """From the moment an append is durable to the moment a waiting reader of this process holds it."""
    batch = Batch("a", 1, ndjson=documents(1, 200))
    async with Log.open(path, options(None)) as log:
        reader = log.reader("r")
        read: list[float] = []

        async def follow() -> None:
            while len(read) < count:
                got = await reader.read()
                now = time.perf_counter()
                read.extend([now] * len(got))
                reader.release(reader.outstanding_bytes)

        durable: list[float] = []
        publish = log.announce

        def announce() -> None:
            durable.append(time.perf_counter())
            publish()

        log.announce = announce  # type: ignore[method-assign]
        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            await anyio.sleep(0.05)
            for _ in range(count):
                await log.append(Transaction("t", [batch], b"p"))
        waits = sorted(r - d for r, d in zip(read, durable, strict=False))
    return {
        "hand-over": "same process",
        "p50 us": waits[len(waits) // 2] * 1e6,
        "p99 us": waits[len(waits) * 99 // 100] * 1e6,
    }


async def hand_over_to_process(path: Path, count: int) -> Row:
    """From the moment an append is durable to the moment a reader in another process holds it."""
    durable: dict[int, int] = {}
    async with Log.open(path, options(None)) as log:
        await log.append(Transaction("t", [Batch.of_lines("a", [b"0"])]))
        publish = log.announce

        def announce() -> None:
            durable[log.writer.written_seq] = time.perf_counter_ns()
            publish()

        log.announce = announce  # type: ignore[method-assign]
        command = [sys.executable, __file__, "--follow", str(path), "--count", str(count)]
        child = await anyio.to_thread.run_sync(lambda: subprocess.Popen(command, stdout=subprocess.PIPE))
        assert child.stdout is not None
        await anyio.to_thread.run_sync(child.stdout.readline)
        for number in range(count):
            await log.append(Transaction("t", [Batch.of_lines("a", [b"%d" % number])]))
            await anyio.sleep(0.002)
        line = await anyio.to_thread.run_sync(child.stdout.readline)
        child.wait()
        child.stdout.close()
    waits = sorted(seen - durable[seq] for seq, seen in json.loads(line) if seq in durable)
    return {
        "hand-over": "other process",
        "p50 us": waits[len(waits) // 2] / 1e3,
        "p99 us": waits[len(waits) * 99 // 100] / 1e3,
    }


async def follow(path: Path, count: int) -> None:
    """The other process: says when it held each frame, by the clock that all processes share."""
    async with Follower.open(path) as follower:
        reader = follower.reader("r", start=Cursor({follower.journal: follower.end}))
        print("ready", flush=True)
        seen: list[tuple[int, int]] = []
        while len(seen) < count:
            for committed in await reader.read():
                seen.append((committed.place.seq, time.perf_counter_ns()))
                reader.release(committed.size)
        print(json.dumps(seen), flush=True)


async def flat_memory(path: Path, minutes: float) -> Row:
    """Full speed with one slow reader: the log's cap fills up, appends wait, memory stays."""
    from hub.errors import Full

    batch = Batch("a", 1000, ndjson=documents(1000, 200))
    seen: list[int] = []
    limits = LogOptions(cap_bytes=1 << 30, retention=Retention(age_s=0), keep_every_s=0.5)
    with Control(path / "control.db") as control:
        async with Log.open(path, limits, control=control) as log:
            end = time.monotonic() + minutes * 60
            reader = log.reader("slow", credit_bytes=4 << 20)
            await control.hold("slow", Cursor.START)

            async def consume() -> None:
                while time.monotonic() < end:
                    for committed in await reader.read(1 << 20):
                        reader.release(committed.size)
                    await anyio.sleep(0.01)
                    await control.hold("slow", reader.cursor)

            async def produce() -> None:
                while time.monotonic() < end:
                    try:
                        await log.append(Transaction("t", [batch], b"p"))
                    except Full:
                        await log.room()

            async def watch() -> None:
                while time.monotonic() < end:
                    await anyio.sleep(1)
                    seen.append(rss())

            async with anyio.create_task_group() as group:
                for task in (consume, watch, produce, produce):
                    group.start_soon(task)
            records = log.stats.records
    tenth = max(1, len(seen) // 10)
    peaks = [max(seen[at : at + tenth]) for at in range(0, len(seen) - tenth + 1, tenth)]
    return {
        "slow reader, min": minutes,
        "records": records,
        "peak RSS MB by tenth of the run": " ".join(f"{peak / 1e6:.0f}" for peak in peaks),
    }


async def large_transaction(path: Path, megabytes: int) -> Row:
    """One source transaction larger than the budget: appended in parts, then read, memory watched."""
    data = documents(5000, 200)
    batch = Batch("a", 5000, ndjson=data)
    seen: list[int] = []
    total = 0
    limits = LogOptions(retention=Retention(age_s=None), tail_bytes=16 << 20, queue_bytes=16 << 20)
    before = rss()
    async with Log.open(path, limits) as log:
        started = time.perf_counter()
        large = log.begin("t")
        for _ in range((megabytes << 20) // len(data)):
            await large.part([batch])
            seen.append(rss())
        await large.commit([], b"p")
        wrote = time.perf_counter() - started
        reader = log.reader("r", credit_bytes=8 << 20)
        started = time.perf_counter()
        while reader.lag_frames:
            for committed in await reader.read(4 << 20):
                total += committed.size
                reader.release(committed.size)
            seen.append(rss())
        read = time.perf_counter() - started
    return {
        "one transaction, MB": megabytes,
        "append MB/s": total / wrote / 1e6,
        "read MB/s": total / read / 1e6,
        "RSS grew by MB": (max(seen) - before) / 1e6,
    }


def rss() -> int:
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def run(call: Callable[..., Any], *arguments: Any) -> Any:
    """On the loop that `hub run` uses."""
    return anyio.run(call, *arguments, backend_options={"use_uvloop": True})


PARTS = ("append", "tasks", "read", "recovery", "handover", "large", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rss-minutes", type=float, default=0.25)
    parser.add_argument("--large-mb", type=int, default=1024)
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part alone")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--follow", type=Path)
    parser.add_argument("--count", type=int, default=500)
    given = parser.parse_args()
    if given.follow:
        run(follow, given.follow, given.count)
        return
    # As `hub run` does: the defaults of the collector are made for programs that keep less.
    gc.set_threshold(50_000, 20, 100)
    tables: list[list[Row]] = []
    with tempfile.TemporaryDirectory(dir=given.path) as base:
        turn = iter(range(1000))

        def fresh() -> Path:
            made = Path(base) / str(next(turn))
            made.mkdir()
            return made

        parts: dict[str, Callable[[], list[Row]]] = {
            "append": lambda: append_rows(fresh(), given.seconds),
            "tasks": lambda: [run(many_tasks, fresh(), tasks, given.seconds * 4) for tasks in (1, 16, 256)],
            "read": lambda: [
                run(read_back, fresh(), size, 1000, level, 256) for size in (200, 1000) for level in (None, 1)
            ],
            "recovery": lambda: [recovery(fresh(), 200, 1), recovery(fresh(), 200, 1000)],
            "handover": lambda: [
                run(hand_over, fresh(), 1000),
                run(hand_over_to_process, fresh(), given.count),
            ],
            "large": lambda: [run(large_transaction, fresh(), given.large_mb)],
            "memory": lambda: [run(flat_memory, fresh(), given.rss_minutes)],
        }
        tables += [parts[name]() for name in given.only or PARTS]
    if given.json:
        print(json.dumps(tables))
        return
    for table in tables:
        show(table)


def show(table: list[Row]) -> None:
    names = list(table[0])
    cells = [[cell(row[name]) for name in names] for row in table]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    for line in [names, *cells]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    print()


def cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
