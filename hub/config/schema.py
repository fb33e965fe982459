"""The JSON Schema (draft 2020-12) of the native dialect, with every connector that is installed.

Editors complete and check with it while a config is written; `hub lint` knows more, as it sees
references and mapping texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hub.catalog import CollectionOptions, LogSection, ServerSection
from hub.config.native import NAME, DerivationOptions, MaterializationOptions, StepOptions
from hub.materialization import Materialization
from hub.processor import Processor
from hub.registry import Kind, Unavailable, connector, entries
from hub.spec import Spec
from hub.spec_schema import json_schema

Schema = dict[str, Any]


def native_schema(distribution: str | None = None) -> Schema:
    """The schema, with the connectors of one distribution or of all. One whose driver is missing takes any options."""
    captures = {name: json_schema(spec) if spec else {} for name, spec in _specs("capture", distribution)}
    processors = {name: _processor(spec) for name, spec in _specs("processor", distribution)}
    materializations = dict(_specs("materialization", distribution))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hub configuration",
        "type": "object",
        "properties": {
            "captures": _named("Connectors that read a source into collections.", _one_of(captures)),
            "collections": {
                "type": "object",
                "description": "What is said of single collections; keys and schemas are discovered.",
                "additionalProperties": json_schema(CollectionOptions),
            },
            "derivations": _named("Collections computed from others.", _derivation(processors)),
            "materializations": _named(
                "Connectors that keep a destination in step.", _materialization(materializations)
            ),
            "log": json_schema(LogSection),
            "server": json_schema(ServerSection),
        },
        "required": ["captures"],
        "additionalProperties": False,
    }


def _specs(kind: Kind, distribution: str | None) -> Iterable[tuple[str, type[Spec] | None]]:
    for name, entry in entries(kind).items():
        if distribution in (None, entry.distribution):
            try:
                yield name, connector(kind, name)
            except Unavailable:
                yield name, None


def _named(description: str, entry: Schema) -> Schema:
    return {
        "type": "object",
        "description": description,
        "propertyNames": {"pattern": f"^{NAME.pattern}$"},
        "additionalProperties": entry,
    }


def _one_of(choices: Mapping[str, Schema], beside: Schema | None = None) -> Schema:
    """An entry with exactly one of these names, and those beside it. Flat, so that editors offer them all."""
    return {
        "type": "object",
        "properties": dict(choices) | (beside or {}),
        "oneOf": [{"required": [name]} for name in choices],
        "additionalProperties": False,
    }


def _processor(spec: type[Spec] | None) -> Schema:
    if spec is None:
        return {}
    full = json_schema(spec)
    if issubclass(spec, Processor) and spec.shorthand:
        return {"anyOf": [full["properties"][spec.shorthand], full]}
    return full


def _derivation(processors: Mapping[str, Schema]) -> Schema:
    own = json_schema(DerivationOptions)
    step = _one_of(processors, json_schema(StepOptions)["properties"])
    listed = {"type": "array", "description": "Processors, in order.", "items": step, "minItems": 1}
    entry = _one_of(dict(processors) | {"processors": listed}, own["properties"])
    return entry | {"required": own["required"]}


def _materialization(specs: Mapping[str, type[Spec] | None]) -> Schema:
    choices = {name: json_schema(spec) if spec else {} for name, spec in specs.items()}
    bindings = {"type": "array", "description": "What goes where.", "minItems": 1}
    entry = _one_of(choices, json_schema(MaterializationOptions)["properties"] | {"bindings": bindings})
    return entry | {
        "required": ["bindings"],
        "dependentSchemas": {
            name: {"properties": {"bindings": {"items": json_schema(spec.binding_type)}}}
            for name, spec in specs.items()
            if spec is not None and issubclass(spec, Materialization)
        },
    }
