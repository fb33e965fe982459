"""Options of the small captures as a config writes them: all of them read, limits named."""

from __future__ import annotations

from typing import Any

import pytest

from hub.spec import Spec
from hub_captures.file import FileCapture
from hub_captures.generate import GenerateCapture
from hub_captures.http_server import HttpServerCapture
from hub_captures.stdin import StdinCapture


def problems(spec: type[Spec], options: dict[str, Any]) -> list[str]:
    found: list[str] = []

    def report(path: tuple[str | int, ...], message: str, **rest: Any) -> None:
        found.append(f"{'.'.join(map(str, path))}: {message}")

    made = spec.parse(options, report)
    assert (made is None) is bool(found)
    return found


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (
            FileCapture,
            {
                "path": ["a", "b/*"],
                "exclude": ["c"],
                "format": "csv",
                "delimiter": ";",
                "compression": "gzip",
                "follow": False,
                "start": "end",
                "order": "modified",
                "on_error": "skip",
                "batch_bytes": "64KiB",
                "poll": "10ms",
                "rotate_wait": "0s",
                "files_max": 5,
            },
        ),
        (StdinCapture, {"format": "text", "on_error": "stop", "batch_bytes": 1024}),
        (
            GenerateCapture,
            {
                "mapping": "root.id = @number",
                "interval": "1ms",
                "batch_size": 3,
                "count": 9,
                "on_error": "stop",
            },
        ),
        (
            HttpServerCapture,
            {
                "address": "0.0.0.0:99",
                "paths": ["x"],
                "collections_max": 5,
                "token": "t",
                "tls_certificate": "c",
                "tls_key": "k",
                "body_bytes": "1MiB",
                "queue_bytes": "2MiB",
                "body_timeout": "1s",
                "head_timeout": "1s",
                "connections_max": 5,
                "idempotency_keys": 0,
                "keep_headers": ["X"],
            },
        ),
    ],
)
def test_every_option_is_read(spec: type[Spec], options: dict[str, Any]) -> None:
    assert problems(spec, options) == []


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (FileCapture, {}, "missing option 'path'"),
        (FileCapture, {"path": ""}, "path: expected a path"),
        (FileCapture, {"path": "a", "batch_bytes": 10}, "batch_bytes: expected at least 1024"),
        (FileCapture, {"path": "a", "poll": "0s"}, "poll: expected more than 0s"),
        (FileCapture, {"path": "a", "format": "csv", "delimiter": '"'}, "cannot stand between fields"),
        (FileCapture, {"path": "a", "delimiter": ";"}, "only CSV has a delimiter"),
        (StdinCapture, {"batch_bytes": 10}, "batch_bytes: expected at least 1024"),
        (GenerateCapture, {"mapping": "root = "}, "mapping: "),
        (HttpServerCapture, {"body_timeout": "0s"}, "body_timeout: expected more than 0"),
        (HttpServerCapture, {"address": "nowhere"}, "address: "),
    ],
)
def test_a_mistake_is_named(spec: type[Spec], options: dict[str, Any], message: str) -> None:
    assert message in "; ".join(problems(spec, options))
