"""The live prompt of `hub map`: below the mapping that is being typed stands what it makes of the document.

The hard thing is that a mapping half typed may be slow, or not meant. It runs beside the terminal, one at a
time with only the newest text waiting, and it reaches no file: what reads files runs on Enter.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output
from prompt_toolkit.shortcuts import print_formatted_text
from prompt_toolkit.styles import Style

from hub.cli.prompt import HELP, HISTORY_ENTRIES_MAX, Conversation, Shown, shown, word_of
from hub.mapping import Context
from hub.mapping.gojson import compact
from hub.mapping.registry import functions, methods
from hub.mapping.values import Value

PREVIEW_LINES_MAX = 16
"""Lines of a result that show while a mapping is typed; all of them show on Enter."""

PREVIEW_COLUMNS_MAX = 400
"""Characters of such a line. More than a terminal is wide, less than is slow to lay out."""

ROWS_KEPT = 4
"""Rows of the terminal that a preview leaves to the mapping and the document."""

_STYLE = Style.from_dict(
    {"bottom-toolbar": "noreverse", "document": "ansibrightblack", "failed": "ansired", "result": ""}
)


class Preview:
    """Runs mappings on a thread of its own and keeps what the last one came to.

    `want` may be called on every keystroke: a text that waits gives way to a newer one, so that no more than
    one is running and one waiting, whatever they cost. `ready` is called, on that thread, after each.
    """

    def __init__(self, make: Callable[[str], Shown], ready: Callable[[], None]) -> None:
        self._make = make
        self._ready = ready
        self._changed = threading.Condition()
        self._wanted: str | None = None
        self.source = ""
        self.found = Shown("")
        # A daemon, since a mapping cannot be interrupted and leaving must not wait for it.
        threading.Thread(target=self._work, name="hub map preview", daemon=True).start()

    def want(self, source: str) -> None:
        """Ask for what this mapping makes of the document."""
        with self._changed:
            self._wanted = source
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted is not None)
                source, self._wanted = self._wanted or "", None
            self.found, self.source = self._make(source), source
            self._ready()


class LivePrompt:
    """A conversation at a terminal. `input` and `output` are the process's own unless given."""

    def __init__(
        self,
        conversation: Conversation,
        history: Path,
        *,
        input: Input | None = None,
        output: Output | None = None,
    ) -> None:
        self.conversation = conversation
        self.history = history
        self.document = _line(conversation.document)
        self.session: PromptSession[str] = PromptSession(
            "map> ",
            prompt_continuation="...> ",
            completer=_Words(conversation),
            complete_while_typing=False,
            history=InMemoryHistory(remembered(history)),
            key_bindings=_bindings(),
            bottom_toolbar=self.below,
            style=_STYLE,
            input=input,
            output=output,
        )
        self.preview = Preview(self._previewed, self.session.app.invalidate)
        self.session.default_buffer.on_text_changed += lambda buffer: self.preview.want(buffer.text)

    def run(self) -> None:
        """Ask and answer until the conversation is left. Ctrl-C drops what is typed, Ctrl-D leaves."""
        try:
            while not self.conversation.done:
                self.document = _line(self.conversation.document)
                try:
                    answer = self.conversation.answer(self.session.prompt())
                except KeyboardInterrupt:
                    continue
                if answer:
                    print_formatted_text(answer, output=self.session.output)
        except EOFError:
            pass
        finally:
            self._remember()

    def below(self) -> StyleAndTextTuples:
        """What stands under the mapping: the document, and what the mapping makes of it."""
        parts: StyleAndTextTuples = [("class:document", f"document {self.document}")]
        typed = self.session.default_buffer.text
        if not typed.strip():
            return parts
        found, source = self.preview.found, self.preview.source
        waiting = " …" if source != typed else ""
        parts.append(("class:document", f"\n{'─' * 8}{waiting}\n"))
        size = self.session.output.get_size()
        rows = max(min(PREVIEW_LINES_MAX, size.rows - ROWS_KEPT - typed.count("\n")), 1)
        text = cut(wrapped(found.text, max(size.columns, 1)), rows)
        parts.append(("class:failed" if found.failed else "class:result", text))
        return parts

    def _previewed(self, source: str) -> Shown:
        if source.startswith(":"):
            return Shown(HELP)
        conversation = self.conversation
        # Own counters and no files: typing has no effect, and does not wait for a file half named.
        found = shown(source, conversation.document, conversation.metadata, Context(read_file=None))
        text = cut(found.text, PREVIEW_LINES_MAX)
        if found.failed and any(f"{name}(" in source for name in _file_readers()):
            text += "\n(files are read on Enter)"
        return Shown(text, failed=found.failed)

    def _remember(self) -> None:
        entries = self.session.history.get_strings()[-HISTORY_ENTRIES_MAX:]
        try:
            self.history.parent.mkdir(parents=True, exist_ok=True)
            text = "".join(entry.replace("\n", "\\\n") + "\n" for entry in entries)
            self.history.write_text(text, encoding="utf-8", errors="replace")
        except OSError as error:
            print_formatted_text(f"the history could not be kept: {error}", output=self.session.output)


class _Words(Completer):
    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        before = document.text_before_cursor
        word = word_of(before)
        stem = len(word.rpartition(".")[0])
        for name in self.conversation.completions(before):
            yield Completion(name, -len(word), display=name[stem:])


def _bindings() -> KeyBindings:
    """Enter goes on in the next line where a text ends with a backslash, so that the whole mapping stays at hand."""
    bindings = KeyBindings()

    @Condition
    def goes_on() -> bool:
        return get_app().current_buffer.text.endswith("\\")

    @bindings.add("enter", filter=goes_on)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.cursor_position = len(event.current_buffer.text)
        event.current_buffer.delete_before_cursor()
        event.current_buffer.insert_text("\n")

    return bindings


def _line(document: Value) -> str:
    return compact(document, escape_html=False)[:PREVIEW_COLUMNS_MAX].decode("utf-8", "replace")


def remembered(history: Path) -> list[str]:
    """The entries of a file of history, oldest first. Lines that belong together end with a backslash."""
    try:
        text = history.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    entries = [entry.replace("\\\n", "\n") for entry in re.split(r"(?<!\\)\n", text) if entry]
    return entries[-HISTORY_ENTRIES_MAX:]


@cache
def _file_readers() -> frozenset[str]:
    declared = [*functions().values(), *methods().values()]
    return frozenset(found.name for found in declared if "read_file" in found.needs)


def wrapped(text: str, columns: int) -> str:
    """Every line in pieces of at most so many characters; a caret stays below what it points at."""
    lines = text.split("\n")
    pieces = [line[at : at + columns] for line in lines for at in range(0, len(line) or 1, columns)]
    return "\n".join(pieces)


def cut(text: str, lines_max: int) -> str:
    """As much of a text as may show; its last line is `…` when there is more."""
    lines = text.split("\n", lines_max)
    if len(lines) > lines_max:
        lines = [*lines[: lines_max - 1], "…"]
    return "\n".join(line[:PREVIEW_COLUMNS_MAX] for line in lines)
