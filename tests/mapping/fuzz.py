"""Hostile mappings and documents without end: `python tests/mapping/fuzz.py SECONDS [SEED]`.

An input is a text, of one of four kinds, and a document. Texts are documented examples and seeds with pieces
cut, doubled and swapped, or calls of every function and method with arguments of any type. Whatever comes,
compiling and running must end, soon, in a value or in the language's own error, and a batch must do to each
record what is done to a record alone. What does not is printed with its text and counted; the exit code is 1
if there was any. `test_safety.py` runs some hundred inputs of it in every test run.
"""

from __future__ import annotations

import faulthandler
import random
import re
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from hub.mapping import EvaluationError, Message, ParseError, compile
from hub.mapping.registry import Declaration, functions, methods
from hub.record import Batch

INPUT_S_MAX: Final = 20
"""An input that takes longer hangs: the programme shows where, and ends."""

SEEDS: Final = [
    "root = this",
    'root.a = this.b.uppercase() + "x" | "y"',
    'root = match this.a {\n  1 => "x"\n  this > 2 => deleted()\n  _ => nothing()\n}\n',
    "if this.a == 1 {\n  root.b = 2\n} else {\n  meta c = @d\n}\n",
    'map m {\n  root.x = this.apply("m")\n}\nroot = this.apply("m").catch(err -> err)\n',
    'let v = this.arr.map_each(x -> x.a * -1.5 / 2 % 3)\nroot."q\\u00e9".z = $v[0].fold(0, t -> t.tally + t.value)\n',
    'root = "%v %s".format(this.a, [1, {"b": null}].string()) # note\n',
    'root.t = "2020-01-01".ts_parse("2006-01-02").ts_unix()\nroot.r = this.s.re_replace_all("a+", "b")\n',
    "root.a.b.0 = root\nroot.a.- = this\nroot.a = root.a.sort_by(x -> x).index(-1)\n",
    'meta = {"a": this.a}\nmeta b = @a + 1\nroot = @\nmeta a = deleted()\n',
    "root = range(0, 300).fold([], x -> [x.tally])\n",
]
ALPHABET: Final = "abcthisroot.$@()[]{}\"'\\|&!=<>+-*/%,:_0123456789 \n\t#\u00e9\x00\ud7ff"

DOCUMENTS: Final = [
    b'{"a":1,"b":"x","arr":[{"a":1},2],"s":"aab","v":"foo bar"}',
    b'{"a":[1,2.50,"x",null],"b":{"c":{"d":[]}},"arr":[3,1,2],"v":[[1],[2]]}',
    b'{"a":-9223372036854775809,"b":1e400,"arr":[18446744073709551615,-0],"v":12345678901234567890}',
    b'{"a":"\xff\xfe","b":"\\ud800","arr":["\\u0000"],"a":"twice","v":"\xc3\xa9"}',
    b'{"v":' + b"[" * 400 + b"]" * 400 + b',"arr":' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}",
    b'{"a":"2020-08-14T05:54:23Z","b":1597405526.5,"arr":["b","a","b"],"v":"aGVsbG8="}',
    b'{"":{"":1},"a.b":2,"~":3,"a":{"0":1,"-":2},"arr":[],"v":{}}',
    b"[1,{}]",
    b"5",
    b"null",
    b'"text"',
    b"not json",
    b"",
    b"{" * 100_000,
]
VALUES: Final = [
    "this", "this.v", "this.a", "this.b", "this.arr", "this.nope", "root", "$v", "@m", "@", "content()", "1", "-1", "0",
    "2.5", "9223372036854775807", '"x"', '""', '"a.b"', '"[a-z]+"', '"("', '"(a*)*$"', '"2006-01-02"', '"%Y"', '"UTC"', "true",
    "null", "[]", "[1, this.a]", "{}", '{"a": this.v}', "deleted()", "nothing()", 'throw("t")', "x -> x", "x -> x.a",
    'x -> x.string() + "!"', "_ -> true", "x -> throw(x)", "this.v.bytes()", "now()", "this.a.number()", '"md5"', '"base64"',
    '"gzip"', "this.v.timestamp()", "1000000", '"\\xff"', "l -> l.left < l.right", "t -> [t.tally, t.value]",
]  # fmt: skip

_LEAKED: Final = re.compile(
    r"(?:^|: )(?:Type|Key|Value|Attribute|Index|Name|ZeroDivision|Overflow|Unicode\w+|Assertion|Memory|Recursion|OS|"
    r"JSONEncode|Runtime|UnboundLocal|Lookup|Not\w+|Buffer|EOF|Decimal\w*|struct\.|re2?\.)Error: "
)
"""A Python exception shown as the text of an error: `State.broken` tells those it does not know so."""

KINDS: Final = ("mapping", "mutation", "query", "field")


