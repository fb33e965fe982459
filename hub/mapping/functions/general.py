"""Functions that make values: numbers, ranges, identifiers, counters."""

from __future__ import annotations

import math
import threading
import uuid
from collections.abc import Callable
from typing import Any, Final

from hub.mapping.context import Context
from hub.mapping.conversions import finite, to_signed
from hub.mapping.identifiers import ksuid, nanoid, snowflake, ulid, uuid_v7
from hub.mapping.limits import check_bytes, check_items
from hub.mapping.receivers import as_array, as_float
from hub.mapping.registry import Example, Param, function
from hub.mapping.timestamp import Timestamp
from hub.mapping.values import DELETE, INT64_MAX, EvaluationError, Lambda, Value, int64, wrong_type

CATEGORY: Final = "General"


@function(
    "pi",
    category=CATEGORY,
    doc="The number π.",
    examples=[Example("root.v = pi().floor()", (("{}", '{"v":3}'),))],
)
def _pi() -> float:
    return math.pi


@function(
    "throw",
    category=CATEGORY,
    params=[Param("why", "string", doc="What the error says.")],
    doc="Fails with an error, which `catch` can handle; else the record becomes a dead letter.",
    examples=[
        Example('root.v = if this.v < 0 { throw("negative") } else { this.v }', (('{"v":1}', '{"v":1}'), ('{"v":-1}', "Error: failed assignment (line 1): negative"))),
    ],
)  # fmt: skip
def _throw(why: str) -> Value:
    raise EvaluationError(why)


@function(
    "bytes",
    category=CATEGORY,
    params=[Param("length", "integer", doc="How many bytes.")],
    prepared=True,
    doc="So many zero bytes.",
    examples=[Example("root.n = bytes(5).length()", (("{}", '{"n":5}'),))],
)
def _bytes(length: int) -> Callable[[], bytes]:
    if length < 0:
        raise EvaluationError(f"length must not be negative, got {length}")
    check_bytes(length)
    return lambda: b"\x00" * length


@function(
    "range",
    category=CATEGORY,
    params=[
        Param("start", "integer", doc="The first number."),
        Param("stop", "integer", doc="Where to stop; not included."),
        Param("step", "integer", 1, "From one number to the next; may be negative."),
    ],
    prepared=True,
    doc="An array of whole numbers.",
    examples=[Example("root.v = range(0, this.n, 2)", (('{"n":5}', '{"v":[0,2]}'),))],
)
def _range(start: int, stop: int, step: int) -> Callable[[], list[Any]]:
    if not step:
        raise EvaluationError("step must be greater than or less than 0")
    if step < 0 and stop > start:
        raise EvaluationError(f"with negative step arg stop ({stop}) must be <= start ({start})")
    if step > 0 and start >= stop:
        raise EvaluationError(f"with positive step arg start ({start}) must be < stop ({stop})")
    # The engine counts whole steps that fit between the two and leaves out a last partial one.
    count = abs(stop - start) // abs(step)
    check_items(count)
    return lambda: [start + index * step for index in range(count)]


@function(
    "cosine_similarity",
    category=CATEGORY,
    params=[Param("a", "unknown", doc="An array of numbers."), Param("b", "unknown", doc="As many numbers.")],
    doc="The cosine of the angle between two vectors: 1 for the same direction, 0 for a right angle.",
    examples=[Example("root.v = cosine_similarity(this.a, this.b)", (('{"a":[1,0],"b":[0,1]}', '{"v":0}'),))],
)
def _cosine_similarity(a: Value, b: Value) -> float:
    left = [as_float(item) for item in as_array(a)]
    right = [as_float(item) for item in as_array(b)]
    if len(left) != len(right):
        raise EvaluationError("vectors must be of equal length")
    norm = math.hypot(*left) * math.hypot(*right)
    if not norm:
        raise EvaluationError("null vectors are not supported")
    return finite(math.fsum(x * y for x, y in zip(left, right, strict=True)) / norm)


