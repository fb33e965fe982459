"""Options of the log, as a config file gives them. Each limit has a name here."""

from __future__ import annotations

from typing import Literal

import msgspec

Durability = Literal["disk", "interval", "os"]
"""When an append counts as durable: after fdatasync; after the write, synced every `interval_s`; after the
write, synced when the kernel likes. Only `disk` survives power loss without losing what was acknowledged."""

DURABILITY_TEXT: dict[Durability, str] = {
    "disk": "an acknowledged transaction survives kill, kernel crash and power loss",
    "interval": "an acknowledged transaction survives kill; power loss may take the last interval",
    "os": "an acknowledged transaction survives kill; power loss may take whatever the kernel had not written",
}


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long records of a collection are kept. They go when a limit that is set is exceeded; with none, never.

    With `until_consumed`, registered readers (holds) are waited for besides, however long that takes. An age of 0
    means: as soon as they are consumed.
    """

    age_s: float | None = 7 * 86_400.0
    bytes: int | None = None
    until_consumed: bool = True
    compact: bool = False
    """Keep only the newest version of each key in what is older than `compact_after_s`."""
    compact_after_s: float = 3_600.0
    delete_retention_s: float = 86_400.0
    """Compaction keeps deletes for so long, so that readers see them."""


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of one log. Sizes are bytes, times are seconds."""

    segment_bytes: int = 64 << 20
    cap_bytes: int | None = None
    """Hard cap on the disk used by journal and fragments. At the cap appends raise Full."""
    retention: Retention = Retention()
    collections: dict[str, Retention] = {}
    """Retention of single collections, by name, where it differs."""
    tail_bytes: int = 16 << 20
    """Newest transactions kept in memory for readers. Those that are further behind read the disk, at gigabytes a second."""
    queue_bytes: int = 32 << 20
    """Appends that wait for the disk; one that does not fit waits outside."""
    max_record_bytes: int = 64 << 20
    max_transaction_bytes: int = 64 << 20
    """A transaction larger than this has to be begun as a large one."""
    txn_timeout_s: float = 3_600.0
    """A large transaction that was given no part for so long is aborted."""
    hold_timeout_s: float = 86_400.0
    """A reader that holds the log and was not seen for so long raises an alarm; the records are still kept."""
    durability: Durability = "disk"
    interval_s: float = 0.05
    mark_after_s: float = 0.1
    """Idle time after which the last group is attested by a marker."""
    compression_level: int | None = 1
    """Level of zstd; None stores documents as they are."""
    compress_from_bytes: int = 1024
    """Blocks smaller than this are stored as they are."""
    fragment_bytes: int = 64 << 20
    fragments_after_s: float | None = 600.0
    """Sealed segments older than this are taken apart into fragments by collection. None keeps them whole."""
    compact_keys_max: int = 10_000_000
    """A collection with more keys is not compacted: its keys would not fit into memory."""
    keep_every_s: float = 5.0
    """How often retention looks."""
    roll_after_s: float = 600.0
    """A segment that holds anything is sealed at this age, so that retention can get at it."""
    allow_unsafe_filesystem: bool = False

    def retention_of(self, collection: str) -> Retention:
        return self.collections.get(collection, self.retention)
