"""Expressions with and without groups, templates, and text that is not ASCII."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub.mapping.methods.regexes import _re_find_all, _re_find_all_submatch, _re_match, _replace_all

_PATTERNS = ["(a|ab)(c|bcd)?", "(x*)(y*)", "(?i)(A)b|(é)", "^(a)?", "((b)c|b)+$", r"\b(\w+)"]
_TEXTS = st.text(alphabet="abcdxyé ", max_size=12)


@given(st.sampled_from(_PATTERNS), _TEXTS)
def test_matches_are_the_same_with_their_groups_and_without(pattern: str, value: str) -> None:
    whole = [found[0] for found in _re_find_all_submatch(pattern)(value)]
    assert _re_find_all(pattern)(value) == whole
    assert _re_match(pattern)(value) is bool(whole)


@given(st.sampled_from(_PATTERNS), _TEXTS)
def test_each_match_replaced_with_itself_changes_nothing(pattern: str, value: str) -> None:
    assert _replace_all(pattern, "$0")(value) == value


def test_a_group_that_took_no_part_is_nothing() -> None:
    assert _replace_all("(a)|(b)", "<$1$2>$$")("ab") == "<a>$<b>$"
    assert _replace_all("(a)|(b)", "-")("xaby") == "x--y"
