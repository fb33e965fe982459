"""A batch as rows of one layout: decoded once, checked record by record, in the order of its columns.

The hard thing is speed with exactness. Documents are decoded in C straight into a class generated
for the layout, with the types of its columns, so that a value that does not fit is found here and
named; numbers keep their text where the column keeps it (JSON columns get the very text of the
source). Python touches single cells only in columns that need converting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from functools import cached_property
from operator import attrgetter, itemgetter
from typing import Annotated, Any

import msgspec
from msgspec import Raw

from hub import cdc
from hub.materialization import Rejected
from hub.record import OPERATIONS, Batch
from hub.schema import ColumnType

from .dialect import Converter, Dialect
from .layout import Layout, LayoutColumn
from .names import NameRule, decodable, hashed

Row = tuple[Any, ...]

_RAW = frozenset({"json", "array", "object"})
"""What is kept as the very text of the document."""

_NUL = b"\\u0000"
_OBJECT: msgspec.json.Decoder[dict[str, Raw]] = msgspec.json.Decoder(dict[str, Raw])


class Codec:
    """Reads batches as rows of one layout of one dialect."""

    def __init__(self, layout: Layout, dialect: Dialect) -> None:
        self.layout = layout
        self._dialect = dialect
        self._fields = [column for column in layout.columns if column.origin == "field"]
        self._converters = {
            index: converter
            for index, column in enumerate(layout.columns)
            if (converter := _converter(column, dialect)) is not None
        }
        # Two thirds of the time that `in` takes.
        self._needles = {
            needle: re.compile(re.escape(needle)).search
            for c in self._converters.values()
            if (needle := c.needle) is not None
        }
        self._extras = [(i, column) for i, column in enumerate(layout.columns) if column.origin != "field"]
        self._renamed = {
            column.path[0]: _legal(column.path[0]) for column in self._fields if not decodable(column.path[0])
        }
        self._nested = any(len(column.path) > 1 for column in self._fields)
        self._strict = msgspec.json.Decoder(_row_class(self._fields, strict=True))
        self._get: Callable[[Any], Row] = _cells(self._fields) if self._nested else msgspec.structs.astuple
        key = [i for i, column in enumerate(layout.columns) if column.in_key]
        self.key_indexes = key
        self._key_of: Callable[[Row], Any] = itemgetter(*key) if key else lambda row: None
        self._key_attributes = (
            attrgetter(*(_attribute(self._fields, layout.columns[i]) for i in key)) if key else None
        )
        self._canonical = {
            position: canonical
            for position, i in enumerate(key)
            if (canonical := _canonical(layout.columns[i], dialect)) is not None
        }
        kinds = [{layout.columns[i].wanted.kind, layout.columns[i].type.kind} for i in key]
        self.has_integer_key = kinds == [{"integer"}]
        folded = {column.path[0].casefold() for column in self._fields}
        self._plain = (
            not self._extras and not self._nested and not self._renamed and len(folded) == len(self._fields)
        )

    @cached_property
    def _tolerant(self) -> msgspec.json.Decoder[Any]:
        return msgspec.json.Decoder(_row_class(self._fields, strict=False))

    def read(self, batch: Batch) -> Rows:
        """The rows of a batch. Raises `Rejected` with every record that does not fit the layout."""
        plain = self._plain and not self._active(batch.ndjson)
        if self._renamed:
            batch = self._with_legal_names(batch)
        structs, fits = self.structs(batch)
        if not self._dialect.holds_nul and _NUL in batch.ndjson:
            self._check_nul(structs)
        return Rows(self, batch, structs, plain=plain and fits)

    def structs(self, batch: Batch) -> tuple[list[Any], bool]:
        """The documents, decoded, and whether all of them are just as their columns want them."""
        try:
            found, fits = self._strict.decode_lines(batch.ndjson), True
        except msgspec.DecodeError:
            found, fits = self._read_tolerantly(batch), False
        assert len(found) == batch.count, "as many documents as records"
        return found, fits

    def _with_legal_names(self, batch: Batch) -> Batch:
        """The same documents with other names for the fields whose names the decoder cannot be told."""
        lines: list[bytes] = []
        reasons: dict[int, str] = {}
        for index, line in enumerate(batch.lines()):
            try:
                fields = _OBJECT.decode(line)
            except msgspec.DecodeError as error:
                reasons[index] = self._explained(str(error))
                continue
            lines.append(
                msgspec.json.encode({self._renamed.get(name, name): cell for name, cell in fields.items()})
            )
        if reasons:
            raise Rejected(reasons)
        return Batch.of_lines(
            batch.collection, lines, ops=batch.ops, shared=batch.shared, columns=batch.columns
        )

    def _read_tolerantly(self, batch: Batch) -> list[Any]:
        try:
            return self._tolerant.decode_lines(batch.ndjson)
        except msgspec.DecodeError:
            reasons: dict[int, str] = {}
            for index, line in enumerate(batch.lines()):
                try:
                    self._tolerant.decode(line)
                except msgspec.DecodeError as error:
                    reasons[index] = self._explained(str(error))
            raise Rejected(reasons) from None

    def _explained(self, message: str) -> str:
        return f"does not fit table {self.layout.table}: {message[:1].lower()}{message[1:]}"

    def _check_nul(self, structs: Sequence[Any]) -> None:
        reasons: dict[int, str] = {}
        for index, struct in enumerate(structs):
            for column, cell in zip(self._fields, self._get(struct), strict=True):
                if (isinstance(cell, str) and "\0" in cell) or (
                    isinstance(cell, Raw) and _NUL in bytes(cell)
                ):
                    reasons[index] = (
                        f"field {column.label} holds the character U+0000, which {self._dialect.name} text cannot"
                    )
        if reasons:
            raise Rejected(reasons)

    def tuples(self, structs: Sequence[Any], batch: Batch) -> list[Row]:
        """The structs as rows in the layout's order, converted."""
        rows = list(map(self._get, structs))
        active = self._active(batch.ndjson)
        if not (active or self._extras) or not rows:
            return rows
        columns: list[Any] = list(zip(*rows, strict=True))
        for index, converter in active.items():
            columns[index] = self._converted(columns[index], converter.convert, self.layout.columns[index])
        for index, column in self._extras:
            columns.insert(index, _extra_values(column, batch))
        return list(zip(*columns, strict=True))

    def _active(self, text: bytes) -> dict[int, Converter]:
        """The converters that these documents need, by column."""
        found = {needle: search(text) is not None for needle, search in self._needles.items()}
        return {i: c for i, c in self._converters.items() if c.needle is None or found[c.needle]}

    def _converted(
        self, values: Sequence[Any], convert: Callable[[Any], Any], column: LayoutColumn
    ) -> list[Any]:
        try:
            return [None if value is None else convert(value) for value in values]
        except ValueError:
            reasons: dict[int, str] = {}
            for index, value in enumerate(values):
                try:
                    convert(value) if value is not None else None
                except ValueError as error:
                    reasons[index] = f"field {column.label}: {error}"
            raise Rejected(reasons) from None

    def keys(self, structs: Sequence[Any]) -> list[Any]:
        """What tells the rows' keys apart: equal exactly when the database holds them equal."""
        assert self._key_attributes is not None
        keys = list(map(self._key_attributes, structs))
        if not self._canonical or not keys:
            return keys
        if len(self.key_indexes) == 1:
            return list(map(self._canonical[0], keys))
        columns = list(zip(*keys, strict=True))
        for position, canonical in self._canonical.items():
            columns[position] = tuple(map(canonical, columns[position]))
        return list(zip(*columns, strict=True))

    def key_row(self, row: Row) -> Row:
        """The key's cells of a row, in the layout's order."""
        found = self._key_of(row)
        return found if len(self.key_indexes) > 1 else (found,)


