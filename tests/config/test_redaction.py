"""Secrets in texts."""

from __future__ import annotations

import pytest

from hub.config import loads
from hub.redaction import Redactor


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        ("hunter2-hunter2", "login hunter2-hunter2 failed", "login *** failed"),
        ("a.*b+c", "the a.*b+c and aXXbc", "the *** and aXXbc"),
        ("abc", "abc in abcde, (abc)", "*** in abcde, (***)"),
        (
            "postgres://bob:p%40ssword@db/x",
            "password p@ssword or p%40ssword for bob",
            "password *** or *** for bob",
        ),
        ("host=db password='it\\'s long' user=bob", "no it's long", "no ***"),
        ("host=db password=longlong", "longlong at db", "*** at db"),
        ("", "nothing", "nothing"),
    ],
)
def test_a_secret_and_the_password_in_it_are_taken_out(secret: str, text: str, shown: str) -> None:
    assert Redactor([secret])(text) == shown


@pytest.mark.usefixtures("acme")
def test_every_secret_of_a_config_is_known_and_none_is_printed() -> None:
    catalog = loads(
        "captures: {shop: {feed: {url: u, login: {user: bob, password: '${PW}'}}}}\n"
        "server: {token: topsecret}",
        environ={"PW": "hunter2-hunter2"},
    )
    assert catalog.redact("hunter2-hunter2 and topsecret") == "*** and ***"
    assert "hunter2" not in repr(catalog)
    assert "topsecret" not in repr(catalog)
