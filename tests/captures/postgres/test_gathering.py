"""What the feed makes of messages, however they are cut and whenever it is asked for what it has."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from hub.record import TaskName
from hub_captures.postgres import pgoutput
from hub_captures.postgres.cells import UNCHANGED
from hub_captures.postgres.changes import RowForm, changes_of
from hub_captures.postgres.feed import Feed
from hub_captures.postgres.gathered import Gathered
from hub_captures.postgres.layout import layout
from hub_captures.postgres.pgoutput import Relation, RelationColumn
from hub_captures.postgres.types import PgType

TYPES = {25: PgType(25, "pg_catalog", "text", "b"), 20: PgType(20, "pg_catalog", "int8", "b")}
COLUMNS = (("id", 20, -1), ("a", 25, -1), ("b", 25, -1))


class Row(NamedTuple):
    table: int
    kind: str
    old: tuple[Any, ...] | None
    new: tuple[Any, ...]


class Record(NamedTuple):
    op: int
    line: bytes
    metadata: dict[str, Any]


values = (
    st.none()
    | st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=6)
    | st.just("t" * 300)
)
toast = values | st.just(UNCHANGED)
numbers = st.integers(0, 9).map(str)
rows = st.one_of(
    st.builds(Row, st.integers(0, 1), st.just("I"), st.none(), st.tuples(numbers, values, values)),
    st.builds(Row, st.integers(0, 1), st.just("U"), st.none(), st.tuples(numbers, values, toast)),
    st.builds(
        Row,
        st.integers(0, 1),
        st.just("U"),
        st.tuples(numbers, values, values),
        st.tuples(numbers, values, toast),
    ),
    st.builds(Row, st.integers(0, 1), st.just("D"), st.tuples(numbers, st.none(), st.none()), st.just(())),
    st.builds(Row, st.integers(0, 1), st.just("D"), st.tuples(numbers, values, values), st.just(())),
)
transactions = st.lists(
    st.one_of(
        st.lists(rows, min_size=1, max_size=4),
        st.builds(lambda row, count: [row] * count, rows, st.integers(1, 40)),
        st.builds(
            lambda table, count: [Row(table, "I", None, (str(n), "é", None)) for n in range(count)],
            st.integers(0, 1),
            st.integers(8, 600),
        ),
    ),
    max_size=6,
)


def image(cells: Sequence[Any]) -> bytes:
    parts = [struct.pack(">H", len(cells))]
    for cell in cells:
        if cell is None or cell is UNCHANGED:
            parts.append(b"n" if cell is None else b"u")
        else:
            parts.append(b"t" + struct.pack(">I", len(cell.encode())) + cell.encode())
    return b"".join(parts)


def message_of(row: Row, lsn: int) -> bytes:
    parts = [b"w", struct.pack(">QQQ", lsn, lsn, 0), row.kind.encode(), struct.pack(">I", 70 + row.table)]
    if row.old is not None:
        is_key = row.kind == "D" and row.old[1:] == (None, None)
        parts += [b"K" if is_key else b"O", image(row.old)]
    if row.new:
        parts += [b"N", image(row.new)]
    return b"".join(parts)


def stream_of(given_transactions: Sequence[Sequence[Row]]) -> Iterator[bytes]:
    lsn = 0x7400_0000
    for xid, made in enumerate(given_transactions, start=1):
        yield b"w" + struct.pack(">QQQ", lsn, lsn, 0) + b"B" + struct.pack(">QqI", lsn + 9, 0, xid)
        for row in made:
            lsn += 1
            yield message_of(row, lsn)
        yield b"w" + struct.pack(">QQQ", lsn, lsn, 0) + b"C\0" + struct.pack(">QQq", lsn + 9, lsn + 10, 0)
        lsn += 10


def table_of(number: int) -> Gathered:
    made = layout(TaskName("t"), "s", f"t{number}", COLUMNS, ("id",), TYPES)
    columns = tuple(RelationColumn(name, oid, modifier, name == "id") for name, oid, modifier in COLUMNS)
    relation = Relation(70 + number, "s", f"t{number}", "d", columns)
    return Gathered(made.schema, relation, RowForm(made.decoder, made.key_indexes, (0,)), None)


def expected_of(messages: Sequence[bytes], tables: Sequence[Gathered]) -> dict[str, list[Record]]:
    expected: dict[str, list[Record]] = {table.collection: [] for table in tables}
    begin = None
    for b in messages:
        if b[25:26] == b"B":
            begin = pgoutput.begin(b)
        elif b[25:26] != b"C":
            assert begin is not None
            table = tables[int.from_bytes(b[26:30]) - 70]
            for change in changes_of(b, table.form):
                metadata = dict(change.metadata) | {
                    "lsn": int.from_bytes(b[1:9]),
                    "transaction_id": begin.xid,
                }
                expected[table.collection].append(Record(change.op, change.line, metadata))
    return expected


@given(transactions, st.data())
def test_records_are_those_of_the_messages_in_their_order(
    given_transactions: list[list[Row]], data: st.DataObject
) -> None:
    tables = [table_of(0), table_of(1)]
    feed = Feed(record_bytes_max=1 << 20, may_omit=False)
    for table in tables:
        feed.place(table.relation, table)
    messages = list(stream_of(given_transactions))
    found: dict[str, list[Record]] = {table.collection: [] for table in tables}
    left = messages
    while left:
        count = data.draw(st.integers(1, len(left)))
        assert feed.messages(left[:count], aside=lambda b: None) is None
        left = left[count:]
        asked = data.draw(st.sampled_from(["nothing", "whole", "all"])) if left else "whole"
        if asked == "nothing":
            continue
        for _, batch in feed.take(whole=asked == "whole"):
            shared = ("schema", "table", "commit_lsn", "ts_ms")
            for index, line in enumerate(batch.lines()):
                metadata = {name: each for name, each in batch.metadata(index).items() if name not in shared}
                found[batch.collection].append(Record(batch.op(index), line + b"\n", metadata))
            assert batch.count == len(batch.lines())
    assert found == expected_of(messages, tables)
