"""The process that a hub runs in: garbage collector and allocator set for batches that come and go.

Both would otherwise learn from batches what is wrong for them: that there are many objects to look through for
cycles, and that blocks of megabytes are best kept in the heap, which then never shrinks around them.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

GC_THRESHOLDS = (200_000, 50, 1_000)

MAPPED_BYTES = 1 << 20
"""Blocks from this size on are given back to the system one by one, and so is as much at the end of a heap. Left alone
glibc begins with 128 KB and raises both up to 32 MB, and a stream of a million rows peaks 100 MB higher. With less than
this each batch of half a megabyte is fresh memory, which costs that stream 0.2 s of processor time."""

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


@contextlib.contextmanager
def tuned() -> Iterator[None]:
    """This process is set up for the time of the block. Everything imported should be there already."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, MAPPED_BYTES)
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)
    # Documents hold no cycles, so collecting them finds nothing, and walking a batch of them costs as much as
    # mapping it: 71 ms a batch of 13 000 with the default thresholds.
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        yield
    finally:
        # What is frozen at the end of the interpreter counts as leaked, and DuckDB's bindings print pages about it.
        gc.unfreeze()
        gc.set_threshold(*thresholds)
