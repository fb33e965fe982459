"""What a binding of any SQL materialization can say: which table, how changes become rows, what may evolve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hub.materialization import BindingSpec
from hub.spec import Interpolated, Path

Mode = Literal["upsert", "append", "history"]
Deletes = Literal["hard", "soft"]
Nested = Literal["json", "flatten"]
Evolution = Literal["evolve", "ignore", "stop"]
Clash = Literal["rebuild", "new_column", "stop"]

DEFAULT_TABLE = Interpolated('${! @table.or("") }')


class SqlBinding(BindingSpec, frozen=True, kw_only=True):
    """One line of `bindings` of a SQL materialization."""

    table: Annotated[
        Interpolated,
        Meta(
            description="The table. By default the source's own table name (`@table`), else the last part of the "
            "collection's name."
        ),
    ] = DEFAULT_TABLE
    schema: Annotated[
        str | None,
        Meta(description="The schema of the table. None: the one of the materialization.", min_length=1),
    ] = None
    mode: Annotated[
        Mode,
        Meta(
            description="`upsert` keeps one row for each key. `append` adds every change as a row, with its "
            "operation. `history` keeps every version of a row with the time it held "
            "(`_valid_from`, `_valid_to`, `_is_current`)."
        ),
    ] = "upsert"
    deletes: Annotated[
        Deletes,
        Meta(
            description="What a delete does to the row in `upsert`: `hard` removes it, `soft` sets `_deleted_at`."
        ),
    ] = "hard"
    key: Annotated[
        list[str] | None,
        Meta(
            description="Fields that name a row, instead of the collection's key. They must name one: of two "
            "records with the same key the later wins.",
            min_length=1,
        ),
    ] = None
    include: Annotated[
        list[str] | None, Meta(description="Only these fields become columns. The key always does.")
    ] = None
    exclude: Annotated[list[str], Meta(description="These fields do not become columns.")] = msgspec.field(
        default_factory=list
    )
    rename: Annotated[dict[str, str], Meta(description="Column names for fields: `{field: column}`.")] = (
        msgspec.field(default_factory=dict)
    )
    metadata: Annotated[
        dict[str, str],
        Meta(
            description="Extra columns from metadata: `{column: name}`, such as `{_source_lsn: lsn}`. `operation` "
            "and everything a mapping sees under `@` has a name."
        ),
    ] = msgspec.field(default_factory=dict)
    nested: Annotated[
        Nested,
        Meta(
            description="Objects whose fields the schema lists become one JSON column (`json`) or a column for each "
            "field, joined by `_` (`flatten`)."
        ),
    ] = "json"
    evolution: Annotated[
        Evolution,
        Meta(
            description="When the schema grows: `evolve` adds and widens columns, `ignore` leaves the table as it "
            "is and writes the columns it has, `stop` stops the task."
        ),
    ] = "evolve"
    clash: Annotated[
        Clash,
        Meta(
            description="When a field's type has nothing in common with its column's, such as numbers and text: "
            "`rebuild` the table so that the column holds both, as JSON, or as text in a key; write to a "
            "`new_column` beside it from then on (a key is rebuilt all the same); or `stop` the task."
        ),
    ] = "rebuild"

    @property
    def is_repeatable(self) -> bool:
        return self.mode == "upsert"

    @property
    def is_made_anew(self) -> bool:
        return self.mode != "upsert"

    @property
    def is_emptied(self) -> bool:
        return self.mode != "append"

    @property
    def target(self) -> Interpolated | None:
        return self.table

    def problems(self) -> Iterator[tuple[Path, str]]:
        if self.deletes == "soft" and self.mode != "upsert":
            yield (
                ("deletes",),
                f"`deletes: soft` belongs to `mode: upsert`; {self.mode} keeps every change anyway",
            )
        for name in self.key or ():
            if name in self.exclude:
                yield ("exclude",), f"the key field {name!r} cannot be excluded"
        taken: dict[str, str] = {}
        for field, column in self.rename.items():
            if not column:
                yield ("rename", field), "a column needs a name"
            if column in taken:
                yield ("rename", field), f"column {column!r} is already the name of field {taken[column]!r}"
            taken[column] = field
        for column in self.metadata:
            if column in taken:
                yield (
                    ("metadata", column),
                    f"column {column!r} is already the name of field {taken[column]!r}",
                )
