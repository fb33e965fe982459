"""A process that appends to a log for as long as it lives, and says on stdout what was acknowledged.

    python log_writer.py DIRECTORY [OPTIONS as JSON]

Lines: `ack N`, `full`, `poisoned`. It is killed, frozen, starved and lied to by the tests of this directory.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

import anyio
import msgspec

from hub.control import Control
from hub.errors import Full, Poisoned
from hub.log import Log, LogOptions, Transaction
from hub.record import Batch


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def main(path: Path, options: LogOptions, tasks: int, hoards: bool) -> None:
    with Control(path / "control.db") as control:
        async with Log.open(path, options, control=control) as log:
            say(f"open {log.end.epoch} {log.end.seq}")
            number = max([int(log.position(f"t{task}") or b"0") for task in range(tasks)])

            async def append(task: int) -> None:
                nonlocal number
                while True:
                    number += 1
                    mine = number
                    padding = b"x" * random.choice((1, 50, 300, 5_000))
                    batch = Batch.of_lines("c", [b'{"n":%d,"pad":"%s"}' % (mine, padding)])
                    while True:
                        try:
                            await log.append(Transaction(f"t{task}", [batch], b"%d" % mine))
                            break
                        except Full:
                            say("full")
                            await log.room(0.05)
                    say(f"ack {mine}")

            async def take_memory() -> None:
                taken: list[bytearray] = []
                while True:
                    taken.append(bytearray(b"x" * (1 << 20)))
                    await anyio.sleep(0.005)

            async with anyio.create_task_group() as group:
                if hoards:
                    group.start_soon(take_memory)
                for task in range(tasks):
                    group.start_soon(append, task)


if __name__ == "__main__":
    try:
        given = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
        tasks = given.pop("tasks", 4)
        hoards = given.pop("hoard", False)
        anyio.run(main, Path(sys.argv[1]), msgspec.convert(given, LogOptions), tasks, hoards)
    except* Poisoned:
        say("poisoned")
        os._exit(3)
