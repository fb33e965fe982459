"""One declaration of options: parsed with every mistake named, described for editors, silent about secrets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from hub.options import Duration, MappingText, Secret, Size
from hub.spec import Path, Spec
from hub.spec_schema import json_schema, options_of


class Commit(Spec, frozen=True, kw_only=True):
    """When to commit."""

    every: Annotated[Duration, Meta(description="How often.")] = Duration(1)
    size: Annotated[Size, Meta(description="How much.")] = Size(1024)


class Example(Spec, frozen=True, kw_only=True):
    """An example.

    With a second paragraph.
    """

    dsn: Annotated[Secret, Meta(description="Where.")]
    tables: Annotated[list[str], Meta(description="What.", min_length=1)]
    mode: Annotated[Literal["upsert", "append"], Meta(description="How.")] = "upsert"
    workers: Annotated[int, Meta(description="How many.", ge=1)] = 1
    commit: Annotated[Commit, Meta(description="When.")] = Commit()
    many: Annotated[list[Commit], Meta(description="Several.")] = []
    mapping: Annotated[MappingText | None, Meta(description="A mapping.")] = None

    def problems(self) -> Iterator[tuple[Path, str]]:
        if self.mode == "append" and self.workers > 1:
            yield ("workers",), "append needs one worker"


def parse(options: object) -> tuple[Example | None, list[tuple[Path, str]]]:
    found: list[tuple[Path, str]] = []
    return Example.parse(options, lambda path, message, **_: found.append((path, message))), found


def test_options_are_converted() -> None:
    made, mistakes = parse(
        {
            "dsn": "postgres://u:secret@h",
            "tables": ["a"],
            "commit": {"every": "1m30s", "size": "32MiB"},
            "many": [{}],
        }
    )
    assert mistakes == []
    assert made is not None
    assert made.dsn.reveal() == "postgres://u:secret@h"
    assert made.commit == Commit(every=Duration(90), size=Size(32 << 20))


def test_every_mistake_is_named_at_its_place() -> None:
    made, mistakes = parse(
        {
            "tabels": 3,
            "mode": "upsrt",
            "workers": 0,
            "commit": {"every": "1x", "evry": 1},
            "many": [{"size": "big"}, 3],
        }
    )
    assert made is None
    assert [path for path, _ in mistakes] == [
        ("tabels",), (), (), ("mode",), ("workers",), ("commit", "evry"), ("commit", "every"), ("many", 0, "size"), ("many", 1),
    ]  # fmt: skip
    texts = dict(mistakes)
    assert "did you mean 'tables'?" in texts["tabels",]
    assert "did you mean 'upsert'?" in texts["mode",]
    assert "missing option 'tables': What." in [text for _, text in mistakes]
    assert texts["commit", "every"] == "expected a duration such as 100ms, 30s, 1h30m or 7d, got '1x'"


def test_mistakes_that_show_only_together_are_named_too() -> None:
    _, mistakes = parse({"dsn": "x", "tables": ["a"], "mode": "append", "workers": 2})
    assert mistakes == [(("workers",), "append needs one worker")]


def test_a_mistake_in_a_mapping_is_named_with_its_place_in_the_text() -> None:
    places = []
    Example.parse(
        {"dsn": "x", "tables": ["a"], "mapping": "root = this\nroot.b = nope()"},
        lambda path, message, inner=None, **_: places.append((path, inner)),
    )
    assert len(places) == 1
    assert places[0][0] == ("mapping",)
    assert places[0][1][0] == 2


def test_no_repr_shows_a_secret() -> None:
    made, _ = parse({"dsn": "hunter2", "tables": ["a"]})
    assert "hunter2" not in repr(made)
    assert "hunter2" not in f"{made.dsn} {made.dsn!r} {[made.dsn]}"  # type: ignore[union-attr]
    assert "***" in repr(made)


def test_the_json_schema_takes_what_parses_and_rejects_what_does_not() -> None:
    validator = jsonschema_rs.Draft202012Validator(json_schema(Example))
    good: dict[str, Any] = {"dsn": "x", "tables": ["a"], "commit": {"every": "5s", "size": 10}}
    assert validator.is_valid(good)
    for change in ({"nope": 1}, {"tables": []}, {"mode": "x"}, {"workers": 0}, {"commit": {"every": "x"}}):
        assert not validator.is_valid(good | change), change
    assert not validator.is_valid({"dsn": "x"})
    assert validator.is_valid(good | {"workers": "${WORKERS:1}"})


def test_every_option_documents_itself() -> None:
    options = {option.name: option for option in options_of(Example)}
    assert options["dsn"].default is None
    assert options["dsn"].type == "secret"
    assert options["commit"].fields[0].name == "every"
    assert options["commit"].fields[0].default == "1s"


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_durations_read_what_they_print(count: int, unit: str) -> None:
    duration = Duration.parse(f"{count}{unit}")
    assert Duration.parse(str(duration)) == pytest.approx(float(duration))


@given(st.integers(0, 1 << 50))
def test_sizes_read_what_they_print(size: int) -> None:
    assert Size.parse(str(Size(size))) == size


@pytest.mark.parametrize("written", ["", "5", "1x", "s", "1s2", "-1s", 5, None, True])
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        Duration.parse(written)
