"""The text of a CREATE TABLE, with other types for some of its columns.

SQLite and DuckDB keep a table's definition as text. A table that is rebuilt has the same text but for the types,
so that every default, check, collation and generated column stays as its author wrote it. The hard thing is that
names are hostile: commas and parentheses stand in quotes and comments, too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

_TOKEN = re.compile(
    r"""(?P<blank>\s+|--[^\n]*\n?|/\*.*?\*/)"""
    r"""|(?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])"""
    r"""|(?P<text>'(?:[^']|'')*')"""
    r"""|(?P<word>\w+)"""
    r"""|(?P<mark>.)""",
    re.DOTALL,
)
OWN_KEY = "hub_key"
"""The name of the constraint by which hub declares a key where the catalog has the text of tables."""

_OF_TABLE = frozenset({"constraint", "primary", "unique", "check", "foreign"})
"""What a constraint of the table begins with. A column of such a name is quoted."""

_OF_COLUMN = frozenset(
    {
        "constraint",
        "primary",
        "not",
        "null",
        "unique",
        "check",
        "default",
        "collate",
        "references",
        "generated",
        "as",
    }
)
"""What ends the type of a column."""


def retyped(text: str, name: str, types: Mapping[str, str]) -> str:
    """The statement with `name`, quoted, for the table's, and these types, by column. Names are compared as spelled.

    A column of the key that becomes text loses `AUTOINCREMENT`, which only goes with an integer. ValueError when the
    text is no such statement, or lacks one of the columns.
    """
    _, parts, rest = _taken_apart(text)
    left = dict(types)
    columns = [_column(part, left) for part in parts]
    if left:
        raise ValueError(f"found no column {', '.join(left)} in {text[:80]!r}")
    return f"CREATE TABLE {name} ({','.join(columns)}{rest}"


def rekeyed(text: str, key: str, *, free: Collection[str], need: Collection[str]) -> str:
    """The statement with the key that hub has declared, a constraint of the name `hub_key`, replaced by the
    constraint `key`, and with the columns `free` without NOT NULL and `need` with it."""
    head, parts, rest = _taken_apart(text)
    return f"{head}{','.join([_rekeyed(part, key, free, need) for part in parts])}{rest}"


def _taken_apart(text: str) -> tuple[str, list[list[re.Match[str]]], str]:
    """What stands before the columns and constraints, these, and what stands behind them."""
    tokens = list(_TOKEN.finditer(text))
    opened = next((i for i, token in enumerate(tokens) if token[0] == "("), None)
    closed = _closing(tokens, opened) if opened is not None else None
    if opened is None or closed is None:
        raise ValueError(f"expected CREATE TABLE name (…), got {text[:80]!r}")
    head = "".join(token[0] for token in tokens[: opened + 1])
    rest = "".join(token[0] for token in tokens[closed:]).rstrip().removesuffix(";")
    return head, _cut(tokens[opened + 1 : closed]), rest


def own_key(text: str) -> bool:
    """Whether the statement declares the constraint `hub_key`."""
    return OWN_KEY in text and any(_is_own_key(part) for part in _taken_apart(text)[1])


def _is_own_key(tokens: Sequence[re.Match[str]]) -> bool:
    said = [token for token in tokens if token.lastgroup != "blank"]
    return (
        len(said) > 1
        and said[0].lastgroup == "word"
        and said[0][0].lower() == "constraint"
        and _unquoted(said[1]) == OWN_KEY
    )


def _rekeyed(tokens: Sequence[re.Match[str]], key: str, free: Collection[str], need: Collection[str]) -> str:
    text = "".join(token[0] for token in tokens)
    if _is_own_key(tokens):
        return f" {key}"
    said = [token for token in tokens if token.lastgroup != "blank"]
    if not said or (said[0].lastgroup == "word" and said[0][0].lower() in _OF_TABLE):
        return text
    name = _unquoted(said[0])
    if name in need:
        return f"{text} NOT NULL"
    if name in free:
        for first, second in pairwise(said):
            if (first[0].lower(), second[0].lower()) == ("not", "null"):
                base = tokens[0].start()
                return text[: first.start() - base] + text[second.end() - base :]
    return text


def _closing(tokens: Sequence[re.Match[str]], opened: int) -> int | None:
    depth = 0
    for index in range(opened, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[index][0], 0)
        if depth == 0:
            return index
    return None


def _cut(tokens: Sequence[re.Match[str]]) -> list[list[re.Match[str]]]:
    """The parts between the commas that stand in no parentheses."""
    parts: list[list[re.Match[str]]] = [[]]
    depth = 0
    for token in tokens:
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if token[0] == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _column(tokens: Sequence[re.Match[str]], left: dict[str, str]) -> str:
    """One part, with its new type where it is a column that gets one."""
    text = "".join(token[0] for token in tokens)
    at = next((i for i, token in enumerate(tokens) if token.lastgroup != "blank"), None)
    if at is None or (tokens[at].lastgroup == "word" and tokens[at][0].lower() in _OF_TABLE):
        return text
    name = _unquoted(tokens[at])
    wanted = left.pop(name, None)
    if wanted is None:
        return text
    after, depth = at + 1, 0
    while after < len(tokens):
        token = tokens[after]
        if depth == 0 and token.lastgroup == "word" and token[0].lower() in _OF_COLUMN:
            break
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        after += 1
    rest = "".join(token[0] for token in tokens[after:] if token[0].lower() != "autoincrement")
    return f"{''.join(token[0] for token in tokens[: at + 1])} {wanted} {rest}".rstrip(" ")


def _unquoted(token: re.Match[str]) -> str:
    text = token[0]
    if token.lastgroup == "text":
        return text[1:-1].replace("''", "'")
    if token.lastgroup != "quoted":
        return text
    return text[1:-1] if text[0] == "[" else text[1:-1].replace(text[0] * 2, text[0])
