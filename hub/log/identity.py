"""Which journal of a data directory is whose, and that none of them has gone unnoticed.

A journal's name is what it is for and a part that no other log has: `main-5f0c2a9e`. Cursors name the journal they
are places of, so a log that was wiped and begun anew is one that no cursor knows, and never one whose numbers happen
to fit. Directories from before that are called `main` alone, and keep their name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hub.errors import FatalError, LogError

_OWN_BYTES = 4


def journals(path: Path) -> list[str]:
    """The journals of a data directory."""
    folder = path / "journal"
    return sorted(found.name for found in folder.iterdir() if found.is_dir()) if folder.is_dir() else []


def remembered(path: Path, witnessed: Iterable[str]) -> set[str]:
    """The journals that something beside them knows of: control.db, or fragments that were made of them."""
    folder = path / "fragments"
    kept = (
        {found.name for found in folder.iterdir() if any(found.rglob("*.frag"))} if folder.is_dir() else set()
    )
    return {*witnessed, *kept}


def writable(present: Sequence[str], known: Iterable[str], name: str, random: Callable[[int], bytes]) -> str:
    """The journal to be written under a name, new where there was none.

    Raises LogError when there are two of them, or when one is known whose files are gone.
    """
    own = [journal for journal in present if is_of(journal, name)]
    if len(own) > 1:
        raise LogError(
            f"there are {len(own)} journals of the name {name!r}: {', '.join(own)}; one of them was copied here. "
            "Move the one that does not belong here away"
        )
    gone = sorted(journal for journal in known if is_of(journal, name) and journal not in present)
    if gone:
        raise LogError(
            f"the log lost acknowledged data: the files of journal {gone[0]!r} are gone. Bring them back; or "
            f"`hub log --journal {gone[0]} repair --accept-loss --yes` forgets it: captures then begin anew, and "
            "destinations that were written from it say what they need"
        )
    return own[0] if own else f"{name}-{random(_OWN_BYTES).hex()}"


def readable(path: Path, name: str | None) -> str:
    """The journal that is meant by a name, or the only one. Raises FatalError naming what there is."""
    present = journals(path)
    own = present if name is None else [journal for journal in present if is_of(journal, name)]
    if name in own:
        return str(name)
    if len(own) == 1:
        return own[0]
    there = f"there are {', '.join(present)}" if present else "there is none"
    what = f"there is no journal {name!r}" if name is not None and not own else "which journal?"
    raise FatalError(f"{path}: {what}; {there}")


def is_of(journal: str, name: str) -> bool:
    """Whether a journal goes by a name, with or without the part of its own."""
    return (
        journal == name
        or re.fullmatch(re.escape(name) + f"-[0-9a-f]{{{2 * _OWN_BYTES}}}", journal) is not None
    )
