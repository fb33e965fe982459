"""Transactions, and the bytes a frame carries of them.

A payload is a small head (MessagePack) and the bodies of its blocks. A block holds the records of one batch:
its body is operations, metadata columns and NDJSON, in this order, compressed as one where that pays. The body
never changes again on its way to a reader, a fragment or an object store, and has a checksum of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum

import msgspec
import zstandard
from google_crc32c import value as crc_of

from hub.document import decode, encode
from hub.errors import Corrupt, FatalError, RecordError
from hub.log.frame import crc_of_parts
from hub.record import Batch, Place

_LENGTH_BYTES = 4
JOIN_BYTES = 32 << 10
"""Payloads smaller than this are joined: one buffer costs less than several."""

BLOCK_BYTES_MAX = 1 << 30
"""No block is inflated beyond this, whatever its head states."""

_WORTH = 0.95
"""Compressed bytes are kept only where they are at most this part of the raw ones."""


class Schema(msgspec.Struct, frozen=True, gc=False):
    """A collection's schema, as JSON text. It holds from its place in the order on."""

    collection: str
    text: bytes


Item = Batch | Schema


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """What one append makes durable as a whole.

    `position` becomes the newest position of the task, `note` its newest note (None keeps the one before): what
    belongs to the position, but is large and changes rarely. `token` makes the append idempotent: a later
    append of the same task with the same token, while it is remembered, writes nothing.
    """

    task: str
    items: Sequence[Item]
    position: bytes | None = None
    token: bytes | None = None
    note: bytes | None = None


class Lost(msgspec.Struct, frozen=True, gc=False):
    """Stands where `repair` found records of a collection lost. Readers are told, and get none of it."""

    collection: str
    count: int


class Committed(msgspec.Struct, frozen=True, gc=False):
    """One durable transaction, as a reader gets it, or a piece of one.

    A large transaction comes in several pieces of the same place; only the last has `complete` set. Commit
    nowhere else. `lost` are records that stood here and are gone.
    """

    place: Place
    task: str
    ts_us: int
    items: Sequence[Item]
    complete: bool = True
    lost: Sequence[Lost] = ()

    @property
    def size(self) -> int:
        return charged(self.items)


class Encoding(IntEnum):
    """What the body of a block holds."""

    NDJSON = 0
    ARROW = 1
    SCHEMA = 2
    LOST = 3
    """Nothing: so many records stood here, and `repair` found them lost."""


class Codec(IntEnum):
    RAW = 0
    ZSTD = 1


# Plain numbers for the path that every append takes: an enum costs a look-up each time.
NDJSON, SCHEMA = int(Encoding.NDJSON), int(Encoding.SCHEMA)
RAW, ZSTD = int(Codec.RAW), int(Codec.ZSTD)


class BlockHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is known of a block without its body. Times are when its records were appended."""

    collection: str
    count: int
    min_us: int
    max_us: int
    encoding: int
    codec: int
    raw_len: int
    stored_len: int
    crc: int
    ops_len: int
    columns_len: int
    shared: bytes


class PartRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a part of a large transaction lies."""

    segno: int
    pos: int
    seq: int
    length: int
    crc: int


