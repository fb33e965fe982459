"""Read files, and follow them as they grow and rotate.

The hard thing is to know a file again. Names move (`app.log` becomes `app.log.1`), inode numbers are
used again, a copy is made and the original cut. So the position names each file by inode and by what
was read of it: a digest of the first and the last bytes before the place that was reached. Only whole
lines are taken; a line that is half written is read again, from its first byte, when it is whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import anyio
from msgspec import Meta

from hub.capture import Capture, Discovered, Finding, Outlet
from hub.document import decode_lines
from hub.errors import HubError
from hub.materialization import ErrorPolicy
from hub.options import Duration, Size
from hub.record import Position, TaskName
from hub.schema import CollectionSchema, describe, widened
from hub.spec import Path as OptionPath
from hub_captures.file.files import Files, Mark, find, nothing_matches
from hub_captures.file.reading import Compression
from hub_captures.file.rows import Format

BATCH_BYTES_MIN = 1024
"""Least `batch_bytes`."""

SAMPLE_BYTES = 1 << 20
"""How much `discover` looks at."""


class FilePosition(Position, frozen=True):
    """How far each file was read. `left` are files that are gone or were cut, to be known when they return."""

    files: list[Mark]
    left: list[Mark] = []


class FileCapture(Capture[FilePosition], frozen=True, kw_only=True):
    """Each line of the matching files becomes a record, in the order of the lines.

    A file keeps its place when it is renamed, rotated by copying, or compressed, as long as a pattern matches its
    new name too. So match both: `app.log*`. Metadata: `path`.
    """

    position_type = FilePosition

    path: Annotated[
        str | list[str],
        Meta(
            description="Files to read: a path, a glob such as `logs/*.ndjson` or `in/**/*.csv`, or a list of them. "
            "Relative to the working directory.",
            examples=["logs/*.ndjson"],
        ),
    ]
    exclude: Annotated[list[str], Meta(description="Globs of files to leave alone.")] = []
    format: Annotated[
        Format,
        Meta(
            description="What a line is: `ndjson` a JSON value; `csv` a row under a header, whose fields become "
            "strings; `text` anything, which becomes a JSON string."
        ),
    ] = "ndjson"
    delimiter: Annotated[
        str, Meta(description="What stands between the fields of a CSV row.", min_length=1, max_length=1)
    ] = ","
    compression: Annotated[
        Compression, Meta(description="`auto` goes by the ending of the name: `.gz` gzip, `.zst` zstd.")
    ] = "auto"
    follow: Annotated[
        bool, Meta(description="Wait for more when all is read. Otherwise the capture ends there.")
    ] = True
    start: Annotated[
        Literal["beginning", "end"],
        Meta(description="Where to start in files that exist when the capture runs for the first time."),
    ] = "beginning"
    order: Annotated[
        Literal["name", "modified"], Meta(description="Which of several files is read first.")
    ] = "name"
    on_error: Annotated[
        ErrorPolicy,
        Meta(
            description="What becomes of a malformed line: `dead_letter` keeps its text in the task's dead-letter "
            "collection, `skip` counts it and goes on, `stop` stops the task."
        ),
    ] = "dead_letter"
    batch_bytes: Annotated[Size, Meta(description="Most to read at once. It also bounds one line.")] = Size(
        1 << 20
    )
    poll: Annotated[Duration, Meta(description="Time between looks for more.")] = Duration(0.25)
    rotate_wait: Annotated[
        Duration,
        Meta(
            description="How long to go on with a file that was renamed to a name that does not match, and to "
            "wait whether a file with the same beginning as another is a copy about to replace it."
        ),
    ] = Duration(5)
    files_max: Annotated[
        int, Meta(description="Most files. Each is named in every position that is stored.", ge=1)
    ] = 1000

    @property
    def patterns(self) -> list[str]:
        """`path` as a list."""
        return [self.path] if isinstance(self.path, str) else self.path

    def problems(self) -> Iterator[tuple[OptionPath, str]]:
        for pattern in self.patterns:
            if not pattern:
                yield ("path",), "expected a path or a glob, got an empty text"
        if self.batch_bytes < BATCH_BYTES_MIN:
            yield ("batch_bytes",), f"expected at least {BATCH_BYTES_MIN}, got {self.batch_bytes}"
        if not self.poll:
            yield ("poll",), "expected more than 0s"
        if self.delimiter in '"\r\n' or not self.delimiter.isascii():
            yield ("delimiter",), f"{self.delimiter!r} cannot stand between fields"
        if self.format != "csv" and self.delimiter != ",":
            yield ("delimiter",), "only CSV has a delimiter; set `format: csv`"

    async def check(self, task: TaskName) -> Sequence[Finding]:
        return await anyio.to_thread.run_sync(self._check)

    def _check(self) -> Sequence[Finding]:
        findings = []
        for pattern in self.patterns:
            found = find([pattern], self.exclude)
            if found or self.follow:
                findings.append(Finding(True, f"{pattern}: {len(found)} files"))
            else:
                findings.append(
                    Finding(False, nothing_matches(pattern), "mend `path`, or set `follow: true`")
                )
            for file in found.values():
                try:
                    with open(file.path, "rb"):  # noqa: PTH123  the path may hold bytes that are no text
                        pass
                except OSError as error:
                    cure = f"chmod or chown {file.shown} for the user of the hub"
                    findings.append(Finding(False, f"{file.shown}: {error.strerror}", cure))
        return findings

    async def discover(self, task: TaskName) -> Sequence[Discovered]:
        return await anyio.to_thread.run_sync(self._discover, task)

    def _discover(self, task: TaskName) -> Sequence[Discovered]:
        files = Files(self, task, None, sample_bytes=SAMPLE_BYTES)
        try:
            docs = [doc for batch in files.gather().batches for doc in decode_lines(batch.ndjson)]
        except HubError as error:
            return [Discovered(CollectionSchema(task, is_open=True), f"nothing could be read: {error}")]
        finally:
            files.close()
        columns = widened({}, [doc for doc in docs if isinstance(doc, dict)])
        if columns is None:
            return [Discovered(CollectionSchema(task, is_open=True), "no file has any records yet")]
        return [Discovered(describe(task, columns, is_open=True), f"from the first {len(docs)} records")]

    async def run(self, resume: FilePosition | None, out: Outlet[FilePosition]) -> None:
        await out.describe(CollectionSchema(out.task, is_open=True))
        files = Files(self, out.task, (resume.files, resume.left) if resume else None)
        try:
            while True:
                gathered = await anyio.to_thread.run_sync(files.gather)
                for message, path in gathered.notices:
                    out.notice(message, path=path)
                if gathered.skipped:
                    out.count("skipped_records", gathered.skipped)
                if gathered.moved:
                    await out.send(gathered.batches, FilePosition(gathered.files, gathered.left))
                elif not gathered.is_end:
                    continue
                elif self.follow:
                    await anyio.sleep(self.poll)
                else:
                    return
        finally:
            files.close()
