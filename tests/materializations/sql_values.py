"""Random values of every type, written in one table and read back: what went in as JSON comes out as equal JSON."""

from __future__ import annotations

import math
import random
import struct
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID as Uuid

from hub.materialization import Rejected
from hub.record import Batch, TaskName
from hub.schema import ColumnType, describe
from hub.schema.types import BOOLEAN, DATE, FLOAT64, INT64
from hub.testing.histories import COLLECTION, COLUMNS
from hub.testing.materialization import Subject, binding_of, cursor_at
from hub.testing.values import canonical

ROWS = 400


async def check_round_trip(subject: Subject, seed: int) -> None:
    """Raise `AssertionError` where a value that was taken is not the same when it is read."""
    chance = random.Random(seed)
    kinds = {name: kind for name, (kind, _) in TYPES.items()}
    docs = [{"key": index, **{name: one(chance) for name, one in _optional()}} for index in range(ROWS)]
    schema = describe(COLLECTION, {"key": INT64.null(False), **kinds}, ("key",))
    binding = binding_of(subject.materialization, {})
    async with subject.materialization.open(TaskName("values")) as sink:
        await sink.restore()
        await sink.describe(binding, schema)
        try:
            await sink.write(binding, Batch.of_docs(COLLECTION, docs))
        except Rejected as refusal:
            raise AssertionError(f"refused: {refusal.reasons}") from refusal
        await sink.commit(cursor_at(1))
    found = {int(row["key"]): row for row in subject.read("things", {"key": INT64, **kinds})}
    assert len(found) == ROWS
    for doc in docs:
        for name, kind in kinds.items():
            wanted = canonical(doc[name], kind)
            held = canonical(found[doc["key"]][name], kind)
            assert held == wanted, f"{name}: {doc[name]!r} came back as {found[doc['key']][name]!r}"


def _optional() -> list[tuple[str, Callable[[random.Random], Any]]]:
    return [
        (name, lambda chance, one=one: None if chance.random() < 0.05 else one(chance))
        for name, (_, one) in TYPES.items()
    ]


def _text(chance: random.Random, longest: int = 60) -> str:
    ranges = ((1, 0x7F), (0x20, 0x7E), (0x80, 0x7FF), (0x4E00, 0x9FFF), (0x1F300, 0x1FAFF))
    return "".join(chr(chance.randint(*chance.choice(ranges))) for _ in range(chance.randint(0, longest)))


def _integer(bits: int) -> Callable[[random.Random], int]:
    def one(chance: random.Random) -> int:
        size = chance.randint(0, bits - 1)
        return chance.choice(
            (chance.randint(-(1 << size), (1 << size) - 1), -(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        )

    return one


def _float32(chance: random.Random) -> float:
    while True:
        found = float(struct.unpack("<f", struct.pack("<I", chance.getrandbits(32)))[0])
        # Seven digits are what its text is sure to keep.
        if math.isfinite(found) and (found == 0 or abs(found) > 1.2e-38):
            return float(f"{found:.6g}")


def _float64(chance: random.Random) -> float:
    while True:
        found = float(struct.unpack("<d", struct.pack("<Q", chance.getrandbits(64)))[0])
        if math.isfinite(found):
            return chance.choice((found, round(chance.uniform(-1e6, 1e6), 3)))


def _decimal(whole: int, scale: int) -> Callable[[random.Random], str]:
    def one(chance: random.Random) -> str:
        digits = str(chance.randrange(10 ** chance.randint(0, whole)))
        after = "".join(chance.choice("0123456789") for _ in range(chance.randint(0, scale)))
        return chance.choice(("", "-")) + digits + (f".{after}" if after else "")

    return one


def _moment(chance: random.Random) -> datetime:
    first = datetime(1000, 1, 2)
    span = int((datetime(9999, 12, 30) - first).total_seconds())
    micros = chance.choice((0, 1, 999_999, chance.randrange(1_000_000)))
    return first + timedelta(seconds=chance.randrange(span), microseconds=micros)


def _timestamptz(chance: random.Random) -> str:
    offset = timezone(timedelta(minutes=chance.choice((0, 60, -330, 14 * 60, -12 * 60))))
    text = _moment(chance).replace(tzinfo=UTC).astimezone(offset).isoformat()
    return text.replace("+00:00", "Z")


def _interval(chance: random.Random) -> str:
    sign = chance.choice(("", "-"))
    days = f"P{sign}{chance.randrange(50)}Y{sign}{chance.randrange(12)}M{sign}{chance.randrange(40)}D"
    return f"{days}T{sign}{chance.randrange(30)}H{sign}{chance.randrange(60)}M{sign}{chance.randrange(60)}.{chance.randrange(1, 10**6):06}S"


def _json(chance: random.Random, depth: int = 3) -> Any:
    choice = chance.randrange(8 if depth else 6)
    match choice:
        case 0:
            return chance.choice((True, False))
        case 1:
            return chance.randint(-(1 << 53), 1 << 53)
        case 2:
            return round(chance.uniform(-1e9, 1e9), chance.randint(0, 6))
        case 3 | 4 | 5:
            return _text(chance, 12)
        case 6:
            return [chance.choice((None, _json(chance, depth - 1))) for _ in range(chance.randint(0, 4))]
        case _:
            return {_text(chance, 6): _json(chance, depth - 1) for _ in range(chance.randint(0, 4))}


def _array(one: Callable[[random.Random], Any]) -> Callable[[random.Random], list[Any]]:
    return lambda chance: [
        None if chance.random() < 0.1 else one(chance) for _ in range(chance.randint(0, 5))
    ]


VALUES: dict[str, Callable[[random.Random], Any]] = {
    "text": _text,
    "varchar": lambda chance: _text(chance, 10),
    "small": _integer(16),
    "int": _integer(32),
    "big": _integer(64),
    "unsigned": lambda chance: chance.getrandbits(chance.randint(0, 64)),
    "real": _float32,
    "double": _float64,
    "money": _decimal(10, 2),
    "numeric": _decimal(40, 30),
    "flag": lambda chance: chance.random() < 0.5,
    "day": lambda chance: _moment(chance).date().isoformat(),
    "at": lambda chance: _moment(chance).isoformat(),
    "instant": _timestamptz,
    "clock": lambda chance: _moment(chance).time().isoformat(),
    "clocktz": lambda chance: _moment(chance).time().isoformat() + chance.choice(("+00", "-08", "+05:30")),
    "span": _interval,
    "uuid": lambda chance: str(Uuid(int=chance.getrandbits(128))),
    "bytes": lambda chance: b64encode(chance.randbytes(chance.randrange(40))).decode(),
    "json": _json,
    "object": lambda chance: {_text(chance, 6): _json(chance) for _ in range(3)},
    "ints": _array(_integer(64)),
    "texts": _array(_text),
}
"""Makers of values for the columns that histories have."""

TYPES = {name: (COLUMNS[name][0], one) for name, one in VALUES.items()} | {
    "wide": (ColumnType("decimal", precision=38, scale=10), _decimal(28, 10)),
    "doubles": (ColumnType("array", items=FLOAT64), _array(_float64)),
    "flags": (ColumnType("array", items=BOOLEAN), _array(lambda chance: chance.random() < 0.5)),
    "days": (ColumnType("array", items=DATE), _array(lambda chance: _moment(chance).date().isoformat())),
}
