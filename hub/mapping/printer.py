"""A tree as text again. `parse(print(tree))` is the same tree, whatever the layout was.

The only hard part is parentheses: operators are grouped by four passes, left to right within each, so an
operand needs them when its own pass binds no tighter than where it stands.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

from hub.document import positional, shortest
from hub.mapping import tree
from hub.mapping.binding import PASSES
from hub.mapping.tree import Argument, Query, Statement

_PASS: Final = {op: level for level, ops in enumerate(PASSES) for op in ops}
_TERM: Final = -1
_ESCAPED: Final = re.compile(r"\$\{!([^}]*)\}")
_NAME: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


def text_of(node: tree.Mapping | tree.Interpolation | Query) -> str:
    """The text of a mapping, of interpolated text or of a query."""
    match node:
        case tree.Mapping(statements, maps, imports):
            lines = [f"import {quoted(item.path)}" for item in imports]
            own = [definition for definition in maps if definition.text == node.text]
            lines += [f"map {quoted(item.name)} {_block(item.statements)}" for item in own]
            lines += [_statement(item) for item in statements]
            return "\n".join(lines) + "\n"
        case tree.Interpolation(parts):
            return "".join(
                _ESCAPED.sub(r"${{!\1}}", part) if isinstance(part, str) else f"${{! {_query(part)} }}"
                for part in parts
            )
        case _:
            return _query(node)


def _block(statements: tuple[Statement, ...]) -> str:
    body = "\n".join(_statement(item) for item in statements)
    indented = "\n".join("  " + line for line in body.split("\n")) if body else ""
    return "{\n" + indented + "\n}"


def _statement(node: Statement) -> str:
    match node:
        case tree.Assign(path, value):
            first = (path[0],) if path and node.bare else ("root", *path[:1])
            rest = path[1:]
            segments = [first[0], *(_segment(item) for item in (*first[1:], *rest))]
            return f"{'.'.join(segments)} = {_query(value)}"
        case tree.Let(name, value):
            return f"let {quoted(name)} = {_query(value)}"
        case tree.SetMeta(name, value):
            return f"meta {'' if name is None else quoted(name) + ' '}= {_query(value)}"
        case tree.IfBlock(branches):
            parts: list[str] = []
            for condition, statements in branches:
                word = "else " if parts else ""
                head = word if condition is None else f"{word}if {_query(condition)} "
                parts.append(f"{head}{_block(statements)}")
            return " ".join(parts)


def _segment(name: str) -> str:
    return name if name and _NAME.issuperset(name) else quoted(name)


def _query(node: Query, level: int = len(PASSES)) -> str:
    """A query as it may stand where passes up to `level` bind; _TERM is where a tail follows."""
    match node:
        case tree.Binary(op, left, right):
            own = _PASS[op]
            found = f"{_query(left, own)} {op} {_query(right, own - 1)}"
            return f"({found})" if own > level or level == _TERM else found
        case tree.Negate(operand):
            found = f"-{_query(operand, _TERM)}"
            return f"({found})" if level == _TERM else found
        case tree.Not(operand):
            found = f"!{_query(operand, _TERM)}"
            return f"({found})" if level == _TERM else found
        case tree.Lambda(name, body):
            found = f"{name} -> {_query(body)}"
            return f"({found})" if level < len(PASSES) else found
        case _:
            return _term(node)


def _term(node: Query) -> str:
    match node:
        case tree.Literal(value):
            return literal(value)
        case tree.Field(base, path):
            if node.bare and path and path[0] and _NAME.issuperset(path[0]):
                return ".".join([path[0], *(_segment(item) for item in path[1:])])
            return ".".join([base, *(_segment(item) for item in path)])
        case tree.Get(target, path):
            return ".".join([_target(target), *(_segment(item) for item in path)])
        case tree.Index(target, index):
            return f"{_target(target)}[{_query(index)}]"
        case tree.Slice(target, low, high):
            bounds = [_query(bound) if bound is not None else "" for bound in (low, high)]
            return f"{_target(target)}[{bounds[0]}:{bounds[1]}]"
        case tree.Variable(name):
            return f"${name}"
        case tree.Metadata(name):
            return "@" + (_segment(name) if name else "")
        case tree.Function(name, arguments):
            return f"{name}({_arguments(arguments)})"
        case tree.Method(target, name, arguments):
            return f"{_target(target)}.{name}({_arguments(arguments)})"
        case tree.MapTo(target, body):
            return f"{_target(target)}.({_query(body)})"
        case tree.Array(items):
            return f"[{', '.join(_query(item) for item in items)}]"
        case tree.Object(items):
            return "{" + ", ".join(f"{_key(key)}: {_query(item)}" for key, item in items) + "}"
        case tree.If(branches, otherwise):
            chain = " else ".join(f"if {_query(test)} {{ {_query(then)} }}" for test, then in branches)
            return chain if otherwise is None else f"{chain} else {{ {_query(otherwise)} }}"
        case tree.Match(subject, cases):
            head = "" if subject is None else _query(subject) + " "
            listed = "\n".join(
                f"  {'_' if item.test is None else _query(item.test)} => {_query(item.result)}"
                for item in cases
            )
            return f"match {head}{{\n{listed}\n}}"
    raise AssertionError(node)


def _target(node: Query) -> str:
    """The target of a tail; branches and numbers get parentheses so that the tail is not read into them."""
    found = _query(node, _TERM)
    bare_number = isinstance(node, tree.Literal) and isinstance(node.value, int | float)
    return f"({found})" if isinstance(node, tree.If | tree.Match) or bare_number else found


def _key(node: Query) -> str:
    if isinstance(node, tree.Literal):
        return _query(node)
    return f"({_query(node)})"


def _arguments(arguments: tuple[Argument, ...]) -> str:
    return ", ".join(
        f"{argument.name}: {_query(argument.value)}" if argument.name else _query(argument.value)
        for argument in arguments
    )


def literal(value: Any) -> str:
    """A literal value; numbers without an exponent, since the language has none."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, float):
        return _decimal(value)
    return str(int(value))


def _decimal(value: float) -> str:
    found = "0" if value == 0 else positional(*shortest(abs(value))[1:])
    found = found if "." in found else found + ".0"
    return f"-{found}" if math.copysign(1, value) < 0 else found


def quoted(value: str) -> str:
    """A string as a literal of the language."""
    out = ['"']
    for char in value:
        if char in '"\\':
            out.append("\\" + char)
        elif char == "\n":
            out.append("\\n")
        elif "\udc80" <= char <= "\udcff":
            out.append(f"\\x{ord(char) - 0xDC00:02x}")
        elif char < " " or char == "\x7f":
            out.append(f"\\x{ord(char):02x}")
        else:
            out.append(char)
    out.append('"')
    return "".join(out)