class Rows:
    """The rows of one batch. Tuples are made when somebody needs them."""

    def __init__(self, codec: Codec, batch: Batch, structs: Sequence[Any], *, plain: bool) -> None:
        self.codec = codec
        self.batch = batch
        self._structs: Sequence[Any] | None = structs
        self._tuples: list[Row] | None = None
        self.ndjson = batch.ndjson if plain else None
        """The batch's own bytes, where its documents are what the database is to be given, field by field."""

    @property
    def count(self) -> int:
        return self.batch.count

    @cached_property
    def keys(self) -> list[Any]:
        return self.codec.keys(self._decoded())

    @property
    def tuples(self) -> list[Row]:
        if self._tuples is None:
            self._tuples = self.codec.tuples(self._decoded(), self.batch)
        return self._tuples

    def forget(self) -> None:
        """Let go of all values: they are read once more if anybody asks."""
        self._structs = self._tuples = None
        self.__dict__.pop("keys", None)

    def _decoded(self) -> Sequence[Any]:
        if self._structs is None:
            self._structs, _ = self.codec.structs(self.batch)
        return self._structs


def metadata_of(batch: Batch, name: str) -> Sequence[Any]:
    """One entry of the metadata for each record."""
    if name == cdc.OPERATION:
        if batch.ops is None:
            return ["create"] * batch.count
        return [OPERATIONS[op] for op in batch.ops]
    if name in batch.columns:
        return batch.columns[name]
    return [batch.shared.get(name)] * batch.count


def _extra_values(column: LayoutColumn, batch: Batch) -> Sequence[Any]:
    if column.origin != "metadata":
        return [None] * batch.count
    return [_metadata_value(value, column.type) for value in metadata_of(batch, column.path[0])]


def _metadata_value(value: Any, column: ColumnType) -> Any:
    if value is None:
        return None
    if column.kind == "json":
        return (value if isinstance(value, bytes) else msgspec.json.encode(value)).decode()
    if column.kind == "string" and not isinstance(value, str):
        return value.decode() if isinstance(value, bytes) else str(value)
    return value


