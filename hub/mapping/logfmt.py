"""Lines of `key=value` pairs, as Go services log them."""

from __future__ import annotations

import re
from typing import Any, Final

from hub.mapping.values import EvaluationError, go_quote

_PAIR: Final = re.compile(r'[ \t]*(?:=|([^ \t=]+)(?:(=)(?:"((?:[^"\\]|\\.)*)(")?|([^ \t]*))?)?)', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}


def parse_logfmt(value: str) -> dict[str, Any]:
    """The pairs; a key alone is true. The last of two values of a key stays."""
    out: dict[str, Any] = {}
    at = 0
    while at < len(value):
        match = _PAIR.match(value, at)
        if match is None or match.end() == at:
            break
        at = match.end()
        key, equals, quoted, closing, plain = match.groups()
        if key is None:
            continue
        if equals is None:
            out[key] = True
        elif quoted is None:
            out[key] = plain or ""
        elif closing is None:
            raise EvaluationError(f"logfmt: unterminated quoted value for key {go_quote(key)}")
        else:
            out[key] = _ESCAPE.sub(lambda found: _ESCAPED.get(found.group(1), found.group()), quoted)
    return out
