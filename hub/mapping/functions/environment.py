"""Functions that look outside the record: clock, environment, files, host, and made-up data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, Final

from hub.document import decode
from hub.errors import RecordError
from hub.mapping.context import Context
from hub.mapping.extras import load, needs
from hub.mapping.registry import Example, Param, function
from hub.mapping.timestamp import Timestamp
from hub.mapping.values import EvaluationError, Value, real

CATEGORY: Final = "Environment"


@function(
    "now",
    category=CATEGORY,
    needs=["now_ns"],
    pure=False,
    doc="The present as RFC 3339 text in UTC.",
    examples=[Example("root.v = now().timestamp().ts_unix() > 0", (("{}", '{"v":true}'),))],
)
def _now(context: Context) -> str:
    return Timestamp(context.require("now_ns")()).rfc3339()


def _clock(name: str, unit: str, nanos: int) -> None:
    @function(
        name,
        category=CATEGORY,
        needs=["now_ns"],
        pure=False,
        doc=f"The present as whole {unit} since 1970-01-01T00:00:00Z.",
        examples=[Example(f"root.v = {name}() > 0", (("{}", '{"v":true}'),))],
    )
    def run(context: Context) -> int:
        found: int = context.require("now_ns")() // nanos
        return found


_clock("timestamp_unix", "seconds", 1_000_000_000)
_clock("timestamp_unix_milli", "milliseconds", 1_000_000)
_clock("timestamp_unix_micro", "microseconds", 1_000)
_clock("timestamp_unix_nano", "nanoseconds", 1)


@function(
    "hostname",
    category=CATEGORY,
    needs=["hostname"],
    pure=False,
    doc="The name of the machine.",
)
def _hostname(context: Context) -> str:
    found: str = context.require("hostname")()
    return found


_NO_CACHE: Final = Param("no_cache", "bool", False, "Look again for each record, not just once.")


@function(
    "env",
    category=CATEGORY,
    params=[Param("name", "string", doc="The name of the variable."), _NO_CACHE],
    needs=["environment"],
    prepared=True,
    pure=False,
    doc="The value of an environment variable, or null when it is not set. It is read when the mapping is "
    "parsed, unless `no_cache` is set or the name is not known by then.",
    examples=[Example('root.v = env("A_NAME_THAT_NOBODY_SETS").or("none")', (("{}", '{"v":"none"}'),))],
)
def _env(context: Context, name: str, no_cache: bool) -> Callable[[], Value]:
    environment = context.require("environment")
    if no_cache:
        return lambda: environment.get(name)
    found = environment.get(name)
    return lambda: found


def _read(context: Context, path: str) -> bytes:
    try:
        found: bytes = context.require("read_file")(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise EvaluationError(f"open {path}: {why.lower()}") from error
    return found


def _beside(context: Context, path: str) -> str:
    """A path relative to the folder of the configuration, which it may not leave."""
    if context.root is None:
        return path
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise EvaluationError(f"{path}: the path leaves the folder of the configuration")
    return str(context.root / path)


def _cached(read: Callable[[], Value], no_cache: bool) -> Callable[[], Value]:
    if no_cache:
        return read
    found = read()
    return lambda: found


@function(
    "file",
    category=CATEGORY,
    params=[Param("path", "string", doc="The path, from the working directory."), _NO_CACHE],
    needs=["read_file"],
    prepared=True,
    pure=False,
    doc="The content of a file as bytes. It is read when the mapping is parsed, unless `no_cache` is set or the "
    "path is not known by then.",
)
def _file(context: Context, path: str, no_cache: bool) -> Callable[[], Value]:
    return _cached(lambda: _read(context, path), no_cache)


@function(
    "file_rel",
    category=CATEGORY,
    params=[Param("path", "string", doc="The path, from the folder of the configuration."), _NO_CACHE],
    needs=["read_file"],
    prepared=True,
    pure=False,
    doc="The content of a file beside the configuration, as bytes. It is read when the mapping is parsed, unless "
    "`no_cache` is set or the path is not known by then.",
)
def _file_rel(context: Context, path: str, no_cache: bool) -> Callable[[], Value]:
    return _cached(lambda: _read(context, _beside(context, path)), no_cache)


@function(
    "file_rel_json",
    category=CATEGORY,
    params=[Param("path", "string", doc="The path, from the folder of the configuration.")],
    needs=["read_file"],
    prepared=True,
    pure=False,
    doc="The JSON document in a file beside the configuration, read once.",
)
def _file_rel_json(context: Context, path: str) -> Callable[[], Value]:
    def read() -> Value:
        try:
            return decode(_read(context, _beside(context, path)))
        except RecordError as error:
            raise EvaluationError(f"{path}: {error.reason}") from error

    return _cached(read, no_cache=False)


_FAKERS: Final[dict[str, str]] = {
    "latitude": "latitude", "longitude": "longitude", "unix_time": "unix_time", "date": "date",
    "time_string": "time", "month_name": "month_name", "year_string": "year", "day_of_week": "day_of_week",
    "day_of_month": "day_of_month", "timestamp": "date_time", "century": "century", "timezone": "timezone",
    "time_period": "am_pm", "email": "email", "mac_address": "mac_address", "domain_name": "domain_name",
    "url": "url", "username": "user_name", "ipv4": "ipv4", "ipv6": "ipv6", "password": "password",
    "jwt": "sha256", "word": "word", "sentence": "sentence", "paragraph": "paragraph",
    "cc_type": "credit_card_provider", "cc_number": "credit_card_number", "currency": "currency_code",
    "amount_with_currency": "pricetag", "title_male": "prefix_male", "title_female": "prefix_female",
    "first_name": "first_name", "first_name_male": "first_name_male",
    "first_name_female": "first_name_female", "last_name": "last_name", "name": "name",
    "gender": "random_element", "chinese_first_name": "first_name", "chinese_last_name": "last_name",
    "chinese_name": "name", "phone_number": "phone_number", "toll_free_phone_number": "phone_number",
    "e164_phone_number": "msisdn", "uuid_hyphenated": "uuid4", "uuid_digit": "uuid4",
}  # fmt: skip


@function(
    "fake",
    category="Fake Data Generation",
    params=[
        Param(
            "function",
            "string",
            "",
            f"What to make up: {', '.join(f'`{name}`' for name in sorted(_FAKERS))}.",
        )
    ],
    needs=["random"],
    prepared=True,
    pure=False,
    doc="Made-up data, for tests and demonstrations.",
    **needs("faker", "fake"),
)
def _fake(context: Context, function: str) -> Callable[[], Value]:
    if function and function not in _FAKERS:
        raise EvaluationError(f"invalid faker function: {function}")
    generator: Any = None

    def run() -> Value:
        nonlocal generator
        if generator is None:
            locale = "zh_CN" if function.startswith("chinese_") else "en_US"
            generator = load("faker", "function fake", "fake").Faker(locale)
            seed = context.now_ns() if context.now_ns is not None else 0
            generator.seed_instance(context.require("random")(seed).getrandbits(64))
        return _plain(function, generator)

    return run


def _plain(function: str, generator: Any) -> Value:
    match function:
        case "":
            return generator.word()
        case "latitude" | "longitude":
            return real(float(getattr(generator, function)()))
        case "gender":
            return generator.random_element(("Male", "Female"))
        case "uuid_digit":
            return str(generator.uuid4()).replace("-", "")
        case "e164_phone_number":
            return "+" + generator.msisdn()
        case "unix_time":
            return int(generator.unix_time())
        case "timestamp":
            return generator.date_time().strftime("%Y-%m-%d %H:%M:%S")
        case "jwt":
            return ".".join(generator.sha256()[:32] for _ in range(3))
    return str(getattr(generator, _FAKERS[function])())
