"""`hub map`, and its prompt without a terminal."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from hub.cli.map import chunks, command
from hub.cli.prompt import Conversation, converse


def hub_map(*arguments: str, given: str | bytes = "") -> Result:
    return CliRunner().invoke(command, arguments, input=given)


def test_lines_are_mapped_and_failures_named_by_their_line() -> None:
    result = hub_map("root.b = this.a + 1", given='{"a":1}\n\n{"a":"x"}\n{"a":3}')
    assert result.stdout == '{"b":2}\n{"b":4}\n'
    assert result.stderr.startswith("line 3: failed assignment (line 1): cannot add types string")
    assert result.exit_code == 1


def test_dropped_records_leave_no_line_and_are_no_failure() -> None:
    result = hub_map("root = if this.a > 1 { deleted() }", given='{"a":1}\n{"a":2}\n')
    assert (result.stdout, result.stderr, result.exit_code) == ('{"a":1}\n', "", 0)


def test_numbers_keep_their_text() -> None:
    line = '{"a":1.10,"b":12345678901234567890,"c":1e400}\n'
    assert hub_map("root = this", given=line).stdout == line


def test_raw_lines_are_texts() -> None:
    assert hub_map("-r", "root = content().uppercase()", given="a b\n\nc\n").stdout == "A B\nC\n"


def test_results_can_be_indented_and_show_their_metadata() -> None:
    result = hub_map("-p", "--meta", "--with-meta", "k=v", "root.a = @k\nmeta n = 1", given="{}\n")
    assert json.loads(result.stdout) == {"document": {"a": "v"}, "metadata": {"k": "v", "n": 1}}
    assert result.stdout.startswith('{\n  "document"')


def test_a_wrong_mapping_is_shown_with_its_place_and_nothing_runs() -> None:
    result = hub_map("root.a = this.b.nope()", given="{}\n")
    assert result.exit_code == 2
    assert "unrecognised method 'nope'" in result.stderr
    assert "^---" in result.stderr


def test_a_mapping_is_read_from_a_file_with_its_imports(tmp_path: Path) -> None:
    (tmp_path / "maps.blobl").write_text("map up {\n  root = this.uppercase()\n}\n")
    (tmp_path / "main.blobl").write_text('import "./maps.blobl"\nroot.a = this.a.apply("up")\n')
    result = hub_map("-f", str(tmp_path / "main.blobl"), given='{"a":"x"}\n')
    assert result.stdout == '{"a":"X"}\n'


def test_explain_prints_paths_and_python() -> None:
    printed = hub_map("--explain", "root.c = this.a.b").stdout
    assert "reads:  this.a.b\nwrites: root.c\n" in printed
    compile_only = printed.split("\n\n", 1)[1]
    compile(compile_only, "<generated>", "exec")


def test_it_wants_exactly_one_mapping() -> None:
    assert hub_map(given="{}\n").exit_code == 2


def test_a_pipe_shows_each_result_at_once() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "from hub.cli import main; main(['map', 'root.b = this.a'])"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(b'{"a":%d}\n' % number)
            process.stdin.flush()
            assert process.stdout.readline() == b'{"b":%d}\n' % number
        process.stdin.close()
        assert process.wait(timeout=30) == 0


class _Dribble(io.RawIOBase):
    """A stream that gives its bytes in pieces of given sizes."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self.data, self.sizes = data, sizes

    def read1(self, _limit: int) -> bytes:
        size = self.sizes.pop() if self.sizes else len(self.data)
        piece, self.data = self.data[:size], self.data[size:]
        return piece


@given(st.lists(st.sampled_from([b"", b"{}", b"[1,2]", b" ", b'"x"'])), st.lists(st.integers(1, 9)))
def test_lines_are_numbered_however_they_arrive(lines: list[bytes], sizes: list[int]) -> None:
    found = [
        (number, line)
        for numbers, chunk in chunks(_Dribble(b"\n".join(lines), sizes))  # type: ignore[arg-type]
        for number, line in zip(numbers, chunk, strict=True)
    ]
    assert found == [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def test_the_prompt_keeps_a_document_and_shows_what_mappings_make_of_it(tmp_path: Path) -> None:
    talk = Conversation()
    assert talk.answer(':doc {"name":"ann","tags":["a"]}') == ""
    assert json.loads(talk.answer("root.n = this.name.uppercase()")) == {"n": "ANN"}
    assert talk.answer("root = this \\") == ""
    assert talk.prompt == "... "
    assert json.loads(talk.answer("root.x = 1"))["x"] == 1
    assert talk.answer(":keep") == ""
    assert "unrecognised method" in talk.answer("root = this.nope()")
    assert talk.answer("root.a = this.name.not_null() + 1").startswith("error: failed assignment")
    assert talk.answer("root = deleted()") == "(the record is dropped)"
    assert "metadata" in talk.answer("meta k = 5")
    assert talk.answer(":doc {").startswith("error: ")
    assert ".slice(low, [high])" in talk.answer(":help slice")
    (tmp_path / "doc.json").write_text('{"z":1}\n')
    assert talk.answer(f":load {tmp_path / 'doc.json'}") == ""
    assert json.loads(talk.answer("root = this")) == {"z": 1}
    assert talk.answer(":quit") == ""
    assert talk.done


def test_the_prompt_completes_functions_methods_and_fields() -> None:
    talk = Conversation()
    talk.answer(':doc {"customer":{"email":"x"}}')
    assert "uuid_v4(" in talk.completions("root.id = uuid")
    assert talk.completions("root.a = this.cust") == ["this.customer"]
    assert talk.completions("root.a = this.customer.em") == ["this.customer.email"]
    assert "this.customer.email.uppercase(" in talk.completions("root.a = this.customer.email.upper")


def test_without_the_live_prompt_readlines_takes_its_place_and_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    monkeypatch.delitem(sys.modules, "hub.cli.live_prompt", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    typed = iter(["root.a = 1", ":quit"])
    monkeypatch.setattr("builtins.input", lambda _: next(typed))
    converse()
    assert capsys.readouterr().out.splitlines()[1:] == [
        "Results show after Enter; to see them as you type: pip install 'hub-etl[repl]'",
        "{",
        '  "a": 1',
        "}",
    ]
