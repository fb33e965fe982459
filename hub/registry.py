"""Connectors by name, ours and everybody's, through entry points.

Listing reads the metadata of installed distributions and imports no connector. What a connector
lacks to be imported is found out when a configuration names it, and said with its cure.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Literal, get_args

from hub.capture import Capture
from hub.errors import HubError
from hub.materialization import Materialization
from hub.nearest import meant_or_known
from hub.processor import Processor
from hub.spec import Spec

Kind = Literal["capture", "processor", "materialization"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_CONTRACTS: Mapping[Kind, type[Spec]] = {
    "capture": Capture,
    "processor": Processor,
    "materialization": Materialization,
}


class Unavailable(HubError):
    """No connector can be had under this name. The message says why and what mends it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One connector that an installed distribution offers. `target` is `module:Class`."""

    kind: Kind
    name: str
    target: str
    extras: tuple[str, ...]
    distribution: str

    def __str__(self) -> str:
        return f"{self.target} of {self.distribution or 'an unnamed distribution'}"


@cache
def entries(kind: Kind) -> Mapping[str, Entry]:
    """All connectors of a kind, by name in order. Imports none. Raises `Unavailable` for a name offered twice."""
    return arranged(
        Entry(
            kind,
            point.name,
            f"{point.module}:{point.attr}",
            tuple(point.extras),
            point.dist.name if point.dist else "",
        )
        for point in metadata.entry_points(group=f"hub.{kind}s")
    )


def arranged(found: Iterable[Entry]) -> Mapping[str, Entry]:
    """Entries by name. The same entry seen twice, as when a folder stands on the path twice, is one."""
    known: dict[str, Entry] = {}
    for entry in sorted(found, key=lambda entry: entry.name):
        other = known.setdefault(entry.name, entry)
        if other != entry:
            raise Unavailable(
                f"two connectors are called {entry.kind} {entry.name!r}: {other} and {entry}; uninstall one of them"
            )
    return known


@cache
def connector(kind: Kind, name: str) -> type[Spec]:
    """Import a connector. Raises `Unavailable` when there is none, or when its driver is missing."""
    known = entries(kind)
    if name not in known:
        raise Unavailable(f"unknown {kind} {name!r}{meant_or_known(name, known)}")
    return imported(known[name])


def imported(entry: Entry) -> type[Spec]:
    """The class that an entry names."""
    module, _, attribute = entry.target.partition(":")
    try:
        found = getattr(__import__(module, fromlist=[attribute]), attribute)
    except ModuleNotFoundError as error:
        missing = error.name or "a module"
        if module == missing or module.startswith(missing + "."):
            cure = f"reinstall it: pip install --force-reinstall {entry.distribution}"
        elif entry.extras:
            cure = f"install it with: pip install '{entry.distribution}[{','.join(entry.extras)}]'"
        else:
            cure = f"install it with: pip install {missing.partition('.')[0]}"
        raise Unavailable(f"{entry.kind} {entry.name!r} needs the module {missing!r}; {cure}") from error
    except (ImportError, AttributeError) as error:
        raise Unavailable(f"{entry.kind} {entry.name!r} ({entry}) cannot be imported: {error}") from error
    contract = _CONTRACTS[entry.kind]
    if not (inspect.isclass(found) and issubclass(found, contract)):
        raise Unavailable(f"{entry.kind} {entry.name!r} ({entry}) is no {contract.__name__}")
    return found
