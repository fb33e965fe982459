"""What has to be done to a SQL database before rows can be written, as statements; nothing is touched.

A look at the catalog, and pure functions: the sink runs the statements, `hub plan` prints them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from itertools import chain, count

from hub.errors import FatalError
from hub.materialization import Binding
from hub.schema import CollectionSchema

from . import rekey as rekeys
from . import statements
from .binding import SqlBinding
from .dialect import ExistingTable, TableName
from .driver import Driver
from .evolve import Changes, changes
from .layout import layout_of
from .names import fitted, hashed
from .rekey import Rekey


def plan(connect: Callable[[], Driver], bindings: Sequence[tuple[Binding, CollectionSchema]]) -> list[str]:
    """The statements that a first `describe` of each binding would run, in order. What does not fit
    stands among them as a comment."""
    with contextlib.closing(connect()) as driver:
        found = missing_schema(driver, driver.default_schema)
        cursors = statements.create_cursor_table(driver.dialect, driver.default_schema)
        there = not found and found_cursors(driver)
        found += [] if there else [cursors]
        for binding, schema in bindings:
            options = binding.options
            assert isinstance(options, SqlBinding)
            table = found_table(driver, options.schema or driver.default_schema, named(binding))
            try:
                change = planned(driver, table, schema, options)
            except FatalError as error:
                found.append(f"-- {error}")
                continue
            found += [text for text in change.statements if text not in found]
            found += [
                f"-- {binding.collection} does not fit into {table}: {misfit}" for misfit in change.misfits
            ]
    # Statements for a driver that formats with % hold each % of a name twice.
    return [text.replace("%%", "%") if driver.dialect.parameter == "%s" else text for text in found]


def found_cursors(driver: Driver) -> bool:
    """Whether the table of cursors is there."""
    return driver.existing(statements.cursor_table(driver.default_schema)) is not None


def named(binding: Binding) -> str:
    """The table that a binding asks for: its target, else the last part of the collection's name."""
    return binding.target or binding.collection.rpartition("/")[2].rpartition(".")[2]


def found_table(driver: Driver, schema: str | None, wanted: str) -> TableName:
    """Where a table of this name is, or is to be made.

    Where the database does not tell upper from lower case and the name is taken by another spelling,
    the table gets a name with a hash: two tables of a source never meet in one.
    """
    dialect = driver.dialect
    name = fitted(wanted, dialect.names)
    there = driver.spellings(TableName(schema, name)) if dialect.names.folds_case else []
    if there and name not in there:
        name = hashed(wanted, dialect.names)
    return TableName(schema, name)


def planned(driver: Driver, table: TableName, schema: CollectionSchema, options: SqlBinding) -> Changes:
    """What has to be done to a table, after a look at the catalog. Changes nothing."""
    existing = driver.existing(table)
    layout = layout_of(table, schema, options, driver.dialect, existing)
    found = changes(
        layout,
        existing,
        driver.dialect,
        evolution=options.evolution,
        clash=options.clash,
        index=_free_index(table, driver) if existing is None and layout.mode == "history" else None,
    )
    if existing is not None:
        complete(found, table, existing, driver)
    else:
        found.statements[:0] = missing_schema(driver, table.schema)
    return found


def complete(found: Changes, table: TableName, existing: ExistingTable, driver: Driver) -> None:
    """Add to the changes of a table its rebuilding, where that must be, and what else has to make way."""
    rekey, dialect = found.rekey, driver.dialect
    if rekey is not None and rekey.is_unique and not found.misfits:
        found.misfits.extend(_in_the_way(rekey, table, driver))
    touched = [*found.altered, *found.casts, *(rekey.types if rekey is not None else ())]
    if found.misfits or not (touched or rekey is not None):
        return
    if found.casts or rekey is not None:
        # First: the definition that the new table is made after is the one that there is now.
        rebuilding = driver.rebuild(table, existing, found.casts, rekey)
        found.statements[:0] = [
            *(rekeys.giving_way(rekey, table, dialect) if rekey is not None else ()),
            *rebuilding,
        ]
        if not (rebuilding or touched):
            return
    dependents = driver.dependents(table, touched)
    if rekey is not None and rekey.index is not None:
        # The statements make it anew.
        own = f"DROP INDEX {dialect.quoted(rekey.index)}"
        dependents = [dependent for dependent in dependents if dependent.drop != own]
    found.around(dependents)


def _free_index(table: TableName, driver: Driver) -> str:
    """What the index of a new history is called. A table that was renamed has kept the name of its own."""
    wanted = table.current_index(driver.dialect)
    further = (hashed(wanted, driver.dialect.names, f"{wanted} {number}") for number in count(2))
    names = chain([wanted], further)
    return next(name for name in names if not driver.is_taken(TableName(table.schema, name)))


def _in_the_way(rekey: Rekey, table: TableName, driver: Driver) -> list[str]:
    """What rows say against the key that the table is to get."""
    dialect = driver.dialect
    ((unknown,),) = driver.fetch(rekeys.unknown_rows(rekey, table, dialect))
    repeated = driver.fetch(rekeys.repeated_keys(rekey, table, dialect))
    return rekeys.misfits(rekey, table, dialect, unknown, repeated)


def missing_schema(driver: Driver, schema: str | None) -> list[str]:
    """The statement that makes a schema, if it is not there."""
    if schema is None or driver.has_schema(schema):
        return []
    return [f"CREATE SCHEMA {driver.dialect.quoted(schema)}"]
