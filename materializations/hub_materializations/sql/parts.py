"""A batch in parts that one statement can take, and what its metadata says of each change."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from hub import cdc
from hub.record import TRUNCATE, Batch

from .rows import metadata_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def cut_at_truncates(batch: Batch, *, keep: bool) -> Iterator[Batch]:
    """The batch with each truncate alone. `keep`: a truncate is a record like any other."""
    if keep or batch.ops is None or TRUNCATE not in batch.ops:
        return iter((batch,) if batch.count else ())
    return batch.parted((TRUNCATE,))


def unchanged_of(batch: Batch) -> Sequence[Sequence[str] | None] | None:
    """The fields of each record that keep the table's value; None when there are none."""
    if cdc.UNCHANGED not in batch.columns and cdc.UNCHANGED not in batch.shared:
        return None
    found = metadata_of(batch, cdc.UNCHANGED)
    return found if any(found) else None


def times_of(batch: Batch) -> list[str]:
    """When each change was made, as ISO 8601 in UTC: the source's commit time, else now."""
    now_ms = time.time_ns() // 1_000_000
    return [instant(now_ms if value is None else int(value)) for value in metadata_of(batch, cdc.TS_MS)]


def instant(ts_ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601 with an offset of zero."""
    return (_EPOCH + timedelta(milliseconds=ts_ms)).isoformat(timespec="milliseconds")
