"""Connectors by name."""

from __future__ import annotations

import sys

import pytest

from hub.registry import Entry, Unavailable, arranged, connector, entries


@pytest.mark.usefixtures("acme")
def test_connectors_of_any_distribution_are_listed_without_importing_them() -> None:
    sys.modules.pop("acme_connectors", None)
    assert entries("capture")["feed"].distribution == "acme-connectors"
    assert "acme_connectors" not in sys.modules


@pytest.mark.usefixtures("acme")
def test_a_connector_is_imported_by_name() -> None:
    assert connector("materialization", "shelf").__name__ == "ShelfMaterialization"


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fed", "unknown capture 'fed'; did you mean 'feed'?"),
        ("radio", "needs the module 'acme_antenna'; install it with: pip install 'acme-broken[radio]'"),
        ("gone", "needs the module 'acme_gone'; reinstall it: pip install --force-reinstall acme-broken"),
        ("wrong", "is no Capture"),
    ],
)
def test_a_connector_that_cannot_be_had_says_what_mends_it(name: str, message: str) -> None:
    with pytest.raises(Unavailable) as caught:
        connector("capture", name)
    assert message in str(caught.value)


def test_one_name_offered_twice_is_an_error_that_names_both() -> None:
    ours = Entry("capture", "feed", "a:A", (), "hub-etl")
    theirs = Entry("capture", "feed", "b:B", (), "acme")
    with pytest.raises(Unavailable, match=r"a:A of hub-etl and b:B of acme; uninstall one of them"):
        arranged([ours, theirs])


def test_the_same_entry_seen_twice_is_one() -> None:
    ours = Entry("capture", "feed", "a:A", (), "hub-etl")
    assert arranged([ours, ours]) == {"feed": ours}