def tried(text: str, document: bytes, kinds: tuple[Any, ...] = ("mapping", "field")) -> int:
    """Compiles and runs; how many of the kinds compiled. Anything but the language's own errors escapes."""
    compiled_kinds = 0
    for kind in kinds:
        try:
            compiled = compile(text, kind)
        except ParseError as error:
            assert error.line >= 1 and error.column >= 1
            assert "^---" in error.pretty()
            continue
        compiled_kinds += 1
        try:
            compiled.message([Message(document, {"m": "mv", "n": 5})])
        except EvaluationError as error:
            assert not _LEAKED.search(str(error)[:300]), str(error)[:300]
        if b"\n" in document or not document:
            continue
        batch = Batch("c", 2, ndjson=document + b'\n{"a":2,"v":"w"}\n', shared={"m": "mv", "n": 5})
        if kind in ("mapping", "mutation"):
            found = compiled.run(batch)
            assert found.count <= 2 and len(found.lines()) == found.count
            errors = [str(error) for error in (found.errors or {}).values()]
        elif kind == "field":
            resolved = compiled.resolve(batch)
            errors = [str(one) for one in resolved if isinstance(one, Exception)]
        else:
            errors = [str(one) for one in compiled.values(batch) if isinstance(one, Exception)]
        for shown in errors:
            assert not _LEAKED.search(shown[:300]), shown[:300]
    return compiled_kinds


def mutated(rng: random.Random, texts: list[str]) -> str:
    """A text with a few pieces cut, added, doubled or taken from another."""
    text = rng.choice(texts)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(4):
            case 0:
                text = text[:at] + rng.choice(ALPHABET) + text[at:]
            case 1:
                text = text[:at] + text[at + rng.randint(1, 4) :]
            case 2:
                other = rng.choice(texts)
                start = rng.randrange(len(other))
                text = text[:at] + other[start : start + rng.randint(1, 20)] + text[at:]
            case _:
                text = text[:at]
    return text


def called(rng: random.Random) -> str:
    """Calls of anything on anything: names and counts of arguments are right, their types need not be."""
    value = rng.choice(VALUES)
    for _ in range(rng.randint(1, 3)):
        declared = rng.choice(_METHODS)
        value = f"{value}.{declared.name}({_arguments(rng, declared)})"
    if rng.random() < 0.2:
        function = rng.choice(_FUNCTIONS)
        value = (
            f"{value} {rng.choice(['+', '|', '==', '<', '&&'])} {function.name}({_arguments(rng, function)})"
        )
    target = rng.choice(["root", "root.x", "root.a.0", "meta k", "let v", "root.v.-"])
    return f"let v = this.v\n{target} = {value}\nroot.y = $v"


def _arguments(rng: random.Random, declared: Declaration) -> str:
    if declared.variadic:
        return ", ".join(rng.choices(VALUES, k=rng.randint(0, 3)))
    given = [param for param in declared.params if not param.optional or rng.random() < 0.4]
    if len(given) > 1 and rng.random() < 0.3:
        return ", ".join(f"{param.name}: {rng.choice(VALUES)}" for param in given)
    return ", ".join(rng.choice(VALUES) for _ in given)


_METHODS: Final = [declared for name, declared in sorted(methods().items()) if not declared.missing]
_FUNCTIONS: Final = [declared for name, declared in sorted(functions().items()) if not declared.missing]
_EXAMPLES: Final = [
    example.mapping for declared in (*_METHODS, *_FUNCTIONS) for example in declared.examples
] + SEEDS


def texts(rng: random.Random) -> Callable[[], str]:
    """A source of texts."""

    def one() -> str:
        made = rng.random()
        if made < 0.45:
            return mutated(rng, _EXAMPLES)
        if made < 0.9:
            return called(rng)
        return "".join(
            f"{rng.choice(['', 'a', '$'])}${{! {called(rng).split(' = ', 2)[-1]} }}" for _ in range(2)
        )

    return one


def main() -> int:
    """The command."""
    seconds = float(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    rng = random.Random(seed)
    make = texts(rng)
    inputs = ran = found = 0
    started = shown = time.monotonic()
    print(f"seed {seed}", flush=True)
    while (now := time.monotonic()) - started < seconds:
        if now - shown > 60:
            shown = now
            print(f"{now - started:.0f} s: {inputs} inputs, {ran} compiled, {found} findings", flush=True)
        text, document = make(), rng.choice(DOCUMENTS)
        inputs += 1
        faulthandler.dump_traceback_later(INPUT_S_MAX, exit=True)
        try:
            ran += tried(text, document, (rng.choice(KINDS), "mapping"))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                break
            found += 1
            print(
                f"FOUND {type(error).__name__}: {str(error)[:400]}\n  {text!r}\n  {document[:200]!r}",
                flush=True,
            )
        finally:
            faulthandler.cancel_dump_traceback_later()
    print(f"{inputs} inputs, {ran} compiled and run, {found} findings, seed {seed}", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
