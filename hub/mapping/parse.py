"""Whole mappings, single queries and interpolated text: from text to tree.

`mapping` tries what the engine tries, in its order: `from "file"` alone, a list of statements, one query as
shorthand for `root = query`; if none reads, the one that got furthest is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Final, Protocol

from hub.mapping import tree
from hub.mapping.context import SHARED, Context
from hub.mapping.parse_query import QueryReader
from hub.mapping.reader import (
    NAME,
    Failure,
    ParseError,
    Reading,
    delimited,
    expecting,
    one_of,
    optional,
    required,
)
from hub.mapping.tree import (
    Assign,
    IfBlock,
    Import,
    Interpolation,
    Let,
    MapDefinition,
    Query,
    SetMeta,
    Statement,
)

TEXT_MAX: Final = 1 << 20
"""Characters that a mapping, or a file it imports, may have."""

IMPORTS_MAX: Final = 16
"""Files that import each other in a chain."""

BLOCKS_MAX: Final = 12
"""`if` statements within `if` statements."""


class Importer(Protocol):
    """Finds the text of an imported file by its path from the importing one."""

    def read(self, path: str) -> str: ...
    def beside(self, path: str) -> Importer: ...


class NoImports:
    """For text that may import nothing."""

    def read(self, path: str) -> str:
        raise OSError("imports are disabled in this context")

    def beside(self, path: str) -> NoImports:
        return self


NO_IMPORTS: Final = NoImports()


def mapping(
    text: str, *, context: Context = SHARED, importer: Importer = NO_IMPORTS, file: str = ""
) -> tuple[tree.Mapping, list[int]]:
    """The tree of a mapping, and where `&&` and `||` stand together without parentheses.

    Raises ParseError with the engine's words.
    """
    _limited(text, file)
    reader = MappingReader(text, context, importer)
    try:
        return reader.mapping(), reader.unclear
    except Failure as failure:
        raise reader.error(failure, file) from failure


def query(text: str, *, context: Context = SHARED, file: str = "") -> tuple[Query, list[int]]:
    """The tree of one expression."""
    _limited(text, file)
    reader = MappingReader(text, context, NO_IMPORTS)
    try:
        found, stop = reader.query(0)
        stop = reader.skip(stop, lenient=True)
        if stop < reader.end:
            raise Failure(stop, ("end of input",))
    except Failure as failure:
        raise reader.error(failure, file) from failure
    return found, reader.unclear


def interpolation(text: str, *, context: Context = SHARED, file: str = "") -> tuple[Interpolation, list[int]]:
    """The tree of text with `${! query }` parts; `${{! text }}` is the text `${! text }`."""
    _limited(text, file)
    reader = MappingReader(text, context, NO_IMPORTS)
    try:
        return reader.interpolation(), reader.unclear
    except Failure as failure:
        raise reader.error(failure, file) from failure


def _limited(text: str, file: str) -> None:
    if len(text) > TEXT_MAX:
        raise ParseError(f"a mapping may have {TEXT_MAX} characters at most", text[:80], 0, file)


class MappingReader(QueryReader):
    """Reads statements. `maps` is None inside blocks, where neither maps nor imports may stand."""

    def __init__(self, text: str, context: Context, importer: Importer, chain: int = 0) -> None:
        super().__init__(text, context)
        self.importer = importer
        self.chain = chain
        self.maps: dict[str, MapDefinition] = {}
        self.imports: list[Import] = []
        self._blocks = 0

    def error(self, failure: Failure, file: str = "") -> ParseError:
        message = failure.message(self.text)
        return ParseError(message, self.text, failure.at, file, failure.imported, failure.unknown)

    def mapping(self) -> tree.Mapping:
        whole = self._whole_import()
        if whole is not None:
            return whole
        try:
            return self._statements()
        except Failure as failure:
            if failure.fatal:
                raise
            many = failure
        try:
            return self._shorthand()
        except Failure as one:
            raise (one if one.at > many.at else many) from None

    def _whole_import(self) -> tree.Mapping | None:
        try:
            stop = self.blanks(self.term(self.skip(0), "from"))
            path, stop = self.quoted(stop)
        except Failure as failure:
            if failure.fatal:
                raise
            return None
        found = self._import(path, 0)
        if self.skip(stop, lenient=True) < self.end:
            rest = self.text[self.skip(stop) :]
            raise Failure(0, reason=f"unexpected content after single root import: {rest}")
        return found

    def _import(self, path: str, at: int) -> tree.Mapping:
        if self.chain >= IMPORTS_MAX:
            raise Failure(at, reason=f"imports may be chained {IMPORTS_MAX} deep at most")
        try:
            text = self.importer.read(path)
        except (OSError, ValueError) as error:
            raise Failure(at, reason=f"failed to read import: {error}") from error
        if len(text) > TEXT_MAX:
            raise Failure(at, reason=f"an imported file may have {TEXT_MAX} characters at most")
        reader = MappingReader(text, self.context, self.importer.beside(path), self.chain + 1)
        try:
            return reader._statements()
        except Failure as failure:
            cause = reader.error(failure, path)
            outer = Failure(at, reason=f"failed to parse import '{path}': {cause}")
            outer.imported = cause
            raise outer from failure

    def _statements(self) -> tree.Mapping:
        found: list[Statement] = []
        at = self.skip(0)
        while True:
            statement, at = self._statement(at, top=True)
            if statement is not None:
                found.append(statement)
            at = self.skip_blanks(at)
            if at >= self.end:
                break
            at = self.skip(self.line_break(at, lenient=True), lenient=True)
            if at >= self.end:
                break
        return tree.Mapping(tuple(found), tuple(self.maps.values()), tuple(self.imports), self.text)

    def _shorthand(self) -> tree.Mapping:
        value, stop = self.query(self.skip(0))
        rest = self.skip(stop, lenient=True)
        if rest < self.end:
            head = self.text[self.skip(0) : stop]
            shown = head[:12] + "..." if len(head) > 12 else head
            raise Failure(
                rest,
                (
                    "the mapping to end here as the beginning is shorthand for `root = "
                    f"{shown}`, but this shorthand form cannot be followed with more assignments",
                ),
            )
        return tree.Mapping((Assign((), value, at=0),), text=self.text, shorthand=True)

    def _statement(self, at: int, *, top: bool = False, meta: bool = True) -> Reading[Statement | None]:
        choices: list[Callable[[int], Reading[Statement | None]]] = [
            self._let,
            lambda at: self._meta(at, meta),
            self._assignment,
            self._if_statement,
        ]
        if top:
            choices = [self._import_statement, self._map_definition, *choices]
        return one_of(at, *choices)

    def _import_statement(self, at: int) -> Reading[Statement | None]:
        stop = self.blanks(self.term(at, "import"))
        path, stop = required(lambda at: expecting(self.quoted, at, "filepath"), stop)
        found = self._import(path, at).maps
        if not found:
            raise Failure(at, reason=f"no maps to import from '{path}'")
        collisions = [item.name for item in found if item.name in self.maps]
        if collisions:
            shown = " ".join(collisions)
            raise Failure(at, reason=f"map name collisions from import '{path}': [{shown}]")
        self.maps.update((item.name, item) for item in found)
        self.imports.append(Import(path, at))
        return None, stop

    def _map_definition(self, at: int) -> Reading[Statement | None]:
        stop = self.blanks(self.term(at, "map"))
        name, stop = self._named(stop, "map name")
        statements, stop = self._block(self.blanks(stop), meta=False)
        if name in self.maps:
            raise Failure(at, reason=f"map name collision: {name}")
        self.maps[name] = MapDefinition(name, tuple(statements), self.text, at)
        return None, stop

    def _named(self, at: int, what: str) -> Reading[str]:
        return required(
            lambda at: expecting(
                lambda at: one_of(at, self.quoted, lambda at: self.run(at, NAME, what)), at, what
            ),
            at,
        )

    def _let(self, at: int) -> Reading[Statement | None]:
        stop = self.blanks(expecting(lambda at: self.term(at, "let"), at, "assignment"))
        name, stop = self._named(stop, "variable name")
        value, stop = self._assigned(self.blanks(stop))
        return Let(name, value, at), stop

    def _assigned(self, at: int) -> Reading[Query]:
        return self.query(self.blanks(self.char(at, "=")))

    def _meta(self, at: int, enabled: bool) -> Reading[Statement | None]:
        stop = self.blanks(expecting(lambda at: self.term(at, "meta"), at, "assignment"))
        name, stop = optional(
            lambda at: one_of(at, self.quoted, lambda at: self.run(at, NAME, "range(0 - 9)")), stop
        )
        value, stop = self._assigned(self.skip_blanks(stop))
        if not enabled:
            raise Failure(at, reason="setting meta fields is not allowed within this block")
        return SetMeta(name, value, at), stop

    def _assignment(self, at: int) -> Reading[Statement | None]:
        first, stop = expecting(lambda at: self.run(at, NAME, "assignment"), at, "assignment")
        rest, stop = optional(self._path_rest, stop)
        value, stop = self._assigned(self.blanks(stop))
        path = (first, *(rest or ()))
        bare = path[0] != "root"
        return Assign(path if bare else path[1:], value, bare, at), stop

    def _path_rest(self, at: int) -> Reading[list[str]]:
        found: list[str] = []
        while True:
            at = self.char(at, ".")
            segment, at = expecting(
                lambda at: one_of(at, self.quoted, lambda at: self.run(at, NAME, "target path")),
                at,
                "target path",
            )
            found.append(segment)
            if not self.text.startswith(".", at):
                return found, at

    def _if_statement(self, at: int) -> Reading[Statement | None]:
        stop = self.blanks(expecting(lambda at: self.term(at, "if"), at, "assignment"))
        branch, stop = self._if_block(stop)
        branches: list[tuple[Query | None, tuple[Statement, ...]]] = [branch]
        while True:
            found, stop = optional(self._else_if_block, stop)
            if found is None:
                break
            branches.append(found)
        otherwise, stop = optional(self._else_block, stop)
        if otherwise is not None:
            branches.append((None, otherwise))
        return IfBlock(tuple(branches), at), stop

    def _if_block(self, at: int) -> Reading[tuple[Query | None, tuple[Statement, ...]]]:
        condition, stop = required(self.query, at)
        statements, stop = self._block(self.skip(stop))
        return (condition, tuple(statements)), stop

    def _else_if_block(self, at: int) -> Reading[tuple[Query | None, tuple[Statement, ...]]]:
        return self._if_block(self.blanks(self.term(self.skip(at), "else if")))

    def _else_block(self, at: int) -> Reading[tuple[Statement, ...]]:
        statements, stop = self._block(self.skip(self.term(self.skip(at), "else")))
        return tuple(statements), stop

    def _block(self, at: int, *, meta: bool = True) -> Reading[list[Statement]]:
        start = self.skip(self.char(at, "{"))
        if self._blocks >= BLOCKS_MAX:
            raise Failure(at, reason=f"blocks may be nested {BLOCKS_MAX} deep at most")
        self._blocks += 1
        try:
            found, stop = delimited(
                start,
                lambda at: self._statement(at, meta=meta),
                lambda at: self.skip(self.line_break(self.skip_blanks(at))),
                lambda at: self.char(self.skip(at), "}"),
            )
        finally:
            self._blocks -= 1
        return [statement for statement in found if statement is not None], stop

    # Interpolated text

    def interpolation(self) -> Interpolation:
        parts: list[str | Query] = []
        at = 0
        while at < self.end:
            part, at = one_of(at, self._escaped, self._interpolated, self._dollar, self._plain)
            if isinstance(part, str) and parts and isinstance(parts[-1], str):
                parts[-1] += part
            else:
                parts.append(part)
        return Interpolation(tuple(parts), self.text)

    def _escaped(self, at: int) -> Reading[str | Query]:
        start = self.term(at, "${{!")
        stop = self.text.find("}}", start)
        if stop < 0:
            raise Failure(start, ("end of escaped expression",), "required")
        return "${!" + self.text[start:stop] + "}", stop + 2

    def _interpolated(self, at: int) -> Reading[str | Query]:
        found, stop = required(self.query, self.skip_blanks(self.term(at, "${!")))
        stop = self.skip_blanks(stop)
        if not self.text.startswith("}", stop):
            raise Failure(stop, ("end of expression",), "required")
        return found, stop + 1

    def _dollar(self, at: int) -> Reading[str | Query]:
        return "$", self.char(at, "$")

    def _plain(self, at: int) -> Reading[str | Query]:
        stop = self.text.find("$", at)
        stop = self.end if stop < 0 else stop
        if stop == at:
            raise Failure(at, ("not $",))
        return self.text[at:stop], stop


class Files:
    """Imported files beside a config, given as a dictionary of texts by path: for tests and editors."""

    def __init__(self, texts: dict[str, str], folder: str = ".") -> None:
        self.texts = texts
        self.folder = folder

    def read(self, path: str) -> str:
        name = str(PurePosixPath(self.folder) / path)
        if name not in self.texts:
            raise FileNotFoundError(f"open {name}: no such file or directory")
        return self.texts[name]

    def beside(self, path: str) -> Files:
        return Files(self.texts, str((PurePosixPath(self.folder) / path).parent))
