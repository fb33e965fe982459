"""Runs recorded cases: `python -m hub.mapping.cases FILE...`

A case is one JSON object a line: a mapping, the messages it is given and what became of them. The
comparison is as strict as a reader of the output would be: numbers by their text, objects by their
content whatever the order of keys, errors by their exact words. Prints every failure with expected and got,
a table by group, and last `N passed, M failed`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from hub.mapping import DELETE, NOTHING, EvaluationError, Message, ParseError, compile
from hub.mapping.compiled import Compiled, content_of
from hub.mapping.parse import Files
from hub.mapping.values import kind

SHOWN_MAX: Final = 600
"""Characters of one expected or found value in the listing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one case went. `same_kind` is True when only the words of an error differ."""

    group: str
    id: str
    passed: bool
    same_kind: bool
    expected: str
    found: str


def judge(case: Mapping[str, Any]) -> Verdict:
    """Runs one case and compares."""
    found = outcome(case)
    expected = {name: value for name, value in case["expect"].items() if name in _COMPARED}
    if "parse_error" not in expected:
        expected = {name: value for name, value in expected.items() if name not in ("line", "col")}
    passed = all(_same(name, found.get(name), value) for name, value in expected.items())
    kinds = [_kind_of(outcome) for outcome in (expected, found)]
    same = kinds[0] == kinds[1] and (passed or kinds[0] in ("error", "parse_error"))
    shown = {name: found.get(name) for name in {**expected, **found} if name in _COMPARED}
    return Verdict(case["group"], case["id"], passed, same, _shown(expected), _shown(shown))


_COMPARED: Final = (
    "output", "deleted", "nothing", "error", "parse_error", "line", "col", "meta", "meta_types", "type",
)  # fmt: skip


def outcome(case: Mapping[str, Any]) -> dict[str, Any]:
    """What becomes of a case here, in the words of its `expect`."""
    kind_ = case["kind"]
    files = Files({str(Path(name)): text for name, text in case.get("files", {}).items()})
    try:
        compiled = compile(case["text"], kind_, importer=files)
    except ParseError as error:
        return {"parse_error": str(error), "line": error.line, "col": error.column}
    messages = [
        Message(item.get("content", "").encode(), item.get("meta") or {}, item.get("err"))
        for item in case.get("messages", [])
    ]
    try:
        if kind_ in ("query", "field"):
            return _value_outcome(compiled, case, messages)
        return _message_outcome(compiled, messages, case.get("index") or 0)
    except EvaluationError as error:
        return {"error": str(error)}


def _value_outcome(compiled: Compiled, case: Mapping[str, Any], messages: list[Message]) -> dict[str, Any]:
    if case.get("has_value"):
        value = compiled.query(case["value"])
    else:
        value = compiled.message(messages, case.get("index") or 0).value
    found: dict[str, Any] = {"type": kind(value)}
    if value is NOTHING:
        found["nothing"] = True
    elif value is DELETE:
        found["deleted"] = True
    else:
        found["output"] = content_of(value).decode("utf-8", "surrogateescape")
    return found


def _message_outcome(compiled: Compiled, messages: list[Message], index: int) -> dict[str, Any]:
    mapped = compiled.message(messages, index)
    if mapped.value is DELETE:
        return {"deleted": True}
    assert mapped.content is not None
    return {
        "output": mapped.content.decode("utf-8", "surrogateescape"),
        "meta": {name: _plain(value) for name, value in mapped.metadata.items()},
        "meta_types": {name: kind(value) for name, value in mapped.metadata.items()},
    }


def _plain(value: Any) -> Any:
    content = content_of(value)
    return content.decode() if isinstance(value, str | bytes) else json.loads(content)


def _kind_of(outcome: Mapping[str, Any]) -> str:
    for name in ("parse_error", "error", "deleted", "nothing"):
        if name in outcome:
            return name
    return "output"


def _same(name: str, found: Any, expected: Any) -> bool:
    if name != "output" or found is None:
        return bool(found == expected)
    if found == expected:
        return True
    try:
        return bool(
            json.loads(found, parse_float=str, parse_int=str)
            == json.loads(expected, parse_float=str, parse_int=str)
        )
    except ValueError:
        return False


def _shown(outcome: Mapping[str, Any]) -> str:
    text = json.dumps(dict(sorted(outcome.items())), ensure_ascii=False)
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "…"


def read(path: Path) -> list[dict[str, Any]]:
    """The cases of a file."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def report(paths: Iterable[Path], out: TextIO) -> int:
    """Runs all cases of these files; the number that failed."""
    passed: Counter[str] = Counter()
    total: Counter[str] = Counter()
    worded: Counter[str] = Counter()
    for path in paths:
        cases = [case for case in read(path) if "expect" in case]
        if not cases:
            print(f"{path.name}: holds no cases", file=out)
        for case in cases:
            verdict = judge(case)
            group = f"{path.stem}/{verdict.group}"
            total[group] += 1
            passed[group] += verdict.passed
            worded[group] += verdict.same_kind and not verdict.passed
            if not verdict.passed:
                print(f"FAIL {verdict.id}\n  mapping  {case['text']!r}", file=out)
                print(f"  expected {verdict.expected}\n  got      {verdict.found}", file=out)
    width = max(map(len, total), default=0)
    for group in sorted(total):
        note = f"  ({worded[group]} in other words)" if worded[group] else ""
        print(f"{group:<{width}}  {passed[group]:>5} of {total[group]}{note}", file=out)
    failed = total.total() - passed.total()
    if worded:
        print(f"of the failures {worded.total()} differ in the words of an error only", file=out)
    print(f"{passed.total()} passed, {failed} failed", file=out)
    return failed


def main() -> None:
    """The command."""
    if len(sys.argv) < 2:
        raise SystemExit("usage: python -m hub.mapping.cases FILE...")
    raise SystemExit(1 if report([Path(name) for name in sys.argv[1:]], sys.stdout) else 0)


if __name__ == "__main__":
    main()
