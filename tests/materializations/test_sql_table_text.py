"""The text of a CREATE TABLE with other types, whatever stands in it."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_materializations.sql.table_text import own_key, rekeyed, retyped

NAMES = st.text(st.sampled_from("ab\"'`[](), -*/;é漢\n"), min_size=1, max_size=8)
RESTS = st.sampled_from(
    (
        "",
        " NOT NULL",
        " DEFAULT (1)",
        " default 'a, b) NOT NULL'",
        " CHECK (1 IN (1, 2)) -- one, (two\n",
        " /* a, ( */ NOT NULL",
        ' CONSTRAINT "c, (" NOT NULL',
        " COLLATE NOCASE",
    )
)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@given(
    st.lists(st.tuples(NAMES, RESTS), min_size=1, max_size=5, unique_by=lambda c: c[0].casefold()), st.data()
)
def test_sqlite_reads_the_same_columns_with_the_new_types(
    columns: list[tuple[str, str]], data: st.DataObject
) -> None:
    text = (
        f'CREATE TABLE "t (," ({", ".join(f"{quoted(name)} DECIMAL(10, 2){rest}" for name, rest in columns)})'
    )
    changed = data.draw(st.sets(st.sampled_from([name for name, _ in columns])))
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(text)
        (kept,) = connection.execute("SELECT sql FROM sqlite_master").fetchone()
        connection.execute(retyped(kept, '"s"', dict.fromkeys(changed, "NEW_TEXT(3)")))
        described = 'SELECT name, type, "notnull", dflt_value FROM pragma_table_info(?)'
        before = connection.execute(described, ["t (,"]).fetchall()
        after = connection.execute(described, ["s"]).fetchall()
    assert after == [
        (name, "NEW_TEXT(3)" if name in changed else kind, *rest) for name, kind, *rest in before
    ]


def test_a_key_that_becomes_text_counts_no_more() -> None:
    text = "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, PRIMARY KEY (x)) STRICT"
    assert (
        retyped(text, "s", {"id": "TEXT"}) == "CREATE TABLE s (id TEXT PRIMARY KEY, PRIMARY KEY (x)) STRICT"
    )


@pytest.mark.parametrize("text", ["CREATE TABLE t", "CREATE TABLE t (a", "CREATE TABLE t (b INT)", ""])
def test_what_is_not_understood_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected CREATE TABLE|found no column a"):
        retyped(text, "s", {"a": "TEXT"})


def test_a_key_of_ours_is_replaced_and_nothing_else_is_touched() -> None:
    text = (
        'CREATE TABLE t (id BIGINT NOT NULL /* NOT NULL, */, "co""de" TEXT, said TEXT DEFAULT \'CONSTRAINT hub_key\', '
        "n INT NOT NULL CHECK (n NOT NULL), CONSTRAINT mine UNIQUE (n), CONSTRAINT hub_key PRIMARY KEY (id))"
    )
    assert rekeyed(text, 'CONSTRAINT hub_key PRIMARY KEY ("co""de")', free={"id"}, need={'co"de'}) == (
        'CREATE TABLE t (id BIGINT  /* NOT NULL, */, "co""de" TEXT NOT NULL, said TEXT DEFAULT \'CONSTRAINT hub_key\', '
        "n INT NOT NULL CHECK (n NOT NULL), CONSTRAINT mine UNIQUE (n), "
        'CONSTRAINT hub_key PRIMARY KEY ("co""de"))'
    )
    assert own_key(text)
    assert not own_key("CREATE TABLE t (id INT PRIMARY KEY, said TEXT DEFAULT 'CONSTRAINT hub_key')")
