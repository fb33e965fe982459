"""Taking segments apart into fragments, one of each collection; merging small fragments; compacting by key.

Blocks are copied as they are. Compaction alone makes new ones, of the records it keeps, under their old offsets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from hub import cdc
from hub.document import encode
from hub.errors import LogError
from hub.log.fragment import Fragment, FragmentWriter, Piece
from hub.log.frame import VISIBLE
from hub.log.history import SEALED, History
from hub.log.options import Retention
from hub.log.replay import Read, Readable, frames_after, read_part, schemas_before
from hub.log.segment import Segment
from hub.log.transaction import Encoding, decode_block, decode_head, encode_batch
from hub.record import DELETE, TRUNCATE, Batch
from hub.schema.collection import CollectionSchema

if TYPE_CHECKING:
    from hub.log.log import Log

OPEN_MAX = 200
"""Fragments written at a time; a segment with more collections is read more than once."""


Versions = dict[bytes, "int | tuple[tuple[int, frozenset[str]], ...]"]
"""By key, the offset of the version that holds all its newest values. Where the newest is partial there are several,
oldest first, each with the fields that it leaves as they were."""


class TooManyKeys(LogError):
    """A collection has more keys than compaction may hold in memory."""


def take_apart(log: Log, history: History, segment: Segment) -> list[Fragment]:
    """Copy what is visible in a sealed segment into a fragment of each collection, and register them."""
    made: list[Fragment] = []
    names = sorted(segment.collections)
    first_seq, last_seq = segment.header.base_seq, segment.last_seq
    schemas = schemas_before(log, first_seq)
    for start in range(0, len(names), OPEN_MAX):
        writers = {
            name: FragmentWriter(
                log.fs,
                history.directory,
                name,
                first_seq=first_seq,
                last_seq=last_seq,
                generation=0,
                schema=schemas.get(name),
            )
            for name in names[start : start + OPEN_MAX]
        }
        offsets = {name: segment.collections[name][0] for name in writers}
        try:
            for frame in frames_after(log, first_seq - 1, last_seq):
                for piece, body in pieces_of(log, frame, offsets):
                    writers[piece.block.collection].add(piece, body)
        except BaseException:
            for writer in writers.values():
                writer.abandon()
            raise
        made += [fragment for writer in writers.values() if (fragment := writer.finish()) is not None]
    history.replace(made, (), {SEALED: last_seq})
    return made


def pieces_of(log: Readable, frame: Read, offsets: dict[str, int]) -> Iterator[tuple[Piece, bytes]]:
    """The blocks of one frame, its parts' first, of the collections in `offsets`, which are counted on."""
    header = frame.found.header
    if header.kind not in VISIBLE:
        return
    item = 0
    head, _ = decode_head(frame.found.payload, frame.where)
    payloads = chain(
        (read_part(log, part) for part in head.parts or ()), [(frame.found.payload, frame.where)]
    )
    for payload, where in payloads:
        blocks, at = decode_head(payload, where)
        for block in blocks.blocks:
            name = block.collection
            if name in offsets:
                yield (
                    Piece(
                        header.epoch, header.seq, item, header.ts_us, head.task, offsets[name], None, block
                    ),
                    payload[at : at + block.stored_len],
                )
                offsets[name] += block.count
            at += block.stored_len
            item += 1


def merge(history: History, fragments: Sequence[Fragment]) -> Fragment | None:
    """Make one fragment of neighbours. Readers of the old ones finish undisturbed."""
    writer = _successor(history, fragments, compacted=fragments[0].compacted)
    return _rewrite(history, fragments, writer, _all_pieces(history, fragments))


def compact(
    history: History,
    fragments: Sequence[Fragment],
    rule: Retention,
    *,
    key: Sequence[str],
    now_us: int,
    keys_max: int,
) -> Fragment | None:
    """Keep of these neighbours the newest version of each key, with those before it that hold what it leaves as it was;
    deletes for a while; and records without a key.

    Raises TooManyKeys, with nothing changed.
    """
    newest = _newest_by_key(_all_pieces(history, fragments), key, keys_max)
    forget_us = now_us - int(rule.delete_retention_s * 1e6)
    writer = _successor(history, fragments, compacted=True)
    writer.oldest_delete_us = 0
    pieces = _compacted(_all_pieces(history, fragments), key, newest, forget_us, writer)
    return _rewrite(history, fragments, writer, pieces)


def _successor(history: History, fragments: Sequence[Fragment], *, compacted: bool) -> FragmentWriter:
    writer = FragmentWriter(
        history.fs,
        history.directory,
        fragments[0].collection,
        first_seq=fragments[0].first_seq,
        last_seq=fragments[-1].last_seq,
        generation=max(f.generation for f in fragments) + 1,
        compacted=compacted,
        schema=fragments[0].schema,
    )
    writer.oldest_delete_us = min([f.oldest_delete_us for f in fragments if f.oldest_delete_us], default=0)
    return writer


