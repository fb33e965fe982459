"""Go's `fmt.Sprintf` over mapping values: `%v`, `%-8.3f`, `%[2]*[1]d`, and what it prints for mistakes.

The hard part is the mistakes: a verb that does not fit prints as `%!d(string=x)` with the flags of
the verb applied to the value inside, missing and extra arguments are named, and a number of a
document is a string of type `json.Number`. All of it follows the documented behaviour of package `fmt`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from hub.mapping.gotime import format_layout
from hub.mapping.limits import check_bytes
from hub.mapping.timestamp import Timestamp
from hub.mapping.values import (
    DELETE,
    NOTHING,
    Float32,
    Number,
    Real,
    Sentinel,
    Uint64,
    Value,
    float_g,
    go_quote,
    text,
    utf8,
)

_SIZE_MAX: Final = 1_000_000
"""Widths and precisions beyond this are refused, as in Go."""

_STRING_VERBS: Final = "vsxXq"


class _Flags:
    """Flags, width and precision of one verb."""

    __slots__ = ("minus", "plus", "plus_v", "prec", "sharp", "sharp_v", "space", "wid", "zero")

    def __init__(self) -> None:
        self.minus = self.plus = self.sharp = self.space = self.zero = False
        self.sharp_v = self.plus_v = False
        self.wid: int | None = None
        self.prec: int | None = None


def sprintf(layout: str, arguments: Sequence[Value]) -> str:
    """The layout with its verbs replaced by the arguments."""
    plain = plain_layout(layout)
    if plain is not None and len(plain[1]) == len(arguments):
        found = _joined(plain[0], plain[1], arguments)
        if found is not None:
            return found
    return _Printing(layout, arguments).run()


@lru_cache(maxsize=512)
def plain_layout(layout: str) -> tuple[list[str], list[str]] | None:
    """The literals and verbs of a layout that has only `%v`, `%s` and `%d`: most of them."""
    pieces = re.split("%([vsd])", layout)
    return None if any("%" in literal for literal in pieces[::2]) else (pieces[::2], pieces[1::2])


def _joined(literals: Sequence[str], verbs: Sequence[str], arguments: Sequence[Value]) -> str | None:
    """The text when every verb fits its argument, else None."""
    out = [literals[0]]
    for verb, argument, literal in zip(verbs, arguments, literals[1:], strict=True):
        kind = type(argument)
        if kind is str and verb != "d":
            out.append(argument)
        elif kind is int and verb != "s":
            out.append(str(argument))
        elif kind is Number and verb != "d":
            out.append(argument.text)
        else:
            return None
        out.append(literal)
    return "".join(out)


class _Printing:
    """One call: where it stands in the layout and in the arguments."""

    def __init__(self, layout: str, arguments: Sequence[Value]) -> None:
        self.layout = layout
        self.arguments = arguments
        self.at = 0
        self.number = 0
        self.reordered = False
        self.good_number = True
        self.after_index = False

    def run(self) -> str:
        out: list[str] = []
        layout, size = self.layout, 0
        while True:
            percent = layout.find("%", self.at)
            if percent < 0:
                out.append(layout[self.at :])
                break
            out.append(layout[self.at : percent])
            self.at = percent + 1
            out.append(self._verb())
            size += len(out[-1])
            check_bytes(size)
        if not self.reordered and self.number < len(self.arguments):
            extra = [
                "<nil>" if argument is None else f"{type_name(argument)}={show(argument, 'v', _Flags())}"
                for argument in self.arguments[self.number :]
            ]
            out.append(f"%!(EXTRA {', '.join(extra)})")
        return "".join(out)

    def _verb(self) -> str:
        layout, flags, bad = self.layout, _Flags(), ""
        self.good_number, self.after_index = True, False
        self._read_flags(flags)
        self._index()
        if layout[self.at : self.at + 1] == "*":
            self.at += 1
            flags.wid = self._int_argument()
            if flags.wid is None:
                bad += "%!(BADWIDTH)"
            elif flags.wid < 0:
                flags.wid, flags.minus, flags.zero = -flags.wid, True, False
            self.after_index = False
        else:
            flags.wid = self._digits()
            if self.after_index and flags.wid is not None:
                self.good_number = False
        if layout[self.at : self.at + 1] == ".":
            self.at += 1
            bad += self._precision(flags)
        if not self.after_index:
            self._index()
        if self.at >= len(layout):
            return bad + "%!(NOVERB)"
        verb = layout[self.at]
        self.at += 1
        if verb == "%":
            return bad + "%"
        if not self.good_number:
            return f"{bad}%!{verb}(BADINDEX)"
        if self.number >= len(self.arguments):
            return f"{bad}%!{verb}(MISSING)"
        if verb in "wv":
            flags.sharp_v, flags.sharp = flags.sharp, False
            flags.plus_v, flags.plus = flags.plus, False
        argument = self.arguments[self.number]
        self.number += 1
        return bad + show(argument, verb, flags)

    def _read_flags(self, flags: _Flags) -> None:
        while self.at < len(self.layout):
            match self.layout[self.at]:
                case "#":
                    flags.sharp = True
                case "0":
                    flags.zero = True
                case "+":
                    flags.plus = True
                case "-":
                    flags.minus = True
                case " ":
                    flags.space = True
                case _:
                    break
            self.at += 1
        if flags.minus:
            flags.zero = False

    def _precision(self, flags: _Flags) -> str:
        if self.after_index:
            self.good_number = False
        self._index()
        if self.layout[self.at : self.at + 1] == "*":
            self.at += 1
            flags.prec = self._int_argument()
            self.after_index = False
            if flags.prec is None or flags.prec < 0:
                flags.prec = None
                return "%!(BADPREC)"
        else:
            flags.prec = self._digits() or 0
        return ""

    def _digits(self) -> int | None:
        start = self.at
        while self.at < len(self.layout) and "0" <= self.layout[self.at] <= "9":
            self.at += 1
            if int(self.layout[start : self.at]) > _SIZE_MAX:
                self.at = len(self.layout)
                return None
        return int(self.layout[start : self.at]) if self.at > start else None

    def _index(self) -> None:
        """`[n]`: which argument is next."""
        self.after_index = False
        if self.layout[self.at : self.at + 1] != "[":
            return
        self.reordered = True
        end = self.layout.find("]", self.at + 1)
        if end < 0 or len(self.layout) - self.at < 3:
            self.at += 1
            self.good_number = False
            return
        inside = self.layout[self.at + 1 : end]
        self.at = end + 1
        digits = inside.isascii() and inside.isdigit() and len(inside) < 8
        if digits and 1 <= int(inside) <= len(self.arguments):
            self.number = int(inside) - 1
            self.after_index = True
            return
        self.good_number = False
        self.after_index = digits

    def _int_argument(self) -> int | None:
        if self.number >= len(self.arguments):
            return None
        argument = self.arguments[self.number]
        self.number += 1
        if isinstance(argument, int) and not isinstance(argument, bool) and abs(argument) <= _SIZE_MAX:
            return int(argument)
        return None


def type_name(value: Value) -> str:
    """The Go type of a value, as `%T` prints it."""
    if value is None:
        return "<nil>"
    if isinstance(value, Sentinel):
        return "value.Delete" if value is DELETE else "value.Nothing"
    return _TYPE_NAMES.get(type(value), "map[string]interface {}")


_TYPE_NAMES: Final[dict[type, str]] = {
    str: "string",
    bytes: "[]uint8",
    bool: "bool",
    int: "int64",
    Uint64: "uint64",
    float: "float64",
    Real: "float64",
    Float32: "float32",
    Number: "json.Number",
    Timestamp: "time.Time",
    list: "[]interface {}",
    dict: "map[string]interface {}",
}


def show(value: Value, verb: str, flags: _Flags, *, inner: bool = False) -> str:
    """One value printed by one verb. `inner` values stand in an array or object."""
    if value is None or value is DELETE or value is NOTHING:
        if verb == "T":
            return _pad(type_name(value), flags)
        if inner:
            return "interface {}(nil)" if flags.sharp_v else "<nil>"
        return _pad("<nil>", flags) if verb == "v" else f"%!{verb}(<nil>)"
    if verb == "T":
        return _string(type_name(value), "s", flags) or ""
    found = _printed(value, verb, flags)
    if found is None:
        return f"%!{verb}({type_name(value)}={_printed(value, 'v', flags)})"
    return found


def _printed(value: Value, verb: str, flags: _Flags) -> str | None:
    """The text, or None where the verb does not fit the value."""
    if isinstance(value, bool):
        return _pad("true" if value else "false", flags) if verb in "tv" else None
    if isinstance(value, str):
        return _string(value, verb, flags)
    if isinstance(value, Number):
        return _string(value.text, verb, flags)
    if isinstance(value, int):
        return _integer(value, verb, flags)
    if isinstance(value, float):
        return _float(value, verb, flags)
    if isinstance(value, bytes):
        return _bytes(value, verb, flags)
    if isinstance(value, Timestamp):
        if verb in _STRING_VERBS:
            return _string(format_layout("2006-01-02 15:04:05.999999999 -0700 MST", value), verb, flags)
        seconds, nanos = divmod(value.nanos, 1_000_000_000)
        return "{" + " ".join(show(n, verb, flags) for n in (nanos, seconds + 62_135_596_800, 0)) + "}"
    if isinstance(value, list):
        parts = [show(item, verb, flags, inner=True) for item in value]
        if flags.sharp_v:
            return "[]interface {}{" + ", ".join(parts) + "}"
        return "[" + " ".join(parts) + "]"
    if isinstance(value, dict):
        pairs = [
            show(key, verb, flags, inner=True) + ":" + show(value[key], verb, flags, inner=True)
            for key in sorted(value, key=utf8)
        ]
        if flags.sharp_v:
            return "map[string]interface {}{" + ", ".join(pairs) + "}"
        return "map[" + " ".join(pairs) + "]"
    return None


def _pad(found: str, flags: _Flags) -> str:
    if flags.wid is None or flags.wid <= len(found):
        return found
    if flags.minus:
        return found.ljust(flags.wid)
    return found.rjust(flags.wid, "0" if flags.zero else " ")


def _spaced(found: str, flags: _Flags) -> str:
    """Padded with spaces, also where the flag asks for zeros."""
    width = flags.wid or 0
    return found.ljust(width) if flags.minus else found.rjust(width)


def _string(value: str, verb: str, flags: _Flags) -> str | None:
    if verb in "xX":
        data = utf8(value)
        return _hex(data if flags.prec is None else data[: flags.prec], verb, flags)
    if flags.prec is not None:
        value = value[: flags.prec]
    if verb == "q" or (verb == "v" and flags.sharp_v):
        if flags.sharp and "`" not in value and all(c == "\t" or " " <= c != "\x7f" for c in value):
            return _pad(f"`{value}`", flags)
        return _pad(_ascii(go_quote(value)) if flags.plus else go_quote(value), flags)
    return _pad(value, flags) if verb in "sv" else None


def _ascii(quoted: str) -> str:
    return "".join(
        char if char < "\x80" else (f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}")
        for char in quoted
    )


def _hex(data: bytes, verb: str, flags: _Flags) -> str:
    lead = "0x" if flags.sharp else ""
    if flags.space:
        found = " ".join(f"{lead}{byte:02x}" for byte in data)
    else:
        found = lead + data.hex() if data else ""
    return _pad(found.upper() if verb == "X" else found, flags)


def _bytes(value: bytes, verb: str, flags: _Flags) -> str | None:
    if verb in "sqxX":
        return _string(text(value), verb, flags) if verb in "sq" else _hex(value, verb, flags)
    if verb == "v" and flags.sharp_v:
        return "[]uint8{" + ", ".join(f"{byte:#x}" for byte in value) + "}"
    parts = []
    for byte in value:
        part = _integer(byte, verb, flags)
        parts.append(f"%!{verb}(uint8={byte})" if part is None else part)
    return "[" + " ".join(parts) + "]"


def _integer(value: int, verb: str, flags: _Flags) -> str | None:
    value = int(value)
    match verb:
        case "v" | "d":
            return _digits(value, str(abs(value)), "", flags)
        case "b":
            return _digits(value, f"{abs(value):b}", "0b" if flags.sharp else "", flags)
        case "o" | "O":
            lead = "0o" if verb == "O" else "0" if flags.sharp and value else ""
            return _digits(value, f"{abs(value):o}", lead, flags)
        case "x":
            return _digits(value, f"{abs(value):x}", "0x" if flags.sharp else "", flags)
        case "X":
            return _digits(value, f"{abs(value):X}", "0X" if flags.sharp else "", flags)
        case "c":
            return _pad(_rune(value), flags)
        case "q":
            return _pad(_quoted_rune(_rune(value), flags), flags)
        case "U":
            found = f"U+{value & 0xFFFFFFFFFFFFFFFF:04X}"
            if flags.sharp and _rune(value).isprintable():
                found += f" '{_rune(value)}'"
            return _spaced(found, flags)
    return None


def _digits(value: int, digits: str, lead: str, flags: _Flags) -> str:
    sign = "-" if value < 0 else "+" if flags.plus else " " if flags.space else ""
    if flags.prec is not None:
        if flags.prec == 0 and value == 0:
            return " " * (flags.wid or 0)
        digits = digits.rjust(flags.prec, "0")
    elif flags.zero and flags.wid is not None:
        digits = digits.rjust(flags.wid - len(sign), "0")
    return _spaced(sign + lead + digits, flags)


def _rune(value: int) -> str:
    return chr(value) if 0 <= value <= 0x10FFFF and not 0xD800 <= value <= 0xDFFF else "\ufffd"


def _quoted_rune(char: str, flags: _Flags) -> str:
    if char == "'":
        return "'\\''"
    inside = '"' if char == '"' else go_quote(char)[1:-1]
    return f"'{_ascii(inside) if flags.plus else inside}'"


def _float(value: float, verb: str, flags: _Flags) -> str | None:
    found = _float_text(value, verb, flags)
    if found is None:
        return None
    sign = "-" if found[0] == "-" else "+" if flags.plus else " " if flags.space else ""
    digits = found.lstrip("-+")
    if flags.zero and flags.wid is not None and not math.isinf(value) and value == value:
        return sign + digits.rjust(flags.wid - len(sign), "0")
    return _spaced(sign + digits, flags)


def _float_text(value: float, verb: str, flags: _Flags) -> str | None:
    prec = flags.prec
    if verb not in "vgGeEfFxXb":
        return None
    if math.isinf(value) or value != value:
        return "NaN" if value != value else ("+Inf" if value > 0 else "-Inf")
    if verb in "eEfF":
        return f"{float(value):.{6 if prec is None else prec}{verb}}"
    if verb in "xX":
        found = _hexadecimal(float(value), prec, 4 if flags.sharp else 0)
        return found.upper() if verb == "X" else found
    if verb == "b":
        mantissa, exponent = math.frexp(value)
        return f"{int(mantissa * 2**53)}p{exponent - 53:+d}"
    found = float_g(value) if prec is None else f"{float(value):.{prec or 1}g}"
    if flags.sharp:
        found = _with_point(found, 6 if prec is None else prec)
    return found.upper() if verb == "G" else found


def _with_point(found: str, digits: int) -> str:
    """`#`: always a point, and zeros until so many digits are significant."""
    mantissa, e, exponent = found.partition("e")
    have = len(mantissa.lstrip("-0.").replace(".", ""))
    point = "" if "." in mantissa else "."
    return mantissa + point + "0" * max(digits - max(have, 1), 0) + e + exponent


def _hexadecimal(value: float, precision: int | None, digits_min: int) -> str:
    mantissa, _, exponent = value.hex().partition("p")
    lead, _, digits = mantissa.partition(".")
    power = int(exponent)
    if precision is None:
        digits = digits.rstrip("0").ljust(digits_min, "0")
    else:
        whole = int(lead[-1] + digits, 16)
        dropped = max(len(digits) - precision, 0) * 4
        rounded = (whole + ((1 << dropped) >> 1) - (1 - (whole >> dropped & 1) if dropped else 0)) >> dropped
        if rounded >> (min(precision, len(digits)) * 4) > 1:
            rounded, power = rounded >> 1, power + 1
        shown = f"{rounded:x}".rjust(min(precision, len(digits)) + 1, "0")
        lead, digits = lead[:-1] + shown[0], shown[1:].ljust(precision, "0")
    point = "." if digits else ""
    return f"{lead}{point}{digits}p{'-' if power < 0 else '+'}{abs(power):02d}"
