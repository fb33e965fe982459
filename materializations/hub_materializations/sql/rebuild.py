"""A table made anew beside the old one, filled from it, and put in its place: where a column cannot be altered.

Everything happens in the transaction of the rows, so readers see the old table until the new one is whole, and a
crash at any moment leaves the one or the other. Pure; for databases that keep the definition of a table as text
and make and drop tables in transactions. PostgreSQL and MySQL rebuild in `ALTER TABLE` themselves, which is atomic.
"""

from __future__ import annotations

from collections.abc import Mapping

from hub.errors import FatalError

from .dialect import Cast, Dialect, ExistingTable, TableName
from .names import fitted
from .rekey import Rekey
from .table_text import rekeyed, retyped


def rebuilt(
    text: str,
    table: TableName,
    existing: ExistingTable,
    casts: Mapping[str, Cast],
    rekey: Rekey | None,
    dialect: Dialect,
) -> list[str]:
    """The statements that rebuild the table with these columns cast, and with another key. `text` is the statement
    that made it.

    Its indexes and comments, and what else stands on it, are for the caller to make again. FatalError when the
    text is not understood.
    """
    shadow = TableName(table.schema, fitted(f"hub_new_{table.table}", dialect.names))
    try:
        if rekey is not None:
            key = dialect.key_clause.format(key=dialect.listed(rekey.key))
            text = rekeyed(text, key, free=rekey.freed.keys(), need=rekey.needed)
        made = retyped(text, shadow.sql(dialect), {name: cast.type for name, cast in casts.items()})
    except ValueError as error:
        raise FatalError(
            f"{table} has to be rebuilt, but its definition was not understood: {error}"
        ) from error
    names = [column.name for column in existing.columns if not column.generated]
    listed = ", ".join(map(dialect.quoted, names))
    values = ", ".join(casts[name].value if name in casts else dialect.quoted(name) for name in names)
    return [
        made,
        f"INSERT INTO {shadow.sql(dialect)} ({listed}) SELECT {values} FROM {table.sql(dialect)}",
        f"DROP TABLE {table.sql(dialect)}",
        f"ALTER TABLE {shadow.sql(dialect)} RENAME TO {dialect.quoted(table.table)}",
    ]