class Head(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The head of a payload. `txn` names the large transaction of a PART, COMMIT or ABORT.

    A COMMIT also has the places of its parts and, by collection, the records and raw bytes in them.
    """

    task: str
    position: bytes | None
    token: bytes | None
    blocks: list[BlockHead]
    txn: int | None = None
    parts: list[PartRef] | None = None
    totals: list[tuple[str, int, int]] | None = None
    note: bytes | None = None


class Encoded:
    """A payload that is ready to be framed, and what the writer needs to know of it."""

    __slots__ = ("crc", "head", "items", "length", "parts", "records", "schema_texts", "size")

    def __init__(
        self,
        head: Head,
        bodies: list[bytes],
        items: tuple[Item, ...],
        *,
        size: int,
        records: int,
        schema_texts: Sequence[bytes],
    ) -> None:
        text = _encode_head(head)
        parts = [len(text).to_bytes(_LENGTH_BYTES, "little"), text, *bodies]
        if size < JOIN_BYTES:
            joined = b"".join(parts)
            self.parts = [joined]
            self.length = len(joined)
            self.crc = crc_of(joined)
        else:
            self.parts = parts
            self.length = sum(map(len, parts))
            self.crc = crc_of_parts(parts)
        self.head = head
        self.items = items
        """As readers get them from memory: without decoded values."""
        self.size = size
        """Raw bytes of the items."""
        self.records = records
        self.schema_texts = schema_texts
        """Bodies of the schema blocks, in order."""


_head_encoder = msgspec.msgpack.Encoder()
_head_decoder = msgspec.msgpack.Decoder(Head)
_threads = threading.local()


def _encode_head(head: Head) -> bytes:
    return _head_encoder.encode(head)


def encode_transaction(
    txn: Transaction,
    *,
    level: int | None,
    compress_from: int,
    txn_id: int | None = None,
    parts: list[PartRef] | None = None,
    totals: list[tuple[str, int, int]] | None = None,
) -> Encoded:
    """The payload of a transaction. Compresses, so call it in a thread when it is large."""
    now_us = time.time_ns() // 1000
    heads: list[BlockHead] = []
    bodies: list[bytes] = []
    items: list[Item] = []
    size = records = 0
    texts: list[bytes] = []
    for item in txn.items:
        if isinstance(item, Batch):
            head, body = encode_batch(item, now_us, level=level, compress_from=compress_from)
            items.append(bytes_only(item) if item.has_docs or item.has_columns else item)
        else:
            head, body = _schema_head(item, now_us), item.text
            texts.append(body)
            items.append(item)
        heads.append(head)
        bodies.append(body)
        size += head.raw_len
        records += head.count
    whole = Head(txn.task, txn.position, txn.token, heads, txn_id, parts, totals, txn.note)
    return Encoded(whole, bodies, tuple(items), size=size, records=records, schema_texts=texts)


def bytes_only(batch: Batch) -> Batch:
    """The same batch without its decoded values, so that what is kept in memory is what was counted."""
    return Batch(
        batch.collection,
        batch.count,
        ndjson=batch.ndjson,
        ops=batch.ops,
        shared=batch.shared,
        columns_json=batch.columns_json,
    )


def _schema_head(schema: Schema, now_us: int) -> BlockHead:
    size, crc = len(schema.text), crc_of(schema.text)
    return BlockHead(
        schema.collection, 0, now_us, now_us, Encoding.SCHEMA, Codec.RAW, size, size, crc, 0, 0, b""
    )


def encode_batch(
    batch: Batch, now_us: int, *, level: int | None, compress_from: int
) -> tuple[BlockHead, bytes]:
    if batch.errors:
        raise ValueError(f"{batch!r} carries errors; set them aside before it is appended")
    ops, columns = batch.ops or b"", batch.columns_json
    body = batch.ndjson
    if ops or columns:
        body = b"".join((ops, columns, body))
    raw_len = len(body)
    codec = RAW
    if level is not None and raw_len >= compress_from:
        packed = _compressor(level).compress(body)
        if len(packed) <= raw_len * _WORTH:
            body, codec = packed, ZSTD
    head = BlockHead(
        batch.collection,
        batch.count,
        now_us,
        now_us,
        NDJSON,
        codec,
        raw_len,
        len(body),
        crc_of(body),
        len(ops),
        len(columns),
        encode(batch.shared) if batch.shared else b"",
    )
    return head, body


def _compressor(level: int) -> zstandard.ZstdCompressor:
    """One compressor a thread: they keep state and must not be shared."""
    made: dict[int, zstandard.ZstdCompressor] | None = getattr(_threads, "compressors", None)
    if made is None:
        made = _threads.compressors = {}
    if level not in made:
        made[level] = zstandard.ZstdCompressor(level=level, write_checksum=False, write_content_size=True)
    return made[level]


def decode_head(payload: bytes | memoryview, where: str) -> tuple[Head, int]:
    """The head of a payload, and where its first body begins. The payload's checksum must hold already."""
    size = int.from_bytes(payload[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + size
    if start > len(payload):
        raise Corrupt(f"{where}: head of {size} bytes in a payload of {len(payload)}")
    try:
        return _head_decoder.decode(payload[_LENGTH_BYTES:start]), start
    except (msgspec.MsgspecError, ValueError) as error:
        raise Corrupt(f"{where}: the head of the transaction cannot be read: {error}") from error


def decode_items(
    payload: bytes, head: Head, start: int, wanted: Callable[[str], bool], where: str
) -> list[Item | Lost]:
    """The batches and schemas of a payload whose collection is wanted."""
    items: list[Item | Lost] = []
    at = start
    for block in head.blocks:
        if wanted(block.collection):
            items.append(decode_block(block, payload[at : at + block.stored_len], where))
        at += block.stored_len
    return items


def lost_block(collection: str, count: int, raw_bytes: int, ts_us: int) -> BlockHead:
    """The block that stands for lost records: they count on, so that offsets stay what they were."""
    return BlockHead(collection, count, ts_us, ts_us, Encoding.LOST, Codec.RAW, raw_bytes, 0, 0, 0, 0, b"")


def parted(items: Iterable[Item | Lost]) -> tuple[list[Item], list[Lost]]:
    """What is there, and what is lost."""
    found = list(items)
    lost = [item for item in found if isinstance(item, Lost)]
    return [item for item in found if not isinstance(item, Lost)], lost


def decode_block(block: BlockHead, body: bytes, where: str) -> Item | Lost:
    """One block's batch or schema. Checks the body against the head; never inflates beyond what it states."""
    where = f"{where}, collection {block.collection!r}"
    if len(body) != block.stored_len or crc_of(body) != block.crc:
        raise Corrupt(f"{where}: checksum of a block does not match")
    if block.encoding == Encoding.SCHEMA:
        return Schema(block.collection, body)
    if block.encoding == Encoding.LOST:
        return Lost(block.collection, block.count)
    if block.encoding != Encoding.NDJSON:
        raise FatalError(f"{where}: encoding {block.encoding} is not known; use the newer hub that wrote it")
    if block.codec == Codec.ZSTD:
        body = _inflate(body, block.raw_len, where)
    elif block.codec != Codec.RAW:
        raise FatalError(f"{where}: codec {block.codec} is not known; use the newer hub that wrote it")
    split = block.ops_len + block.columns_len
    if len(body) != block.raw_len or split > block.raw_len or block.ops_len not in (0, block.count):
        raise Corrupt(f"{where}: block of {len(body)} bytes, its head says {block.raw_len}")
    try:
        shared = decode(block.shared) if block.shared else None
    except ValueError as error:
        raise Corrupt(f"{where}: metadata of a block cannot be read: {error}") from error
    return Batch(
        block.collection,
        block.count,
        ndjson=body[split:] if split else body,
        ops=body[: block.ops_len] or None,
        shared=shared,
        columns_json=body[block.ops_len : split],
    )


def _inflate(body: bytes, raw_len: int, where: str) -> bytes:
    """Bytes of zstd. Its own header must state the length that the block's does: no bomb gets past that."""
    try:
        if raw_len > BLOCK_BYTES_MAX or zstandard.frame_content_size(body) != raw_len:
            raise Corrupt(f"{where}: compressed block states another length than its head")
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=raw_len)
    except zstandard.ZstdError as error:
        raise Corrupt(f"{where}: compressed block cannot be read: {error}") from error


def charged(items: Sequence[Item]) -> int:
    """Bytes that items count for against limits and budgets."""
    return sum([item.size if isinstance(item, Batch) else len(item.text) for item in items])


def is_small(items: Sequence[Item], limit: int) -> bool:
    """Whether items are surely below a limit, found out without making bytes of values."""
    size = 0
    for item in items:
        if not isinstance(item, Batch):
            size += len(item.text)
        elif item.has_ndjson:
            size += len(item.ndjson) + 64 * item.count
        else:
            size += 1024 * item.count
    return size < limit


def check_record_sizes(items: Sequence[Item], limit: int) -> None:
    """Refuse a record above the limit, naming its collection, size and place in the batch."""
    for item in items:
        if isinstance(item, Batch) and item.size > limit:
            for index, line in enumerate(item.lines()):
                if len(line) > limit:
                    raise RecordError(
                        f"record {index} of a batch of {item.collection!r} has {len(line)} bytes, "
                        f"the log takes at most {limit} (log.max_record)",
                        component="log",
                    )


class Summary(msgspec.Struct, array_like=True):
    """The payload of a SEAL: what its segment holds, and a sparse index by sequence and running time.

    `collections` maps a name to first offset, records, raw bytes. `newest_seq` is the last frame that readers are
    shown, or the one before the segment. `first_part_segno` is the oldest segment that
    a COMMIT in this one refers to, or its own.
    """

    collections: dict[str, tuple[int, int, int]]
    first_us: int
    last_us: int
    first_part_segno: int
    newest_seq: int
    index: list[tuple[int, int, int]]
