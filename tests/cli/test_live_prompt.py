"""The live prompt of `hub map`, on a pipe instead of a terminal."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from hub.cli.live_prompt import LivePrompt, Preview, cut, remembered, wrapped
from hub.cli.prompt import Conversation, Shown

LEAVE = "\x04"
TAB = "\t"
UP = "\x1b[A"
CTRL_C = "\x03"


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe:
        yield pipe


def live(keys: PipeInput, folder: Path) -> LivePrompt:
    conversation = Conversation()
    conversation.answer(':doc {"name":"ann","tags":["a"]}')
    return LivePrompt(conversation, folder / "kept" / "history", input=keys, output=DummyOutput())


def below(prompt: LivePrompt) -> str:
    return "".join(part[1] for part in prompt.below())


def when(prompt: LivePrompt, holds: Callable[[str], bool], then: Callable[[], None]) -> None:
    """Do something once, as soon as what stands below the mapping is as wanted."""
    pending = [then]

    def look(_: object) -> None:
        if pending and holds(below(prompt)):
            pending.pop()()

    prompt.session.app.after_render += look


def test_the_result_shows_before_enter_is_pressed(keys: PipeInput, tmp_path: Path) -> None:
    prompt = live(keys, tmp_path)
    seen: list[str] = []

    def leave() -> None:
        seen.append(below(prompt))
        keys.send_text(CTRL_C + LEAVE)

    when(prompt, lambda text: "ANN" in text, leave)
    keys.send_text("root.n = this.name.uppercase()")
    prompt.run()
    assert seen[0].startswith('document {"name":"ann","tags":["a"]}\n')
    assert seen[0].endswith('\n{\n  "n": "ANN"\n}')
    assert prompt.conversation.last is None


def test_a_mistake_shows_with_a_caret_and_goes_away_when_mended(keys: PipeInput, tmp_path: Path) -> None:
    prompt = live(keys, tmp_path)
    when(prompt, lambda text: "^---" in text, lambda: keys.send_text(")"))
    when(prompt, lambda text: '"n": 1' in text, lambda: keys.send_text(CTRL_C + LEAVE))
    keys.send_text("root.n = this.tags.length(")
    prompt.run()


def test_enter_answers_and_the_answer_stays(
    keys: PipeInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = live(keys, tmp_path)
    printed: list[str] = []
    monkeypatch.setattr("hub.cli.live_prompt.print_formatted_text", lambda text, **_: printed.append(text))
    keys.send_text("root.a = this.name\r:keep\rroot.b = this.a\r" + LEAVE)
    prompt.run()
    assert [json.loads(text) for text in printed] == [{"a": "ann"}, {"b": "ann"}]


def test_a_backslash_goes_on_in_the_next_line_and_history_keeps_it_whole(
    keys: PipeInput, tmp_path: Path
) -> None:
    prompt = live(keys, tmp_path)
    keys.send_text("root = this\\\rroot.x = 1\r" + LEAVE)
    prompt.run()
    assert prompt.conversation.last == {"name": "ann", "tags": ["a"], "x": 1}
    assert remembered(prompt.history) == ["root = this\nroot.x = 1"]
    again = live(keys, tmp_path)
    keys.send_text(UP + "2\r" + LEAVE)
    again.run()
    assert again.conversation.last["x"] == 12


def test_tab_completes_the_field_or_method(keys: PipeInput, tmp_path: Path) -> None:
    prompt = live(keys, tmp_path)
    when(
        prompt,
        lambda _: "this.name" in prompt.session.default_buffer.text,
        lambda: keys.send_text("\r" + LEAVE),
    )
    keys.send_text("root.n = this.nam" + TAB)
    prompt.run()
    assert prompt.conversation.last == {"n": "ann"}


def test_typing_reads_no_file_and_says_when_files_are_read(keys: PipeInput, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("text")
    prompt = live(keys, tmp_path)
    when(prompt, lambda text: "files are read on Enter" in text, lambda: keys.send_text("\r" + LEAVE))
    keys.send_text(f'root.t = file("{tmp_path / "a"}").string()')
    prompt.run()
    assert prompt.conversation.last == {"t": "text"}


def test_of_mappings_that_wait_for_a_slow_one_only_the_newest_runs() -> None:
    started, goes_on, done = threading.Event(), threading.Event(), threading.Event()
    ran: list[str] = []

    def make(source: str) -> Shown:
        ran.append(source)
        started.set()
        assert goes_on.wait(60)
        return Shown(source)

    preview = Preview(make, lambda: done.set() if preview.source == "newest" else None)
    preview.want("slow")
    assert started.wait(60)
    for source in ("a", "b", "newest"):
        preview.want(source)
    goes_on.set()
    assert done.wait(60)
    assert ran == ["slow", "newest"]
    assert preview.found.text == "newest"


def test_what_shows_is_bounded() -> None:
    assert cut("a\nb\nc", 3) == "a\nb\nc"
    assert cut("a\nb\nc\nd", 3) == "a\nb\n…"
    assert len(cut("x" * 10_000, 3)) == 400
    assert wrapped("abcde\n\n  ^", 2) == "ab\ncd\ne\n\n  \n^"


def test_a_history_that_cannot_be_kept_is_said(
    keys: PipeInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").write_text("a file where a folder should be")
    printed: list[str] = []
    monkeypatch.setattr("hub.cli.live_prompt.print_formatted_text", lambda text, **_: printed.append(text))
    prompt = live(keys, tmp_path)
    keys.send_text(LEAVE)
    prompt.run()
    assert printed[0].startswith("the history could not be kept: ")
