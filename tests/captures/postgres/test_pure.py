"""Decoding, order of keys, visibility and positions: bytes and rules, without a server."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import FatalError
from hub_captures.postgres import literals, pgoutput
from hub_captures.postgres.catalog import Table
from hub_captures.postgres.cells import (
    DELIMITER,
    FIRST_COLUMN,
    NULL,
    NULL_MARK,
    QUOTE,
    UNCHANGED,
    copied_cells,
    tuple_cells,
)
from hub_captures.postgres.decoder import Decoder, RowColumn
from hub_captures.postgres.feed import Feed
from hub_captures.postgres.handover import HandOver, must_see
from hub_captures.postgres.oversized import copied_without_largest, without_largest
from hub_captures.postgres.position import (
    Chunk,
    Copying,
    Followed,
    PostgresPosition,
    Visibility,
    lsn_of,
    lsn_text,
    pack_followed,
    pack_oids,
    unpack_followed,
    unpack_oids,
)
from hub_captures.postgres.running import Running, as_of
from hub_captures.postgres.tables import Tables, difference, restored
from hub_captures.postgres.types import PgType, codec

TEXT_TYPE = {25: PgType(25, "pg_catalog", "text", "b"), 20: PgType(20, "pg_catalog", "int8", "b")}
TEXT = codec(25, -1, TEXT_TYPE)
NUMBER = codec(20, -1, TEXT_TYPE)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
cells = st.lists(st.one_of(st.none(), texts), min_size=1, max_size=8)


def decoder_of(count: int) -> Decoder:
    return Decoder([RowColumn(f'%b"{number}\n', TEXT) for number in range(count)])


def tuple_of(values: list[Any]) -> bytes:
    parts = [struct.pack(">H", len(values))]
    for value in values:
        if value is None:
            parts.append(b"n")
        elif value is UNCHANGED:
            parts.append(b"u")
        else:
            parts.append(b"t" + struct.pack(">I", len(value.encode())) + value.encode())
    return b"".join(parts)


def insert_of(values: list[Any]) -> bytes:
    """An insert whose header looks like what parts columns."""
    return bytes(1) + b"position" + (b"t\0\0\0" * 6)[: FIRST_COLUMN - 11] + tuple_of(values)


def quick(decoder: Decoder, values: list[Any]) -> bytes | None:
    """The line of an insert by the quick ways, alone and among others."""
    insert = insert_of(values)
    line = decoder.line(insert)
    assert decoder.whole.of_tuples([insert] * 3) == (line * 3 if line is not None else None)
    return line


@given(cells)
def test_a_tuple_becomes_the_same_document_by_the_quick_and_the_careful_way(values: list[str | None]) -> None:
    decoder = decoder_of(len(values))
    message = tuple_of(values)
    found, end = tuple_cells(message, 0)
    assert end == len(message)
    line = quick(decoder, values)
    assert line == decoder.document(found)
    assert line is not None
    assert line.count(b"\n") == 1
    assert list(json.loads(line).values()) == values


MANY_TYPES = {
    oid: PgType(oid, "pg_catalog", name, "b")
    for oid, name in (
        (25, "text"),
        (20, "int8"),
        (1184, "timestamptz"),
        (701, "float8"),
        (16, "bool"),
        (1700, "numeric"),
    )
}
MANY = [25, 1184, 20, 701, 16, 1700, 25]
moments = st.sampled_from(
    [
        "2024-01-01 00:00:00+00",
        "0044-03-15 00:00:00+00 BC",
        "infinity",
        "-infinity",
        "12024-01-01 01:02:03.4+00",
    ]
)
long_texts = st.builds(
    lambda part, size: part * size,
    st.sampled_from(["t", "nut", 'a"\\\n', "\x1f", "\\u001f", "ä"]),
    st.integers(0, 40_000),
)
any_text = st.one_of(texts, st.text('\x1f\\u01ft"', max_size=12), long_texts)
rows_of_many = st.lists(
    st.tuples(
        *[
            st.none() | each
            for each in (
                any_text,
                moments,
                st.integers().map(str),
                st.sampled_from(["1.5", "NaN", "-0", "Infinity", "1e+300"]),
                st.sampled_from(["t", "f"]),
                st.sampled_from(["2.50", "NaN", "1" * 300]),
                any_text,
            )
        ]
    ),
    min_size=1,
    max_size=8,
)


@given(rows_of_many)
def test_many_rows_become_the_same_documents_as_each_of_them(rows: list[tuple[Any, ...]]) -> None:
    decoder = Decoder([RowColumn(f'%b"{at}\n', codec(oid, -1, MANY_TYPES)) for at, oid in enumerate(MANY)])
    messages = [insert_of(list(row)) for row in rows]
    expected = [decoder.document(tuple_cells(tuple_of(list(row)), 0)[0]) for row in rows]
    assert [decoder.line(message) for message in messages] == expected
    is_long = max(map(len, messages)) > 0xFFFF
    assert decoder.whole.of_tuples(messages) in ([b"".join(expected)] + [None] * is_long)
    part = [decoder.document(tuple_cells(tuple_of(list(row)), 0)[0], (1, 5)) for row in rows]
    assert decoder.part((1, 5)).of_tuples(messages) in ([b"".join(part)] + [None] * is_long)
    copies = [csv(list(row)) for row in rows]
    plain = [copy for copy in copies if QUOTE not in copy]
    assert decoder.whole.of_copied(plain) == b"".join(
        [line for line, copy in zip(expected, copies, strict=True) if QUOTE not in copy]
    )


def csv(values: list[str | None]) -> bytes:
    """A row as COPY writes it."""
    parts = []
    for value in values:
        if value is None:
            parts.append(NULL_MARK)
            continue
        text = value.encode()
        special = any(sign in text for sign in (DELIMITER, QUOTE, b"\n", b"\r")) or text == NULL_MARK
        parts.append(QUOTE + text.replace(QUOTE, QUOTE * 2) + QUOTE if special else text)
    return DELIMITER.join(parts) + b"\n"


@given(st.lists(st.one_of(st.none(), texts, st.text("\x01\x02\x03\n,a", max_size=5)), min_size=1, max_size=6))
def test_a_copied_row_becomes_the_same_document_as_the_tuple(values: list[str | None]) -> None:
    decoder = decoder_of(len(values))
    row = csv(values)
    expected = quick(decoder, values)
    assert decoder.document(copied_cells(row)) == expected
    if QUOTE not in row:
        assert decoder.whole.of_copied([row]) == expected


def test_an_unchanged_value_takes_the_careful_way() -> None:
    decoder = decoder_of(2)
    values = ["a", UNCHANGED]
    assert quick(decoder, values) is None
    assert decoder.whole.of_tuples([insert_of(["a", "b"]), insert_of(values)]) is None
    found, _ = tuple_cells(tuple_of(values), 0)
    assert found == [b"a", UNCHANGED]
    assert decoder.unchanged(found) == ['%b"1\n']
    assert json.loads(decoder.document(found)) == {'%b"0\n': "a"}


def test_text_that_is_no_utf8_is_replaced_and_never_stops_the_stream() -> None:
    decoder = decoder_of(1)
    message = struct.pack(">H", 1) + b"t" + struct.pack(">I", 2) + b"a\xff"
    insert = insert_of([])[: FIRST_COLUMN - 2] + message
    assert decoder.line(insert) is None
    assert decoder.whole.of_tuples([insert]) is None
    assert json.loads(decoder.document(tuple_cells(message, 0)[0])) == {'%b"0\n': "a�"}


def quoted_element(value: str | None) -> str:
    return "NULL" if value is None else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.lists(st.one_of(st.none(), texts)))
def test_arrays_of_any_text(values: list[str | None]) -> None:
    written = "{" + ",".join(quoted_element(value) for value in values) + "}"
    assert json.loads(literals.array(literals.text)(written.encode())) == values


@given(st.lists(st.one_of(st.none(), texts), min_size=1, max_size=5))
def test_composites_of_any_text(values: list[str | None]) -> None:
    def field(value: str | None) -> str:
        return "" if value is None else '"' + value.replace("\\", "\\\\").replace('"', '""') + '"'

    written = "(" + ",".join(field(value) for value in values) + ")"
    convert = literals.composite([(str(number), literals.text) for number in range(len(values))])
    assert list(json.loads(convert(written.encode())).values()) == values


@given(st.dictionaries(texts, st.one_of(st.none(), texts)))
def test_hstores_of_any_text(pairs: dict[str, str | None]) -> None:
    written = ", ".join(f"{quoted_element(name)}=>{quoted_element(value)}" for name, value in pairs.items())
    assert json.loads(literals.hstore(written.encode())) == pairs


@given(st.integers(0, (1 << 64) - 1))
def test_lsns_are_read_back(lsn: int) -> None:
    assert lsn_of(lsn_text(lsn)) == lsn


uint32 = st.integers(0, (1 << 32) - 1)


@given(st.dictionaries(uint32, st.builds(Followed, *[uint32] * 7)), st.lists(uint32))
def test_packed_tables_are_read_back(followed: dict[int, Followed], oids: list[int]) -> None:
    assert unpack_followed(pack_followed(followed)) == followed
    assert unpack_oids(pack_oids(oids)) == oids


def test_tables_that_were_packed_when_less_was_known_of_them_are_read() -> None:
    note = struct.pack(">8I", 7, 70, 71, 72, 9, 90, 91, 92)
    assert unpack_followed(note) == {7: Followed(70, 71, 72), 9: Followed(90, 91, 92)}
    assert unpack_followed(b"") == {}


@given(st.integers(3, 1 << 40), st.integers(0, 1000), st.sets(st.integers(0, 1000)), st.integers(-1500, 500))
def test_visibility_is_that_of_the_server_over_wrap_around(
    xmin: int, width: int, running: set[int], offset: int
) -> None:
    xmax = xmin + width
    xip = {xmin + each for each in running if each < width}
    visibility = Visibility(xmin, xmax, tuple(sorted(xip)))
    wide = max(0, xmax + offset)
    expected = wide < xmin or (wide < xmax and wide not in xip)
    assert visibility.sees(wide & 0xFFFFFFFF) == expected


def test_visibility_is_read_as_the_server_writes_it() -> None:
    assert Visibility.parse("812:830:815,820") == Visibility(812, 830, (815, 820))
    assert Visibility.parse("812:812:") == Visibility(812, 812)


def test_what_has_ended_between_two_looks_is_not_judged() -> None:
    snapshot = Visibility(5, 10)
    before, after = Running(frozenset({5, 7, 9}), 10), Running(frozenset({5, 7, 9, 12}), 13)
    assert as_of(snapshot, before, after) == Visibility(5, 10, (5, 7, 9))
    assert as_of(snapshot, before, after._replace(xids=frozenset({5, 9}))) is None
    younger = Running(frozenset({4, 5, 7}), 9)
    assert as_of(snapshot, younger, after) == Visibility(5, 10, (5, 7, 9))
    assert as_of(snapshot, younger, after._replace(xids=frozenset({5, 7}))) is None


def number(key: tuple[str, ...]) -> int:
    return int(key[0])


def test_changes_are_judged_by_range_and_visibility() -> None:
    handover = HandOver(Copying(), number)
    assert not handover.keeps(("5",), 100)
    handover.read(Chunk(("10",), Visibility(50, 60, (55,)), 1000), 10)
    handover.read(Chunk(("20",), Visibility(70, 80), 2000), 10)
    assert not handover.keeps(("10",), 40)
    assert handover.keeps(("10",), 55)
    assert handover.keeps(("-3",), 65)
    assert not handover.keeps(("11",), 65)
    assert handover.keeps(("20",), 90)
    assert not handover.keeps(("21",), 90)


def test_a_passed_fence_is_forgotten_and_its_range_kept() -> None:
    handover = HandOver(Copying(), number)
    handover.read(Chunk(("10",), Visibility(50, 60), 1000), 10)
    handover.read(Chunk(None, Visibility(70, 80), 2000), 5)
    assert handover.is_complete
    assert not handover.passed(999)
    assert handover.passed(1000)
    assert handover.keeps(("10",), 40)
    assert not handover.keeps(("11",), 40)
    assert handover.passed(2000)
    assert handover.is_settled
    assert handover.keeps(("11",), 40)
    assert handover.state.rows == 15


def test_a_copy_is_far_ahead_until_the_stream_has_passed_a_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub_captures.postgres.handover.CHUNKS_MAX", 4)
    handover = HandOver(Copying(), number)
    for at in range(1, 4):
        assert handover.awaits_stream == (at > 2)
        handover.read(Chunk((str(10 * at),), Visibility(50, 60), 1000 * at), 10)
        assert not handover.is_far_ahead
    handover.read(Chunk(("40",), Visibility(50, 60), 4000), 10)
    assert handover.is_far_ahead
    assert not handover.has_awaited(999)
    assert handover.has_awaited(1000)
    assert handover.passed(1000)
    assert not handover.is_far_ahead


def test_a_table_that_is_still_followed_keeps_every_change() -> None:
    handover = HandOver(Copying(refresh=True), number)
    assert handover.keeps(("5",), 100)
    handover.read(Chunk(("10",), Visibility(50, 60), 1000), 10)
    assert handover.keeps(("5",), 40)
    handover.doom()
    assert handover.keeps(("5",), 40)


def test_an_emptied_table_is_left_to_a_copy_that_begins_anew() -> None:
    handover = HandOver(Copying(replace=True), number)
    handover.read(Chunk(("10",), Visibility(50, 60), 1000), 10)
    handover.doom()
    assert not handover.keeps(("1",), 90)
    handover.restart()
    assert handover.state == Copying(replace=True)
    assert not handover.keeps(("1",), 90)


cells = st.lists(
    st.none() | st.binary(max_size=30).map(lambda raw: raw.replace(b"\0", b"\1").replace(b"\n", b"\2")),
    min_size=1,
    max_size=6,
)


def copied(cell: bytes | None) -> bytes:
    """A cell as COPY writes it."""
    if cell is None:
        return b"\x03"
    if cell == b"\x03" or any(sign in cell for sign in (b"\x01", b"\x02", b"\r")):
        return b"\x01" + cell.replace(b"\x01", b"\x01\x01") + b"\x01"
    return cell


@given(cells, st.integers(0, 100))
def test_a_copied_row_without_its_largest_columns_keeps_the_others(
    values: list[bytes | None], limit: int
) -> None:
    row = b"\x02".join(copied(value) for value in values) + b"\n"
    for given_row in (row, memoryview(row)):
        shorter, omitted = copied_without_largest(given_row, (0,), limit)
        kept = [NULL if index in omitted or value is None else value for index, value in enumerate(values)]
        assert copied_cells(shorter) == kept
        assert len(shorter) <= limit or len(omitted) == len(values) - 1
        assert 0 not in omitted


@given(cells, cells, st.booleans(), st.integers(0, 150))
def test_a_row_message_without_its_largest_columns_keeps_the_others(
    values: list[bytes | None], before: list[bytes | None], has_before: bool, limit: int
) -> None:
    def image(of: list[bytes | None]) -> bytes:
        parts = [b"n" if each is None else b"t" + len(each).to_bytes(4) + each for each in of]
        return len(of).to_bytes(2) + b"".join(parts)

    count = min(len(values), len(before))
    values, before = values[:count], before[:count]
    head = b"w" + bytes(24) + b"U" + bytes(4)
    message = head + (b"O" + image(before) if has_before else b"") + b"N" + image(values)
    for given_message in (message, memoryview(message)):
        shorter, omitted = without_largest(given_message, (0,), limit)
        first, at = tuple_cells(shorter, 31)
        second = tuple_cells(shorter, at + 1)[0] if has_before else first
        assert shorter[:31] == message[:31]
        for image_cells, there in ((second, values), (first, before if has_before else values)):
            kept = [NULL if value is None else value for value in there]
            assert image_cells == [UNCHANGED if n in omitted else value for n, value in enumerate(kept)]
        assert len(shorter) <= limit or len(omitted) == count - 1
        assert 0 not in omitted


def test_a_chunk_must_see_every_transaction_that_was_judged() -> None:
    visibility = Visibility(50, 60, (55,))
    assert must_see(visibility, [10, 54])
    assert not must_see(visibility, [10, 55])
    assert not must_see(visibility, [60])


def test_a_message_of_an_unknown_kind_stops_with_a_clear_error() -> None:
    feed = Feed(None, record_bytes_max=1 << 20, may_omit=False)
    with pytest.raises(FatalError, match="unknown kind b'Q'"):
        feed.message(b"w" + bytes(24) + b"Q")


def test_begin_and_commit_are_read() -> None:
    began = pgoutput.begin(b"w" + bytes(24) + b"B" + struct.pack(">QqI", 77, 1_000_000, 9))
    assert began == pgoutput.Begin(77, 946_684_801_000, 9)
    ended = pgoutput.commit(b"w" + bytes(24) + b"C\0" + struct.pack(">QQq", 77, 99, 2_000))
    assert (ended.commit_lsn, ended.end_lsn, ended.ts_ms) == (77, 99, 946_684_800_002)


def test_messages_of_prepared_transactions_are_read() -> None:
    said = struct.pack(">QQqI", 77, 99, 1_000_000, 9) + b"gid\0"
    expected = pgoutput.Prepared(77, 99, 946_684_801_000, 9, "gid")
    assert pgoutput.begin_prepare(b"w" + bytes(24) + b"b" + said) == expected
    for kind in (b"P", b"K", b"p"):
        assert pgoutput.prepared(b"w" + bytes(24) + kind + b"\0" + said) == expected
    rolled_back = b"r\0" + struct.pack(">QQqqI", 1, 2, 3, 4, 9) + b"gid\0"
    assert pgoutput.rolled_back(b"w" + bytes(24) + rolled_back) == 9


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
columns = st.builds(
    pgoutput.RelationColumn, names, st.integers(0, 2**32 - 1), st.integers(-1, 2**31 - 1), st.booleans()
)


@given(
    st.builds(
        pgoutput.Relation,
        st.integers(0, 2**32 - 1),
        names,
        names,
        st.sampled_from("dnfi"),
        st.lists(columns, max_size=5).map(tuple),
    )
)
def test_a_relation_is_read_as_it_was_written(relation: pgoutput.Relation) -> None:
    assert pgoutput.relation(pgoutput.relation_message(relation)) == relation


def test_tables_with_the_same_columns_keep_them_once() -> None:
    columns = (pgoutput.RelationColumn("id", 20, -1, True), pgoutput.RelationColumn("größe", 25, -1, False))
    made = [pgoutput.Relation(oid, "public", f"t{oid}", "d", columns) for oid in (1, 2)]
    one, other = (pgoutput.relation(pgoutput.relation_message(relation)) for relation in made)
    assert (one, other) == tuple(made)
    assert one.columns is other.columns


def test_a_position_asks_for_what_is_prepared_once_more_and_an_older_one_for_nothing() -> None:
    before = PostgresPosition("1", 1, 1, "slot", 100)
    assert b"prepared" not in before.encode()
    assert PostgresPosition.decode(before.encode()).resend_lsn == 100
    after = PostgresPosition("1", 1, 1, "slot", 100, prepared_lsn=70)
    assert PostgresPosition.decode(after.encode()).resend_lsn == 70


def table_of(oid: int, name: str) -> Table:
    return Table(oid, "public", name, "r", oid, "d", "p", 0, (), ("id",), True, None)


@pytest.mark.parametrize("state", [Copying(replace=True), Copying(rows=7, began=True, floor=("7",))])
def test_a_table_made_anew_while_its_copy_was_under_way_is_known_by_its_name(state: Copying) -> None:
    before = Tables()
    before.track(table_of(1, "waits"), Copying())
    before.track(table_of(2, "anew"), state)
    stored = PostgresPosition.decode(before.position("1", 1, 1, "slot", 1, ()).encode())
    found = [table_of(1, "waits"), table_of(3, "anew")]
    after = restored(stored, before.due_note(), found, lambda *_: Copying())
    changed = difference(after, found)
    assert ([table.oid for table in changed.recreated], changed.added, changed.gone) == ([3], [], [2])
