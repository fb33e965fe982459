"""URLs and forms taken apart as Go's net/url does, with its refusals."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from hub.mapping.values import EvaluationError, go_quote, text, utf8

_SCHEME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.\-]*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_BAD_HOST: Final = re.compile(r"""[\x00-\x20"<>\\^`{|}]""")
_HOST_ESCAPE: Final = re.compile(r"%(?:[0-7][0-9A-Fa-f]|.?.?)")
_USER: Final = re.compile(r"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*")


def parse_url(value: str) -> dict[str, Any]:
    """The parts of a URL: scheme, opaque, user, host, path, query and fragment."""
    try:
        return _parse(value)
    except EvaluationError as error:
        shown = value.partition("#")[0] if "#" in value and error.text.startswith("invalid URL") else value
        raise EvaluationError(f"parse {go_quote(shown)}: {error.text}") from error


def _parse(value: str) -> dict[str, Any]:
    body, _, fragment = value.partition("#")
    found: dict[str, Any] = {
        "scheme": "",
        "opaque": "",
        "host": "",
        "path": "",
        "raw_path": "",
        "raw_query": "",
        "fragment": "",
        "raw_fragment": "",
    }
    if _CONTROL.search(body):
        raise EvaluationError("net/url: invalid control character in URL")
    if body == "*":
        return found | {"path": "*"}
    scheme, rest = _scheme(body)
    found["scheme"] = scheme.lower()
    rest, _, found["raw_query"] = rest.partition("?")
    if not rest.startswith("/"):
        if scheme:
            return _with_fragment(found | {"opaque": rest}, fragment)
        if ":" in rest.partition("/")[0]:
            raise EvaluationError("first path segment in URL cannot contain colon")
    if (scheme or not rest.startswith("///")) and rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        rest = slash + path
        _authority(found, authority)
    found["path"] = unescape_url(rest, plus=False)
    found["raw_path"] = "" if quote(utf8(found["path"]), safe="$&+,/:;=@") == rest else rest
    return _with_fragment(found, fragment)


def _scheme(body: str) -> tuple[str, str]:
    for index, char in enumerate(body):
        if char.isascii() and char.isalpha():
            continue
        if char in "0123456789+-.":
            if index == 0:
                return "", body
        elif char == ":":
            if index == 0:
                raise EvaluationError("missing protocol scheme")
            return body[:index], body[index + 1 :]
        else:
            return "", body
    return "", body


def _with_fragment(found: dict[str, Any], fragment: str) -> dict[str, Any]:
    if fragment:
        found["fragment"] = unescape_url(fragment, plus=False)
        found["raw_fragment"] = fragment if not fragment.isascii() else ""
    return found


def _authority(found: dict[str, Any], authority: str) -> None:
    user, at, host = authority.rpartition("@")
    _check_host(host)
    found["host"] = host
    if not at:
        return
    if not _USER.fullmatch(user):
        raise EvaluationError("net/url: invalid userinfo")
    name, colon, password = user.partition(":")
    found["user"] = {"name": unescape_url(name, plus=False)}
    if colon:
        found["user"]["password"] = unescape_url(password, plus=False)


def _check_host(host: str) -> None:
    if host.startswith("["):
        end = host.rfind("]")
        if end < 0:
            raise EvaluationError("missing ']' in host")
        port = host[end + 1 :]
    else:
        escape = _HOST_ESCAPE.search(host)
        if escape is not None:
            raise EvaluationError(f"invalid URL escape {go_quote(escape.group())}")
        colon = host.find(":")
        port = host[colon:] if colon >= 0 else ""
    if port and not re.fullmatch(r":[0-9]*", port, re.ASCII):
        raise EvaluationError(f"invalid port {go_quote(port)} after host")
    bad = _BAD_HOST.search(host)
    if bad is not None:
        raise EvaluationError(f"invalid character {go_quote(bad.group())} in host name")


def parse_form(value: str) -> dict[str, Any]:
    """A form as an object; names that come more than once have an array of their values."""
    fields: dict[str, list[str]] = {}
    failure: EvaluationError | None = None
    for part in value.split("&"):
        if ";" in part:
            failure = failure or EvaluationError("invalid semicolon separator in query")
        elif part:
            name, _, content = part.partition("=")
            try:
                fields.setdefault(unescape_url(name, plus=True), []).append(unescape_url(content, plus=True))
            except EvaluationError as error:
                failure = failure or error
    if failure is not None:
        raise failure.within("failed to parse value as url-encoded data: ")
    return {name: values[0] if len(values) == 1 else values for name, values in fields.items()}


_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}", re.DOTALL)


def unescape_url(value: str, *, plus: bool) -> str:
    """Percent escapes undone, or Go's error that shows the first that is none."""
    bad = _BAD_ESCAPE.search(value)
    if bad is not None:
        raise EvaluationError(f"invalid URL escape {go_quote(bad.group())}")
    return text(unquote_to_bytes(utf8(value.replace("+", " ") if plus else value)))
