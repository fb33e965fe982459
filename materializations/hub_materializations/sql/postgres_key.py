"""The primary key that hub declares in PostgreSQL, and its replacement; and how the catalog tells what is hub's own.

The hard thing is the name: an index has it in the whole schema, so one that we gave could be taken by a table that
was renamed. The database chooses the key's, and that it is hub's own is said by a comment on the constraint; so is it
of the index over the current versions of a history, which has another name where its usual one is taken.
"""

from __future__ import annotations

from .dialect import MARK, Dialect, ExistingTable, TableName
from .names import literal
from .rekey import Rekey

DROP_KEY = "DROP CONSTRAINT {name}"

OWN_KEY = """
SELECT true, n.conname::text, coalesce(obj_description(n.oid, 'pg_constraint') = $2, false),
  array_agg(a.attname::text ORDER BY k.place)
FROM pg_constraint n, unnest(n.conkey) WITH ORDINALITY k (number, place)
JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum = k.number
WHERE n.conrelid = $1 AND n.contype = 'p' GROUP BY n.oid, n.conname
UNION ALL
SELECT false, x.relname::text, coalesce(obj_description(x.oid, 'pg_class') = $2, false),
  array_agg(a.attname::text ORDER BY k.place)
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid, unnest(i.indkey::int2[]) WITH ORDINALITY k (number, place)
JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum = k.number
WHERE i.indrelid = $1 AND i.indpred IS NOT NULL AND (x.relname = $3 OR obj_description(x.oid, 'pg_class') = $2)
GROUP BY x.oid, x.relname
ORDER BY 3 DESC
"""
"""Of the table $1, for the primary key (true), and for the index over the current versions of a history, which has
the comment $2 or, if an earlier hub has made it, only the name $3: its name, whether it has the comment, its columns."""


def marked(table: str) -> str:
    """The statement that says of a table's primary key that it is hub's own."""
    found = (
        f"SELECT format('COMMENT ON CONSTRAINT %I ON %s IS %L', conname, conrelid::regclass, {literal(MARK)}) "
        f"FROM pg_constraint WHERE conrelid = {literal(table)}::regclass AND contype = 'p'"
    )
    return f"DO {literal(f'BEGIN EXECUTE ({found}); END')}"


def rekeyed(rekey: Rekey, table: TableName, existing: ExistingTable, dialect: Dialect) -> list[str]:
    """The statements that replace the primary key; of a history, that let what was in its key be NULL."""
    target, quoted = table.sql(dialect), dialect.quoted
    steps = [f"ALTER COLUMN {quoted(name)} DROP NOT NULL" for name in rekey.freed]
    steps += [
        f"ALTER COLUMN {quoted(name)} TYPE {kind} USING {quoted(name)}::{kind}"
        for name, kind in rekey.types.items()
    ]
    if not rekey.is_unique:
        return [f"ALTER TABLE {target} {', '.join(steps)}"] if steps else []
    drop = DROP_KEY.format(name=quoted(existing.key_name))
    add = f"ADD {dialect.key_clause.format(key=dialect.listed(rekey.key))}"
    return [f"ALTER TABLE {target} {', '.join([drop, *steps, add])}", marked(target)]
