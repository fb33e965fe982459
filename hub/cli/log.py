"""`hub log`: looking into a durable log, checking it, mending it, and sending readers back in it."""

from __future__ import annotations

import fnmatch
import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import click

from hub.cli.log_repair import mend, registered_of
from hub.control import Control, peek
from hub.document import encode
from hub.errors import FatalError
from hub.log.browse import Row, browse, cursor_before
from hub.log.follower import Follower
from hub.log.fs import OsFS
from hub.log.identity import journals, readable
from hub.log.options import LogOptions, Retention
from hub.log.verify import verify
from hub.record import OPERATIONS, Cursor

_AGO = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Where(NamedTuple):
    """A data directory, the journal that was asked for, and the log's options where a configuration named it."""

    path: Path
    named: str | None
    options: LogOptions | None

    @property
    def journal(self) -> str:
        """The journal that is meant. Raises FatalError when that is not clear."""
        return readable(self.path, self.named)


@click.group("log")
@click.option(
    "-l",
    "--log",
    "where",
    default=".",
    show_default=True,
    type=click.Path(exists=True, path_type=Path),
    help="The log's directory, or the configuration that names it.",
)
@click.option("--journal", help="The journal in it, where there are several.")
@click.pass_context
def command(context: click.Context, where: Path, journal: str | None) -> None:
    """Look into a durable log."""
    options = None
    if where.is_file():
        from hub.config import load

        catalog = load(where)
        where, options = catalog.log_path, catalog.log_options()
    if not (where / "journal").is_dir():
        raise click.UsageError(f"{where} holds no log; name its directory or a configuration with --log")
    context.obj = Where(where, journal, options)


@command.command("ls")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def ls(where: Where, as_json: bool) -> None:
    """Journals, collections, sizes, and readers with their lag; retention, where --log is a configuration."""
    names = journals(where.path) if where.named is None else [where.journal]
    found = [_journal(where.path, name, where.options) for name in names]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for journal in found:
        _show_journal(journal)


def _journal(path: Path, name: str, options: LogOptions | None) -> dict[str, Any]:
    log = Follower(path, name)
    log.refresh()
    state, known = log.state(), peek(path / "control.db")
    history = log.history
    segments = log.writer.segments
    collections = []
    for collection, info in sorted(state.collections.items()):
        kept = history.of(collection) if history is not None else ()
        collections.append(
            {
                "collection": collection,
                "records": info.count,
                "bytes": info.raw_bytes,
                "fragments": len(kept),
                "fragment_bytes": sum(f.size for f in kept),
                "last": _text(info.last_us) if info.last_us else None,
            }
            | ({"kept": _rule(options.retention_of(collection))} if options is not None else {})
        )
    readers = [
        {
            "reader": hold.name,
            "at": hold.cursor.journals[name].seq if name in hold.cursor.journals else 0,
            "lag_frames": log.end.seq
            - (hold.cursor.journals[name].seq if name in hold.cursor.journals else 0),
            "seen": _text(hold.seen_us),
        }
        for hold in known.holds
    ]
    return {
        "journal": name,
        "epoch": log.end.epoch,
        "oldest": log.oldest_seq,
        "end": log.end.seq,
        "segments": len(segments),
        "segment_bytes": sum(s.size for s in segments),
        "fragment_bytes": history.used_bytes if history is not None else 0,
        "from": _text(segments[0].first_us),
        "to": _text(segments[-1].last_us),
        "tasks": sorted(state.positions),
        "collections": collections,
        "readers": readers,
    }


def _rule(rule: Retention) -> str:
    """A retention rule in a few words."""
    limits = [] if rule.age_s is None else [f"{rule.age_s / 86_400:g} d"]
    limits += [] if rule.bytes is None else [_size(rule.bytes)]
    if rule.until_consumed and rule.age_s == 0:
        limits[0] = "until read"
    return " or ".join(limits or ["for ever"]) + (", newest of each key" if rule.compact else "")