def _legal(name: str) -> str:
    return name if decodable(name) else hashed("field", NameRule(), name)


def _row_class(fields: Sequence[LayoutColumn], *, strict: bool) -> type[msgspec.Struct]:
    """A class with one attribute for each top-level field, typed by what its column holds."""
    return _struct({(column.path): column for column in fields}, (), strict=strict)


def _struct(
    columns: dict[tuple[str, ...], LayoutColumn], prefix: tuple[str, ...], *, strict: bool
) -> type[msgspec.Struct]:
    depth = len(prefix)
    heads = dict.fromkeys(path[depth] for path in columns if path[:depth] == prefix)
    names: dict[str, str] = {}
    members: list[Any] = []
    for position, head in enumerate(heads):
        names[f"c{position}"] = _legal(head)
        path = (*prefix, head)
        column = columns.get(path)
        if column is None:
            members.append((f"c{position}", _struct(columns, path, strict=strict) | None, None))
        elif column.in_key:
            members.append((f"c{position}", _cell_type(column, strict=strict)))
        else:
            cell = _cell_type(column, strict=strict)
            members.append((f"c{position}", cell if cell is Raw else cell | None, None))
    return msgspec.defstruct("Row", members, rename=names, gc=False, kw_only=True)


def _attribute(fields: Sequence[LayoutColumn], wanted: LayoutColumn) -> str:
    heads = list(dict.fromkeys(column.path[0] for column in fields))
    return f"c{heads.index(wanted.path[0])}"


def _cells(fields: Sequence[LayoutColumn]) -> Callable[[Any], Row]:
    """Reads the cells of nested structs."""
    paths: list[list[int]] = []
    for column in fields:
        steps: list[int] = []
        for depth in range(len(column.path)):
            heads = list(
                dict.fromkeys(
                    f.path[depth]
                    for f in fields
                    if f.path[:depth] == column.path[:depth] and len(f.path) > depth
                )
            )
            steps.append(heads.index(column.path[depth]))
        paths.append(steps)
    names = [[f"c{step}" for step in steps] for steps in paths]

    def cells(struct: Any) -> Row:
        found = []
        for steps in names:
            value = struct
            for name in steps:
                value = getattr(value, name)
                if value is None:
                    break
            found.append(value)
        return tuple(found)

    return cells


_INTEGERS: dict[int, Any] = {
    bits: Annotated[int, msgspec.Meta(ge=-(1 << (bits - 1)), le=(1 << (bits - 1)) - 1)]
    for bits in (16, 32, 64)
}


def _cell_type(column: LayoutColumn, *, strict: bool) -> Any:
    wanted, held = column.wanted, column.type
    if held.kind in _RAW or wanted.kind in _RAW:
        return Raw
    match wanted.kind:
        case "boolean":
            return bool
        case "integer":
            narrow = held.kind == "integer" and not held.unsigned
            return _INTEGERS.get(held.bits or 64, _INTEGERS[64]) if narrow else int
        case "float":
            return float | str
        case "decimal":
            return int | str if strict else Decimal
        case _:
            return str


def _converter(column: LayoutColumn, dialect: Dialect) -> Converter | None:
    if column.origin != "field":
        return None
    if column.type.kind == "array":
        return dialect.converter_of_array(column.type) or _JSON_TEXT
    if column.type.kind in ("json", "object") or column.wanted.kind in _RAW:
        return _JSON_TEXT
    if column.type.kind == "string":
        return _JSON_FORM if column.wanted.kind in ("boolean", "integer", "float", "decimal") else None
    as_decimal = column.type.kind == "decimal" and column.wanted.kind != "decimal"
    return dialect.converters.get("decimal" if as_decimal else column.wanted.kind)


def _json_form(value: Any) -> str:
    """A boolean or number as text, as it is written in JSON."""
    return str(value) if isinstance(value, (str, Decimal)) else msgspec.json.encode(value).decode()


_JSON_FORM = Converter(_json_form)


def _json_text(raw: Raw) -> str | None:
    text = bytes(raw)
    return None if text == b"null" else text.decode()


_JSON_TEXT = Converter(_json_text)


def _decimal_key(value: Any) -> Any:
    try:
        return Decimal(value)
    except InvalidOperation:
        return value


_CANONICAL: dict[str, Callable[[Any], Any]] = {"decimal": _decimal_key, "uuid": str.lower}
"""What makes two spellings of one key equal."""


def _canonical(column: LayoutColumn, dialect: Dialect) -> Callable[[Any], Any] | None:
    if column.type.kind not in _RAW and column.wanted.kind not in _RAW:
        return _CANONICAL.get(column.wanted.kind)
    same = dialect.json_key if column.type.kind in _RAW else bytes
    return lambda raw: same(bytes(raw)) if isinstance(raw, Raw) else raw
