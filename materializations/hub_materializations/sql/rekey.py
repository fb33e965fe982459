"""A table's key goes over to other columns, as the source's has.

Only a key that hub itself has declared is replaced; the catalog says which one that is. The hard thing is rows that
the new key does not tell apart. Rows that are marked as deleted give way, since nothing will name them any more; any
other is a row that would be lost, so nothing is changed and the task stops. Pure text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hub.schema.types import JSON

from .dialect import Dialect, TableName

SHOWN = 3
"""Keys that a message names."""


@dataclass(slots=True)
class Rekey:
    """The key that a table had and the one that it gets, as columns."""

    former: tuple[str, ...]
    key: tuple[str, ...]
    types: dict[str, str] = field(default_factory=dict)
    """Columns of the new key that need another type to stand in one."""
    needed: set[str] = field(default_factory=set)
    """Columns of the new key that may be NULL as yet."""
    freed: dict[str, str] = field(default_factory=dict)
    """Columns of the former key that may be NULL from now on, with their types."""
    as_text: set[str] = field(default_factory=set)
    """Columns of the new key that cannot be compared as they are."""
    index: str | None = None
    """The index of a history's current versions, which is all that keeps its key; None: the table's rows have it."""
    first: list[str] = field(default_factory=list)
    """The statements that give that index its new columns, where the old ones change and would not fit into it."""
    deleted: str | None = None
    """The column that says when a row was deleted, where rows are marked."""

    @property
    def is_unique(self) -> bool:
        """Whether each row must have a key of its own."""
        return self.index is None


def giving_way(rekey: Rekey, table: TableName, dialect: Dialect) -> list[str]:
    """The statement that removes rows that are marked as deleted and that the new key does not tell from another."""
    if rekey.deleted is None:
        return []
    target, quoted = table.sql(dialect), dialect.quoted
    unknown = " OR ".join(f"{cell} IS NULL" for cell in _cells(rekey, dialect, "a."))
    pairs = zip(_cells(rekey, dialect, "b."), _cells(rekey, dialect, "a."), strict=True)
    same = " AND ".join(f"{one} = {other}" for one, other in pairs)
    itself = " AND ".join(f"b.{quoted(name)} = a.{quoted(name)}" for name in rekey.former)
    deleted = f"a.{quoted(rekey.deleted)} IS NOT NULL"
    another = f"{same} AND NOT ({itself})"
    if dialect.upsert == "on_duplicate_key":
        # MySQL does not look into a table from which it deletes, but joins it.
        return [
            f"DELETE a FROM {target} AS a LEFT JOIN {target} AS b ON {another} "
            f"WHERE {deleted} AND ({unknown} OR b.{quoted(rekey.former[0])} IS NOT NULL)"
        ]
    exists = f"EXISTS (SELECT 1 FROM {target} AS b WHERE {another})"
    return [f"DELETE FROM {target} AS a WHERE {deleted} AND ({unknown} OR {exists})"]


def unknown_rows(rekey: Rekey, table: TableName, dialect: Dialect) -> str:
    """The query that counts the rows that the new key cannot name."""
    unknown = " OR ".join(f"{cell} IS NULL" for cell in _cells(rekey, dialect))
    return f"SELECT count(*) FROM {table.sql(dialect)} WHERE ({unknown}){_live(rekey, dialect)}"


def repeated_keys(rekey: Rekey, table: TableName, dialect: Dialect) -> str:
    """The query that gives some keys that more than one row would have."""
    cells = ", ".join(_cells(rekey, dialect))
    known = " AND ".join(f"{cell} IS NOT NULL" for cell in _cells(rekey, dialect))
    return (
        f"SELECT {cells} FROM {table.sql(dialect)} WHERE {known}{_live(rekey, dialect)} "
        f"GROUP BY {cells} HAVING count(*) > 1 LIMIT {SHOWN}"
    )


def _cells(rekey: Rekey, dialect: Dialect, row: str = "") -> list[str]:
    """The columns of the new key as expressions that can be compared."""
    names = [(name, f"{row}{dialect.quoted(name)}") for name in rekey.key]
    return [dialect.readable(cell, JSON) if name in rekey.as_text else cell for name, cell in names]


def _live(rekey: Rekey, dialect: Dialect) -> str:
    return f" AND {dialect.quoted(rekey.deleted)} IS NULL" if rekey.deleted is not None else ""


def misfits(
    rekey: Rekey, table: TableName, dialect: Dialect, unknown: int, repeated: Sequence[Sequence[object]]
) -> list[str]:
    """What stands against the new key, and what to do."""
    target, key = table.sql(dialect), ", ".join(rekey.key)
    whose = f"the key is ({key}) now, where it was ({', '.join(rekey.former)})"
    found = []
    if unknown:
        found.append(
            f"{whose}, and {unknown} rows have NULL there; give them their values, or remove them, and "
            "start the task again"
        )
    if repeated:
        shown = ", ".join(f"({', '.join(map(str, row))})" for row in repeated)
        found.append(
            f"{whose}, and several rows have the same one: {shown}{' and perhaps more' if len(repeated) == SHOWN else ''}; "
            "nothing was changed. Remove those that are not in the source, and start the task again. They are found "
            f"with: SELECT {dialect.listed(rekey.key)}, count(*) FROM {target} GROUP BY {dialect.listed(rekey.key)} "
            "HAVING count(*) > 1"
        )
    return found
