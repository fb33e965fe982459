"""`hub log repair`: mending a log that nobody writes, and saying what is lost and to whom."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from hub.control import Control
from hub.errors import HubError
from hub.log.follower import Follower
from hub.log.fragment import Fragment
from hub.log.fs import OsFS
from hub.log.identity import journals, readable, remembered
from hub.log.repair import BROKEN, repair_journal
from hub.log.salvage import repair_fragments
from hub.log.verify import verify


def mend(path: Path, named: str | None, *, yes: bool, accept_loss: bool) -> None:
    """Mend the journal that is named, or the only one; without `yes` only say what would be lost."""
    fs = OsFS()
    with Control(path / "control.db") as control:
        gone = sorted(remembered(path, control.witnessed()) - set(journals(path)))
        if named in gone or (named is None and gone and not journals(path)):
            _forget(path, control, named or gone[0], yes=yes and accept_loss)
            return
        journal = readable(path, named)
        with _alone(path, journal):
            found = verify(fs, path, journal, registered_of(control.fragments(journal)))
            for damage in found.damage:
                click.echo(str(damage))
            witness, end = control.witness(journal), _end_of(path, journal)
            if witness is not None and end is not None and witness.seq > end:
                click.echo(f"the log ends with frame {end}, but control.db saw {witness.seq} durable")
            elif not found.damage:
                click.echo("all whole")
                accept_loss = accept_loss and end is None
            if not yes:
                if found.damage or accept_loss:
                    click.echo("nothing was changed; repeat with --yes")
                return
            if found.damage:
                _repair(path, journal, control)
        if accept_loss:
            control.forget_witness_now(journal)
            click.echo(
                "the log opens again after what is there; readers that are ahead of it must be rewound"
            )


def registered_of(listed: Sequence[tuple[str, bytes]]) -> dict[str, Fragment]:
    return {key: msgspec.msgpack.decode(entry, type=Fragment) for key, entry in listed}


def _end_of(path: Path, journal: str) -> int | None:
    """The last frame of a journal; None when it cannot be told."""
    try:
        log = Follower(path, journal)
        log.refresh()
    except HubError:
        return None
    return log.end.seq


def _repair(path: Path, journal: str, control: Control) -> None:
    """Mend segments and fragments, and say what is lost to whom."""
    fs = OsFS()
    directory, fragments = path / "journal" / journal, path / "fragments" / journal
    lost = repair_journal(fs, directory)
    salvaged = repair_fragments(fs, fragments, journal, control)
    click.echo(
        f"copies of what was there: {', '.join(str(d / BROKEN) for d in (directory, fragments) if (d / BROKEN).exists())}"
    )
    for text in (*lost, *salvaged):
        click.echo(str(text))
    for hold in control.holds():
        place = hold.cursor.journals.get(journal)
        seq = place.seq if place is not None else 0
        ahead = [gone for gone in lost if gone.last_seq < gone.first_seq <= seq]
        missed = [gone for gone in lost if seq < gone.last_seq]
        if ahead:
            click.echo(
                f"reader {hold.name} stands at frame {seq}, beyond the end: `hub log rewind {hold.name} --to end`"
            )
        elif missed:
            click.echo(
                f"reader {hold.name} stands at frame {seq} and will pass what is lost; backfill what it feeds"
            )


def _forget(path: Path, control: Control, journal: str, *, yes: bool) -> None:
    """Strike off a journal whose files are gone. Its fragments, if there are any, are put aside."""
    click.echo(
        f"the files of journal {journal} are gone, and all that was in it and in no destination is lost"
    )
    if not yes:
        click.echo("nothing was changed; repeat with --accept-loss --yes, and captures begin anew")
        return
    fragments = path / "fragments" / journal
    if fragments.exists():
        aside = path / BROKEN / f"{journal}.fragments"
        OsFS().mkdir(aside.parent)
        fragments.rename(aside)
        click.echo(f"its fragments were moved to {aside}")
    control.forget_journal_now(journal)


@contextmanager
def _alone(path: Path, journal: str) -> Iterator[None]:
    fs = OsFS()
    lock = fs.lock(path / "journal" / journal / "LOCK", f"pid {os.getpid()} on {socket.gethostname()}")
    try:
        yield
    finally:
        fs.close(lock)
