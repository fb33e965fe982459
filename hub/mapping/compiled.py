"""A mapping ready to run, and how it is made from text.

Parsing and generating happen here once; `run` hands a whole batch to one generated function. The function
exists in two forms, the second, for messages that are no JSON, made when the first such message comes.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Dictionary
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hub.document import DocumentError
from hub.errors import RecordError
from hub.mapping import analysis, generate, lints, parse
from hub.mapping import tree as trees
from hub.mapping.context import SHARED, Context
from hub.mapping.gojson import compact
from hub.mapping.importing import FolderImporter
from hub.mapping.lints import Warning_
from hub.mapping.output import rebuilt
from hub.mapping.parse import NO_IMPORTS, Importer
from hub.mapping.reader import ParseError
from hub.mapping.runtime import field_text, prefixed
from hub.mapping.state import Message, Messages, OneValue, Records, State, Unparsed, parsed
from hub.mapping.values import DELETE, NOTHING, EvaluationError, NoContext, Value
from hub.record import Batch

Kind = Literal["mapping", "mutation", "query", "field"]


class Outcome(NamedTuple):
    """What became of one message.

    `value` is the new document, DELETE when the message is dropped, NOTHING when it stays as it was.
    """

    value: Value
    metadata: Dictionary[str, Value]
    content: bytes | None

    @property
    def deleted(self) -> bool:
        return self.value is DELETE


@dataclass(frozen=True)
class Compiled:
    """A compiled mapping, mutation, query or interpolated text. Immutable; may be used by many threads.

    `tree` is its syntax tree; `warnings` are the lints it raises; `reads` and `writes` are the paths of
    documents it touches, as tuples of segments.
    """

    kind: Kind
    tree: trees.Mapping | trees.Interpolation | trees.Query
    context: Context
    text: str
    warnings: tuple[Warning_, ...] = ()

    @cached_property
    def reads(self) -> frozenset[tuple[str, ...]]:
        """Paths of the document that may be read; `()` stands for the whole."""
        return analysis.reads(self.tree)

    @cached_property
    def writes(self) -> frozenset[tuple[str, ...]]:
        """Paths of the new document that may be assigned; `()` stands for the whole."""
        found = analysis.writes(self.tree)
        return found | {()} if self.kind == "mutation" else found

    def source_of(self, field: str) -> str | None:
        """The top-level field of the source whose untouched value this output field always is, if any."""
        return analysis.source_of(self.mapping, field, mutation=self.kind == "mutation")

    def project(self, fields: Sequence[str]) -> Compiled:
        """The same mapping reduced to the statements that these output fields, metadata and the flow of
        control depend on: for records of which only the key is known."""
        reduced = analysis.projected(self.mapping, fields, mutation=self.kind == "mutation")
        return Compiled(self.kind, reduced, self.context, self.text)

    @property
    def mapping(self) -> trees.Mapping:
        """The tree of a mapping or mutation."""
        assert isinstance(self.tree, trees.Mapping), "queries and fields have no statements"
        return self.tree

    @property
    def source(self) -> str:
        """The generated Python, for `--explain`."""
        return self._generated(structured=True).source

    # Batches

    def run(self, batch: Batch) -> Batch:
        """The batch mapped; dropped records are left out. Records that fail keep their original document and
        are flagged in `errors` with a RecordError."""
        return self.run_indexed(batch)[0]

    def run_indexed(self, batch: Batch) -> tuple[Batch, Sequence[int]]:
        """The batch mapped, and for each record that came out the index at which it went in."""
        with without_collection():
            return self._mapped(batch)

    def _mapped(self, batch: Batch) -> tuple[Batch, Sequence[int]]:
        docs, unparsed = _documents(batch)
        state = Records(batch, docs)
        results, failed, metas, odd = self._structured(state)
        for index in unparsed:
            one = Records(batch, docs)
            one.docs, one.first = [docs[index]], index
            result, failure, meta, _ = self._loose(one)
            results[index] = result[0]
            odd.append(index)
            failed.pop(index, None)
            failed.update(failure)
            if metas is not None and meta is not None:
                metas[index] = meta[0]
        errors = dict(batch.errors or {})
        for index, (line, error) in failed.items():
            errors[index] = self._failure(line, error, docs[index])
        return rebuilt(batch, docs, results, errors, metas, failed, frozenset(unparsed), odd)

    def values(self, batch: Batch) -> list[Value | RecordError]:
        """A query's value for each record, or its error."""
        assert self.kind == "query"
        docs, _ = _documents(batch)
        return self._resulting(Records(batch, docs))

    def resolve(self, batch: Batch) -> str | list[str | RecordError]:
        """Interpolated text for a batch: one string when it is the same for all records (constant, or
        made of shared metadata only), else one for each record, or its error."""
        assert isinstance(self.tree, trees.Interpolation)
        found = self._constant
        if found is not None:
            return found
        alike = self._shared_names
        docs: Sequence[Any]
        if alike is not None and batch.count and alike.isdisjoint(batch.columns):
            state = Records(batch, [None])
            results, failed, _, _ = self._structured(state)
            if not failed:
                return str(results[0])
        docs = [None] * batch.count if not self.reads else _documents(batch)[0]
        return self._resulting(Records(batch, docs))

    def _resulting(self, state: State) -> list[Any]:
        results: list[Any]
        results, failed, _, _ = self._structured(state)
        for index, (line, error) in failed.items():
            results[index] = self._failure(line, error, state.docs[index])
        return results

    @cached_property
    def _constant(self) -> str | None:
        assert isinstance(self.tree, trees.Interpolation)
        parts = []
        for part in self.tree.parts:
            found = part if isinstance(part, str) else trees.literal_of(part)
            if found is None:
                return None
            parts.append(found if isinstance(found, str) else field_text(found.value))
        return "".join(parts)

    @cached_property
    def _shared_names(self) -> frozenset[str] | None:
        """The metadata names it is made of, when it is made of nothing else that differs by record."""
        return analysis.metadata_only(self.tree)

    # Single messages

    def query(self, message: Message | Value = None) -> Value:
        """The value of a query, or the new document of a mapping, for one message or one bare value.

        DELETE and NOTHING stand for themselves. Raises EvaluationError.
        """
        if isinstance(message, Message):
            return self.message([message]).value
        return self._one(OneValue(message))[0]

    value_of = query

    def message(self, messages: Sequence[Message], index: int = 0) -> Outcome:
        """One message of several mapped, with its metadata and content afterwards. Raises EvaluationError."""
        state = Messages(messages, index)
        value, meta = self._one(state)
        metadata = state.metadata(state.first) if meta is None else meta
        if value is NOTHING and self.kind in ("mapping", "mutation"):
            return Outcome(value, metadata, state.content(state.first) if state.count else b"")
        return Outcome(value, metadata, None if value is DELETE else content_of(value))

    def _one(self, state: State) -> tuple[Value, Dictionary[str, Value] | None]:
        [document] = state.docs
        run = self._loose if type(document) is Unparsed else self._structured
        results, failed, metas, _ = run(state)
        if failed:
            [(line, error)] = failed.values()
            raise self._failure(line, error, document)
        return results[0], metas[0] if metas is not None else None

    def _failure(self, line: int, error: RecordError, document: Any) -> EvaluationError:
        if self.kind in ("query", "field"):
            return prefixed(error, "")
        if isinstance(error, NoContext):
            why = document.why if type(document) is Unparsed else "message is empty"
            why = why if why == "message is empty" else f"parse as json: {why}"
            wanted = f"this.{error.field}" if error.field else "this"
            return EvaluationError(
                f"failed assignment (line {line}): unable to reference message as structured (with '{wanted}'): {why}"
            )
        return prefixed(error, f"failed assignment (line {line}): ")

    # Generated functions

    @cached_property
    def _structured(self) -> Any:
        return self._generated(structured=True).function()

    @cached_property
    def _loose(self) -> Any:
        return self._generated(structured=False).function()

    def _generated(self, *, structured: bool) -> generate.Generated:
        match self.tree:
            case trees.Mapping():
                return generate.generate(
                    self.tree, self.context, mutation=self.kind == "mutation", structured=structured
                )
            case trees.Interpolation():
                return generate.generate_text(self.tree, self.context, structured=structured)
            case _:
                return generate.generate_query(self.tree, self.context, structured=structured)


