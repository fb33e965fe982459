"""`hub map`: a mapping over JSON lines, or at a prompt.

Lines are mapped as they arrive, in batches of whatever is there, so that a pipe shows each result at once
and a file goes through at full speed. What fails goes to standard error with the number of its line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import click

from hub.document import encode_lines
from hub.errors import RecordError
from hub.mapping import Compiled, EvaluationError, Message, ParseError, compile
from hub.mapping.gojson import compact, indented
from hub.mapping.values import text
from hub.record import Batch

READ_BYTES = 1 << 20
"""How much is read, and so mapped, at a time."""

LINE_BYTES_MAX = 64 << 20
"""A line longer than this ends the command: it is no JSON line."""


@click.command("map")
@click.argument("mapping", required=False)
@click.option(
    "-f",
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read the mapping from a file; imports are found beside it.",
)
@click.option("--mutation", is_flag=True, help="Assign into the document, instead of building a new one.")
@click.option(
    "-r",
    "--raw",
    is_flag=True,
    help="Lines are plain text for content(); results that are text are printed without quotes.",
)
@click.option("-p", "--pretty", is_flag=True, help="Indent the results.")
@click.option("--meta", is_flag=True, help='Print {"document": …, "metadata": …} for each record.')
@click.option("--with-meta", metavar="NAME=VALUE", multiple=True, help="Metadata that all records have.")
@click.option(
    "--explain",
    is_flag=True,
    help="Print the generated Python and what the mapping reads and writes, and stop.",
)
def command(
    mapping: str | None,
    file: Path | None,
    mutation: bool,
    raw: bool,
    pretty: bool,
    meta: bool,
    with_meta: tuple[str, ...],
    explain: bool,
) -> None:
    """Run a mapping over JSON lines: from standard input to standard output.

    Without a MAPPING or a file, and on a terminal, it becomes a prompt that keeps a document and shows what
    each mapping makes of it. Exit code 1: at least one record failed; 2: the mapping is wrong.
    """
    if (mapping is None) == (file is None):
        if mapping is None and sys.stdin.isatty():
            from hub.cli.prompt import converse

            converse()
            return
        raise click.UsageError("give one mapping: as an argument, or with --file")
    try:
        source = mapping if mapping is not None else _read(file)
        compiled = compile(source, "mutation" if mutation else "mapping", file=str(file or ""))
    except ParseError as error:
        click.echo(error.pretty(), err=True)
        sys.exit(2)
    for warning in compiled.warnings:
        click.echo(f"warning: {warning}", err=True)
    if explain:
        click.echo(explained(compiled))
        return
    metadata = dict(_pairs(with_meta))
    failed = 0
    output = sys.stdout.buffer
    plain = not (raw or meta or pretty)
    try:
        for numbers, lines in chunks(sys.stdin.buffer):
            if raw:
                results = one_by_one(compiled, lines, metadata)
            else:
                batch = Batch.of_lines("stdin", lines, shared=metadata)
                mapped, indexes = compiled.run_indexed(batch)
                if plain and not mapped.errors:
                    output.write(mapped.ndjson)
                    output.flush()
                    continue
                results = batched(mapped, indexes, meta=meta)
            failed += _write(output, numbers, results, pretty=pretty, meta=meta, raw=raw)
            output.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if failed:
        sys.exit(1)


def _read(file: Path | None) -> str:
    assert file is not None
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{file}: {error}") from error


def _pairs(given: Iterable[str]) -> Iterator[tuple[str, str]]:
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--with-meta takes NAME=VALUE, got {pair!r}")
        yield name, value


def chunks(stream: BinaryIO) -> Iterator[tuple[list[int], list[bytes]]]:
    """Lines that are not blank, with their numbers from 1, as many at a time as there are to read."""
    read = getattr(stream, "read1", stream.read)
    rest, number = b"", 0
    while True:
        block = read(READ_BYTES)
        *whole, rest = (rest + block).split(b"\n") if block else (rest, b"")
        if len(rest) > LINE_BYTES_MAX:
            raise click.ClickException(f"line {number + len(whole) + 1} has more than {LINE_BYTES_MAX} bytes")
        numbers = [n for n, line in enumerate(whole, number + 1) if line.strip()]
        if numbers:
            yield numbers, [line.rstrip(b"\r") for line in whole if line.strip()]
        number += len(whole)
        if not block:
            return


Result = tuple[int, Any, Mapping[str, Any]] | tuple[int, RecordError]
"""The index of a line with its document and metadata, or with why it failed. Dropped records have none."""


def batched(mapped: Batch, indexes: Sequence[int], *, meta: bool) -> list[Result]:
    """The records of a mapped batch one by one, with the index each had. The document is JSON text."""
    errors = mapped.errors or {}
    out: list[Result] = []
    for place, line in enumerate(mapped.lines()):
        error = errors.get(place)
        if error is not None:
            out.append((indexes[place], error))
        else:
            out.append((indexes[place], line, mapped.metadata(place) if meta else {}))
    return out


def one_by_one(compiled: Compiled, lines: list[bytes], metadata: Mapping[str, str]) -> list[Result]:
    """Lines of plain text mapped one after the other. The document is the raw content."""
    out: list[Result] = []
    for index, line in enumerate(lines):
        try:
            outcome = compiled.message([Message(line, metadata)])
        except EvaluationError as error:
            out.append((index, error))
            continue
        if not outcome.deleted:
            out.append((index, outcome.content, outcome.metadata))
    return out


def _write(
    output: BinaryIO, numbers: list[int], results: list[Result], *, pretty: bool, meta: bool, raw: bool
) -> int:
    failed = 0
    parts: list[bytes] = []
    for result in results:
        if len(result) == 2:
            failed += 1
            click.echo(f"line {numbers[result[0]]}: {result[1].reason}", err=True)
        elif meta:
            parts.append(_with_metadata(result[1], result[2], pretty=pretty, raw=raw))
        elif pretty:
            parts.append(_indented(result[1]))
        else:
            parts.append(result[1])
    if parts:
        output.write(b"\n".join(parts) + b"\n")
    return failed


def _with_metadata(content: bytes, metadata: Mapping[str, Any], *, pretty: bool, raw: bool) -> bytes:
    document = encode_lines([text(content)])[:-1] if raw else content
    line = b'{"document":' + document + b',"metadata":' + compact(dict(metadata), escape_html=False) + b"}"
    return _indented(line) if pretty else line


def _indented(content: bytes) -> bytes:
    from hub.document import decode

    try:
        return indented(decode(content), "  ", escape_html=False)
    except RecordError:
        return content


def explained(compiled: Compiled) -> str:
    """What a mapping reads and writes, and the Python that it was compiled to."""

    def shown(paths: Iterable[tuple[str, ...]], root: str) -> str:
        return ", ".join(sorted(".".join((root, *path)) for path in paths)) or "nothing"

    return (
        f"reads:  {shown(compiled.reads, 'this')}\n"
        f"writes: {shown(compiled.writes, 'root')}\n\n"
        f"{compiled.source.rstrip()}"
    )
