"""Tables that are seen to be gone, and are made anew under their name only later."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from hub.errors import ConfigError

pytestmark = pytest.mark.anyio

BY_NAME_OR_PATTERN = pytest.mark.parametrize(
    "tables", [["public.t", "public.marks"], ["public.*"]], ids=["by name", "by pattern"]
)


async def gone(out: Any) -> None:
    """Wait until the capture has noticed that the table is gone."""
    await out.until(lambda: any("a table is gone" in text for text, _ in out.notices))


@contextlib.asynccontextmanager
async def dropped(source: Any, **options: Any) -> AsyncIterator[Any]:
    """A capture that has copied `t` and then noticed that it is gone."""
    source.run("create table t (id int primary key)", "insert into t values (1), (2)")
    async with source.capturing(refresh_interval=0.05, **options) as out:
        await source.copied(out, "public.t")
        await source.caught_up(out)
        await source.settled(out)
        source.run("drop table t")
        await gone(out)
        await source.caught_up(out)
        yield out


def rows(source: Any, out: Any) -> dict[tuple[Any, ...], Any]:
    return dict(source.replica(out, "public.t").rows)


@BY_NAME_OR_PATTERN
async def test_32_a_table_made_anew_long_after_it_was_dropped_comes_with_its_rows(
    source: Any, tables: list[str]
) -> None:
    async with dropped(source, tables=tables) as out:
        source.run("create table t (id int primary key, y int)", "insert into t values (5, 5)")
        await out.until(lambda: (5,) in rows(source, out))
        source.run("insert into t values (6, 6)", "delete from t where id = 5")
        await source.caught_up(out)
        await source.settled(out)
    assert rows(source, out) == {(6,): {"id": 6, "y": 6}}


@BY_NAME_OR_PATTERN
async def test_32_a_table_made_anew_while_the_hub_was_off_comes_with_its_rows(
    source: Any, tables: list[str]
) -> None:
    async with dropped(source, tables=tables) as out:
        pass
    source.run("create table t (id int primary key, y int)", "insert into t values (5, 5)")
    async with source.capturing(out, tables=tables, refresh_interval=0.05):
        await out.until(lambda: (5,) in rows(source, out))
        source.run("insert into t values (6, 6)")
        await source.caught_up(out)
        await source.settled(out)
    assert rows(source, out) == {(5,): {"id": 5, "y": 5}, (6,): {"id": 6, "y": 6}}


async def test_32_a_table_dropped_and_made_anew_while_the_hub_was_off_twice_begins_anew(source: Any) -> None:
    source.run("create table t (id int primary key)", "insert into t values (1), (2)")
    async with source.capturing(refresh_interval=0.05) as out:
        await source.copied(out, "public.t")
        await source.caught_up(out)
        await source.settled(out)
    source.run("drop table t")
    async with source.capturing(out, refresh_interval=0.05):
        await gone(out)
        await source.caught_up(out)
    source.run("create table t (id int primary key, y int)", "insert into t values (5, 5)")
    async with source.capturing(out, refresh_interval=0.05):
        await out.until(lambda: (5,) in rows(source, out))
        await source.caught_up(out)
        await source.settled(out)
    assert rows(source, out) == {(5,): {"id": 5, "y": 5}}


async def test_32_a_named_table_that_is_gone_at_the_start_is_asked_for(source: Any) -> None:
    source.run("create table t (id int primary key)")
    tables = ["public.t", "public.marks"]
    async with source.capturing(tables=tables) as out:
        await source.copied(out, "public.t")
        await source.caught_up(out)
        await source.settled(out)
    source.run("drop table t")
    with anyio.fail_after(30), pytest.raises(ConfigError, match=r"public\.t: there is no such table"):
        await source.capture(tables=tables).run(out.crash(), out)
