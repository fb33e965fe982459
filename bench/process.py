"""The hub as a process of its own, and what the system says it used."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Usage(NamedTuple):
    """Of a finished process: processor seconds, seconds on the clock, peak memory."""

    cpu_s: float
    wall_s: float
    peak_bytes: int


def timed(command: Sequence[str], *, stdin: Path | None = None, stdout: Path | None = None) -> Usage:
    """Run a command to its end. Raises when it fails."""
    with (stdin or Path(os.devnull)).open("rb") as given, (stdout or Path(os.devnull)).open("wb") as taken:
        began = time.monotonic()
        process = subprocess.Popen(command, stdin=given, stdout=taken, stderr=subprocess.PIPE)
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{errors.decode()[-2000:]}")
    return Usage(usage.ru_utime + usage.ru_stime, time.monotonic() - began, usage.ru_maxrss * 1024)


def hub(*arguments: str) -> list[str]:
    """The command line of the hub."""
    return [sys.executable, "-m", "hub.cli", *arguments]


@contextmanager
def running(*arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The hub while the block runs; stopped as a user does."""
    with log.open("wb") as output:
        process = subprocess.Popen(hub(*arguments), stdout=output, stderr=output)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(60)


def cpu_s(pid: int) -> float:
    """Processor seconds that a running process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Memory that a running process holds now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
