"""A column of MySQL made anew where `MODIFY` would not keep the form of its values.

`ALTER TABLE` copies the table beside itself and puts the copy in its place in one step, with triggers, foreign keys,
grants and partitions; a table that we made and renamed would lose these. So the values are first computed by the
database, in a stored column that is generated from the old one: what others write meanwhile has its value, too, and
no trigger and no `ON UPDATE` fires. Then, while others wait, that column becomes a plain one and takes the place and
the name of the old one, and its place in the indexes. A crash leaves the old column whole; the spare one is
known by its name and its comment, and is made anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .dialect import MARK, Cast, Dialect, ExistingTable, TableName
from .names import hashed
from .rekey import Rekey

SPARE = "hub: a column that is being rebuilt"
"""The comment that says that a column is ours and may be dropped."""

PREFIX = 255
"""Characters of a long text that are indexed."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index as the catalog has it: for each column its name, the length of its prefix, and whether it descends."""

    name: str
    is_unique: bool
    kind: str
    comment: str
    columns: list[tuple[str | None, int | None, bool]]


def indexes_of(parts: Iterable[tuple[Any, ...]]) -> dict[str, Index]:
    """The indexes of a table by name, given each column of each: the index's name, whether it may have a key twice,
    its type and comment; the column's name, the length of its prefix, and whether it descends."""
    found: dict[str, Index] = {}
    for name, many, kind, comment, column, length, descends in parts:
        index = found.setdefault(name, Index(name, not many, kind, comment, []))
        index.columns.append((column, length, bool(descends)))
    return found


def spare_of(column: str, dialect: Dialect) -> str:
    """The name of the column that is to take a column's place."""
    return hashed(column, dialect.names, f"spare {column}")


def rebuilt(
    table: TableName,
    existing: ExistingTable,
    casts: Mapping[str, Cast],
    indexes: Sequence[Index],
    comments: Mapping[str, str],
    dialect: Dialect,
) -> list[str]:
    """The statements that give the columns their new types. `comments` are those of the table's columns.

    An index that names one of them is made again in the same step, over the first characters of what has become a
    long text. The type `json` cannot be indexed: an index on it goes with the old column.
    """
    target, quoted = table.sql(dialect), dialect.quoted
    spares = {name: spare_of(name, dialect) for name in casts}
    left = [spare for spare in spares.values() if comments.get(spare) == SPARE]
    ours = f" COMMENT '{SPARE}'"
    plain = {name: cast.type.partition(" COMMENT ")[0] for name, cast in casts.items()}
    made = [
        f"ADD COLUMN {quoted(spares[n])} {plain[n]} AS ({cast.value}) STORED{ours}"
        for n, cast in casts.items()
    ]
    fixed = [f"MODIFY COLUMN {quoted(spares[name])} {plain[name]}{ours}" for name in casts]
    names = [column.name for column in existing.columns if column.name not in spares.values()]
    steps: list[str] = []
    changed: list[str] = []
    again: list[str] = []
    for index in indexes:
        if any(column in casts for column, _, _ in index.columns):
            steps.append(
                "DROP PRIMARY KEY" if index.name == "PRIMARY" else f"DROP INDEX {quoted(index.name)}"
            )
            again += _made_again(index, plain, dialect)
    for name in (name for name in names if name in casts):
        cast = casts[name]
        told = comments.get(name)
        comment = f" COMMENT {_text(told)}" if told and " COMMENT " not in cast.type else ""
        before = names.index(name)
        place = f"AFTER {quoted(names[before - 1])}" if before else "FIRST"
        null = " NOT NULL" if cast.not_null else ""
        steps.append(f"DROP COLUMN {quoted(name)}")
        kind = _typed(cast.type, null)
        changed.append(f"CHANGE COLUMN {quoted(spares[name])} {quoted(name)} {kind}{comment} {place}")
    return [
        *(f"ALTER TABLE {target} DROP COLUMN {quoted(spare)}" for spare in left),
        f"ALTER TABLE {target} {', '.join(made)}",
        f"LOCK TABLES {target} WRITE",
        f"ALTER TABLE {target} {', '.join(fixed)}",
        f"ALTER TABLE {target} {', '.join([*steps, *changed, *again])}",
        "UNLOCK TABLES",
    ]


def rekeyed(rekey: Rekey, table: TableName, dialect: Dialect) -> list[str]:
    """The statement that replaces the primary key; of a history, that lets what was in its key be NULL. One, so that
    a crash leaves the one key or the other."""
    quoted = dialect.quoted
    steps = [f"MODIFY COLUMN {quoted(name)} {_typed(kind, ' NULL')}" for name, kind in rekey.freed.items()]
    if rekey.is_unique:
        steps += [f"MODIFY COLUMN {quoted(n)} {_typed(kind, ' NOT NULL')}" for n, kind in rekey.types.items()]
        key = dialect.key_clause.format(key=dialect.listed(rekey.key))
        steps = ["DROP PRIMARY KEY", *steps, f"ADD {key}"]
    return [*rekey.first, *([f"ALTER TABLE {table.sql(dialect)} {', '.join(steps)}"] if steps else ())]


def moved(rekey: Rekey, existing: ExistingTable, indexes: Mapping[str, Index]) -> dict[str, Index]:
    """The indexes as the catalog has them after `rekeyed`."""
    if rekey.is_unique:
        return {
            **indexes,
            "PRIMARY": Index("PRIMARY", True, "BTREE", MARK, [(n, None, False) for n in rekey.key]),
        }
    if rekey.index is None or not rekey.first:
        return dict(indexes)
    types = {column.name: column.type for column in existing.columns}
    parts = [(name, PREFIX if types[name].startswith("long") else None, False) for name in rekey.key]
    index = replace(indexes[rekey.index], columns=[*parts, indexes[rekey.index].columns[-1]])
    return {**indexes, rekey.index: index}


def _made_again(index: Index, types: Mapping[str, str], dialect: Dialect) -> list[str]:
    parts = []
    for column, length, descends in index.columns:
        assert column is not None, "an index on an expression names no column"
        kind = types.get(column)
        if kind == "json":
            return []
        if kind is not None:
            length = PREFIX if kind.startswith("long") else None
        prefix = f"({length})" if length is not None else ""
        parts.append(f"{dialect.quoted(column)}{prefix}{' DESC' if descends else ''}")
    listed = ", ".join(parts)
    comment = f" COMMENT {_text(index.comment)}" if index.comment else ""
    if index.name == "PRIMARY":
        return [f"ADD PRIMARY KEY ({listed}){comment}"]
    kind = index.kind if index.kind in ("FULLTEXT", "SPATIAL") else "UNIQUE" if index.is_unique else ""
    return [f"ADD {kind + ' ' if kind else ''}INDEX {dialect.quoted(index.name)} ({listed}){comment}"]


def _typed(sql_type: str, null: str) -> str:
    plain, comment, text = sql_type.partition(" COMMENT ")
    return f"{plain}{null}{comment}{text}"


def _text(told: str) -> str:
    return "'" + told.replace("\\", "\\\\").replace("'", "''").replace("%", "%%") + "'"