def _show_journal(found: dict[str, Any]) -> None:
    size = _size(found["segment_bytes"] + found["fragment_bytes"])
    click.echo(
        f"journal {found['journal']}: frames {found['oldest']} to {found['end']}, epoch {found['epoch']}, "
        f"{found['segments']} segments, {size} on disk, since {found['from']}"
    )
    for about, rows in (("collections", found["collections"]), ("readers", found["readers"])):
        if not rows:
            continue
        names = list(rows[0])
        cells = [[_cell(name, row[name]) for name in names] for row in rows]
        widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
        click.echo(f"\n{about}")
        for line in [names, *cells]:
            click.echo("  " + "  ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)).rstrip())


def _cell(name: str, value: object) -> str:
    return _size(value) if name.endswith("bytes") and isinstance(value, int) else str(value)


@command.command("cat")
@click.argument("collection", default="*")
@click.option("--from", "from_offset", type=int, default=0, help="Begin with this offset of the collection.")
@click.option("--since", help="Begin with this time (2026-11-22T10:00:00Z) or so long ago (2h).")
@click.option("--follow", is_flag=True, help="Go on with what is appended, until interrupted.")
@click.option("--limit", type=int, help="Stop after so many records.")
@click.option("--docs", is_flag=True, help="Print the documents alone, without metadata.")
@click.pass_obj
def cat(
    where: Where,
    collection: str,
    from_offset: int,
    since: str | None,
    follow: bool,
    limit: int | None,
    docs: bool,
) -> None:
    """Print records as JSON lines, oldest first. COLLECTION may be a glob."""
    wanted = _matching(collection)
    left = limit if limit is not None else sys.maxsize
    since_us = _time(since) if since else 0

    async def run() -> None:
        nonlocal left, from_offset
        async with Follower.open(where.path, where.named) as log:
            seq = seen = 0
            while left > 0:
                end = log.end.seq
                for row in browse(log, wanted, after_seq=seq, from_offset=from_offset, since_us=since_us):
                    seen += 1
                    texts = row.batch.lines() if docs else list(_lines(row))
                    sys.stdout.buffer.write(b"".join(text + b"\n" for text in texts[:left]))
                    left -= len(texts)
                    if left <= 0:
                        break
                sys.stdout.buffer.flush()
                seq = end
                if not follow:
                    if seen == 0 and not since_us and not from_offset:
                        _refuse_unknown(log, collection)
                    return
                await log.wait_beyond(end)

    anyio.run(run)


def _refuse_unknown(log: Follower, pattern: str) -> None:
    """Raises FatalError when the log has no collection that matches, naming those it has."""
    known = sorted(log.state().collections)
    if not any(map(_matching(pattern), known)):
        raise FatalError(f"no collection matches {pattern!r}; there are: {', '.join(known) or 'none'}")


def _lines(row: Row) -> Iterator[bytes]:
    """Records with all that is known of them, as JSON texts."""
    piece, batch = row.piece, row.batch
    for index, (offset, line) in enumerate(zip(row.offsets, batch.lines(), strict=True)):
        yield encode(
            {
                "collection": batch.collection,
                "offset": offset,
                "frame": piece.seq,
                "epoch": piece.epoch,
                "appended": _text(piece.ts_us),
                "task": piece.task,
                "operation": OPERATIONS[batch.op(index)],
                "meta": batch.metadata(index),
                "document": line,
            }
        )


@command.command("verify")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def verify_command(where: Where, as_json: bool) -> None:
    """Read every byte and compare every checksum. Exit code 1 when anything is damaged."""
    listed = peek(where.path / "control.db").fragments.get(where.journal, [])
    found = verify(OsFS(), where.path, where.journal, registered_of(listed))
    if as_json:
        click.echo(encode({**_fields(found), "damage": [_fields(d) for d in found.damage]}))
    else:
        for damage in found.damage:
            click.echo(str(damage))
        torn = f", a torn tail of {found.torn_bytes} bytes (never acknowledged)" if found.torn_bytes else ""
        click.echo(
            f"{found.segments} segments, {found.frames} frames, {found.fragments} fragments, {found.blocks} blocks: "
            f"{f'{len(found.damage)} damaged' if found.damage else 'all whole'}{torn}"
        )
    if found.damage:
        sys.exit(1)


def _fields(struct: Any) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


@command.command("repair")
@click.option("--yes", is_flag=True, help="Do it. Without this it only says what would be lost.")
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Forget how far the log once was durable, so that a log that was cut short, or is gone, opens.",
)
@click.pass_obj
def repair_command(where: Where, yes: bool, accept_loss: bool) -> None:
    """Mend what is damaged or missing. Copies every file first, keeps all that is whole, and says what is lost."""
    mend(where.path, where.named, yes=yes, accept_loss=accept_loss)


