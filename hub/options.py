"""Types of options beyond what JSON has: secrets, durations, sizes, mapping texts.

Each says how it is written in a config and in JSON Schema, and reads itself from there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from hub.mapping.compiled import Compiled, Kind

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")
_DURATION_UNITS_S = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGT]i?)?B?")
_SIZE_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SIZE_UNITS |= {"ki": 2**10, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class Secret:
    """Text that no repr, log line, error or export shows. `reveal()` is for the connector alone."""

    __slots__ = ("_text",)

    JSON_SCHEMA: ClassVar[dict[str, Any]] = {"type": "string", "format": "password", "writeOnly": True}

    def __init__(self, text: str) -> None:
        self._text = text

    @classmethod
    def parse(cls, written: object) -> Secret:
        if not isinstance(written, str):
            raise ValueError("expected a string")  # noqa: TRY004  one error type for all options
        return cls(written)

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "'***'"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)


class Duration(float):
    """A length of time in seconds, written `100ms`, `1h30m`, `7d`. Zero is written `0s`."""

    JSON_SCHEMA: ClassVar[dict[str, Any]] = {
        "type": "string",
        "pattern": r"^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h|d))+$",
    }

    @classmethod
    def parse(cls, written: object) -> Duration:
        if isinstance(written, str):
            parts = _DURATION.findall(written)
            if parts and "".join(number + unit for number, unit in parts) == written:
                return cls(sum(float(number) * _DURATION_UNITS_S[unit] for number, unit in parts))
        raise ValueError(f"expected a duration such as 100ms, 30s, 1h30m or 7d, got {_shown(written)}")

    def __str__(self) -> str:
        seconds = float(self)
        for unit in ("d", "h", "m", "s", "ms", "us", "ns"):
            count = seconds / _DURATION_UNITS_S[unit]
            if count >= 1 and abs(count - round(count)) < 1e-9 * max(count, 1):
                return f"{round(count)}{unit}"
        return f"{seconds:g}s"

    __repr__ = __str__


class Size(int):
    """A number of bytes, written `64KiB`, `32MiB`, `1GB` or as a plain number."""

    JSON_SCHEMA: ClassVar[dict[str, Any]] = {
        "anyOf": [
            {"type": "integer", "minimum": 0},
            {"type": "string", "pattern": r"^\d+(\.\d+)?\s*([kKMGT]i?)?B?$"},
        ]
    }

    @classmethod
    def parse(cls, written: object) -> Size:
        if isinstance(written, int) and not isinstance(written, bool) and written >= 0:
            return cls(written)
        if isinstance(written, str) and (match := _SIZE.fullmatch(written)):
            return cls(float(match[1]) * _SIZE_UNITS[match[2] or ""])
        raise ValueError(f"expected a size such as 64KiB, 32MiB or 1GB, got {_shown(written)}")

    def __str__(self) -> str:
        for unit in ("Ti", "Gi", "Mi", "Ki"):
            if self and self % _SIZE_UNITS[unit] == 0:
                return f"{int(self) // _SIZE_UNITS[unit]}{unit}B"
        return str(int(self))

    __repr__ = __str__


CONFIG_FILE: ContextVar[str] = ContextVar("CONFIG_FILE", default="")
"""The configuration that is being read: what its mappings import stands beside it."""


class MappingText(str):
    """A text in the mapping language, compiled when the config is read so that its mistakes show there.

    `file` is the configuration it stands in. `compiled` makes it ready to run.
    """

    __slots__ = ("file",)
    KIND: ClassVar[Kind] = "mapping"
    JSON_SCHEMA: ClassVar[dict[str, Any]] = {"type": "string", "contentMediaType": "text/x-hub-mapping"}

    file: str

    def __new__(cls, text: str) -> Self:
        made = super().__new__(cls, text)
        made.file = CONFIG_FILE.get()
        return made

    @classmethod
    def parse(cls, written: object) -> Self:
        if not isinstance(written, str):
            raise ValueError(f"expected text, got {_shown(written)}")  # noqa: TRY004
        return cls(written)

    def compiled(self, schema: Mapping[str, Any] | None = None) -> Compiled:
        """The text ready to run, checked against the documents' JSON Schema if that is known. Raises
        `hub.mapping.ParseError`."""
        from hub.mapping import compile as compile_mapping

        known = None if schema is None else dict(schema)
        return compile_mapping(str(self), kind=self.KIND, file=self.file, schema=known)


class MutationText(MappingText):
    """A mapping that assigns into the document, instead of building a new one."""

    __slots__ = ()
    KIND: ClassVar[Kind] = "mutation"


class Interpolated(MappingText):
    """Text that may hold `${! query }`, such as `${! @table }`, evaluated against the records."""

    __slots__ = ()
    KIND: ClassVar[Kind] = "field"
    JSON_SCHEMA: ClassVar[dict[str, Any]] = {"type": "string"}


OPTION_TYPES = (Secret, Duration, Size, MappingText, MutationText, Interpolated)


class Written:
    """An unquoted number or boolean of a config: its value, and the text that stands there.

    An option that wants text gets the text, so that `1.10` stays `1.10` and `true` a word; any other
    gets the value.
    """

    __slots__ = ("text", "value")

    def __init__(self, text: str, value: bool | float) -> None:
        self.text = text
        self.value = value

    def __repr__(self) -> str:
        return self.text


def unwritten(value: Any) -> Any:
    """A tree of config values as JSON has it. A number that a float would round is kept as its text."""
    if isinstance(value, Written):
        rounds = isinstance(value.value, float) and Decimal(repr(value.value)) != Decimal(value.text)
        return value.text if rounds else value.value
    if isinstance(value, dict):
        return {name: unwritten(item) for name, item in value.items()}
    if isinstance(value, list):
        return [unwritten(item) for item in value]
    return value


def _shown(value: object) -> str:
    return (
        repr(value) if isinstance(value, (str, int, float, bool)) or value is None else type(value).__name__
    )
