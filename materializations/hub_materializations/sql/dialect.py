"""What sets one SQL database apart from another, as data.

What a database can and cannot do is said here once. The pure planning functions read it; a driver
only carries statements and rows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from hub.schema import ColumnType
from hub.schema.types import Kind

from .names import NameRule, fitted, quoted

ALTER_TYPE = "ALTER TABLE {table} ALTER COLUMN {column} TYPE {type} USING {value}"

MARK = "hub"
"""What the catalog has beside a key that hub has declared, and may therefore replace."""

Upsert = Literal["merge", "on_conflict", "on_duplicate_key"]


class Converter(NamedTuple):
    """Turns a document's value into what the database reads. Raises ValueError with what is wrong with it.

    `needle` is text that a batch must hold for any of its values to need this; None is always.
    """

    convert: Callable[[Any], Any]
    needle: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One database: its types, its spelling, its limits."""

    name: str
    sql_type: Callable[[ColumnType], str]
    """The type of a new column, as the catalog of the database will spell it."""
    column_type: Callable[[str], ColumnType | None]
    """What a column of this type can hold; None for a type that only its own database knows."""
    key_type: Callable[[ColumnType], str]
    """Like `sql_type`, for a column of the key. JSON, too, must have a type that reads back as JSON: in a key, the
    text `1` and the text `"1"` are two rows, and nobody could tell them apart in a column of plain text."""
    accepts: Callable[[str, ColumnType], bool] = lambda _text, _wanted: False
    """Whether a column of this type takes a field by custom, beyond what the types say."""
    alter: Callable[[ColumnType, ColumnType], str | None] = lambda held, wide: ALTER_TYPE
    """The statement by which the database itself makes a column anew with its values; None where none can, and
    `Driver.rebuild` says what does. It may name `{table}`, `{column}`, `{type}`, `{null}`, `{value}`."""
    converted: Callable[[str, ColumnType, ColumnType], str] = lambda column, held, wide: column
    """The expression that turns a column's old value into the new type's: `{value}`."""
    integers_become_floats: bool = False
    """Whether a column of 64-bit integers may be altered to floats: only where that fails rather than rounds."""
    readable: Callable[[str, ColumnType], str] = lambda column, _type: column
    """The expression that reads a column's value in a form that a row may be written with again."""
    converters: Mapping[Kind, Converter] = field(default_factory=dict)
    converter_of_array: Callable[[ColumnType], Converter | None] = lambda _type: None
    upsert: Upsert = "on_conflict"
    primary_key: bool = True
    """Declare the key, and require it of tables that are there already. Without, a merge joins."""
    key_clause: str = "PRIMARY KEY ({key})"
    """How a table that is made declares its key."""
    key_mark: Callable[[str], str | None] = lambda _table: None
    """The statement that says, of the key of a table that was just made, that hub has declared it, where that is no
    part of the declaration. It is then `ExistingTable.own_key`."""
    drop_key: str | None = None
    """The part of an `ALTER TABLE` that drops the primary key `{name}`; None: there is none."""
    quote: str = '"'
    parameter: str = "?"
    """How a parameter is written; `{n}` is its number, from 1."""
    names: NameRule = field(default_factory=NameRule)
    json_key: Callable[[bytes], Hashable] = bytes
    """What makes two spellings of JSON one key: their text, unless the database compares values."""
    holds_nul: bool = True
    """Whether text may hold the character U+0000."""
    ddl_in_transaction: bool = True
    savepoints: bool = True
    """Without, a refused statement takes the whole transaction with it."""
    drop_not_null: str | None = "ALTER TABLE {table} ALTER COLUMN {column} DROP NOT NULL"
    begin: str = "BEGIN"
    prepares: bool = True
    """Whether rows are made ahead. Not where writing them keeps the interpreter busy as well: the two threads would
    only take it from each other, row by row."""
    copies_types: bool = True
    """Whether a table that is made of a query has the very types of its columns."""
    same: Callable[[str, str, ColumnType], str] = lambda one, other, _type: (
        f"{one} IS NOT DISTINCT FROM {other}"
    )
    """The condition that two expressions of a type have the same value, NULL being one."""
    temporary: str = "TABLE"
    """What a temporary table is called when it is dropped; MySQL would commit if it were called a table."""
    index_current: tuple[str, ...] = ()
    """The statements that make the index by which the current versions of a history are kept unique and found; none:
    there is no such index."""
    indexed: Callable[[str, ColumnType], str] = lambda column, _type: column
    """How a column of a type stands in that index."""
    move_current: tuple[str, ...] = ()
    """The statements that make this index anew, over other columns."""
    table_options: str = ""
    """What follows the columns of a new table."""
    cursor_types: tuple[str, str, str] = ("text", "bigint", "text")
    """Types of the cursor table: of its key, of numbers, of texts."""

    def quoted(self, name: str) -> str:
        found = quoted(name, self.quote)
        # A driver that formats with % sees every % of a statement, also those in names.
        return found.replace("%", "%%") if self.parameter == "%s" else found

    def listed(self, names: tuple[str, ...]) -> str:
        """Quoted names, with commas."""
        return ", ".join(map(self.quoted, names))

    def parameter_at(self, number: int) -> str:
        """The parameter of this number, from 1."""
        return self.parameter.format(n=number)

    def parameters(self, count: int) -> str:
        return ", ".join(map(self.parameter_at, range(1, count + 1)))


@dataclass(frozen=True, slots=True)
class TableName:
    """Where a table is. `schema` is None where the database has none or its default is meant."""

    schema: str | None
    table: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}" if self.schema else self.table

    def sql(self, dialect: Dialect) -> str:
        if self.schema is None:
            return dialect.quoted(self.table)
        return f"{dialect.quoted(self.schema)}.{dialect.quoted(self.table)}"

    def current_index(self, dialect: Dialect) -> str:
        """The name that the index over the current versions of a history gets where nothing else has it."""
        return fitted(f"{self.table}_current", dialect.names)


class ExistingColumn(NamedTuple):
    """A column as the catalog of the database describes it. `type` is spelled as `Dialect.sql_type` spells."""

    name: str
    type: str
    nullable: bool = True
    has_default: bool = False
    generated: bool = False


class Cast(NamedTuple):
    """What a column becomes in a table that is rebuilt: its new type, and its values out of the old ones."""

    type: str
    value: str
    not_null: bool = False


class Dependent(NamedTuple):
    """Something of the user's that has to make way while the type of a column changes, and how it is made again."""

    drop: str
    make: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExistingTable:
    """A table that is there. `uniques` are the column sets that the database keeps unique, the primary key first."""

    columns: tuple[ExistingColumn, ...]
    uniques: tuple[tuple[str, ...], ...] = ()
    own_key: tuple[str, ...] = ()
    """The columns of the key that hub has declared. Empty: the table is the user's, or has no key."""
    current_key: tuple[str, ...] = ()
    """The columns of the index over the current versions of a history."""
    current_index: str = ""
    """The name of that index, where there is one. It may be another table's: a table that is renamed keeps it."""
    key_name: str = ""
    """The name of the primary key, where it has one."""
    is_view: bool = False
    is_fixed: bool = False
    """Whether something of the table's, such as an index, keeps the database from altering its columns."""

    def column(self, name: str) -> ExistingColumn | None:
        return next((column for column in self.columns if column.name == name), None)
