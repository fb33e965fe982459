"""How fast mappings run: decode + map + encode of a batch, CPU a record, beside Benthos if it is on PATH.

    python bench/mapping.py [--records N] [--batch N] [--json]

Each mapping is timed several times over the same batches and the best is kept; Benthos maps the same documents
with one thread (GOMAXPROCS=1), its own start and its reading of the file subtracted by a run that maps nothing.
The first mapping is the one the project's target is set for: 2.2 µs a record.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import orjson

from hub.mapping import compile
from hub.record import Batch

TARGET_US = 2.2

REFERENCE = """root = this
root.amount_eur = this.amount * 0.93
root.customer.email = this.customer.email.lowercase()
root.n_tags = this.customer.tags.length()
root = if this.event_type == "view" { deleted() }
"""

MAPPINGS = {
    "reference": REFERENCE,
    "strings": 'root.id = this.id\nroot.label = this.customer.name.uppercase() + " <" + this.customer.email.lowercase() + ">"\n'
    'root.user = "user-%v".format(this.user_id)\nroot.domain = this.customer.email.split("@").index(1)\n',
    "times": 'root.id = this.id\nroot.unix = this.ts.ts_parse("2006-01-02T15:04:05.000Z").ts_unix()\n'
    'root.day = this.ts.ts_parse("2006-01-02T15:04:05.000Z").ts_format("2006-01-02")\n',
    "match": 'root = this\nroot.kind = match this.event_type {\n  "refund" => "out"\n  "view" => "seen"\n'
    '  this.contains("pur") => "in"\n  _ => "other"\n}\nroot.size = match {\n  this.amount > 1000 => "large"\n'
    '  this.amount > 100 => "medium"\n  _ => "small"\n}\n',
    "map_each": 'root.id = this.id\nroot.tags = this.customer.tags.map_each(tag -> tag.uppercase() + "!")\n'
    'root.some = this.customer.tags.filter(tag -> tag != "a").length()\n',
    "regex": 'root.id = this.id\nroot.ok = this.customer.email.re_match("^[A-Z0-9]+@example")\n'
    'root.masked = this.customer.email.re_replace_all("[0-9]+", "#")\n',
    "nested": 'root.event = {"id": this.id, "type": this.event_type, "at": this.ts}\n'
    'root.who = {"id": this.user_id, "name": this.customer.name, "tags": this.customer.tags}\n'
    "root.money.amount = this.amount\nroot.money.currency = this.currency\n",
    "csv": 'root = [this.id, this.user_id, this.currency, this.event_type].map_each(v -> v.string()).join(",")\n',
    "hash": 'root = this\nroot.customer.email = this.customer.email.hash("sha256").encode("hex")\n',
    "fallbacks": 'root = this\nroot.a = this.missing.or("none")\nroot.b = this.customer.nope.name | this.currency\n'
    "root.c = this.currency.number().catch(0)\n",
    "metadata": "root = this\nroot.topic = @topic\nmeta key = this.user_id.string()\nroot.big = if this.amount > 500 { true } else { false }\n",
}


def documents(count: int) -> list[bytes]:
    """200-byte events, each of its own time; a third of them views."""
    kinds = ("refund", "view", "purchase")
    return [
        orjson.dumps(
            {
                "id": number,
                "user_id": 17611 + number % 1000,
                "amount": round(0.2 + number % 1300 + number % 7 / 10, 1) + 0.05,
                "currency": "EUR",
                "event_type": kinds[number % 3],
                "ts": f"2026-01-{1 + number % 28:02d}T{number % 24:02d}:{number % 60:02d}:{number * 7 % 60:02d}.{number % 1000:03d}Z",
                "customer": {
                    "name": f"User {number}",
                    "email": f"USER{number}@example.com",
                    "tags": ["a", "b", str(number % 10)],
                },
            }
        )
        for number in range(count)
    ]


def measured(text: str, lines: list[bytes], size: int, rounds: int) -> float:
    """Seconds of CPU a record: the best of several rounds over all batches."""
    mapping = compile(text)
    batches = [b"".join(line + b"\n" for line in lines[at : at + size]) for at in range(0, len(lines), size)]
    counts = [data.count(b"\n") for data in batches]
    shared = {"topic": "orders"}
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        for data, count in zip(batches, counts, strict=True):
            out = mapping.run(Batch("bench", count, ndjson=data, shared=shared))
            assert out.ndjson is not None
            assert not out.errors, next(iter(out.errors.values()))
        best = min(best, time.process_time() - start)
    return best / len(lines)


def copied(lines: list[bytes], rounds: int) -> float:
    """Seconds of CPU a record to read and print it with orjson: what no mapping can go below by much."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        for line in lines:
            orjson.dumps(orjson.loads(line))
        best = min(best, time.process_time() - start)
    return best / len(lines)


def benthos(binary: str, text: str | None, folder: Path, records: int) -> float:
    """Seconds of CPU of one whole Benthos run a record; `None` maps nothing."""
    processors: list[object] = [] if text is None else [{"mapping": text}]
    config = {
        "logger": {"level": "OFF"},
        "http": {"enabled": False},
        "input": {"file": {"paths": [str(folder / "in.ndjson")], "scanner": {"lines": {}}}},
        "pipeline": {"threads": 1, "processors": processors},
        "output": {"drop": {}} if text is None else {"file": {"path": str(folder / "out"), "codec": "lines"}},
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [binary, "-c", str(path)], check=True, env=os.environ | {"GOMAXPROCS": "1"}, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / records


def main() -> None:
    """Prints one line a mapping."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--records", type=int, default=20_000)
    options.add_argument("--batch", type=int, default=128, help="records a batch; 128 are 26 KB")
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    lines = documents(chosen.records)
    binary = shutil.which("benthos")
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in.ndjson").write_bytes(b"".join(line + b"\n" for line in lines))
        floor = copied(lines, chosen.rounds) * 1e6
        print(f"orjson alone{floor:7.2f} µs a record, to read and print it", flush=True)
        idle = benthos(binary, None, folder, len(lines)) if binary else 0.0
        for title, text in MAPPINGS.items():
            ours = measured(text, lines, chosen.batch, chosen.rounds) * 1e6
            found[title] = {"hub_us": ours}
            shown = f"{title:<12}{ours:7.2f} µs a record{ours / floor:7.1f} × orjson"
            if binary:
                theirs = (benthos(binary, text, folder, len(lines)) - idle) * 1e6
                found[title] |= {"benthos_us": theirs, "ratio": theirs / ours}
                shown += f"   Benthos {theirs:7.2f} µs   {theirs / ours:5.1f}×"
            print(shown, flush=True)
    reference = found["reference"]["hub_us"]
    print(
        f"reference: {reference:.2f} µs (target {TARGET_US}): {'reached' if reference <= TARGET_US else 'MISSED'}"
    )
    if binary:
        ratios = [item["ratio"] for item in found.values()]
        print(f"slowest {min(ratios):.1f}×, median {statistics.median(ratios):.1f}×")
    else:
        print("Benthos is not on PATH: no comparison")
    if chosen.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