@function(
    "random_int",
    category=CATEGORY,
    params=[
        Param(
            "seed", "query", 0, "A seed, asked for once; the same seed gives the same sequence.", scalars=True
        ),
        Param("min", "integer", 0, "The smallest answer."),
        Param("max", "integer", INT64_MAX - 1, "The largest answer."),
    ],
    needs=["random"],
    prepared=True,
    pure=False,
    doc="A random whole number between two bounds, both included. Without a seed of its own each mapping "
    "starts from the clock.",
    examples=[Example("root.v = random_int(min: 5, max: 5)", (("{}", '{"v":5}'),))],
)
def _random_int(context: Context, seed: Lambda, low: int, high: int) -> Callable[[], int]:
    if low < 0:
        raise EvaluationError(f"min ({low}) must be a positive number")
    if low > high:
        raise EvaluationError(f"min ({low}) must be smaller or equal than max ({high})")
    generator: Any = None

    def run() -> int:
        nonlocal generator
        if generator is None:
            chosen = to_signed(seed(None), 64)
            if not chosen and context.now_ns is not None:
                chosen = context.now_ns()
            generator = context.require("random")(chosen)
        found: int = generator.randint(low, high)
        return found

    return run


@function(
    "counter",
    category=CATEGORY,
    status="experimental",
    params=[
        Param("min", "query", 1, "Where to start.", scalars=True),
        Param("max", "query", INT64_MAX, "After this it starts again.", scalars=True),
        Param(
            "set",
            "query",
            None,
            "A number sets the counter, null reads it, `deleted()` resets it.",
            scalars=True,
        ),
    ],
    prepared=True,
    pure=False,
    doc="A number that rises by one each time this place of the mapping is evaluated.",
    examples=[
        Example("root.v = counter()", (("{}", '{"v":1}'),)),
        Example("root.v = counter(min: 7)", (("{}", '{"v":7}'),)),
    ],
)
def _counter(low: Lambda, high: Lambda, change: Lambda | None) -> Callable[[], int]:
    return _Counter(low, high, change).next


class _Counter:
    """The state of one `counter()` in one mapping."""

    def __init__(self, low: Lambda, high: Lambda, change: Lambda | None) -> None:
        self.low, self.high, self.change = low, high, change
        self.lock = threading.Lock()
        self.bounds: tuple[int, int] | None = None
        self.value = 0

    def next(self) -> int:
        with self.lock:
            low, high = self.bounds or self._start()
            if self.change is not None:
                found = self.change(None)
                if found is None:
                    return self.value
                if found is DELETE:
                    self.value = low
                    return low
                if isinstance(found, bool) or not isinstance(found, int | float):
                    raise wrong_type(found, "number").within("failed to resolve set argument: ")
                self.value = int64(int(found))
                return self.value
            self.value = low if self.value >= high else self.value + 1
            return self.value

    def _start(self) -> tuple[int, int]:
        low = _bound(self.low, "min")
        if low < 0:
            raise EvaluationError(f"min argument must be >0, got {low}")
        high = _bound(self.high, "max")
        if high < low:
            raise EvaluationError(f"max argument must be >0 and >min, got {high}")
        self.value = low - 1
        self.bounds = (low, high)
        return self.bounds


def _bound(query: Lambda, name: str) -> int:
    try:
        return to_signed(query(None), 64)
    except EvaluationError as error:
        raise error.within(f"failed to resolve {name} argument: ") from error


@function(
    "count",
    category="Deprecated",
    status="deprecated",
    params=[Param("name", "string", doc="The name of the counter.")],
    needs=["counters"],
    pure=False,
    doc="A number that rises by one each time a counter of this name is asked for, in any mapping of the process. "
    "Use `counter`.",
)
def _count(context: Context, name: str) -> int:
    return context.counters.next(name)


