"""The prompt of `hub map`: a document, and what mappings make of it.

The conversation itself is a plain object that turns a line into an answer; only `converse` knows of a
terminal. Where prompt_toolkit is installed the answer shows while the mapping is typed; elsewhere lines are
edited, remembered and completed by readline, where Python has it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.document import decode
from hub.errors import RecordError
from hub.mapping import DELETE, NOTHING, Context, EvaluationError, Message, ParseError, compile
from hub.mapping.context import SHARED
from hub.mapping.gojson import compact, indented
from hub.mapping.pages import signature
from hub.mapping.registry import functions, methods
from hub.nearest import did_you_mean

HISTORY_ENTRIES_MAX = 2000
DELIMITERS = " ()[]{},+-*/%=!<>|&\t\n"
"""What ends the word that is completed."""

GREETING = ":doc JSON keeps a document, mappings show what they make of it; :help tells more."
HELP = """A mapping shows what it makes of the document. End a line with \\ to go on in the next one.
  :doc JSON        keep another document        :load FILE    keep the first line of a file
  :meta NAME VALUE set metadata                 :keep         keep the last result as the document
  :show            show document and metadata   :help NAME    what a function or method does
  :quit            leave (or Ctrl-D)"""


@dataclass(frozen=True, slots=True)
class Shown:
    """What became of a mapping: its text for people, and the new document, NOTHING when there is none."""

    text: str
    failed: bool = False
    value: Any = NOTHING


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
        found = shown(source, self.document, self.metadata)
        if found.value is not NOTHING:
            self.last = found.value
        return found.text

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
        return (
            order(rest)
            if order is not None
            else f"no such order: :{name}{did_you_mean(name, orders)}\n{HELP}"
        )

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
        self.metadata = {**self.metadata, name: value.strip()}
        return ""

    def _keep(self, _rest: str) -> str:
        self.document = self.last
        return ""

    def _help(self, rest: str) -> str:
        if not rest:
            return HELP
        found = [table[rest] for table in (functions(), methods()) if rest in table]
        if not found:
            return f"no function or method is called {rest!r}{did_you_mean(rest, [*functions(), *methods()])}"
        return "\n".join(f"{signature(declared)}\n  {declared.doc}" for declared in found)

    def _quit(self, _rest: str) -> str:
        self.done = True
        return ""

    def completions(self, before: str) -> list[str]:
        """Whole words that could stand for the last one: methods and fields after a dot, else functions."""
        word = word_of(before)
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


def word_of(before: str) -> str:
    """The word at the end of what is typed, which a completion replaces."""
    return before[max(before.rfind(char) for char in DELIMITERS) + 1 :]


def shown(source: str, document: Any, metadata: Mapping[str, Any], context: Context = SHARED) -> Shown:
    """What a mapping makes of a document, or why it makes nothing of it."""
    try:
        compiled = compile(source, context=context)
        outcome = compiled.message([Message(compact(document, escape_html=False), metadata)])
    except ParseError as error:
        return Shown(error.pretty(), failed=True)
    except EvaluationError as error:
        return Shown(f"error: {error}", failed=True)
    if outcome.value is DELETE:
        return Shown("(the record is dropped)")
    value = document if outcome.value is NOTHING else outcome.value
    lines = [f"warning: {warning}" for warning in compiled.warnings]
    try:
        lines.append(_json(value))
    except EvaluationError as error:
        return Shown(f"error: {error}", failed=True)
    if outcome.metadata != metadata:
        lines.append(f"metadata: {_json(dict(outcome.metadata))}")
    return Shown("\n".join(lines), value=value)


def _json(value: Any) -> str:
    return indented(value, "  ", escape_html=False).decode("utf-8", "replace")


def converse() -> None:
    """A conversation on the terminal, until it is left: the live prompt where it can be had, else readline's."""
    conversation = Conversation()
    history = Path(os.environ.get("XDG_STATE_HOME", "~/.local/state")).expanduser() / "hub"
    print(GREETING)
    if sys.stdout.isatty():
        try:
            from hub.cli.live_prompt import LivePrompt
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith("prompt_toolkit"):
                raise
            print("Results show after Enter; to see them as you type: pip install 'hub-etl[repl]'")
        else:
            LivePrompt(conversation, history / "map_live_history").run()
            return
    save = _edited(conversation, history / "map_history")
    try:
        while not conversation.done:
            found = conversation.answer(input(conversation.prompt))
            if found:
                print(found)
    except (EOFError, KeyboardInterrupt):
        print()
    finally:
        save()


def _edited(conversation: Conversation, history: Path) -> Callable[[], None]:
    """Turns on editing, history and completion; answers with what saves the history."""
    try:
        import readline
    except ImportError:
        return lambda: None
    if history.exists():
        readline.read_history_file(history)
    readline.set_history_length(HISTORY_ENTRIES_MAX)
    readline.set_completer_delims(DELIMITERS)

    def complete(_word: str, state: int) -> str | None:
        found = conversation.completions(readline.get_line_buffer()[: readline.get_endidx()])
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")

    def save() -> None:
        try:
            history.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(history)
        except OSError as error:
            print(f"the history could not be kept: {error}")

    return save
