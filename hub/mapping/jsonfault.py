"""Why a text is no JSON, in the words of Go's encoding/json.

Error texts of mappings contain them, and people search for them. The grammar is JSON's; what has to be
kept is at which byte Go gives up and what it says it was looking for.
"""

from __future__ import annotations

from typing import Final

_BLANKS: Final = b" \t\r\n"
_DIGITS: Final = b"0123456789"
_HEX: Final = b"0123456789abcdefABCDEF"
NESTING_MAX: Final = 10000


class _Fault(Exception):
    pass


class _End(Exception):
    pass


def json_fault(data: bytes, *, end: str = "unexpected EOF", after: bool = False) -> str | None:
    """What Go says of this text, or None if it is one JSON value.

    `end` is said of a text that stops too soon. Text after the value is a fault if `after`, with the
    words of `json.Unmarshal`; else it is told as a second document.
    """
    scan = _Scan(data)
    try:
        scan.value()
        scan.blanks()
    except _Fault as fault:
        return str(fault)
    except _End:
        return end
    if scan.at < len(data):
        if after:
            return f"invalid character {scan.shown()} after top-level value"
        return json_fault(data[scan.at :], end=end) or "message contains multiple valid documents"
    return None


class _Scan:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def peek(self) -> int:
        if self.at >= len(self.data):
            raise _End
        return self.data[self.at]

    def blanks(self) -> None:
        while self.at < len(self.data) and self.data[self.at] in _BLANKS:
            self.at += 1

    def shown(self) -> str:
        char = self.data[self.at]
        if char == 0x27:
            return "'\\''"
        if char == 0x22:
            return "'\"'"
        named = {7: "a", 8: "b", 12: "f", 10: "n", 13: "r", 9: "t", 11: "v", 92: "\\"}
        if char in named:
            return f"'\\{named[char]}'"
        if char < 32 or char == 127:
            return f"'\\x{char:02x}'"
        shown = chr(char)
        return f"'{shown}'" if shown.isprintable() else f"'\\u{char:04x}'"

    def fault(self, where: str) -> _Fault:
        return _Fault(f"invalid character {self.shown()} {where}")

    def value(self) -> None:
        """One value, without recursion: `open_` holds the closing bytes still owed."""
        open_: list[int] = []
        while True:
            self.blanks()
            char = self.peek()
            self.at += 1
            if char == 0x7B or char == 0x5B:
                if len(open_) >= NESTING_MAX:
                    raise _Fault("exceeded max depth")
                self.blanks()
                closing = 0x7D if char == 0x7B else 0x5D
                if self.peek() == closing:
                    self.at += 1
                else:
                    open_.append(closing)
                    if closing == 0x7D:
                        self.key()
                    continue
            else:
                self.at -= 1
                self.scalar(char)
            while open_:
                self.blanks()
                char = self.peek()
                if char == open_[-1]:
                    open_.pop()
                    self.at += 1
                    continue
                if char != 0x2C:
                    what = "object key:value pair" if open_[-1] == 0x7D else "array element"
                    raise self.fault(f"after {what}")
                self.at += 1
                if open_[-1] == 0x7D:
                    self.key()
                break
            else:
                return

    def key(self) -> None:
        self.blanks()
        if self.peek() != 0x22:
            raise self.fault("looking for beginning of object key string")
        self.string()
        self.blanks()
        if self.peek() != 0x3A:
            raise self.fault("after object key")
        self.at += 1

    def scalar(self, char: int) -> None:
        if char == 0x22:
            self.string()
        elif char == 0x2D or char in _DIGITS:
            self.number()
        else:
            for word in (b"true", b"false", b"null"):
                if char == word[0]:
                    self.word(word)
                    return
            raise self.fault("looking for beginning of value")

    def word(self, word: bytes) -> None:
        for expected in word:
            if self.peek() != expected:
                raise self.fault(f"in literal {word.decode()} (expecting '{chr(expected)}')")
            self.at += 1

    def string(self) -> None:
        self.at += 1
        while True:
            char = self.peek()
            if char == 0x22:
                self.at += 1
                return
            if char < 0x20:
                raise self.fault("in string literal")
            self.at += 1
            if char != 0x5C:
                continue
            escape = self.peek()
            if escape not in b'bfnrt\\/"u':
                raise self.fault("in string escape code")
            self.at += 1
            if escape == 0x75:
                for _ in range(4):
                    if self.peek() not in _HEX:
                        raise self.fault("in \\u hexadecimal character escape")
                    self.at += 1

    def number(self) -> None:
        if self.data[self.at] == 0x2D:
            self.at += 1
            if self.peek() not in _DIGITS:
                raise self.fault("in numeric literal")
        if self.data[self.at] == 0x30:
            self.at += 1
        else:
            self.digits()
        if self.data[self.at : self.at + 1] == b".":
            self.at += 1
            if self.peek() not in _DIGITS:
                raise self.fault("after decimal point in numeric literal")
            self.digits()
        if self.data[self.at : self.at + 1] in (b"e", b"E"):
            self.at += 1
            if self.peek() in b"+-":
                self.at += 1
            if self.peek() not in _DIGITS:
                raise self.fault("in exponent of numeric literal")
            self.digits()

    def digits(self) -> None:
        while self.at < len(self.data) and self.data[self.at] in _DIGITS:
            self.at += 1