def _rewrite(
    history: History,
    fragments: Sequence[Fragment],
    writer: FragmentWriter,
    pieces: Iterator[tuple[Piece, bytes]],
) -> Fragment | None:
    try:
        for piece, body in pieces:
            writer.add(piece, body)
    except BaseException:
        writer.abandon()
        raise
    made = writer.finish()
    history.replace([made] if made is not None else [], fragments, {})
    return made


def _all_pieces(history: History, fragments: Sequence[Fragment]) -> Iterator[tuple[Piece, bytes]]:
    first, last = fragments[0], fragments[-1]
    for piece, body, _ in history.pieces(first.collection, first.first_seq - 1, last.last_seq):
        yield piece, body


def _newest_by_key(
    pieces: Iterator[tuple[Piece, bytes]], key: Sequence[str], keys_max: int
) -> tuple[Versions, int]:
    """The newest versions of each key, and the offset of the newest truncate (-1 without one)."""
    newest: Versions = {}
    truncated, extra = -1, 0
    for piece, body in pieces:
        if piece.block.encoding != Encoding.NDJSON:
            continue
        batch = _batch(piece, body)
        for row, (offset, unchanged) in enumerate(zip(offsets_of(piece), _unchanged(batch), strict=True)):
            if batch.op(row) == TRUNCATE:
                truncated, extra = offset, 0
                newest.clear()
                continue
            found = _key_of(batch.docs[row], key)
            if found is None:
                continue
            before = newest.get(found, ())
            if isinstance(before, tuple):
                extra -= len(before)
            if unchanged:
                newest[found] = after = _after(before, offset, frozenset(unchanged))
                extra += len(after)
            else:
                newest[found] = offset
        if len(newest) + extra > keys_max:
            raise TooManyKeys(
                f"collection {batch.collection!r} has more than {keys_max} keys (log.compact_keys_max)"
            )
    return newest, truncated


def _after(
    before: int | tuple[tuple[int, frozenset[str]], ...], offset: int, unchanged: frozenset[str]
) -> tuple[tuple[int, frozenset[str]], ...]:
    """The versions that are needed once a partial one has come: those before it that say what it does not."""
    versions = ((before, frozenset[str]()),) if isinstance(before, int) else before
    return (*(version for version in versions if not unchanged <= version[1]), (offset, unchanged))


def _holds(found: int | tuple[tuple[int, frozenset[str]], ...] | None, offset: int) -> bool:
    return found == offset if isinstance(found, int) else any(at == offset for at, _ in found or ())


def _unchanged(batch: Batch) -> Sequence[Any]:
    """The fields that each record leaves as they were."""
    column: Sequence[Any] | None = batch.columns.get(cdc.UNCHANGED)
    return column if column is not None else [batch.shared.get(cdc.UNCHANGED)] * batch.count


def _compacted(
    pieces: Iterator[tuple[Piece, bytes]],
    key: Sequence[str],
    newest: tuple[Versions, int],
    forget_us: int,
    writer: FragmentWriter,
) -> Iterator[tuple[Piece, bytes]]:
    """What stays of these blocks. The writer is told of the oldest delete that does."""
    versions, truncated = newest
    for piece, body in pieces:
        if piece.block.encoding != Encoding.NDJSON:
            yield piece, body
            continue
        batch = _batch(piece, body)
        offsets = offsets_of(piece)
        keep: list[int] = []
        for row, offset in enumerate(offsets):
            op = batch.op(row)
            if offset < truncated or (op in (DELETE, TRUNCATE) and piece.ts_us < forget_us):
                continue
            found = _key_of(batch.docs[row], key) if op != TRUNCATE else None
            if found is None or _holds(versions.get(found), offset):
                keep.append(row)
                if op in (DELETE, TRUNCATE) and not writer.oldest_delete_us:
                    writer.oldest_delete_us = piece.ts_us
        if len(keep) == batch.count:
            yield piece, body
        elif keep:
            block, made = encode_batch(batch.take(keep), piece.block.max_us, level=1, compress_from=1024)
            first = offsets[keep[0]]
            packed = struct.pack(f"<{len(keep)}I", *[offsets[row] - first for row in keep])
            yield (
                Piece(piece.epoch, piece.seq, piece.item, piece.ts_us, piece.task, first, packed, block),
                made,
            )


def offsets_of(piece: Piece) -> Sequence[int]:
    """The offset of each record of a block."""
    first = piece.first_offset
    if piece.offsets is None:
        return range(first, first + piece.block.count)
    return [first + away for (away,) in struct.iter_unpack("<I", piece.offsets)]


def key_fields(schema: bytes | None) -> Sequence[str]:
    """The fields of a collection's key, by its schema text; none without one."""
    return CollectionSchema.decode(schema).key_fields if schema is not None else ()


def _batch(piece: Piece, body: bytes) -> Batch:
    item = decode_block(piece.block, body, f"frame {piece.seq}")
    assert isinstance(item, Batch)
    return item


def _key_of(document: object, key: Sequence[str]) -> bytes | None:
    """The key's values as bytes, or None where the document lacks one."""
    if not isinstance(document, dict) or not key:
        return None
    values = [document.get(name) for name in key]
    return None if None in values else encode(values)
