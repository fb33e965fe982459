"""What may be let go. Pure: given what there is, who reads it and what the rules say.

Nothing goes before its rule allows it and every registered reader has consumed it. Segments go oldest first
and without holes, since each proves that the one before it was not lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hub.log.fragment import Fragment
from hub.log.options import Retention
from hub.log.segment import Segment

DELETES_EVERY_S = 3_600.0
"""A fragment is not written anew for the sake of deletes more often than this."""

Rule = Callable[[str], Retention]


def segments_to_drop(
    segments: Sequence[Segment],
    *,
    rule: Rule,
    held_seq: int | None,
    sealed_seq: int,
    open_segno: int | None,
    remembered: Callable[[str], bool],
    now_us: int,
    pressed: bool = False,
) -> list[Segment]:
    """The oldest segments that can go. `held_seq` is the newest frame that all readers have consumed (None: there
    are none), `sealed_seq` the last frame taken apart into fragments, `open_segno` the first segment with a part
    of a transaction still open; `remembered` tells of which collections older records stand in fragments, which go
    first. Under pressure what was consumed goes before its time."""
    drop: list[Segment] = []
    newer = _bytes_after(segments)
    for index, segment in enumerate(segments):
        if not segment.sealed or (open_segno is not None and segment.segno >= open_segno):
            break
        if any(later.first_part_segno <= segment.segno for later in segments[index + 1 :]):
            break
        if segment.last_seq > sealed_seq and not all(
            not remembered(name)
            and _over(
                rule(name),
                segment.last_us,
                newer[index].get(name, 0),
                segment.newest_seq,
                held_seq,
                now_us,
                pressed,
            )
            for name in segment.collections
        ):
            break
        drop.append(segment)
    return drop


def fragments_to_drop(
    fragments: Sequence[Fragment],
    *,
    rule: Retention,
    held_seq: int | None,
    newer_bytes: int,
    now_us: int,
    pressed: bool = False,
) -> list[Fragment]:
    """The oldest fragments of one collection that can go. `newer_bytes` are those of it that are in no fragment."""
    drop: list[Fragment] = []
    after = newer_bytes + sum(f.raw_bytes for f in fragments)
    for fragment in fragments:
        after -= fragment.raw_bytes
        if not _over(rule, fragment.last_us, after, fragment.newest_seq, held_seq, now_us, pressed):
            break
        drop.append(fragment)
    return drop


def fragments_to_merge(fragments: Sequence[Fragment], fragment_bytes: int) -> list[Fragment]:
    """A run of small neighbours worth making one, or none. Eight at a time, so that bytes are copied few times."""
    run: list[Fragment] = []
    for fragment in fragments:
        if run and (fragment.compacted != run[0].compacted or fragment.size >= 4 * max(f.size for f in run)):
            run = []
        if fragment.size * 2 > fragment_bytes:
            run = []
            continue
        run.append(fragment)
        if len(run) >= 8 or sum(f.size for f in run) > fragment_bytes:
            return run if len(run) > 1 else []
    return []


def fragments_to_compact(fragments: Sequence[Fragment], rule: Retention, now_us: int) -> list[Fragment]:
    """The fragments, oldest first, to be compacted together, or none. They are worth it once what was added since the
    last time is half as much as what that left, or the deletes of an hour need not be kept any longer."""
    if not rule.compact:
        return []
    old: list[Fragment] = []
    for fragment in fragments:
        if now_us - fragment.last_us < rule.compact_after_s * 1e6:
            break
        old.append(fragment)
    added = sum(f.raw_bytes for f in old if not f.compacted)
    left = sum(f.raw_bytes for f in old if f.compacted)
    past_us = now_us - (rule.delete_retention_s + min(rule.delete_retention_s, DELETES_EVERY_S)) * 1e6
    over = any(0 < f.oldest_delete_us < past_us for f in old)
    return old if over or (added and added * 2 >= left) else []


def _over(
    rule: Retention,
    last_us: int,
    newer_bytes: int,
    last_seq: int,
    held_seq: int | None,
    now_us: int,
    pressed: bool,
) -> bool:
    consumed = held_seq is not None and last_seq <= held_seq
    if rule.until_consumed and held_seq is not None and not consumed:
        return False
    if pressed and consumed:
        return True
    if rule.age_s is not None and now_us - last_us > rule.age_s * 1e6:
        return True
    return rule.bytes is not None and newer_bytes >= rule.bytes


def _bytes_after(segments: Sequence[Segment]) -> list[dict[str, int]]:
    """For each segment the raw bytes of each collection in later ones."""
    after: list[dict[str, int]] = []
    total: dict[str, int] = {}
    for segment in reversed(segments):
        after.append(dict(total))
        for name, (_, _, raw_bytes) in segment.collections.items():
            total[name] = total.get(name, 0) + raw_bytes
    after.reverse()
    return after
