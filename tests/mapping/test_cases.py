"""The cases recorded on the real engines, when they are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.mapping import cases

SHARED = Path(__file__).parents[3] / "shared" / "conformance" / "bloblang"

AS_DESIGNED = {
    "root.a = 1 # c",  # a comment may end the text
    'root.v = this.v.set("a", 9)',  # a method of another engine, taken in as well
}
"""Mappings that the engine refuses and this language allows on purpose."""


@pytest.mark.parametrize(("name", "share"), [("documented", 1.0), ("language", 0.995), ("sweep", 0.995)])
def test_recorded_cases_have_the_recorded_outcome(name: str, share: float) -> None:
    path = SHARED / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"the recorded cases are not there: {path}")
    verdicts = [cases.judge(case) for case in cases.read(path)]
    alike = sum(verdict.passed or verdict.same_kind for verdict in verdicts)
    exact = sum(verdict.passed for verdict in verdicts)
    failed = [f"{v.id}\n  expected {v.expected}\n  got      {v.found}" for v in verdicts if not v.passed]
    shown = "\n".join(failed[:20])
    assert alike / len(verdicts) >= share, shown
    assert exact / len(verdicts) >= min(share, 0.99), shown


@pytest.mark.parametrize("text", sorted(AS_DESIGNED))
def test_what_is_allowed_on_purpose_compiles(text: str) -> None:
    from hub.mapping import compile

    assert compile(text).tree
