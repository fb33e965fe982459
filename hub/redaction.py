"""Secrets are taken out of every text that people see.

A driver's error may quote the password it was given, so redaction works on texts, not on options:
whatever a `Secret` option held is replaced wherever it turns up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote, urlsplit

import msgspec

from hub.options import Secret

SHOWN = "***"

WHOLE_WORDS_BELOW = 6
"""A shorter secret is only replaced where it stands alone, or a password `a` would blot out every text."""

_CONNINFO_PASSWORD = re.compile(r"\bpassword\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S+))", re.IGNORECASE)


class Redactor:
    """Replaces every secret in a text by `***`."""

    __slots__ = ("_pattern", "_secrets")

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = {part for secret in secrets for part in _parts(secret) if part.strip()}
        alternatives = [_alternative(secret) for secret in sorted(self._secrets, key=len, reverse=True)]
        self._pattern = re.compile("|".join(alternatives)) if alternatives else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub(SHOWN, text) if self._pattern else text

    def __repr__(self) -> str:
        return f"Redactor({len(self._secrets)} secrets)"


def secrets_of(options: object) -> Iterable[str]:
    """The text of every `Secret` in a spec, however deep."""
    if isinstance(options, Secret):
        yield options.reveal()
    elif isinstance(options, msgspec.Struct):
        for name in options.__struct_fields__:
            yield from secrets_of(getattr(options, name))
    elif isinstance(options, Mapping):
        for value in options.values():
            yield from secrets_of(value)
    elif isinstance(options, (list, tuple)):
        for value in options:
            yield from secrets_of(value)


def _parts(secret: str) -> Iterable[str]:
    """The secret, and the password inside it when it is a URL or a connection string."""
    yield secret
    try:
        password = urlsplit(secret).password
    except ValueError:
        password = None
    if password:
        yield password
        yield unquote(password)
    for quoted, bare in _CONNINFO_PASSWORD.findall(secret):
        yield re.sub(r"\\(.)", r"\1", quoted) if quoted else bare


def _alternative(secret: str) -> str:
    escaped = re.escape(secret)
    return escaped if len(secret) >= WHOLE_WORDS_BELOW else rf"(?<!\w){escaped}(?!\w)"
