"""What the source's catalog says of tables and types. Queries, and plain data made of their rows.

The catalog tells the present, the stream the past: a column that was dropped meanwhile still comes in
the stream. So rows are always read as the stream's Relation says, and the catalog only adds what a
Relation does not hold: keys, the meaning of types, what is on disk.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import msgspec

from hub_captures.postgres.connection import Connection, quoted, rows
from hub_captures.postgres.position import Followed
from hub_captures.postgres.types import PgType


class TableColumn(NamedTuple):
    """A column that the publication sends. `collation` is `C` when its order is that of its bytes, and these are in the
    order of code points, as those of UTF-8 are.
    `has_default_rows` says that older rows have a value that they were not written with."""

    name: str
    type_oid: int
    modifier: int
    collation: str
    has_default_rows: bool


class Table(msgspec.Struct, frozen=True):
    """A table that can be captured, as it is now."""

    oid: int
    schema: str
    name: str
    kind: str
    """`r` ordinary, `p` partitioned."""
    filenode: int
    identity: str
    """`d` default, `n` nothing, `f` full, `i` index."""
    persistence: str
    rows_estimate: int
    columns: tuple[TableColumn, ...]
    key: tuple[str, ...]
    """The columns that tell rows apart in snapshot and stream alike; empty when there are none."""
    in_publication: bool
    row_filter: str | None
    column_list: tuple[str, ...] | None = None
    """The columns that the publication names, where it names some."""
    touched_crc: int = 0
    """A checksum of the transactions that last touched the columns: whatever rewrites the rows does."""
    member_crc: int = 0
    """A checksum of how it is in the publication: another one when it was taken out and put in again."""
    identity_key: tuple[str, ...] = ()
    """The columns of the replica identity; empty when it is the whole row, or nothing."""
    has_identity: bool = True
    """Whether the server lets a published table be updated."""
    attached: tuple[int, ...] = ()
    """Partitions that were tables of their own before they were attached. Their rows of then never come in the stream."""
    is_owned: bool = True
    """Whether this user may publish it."""
    may_be_read: bool = True
    """Whether this user may read some column of it."""

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def quoted_name(self) -> str:
        """The table in a statement that defines something."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def sql(self) -> str:
        """The table in a query. Rows of children by inheritance belong to the children."""
        return self.quoted_name if self.kind == "p" else f"ONLY {self.quoted_name}"

    @property
    def followed(self) -> Followed:
        """What is remembered of it once it is copied."""
        columns = [(column.name, column.type_oid, column.modifier) for column in self.columns]
        return Followed(
            self.filenode,
            columns_crc(columns),
            name_crc(self.schema, self.name),
            self.touched_crc,
            self.member_crc,
            _checksum(self.attached),
            _checksum(self.key),
        )


def _checksum(of: object) -> int:
    """Never 0, which stands for what is not known."""
    return zlib.crc32(repr(of).encode()) or 1


def columns_crc(columns: Iterable[tuple[str, int, int]]) -> int:
    """A checksum of names, types and type modifiers."""
    return zlib.crc32(repr([tuple(column) for column in columns]).encode())


def name_crc(schema: str, table: str) -> int:
    """A checksum of a table's name."""
    return zlib.crc32(repr((schema, table)).encode())


