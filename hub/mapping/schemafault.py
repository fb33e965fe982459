"""Documents checked against a JSON Schema, with faults in the words of the engine.

jsonschema-rs validates; what it finds is told as `foo.0 invalid type. expected: string, given: integer`.
Nothing is fetched: a reference that leads out of the schema is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

import jsonschema_rs
import orjson

from hub.mapping.gojson import compact
from hub.mapping.jsonfault import json_fault
from hub.mapping.values import EvaluationError, Number, Value, text, utf8

FAULTS_MAX: Final = 100
"""Faults that one error text tells of; the count of the others follows."""


class Schema:
    """A compiled schema."""

    def __init__(self, source: str) -> None:
        parsed = _first_value(source)
        if not isinstance(parsed, dict | bool):
            raise _unusable("schema is invalid")
        uri = parsed.get("$schema", "") if isinstance(parsed, dict) else ""
        try:
            cls = jsonschema_rs.validator_cls_for(parsed) if uri else jsonschema_rs.Draft7Validator
            self._validator: Any = cls(
                parsed,
                retriever=_refuse,
                validate_formats=True,
                pattern_options=jsonschema_rs.RegexOptions(),
            )
        except (ValueError, TypeError, jsonschema_rs.ReferencingError) as error:
            raise _unusable(_definition_fault(error)) from error
        self._source = parsed

    def check(self, value: Value) -> None:
        """Raises an EvaluationError that tells every fault on a line of its own."""
        plain = orjson.loads(compact(value, escape_html=False)) if not _is_plain(value) else value
        if self._validator.is_valid(plain):
            return
        lines: list[str] = []
        for error in self._validator.iter_errors(plain):
            if len(lines) >= FAULTS_MAX:
                lines.append("(more faults are not listed)")
                break
            lines.extend(_told(error, self._source))
        raise EvaluationError("\n".join(lines))


def _first_value(source: str) -> Any:
    """The JSON value that a text begins with; what follows is not looked at, as in the engine."""
    given = source.lstrip(" \t\r\n")
    try:
        _, end = json.JSONDecoder().raw_decode(given)
        return orjson.loads(utf8(given[:end]))
    except (ValueError, RecursionError) as error:
        raise _unusable((json_fault(utf8(given)) if given else "EOF") or str(error)) from error


def _refuse(uri: str) -> Any:
    raise ValueError(f"{uri}: references outside of the schema are not followed")


def _unusable(why: str) -> EvaluationError:
    return EvaluationError(f"failed to parse json schema definition: {why}")


def _definition_fault(error: Exception) -> str:
    message = str(getattr(error, "message", error))
    nope = re.match(r'"(\w+)" is not valid under any of the schemas', message)
    if nope is not None:
        valid = "[array boolean integer number null object string]"
        return f"has a primitive type that is NOT VALID -- given: /{nope.group(1)}/ Expected valid values are:{valid}"
    return message


def _is_plain(value: Value) -> bool:
    """True when the validator takes the value as it is."""
    kind = type(value)
    if kind is dict:
        return all(_is_plain(item) for item in value.values())
    if kind is list:
        return all(_is_plain(item) for item in value)
    return value is None or kind in (str, int, float, bool)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | Number):
        return "integer"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _told(error: Any, source: Any) -> Iterable[str]:
    where = ".".join(str(part) for part in error.instance_path) or "(root)"
    kind = error.kind
    name = type(kind).__name__.rpartition("_")[2]
    match name:
        case "Type":
            types = _at(source, error.schema_path)
            wanted = types if isinstance(types, list) else list(kind.types)
            shown = wanted[0] if len(wanted) == 1 else f"[{','.join(map(str, wanted))}]"
            yield f"{where} invalid type. expected: {shown}, given: {_kind(error.instance)}"
        case "Required":
            yield f"{where} {kind.property} is required"
        case "AdditionalProperties":
            for key in kind.unexpected:
                yield f"{where} {key}additional property {key} is not allowed"
        case "Enum":
            options = ", ".join(text(compact(option)) for option in kind.options)
            yield f"{where} {where} must be one of the following: {options}"
        case "Constant":
            yield f"{where} {where} does not match: {text(compact(kind.expected_value))}"
        case "AnyOf" | "OneOfNotValid" | "OneOfMultipleValid":
            any_of = name == "AnyOf"
            yield f"{where} must validate " + (
                "at least one schema (anyof)" if any_of else "one and only one schema (oneof)"
            )
            if name != "OneOfMultipleValid" and kind.context:
                for inner in kind.context[0][:1]:
                    yield from _told(inner, source)
        case _:
            yield f"{where} {_words(name, kind, error)}"


def _at(schema: Any, path: Iterable[Any]) -> Any:
    """What stands at a path of the schema as it was written, if the path leads through no reference."""
    for part in path:
        if isinstance(schema, dict):
            schema = schema.get(str(part))
        elif isinstance(schema, list) and isinstance(part, int) and part < len(schema):
            schema = schema[part]
        else:
            return None
    return schema


def _words(name: str, kind: Any, error: Any) -> str:
    match name:
        case "Minimum":
            return f"must be greater than or equal to {_number(kind.limit)}"
        case "Maximum":
            return f"must be less than or equal to {_number(kind.limit)}"
        case "ExclusiveMinimum":
            return f"must be greater than {_number(kind.limit)}"
        case "ExclusiveMaximum":
            return f"must be less than {_number(kind.limit)}"
        case "MultipleOf":
            return f"must be a multiple of {_number(kind.multiple_of)}"
        case "MinLength":
            return f"string length must be greater than or equal to {kind.limit}"
        case "MaxLength":
            return f"string length must be less than or equal to {kind.limit}"
        case "MinItems":
            return f"array must have at least {kind.limit} items"
        case "MaxItems":
            return f"array must have at most {kind.limit} items"
        case "MinProperties":
            return f"must have at least {kind.limit} properties"
        case "MaxProperties":
            return f"must have at most {kind.limit} properties"
        case "Pattern":
            return f"does not match pattern '{kind.pattern}'"
        case "Format":
            return f"does not match format '{kind.format}'"
        case "UniqueItems":
            first, second = _repeated(error.instance)
            return f"array items[{first},{second}] must be unique"
        case "Contains":
            return "at least one of the items must match"
        case "Not":
            return "must not validate the schema (not)"
        case "FalseSchema":
            return "false always fails validation"
        case "PropertyNames":
            return f"property names do not match: {error.message}"
    return str(error.message)


def _number(value: Any) -> str:
    return text(compact(int(value) if isinstance(value, float) and value.is_integer() else value))


def _repeated(items: list[Any]) -> tuple[int, int]:
    seen: dict[bytes, int] = {}
    for index, item in enumerate(items):
        key = compact(item)
        if key in seen:
            return seen[key], index
        seen[key] = index
    return 0, 0
