"""The text of a CREATE TABLE, with other types for some of its columns.

SQLite and DuckDB keep a table's definition as text. A table that is rebuilt has the same text but for the types,
so that every default, check, collation and generated column stays as its author wrote it. The hard thing is that
names are hostile: commas and parentheses stand in quotes and comments, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_TOKEN = re.compile(
    r"""(?P<blank>\s+|--[^\n]*\n?|/\*.*?\*/)"""
    r"""|(?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])"""
    r"""|(?P<text>'(?:[^']|'')*')"""
    r"""|(?P<word>\w+)"""
    r"""|(?P<mark>.)""",
    re.DOTALL,
)
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
    tokens = list(_TOKEN.finditer(text))
    opened = next((i for i, token in enumerate(tokens) if token[0] == "("), None)
    closed = _closing(tokens, opened) if opened is not None else None
    if opened is None or closed is None:
        raise ValueError(f"expected CREATE TABLE name (…), got {text[:80]!r}")
    left = dict(types)
    parts = [_column(part, left) for part in _cut(tokens[opened + 1 : closed])]
    if left:
        raise ValueError(f"found no column {', '.join(left)} in {text[:80]!r}")
    rest = "".join(token[0] for token in tokens[closed:]).rstrip().removesuffix(";")
    return f"CREATE TABLE {name} ({','.join(parts)}{rest}"


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
