"""The prompt of `hub map`: a document, and what mappings make of it.

The conversation itself is a plain object that turns a line into an answer; only `converse` knows of a
terminal. Lines are edited, remembered and completed by readline, where Python has it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hub.document import decode
from hub.errors import RecordError
from hub.mapping import DELETE, NOTHING, EvaluationError, Message, ParseError, compile
from hub.mapping.gojson import compact, indented
from hub.mapping.pages import signature
from hub.mapping.registry import functions, methods

HISTORY_LINES_MAX = 2000
HELP = """A mapping shows what it makes of the document. End a line with \\ to go on in the next one.
  :doc JSON        keep another document        :load FILE    keep the first line of a file
  :meta NAME VALUE set metadata                 :keep         keep the last result as the document
  :show            show document and metadata   :help NAME    what a function or method does
  :quit            leave (or Ctrl-D)"""


class Conversation:
    """A document with metadata, and the mappings tried on it."""

    def __init__(self) -> None:
        self.document: Any = {}
        self.metadata: dict[str, Any] = {}
        self.last: Any = None
        self.lines: list[str] = []
        self.done = False

    @property
    def prompt(self) -> str:
        return "... " if self.lines else "map> "

    def answer(self, line: str) -> str:
        """What is shown for a line; nothing while a mapping goes on."""
        if not self.lines and line.startswith(":"):
            return self._order(*line[1:].partition(" ")[::2])
        self.lines.append(line.removesuffix("\\"))
        if line.endswith("\\"):
            return ""
        source, self.lines = "\n".join(self.lines), []
        return self._mapped(source) if source.strip() else ""

    def _mapped(self, source: str) -> str:
        try:
            compiled = compile(source)
            outcome = compiled.message([Message(compact(self.document, escape_html=False), self.metadata)])
        except ParseError as error:
            return error.pretty()
        except EvaluationError as error:
            return f"error: {error}"
        if outcome.value is DELETE:
            return "(the record is dropped)"
        self.last = self.document if outcome.value is NOTHING else outcome.value
        warnings = [f"warning: {warning}" for warning in compiled.warnings]
        changed = outcome.metadata != self.metadata
        shown = [f"metadata: {_json(dict(outcome.metadata))}"] if changed else []
        return "\n".join([*warnings, _json(self.last), *shown])

    def _order(self, name: str, rest: str) -> str:
        rest = rest.strip()
        orders: dict[str, Callable[[str], str]] = {
            "doc": self._doc,
            "load": self._load,
            "meta": self._meta,
            "keep": self._keep,
            "show": lambda _: f"{_json(self.document)}\nmetadata: {_json(self.metadata)}",
            "help": self._help,
            "quit": self._quit,
            "q": self._quit,
        }
        order = orders.get(name)
        return order(rest) if order is not None else f"no such order: :{name}\n{HELP}"

    def _doc(self, rest: str) -> str:
        try:
            self.document = decode(rest.encode())
        except RecordError as error:
            return f"error: {error.reason}"
        return ""

    def _load(self, rest: str) -> str:
        try:
            with Path(rest).expanduser().open(encoding="utf-8") as file:
                return self._doc(file.readline())
        except (OSError, UnicodeDecodeError) as error:
            return f"error: {error}"

    def _meta(self, rest: str) -> str:
        name, _, value = rest.partition(" ")
        if not name:
            return "error: :meta takes a name and a value"
        self.metadata[name] = value.strip()
        return ""

    def _keep(self, _rest: str) -> str:
        self.document = self.last
        return ""

    def _help(self, rest: str) -> str:
        if not rest:
            return HELP
        found = [table[rest] for table in (functions(), methods()) if rest in table]
        if not found:
            return f"no function or method is called {rest}"
        return "\n".join(f"{signature(declared)}\n  {declared.doc}" for declared in found)

    def _quit(self, _rest: str) -> str:
        self.done = True
        return ""

    def completions(self, before: str) -> list[str]:
        """Whole words that could stand for the last one: methods and fields after a dot, else functions."""
        start = max(before.rfind(char) for char in " ()[]{},+-*/%=!<>|&\t") + 1
        word = before[start:]
        stem, dot, last = word.rpartition(".")
        if not dot:
            names = [f"{name}(" for name in functions()] + [
                "this",
                "root",
                "deleted()",
                "match",
                "if",
                "let",
                "meta",
            ]
            return sorted({name for name in names if name.startswith(last)})
        names = [f"{name}(" for name in methods()]
        value = self.document
        for segment in stem.split(".")[1:]:
            value = value.get(segment) if isinstance(value, dict) else None
        if isinstance(value, dict):
            names += [key for key in value if key.isidentifier()]
        return sorted(f"{stem}.{name}" for name in names if name.startswith(last))


def _json(value: Any) -> str:
    return indented(value, "  ", escape_html=False).decode("utf-8", "replace")


def converse() -> None:
    """A conversation on the terminal, until it is left."""
    conversation = Conversation()
    save = _edited(conversation)
    print("A document is kept, mappings show what they make of it; :help tells more.")
    try:
        while not conversation.done:
            found = conversation.answer(input(conversation.prompt))
            if found:
                print(found)
    except (EOFError, KeyboardInterrupt):
        print()
    finally:
        save()


def _edited(conversation: Conversation) -> Callable[[], None]:
    """Turns on editing, history and completion; answers with what saves the history."""
    try:
        import readline
    except ImportError:
        return lambda: None
    folder = Path(os.environ.get("XDG_STATE_HOME", "~/.local/state")).expanduser() / "hub"
    history = folder / "map_history"
    if history.exists():
        readline.read_history_file(history)
    readline.set_history_length(HISTORY_LINES_MAX)
    readline.set_completer_delims(" ()[]{},+-*/%=!<>|&\t")

    def complete(_word: str, state: int) -> str | None:
        found = conversation.completions(readline.get_line_buffer()[: readline.get_endidx()])
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")

    def save() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(history)
        except OSError as error:
            print(f"the history could not be kept: {error}")

    return save
