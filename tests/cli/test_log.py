"""`hub log`, on a log with segments and fragments in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anyio
import duckdb
import pytest
from click.testing import CliRunner, Result

from hub.cli.log import command
from hub.control import Control
from hub.errors import FatalError
from hub.log import Log, LogOptions, Retention, Transaction
from hub.log.identity import journals
from hub.record import Batch, Cursor, Place


@pytest.fixture
def data(tmp_path: Path) -> Path:
    options = LogOptions(segment_bytes=1 << 16, retention=Retention(age_s=None), fragments_after_s=0.0)

    async def run() -> None:
        with Control(tmp_path / "control.db") as control:
            async with Log.open(tmp_path, options, control=control) as log:
                for number in range(6):
                    orders = Batch.of_lines(
                        "shop/orders",
                        [b'{"id":%d,"price":1.10}' % (number * 2 + i) for i in range(2)],
                        ops=b"cu",
                        shared={"table": "orders"},
                    )
                    other = Batch.of_lines("shop/customers", [b'{"id":%d}' % number])
                    await log.append(Transaction("shop", [orders, other], b"%d" % number))
                    if number in (1, 3):
                        await log.roll()
                        await log.keeper.keep()
                await control.hold("warehouse", Cursor({log.journal: Place(log.end.epoch, 3)}))

    anyio.run(run)
    return tmp_path


def hub_log(data: Path, *arguments: str, fails: bool = False) -> Result:
    result = CliRunner().invoke(command, ["--log", str(data), *arguments], catch_exceptions=False)
    assert (result.exit_code != 0) == fails, result.output
    return result


def test_ls_shows_collections_sizes_and_readers(data: Path) -> None:
    (journal,) = json.loads(hub_log(data, "ls", "--json").stdout)
    assert {c["collection"]: c["records"] for c in journal["collections"]} == {
        "shop/customers": 6,
        "shop/orders": 12,
    }
    (reader,) = journal["readers"]
    assert reader["reader"] == "warehouse" and reader["lag_frames"] == journal["end"] - 3
    text = hub_log(data, "ls").stdout
    assert "shop/orders" in text and "warehouse" in text and "journal main" in text


def test_cat_prints_offsets_metadata_and_exact_numbers(data: Path) -> None:
    lines = hub_log(data, "cat", "shop/orders").stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [f["offset"] for f in found] == list(range(12))
    assert [f["document"]["id"] for f in found] == list(range(12))
    assert found[1]["operation"] == "update" and found[1]["meta"] == {"table": "orders"}
    assert '"price":1.10' in lines[0]


def test_cat_begins_at_an_offset_and_ends_at_a_limit(data: Path) -> None:
    for first in (0, 3, 7, 11):
        lines = hub_log(
            data, "cat", "shop/orders", "--from", str(first), "--limit", "2", "--docs"
        ).stdout.splitlines()
        assert [json.loads(line)["id"] for line in lines] == list(range(12))[first : first + 2]


def test_cat_takes_a_glob_and_a_time(data: Path) -> None:
    assert len(hub_log(data, "cat", "shop/*").stdout.splitlines()) == 18
    assert len(hub_log(data, "cat", "--since", "1h").stdout.splitlines()) == 18
    assert hub_log(data, "cat", "--since", "2099-01-01").stdout == ""
    assert "no time" in hub_log(data, "cat", "--since", "soon", fails=True).output


def test_verify_and_repair_say_that_all_is_whole(data: Path) -> None:
    assert "all whole" in hub_log(data, "verify").stdout
    assert "all whole" in hub_log(data, "repair").stdout


def test_verify_finds_a_damaged_fragment(data: Path) -> None:
    victim = next(iter(sorted((data / "fragments").rglob("*.frag"))))
    content = bytearray(victim.read_bytes())
    content[150] ^= 4
    victim.write_bytes(content)
    assert str(victim) in hub_log(data, "verify", fails=True).stdout


@pytest.mark.parametrize(
    ("to", "seq"), [("start", None), ("end", -1), ("shop/orders@5", 3), ("2099-01-01", -1), ("1h", 1)]
)
def test_rewind_asks_for_the_place_that_was_meant(data: Path, to: str, seq: int | None) -> None:
    hub_log(data, "rewind", "warehouse", "--to", to)
    (journal,) = json.loads(hub_log(data, "ls", "--json").stdout)
    with Control(data / "control.db") as control:
        cursor = control.rewind("warehouse")
        assert cursor is not None
        place = cursor.journals.get(journal["journal"])
        assert control.holds()[0].cursor == cursor
    if seq is None:
        assert place is None
    elif seq < 0:
        assert place is not None and place.seq == journal["end"]
    else:
        assert place is not None and seq <= place.seq < journal["end"]


def test_rewind_of_an_unknown_task_names_the_known_ones(data: Path) -> None:
    with pytest.raises(FatalError, match="known are: warehouse"):
        hub_log(data, "rewind", "nobody", "--to", "start")


def test_release_lets_a_reader_go(data: Path) -> None:
    hub_log(data, "release", "warehouse")
    with Control(data / "control.db") as control:
        assert control.holds() == []


@pytest.mark.parametrize("name", ["orders.ndjson", "orders.parquet"])
def test_export_writes_every_document(data: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    hub_log(data, "export", "shop/orders", str(file))
    if name.endswith("ndjson"):
        assert [json.loads(line)["id"] for line in file.read_bytes().splitlines()] == list(range(12))
    else:
        with duckdb.connect() as db:
            assert db.execute(f"SELECT list(id ORDER BY id) FROM '{file}'").fetchone() == (list(range(12)),)
    assert not file.with_name(f"{name}.tmp").exists()


def test_repair_can_accept_a_loss(data: Path) -> None:
    with Control(data / "control.db") as control:
        (journal,) = control.witnessed()
        control.note_now(journal, Place(1, 10_000))
    hub_log(data, "repair", "--accept-loss", "--yes")
    with Control(data / "control.db") as control:
        assert control.witnessed() == []


def test_a_collection_that_is_not_there_is_refused_naming_those_that_are(data: Path, tmp_path: Path) -> None:
    for arguments in (("cat", "shop/ordres"), ("export", "shop/ordres", str(tmp_path / "x.ndjson"))):
        with pytest.raises(FatalError, match="there are: shop/customers, shop/orders"):
            hub_log(data, *arguments)
    assert not (tmp_path / "x.ndjson").exists()


def test_ls_of_a_configuration_says_how_long_things_are_kept(data: Path) -> None:
    config = data / "hub.yaml"
    config.write_text(
        json.dumps(
            {
                "captures": {"shop": {"generate": {"mapping": "root.id = 1"}}},
                "materializations": {"out": {"stdout": {}, "bindings": [{"from": "shop"}]}},
                "collections": {
                    "shop/orders": {"retention": {"bytes": "1MiB", "compact": True}, "key": ["/id"]}
                },
                "log": {"path": str(data)},
            }
        )
    )
    text = hub_log(config, "ls").stdout
    assert "7 d" in text and "1.0 MB, newest of each key" in text


def test_repair_mends_a_segment_that_is_missing_and_tells_who_misses_what(data: Path) -> None:
    for number in range(3):
        write_more(data, number)
    (data / "journal" / journals(data)[0] / "000000000005.seg").unlink()
    assert "is missing" in hub_log(data, "verify", fails=True).stdout
    assert "nothing was changed" in hub_log(data, "repair").stdout
    text = hub_log(data, "repair", "--yes").stdout
    assert "are lost: 1 records of shop/orders (offsets 1" in text
    assert "reader warehouse stands at frame 3 and will pass what is lost; backfill what it feeds" in text
    assert "all whole" in hub_log(data, "verify").stdout


def test_a_journal_that_is_gone_is_forgotten_on_request(data: Path) -> None:
    (name,) = journals(data)
    shutil.rmtree(data / "journal" / name)
    assert "repeat with --accept-loss --yes" in hub_log(data, "repair", "--yes").stdout
    assert "its fragments were moved to" in hub_log(data, "repair", "--accept-loss", "--yes").stdout
    write_more(data, 1)
    assert journals(data) != [name]


def write_more(data: Path, number: int) -> None:
    async def run() -> None:
        options = LogOptions(retention=Retention(age_s=None), fragments_after_s=None)
        with Control(data / "control.db") as control:
            async with Log.open(data, options, control=control) as log:
                await log.append(
                    Transaction("shop", [Batch.of_lines("shop/orders", [b'{"id":%d}' % number])])
                )

    anyio.run(run)
