"""The batch that comes out of a mapping: documents, metadata, operations and errors put together again.

A new document may hold what JSON has no value for (times, bytes, floats that print otherwise). Whether
one does is found out by printing the batch, which is needed anyway: if nothing but plain JSON was met, the
values are kept beside the bytes; else the bytes alone are handed on.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import orjson

from hub.document import DocumentError, decode, document_part, encode_lines, plain_lines
from hub.errors import RecordError
from hub.mapping.values import DELETE, NOTHING, EvaluationError, Number, Value
from hub.record import OPERATIONS, Batch

_PERHAPS_JSON: Final = re.compile(
    rb"\s*(?:[\[{\"].*|-?[0-9][0-9.eE+-]*\s*|(?:true|false|null)\s*)", re.DOTALL
)
"""What every JSON text matches, and few others."""

_OPS: Final = {name: op for op, name in OPERATIONS.items()}


def rebuilt(
    batch: Batch,
    docs: Sequence[Any],
    results: list[Value],
    errors: dict[int, RecordError],
    metas: list[dict[str, Value]] | None,
    failed: Collection[int],
    unparsed: frozenset[int],
    odd: Sequence[int],
) -> tuple[Batch, Sequence[int]]:
    """The mapped batch, and the index each of its records had. `odd` lists the results that are no objects."""
    indexes: Sequence[int] = range(batch.count)
    kinds = {type(results[index]) for index in odd}
    dropped = unchanged = False
    if kinds:
        dropped = any(results[index] is DELETE for index in odd)
        unchanged = any(results[index] is NOTHING for index in odd)
        if kinds & {str, bytes}:
            for index in odd:
                results[index] = raw_document(results[index])
    if dropped:
        indexes = [index for index, result in enumerate(results) if result is not DELETE]
        results = [results[index] for index in indexes]
    lines: dict[int, bytes] = {}
    shared, columns = batch.shared, batch.columns
    if unchanged:
        if unparsed:
            whole = batch.lines()
            lines = {new: whole[old] for new, old in enumerate(indexes) if old in unparsed}
        results = [docs[old] if new is NOTHING else new for old, new in zip(indexes, results, strict=True)]
    errors = {new: errors[old] for new, old in enumerate(indexes) if old in errors} if dropped else errors
    if metas is not None:
        kept = [batch.metadata(index) if index in failed else metas[index] for index in indexes]
        try:
            shared, columns = metadata_of(kept)
        except EvaluationError:
            for place, index in enumerate(indexes):
                try:
                    metadata_of([kept[place]])
                except EvaluationError as error:
                    errors[place], results[place], kept[place] = error, docs[index], batch.metadata(index)
            shared, columns = metadata_of(kept)
    try:
        ndjson, plain = printed(results, lines)
    except (DocumentError, TypeError):
        whole = batch.lines()
        for new, why in unprintable(results, lines).items():
            lines[new] = whole[indexes[new]]
            if results[new] is not docs[indexes[new]]:
                errors[new] = why
        ndjson, plain = printed(results, lines)
    ops = batch.ops
    if metas is not None:
        ops = operations(batch, indexes, metas, failed)
    elif dropped:
        ops = bytes([batch.ops[index] for index in indexes]) if batch.ops is not None else None
        columns = {name: [values[index] for index in indexes] for name, values in columns.items()}
    made = Batch(
        batch.collection,
        len(results),
        ndjson=ndjson,
        docs=results if plain else None,
        ops=ops,
        shared=shared,
        columns=columns,
        errors=errors,
    )
    return made, indexes


def printed(docs: Sequence[Any], lines: Mapping[int, bytes]) -> tuple[bytes, bool]:
    """Documents as JSON lines, and whether they hold plain JSON values only. `lines` are printed already."""
    if lines:
        return b"".join(
            [lines[n] + b"\n" if n in lines else encode_lines([doc]) for n, doc in enumerate(docs)]
        ), False
    met: list[Any] = []

    def part(value: Any) -> Any:
        if type(value) is not Number:
            met.append(value)
        return document_part(value)

    try:
        found = plain_lines(docs, part)
    except TypeError:
        return encode_lines(docs), False
    return found, not met


def unprintable(docs: Sequence[Any], lines: Mapping[int, bytes]) -> dict[int, RecordError]:
    """The documents that have no JSON text, and why."""
    found: dict[int, RecordError] = {}
    for index, doc in enumerate(docs):
        if index not in lines:
            try:
                encode_lines([doc])
            except (DocumentError, TypeError) as error:
                found[index] = EvaluationError(str(error))
    return found


def raw_document(value: Value) -> Any:
    """Raw text as a document: the JSON it spells, else a string."""
    if type(value) is str or type(value) is bytes:
        data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        if not _PERHAPS_JSON.fullmatch(data):
            # Most texts are none at the first look; orjson would take 1.1 µs to say so.
            return data.decode("utf-8", "replace")
        try:
            orjson.loads(data)
        except ValueError:
            return data.decode("utf-8", "replace")
        return decode(data)
    return value


def operations(
    batch: Batch, indexes: Sequence[int], metas: Sequence[Mapping[str, Value]], failed: Collection[int]
) -> bytes | None:
    """The operations after `meta operation = …`; names that are none leave it as it was."""
    ops = bytearray(batch.ops or b"c" * batch.count)
    changed = batch.ops is not None
    for index in indexes:
        op = None if index in failed else _OPS.get(_name(metas[index].get("operation")))
        if op is not None and op != ops[index]:
            ops[index] = op
            changed = True
    return bytes(ops[index] for index in indexes) if changed else None


def _name(value: Value) -> str:
    return value if isinstance(value, str) else ""


def metadata_of(metas: Sequence[Mapping[str, Value]]) -> tuple[dict[str, Value], dict[str, list[Value]]]:
    """Metadata of each record as what all share and columns of what differs. `operation` is left out."""
    shared: dict[str, Value] = {}
    columns: dict[str, list[Value]] = {}
    for name in dict.fromkeys(name for meta in metas for name in meta):
        if name == "operation":
            continue
        values = [meta.get(name) for meta in metas]
        if not set(map(type, values)) <= _SETTLED:
            values = list(map(settled, values))
        if values.count(values[0]) == len(values) and len(set(map(type, values))) == 1:
            shared[name] = values[0]
        else:
            columns[name] = values
    return shared, columns


_SETTLED: Final = frozenset([type(None), str, int, float, bool])


def settled(value: Value) -> Any:
    """A metadata value as JSON has it."""
    if type(value) in _SETTLED:
        return value
    try:
        return decode(encode_lines([value]))
    except (DocumentError, TypeError) as error:
        raise EvaluationError(f"metadata cannot hold this value: {error}") from error
