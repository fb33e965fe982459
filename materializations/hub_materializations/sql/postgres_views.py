"""Views that stand on columns whose type changes: PostgreSQL refuses the change while they are there.

So they make way inside the transaction, and stand there again with all that was theirs when it commits: what
they select, owner, grants, comments, options, triggers, and the indexes of materialized ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .dialect import Dependent, TableName

Fetch = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]

_VIEWS = """
WITH RECURSIVE found(oid, depth) AS (
  SELECT r.ev_class, 1 FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
  JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
  WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND a.attname = ANY($3::text[])
    AND d.refobjid = (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                      WHERE n.nspname = $1 AND c.relname = $2)
  UNION ALL
  SELECT r.ev_class, f.depth + 1 FROM found f JOIN pg_depend d ON d.refobjid = f.oid
  JOIN pg_rewrite r ON r.oid = d.objid
  WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND r.ev_class <> f.oid
)
SELECT c.oid, c.oid::regclass::text, c.relkind = 'm', pg_get_viewdef(c.oid), pg_get_userbyid(c.relowner)::text,
  c.relowner <> current_user::regrole, array_to_string(c.reloptions, ', '), c.relispopulated
FROM (SELECT oid, max(depth) AS depth FROM found GROUP BY oid) f JOIN pg_class c ON c.oid = f.oid ORDER BY f.depth, c.oid
"""

_REST = """
SELECT format('GRANT %s%s ON %s TO %s%s', g.privilege_type, g.columns, $2::text,
  CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
  CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM (
  SELECT a.*, '' AS columns FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = $1 AND a.grantee <> c.relowner
  UNION ALL
  SELECT a.*, format(' (%I)', t.attname) FROM pg_attribute t, aclexplode(t.attacl) a WHERE t.attrelid = $1
) g
UNION ALL
SELECT format('COMMENT ON %s %s IS %L', $3::text, $2::text, description) FROM pg_description
WHERE objoid = $1 AND classoid = 'pg_class'::regclass AND objsubid = 0
UNION ALL
SELECT format('COMMENT ON COLUMN %s.%I IS %L', $2::text, a.attname, d.description)
FROM pg_description d JOIN pg_attribute a ON a.attrelid = d.objoid AND a.attnum = d.objsubid
WHERE d.objoid = $1 AND d.classoid = 'pg_class'::regclass AND d.objsubid > 0
UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = $1
UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal
UNION ALL SELECT pg_get_ruledef(oid) FROM pg_rewrite WHERE ev_class = $1 AND rulename <> '_RETURN'
"""


def dependents(fetch: Fetch, table: TableName, columns: Sequence[str]) -> list[Dependent]:
    """The views on these columns, each before those that stand on it."""
    found = []
    for oid, name, is_kept, text, owner, is_others, options, is_filled in fetch(
        _VIEWS, (table.schema, table.table, list(columns))
    ):
        kind = "MATERIALIZED VIEW" if is_kept else "VIEW"
        having = f" WITH ({options})" if options else ""
        filling = "" if is_filled else " WITH NO DATA"
        made = [f"CREATE {kind} {name}{having} AS {text.rstrip().rstrip(';')}{filling}"]
        made += [rest for (rest,) in fetch(_REST, (oid, name, kind))]
        if is_others:
            quoted = '"' + owner.replace('"', '""') + '"'
            made.append(f"ALTER {kind} {name} OWNER TO {quoted}")
        found.append(Dependent(f"DROP {kind} {name}", tuple(made)))
    return found
