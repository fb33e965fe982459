"""The `postgres` capture: its options, and what `hub check` and `hub discover` say."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from hub.capture import Capture, Discovered, Finding, Outlet, TypeForm
from hub.errors import FatalError
from hub.record import TaskName
from hub.spec import Duration, Path, Secret, Size, Spec
from hub_captures.postgres import backfill, catalog, checks, server
from hub_captures.postgres.catalog import Table, load_types, matches
from hub_captures.postgres.connection import Server, connection_string_problem
from hub_captures.postgres.layout import layout
from hub_captures.postgres.position import PostgresPosition
from hub_captures.postgres.types import FORMS, PgType

_NAME_MAX = 63
"""PostgreSQL cuts longer names short without a word."""


class TableOptions(Spec, frozen=True, kw_only=True):
    """One table, or all that a pattern names, with options of its own."""

    name: Annotated[str, Meta(description="Schema and table, such as `public.orders`; `*` and `?` match.")]
    columns: Annotated[
        list[str],
        Meta(description="Only these columns, the key's among them. Needs PostgreSQL 15. All by default."),
    ] = []
    where: Annotated[
        str,
        Meta(
            description="Only rows that satisfy this SQL condition, in snapshot and stream. Needs PostgreSQL 15."
        ),
    ] = ""
    snapshot: Annotated[
        bool, Meta(description="Whether to read the rows that are there. `false` takes only changes.")
    ] = True


class PostgresCapture(Capture[PostgresPosition], frozen=True, kw_only=True):
    """Changes of PostgreSQL tables, from their first row on, by logical replication.

    Publication and slot are made when they are missing. The rows that are there are read in chunks beside
    the stream, without a lock and without a gap; a restart goes on where it was.
    """

    summary: ClassVar[str] = "PostgreSQL tables: snapshot and changes by logical replication"
    position_type: ClassVar[type[PostgresPosition]] = PostgresPosition
    types_of_source: ClassVar[Sequence[TypeForm]] = tuple(
        TypeForm(", ".join(form.names), form.json, form.back) for form in FORMS
    )

    dsn: Annotated[
        Secret,
        Meta(
            description="Connection string: `postgresql://user:password@host:5432/database` or `host=… dbname=…`. "
            "All of libpq's parameters, `PGPASSFILE` and service files work."
        ),
    ]
    tables: Annotated[
        list[str | TableOptions],
        Meta(
            description="Which tables: `schema.table` or patterns such as `public.*`. Tables created later that "
            "match are taken up too.",
            min_length=1,
        ),
    ]
    exclude: Annotated[list[str], Meta(description="Tables to leave out, by name or pattern.")] = []
    publication: Annotated[
        str | None,
        Meta(description="Name of an existing publication to use as it is. By default one is made and kept."),
    ] = None
    slot: Annotated[
        str | None, Meta(description="Name of the replication slot; `hub_` and the task's name by default.")
    ] = None
    snapshot: Annotated[
        Literal["initial", "when_needed", "never", "only", "always"],
        Meta(
            description="`initial` reads the rows of each table once; `when_needed` does, and again when the changes "
            "since the position are lost (`on_gap` is `resnapshot` then); `never` takes only changes; `only` reads the "
            "rows and ends; `always` reads them at every start."
        ),
    ] = "initial"
    consistent_snapshot: Annotated[
        bool,
        Meta(
            description="Read all tables as they were at one moment. Costs: one transaction stays open until all are "
            "read, so the server can neither vacuum nor let tables be altered nor forget WAL, changes wait "
            "meanwhile, and a restart begins anew."
        ),
    ] = False
    on_gap: Annotated[
        Literal["stop", "resnapshot"],
        Meta(
            description="When changes were lost for good (slot dropped or invalidated, server restored, a table out of the "
            "publication for a while): `stop` with the reason, or read all tables, or that one, again."
        ),
    ] = "stop"
    on_rewrite: Annotated[
        Literal["resnapshot", "stop", "ignore"],
        Meta(
            description="When a table was rewritten without a trace in the stream (`ALTER … TYPE … USING`, a column "
            "added with a default, a partition attached with its rows): read its rows again, stop, or go on."
        ),
    ] = "resnapshot"
    on_rename: Annotated[
        Literal["stop", "follow"],
        Meta(description="When a table gets another name: stop and ask, or begin a new collection."),
    ] = "stop"
    max_record: Annotated[Size, Meta(description="A larger row is treated as `on_oversized` says.")] = Size(
        64 * 1024 * 1024
    )
    on_oversized: Annotated[
        Literal["stop", "omit"],
        Meta(
            description="`stop` at a row beyond `max_record`, or `omit` its largest fields and name them in `@oversized`."
        ),
    ] = "stop"
    messages: Annotated[
        bool,
        Meta(
            description="Capture what applications write with `pg_logical_emit_message`, as `<task>/messages`."
        ),
    ] = False
    transactions: Annotated[
        bool,
        Meta(
            description="A record where each transaction begins and one where it ends, with the number of its records "
            "in each collection, as `<task>/transactions`."
        ),
    ] = False
    origin: Annotated[
        Literal["any", "none"],
        Meta(
            description="`none` leaves out changes that were replicated to the source from elsewhere (PostgreSQL 16)."
        ),
    ] = "any"
    streaming: Annotated[
        bool,
        Meta(
            description="Receive large transactions while they go on, and spool them to disk here instead of there."
        ),
    ] = False
    two_phase: Annotated[
        bool,
        Meta(
            description="Receive transactions when they are prepared (`PREPARE TRANSACTION`), so that little is left to "
            "do when they are committed. Their records come at `COMMIT PREPARED` all the same (PostgreSQL 15; on 17 "
            "not together with `failover`)."
        ),
    ] = False
    failover: Annotated[
        bool,
        Meta(description="Make the slot known to standbys, so that it outlives a failover (PostgreSQL 17)."),
    ] = True
    password_command: Annotated[
        list[str], Meta(description="A program that prints the password, run for each connection.")
    ] = []
    chunk: Annotated[Size, Meta(description="The most that one chunk of a snapshot holds.")] = Size(
        8 * 1024 * 1024
    )
    workers: Annotated[
        int,
        Meta(
            description="So many processes read a large table at once, each a range of its keys, all under one "
            "snapshot. Worth it where hub has cores to spare.",
            ge=1,
            le=64,
        ),
    ] = 1
    batch: Annotated[
        Size, Meta(description="A transaction larger than this is handed to the log in pieces.")
    ] = Size(4 * 1024 * 1024)
    buffer: Annotated[
        Size, Meta(description="So much may wait here for the log before the server has to wait.")
    ] = Size(8 * 1024 * 1024)
    status_interval: Annotated[
        Duration, Meta(description="How often the server is told how far we are, at least.")
    ] = Duration(10)
    refresh_interval: Annotated[
        Duration, Meta(description="How often to look for new, renamed and rewritten tables.")
    ] = Duration(30)

    def problems(self) -> Iterator[tuple[Path, str]]:
        if complaint := connection_string_problem(self.dsn.reveal()):
            yield ("dsn",), complaint
        for name in ("slot", "publication"):
            value = getattr(self, name)
            if value is not None and not 0 < len(value.encode()) <= _NAME_MAX:
                yield (name,), f"expected a name of 1 to {_NAME_MAX} bytes"
        if self.slot is not None and not re.fullmatch(r"[a-z0-9_]+", self.slot):
            yield ("slot",), "expected lower-case letters, digits and underscores only"
        for index, table in enumerate(self.tables):
            if "." not in (table if isinstance(table, str) else table.name):
                yield ("tables", index), "expected schema.table, such as public.orders or public.*"
            if isinstance(table, TableOptions) and self.publication and (table.columns or table.where):
                yield (
                    ("tables", index),
                    f"columns and where belong to the publication; state them in {self.publication!r}",
                )
        if self.snapshot == "never" and self.on_gap == "resnapshot":
            yield (
                ("on_gap",),
                "snapshot: never reads no rows, so that a gap can only be an end: expected stop",
            )
        if self.status_interval < 1:
            yield ("status_interval",), "expected at least 1s"
        if self.chunk < 64 * 1024:
            yield ("chunk",), "expected at least 64KiB"

    def slot_name(self, task: TaskName) -> str:
        """The slot of a task."""
        return self.slot or _made_name(task)

    def publication_name(self, task: TaskName) -> str:
        """The publication of a task."""
        return self.publication or _made_name(task)

    @property
    def is_managed(self) -> bool:
        """The publication is ours to make and change."""
        return self.publication is None

    @cached_property
    def patterns(self) -> list[TableOptions]:
        """The tables to capture; the last that matches counts."""
        return [TableOptions(name=table) if isinstance(table, str) else table for table in self.tables]

    def options_of(self, table: Table) -> TableOptions | None:
        """How a table is to be captured; None when it is not."""
        if self.exclude and matches(table, self.exclude):
            return None
        found = [options for options in self.patterns if matches(table, [options.name])]
        return found[-1] if found else None

    def server(self, task: TaskName) -> Server:
        """How to reach the source."""
        return Server(
            self.dsn.reveal(), application_name=f"hub/{task}", password_command=self.password_command
        )

    async def check(self, task: TaskName) -> Sequence[Finding]:
        return await checks.look(self, task)

    async def discover(self, task: TaskName) -> Sequence[Discovered]:
        types: dict[int, PgType] = {}
        found = []
        async with self.server(task).connected() as query:
            publication = self.publication_name(task)
            tables = await catalog.tables(query, publication, roots_only=self.is_managed)
            chosen = [table for table in tables if self.options_of(table) is not None]
            await load_types(query, [c.type_oid for table in chosen for c in table.columns], types)
        for table in chosen:
            columns = [(column.name, column.type_oid, column.modifier) for column in table.columns]
            made = layout(task, table.schema, table.name, columns, table.key, types)
            shared = {"schema": table.schema, "table": table.name}
            found.append(Discovered(made.schema, note=checks.note_of(table), metadata=shared))
        return found

    async def run(self, resume: PostgresPosition | None, out: Outlet[PostgresPosition]) -> None:
        from hub_captures.postgres.session import run

        await run(self, resume, out)

    async def backfill(self, task: TaskName, parts: Sequence[str], *, where: str = "") -> None:
        """Ask the running capture of this name, in whatever process, to read rows of these tables again. The
        request goes through the source's own WAL, so it is neither lost nor carried out twice."""
        publication, slot = self.publication_name(task), self.slot_name(task)
        async with self.server(task).connected() as query:
            if await server.slot_of(query, slot) is None:
                raise FatalError(
                    f"{task} has not run yet (there is no slot {slot}); its first run reads everything"
                )
            tables = await catalog.tables(query, publication)
            chosen = [t for t in tables if t.in_publication and self.options_of(t) is not None]
            await backfill.ask(query, publication, task, chosen, parts, where)


def _made_name(task: TaskName) -> str:
    """A name that PostgreSQL takes, and that no other task gets."""
    plain = re.sub(r"[^a-z0-9_]", "_", task.lower())
    if plain == task and len(plain) <= _NAME_MAX - 4:
        return f"hub_{plain}"
    return f"hub_{plain[: _NAME_MAX - 13]}_{hashlib.sha256(task.encode()).hexdigest()[:8]}"
