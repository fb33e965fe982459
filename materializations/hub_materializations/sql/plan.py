"""What a start would do to a SQL database, as statements; nothing is touched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from hub.errors import FatalError
from hub.materialization import Binding
from hub.schema import CollectionSchema

from . import statements
from .binding import SqlBinding
from .driver import Driver
from .sink import found_table, missing_schema, named, planned


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
