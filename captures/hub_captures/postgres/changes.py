"""What a row message says: which records it makes, with which metadata. Pure.

This is the careful way, for messages with an old image, unchanged values or a size beyond the limit, and for
tables under copy. The quick way for all others is in `decoder.py`. A change of the key becomes a delete and
a create: a keyed destination would else keep the old row.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from hub import cdc
from hub.document import encode
from hub.record import CREATE, DELETE, UPDATE
from hub_captures.postgres import pgoutput
from hub_captures.postgres.cells import UNCHANGED, Cell, text_of, tuple_cells
from hub_captures.postgres.decoder import Decoder
from hub_captures.postgres.pgoutput import HEADER
from hub_captures.postgres.position import Key

NEW, KEY_IMAGE = b"NK"
_INSERT, _DELETE = b"ID"
TUPLE: Final = HEADER + 6
"""Where the first tuple of a row message begins: after kind, OID and the tuple's own kind."""


class RowForm(NamedTuple):
    """How the rows of a table come: what makes lines of them, and the places of the columns that are its key, and of
    those that an old image has which means only the identity."""

    decoder: Decoder
    key_indexes: tuple[int, ...]
    identity_indexes: tuple[int, ...]


class Change(NamedTuple):
    """One record to be. `key` is the key of the row it is about."""

    op: int
    key: Key
    line: bytes
    metadata: Mapping[str, Any]


def changes_of(b: bytes, form: RowForm) -> list[Change]:
    """What a row message says: one change, or a delete and a create when the key has changed."""
    kind, image = b[HEADER], b[30]
    cells, at = tuple_cells(b, TUPLE)
    decoder = form.decoder
    if kind == _INSERT:
        return [Change(CREATE, _key(cells, form), decoder.document(cells), {})]
    if kind == _DELETE:
        if image == KEY_IMAGE:
            return [Change(DELETE, _key(cells, form), decoder.document(cells, form.identity_indexes), {})]
        line = decoder.document(cells)
        return [Change(DELETE, _key(cells, form), line, {cdc.BEFORE: line[:-1]})]
    if image == NEW:
        return [_updated(cells, form, {})]
    new, _ = tuple_cells(b, at + 1)
    for index in range(len(new)) if image != KEY_IMAGE else form.identity_indexes:
        if new[index] is UNCHANGED:
            new[index] = cells[index]
    before: dict[str, Any] = {}
    old_line = decoder.document(cells, None if image != KEY_IMAGE else form.identity_indexes)
    if image != KEY_IMAGE:
        before[cdc.BEFORE] = old_line[:-1]
    old_key, new_key = _key(cells, form), _key(new, form)
    if old_key == new_key:
        return [_updated(new, form, before)]
    created = _updated(new, form, before)
    return [
        Change(
            DELETE,
            old_key,
            old_line,
            {**before, cdc.KEY_CHANGE: decoder.document(new, form.key_indexes)[:-1]},
        ),
        created._replace(
            op=CREATE,
            metadata={**created.metadata, cdc.KEY_CHANGE: decoder.document(cells, form.key_indexes)[:-1]},
        ),
    ]


def _updated(cells: Sequence[Cell], form: RowForm, metadata: Mapping[str, Any]) -> Change:
    unchanged = form.decoder.unchanged(cells)
    if unchanged:
        metadata = {**metadata, cdc.UNCHANGED: unchanged}
    return Change(UPDATE, _key(cells, form), form.decoder.document(cells), metadata)


def with_values(change: Change, values: Mapping[str, bytes]) -> Change:
    """A change with fields that were asked for, each as its label and JSON."""
    metadata = dict(change.metadata)
    unchanged = [name for name in metadata.pop(cdc.UNCHANGED) if name not in values]
    if unchanged:
        metadata[cdc.UNCHANGED] = unchanged
    line = b",".join([change.line[:-2], *values.values()]) + b"}\n" if values else change.line
    return change._replace(line=line, metadata=metadata)


def message_line(found: pgoutput.Message) -> bytes:
    """A logical message as a document: its content as text, or in base64 when it is no text."""
    try:
        return encode({"content": found.content.decode()}) + b"\n"
    except UnicodeDecodeError:
        return encode({"content_base64": base64.b64encode(found.content).decode()}) + b"\n"


def _key(cells: Sequence[Cell], form: RowForm) -> Key:
    return tuple([text_of(cells[index]) for index in form.key_indexes])