_TABLES = """
select c.oid::bigint, n.nspname, c.relname, c.relkind::text,
       coalesce(pg_relation_filenode(c.oid), 0)::bigint, c.relreplident::text, c.relpersistence::text,
       greatest(c.reltuples, 0)::bigint,
       case c.relkind when 'p' then (
           with recursive below(oid, attached) as (
               select c.oid, false
               union all
               select i.inhrelid, b.attached or not exists (
                          select from pg_attribute first join pg_attribute a using (attrelid)
                           where first.attrelid = i.inhrelid and first.attnum = -1 and a.attnum > 0
                             and a.xmin = first.xmin and a.cmin = first.cmin)
                 from pg_inherits i join below b on i.inhparent = b.oid)
           select json_build_array(sum(greatest(l.reltuples, 0))::bigint, pg_relation_filenode(min(l.oid))::bigint,
                                   json_agg(l.oid::bigint order by l.oid) filter (where b.attached),
                                   bool_or(l.relreplident = 'n' or l.relreplident = 'd' and not exists (
                                       select from pg_index i where i.indrelid = l.oid and i.indisprimary and i.indimmediate)))
             from below b join pg_class l on l.oid = b.oid
            where l.relkind <> 'p') end,
       (select string_agg(a.xmin::text, ' ' order by a.attnum)
          from pg_attribute a where a.attrelid = c.oid and a.attnum > 0),
       (select json_agg(json_build_array(
                   a.attname, a.atttypid::bigint, a.atttypmod,
                   case when a.attcollation = 0 then ''
                        when getdatabaseencoding() not in ('UTF8', 'LATIN1') then 'bytes of another encoding'
                        when co.collprovider = 'd' then d.collation
                        when co.collprovider in ('c', 'b') and {locale} in ('C', 'POSIX', 'C.UTF-8') then 'C'
                        else co.collname end,
                   a.attgenerated::text, a.atthasmissing) order by a.attnum)::text
          from pg_attribute a left join pg_collation co on co.oid = a.attcollation
         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
       (select json_agg(json_build_array(i.indisprimary, i.indisreplident, (
                   select json_agg(a.attname order by k.place)
                     from unnest(i.indkey::int2[]) with ordinality k(attnum, place)
                     join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
                    where k.place <= i.indnkeyatts), (
                   select bool_and(a.attnotnull)
                     from unnest(i.indkey::int2[]) with ordinality k(attnum, place)
                     join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
                    where k.place <= i.indnkeyatts)) order by i.indexrelid)::text
          from pg_index i
         where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null
           and i.indexprs is null and i.indimmediate),
       pg_has_role(c.relowner, 'usage'), coalesce(has_any_column_privilege(c.oid, 'select'), true)
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  cross join (select case when {database_is_c} then 'C' else 'database' end as collation
                from pg_database where datname = current_database()) d
 where c.relkind in ('r', 'p') and c.relpersistence <> 't'
   and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\\_toast%%'
   and {condition}
 order by n.nspname, c.relname
"""
"""A partition that was made as one has its columns from the command that made it; ATTACH writes all of them anew. The
partition that was made first stands for the files of all: what rewrites a partitioned table rewrites each. A deferrable
key tells no rows apart: the server takes it for no identity, and two rows may swap it, which one after the other loses one."""


_MEMBERS = """
select r.prrelid::bigint, array[p.oid::text, p.xmin::text, r.oid::text],
       {names_of_listed} any(r.prattrs)), pg_get_expr(r.prqual, r.prrelid), {generated}
  from pg_publication p join pg_publication_rel r on r.prpubid = p.oid join pg_class k on k.oid = r.prrelid
 where p.pubname = %(publication)s and {is_list} and ({all} or k.oid = any(%(oids)s::oid[]))
   and not (k.relispartition and exists (
       select from pg_partition_ancestors(k.oid) a join pg_publication_rel o on o.prrelid = a.relid
        where o.prpubid = p.oid and a.relid <> k.oid))
union all
select k.relid::bigint, array[p.oid::text, p.xmin::text, s.oid::text] || {rows_of_found},
       {names_of_found} any(k.attrs)), pg_get_expr(k.qual, k.relid), {generated}
  from pg_publication p cross join lateral pg_get_publication_tables(p.pubname::text) k
  join pg_class c on c.oid = k.relid
  left join pg_publication_namespace s on s.pnpubid = p.oid and s.pnnspid = c.relnamespace
 where p.pubname = %(publication)s and not {is_list} and ({all} or k.relid = any(%(oids)s::oid[]))
"""
"""A publication that lists its tables is read from the catalog itself: the server's own function (and the view on it)
opens every table, and would wait for whoever has locked one of them. Whatever changes what a publication
sends of a table leaves another row of one of the catalogs, and so another checksum."""

