"""Every example of every function and method gives what the documentation says."""

from __future__ import annotations

import json

import pytest

from hub.mapping import DELETE, EvaluationError, Message, compile
from hub.mapping.compiled import content_of
from hub.mapping.registry import Declaration, Example, functions, methods

_DECLARED = [*functions().values(), *methods().values()]
_EXAMPLES = [
    pytest.param(declared, example, id=f"{declared.name}-{index}")
    for declared in _DECLARED
    for index, example in enumerate(declared.examples)
]


def _exact(text: str) -> object:
    return json.loads(text, parse_float=str, parse_int=str)


@pytest.mark.parametrize(("declared", "example"), _EXAMPLES)
def test_an_example_gives_what_it_says(declared: Declaration, example: Example) -> None:
    if declared.missing:
        pytest.skip(f"{declared.name} needs the package {declared.missing}")
    for given, wanted in example.pairs:
        compiled = compile(example.mapping)
        try:
            outcome = compiled.message([Message(given.encode())])
        except EvaluationError as error:
            assert f"Error: {error}" == wanted
            continue
        if outcome.value is DELETE:
            assert wanted == "(deleted)"
            continue
        found = content_of(outcome.value).decode() if outcome.content is None else outcome.content.decode()
        assert _exact(found) == _exact(wanted)


@pytest.mark.parametrize("declared", _DECLARED, ids=lambda declared: declared.name)
def test_everything_is_described(declared: Declaration) -> None:
    assert declared.doc.endswith(".")
    assert declared.category
    for param in declared.params:
        assert param.doc.endswith("."), param.name
