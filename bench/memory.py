"""Memory with a dead destination and a fast source: it has to stay flat while the log grows to its cap."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from pathlib import Path

from bench.files import write
from bench.process import resident_bytes, running
from bench.result import Result

RECORDS = 2_000_000
CAP = "8MiB"
WATCH_S = 20


def measure() -> list[Result]:
    """Peak of the resident memory after start-up, and after the log is full."""
    with (
        tempfile.TemporaryDirectory(prefix="hub-bench-") as name,
        socket.create_server(("127.0.0.1", 0)) as dead,
    ):
        folder = Path(name)
        write(folder / "in.jsonl", RECORDS)
        # A server that accepts and never answers: the worst kind of dead.
        port = dead.getsockname()[1]
        config = {
            "captures": {"events": {"file": {"path": str(folder / "in.jsonl")}}},
            "materializations": {
                "dead": {
                    "postgres": {"dsn": f"postgresql://nobody@127.0.0.1:{port}/nowhere"},
                    "bindings": [{"from": "events", "table": "t"}],
                },
            },
            "log": {"path": str(folder / "data"), "cap": CAP},
            "server": {"enabled": False},
        }
        path = folder / "hub.yaml"
        path.write_text(json.dumps(config))
        samples = []
        with running("run", str(path), "--no-live", log=folder / "hub.log") as process:
            until = time.monotonic() + WATCH_S
            while time.monotonic() < until:
                samples.append(resident_bytes(process.pid))
                time.sleep(0.1)
            disk = sum(file.stat().st_size for file in (folder / "data").rglob("*") if file.is_file())
    half = len(samples) // 2
    return [
        Result("peak, first half", max(samples[:half]) / 1e6, "MB"),
        Result(
            "peak, second half",
            max(samples[half:]) / 1e6,
            "MB",
            "the first",
            max(samples[half:]) / max(samples[:half]),
        ),
        Result("log on disk", disk / 1e6, "MB", f"cap {CAP}"),
    ]
