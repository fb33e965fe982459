"""Names of tables and columns: quoted, shortened, and told apart where a database would mix them up.

The hard thing is that a name must come out the same on every start, whatever order the fields come in.
So a field first claims the column that is spelled exactly like it, then the one a collision gave it
before (a name that ends in a hash of the field's), then one that differs in case only, where the
database does not tell them apart, and only then a new one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

HASH_LENGTH = 8


@dataclass(frozen=True, slots=True)
class NameRule:
    """What a database lets stand in a name, and which names it takes for the same."""

    bytes_max: int | None = None
    folds_case: bool = False
    basic_plane: bool = False
    """Only characters up to U+FFFF."""


_UNDECODABLE = re.compile(r'["\\\x00-\x1f]')


def quoted(name: str, quote: str = '"') -> str:
    """A name as an identifier in SQL. Names are hostile: a quote in one is doubled."""
    return f"{quote}{name.replace(quote, quote * 2)}{quote}"


def literal(text: str) -> str:
    """A text as SQL, for a database in whose texts a backslash is a character like any other."""
    return "'" + text.replace("'", "''") + "'"


def fitted(name: str, rule: NameRule) -> str:
    """`name`, or what is left of it and a hash of it where the database does not allow it as it is.

    NUL can stand in no identifier, no letters at all or a space at the end in few: they get the hash, too.
    """
    short = rule.bytes_max is None or len(name.encode("utf-8", "replace")) <= rule.bytes_max
    if short and name and name[-1] != " " and name == _legal(name, rule):
        return name
    return hashed(name, rule)


def hashed(name: str, rule: NameRule, identity: str | None = None) -> str:
    """The name that a collision gives: as much of it as fits, `_` and eight hex digits of a SHA-256.

    The hash is of `identity`, which is `name` itself unless several would like the same one.
    """
    whole = name if identity is None else identity
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_LENGTH]
    start = _legal(name, rule).encode()
    if rule.bytes_max is not None:
        start = start[: rule.bytes_max - HASH_LENGTH - 1]
    return f"{start.decode('utf-8', 'ignore')}_{digest}"


def _legal(name: str, rule: NameRule) -> str:
    top = 0xFFFF if rule.basic_plane else 0x10FFFF
    return "".join(char for char in name if 0 < ord(char) <= top and not 0xD800 <= ord(char) < 0xE000)


def decodable(name: str) -> bool:
    """Whether msgspec takes this as the name of a field."""
    return not _UNDECODABLE.search(name)


IdT = TypeVar("IdT", bound=Hashable)


def assigned(wanted: Mapping[IdT, str], existing: Iterable[str], rule: NameRule) -> dict[IdT, str]:
    """A column for each id. `wanted` says which name each would like, in the schema's order.

    No two share a column, also where the database does not tell upper from lower case. The answer does
    not depend on the order as soon as the columns exist.
    """
    fold = str.casefold if rule.folds_case else str
    there = dict.fromkeys(existing)
    folded = {fold(name): name for name in there}
    plain = {one: fitted(name, rule) for one, name in wanted.items()}
    collided = {one: hashed(name, rule, repr(one)) for one, name in wanted.items()}
    found: dict[IdT, str] = {}
    taken: set[str] = set()
    for candidates in (plain, collided):
        for one, name in candidates.items():
            if one not in found and name in there and fold(name) not in taken:
                found[one] = name
                taken.add(fold(name))
    for one, name in plain.items():
        if one in found:
            continue
        if fold(name) in folded and fold(name) not in taken:
            name = folded[fold(name)]
        elif fold(name) in taken:
            name = collided[one]
        found[one] = name
        taken.add(fold(name))
    return {one: found[one] for one in wanted}
