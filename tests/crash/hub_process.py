"""The whole hub as a process of its own, for tests that kill it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hub_running(config: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The hub while the block runs, killed at its end if it has not ended. What it prints is added to `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "hub.cli", "run", str(config), "--no-live"], stdout=output, stderr=output
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
