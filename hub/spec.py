"""Typed options that document themselves.

One declaration, a class with annotated fields, gives parsing, lint with positions and nearest
names, JSON Schema, the generated page and the listing. The hard thing is to report every mistake
of a component at once: options are converted one by one, each error with the path to its place.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Self, Union, get_args, get_origin

import msgspec

from hub.errors import HubError, Severity
from hub.nearest import did_you_mean, meant_or_known
from hub.options import (
    OPTION_TYPES,
    Duration,
    Interpolated,
    MappingText,
    MutationText,
    Secret,
    Size,
    Written,
    unwritten,
)

__all__ = [
    "Duration",
    "Interpolated",
    "MappingText",
    "MutationText",
    "Path",
    "Report",
    "Secret",
    "Size",
    "Spec",
    "parse_options",
]

SpecT = typing.TypeVar("SpecT", bound="Spec")

Path = tuple[str | int, ...]
"""Where a value stands below the component: option names and list indexes."""


class Report(typing.Protocol):
    """Takes one mistake. `inner` is the (line, column) inside a text option, from 1; with `at_name` the
    mistake is the name at the end of the path, not its value. Options with nothing but warnings are usable."""

    def __call__(
        self,
        path: Path,
        message: str,
        /,
        *,
        inner: tuple[int, int] | None = None,
        at_name: bool = False,
        severity: Severity = "error",
    ) -> None: ...


class Spec(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, dict=True):
    """Base of everything a user configures: connectors, bindings, groups of options.

    Fields are `Annotated[type, Meta(description="…")]`; a default makes an option optional. Use
    `Secret`, `Duration`, `Size`, `MappingText` and `Interpolated` for what they name, `Literal` for
    closed sets, and another `Spec` for a group. Instances never change; what is derived from the
    options may be kept with `functools.cached_property`.
    """

    summary: ClassVar[str] = ""

    def problems(self) -> Iterator[tuple[Path, str]]:
        """Mistakes that only show when several options are seen together."""
        return iter(())

    @classmethod
    def parse(cls, options: object, report: Report) -> Self | None:
        """Read the options, reporting every mistake. None when there was one."""
        return parse_options(cls, options, report)


def parse_options(spec: type[SpecT], options: object, report: Report, path: Path = ()) -> SpecT | None:
    """Convert a mapping of options to a `spec`, reporting every mistake below `path`."""
    if options is None:
        options = {}
    if not isinstance(options, Mapping):
        report(path, f"expected options, as a mapping of names to values, got {_kind(options)}")
        return None
    fields = fields_of(spec)
    hints = hints_of(spec)
    mistakes = _Counting(report)
    values: dict[str, Any] = {}
    for name in options:
        if name not in fields:
            mistakes(
                (*path, name), f"unknown option {name!r}{meant_or_known(str(name), fields)}", at_name=True
            )
    for name, field in fields.items():
        if name in options:
            before = mistakes.count
            value = _convert(hints[field.name], options[name], mistakes, (*path, name))
            if mistakes.count == before:
                values[field.name] = value
        elif field.required:
            message = f"missing option {name!r}: {description_of(hints[field.name])}"
            mistakes(path, message, at_name=True)
    if mistakes.count:
        return None
    made = spec(**values)
    for inner, message in made.problems():
        mistakes((*path, *inner), message)
    return None if mistakes.count else made


class _Counting:
    """Passes reports on, and counts those that make the options unusable."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.count = 0

    def __call__(
        self,
        path: Path,
        message: str,
        *,
        inner: tuple[int, int] | None = None,
        at_name: bool = False,
        severity: Severity = "error",
    ) -> None:
        self.count += severity == "error"
        self.report(path, message, inner=inner, at_name=at_name, severity=severity)


def _convert(hint: Any, value: Any, report: Report, path: Path) -> Any:
    """One option's value. Groups and lists of groups are walked, so that all their mistakes show."""
    plain = plain_type(hint)
    origin = get_origin(plain)
    if origin in (Union, types.UnionType):
        choices = [choice for choice in get_args(plain) if choice is not type(None)]
        if value is None and len(choices) < len(get_args(plain)):
            return None
        if len(choices) == 1:
            return _convert(choices[0], value, report, path)
        alike = [choice for choice in choices if _shape(plain_type(choice)) is _shape_of(value)]
        if len(alike) == 1:
            return _convert(alike[0], value, report, path)
        if not alike:
            wanted = " or ".join(_wanted(plain_type(choice)) for choice in choices)
            report(path, f"expected {wanted}, got {_kind(value)}")
            return None
    if is_spec(plain):
        return parse_options(plain, value, report, path)
    if origin is list and isinstance(value, list):
        found = [_convert(get_args(plain)[0], item, report, (*path, i)) for i, item in enumerate(value)]
        return _checked(hint, found, report, path)
    if origin is dict and isinstance(value, Mapping):
        return {key: _convert(get_args(plain)[1], item, report, (*path, key)) for key, item in value.items()}
    return _leaf(hint, value, report, path)