@command.command("rewind")
@click.argument("task")
@click.option(
    "--to", required=True, help="start, end, a time, so long ago (2h), a frame, or COLLECTION@OFFSET."
)
@click.pass_obj
def rewind(where: Where, task: str, to: str) -> None:
    """Have a task read again from an earlier place, at its next start. The hub must not be running."""
    log = Follower(where.path, where.named)
    log.refresh()
    cursor = _cursor(log, to)
    with Control(where.path / "control.db") as control:
        known = {*control.tasks(), *(hold.name for hold in control.holds())}
        if task not in known:
            raise FatalError(
                f"no task {task!r} reads this log; known are: {', '.join(sorted(known)) or 'none'}"
            )
        control.ask_rewind_now(task, cursor)
    at = cursor.journals.get(log.journal)
    click.echo(f"{task} will go on {'from the oldest record' if at is None else f'after frame {at.seq}'}")


def _cursor(log: Follower, to: str) -> Cursor:
    if to == "start":
        return Cursor.START
    if to == "end":
        return Cursor({log.journal: log.end})
    if to.isdigit():
        return cursor_before(log, seq=int(to))
    name, at, offset = to.rpartition("@")
    if at and offset.isdigit():
        return cursor_before(log, wanted=lambda collection: collection == name, from_offset=int(offset))
    return cursor_before(log, since_us=_time(to))


@command.command("release")
@click.argument("reader")
@click.pass_obj
def release(where: Where, reader: str) -> None:
    """Let a reader go: the log is no longer kept for it."""
    with Control(where.path / "control.db") as control:
        if reader not in {hold.name for hold in control.holds()}:
            raise FatalError(f"no reader {reader!r} holds this log")
        control.release_now(reader)


@command.command("export")
@click.argument("collection")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--since", help="Begin with this time, or so long ago.")
@click.option("--meta", is_flag=True, help="With all metadata, as `cat` prints it.")
@click.pass_obj
def export(where: Where, collection: str, file: Path, since: str | None, meta: bool) -> None:
    """Write the documents of a collection to FILE: NDJSON, or Parquet when its name ends so."""
    log = Follower(where.path, where.named)
    log.refresh()
    _refuse_unknown(log, collection)
    rows = browse(log, _matching(collection), since_us=_time(since) if since else 0)
    staged = file.with_name(f"{file.name}.tmp")
    count = 0
    with staged.open("wb") as out:
        for row in rows:
            out.write(b"".join(line + b"\n" for line in _lines(row)) if meta else row.batch.ndjson)
            count += row.batch.count
    if file.suffix == ".parquet":
        _to_parquet(staged, file)
    else:
        staged.rename(file)
    click.echo(f"{count} records of {collection} to {file}", err=True)


def _to_parquet(staged: Path, file: Path) -> None:
    import duckdb

    try:
        with duckdb.connect() as db:
            reading = db.read_json(str(staged), format="newline_delimited", sample_size=-1)
            reading.write_parquet(str(file), compression="zstd")
    except duckdb.Error as error:
        raise FatalError(f"{file}: {error}") from error
    finally:
        staged.unlink(missing_ok=True)


def _matching(pattern: str) -> Callable[[str], bool]:
    return lambda name: fnmatch.fnmatchcase(name, pattern)


def _time(text: str) -> int:
    """Microseconds since 1970 of a time or of so long ago."""
    ago = _AGO.fullmatch(text)
    if ago:
        when = datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
    else:
        try:
            when = datetime.fromisoformat(text)
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is no time; give 2026-11-22T10:00:00Z or 2h") from error
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
    return int(when.timestamp() * 1_000_000)


def _text(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
