"""file → durable log → mapping → file: processor time a record, beside Benthos where it is on PATH."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from bench.process import Usage, hub, timed
from bench.result import Result

RECORDS = 1_000_000
EMPTY_RECORDS = 1_000
ROUNDS = 3

DOCUMENT = {
    "id": 0,
    "user_id": 17611,
    "amount": 569.2,
    "currency": "EUR",
    "event_type": "refund",
    "ts": "2026-01-01T00:00:00.000Z",
    "customer": {"name": "User 0", "email": "USER0@example.com", "tags": ["a", "b", "0"]},
}

MAPPING = """root = this
root.amount_eur = this.amount * 0.93
root.customer.email = this.customer.email.lowercase()
root.n_tags = this.customer.tags.length()
root = if this.event_type == "view" { deleted() }
"""


def measure() -> list[Result]:
    """CPU microseconds a record, start-up taken off."""
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as name:
        folder = Path(name)
        source = folder / "in.jsonl"
        write(source, RECORDS)
        write(folder / "few.jsonl", EMPTY_RECORDS)
        plain, mapped, peer = [], [], []
        for _ in range(ROUNDS):
            plain.append(_hub(folder, source, None))
            mapped.append(_hub(folder, source, MAPPING))
            if shutil.which("benthos"):
                peer.append(_benthos(folder, source))
        start = min(_hub(folder, folder / "few.jsonl", MAPPING).cpu_s for _ in range(ROUNDS))
    results = [
        _result("file → log → file, no mapping", plain, start, ""),
        _result("file → log → mapping → file", mapped, start, "≤ 5 µs"),
        Result("  of which wall", min(usage.wall_s for usage in mapped) / RECORDS * 1e6, "µs a record"),
        Result("start-up, run and end", start, "CPU s"),
        Result("peak memory", max(usage.peak_bytes for usage in mapped) / 1e6, "MB"),
    ]
    if peer:
        best = min(usage.cpu_s for usage in peer) / RECORDS * 1e6
        ours = results[1].value
        results.append(
            Result("benthos, file → mapping → file, no log", best, "CPU µs a record", "ours", best / ours)
        )
    return results


def write(path: Path, records: int) -> None:
    """Documents of some 200 bytes, a third of them views."""
    kinds = ("refund", "view", "purchase")
    with path.open("w") as file:
        for i in range(records):
            customer = {"name": f"User {i}", "email": f"USER{i}@example.com", "tags": ["a", "b", str(i)]}
            document = DOCUMENT | {"id": i, "event_type": kinds[i % 3], "customer": customer}
            file.write(json.dumps(document, separators=(",", ":")) + "\n")


def _hub(folder: Path, source: Path, mapping: str | None) -> Usage:
    for name in ("data", "out"):
        shutil.rmtree(folder / name, ignore_errors=True)
    config = {
        "captures": {"events": {"file": {"path": str(source), "follow": False}}},
        "materializations": {
            "out": {
                "file": {"root": str(folder / "out")},
                "bindings": [{"from": "mapped" if mapping else "events", "path": "out.jsonl"}],
            }
        },
        "log": {"path": str(folder / "data")},
        "server": {"enabled": False},
    }
    if mapping:
        config["derivations"] = {"mapped": {"from": "events", "mapping": mapping}}
    path = folder / "hub.yaml"
    path.write_text(json.dumps(config))
    return timed(hub("run", str(path), "--no-live"))


def _benthos(folder: Path, source: Path) -> Usage:
    (folder / "benthos-out.jsonl").unlink(missing_ok=True)
    config = {
        "http": {"enabled": False},
        "logger": {"level": "ERROR"},
        "input": {"file": {"paths": [str(source)], "scanner": {"lines": {}}}},
        "pipeline": {"threads": 1, "processors": [{"mapping": MAPPING}]},
        "output": {"file": {"path": str(folder / "benthos-out.jsonl"), "codec": "lines"}},
    }
    path = folder / "benthos.yaml"
    path.write_text(json.dumps(config))
    return timed(["benthos", "-c", str(path)])


def _result(name: str, usages: list[Usage], start_s: float, mark: str) -> Result:
    best = min(usage.cpu_s for usage in usages)
    return Result(name, (best - start_s) / (RECORDS - EMPTY_RECORDS) * 1e6, "CPU µs a record", mark=mark)
