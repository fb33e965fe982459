"""From the table there is to the table that is wanted: statements, or a list of what does not fit.

Only ever more room: columns are added and widened, nothing of the user's is dropped, narrowed or
renamed. A table that somebody else made is adopted when every column can hold what will be written.
Pure; the driver reads the catalog and runs the statements.

The hard thing is a key whose type changes. Its rows must stay the rows they are: a source that casts 1 to '1' still
means the same row, so the column becomes text, as it does there. Only where the schema says that numbers and texts
stand side by side does it become JSON, in which 1 and "1" are two keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hub.schema import ColumnType, widen
from hub.schema.types import FLOAT64, JSON, STRING

from .binding import Clash, Evolution
from .dialect import Cast, Dependent, Dialect, ExistingColumn, ExistingTable, TableName
from .layout import Layout, LayoutColumn
from .names import hashed
from .rekey import Rekey


@dataclass(frozen=True, slots=True)
class Changes:
    """What to do to a table before rows of a layout can be written.

    `layout` is what the rows are then written by: its column types are those of the table. `misfits`
    are sentences, each with the statement that would mend it; with any of them nothing may be run.
    """

    layout: Layout
    statements: list[str] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    """The columns whose type the statements change."""
    casts: dict[str, Cast] = field(default_factory=dict)
    """The columns whose type only a table that is rebuilt can have."""
    rekey: Rekey | None = None
    """The key that the table gets."""
    after: list[str] = field(default_factory=list)
    """What only makes statements faster, and may wait for the commit where it would be one."""

    def around(self, dependents: Sequence[Dependent]) -> None:
        """Have these make way first, and stand there again at the end."""
        self.statements[:0] = [dependent.drop for dependent in reversed(dependents)]
        self.statements.extend(text for dependent in dependents for text in dependent.make)


def changes(
    layout: Layout,
    existing: ExistingTable | None,
    dialect: Dialect,
    *,
    evolution: Evolution,
    clash: Clash,
    index: str | None = None,
) -> Changes:
    """The way from `existing` to a table that holds `layout`, whose schema exists. `index` is what the index over the
    current versions of a new history is called, unless by its usual name."""
    if existing is None:
        index = index or layout.table.current_index(dialect)
        return Changes(_typed(layout, dialect), _made(layout, dialect, index))
    if existing.is_view:
        return Changes(
            layout, misfits=[f"{layout.table} is a view; name a table that does not exist, or a table"]
        )
    found = Changes(layout)
    found = replace(found, rekey=_check_key(layout, existing, dialect, evolution, found))
    _check_foreign(layout, existing, found)
    kept = [
        _fit_column(column, existing, layout, dialect, evolution, clash, found) for column in layout.columns
    ]
    columns = tuple(column for column in kept if column is not None)
    layout = Layout(layout.table, columns, layout.mode, layout.soft)
    if found.rekey is not None and layout.mode == "history":
        moving = _current(layout, dialect.move_current, dialect, existing.current_index)
        if dialect.ddl_in_transaction:
            found.statements.extend(moving)
        elif set(found.rekey.former).isdisjoint([*found.altered, *found.casts]):
            found.after.extend(moving)
        else:
            found.rekey.first.extend(moving)
    return replace(found, layout=layout)


def _made(layout: Layout, dialect: Dialect, index: str) -> list[str]:
    table = layout.table.sql(dialect)
    columns = [_definition(column, dialect) for column in layout.columns]
    if dialect.primary_key and layout.mode == "upsert":
        columns.append(dialect.key_clause.format(key=dialect.listed(layout.key_names)))
    made = [f"CREATE TABLE {table} ({', '.join(columns)}){dialect.table_options}"]
    if layout.mode == "history":
        made += _current(layout, dialect.index_current, dialect, index)
    declared = layout.key and (layout.mode == "upsert" or not dialect.primary_key)
    mark = dialect.key_mark(table) if declared else None
    return [*made, mark] if mark is not None else made


def _current(layout: Layout, templates: Sequence[str], dialect: Dialect, name: str) -> list[str]:
    """Statements about the index over the current versions of a history."""
    parts = {
        "name": dialect.quoted(name),
        "place": TableName(layout.table.schema, name).sql(dialect),
        "table": layout.table.sql(dialect),
        "key": ", ".join(dialect.indexed(dialect.quoted(column.name), column.type) for column in layout.key),
        "current": dialect.quoted(layout.columns[layout.index("is_current")].name),
    }
    return [template.format(**parts) for template in templates]


def _definition(column: LayoutColumn, dialect: Dialect) -> str:
    null = " NOT NULL" if column.in_key else ""
    return f"{dialect.quoted(column.name)} {_type_of(column, dialect)}{null}"


def _type_of(column: LayoutColumn, dialect: Dialect) -> str:
    return dialect.key_type(column.type) if column.in_key else dialect.sql_type(column.type)


def _typed(layout: Layout, dialect: Dialect) -> Layout:
    """The layout with the types that its new columns read back as."""
    columns = [
        column._replace(type=dialect.column_type(_type_of(column, dialect)) or column.type)
        for column in layout.columns
    ]
    return Layout(layout.table, tuple(columns), layout.mode, layout.soft)


def _check_key(
    layout: Layout, existing: ExistingTable, dialect: Dialect, evolution: Evolution, found: Changes
) -> Rekey | None:
    """See to it that the table tells rows apart by the key: as it is, or with the key replaced that is hub's own."""
    key, own = layout.key_names, _own_key(layout, existing)
    if layout.mode == "append" or not key or set(own) == set(key):
        return None
    if own and evolution == "evolve":
        return _rekey(layout, existing, dialect)
    fits = not dialect.primary_key or any(set(unique) == set(key) for unique in existing.uniques)
    if layout.mode != "upsert" or (fits and not existing.own_key):
        return None
    listed = dialect.listed(key)
    have = (
        "; ".join(", ".join(unique) for unique in existing.uniques or [existing.own_key] if unique) or "none"
    )
    why = f"nothing keeps ({', '.join(key)}) unique in it, its unique keys are: {have}"
    if existing.own_key:
        found.misfits.append(f"{why}; `evolution: evolve` lets hub replace the key that it has made")
        return None
    target = layout.table.sql(dialect)
    if not existing.key_name:
        cure = "; ".join(
            [*_keyable(layout, existing, dialect), f"ALTER TABLE {target} ADD PRIMARY KEY ({listed})"]
        )
        if dialect.drop_key is None:
            cure = f"CREATE UNIQUE INDEX {dialect.quoted('by_' + '_'.join(key))} ON {target} ({listed})"
        found.misfits.append(f"{why}; mend it with: {cure}")
    elif dialect.drop_key is not None:
        drop = dialect.drop_key.format(name=dialect.quoted(existing.key_name))
        cure = "; ".join(
            [*_keyable(layout, existing, dialect), f"ALTER TABLE {target} {drop}, ADD PRIMARY KEY ({listed})"]
        )
        found.misfits.append(f"{why}; its primary key is yours, so hub leaves it; mend it with: {cure}")
    else:
        found.misfits.append(
            f"{why}; its primary key is yours, so hub leaves it, and {dialect.name} cannot alter it: make the table "
            f"anew with PRIMARY KEY ({listed}) and its rows, and rename it to {target}"
        )
    return None


