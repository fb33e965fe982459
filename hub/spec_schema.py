"""What a spec says of itself: JSON Schema for editors, and options for the generated pages.

Walks the same declarations that `hub.spec` parses with, so the three cannot drift apart.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from hub.options import OPTION_TYPES, Duration, Interpolated, MappingText, MutationText, Secret, Size
from hub.spec import Spec, description_of, hints_of, is_spec, plain_type


class Option(typing.NamedTuple):
    """One documented option. `default` is None when the option is required."""

    name: str
    type: str
    default: str | None
    description: str
    fields: tuple[Option, ...]


_PRIMITIVES: Mapping[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
}

_LIMITS = (
    ("ge", "minimum"),
    ("gt", "exclusiveMinimum"),
    ("le", "maximum"),
    ("lt", "exclusiveMaximum"),
    ("pattern", "pattern"),
    ("description", "description"),
    ("examples", "examples"),
)

_ENVIRONMENT = {"type": "string", "pattern": r"\$\{"}
"""Any option may be written as `${NAME}`, whatever its type."""


def json_schema(spec: type[Spec]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a spec's options. Unknown options are rejected."""
    hints = hints_of(spec)
    fields = msgspec.structs.fields(spec)
    return {
        "type": "object",
        "description": " ".join((spec.__doc__ or "").split("\n\n")[0].split()),
        "properties": {field.encode_name: _of_hint(hints[field.name], field) for field in fields},
        "required": [field.encode_name for field in fields if field.required],
        "additionalProperties": False,
    }


def _of_hint(hint: Any, field: msgspec.structs.FieldInfo | None = None) -> dict[str, Any]:
    found = _of_type(plain_type(hint))
    if get_origin(hint) is Annotated:
        for meta in get_args(hint)[1:]:
            if isinstance(meta, msgspec.Meta):
                found = found | _of_meta(meta, found)
    if field is not None and not field.required:
        value = default_of(field)
        if isinstance(value, (str, int, float, bool)) and not isinstance(value, (Duration, Size)):
            found = found | {"default": value}
        elif isinstance(value, (Duration, Size)):
            found = found | {"default": str(value)}
    return found


def _of_meta(meta: msgspec.Meta, schema: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: getattr(meta, limit) for limit, name in _LIMITS if getattr(meta, limit) is not None}
    suffix = {"array": "Items", "object": "Properties"}.get(schema.get("type", ""), "Length")
    for end in ("min", "max"):
        if (length := getattr(meta, f"{end}_length")) is not None:
            found[end + suffix] = length
    return found


def _of_type(plain: Any) -> dict[str, Any]:
    if plain in (Duration, Size):
        return {"anyOf": [plain.JSON_SCHEMA, _ENVIRONMENT]}
    if plain in OPTION_TYPES:
        return dict(plain.JSON_SCHEMA)
    if plain in (int, float, bool):
        return {"anyOf": [_PRIMITIVES[plain], _ENVIRONMENT]}
    if plain in _PRIMITIVES:
        return dict(_PRIMITIVES[plain])
    if is_spec(plain):
        return json_schema(plain)
    origin, arguments = get_origin(plain), get_args(plain)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of_hint(choice) for choice in arguments]}
    if origin is typing.Literal:
        return {"anyOf": [{"enum": list(arguments)}, _ENVIRONMENT]}
    if origin is list:
        return {"type": "array", "items": _of_hint(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of_hint(arguments[1])}
    raise TypeError(f"{plain!r} cannot be the type of an option")


def default_of(field: msgspec.structs.FieldInfo) -> Any:
    """The default of an optional field."""
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def options_of(spec: type[Spec]) -> tuple[Option, ...]:
    """The documented options of a spec, in the order of their declaration."""
    hints = hints_of(spec)
    return tuple(
        Option(
            field.encode_name,
            type_name(hints[field.name]),
            None if field.required else _shown(default_of(field)),
            description_of(hints[field.name]),
            _nested(hints[field.name]),
        )
        for field in msgspec.structs.fields(spec)
    )


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, Spec):
        return "{}"
    if isinstance(value, Secret):
        return str(value) if value else ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _nested(hint: Any) -> tuple[Option, ...]:
    plain = plain_type(hint)
    if is_spec(plain):
        return options_of(plain)
    return next((found for choice in get_args(plain) if (found := _nested(choice))), ())


_NAMES: Mapping[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    Secret: "secret",
    Duration: "duration",
    Size: "size",
    MappingText: "mapping",
    MutationText: "mapping",
    Interpolated: "interpolated string",
    Any: "any",
}


def type_name(hint: Any) -> str:
    """The name of an option's type, as the pages print it."""
    plain = plain_type(hint)
    if plain in _NAMES:
        return _NAMES[plain]
    origin, arguments = get_origin(plain), get_args(plain)
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(choice) for choice in arguments if choice is not type(None))
    if origin is list:
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return f"map of {type_name(arguments[1])}"
    if origin is typing.Literal:
        return " \\| ".join(f"`{value}`" for value in arguments)
    return "options"
