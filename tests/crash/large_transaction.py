"""One source transaction larger than its process may be: appended in parts, committed, read back.

    python large_transaction.py DIRECTORY MEGABYTES

Prints the records that were read and the most memory the process ever had, in KiB.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from hub.log import Log, LogOptions, Retention, Transaction
from hub.record import Batch

OPTIONS = LogOptions(
    compression_level=None, retention=Retention(age_s=None), tail_bytes=8 << 20, queue_bytes=8 << 20
)
RECORDS = 2_000


async def main(path: Path, megabytes: int) -> None:
    lines = [
        b'{"id":%d,"text":"%s"}' % (n * 7919, b"customer %d " % (n * 104_729) * 40) for n in range(RECORDS)
    ]
    batch = Batch.of_lines("big", lines)
    async with Log.open(path, OPTIONS) as log:
        reader = log.reader("r", credit_bytes=4 << 20)
        large = log.begin("snapshot")
        parts = (megabytes << 20) // batch.size
        for number in range(parts):
            await large.part([batch])
            if number % 50 == 0:
                await log.append(Transaction("stream", [Batch.of_lines("small", [b"1"])]))
        seen = sum(
            i.count
            for c in await reader.read()
            for i in c.items
            if isinstance(i, Batch) and i.collection == "big"
        )
        assert seen == 0, "a part was shown before its commit"
        reader.release(reader.outstanding_bytes)
        await large.commit([], b"done")
        places = set()
        while reader.lag_frames:
            for committed in await reader.read(2 << 20):
                reader.release(committed.size)
                for item in committed.items:
                    if isinstance(item, Batch) and item.collection == "big":
                        seen += item.count
                        places.add(committed.place)
        assert seen == parts * RECORDS and len(places) == 1
    print(seen, peak_kib())


def peak_kib() -> int:
    """Not getrusage's figure: that one begins with what the parent had when it forked."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