def _own_key(layout: Layout, existing: ExistingTable) -> tuple[str, ...]:
    """The columns that hub itself has made the key of such a table."""
    return existing.current_key if layout.mode == "history" else existing.own_key


def _keyable(layout: Layout, existing: ExistingTable, dialect: Dialect) -> list[str]:
    """The statements that give columns a type that a key may have."""
    made = []
    for name in layout.key_names:
        there = existing.column(name)
        held = dialect.column_type(there.type) if there is not None else None
        if there is None or held is None or dialect.key_type(held) == there.type:
            continue
        template, column = dialect.alter(held, held), dialect.quoted(name)
        if template is not None:
            kind = dialect.key_type(held)
            made.append(
                template.format(
                    table=layout.table.sql(dialect),
                    column=column,
                    type=kind,
                    null="",
                    value=f"{column}::{kind}",
                )
            )
    return made


def _rekey(layout: Layout, existing: ExistingTable, dialect: Dialect) -> Rekey:
    there = {column.name: column for column in existing.columns}
    key = layout.key_names
    deleted = layout.columns[layout.index("deleted_at")].name if layout.soft else None
    index = existing.current_index if layout.mode == "history" else None
    former = _own_key(layout, existing)
    rekey = Rekey(former, key, deleted=deleted if deleted in there else None, index=index)
    for name in former:
        if name not in key and not there[name].nullable:
            rekey.freed[name] = there[name].type
    if layout.mode == "upsert":
        rekey.needed |= {name for name in key if name in there and there[name].nullable}
    return rekey