_MEMBERS_BEFORE_15 = """
select k.relid::bigint, array[p.oid::text, p.xmin::text] || {rows_of_found}, null::name[], null::text, false
  from pg_publication p cross join lateral pg_get_publication_tables(p.pubname::text) k
 where p.pubname = %(publication)s and ({all} or k.relid = any(%(oids)s::oid[]))
"""


class _Membership(NamedTuple):
    """How a publication holds a table: the catalog's rows that say so, the columns, None for all, and the condition on
    rows. `with_generated` says that all columns means stored generated ones too."""

    rows_of_catalog: Sequence[str | None]
    columns: Sequence[str] | None
    row_filter: str | None
    with_generated: bool


async def _members(
    connection: Connection, publication: str, oids: Sequence[int] | None
) -> dict[int, _Membership]:
    """The tables of a publication, or those with these OIDs, by OID."""
    version = connection.info.server_version // 10000
    names = "(select array_agg(a.attname order by a.attnum) from pg_attribute a where a.attrelid = {} and a.attnum ="
    query = (_MEMBERS if version >= 15 else _MEMBERS_BEFORE_15).format(
        all="true" if oids is None else "false",
        names_of_listed=names.format("r.prrelid"),
        names_of_found=names.format("k.relid"),
        rows_of_found="array(select r.oid::text from pg_publication_rel r where r.prpubid = p.oid and (r.prrelid = k.relid "
        "or r.prrelid in (select relid from pg_partition_ancestors(k.relid))) order by r.oid)",
        generated="p.pubgencols = 's'" if version >= 18 else "false",
        is_list="(p.pubviaroot and not p.puballtables and not exists "
        "(select from pg_publication_namespace s where s.pnpubid = p.oid))",
    )
    parameters = {"publication": publication, "oids": list(oids or ())}
    found = await rows(connection, "reading the publication", query, parameters)
    return {oid: _Membership(*rest) for oid, *rest in found}


async def tables(
    connection: Connection, publication: str, *, oids: Sequence[int] | None = None, roots_only: bool = False
) -> list[Table]:
    """The tables of the database, or those with these OIDs, as this publication sends them."""
    version = connection.info.server_version // 10000
    # pg_database.datlocprovider and the filters of publications came with 15, builtin locales with 17.
    locale = "coalesce(co.colllocale, co.collcollate)" if version >= 17 else "co.collcollate"
    if version >= 17:
        database_is_c = (
            "datlocprovider = 'c' and datcollate in ('C', 'POSIX') "
            "or datlocprovider = 'b' and datlocale in ('C', 'C.UTF-8')"
        )
    elif version >= 15:
        database_is_c = "datlocprovider = 'c' and datcollate in ('C', 'POSIX')"
    else:
        database_is_c = "datcollate in ('C', 'POSIX')"
    conditions = ["true"]
    if oids is not None:
        conditions.append("c.oid = any(%(oids)s::oid[])")
    if roots_only:
        conditions.append("not c.relispartition")
    query = _TABLES.format(
        locale=locale,
        database_is_c=database_is_c,
        condition=" and ".join(conditions),
    )
    parameters = {"publication": publication, "oids": list(oids or ())}
    found = await rows(connection, "reading the catalog", query, parameters)
    # A query of its own: joined in one, the server expects few members and compares each table with each.
    members = await _members(connection, publication, oids)
    # Ten thousand tables are often as many copies of a few, which need not hold the same names each.
    shared: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    return [_table(row, members.get(row[0]), version, shared) for row in found]


