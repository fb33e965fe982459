"""Where a PostgreSQL source is resumed: an LSN, and how far the snapshot of each table has come. Pure.

The hard thing is size: the position goes into every frame of the log, and there may be ten thousand tables. So
it only spells out those whose copy is under way. Tables that are simply followed stand in the note beside it,
which is written when one of them changes; the rest are those whose copy has not begun.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from hub.record import Position

Key = tuple[str, ...]
"""The text form of a row's key columns."""


class Visibility(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot of the server: which transactions it sees (`pg_current_snapshot`). Ids are 64 bits wide."""

    xmin: int
    xmax: int
    running: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Visibility:
        """Read `xmin:xmax:xip,xip`."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), tuple(int(xid) for xid in running.split(",") if xid))

    def sees(self, xid: int) -> bool:
        """Whether a transaction that has committed is visible. `xid` is 32 bits wide, as in the stream;
        its epoch is the one that brings it nearest to this snapshot."""
        wide = self.xmax & ~0xFFFFFFFF | xid & 0xFFFFFFFF
        if wide - self.xmax > 1 << 31:
            wide -= 1 << 32
        elif self.xmax - wide > 1 << 31:
            wide += 1 << 32
        return wide < self.xmin or (wide < self.xmax and wide not in self.running)


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """A range of keys that was read: up to and including `upper` (None: to the end), as `visibility` saw it.
    Transactions that it sees have committed before `fence`."""

    upper: Key | None
    visibility: Visibility
    fence: int


class Copying(msgspec.Struct, frozen=True, omit_defaults=True):
    """A table whose copy has begun, or waits with something to remember.

    `floor` is the upper end of the ranges whose chunks are forgotten, because the stream has passed their
    fences; the ranges of `chunks` follow it without a hole. `rows` counts rows read so far. `refresh` says
    that the table was followed before and still is: every change of it is sent on. `replace` says that rows of
    before may be there that are in the table no longer, so the copy stands between the marks of a backfill.
    `where` restricts the rows that are read.
    """

    floor: Key | None = None
    chunks: tuple[Chunk, ...] = ()
    rows: int = 0
    refresh: bool = False
    replace: bool = False
    where: str = ""
    began: bool = False


class Followed(NamedTuple):
    """What is remembered of a table that is followed, to notice what the stream does not show: its file on disk, and
    checksums of its columns, its name, the transactions that last touched its columns, how it came into
    the publication, the partitions that were filled before they were attached, and its key. 0 is not known."""

    filenode: int
    columns_crc: int
    name_crc: int
    touched_crc: int = 0
    member_crc: int = 0
    attached_crc: int = 0
    key_crc: int = 0


class Copied(msgspec.Struct, frozen=True, array_like=True):
    """Tables that one snapshot has shown whole, and whose changes up to `fence` may still come. OIDs, packed."""

    visibility: Visibility
    fence: int
    oids: str


class PostgresPosition(Position, frozen=True, omit_defaults=True):
    """`lsn` is the end of the last transaction that is wholly sent (or a later place with nothing between).

    `xids` are transactions since the last chunk that touched tables under copy: the next chunk must see
    them. `copying` are the tables whose copy is under way, by OID, `copied` those that were read whole. `waiting`
    counts those whose copy has not begun: all that are neither here nor in the note. `replaces` says that
    they stand between the marks of a backfill. `prepared_lsn` is where the oldest PREPARE stands whose transaction
    was neither committed nor rolled back at `lsn`: the server has to send it again. `forms` says of those in
    `copying` and `copied` what the note says of the others, packed alike, as they were when their copy began: so a
    table is known again that was dropped and made anew meanwhile, and a rewrite is noticed. `done` says that a source
    read once (`snapshot: only`) has been read.
    """

    system_id: str
    timeline: int
    database_oid: int
    slot: str
    lsn: int
    xids: tuple[int, ...] = ()
    copying: dict[str, Copying] = {}
    copied: tuple[Copied, ...] = ()
    waiting: int = 0
    replaces: bool = False
    done: bool = False
    forms: str = ""
    prepared_lsn: int | None = None

    @property
    def resend_lsn(self) -> int:
        """Where the server is to begin, and all that it may be told is durable."""
        return self.lsn if self.prepared_lsn is None else min(self.lsn, self.prepared_lsn)

    @property
    def source(self) -> tuple[str, int, int, str]:
        """System id, timeline, database and slot: what the LSN belongs to."""
        return self.system_id, self.timeline, self.database_oid, self.slot

    @property
    def is_settled(self) -> bool:
        """No table is under copy: all are simply followed."""
        return not self.copying and not self.copied and not self.waiting


_FOLLOWED = struct.Struct(">8I")
_FOLLOWED_BEFORE = struct.Struct(">4I")
_NOTE_FORM = b"\x02"
"""Begins a note; those of before were a multiple of four bytes long and said less."""
_OID = struct.Struct(">I")


def pack_followed(tables: Mapping[int, Followed]) -> bytes:
    """The note: tables that are followed, in 32 bytes each."""
    return _NOTE_FORM + b"".join([_FOLLOWED.pack(oid, *each) for oid, each in tables.items()])


def unpack_followed(note: bytes) -> dict[int, Followed]:
    """Read what `pack_followed` wrote."""
    if len(note) % 4 == 0:
        return {oid: Followed(*each) for oid, *each in _FOLLOWED_BEFORE.iter_unpack(note)}
    return {oid: Followed(*each) for oid, *each in _FOLLOWED.iter_unpack(note[1:])}


def pack_oids(oids: Iterable[int]) -> str:
    """OIDs or checksums, in their order, in 5⅓ characters each."""
    return base64.b64encode(b"".join([_OID.pack(oid) for oid in oids])).decode()


def unpack_oids(text: str) -> list[int]:
    """Read what `pack_oids` wrote."""
    return [oid for (oid,) in _OID.iter_unpack(base64.b64decode(text))]


def lsn_text(lsn: int) -> str:
    """As PostgreSQL prints it: `0/9D280660`."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def lsn_of(text: str) -> int:
    """Read what PostgreSQL printed."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)