def _shape(plain: Any) -> type:
    """How a type is written: as a list, as a mapping, or as one word."""
    if is_spec(plain) or get_origin(plain) is dict:
        return dict
    return list if get_origin(plain) is list else str


def _wanted(plain: Any) -> str:
    if is_spec(plain):
        return "options"
    names = {
        str: "text",
        int: "a number",
        float: "a number",
        bool: "a boolean",
        list: "a list",
        dict: "a mapping",
    }
    return names.get(get_origin(plain) or plain, f"a {plain.__name__.lower()}")


def _shape_of(value: object) -> type:
    return type(value) if isinstance(value, (list, dict)) else str


def _leaf(hint: Any, value: Any, report: Report, path: Path) -> Any:
    plain = plain_type(hint)
    if isinstance(value, Written) and plain is not Any:
        value = value.text if _wants_text(plain) else value.value
    value = unwritten(value)
    if get_origin(plain) is typing.Literal and value not in get_args(plain):
        choices = ", ".join(str(choice) for choice in get_args(plain))
        report(
            path,
            f"expected one of {choices}, got {value!r}{did_you_mean(str(value), map(str, get_args(plain)))}",
        )
        return None
    try:
        made = msgspec.convert(value, hint, dec_hook=_decode_option)
    except msgspec.ValidationError as error:
        message, inner = _explained(error)
        report((*path, *inner), message)
        return None
    if isinstance(made, MappingText):
        _check_text(made, report, path)
    return made


def _wants_text(plain: Any) -> bool:
    if get_origin(plain) is typing.Literal:
        return all(isinstance(choice, str) for choice in get_args(plain))
    return plain is str or (plain in OPTION_TYPES and plain is not Size)


def _checked(hint: Any, found: list[Any], report: Report, path: Path) -> Any:
    for meta in get_args(hint)[1:] if get_origin(hint) is Annotated else ():
        if isinstance(meta, msgspec.Meta) and meta.min_length is not None and len(found) < meta.min_length:
            report(path, f"expected at least {meta.min_length} entries, got {len(found)}")
    return found


def _check_text(text: MappingText, report: Report, path: Path) -> None:
    try:
        compiled = text.compiled()
    except HubError as error:
        line, column = getattr(error, "line", 1), getattr(error, "column", 1)
        message = f"{getattr(error, 'message', error)}{getattr(error, 'hint', '')}"
        report(path, message, inner=(line, column))
        return
    for warning in compiled.warnings:
        report(path, warning.message, inner=(warning.line, warning.column), severity="warning")


def _decode_option(wanted: type, written: object) -> object:
    if wanted in OPTION_TYPES:
        return wanted.parse(written)
    raise NotImplementedError(f"{wanted.__name__} is not a type of option")


_INNER_PATH = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]|\[\.\.\.\]")


def _explained(error: msgspec.ValidationError) -> tuple[str, Path]:
    text = str(error)
    match = _INNER_PATH.search(text)
    steps: Path = ()
    if match:
        text = text[: match.start()]
        steps = tuple(
            int(index) if index else name for name, index in _STEP.findall(match["path"]) if index or name
        )
    return text[:1].lower() + text[1:], steps


def plain_type(hint: Any) -> Any:
    """The type without its `Annotated`."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def is_spec(hint: Any) -> bool:
    """True for a group of options."""
    return inspect.isclass(hint) and issubclass(hint, Spec)


@cache
def fields_of(spec: type[Spec]) -> Mapping[str, msgspec.structs.FieldInfo]:
    """The options of a spec by the names users write."""
    return {field.encode_name: field for field in msgspec.structs.fields(spec)}


@cache
def hints_of(spec: type[Spec]) -> dict[str, Any]:
    """The declared type of each field, with its `Meta`."""
    return typing.get_type_hints(spec, include_extras=True)


def description_of(hint: Any) -> str:
    """What the field's `Meta` says of it."""
    for meta in get_args(hint)[1:] if get_origin(hint) is Annotated else ():
        if isinstance(meta, msgspec.Meta) and meta.description:
            return meta.description
    return ""


def _kind(value: object) -> str:
    value = unwritten(value)
    names = {
        str: "text",
        list: "a list",
        dict: "a mapping",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), type(value).__name__)