def _table(
    row: tuple[Any, ...],
    member: _Membership | None,
    version: int,
    shared: dict[tuple[Any, ...], tuple[Any, ...]],
) -> Table:
    (
        oid,
        schema,
        name,
        kind,
        filenode,
        identity,
        persistence,
        estimate,
        parts,
        touched,
        columns,
        indexes,
        is_owned,
        may_be_read,
    ) = row
    attached: list[int] = []
    lacks_identity = False
    if parts:
        estimate, filenode, attached, lacks_identity = parts[0], parts[1] or 0, parts[2] or [], parts[3]
    sent = tuple(
        TableColumn(column, type_oid, modifier, collation, has_missing)
        for column, type_oid, modifier, collation, generated, has_missing in _listed(columns)
        if _is_sent(column, generated, member, version)
    )
    sent = shared.setdefault(sent, sent)
    key = _key(identity, _listed(indexes))
    key = shared.setdefault(key, key)
    identity_key = key if identity in "di" else ()
    if not set(key) <= {column.name for column in sent}:
        key = ()
    return Table(
        oid,
        schema,
        name,
        kind,
        filenode,
        identity,
        persistence,
        estimate or 0,
        sent,
        key,
        member is not None,
        member.row_filter if member is not None else None,
        tuple(member.columns) if member is not None and member.columns is not None else None,
        _checksum(touched),
        _checksum(member.rows_of_catalog) if member is not None else 0,
        identity_key,
        (identity == "f" or bool(identity_key)) and not lacks_identity,
        tuple(attached),
        is_owned,
        may_be_read,
    )


def _listed(text: str | None) -> list[Any]:
    """An aggregate of the query, which is kept as text until its table's turn: all of them as objects would take
    ten times the room."""
    found: list[Any] = msgspec.json.decode(text) if text is not None else []
    return found


def _is_sent(column: str, generated: str, member: _Membership | None, version: int) -> bool:
    """Whether the stream holds a column. Virtual columns never are; stored ones since 18, where published."""
    if generated == "v":
        return False
    if generated and (
        version < 18 or member is None or (member.columns is None and not member.with_generated)
    ):
        return False
    return member is None or member.columns is None or column in member.columns


def _key(identity: str, indexes: Sequence[tuple[bool, bool, list[str], bool]]) -> tuple[str, ...]:
    """The key whose columns come with every update and delete."""
    if identity == "i":
        return next((tuple(columns) for _, is_identity, columns, _ in indexes if is_identity), ())
    primary = next((tuple(columns) for is_primary, _, columns, _ in indexes if is_primary), ())
    if primary or identity != "f":
        return primary
    return next((tuple(columns) for *_, columns, not_null in indexes if not_null), ())


_TYPES = """
select t.oid::bigint, n.nspname, t.typname,
       case when exists (select from pg_type e where e.typarray = t.oid) then 'a' else t.typtype::text end,
       case t.typtype when 'd' then t.typbasetype
            when 'r' then (select rngsubtype from pg_range where rngtypid = t.oid)
            when 'm' then (select rngsubtype from pg_range where {multirange})
            else t.typelem end::bigint,
       t.typtypmod,
       (select e.typdelim::text from pg_type e where e.oid = t.typelem),
       (select json_agg(json_build_array(a.attname, a.atttypid::bigint, a.atttypmod) order by a.attnum)
          from pg_attribute a where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0
           and not a.attisdropped)
  from pg_type t join pg_namespace n on n.oid = t.typnamespace
 where t.oid = any(%s::oid[])
"""


async def load_types(connection: Connection, wanted: Iterable[int], known: dict[int, PgType]) -> None:
    """Add these types, and those they are made of, to `known`. Types that were dropped are left out."""
    multirange = "rngmultitypid = t.oid" if connection.info.server_version >= 140000 else "false"
    missing = {oid for oid in wanted if oid and oid not in known}
    while missing:
        found = await rows(connection, "reading types", _TYPES.format(multirange=multirange), [list(missing)])
        asked, missing = missing, set()
        for oid, schema, name, kind, related, modifier, delimiter, fields in found:
            made = PgType(
                oid,
                schema,
                name,
                kind,
                related or 0,
                modifier,
                delimiter or ",",
                tuple((field, type_oid, type_modifier) for field, type_oid, type_modifier in fields or ()),
            )
            known[oid] = made
            if kind in "adrm":
                missing.add(made.related)
            missing.update(type_oid for _, type_oid, _ in made.fields)
        missing -= known.keys() | asked | {0}


def matches(table: Table, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns (`public.orders`, `public.*`) names the table."""
    name = table.full_name
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)
