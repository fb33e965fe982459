"""The small connectors through the whole hub: each example config run as a user would, and files under SIGKILL."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard

CONFIGS = Path(__file__).parents[2] / "configs"
WAIT_S = 60
KILLS = int(os.environ.get("HUB_TEST_KILLS", "8"))


def hub(config: Path, folder: Path, **environment: str) -> dict[str, Any]:
    """Arguments for a process that runs a config in a folder of its own."""
    return {
        "args": [str(Path(sys.executable).with_name("hub")), "run", str(config), "--no-live"],
        "cwd": folder,
        "env": os.environ
        | {"HUB_ADDRESS": "127.0.0.1:0", "HUB_DATA": str(folder / "data"), "PYTHONWARNINGS": "error"}
        | environment,
    }


def run(config: Path, folder: Path, stdin: bytes = b"", **environment: str) -> bytes:
    """Run a config that ends by itself, with nothing but events on stderr. What it printed."""
    ended = subprocess.run(
        **hub(config, folder, **environment),
        input=stdin,
        capture_output=True,
        timeout=WAIT_S,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    assert all(line.startswith(b'{"ts":') for line in ended.stderr.splitlines()), ended.stderr.decode()
    return ended.stdout


@contextmanager
def running(config: Path, folder: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a config that goes on until it is stopped. Its events are in `hub.log` in the folder."""
    with (folder / "hub.log").open("ab") as output:
        process = subprocess.Popen(**hub(config, folder, **environment), stdout=output, stderr=output)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def until(claim: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not claim():
        assert time.monotonic() < deadline, (folder / "hub.log").read_text()[-3000:]
        time.sleep(0.02)


def committed(root: Path, task: str) -> bytes:
    """What a reader of the manifest sees of all files of a task, parts in their order."""
    try:
        manifest = json.loads((root / ".hub" / f"{task}.json").read_bytes())
    except FileNotFoundError:
        return b""
    found = b""
    for entry in manifest["files"]:
        path = root / entry["path"]
        stem, _, endings = path.name.partition(".")
        names = [path.with_name(f"{stem}-{number:06}.{endings}") for number in range(1, entry["number"] + 1)]
        *whole, last = names or [path]
        parts = [part.read_bytes() for part in whole] + (
            [last.read_bytes()[: entry["bytes"]]] if entry["bytes"] else []
        )
        for part in parts:
            packed = path.suffix == ".zst"
            found += (
                zstandard.ZstdDecompressor().stream_reader(part, read_across_frames=True).read()
                if packed
                else part
            )
    return found


def test_follows_logs_into_compressed_parts(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    requests = [{"path": "/x" if i % 3 else "/healthz", "duration_ms": i} for i in range(2000)]
    lines = [json.dumps(request) + "\n" for request in requests]
    log = tmp_path / "logs/web.ndjson"
    log.write_text("".join(lines[:1000]))
    expected = [r | {"is_slow": r["duration_ms"] > 1000} for r in requests if r["path"] == "/x"]
    with running(CONFIGS / "files.yaml", tmp_path) as process:
        until(lambda: b":998," in committed(tmp_path / "archive", "archive"), tmp_path)
        log.rename(log.with_name("web.ndjson.1"))
        log.write_text("".join(lines[1000:]))
        until(lambda: b":1999," in committed(tmp_path / "archive", "archive"), tmp_path)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    assert [json.loads(line) for line in committed(tmp_path / "archive", "archive").splitlines()] == expected


def test_turns_csv_into_a_file_a_country(tmp_path: Path) -> None:
    (tmp_path / "customers").mkdir()
    (tmp_path / "customers/1.csv").write_text('id,name,country\n1,"A\nB",NL\n2,C,DE\n')
    (tmp_path / "customers/2.csv").write_text("country,id\nNL,3\n")
    for _ in range(2):
        run(CONFIGS / "csv.yaml", tmp_path)
    assert (tmp_path / "by_country/nl.ndjson").read_text().splitlines() == [
        '{"id":1,"name":"A\\nB","country":"NL"}',
        '{"country":"NL","id":3}',
    ]
    assert json.loads((tmp_path / "by_country/de.ndjson").read_text()) == {
        "id": 2,
        "name": "C",
        "country": "DE",
    }


def test_filters_standard_input_to_standard_output(tmp_path: Path) -> None:
    printed = run(
        CONFIGS / "pipe.yaml", tmp_path, stdin=b'{"amount":50}\n{"amount":"150.5","n":1.10}\n{"amount":100}'
    )
    assert printed == b'{"amount":"150.5","n":1.10}\n{"amount":100}\n'


def test_changes_what_it_is_told_to_and_passes_on_the_rest(tmp_path: Path) -> None:
    printed = run(
        CONFIGS / "redact.yaml", tmp_path, stdin=b'{"id":1.10,"email":"a@b.c","password":"x"}\n{"id":2}\n'
    )
    assert printed == b'{"id":1.10,"email":"d648b243a3e8"}\n{"id":2,"email":"unknown"}\n'


def test_generates_as_many_as_asked_for(tmp_path: Path) -> None:
    run(CONFIGS / "generate.yaml", tmp_path, COUNT="5000")


def test_a_run_into_duckdb_prints_events_and_nothing_else(tmp_path: Path) -> None:
    config = tmp_path / "hub.yaml"
    config.write_text(
        """
captures: {numbers: {generate: {mapping: 'root.id = counter()', interval: 0s, count: 100}}}
materializations: {warehouse: {duckdb: {path: w.duckdb}, bindings: [{from: numbers, key: [id]}]}}
log: {path: log}
"""
    )
    assert run(config, tmp_path) == b""


def test_takes_webhooks_and_keeps_them_over_a_kill(tmp_path: Path) -> None:
    def url() -> str:
        found = [json.loads(line).get("url") for line in (tmp_path / "hub.log").read_text().splitlines()]
        return next((text for text in reversed(found) if text), "")

    def kept() -> list[Any]:
        return [json.loads(line) for line in committed(tmp_path / "archive", "archive").splitlines()]

    address = {"HOOKS_ADDRESS": "127.0.0.1:0"}
    with running(CONFIGS / "webhooks.yaml", tmp_path, **address):
        until(lambda: bool(url()), tmp_path)
        for i in range(10):
            answer = httpx.post(url() + "github", json={"i": i}, headers={"Idempotency-Key": str(i)})
            assert answer.json() == {"records": 1, "collection": "hooks/github", "replayed": False}
    # Killed right after the last answer. What was answered is there, and is not taken again.
    (tmp_path / "hub.log").rename(tmp_path / "first.log")
    with running(CONFIGS / "webhooks.yaml", tmp_path, **address) as process:
        until(lambda: bool(url()), tmp_path)
        answer = httpx.post(url() + "github", json={"i": 9}, headers={"Idempotency-Key": "9"})
        assert answer.json()["replayed"] is True
        assert (
            httpx.post(url() + "github", json={"i": 10}, headers={"Idempotency-Key": "10"}).status_code == 200
        )
        until(lambda: len(kept()) == 11, tmp_path)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    assert kept() == [{"i": i} for i in range(11)]


FILES = """
captures:
  app:
    file: {path: "app.ndjson*", poll: 10ms, batch_bytes: 16KiB}
materializations:
  plain:
    file: {root: plain}
    bindings: [{from: app, path: app.ndjson}]
  parts:
    file: {root: parts, compression: zstd, part_bytes: 8KiB}
    bindings: [{from: app, path: app.ndjson.zst}]
log: {path: data}
server: {enabled: false}
"""


class Writer(threading.Thread):
    """Writes numbered lines, some in two pieces, and rotates its file by renaming it."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self._random = random.Random(seed)
        self.stopping = threading.Event()
        self.lines = 0
        self.rotations = 0

    def run(self) -> None:
        path = self._folder / "app.ndjson"
        file = path.open("ab", buffering=0)
        while not self.stopping.wait(0.002):
            for _ in range(self._random.choice((1, 5, 200))):
                line = b'{"i":%d,"pad":"%s"}\n' % (self.lines, b"x" * self._random.randrange(100))
                cut = self._random.randrange(len(line)) if self._random.random() < 0.1 else 0
                file.write(line[:cut])
                file.write(line[cut:])
                self.lines += 1
            if self._random.random() < 0.02:
                file.close()
                self.rotations += 1
                path.rename(path.with_name(f"app.ndjson.{self.rotations:04}"))
                file = path.open("ab", buffering=0)
        file.close()


@pytest.mark.timeout(300)
def test_killed_between_file_and_file_loses_and_doubles_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("HUB_TEST_SEED", str(random.randrange(1 << 30))))
    print(f"HUB_TEST_SEED={seed}")
    rng = random.Random(seed)
    config = tmp_path / "files.yaml"
    config.write_text(FILES)
    writer = Writer(tmp_path, seed)
    writer.start()
    for _ in range(KILLS):
        with running(config, tmp_path) as process:
            time.sleep(rng.uniform(0.3, 1.5))
            assert process.poll() is None, (tmp_path / "hub.log").read_text()[-3000:]
            process.kill()
    writer.stopping.set()
    writer.join()

    def all_there() -> bool:
        return all(
            committed(tmp_path / sink, sink).count(b"\n") >= writer.lines for sink in ("plain", "parts")
        )

    with running(config, tmp_path) as process:
        until(all_there, tmp_path)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    for sink in ("plain", "parts"):
        numbers = [json.loads(line)["i"] for line in committed(tmp_path / sink, sink).splitlines()]
        assert sorted(numbers) == list(range(writer.lines)), sink
    assert (tmp_path / "plain/app.ndjson").read_bytes() == committed(tmp_path / "plain", "plain")
    print(f"{writer.lines} lines, {writer.rotations} rotations, {KILLS} kills")
