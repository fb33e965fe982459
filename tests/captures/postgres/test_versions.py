"""What needs which version of PostgreSQL: said before a row is taken, with what to do, and in `hub check` too."""

from __future__ import annotations

from typing import Any

import pytest

from hub.errors import FatalError
from hub.options import Secret
from hub_captures.postgres import PostgresCapture
from hub_captures.postgres.capture import TableOptions
from hub_captures.postgres.checks import beyond, too_old, two_phase_problem

pytestmark = [pytest.mark.anyio, pytest.mark.postgres_also(15, 17)]

NEEDS: dict[str, tuple[int, dict[str, Any]]] = {
    "messages": (14, {"messages": True}),
    "streaming": (14, {"streaming": True}),
    "where": (15, {"tables": [TableOptions(name="public.t", where="id > 0")]}),
    "columns": (15, {"tables": [TableOptions(name="public.t", columns=["id"])]}),
    "two_phase": (15, {"two_phase": True, "failover": False}),
    "origin": (16, {"origin": "none"}),
}


def given(options: dict[str, Any]) -> PostgresCapture:
    return PostgresCapture(**{"dsn": Secret("host=localhost"), "tables": ["public.t"], **options})


@pytest.mark.parametrize("what", NEEDS)
def test_an_option_is_refused_before_the_version_that_knows_it(what: str) -> None:
    since, options = NEEDS[what]
    (problem,) = beyond(given(options), since - 1)
    assert not problem.ok
    assert problem.cure
    assert beyond(given(options), since) == []


def test_only_17_refuses_prepared_transactions_on_a_slot_that_standbys_know() -> None:
    problems = {version: two_phase_problem(version, failover=True) for version in (15, 16, 17, 18)}
    (problem,) = [found for found in problems.values() if found is not None]
    assert problem is problems[17]
    assert "failover: false" in problem.cure
    assert two_phase_problem(17, failover=False) is None


def test_a_server_before_13_is_refused() -> None:
    old = too_old(12)
    assert old is not None
    assert "13 or newer" in old.cure
    assert too_old(13) is None


@pytest.mark.parametrize("what", NEEDS)
async def test_each_option_works_or_is_refused_by_the_check_and_at_the_start(source: Any, what: str) -> None:
    since, options = NEEDS[what]
    source.run("create table t (id int primary key, b text)", "insert into t values (1, 'a')")
    findings = [finding for finding in await source.capture(**options).check(source.task) if not finding.ok]
    if source.server.version < since:
        (problem,) = findings
        assert f"PostgreSQL {since}, this is {source.server.version}" in problem.what
        with pytest.raises(FatalError) as caught:
            await source.capture(**options).run(None, source.outlet())
        assert str(caught.value) == f"{problem.what}: {problem.cure}"
        assert (
            source.rows("select 1 from pg_replication_slots where slot_name like '%' || current_database()")
            == []
        )
        return
    assert findings == []
    if "tables" in options:
        options = {"tables": ["public.marks", *options["tables"]]}
    async with source.capturing(**options) as out:
        await source.copied(out, "public.t")
        await source.caught_up(out)
        source.run("insert into t values (2, 'b')")
        await source.caught_up(out)
    assert sorted(source.replica(out, "public.t").rows) == [(1,), (2,)]