@function(
    "uuid_v4",
    category=CATEGORY,
    needs=["entropy"],
    pure=False,
    doc="A random UUID.",
    examples=[Example("root.n = uuid_v4().length()", (("{}", '{"n":36}'),))],
)
def _uuid_v4(context: Context) -> str:
    return str(uuid.UUID(bytes=context.require("entropy")(16), version=4))


@function(
    "uuid_v7",
    category=CATEGORY,
    params=[Param("time", "timestamp", None, "The time it holds; the present by default.")],
    needs=["entropy", "now_ns"],
    pure=False,
    doc="A UUID that sorts by time.",
    examples=[
        Example('root.v = uuid_v7("2020-01-01T00:00:00Z").slice(0, 13)', (("{}", '{"v":"016f5e66-e800"}'),))
    ],
)
def _uuid_v7(context: Context, time: Timestamp | None) -> str:
    nanos = context.require("now_ns")() if time is None else time.nanos
    return uuid_v7(nanos, context.require("entropy")(10))


@function(
    "ksuid",
    category=CATEGORY,
    needs=["entropy", "now_ns"],
    pure=False,
    doc="A KSUID: 27 letters and digits that sort by time, to the second.",
    examples=[Example("root.n = ksuid().length()", (("{}", '{"n":27}'),))],
)
def _ksuid(context: Context) -> str:
    return ksuid(context.require("now_ns")(), context.require("entropy")(16))


@function(
    "nanoid",
    category=CATEGORY,
    params=[
        Param("length", "integer", None, "How many characters; 21 by default."),
        Param("alphabet", "string", None, "The characters to choose from; needs a length."),
    ],
    needs=["entropy"],
    prepared=True,
    pure=False,
    doc="A random id of letters, digits, `-` and `_`, or of an alphabet.",
    examples=[Example('root.v = nanoid(5, "a")', (("{}", '{"v":"aaaaa"}'),))],
)
def _nanoid(context: Context, length: int | None, alphabet: str | None) -> Callable[[], str]:
    if alphabet is not None and length is None:
        raise EvaluationError("field length must be specified when an alphabet is specified")
    size = 21 if length is None else length
    check_bytes(size)
    return lambda: nanoid(size, alphabet, context.require("entropy"))


@function(
    "ulid",
    category=CATEGORY,
    params=[
        Param("encoding", "string", "crockford", "`crockford` or `hex`."),
        Param(
            "random_source",
            "string",
            "secure_random",
            "`secure_random` or `fast_random`; both are secure here.",
        ),
    ],
    needs=["entropy", "now_ns"],
    prepared=True,
    pure=False,
    doc="A ULID: 26 letters and digits that sort by time, to the millisecond.",
    examples=[
        Example("root.n = ulid().length()", (("{}", '{"n":26}'),)),
        Example('root.n = ulid("hex").length()', (("{}", '{"n":32}'),)),
    ],
)
def _ulid(context: Context, encoding: str, random_source: str) -> Callable[[], str]:
    if encoding not in ("crockford", "hex"):
        raise EvaluationError(f"invalid ulid encoding: {encoding}")
    if random_source not in ("secure_random", "fast_random"):
        raise EvaluationError(f"invalid randomness source: {random_source}")
    return lambda: ulid(context.require("now_ns")(), context.require("entropy")(10), encoding)


@function(
    "snowflake_id",
    category=CATEGORY,
    params=[Param("node_id", "integer", 1, "The number of this node, from 0 to 1023.")],
    needs=["now_ns"],
    prepared=True,
    pure=False,
    doc="A Snowflake id: a number, as a string, of the time, the node and a sequence.",
    examples=[Example("root.v = snowflake_id(2).number() > 0", (("{}", '{"v":true}'),))],
)
def _snowflake_id(context: Context, node_id: int) -> Callable[[], str]:
    if not 0 <= node_id <= 1023:
        raise EvaluationError("Node number must be between 0 and 1023")
    return snowflake(node_id, context.require("now_ns"))