def _check_foreign(layout: Layout, existing: ExistingTable, found: Changes) -> None:
    """Columns of the user's that we never write must take care of themselves."""
    ours = {*layout.names, *(found.rekey.freed if found.rekey is not None else ())}
    for column in existing.columns:
        if column.name not in ours and not (column.nullable or column.has_default or column.generated):
            found.misfits.append(
                f"column {column.name} is NOT NULL without a default and no field fills it; give it a default, "
                "drop the NOT NULL or rename a field to it"
            )


def _fit_column(
    column: LayoutColumn,
    existing: ExistingTable,
    layout: Layout,
    dialect: Dialect,
    evolution: Evolution,
    clash: Clash,
    found: Changes,
) -> LayoutColumn | None:
    """The column as it will be, and into `found` what makes it so. None: it is not written."""
    table = layout.table
    there = existing.column(column.name)
    if there is None:
        return _missing(column, layout, existing, dialect, evolution, found)
    if there.generated:
        found.misfits.append(
            f"column {there.name} is generated by the database; exclude the field {column.label} "
            f"(`exclude: [{column.label}]`) or rename it"
        )
        return column
    held = dialect.column_type(there.type)
    if held is None:
        # A type only this database knows, such as an enum or a domain: text goes through its input.
        if column.type.kind in ("string", "json", "uuid"):
            return column._replace(type=STRING)
        found.misfits.append(
            _misfit(column, there, dialect, f"{there.type} is not a type that hub can write")
        )
        return column
    rekey = found.rekey
    freed = rekey is not None and there.name in rekey.freed
    if not (there.nullable or column.in_key or freed) and evolution == "evolve" and dialect.drop_not_null:
        found.statements.append(
            dialect.drop_not_null.format(
                table=table.sql(dialect), column=dialect.quoted(there.name), type=there.type
            )
        )
    spelled = dialect.key_type if column.in_key else dialect.sql_type
    if rekey is not None and column.in_key:
        # What else it needs is altered when it is a part of the key.
        if held.kind == "json":
            rekey.as_text.add(there.name)
        keyable = rekey.is_unique or dialect.ddl_in_transaction
        if keyable and there.name not in rekey.former and spelled(held) != there.type:
            rekey.types[there.name] = spelled(held)
            held = dialect.column_type(spelled(held)) or held
        kind = rekey.types.get(there.name, there.type)
        there = there._replace(type=kind, nullable=there.nullable and not rekey.is_unique)
    wide = wider(held, column.type, dialect, in_key=column.in_key)
    if dialect.accepts(there.type, column.type):
        return column
    if spelled(column.type) == there.type or spelled(wide) == spelled(held):
        return column._replace(type=held)
    clashes = widen(held.null(), column.type.null()).kind == "json"
    if evolution == "ignore" and not (clashes and column.in_key):
        return column._replace(type=held)
    if evolution != "evolve":
        found.misfits.append(
            _misfit(column, there, dialect, f"`evolution: {evolution}` forbids to change its type")
        )
        return column
    if clashes and clash == "stop":
        found.misfits.append(_misfit(column, there, dialect, "`clash: stop` forbids to make it text or JSON"))
        return column
    if clashes and clash == "new_column" and not column.in_key:
        beside = hashed(column.name, dialect.names, f"{column.name} {column.type.kind}")
        return _fit_column(column._replace(name=beside), existing, layout, dialect, evolution, clash, found)
    _widen(there, held, wide, spelled(wide), existing, table, dialect, found, in_key=column.in_key)
    return column._replace(type=dialect.column_type(spelled(wide)) or wide)


