"""The messages of the pgoutput plugin that are not rows. Pure.

Formats: PostgreSQL manual, section 54.9 (Logical Replication Message Formats), protocol versions 1
to 3. A message is given as it came, with the 25 bytes of its XLogData header before it.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from hub.errors import FatalError

HEADER: Final = 25
"""Bytes of the XLogData header: `w`, WAL start, WAL end, the server's clock."""

COLUMNS_MAX: Final = 512
"""So many different sets of columns are remembered."""

_EPOCH_2000_MS: Final = 946_684_800_000
"""PostgreSQL counts microseconds from 2000-01-01."""

_BEGIN = struct.Struct(">QqI")
_COMMIT = struct.Struct(">QQq")


class Begin(NamedTuple):
    """`commit_lsn` is where the commit record stands, not where the transaction began."""

    commit_lsn: int
    ts_ms: int
    xid: int


class Commit(NamedTuple):
    commit_lsn: int
    end_lsn: int
    ts_ms: int


class Prepared(NamedTuple):
    """A prepared transaction, or its commit: `lsn` is where the record of the PREPARE or the COMMIT PREPARED stands."""

    lsn: int
    end_lsn: int
    ts_ms: int
    xid: int
    gid: str


class RelationColumn(NamedTuple):
    name: str
    type_oid: int
    modifier: int
    in_identity: bool


class Relation(msgspec.Struct, frozen=True):
    """A table as the rows that follow are laid out. `identity` is `d` default, `n` nothing, `f` full, `i` index."""

    oid: int
    schema: str
    table: str
    identity: str
    columns: tuple[RelationColumn, ...]


class Truncate(NamedTuple):
    oids: tuple[int, ...]
    cascade: bool
    restart_identity: bool


class Message(NamedTuple):
    """What an application wrote with `pg_logical_emit_message`."""

    transactional: bool
    lsn: int
    prefix: str
    content: bytes


class Keepalive(NamedTuple):
    wal_end: int
    wants_reply: bool


def keepalive(message: bytes) -> Keepalive:
    """A `k` of the streaming protocol itself."""
    return Keepalive(int.from_bytes(message[1:9]), message[17] == 1)


def begin(b: bytes, at: int = HEADER) -> Begin:
    """`B`: commit LSN, commit time, xid."""
    commit_lsn, microseconds, xid = _BEGIN.unpack_from(b, at + 1)
    return Begin(commit_lsn, microseconds // 1000 + _EPOCH_2000_MS, xid)


def commit(b: bytes, at: int = HEADER) -> Commit:
    """`C`: flags, commit LSN, end LSN, commit time. (Also the body of a stream commit, after its xid.)"""
    commit_lsn, end_lsn, microseconds = _COMMIT.unpack_from(b, at + 2)
    return Commit(commit_lsn, end_lsn, microseconds // 1000 + _EPOCH_2000_MS)


def end_lsn(b: bytes) -> int:
    """Of a `C` only where its transaction ends."""
    return int.from_bytes(b[HEADER + 10 : HEADER + 18])


def begin_prepare(b: bytes, at: int = HEADER) -> Prepared:
    """`b`: LSN and end LSN of the PREPARE, its time, xid, gid."""
    return Prepared(
        int.from_bytes(b[at + 1 : at + 9]),
        int.from_bytes(b[at + 9 : at + 17]),
        _ms(b[at + 17 : at + 25]),
        int.from_bytes(b[at + 25 : at + 29]),
        _string(b, at + 29)[0],
    )


def prepared(b: bytes, at: int = HEADER) -> Prepared:
    """`P`, `p` and `K`: flags, and what a begin prepare says, in `K` of the COMMIT PREPARED."""
    return begin_prepare(b, at + 1)


def rolled_back(b: bytes, at: int = HEADER) -> int:
    """`r`: flags, end LSNs and times of PREPARE and ROLLBACK PREPARED, xid, gid. The xid."""
    return int.from_bytes(b[at + 34 : at + 38])


def relation(b: bytes, at: int = HEADER) -> Relation:
    """`R`: OID, schema, name, identity, columns."""
    oid = int.from_bytes(b[at + 1 : at + 5])
    schema, at = _string(b, at + 5)
    table, at = _string(b, at)
    identity = chr(b[at])
    return Relation(oid, schema or "pg_catalog", table, identity, _columns(b[at + 1 :]))


@lru_cache(COLUMNS_MAX)
def _columns(b: bytes) -> tuple[RelationColumn, ...]:
    """The columns of a relation. Tables that have the same share them."""
    at = 2
    columns = []
    for _ in range(int.from_bytes(b[:2])):
        in_identity = b[at] & 1 == 1
        name, at = _string(b, at + 1)
        type_oid = int.from_bytes(b[at : at + 4])
        modifier = int.from_bytes(b[at + 4 : at + 8], signed=True)
        at += 8
        columns.append(RelationColumn(name, type_oid, modifier, in_identity))
    return tuple(columns)


def relation_message(found: Relation) -> bytes:
    """The message that says so, with an empty header."""
    parts = [bytes(HEADER), b"R", found.oid.to_bytes(4)]
    parts += [found.schema.encode(), b"\0", found.table.encode(), b"\0", found.identity.encode()]
    parts.append(len(found.columns).to_bytes(2))
    for column in found.columns:
        parts += [bytes([column.in_identity]), column.name.encode(), b"\0"]
        parts += [column.type_oid.to_bytes(4), column.modifier.to_bytes(4, signed=True)]
    return b"".join(parts)


def truncate(b: bytes, at: int = HEADER) -> Truncate:
    """`T`: relations, options, OIDs."""
    count, options = int.from_bytes(b[at + 1 : at + 5]), b[at + 5]
    at += 6
    oids = tuple(int.from_bytes(b[at + 4 * i : at + 4 * i + 4]) for i in range(count))
    return Truncate(oids, bool(options & 1), bool(options & 2))


def message(b: bytes, at: int = HEADER) -> Message:
    """`M`: flags, LSN, prefix, content."""
    transactional = b[at + 1] & 1 == 1
    lsn = int.from_bytes(b[at + 2 : at + 10])
    prefix, at = _string(b, at + 10)
    size = int.from_bytes(b[at : at + 4])
    return Message(transactional, lsn, prefix, b[at + 4 : at + 4 + size])


def origin(b: bytes, at: int = HEADER) -> str:
    """`O`: the name of the origin that the transaction was replicated from."""
    return _string(b, at + 9)[0]


def unknown(b: bytes, at: int = HEADER) -> FatalError:
    """The error for a message of a kind that this protocol version does not have."""
    return FatalError(
        f"the server sent a logical replication message of an unknown kind {b[at : at + 1]!r}; "
        "nothing after it can be understood. Please report this with the server's version"
    )


def _string(b: bytes, at: int) -> tuple[str, int]:
    end = b.index(0, at)
    return b[at:end].decode(errors="replace"), end + 1


def _ms(microseconds: bytes) -> int:
    return int.from_bytes(microseconds, signed=True) // 1000 + _EPOCH_2000_MS