def compile(
    text: str,
    kind: Kind = "mapping",
    *,
    context: Context = SHARED,
    file: str = "",
    imports_root: str | Path | None = None,
    importer: Importer | None = None,
    schema: Dictionary[str, Any] | None = None,
) -> Compiled:
    """Parses and compiles. Raises ParseError with line, column and what was expected.

    `file` names the text in errors, and is where imports are found beside; they never leave
    `imports_root` (by default the file's folder). Without either nothing can be imported. `schema` is the
    JSON Schema of the documents, if known: paths that it rules out become warnings.
    """
    if importer is None:
        root = imports_root if imports_root is not None else context.root
        if root is None and file:
            root = Path(file).parent
        folder = Path(file).parent if file else root
        importer = NO_IMPORTS if root is None or folder is None else FolderImporter(Path(folder), Path(root))
    try:
        return _compiled(text, kind, context, file, importer, schema)
    except RecursionError:
        raise ParseError("the mapping is nested too deep", text, 0, file) from None


def _compiled(
    text: str,
    kind: Kind,
    context: Context,
    file: str,
    importer: Importer,
    schema: Dictionary[str, Any] | None,
) -> Compiled:
    found: trees.Mapping | trees.Interpolation | trees.Query
    if kind in ("mapping", "mutation"):
        found, unclear = parse.mapping(text, context=context, importer=importer, file=file)
    elif kind == "field":
        found, unclear = parse.interpolation(text, context=context, file=file)
    else:
        found, unclear = parse.query(text, context=context, file=file)
    made = Compiled(kind, found, context, text, lints.warnings(found, text, unclear, schema))
    try:
        _ = made._structured
    except EvaluationError as error:
        raise ParseError(str(error), text, 0, file) from error
    return made


def content_of(value: Value) -> bytes:
    """A new document as the raw content of a message: text as it is, everything else as JSON."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if value is NOTHING or value is DELETE:
        return b"null"
    return compact(value, escape_html=False)


@contextmanager
def without_collection() -> Iterator[None]:
    """Leaves the cyclic garbage collector out of a batch: documents hold no cycles, and walking the
    thousands that are alive costs more than mapping them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _documents(batch: Batch) -> tuple[Sequence[Any], list[int]]:
    """The documents of a batch; lines that are no JSON stand in it as `Unparsed`, at these indexes."""
    try:
        return batch.docs, []
    except DocumentError:
        pass
    docs = [parsed(line) for line in batch.lines()]
    return docs, [index for index, doc in enumerate(docs) if type(doc) is Unparsed]
