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
from typing import TypeVar

HASH_LENGTH = 8

_UNDECODABLE = re.compile(r'["\\\x00-\x1f]')


def quoted(name: str, quote: str = '"') -> str:
    """A name as an identifier in SQL. Names are hostile: a quote in one is doubled."""
    return f"{quote}{name.replace(quote, quote * 2)}{quote}"


def fitted(name: str, bytes_max: int | None) -> str:
    """`name`, or its beginning and a hash of it where it is longer than a database allows.

    NUL cannot stand in any identifier and an empty name in few; both get the hash as well.
    """
    if name and "\0" not in name and (bytes_max is None or len(name.encode("utf-8", "replace")) <= bytes_max):
        return name
    return hashed(name, bytes_max)


def hashed(name: str, bytes_max: int | None, identity: str | None = None) -> str:
    """The name that a collision gives: as much of it as fits, `_` and eight hex digits of a SHA-256.

    The hash is of `identity`, which is `name` itself unless several would like the same one.
    """
    whole = name if identity is None else identity
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_LENGTH]
    start = name.replace("\0", "").encode("utf-8", "replace")
    if bytes_max is not None:
        start = start[: bytes_max - HASH_LENGTH - 1]
    return f"{start.decode('utf-8', 'ignore')}_{digest}"


def decodable(name: str) -> bool:
    """Whether msgspec takes this as the name of a field."""
    return not _UNDECODABLE.search(name)


IdT = TypeVar("IdT", bound=Hashable)


def assigned(
    wanted: Mapping[IdT, str], existing: Iterable[str], *, folds_case: bool, bytes_max: int | None
) -> dict[IdT, str]:
    """A column for each id. `wanted` says which name each would like, in the schema's order.

    No two share a column, also where the database does not tell upper from lower case. The answer does
    not depend on the order as soon as the columns exist.
    """
    fold = str.casefold if folds_case else str
    there = dict.fromkeys(existing)
    folded = {fold(name): name for name in there}
    plain = {one: fitted(name, bytes_max) for one, name in wanted.items()}
    collided = {one: hashed(name, bytes_max, repr(one)) for one, name in wanted.items()}
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
