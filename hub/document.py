"""JSON documents to values and back, without losing a number's text.

`1.10`, `12345678901234567890` and `1e400` are copied through untouched: a number whose text would not be
printed again is decoded to a `Number`, all others to `int` and `float`. Finding them must cost next to
nothing, since they are rare: a batch that prints as it was read has none (one memory comparison); one
that does not is searched for texts that might not survive, and only lines with such a text are decoded slowly.

Where parsers differ this follows Go: the last of duplicate keys wins, half a surrogate pair and bytes that
are not UTF-8 become U+FFFD, NaN and Infinity are refused, as is nesting deeper than about 1000 in what is
read and than 254 in what is printed.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import orjson
import re2

from hub.errors import RecordError

INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1


DEPTH_MAX: Final = 254
"""Arrays and objects within one another that can be printed. Reading goes deeper, so a document that only
passes through may have more."""


class DocumentError(RecordError):
    """Text that is no JSON document. `index` is its line in the batch, from 0."""

    def __init__(self, reason: str, index: int = 0) -> None:
        super().__init__(reason, component="document")
        self.index = index


class Number:
    """A number whose text Python would not print again. Copies keep the text; `plain` is for computing."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def plain(self) -> int | float:
        """The int64 it spells, else the float64. Beyond float64's range a RecordError."""
        if len(self.text) < 21:
            try:
                whole = int(self.text)
            except ValueError:
                pass
            else:
                if INT64_MIN <= whole <= INT64_MAX:
                    return whole
        found = float(self.text)
        if math.isinf(found):
            raise RecordError(f'strconv.ParseFloat: parsing "{self.text}": value out of range')
        return real(found)

    def json_text(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Number({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


class Real(float):
    """A float that is to be printed as Go prints it where orjson would not: `2`, `1e+21`, `0.000001`."""

    __slots__ = ()

    def json_text(self) -> str:
        return float_text(self)


def real(value: float) -> float:
    """A computed float as documents carry it: a `Real` when orjson would print it otherwise than Go."""
    if value.is_integer() or not 1e-5 <= (value if value >= 0 else -value) < 1e16:
        return Real(value)
    return value


def float_text(value: float) -> str:
    """A float as Go's encoding/json prints it: shortest digits, an exponent outside of 1e-6 … 1e21."""
    if math.isnan(value) or math.isinf(value):
        raise RecordError(f"json: unsupported value: {'NaN' if value != value else f'{value:+}'.title()}")
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    sign, digits, exponent = shortest(value)
    if 1e-6 <= abs(value) < 1e21:
        return sign + positional(digits, exponent)
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{mantissa}e{'-' if exponent < 1 else '+'}{abs(exponent - 1)}"


def shortest(value: float) -> tuple[str, str, int]:
    """Sign, digits d₁d₂… and exponent such that the value is 0.d₁d₂… × 10^exponent."""
    printed = float.__repr__(value)
    sign = "-" if printed[0] == "-" else ""
    mantissa, _, power = printed.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    if fraction == "0":
        fraction = ""
    digits = (whole + fraction).lstrip("0")
    exponent = (len(whole) if whole != "0" else len(digits) - len(fraction)) + int(power or 0)
    return sign, digits.rstrip("0") or "0", exponent


def positional(digits: str, exponent: int) -> str:
    """0.d₁d₂… × 10^exponent without an exponent."""
    if exponent <= 0:
        return "0." + "0" * -exponent + digits
    if exponent >= len(digits):
        return digits + "0" * (exponent - len(digits))
    return digits[:exponent] + "." + digits[exponent:]


# Decoding

_DECODER: Final = msgspec.json.Decoder()

_PERHAPS_LOST: Final = re2.compile(
    rb"[0-9][eE][-+0-9]|\.[0-9]+0[^0-9]|[^0-9]0\.0000|-0[^.0-9]|[0-9]{20}|-9[2-9][0-9]{17}|"
    rb"[0-9]\.[0-9]{13}|[0-9]{3}\.[0-9]{11}|[0-9]{5}\.[0-9]{9}|[0-9]{7}\.[0-9]{7}|"
    rb"[0-9]{9}\.[0-9]{5}|[0-9]{11}\.[0-9]{3}|[0-9]{13}\.[0-9]"
)
"""Any number that would be printed otherwise matches this; much else may. Decimals of up to 15 digits
survive float64 both ways."""


def decode(text: bytes) -> Any:
    """One JSON text to a value. Raises DocumentError."""
    try:
        found = orjson.loads(text)
    except ValueError:
        return _decode_exactly(text)
    if not _PERHAPS_LOST.search(text + b" "):
        return found
    return _decode_exactly(text)


def decode_lines(ndjson: bytes) -> list[Any]:
    """JSON lines to values. Raises DocumentError for the first line that is no document."""
    if b'": ' not in ndjson[:200]:
        try:
            docs: list[Any] = _DECODER.decode_lines(ndjson)
            if _prints_again(docs, ndjson):
                return docs
        except (msgspec.MsgspecError, RecursionError, ValueError):
            pass
    lines = [line for line in ndjson.split(b"\n") if line]
    if not _PERHAPS_LOST.search(ndjson):
        try:
            return list(map(orjson.loads, lines))
        except ValueError:
            pass
    return [_decode_line(line, index) for index, line in enumerate(lines)]


def _prints_again(docs: list[Any], ndjson: bytes) -> bool:
    """True when the values print as the very text they were read from: then no number lost its text, and
    every line was one value."""
    try:
        printed = orjson.dumps(docs)
    except TypeError:
        return False
    return printed[1:-1] == ndjson.rstrip(b"\n").replace(b"\n", b",")


def _decode_line(line: bytes, index: int) -> Any:
    try:
        return decode(line)
    except DocumentError as error:
        raise DocumentError(f"line {index + 1}: {error.reason}", index) from error


def _decode_exactly(text: bytes) -> Any:
    """Slowly, with every number's text at hand."""
    try:
        found = _EXACT.decode(text.decode("utf-8", "replace"))
        return _without_surrogates(found) if b"\\u" in text else found
    except RecursionError:
        raise DocumentError("exceeded max depth") from None
    except ValueError as error:
        raise DocumentError(f"not a JSON document: {error}") from error


def _int(text: str) -> int | Number:
    if len(text) <= 20 and text != "-0":
        whole = int(text)
        if INT64_MIN <= whole <= INT64_MAX:
            return whole
    return Number(text)


def _float(text: str) -> float | Number:
    found = float(text)
    if math.isinf(found) or orjson.dumps(found) != text.encode():
        return Number(text)
    return found


def _refused(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


_EXACT: Final = json.JSONDecoder(parse_int=_int, parse_float=_float, parse_constant=_refused)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return (
            value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        )
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


# Encoding

_BLOCK_BYTES: Final = 4096
"""orjson leaves even a short text in a block of so much."""
_LINES_AT_ONCE: Final = 128


def encode(value: Any) -> bytes:
    """A value to JSON text. A `bytes` is JSON text already and is copied as it is."""
    try:
        made = orjson.dumps(value, default=_metadata_part)
    except TypeError:
        return _encode_slowly(value, _metadata_part)
    # What is kept, such as the metadata of a batch of one record, is to hold no more than it is long.
    return bytes(memoryview(made)) if len(made) < _BLOCK_BYTES else made


def encode_lines(docs: Sequence[Any]) -> bytes:
    """Values to JSON lines, each ended by a line feed. A `bytes` in a document becomes base64. Raises
    DocumentError for the first that has no JSON text."""
    try:
        return plain_lines(docs, document_part)
    except TypeError:
        return b"".join([_encode_line(doc, index) for index, doc in enumerate(docs)])


def plain_lines(docs: Sequence[Any], part: Callable[[Any], Any]) -> bytes:
    """Values to JSON lines. `part` makes a value of what orjson does not print. Raises TypeError when it cannot."""
    # So few at a time use the same blocks again: 0.3 µs a document; 20,000 at once took 80 MB from the system and gave
    # them back: 5.5 µs.
    dumps, option = orjson.dumps, orjson.OPT_APPEND_NEWLINE
    return b"".join(
        [
            b"".join([dumps(doc, part, option) for doc in docs[at : at + _LINES_AT_ONCE]])
            for at in range(0, len(docs), _LINES_AT_ONCE)
        ]
    )


def _metadata_part(value: Any) -> Any:
    if isinstance(value, bytes):
        return orjson.Fragment(value)
    return document_part(value)


def document_part(value: Any) -> Any:
    """What orjson cannot print itself: `bytes` as base64, numbers and times by their `json_text()`."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    text = getattr(value, "json_text", None)
    if text is None:
        raise TypeError(f"{type(value).__name__} is not a JSON value")
    return orjson.Fragment(text().encode())


def _encode_line(value: Any, index: int) -> bytes:
    try:
        return _encode_slowly(value, document_part) + b"\n"
    except DocumentError as error:
        raise DocumentError(error.reason, index) from error


def _encode_slowly(value: Any, part: Any) -> bytes:
    """For what orjson refuses: strings that are not UTF-8, integers beyond 64 bits."""
    try:
        return orjson.dumps(_mended(value), default=part)
    except (RecursionError, TypeError) as error:
        why = error.__cause__
        if isinstance(why, RecordError):
            raise DocumentError(why.reason) from error
        if isinstance(error, RecursionError) or "Recursion limit" in str(error):
            raise DocumentError(f"a document may be nested {DEPTH_MAX} deep at most") from None
        raise


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if type(value) is int and not INT64_MIN <= value < 1 << 64:
        return Number(str(value))
    if isinstance(value, list | tuple):
        return [_mended(item) for item in value]
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    return value
