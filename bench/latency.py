"""Commit-to-visible latency under a steady rate of single-row commits.

`python -m bench.latency DSN` is the writer, a process of its own, so that it does not share the hub's processor
time; both read the system's monotonic clock.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import anyio
import psycopg
from anyio import to_thread

from hub.cli.pulses import Looks, Pulses
from hub.config import load
from hub.runtime.events import Events
from hub.runtime.runner import Running, run
from hub.telemetry import Telemetry
from hub.testing.postgres import PostgresServer

RATE_PER_S = 1_000
COMMITS = 5_000
WAIT_S = 120


def latencies_s(config: Path, server: PostgresServer, warehouse: Path) -> list[float]:
    """Seconds from COMMIT's return to visible, one for each pulse."""
    server.run("insert into pulse values (0)")
    looks = Looks(warehouse)
    found: list[float] = []

    def watch() -> None:
        deadline = time.monotonic() + WAIT_S
        while not looks.ready() and time.monotonic() < deadline:
            time.sleep(0.01)
        writer = subprocess.Popen([sys.executable, "-m", "bench.latency", server.dsn], stdout=subprocess.PIPE)
        with looks.looking():
            output = writer.communicate()[0]
        looks.wait(COMMITS, WAIT_S)
        found.extend(looks.latencies_s({int(key): at for key, at in json.loads(output).items()}))

    async def beside(running: Running) -> None:
        await to_thread.run_sync(watch)
        running.supervisor.stop()

    async def main() -> int:
        return await run(load(config), Events(quiet=True), Telemetry(), beside=[beside])

    anyio.run(main, backend_options={"use_uvloop": True})
    return found


def write(dsn: str) -> None:
    """Commit at the rate, print when each commit returned."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        pulses = Pulses(connection)
        began = time.monotonic()
        for done in range(COMMITS):
            ahead_s = began + done / RATE_PER_S - time.monotonic()
            if ahead_s > 0:
                time.sleep(ahead_s)
            pulses.write()
    print(json.dumps(pulses.sent))


if __name__ == "__main__":
    write(sys.argv[1])