def _widen(
    there: ExistingColumn,
    held: ColumnType,
    wide: ColumnType,
    sql_type: str,
    existing: ExistingTable,
    table: TableName,
    dialect: Dialect,
    found: Changes,
    *,
    in_key: bool,
) -> None:
    """Into `found` what gives a column more room: by a statement of the database's, or in a table that is rebuilt."""
    name = dialect.quoted(there.name)
    value = dialect.converted(name, held, wide)
    template = None if existing.is_fixed else dialect.alter(held, wide)
    if template is None:
        found.casts[there.name] = Cast(sql_type, value, not there.nullable and in_key)
        return
    null = " NOT NULL" if in_key and not there.nullable else ""
    found.altered.append(there.name)
    found.statements.append(
        template.format(table=table.sql(dialect), column=name, type=sql_type, null=null, value=value)
    )


def _missing(
    column: LayoutColumn,
    layout: Layout,
    existing: ExistingTable,
    dialect: Dialect,
    evolution: Evolution,
    found: Changes,
) -> LayoutColumn | None:
    table = layout.table.sql(dialect)
    if evolution == "ignore" and not column.in_key:
        return None
    sql_type = _type_of(column, dialect)
    adding = f"ALTER TABLE {table} ADD COLUMN {dialect.quoted(column.name)} {sql_type}"
    if column.in_key:
        # Rows of before have no value there, and a default would be one that no source ever said.
        gone = [name for name in _own_key(layout, existing) if name not in layout.names]
        former = dialect.quoted(gone[0]) if len(gone) == 1 else "…"
        found.misfits.append(
            f"it has no column {column.name} for the key's field {column.label}. Where the source has renamed a "
            f"column, rename it here, too: ALTER TABLE {table} RENAME COLUMN {former} TO {dialect.quoted(column.name)}; "
            f"else add it, and give every row its value: {adding}"
        )
        return column
    if evolution == "stop":
        found.misfits.append(
            f"it has no column {column.name} for the field {column.label}; add it with: {adding}"
        )
        return column
    found.statements.append(adding)
    return column._replace(type=dialect.column_type(sql_type) or column.type)


def wider(held: ColumnType, wanted: ColumnType, dialect: Dialect, *, in_key: bool = False) -> ColumnType:
    """The type that holds both what the column holds and what will be written to it.

    Text and JSON hold everything in its JSON form, so a column of such a type need not change. A key is compared:
    it stays text as long as nobody says that it is JSON.
    """
    if held.kind == "json":
        return held
    if in_key and wanted.kind in ("json", "object", "array"):
        return JSON
    if held.kind == "string" and held.length is None:
        return held
    if held.kind == "integer" and wanted.kind == "float" and dialect.integers_become_floats:
        return FLOAT64
    wide = widen(held.null(), wanted.null())
    return STRING if in_key and wide.kind == "json" else wide


def _misfit(column: LayoutColumn, there: ExistingColumn, dialect: Dialect, why: str) -> str:
    return (
        f"column {there.name} is {there.type} and the field {column.label} needs {dialect.sql_type(column.type)}: "
        f"{why}; alter it, or exclude or rename the field"
    )
