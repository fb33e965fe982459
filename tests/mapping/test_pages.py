"""The pages of the mapping language: fresh, and every example in the guide true."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hub.mapping import DELETE, EvaluationError, Message, compile
from hub.mapping.pages import pages, signature
from hub.mapping.registry import functions, methods

DOCS = Path(__file__).parents[2] / "docs"
_BLOCKS = re.compile(r"```coffee\n(.*?)```", re.DOTALL)


def test_the_pages_on_disk_are_what_the_declarations_say() -> None:
    for path, text in pages().items():
        assert (DOCS / path).read_text(encoding="utf-8") == text, f"{path}: write it with: hub docs"


def test_every_name_has_its_place_in_one_page() -> None:
    written = "\n".join(pages().values())
    for declared in (*functions().values(), *methods().values()):
        if declared.name not in ("nothing", "var"):
            assert f"`{signature(declared)}`" in written


def _guide() -> list[str]:
    return _BLOCKS.findall((DOCS / "mapping/README.md").read_text(encoding="utf-8"))


def test_the_guide_has_examples() -> None:
    assert len(_guide()) > 10


@pytest.mark.parametrize("block", _guide(), ids=lambda block: re.sub(r"\W+", "-", block[:30]))
def test_an_example_of_the_guide_gives_what_it_says(block: str) -> None:
    mapping = "".join(line + "\n" for line in block.splitlines() if not line.startswith(("# In:", "# Out:")))
    given = re.findall(r"^# In: *(.*)$", block, re.MULTILINE) or ["{}"]
    wanted = re.findall(r"^# Out: *(.*)$", block, re.MULTILINE)
    assert len(given) == len(wanted)
    compiled = compile(mapping)
    for document, answer in zip(given, wanted, strict=True):
        try:
            outcome = compiled.message([Message(document.encode(), {"topic": "orders"})])
        except EvaluationError as error:
            assert f"Error: {error}" == answer
            continue
        if outcome.value is DELETE:
            assert answer == "(dropped)"
            continue
        assert outcome.content is not None
        assert json.loads(outcome.content, parse_float=str) == json.loads(answer, parse_float=str)
