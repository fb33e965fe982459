"""Types: their JSON, and the same bytes whether a row is read by the snapshot or comes in the stream."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from hub.materialization import Binding
from hub.options import Secret
from hub.record import READ, Cursor, Place, TaskName
from hub.testing.postgres import PostgresMissing, PostgresServer, temporary_database
from hub_materializations.postgres import PostgresMaterialization
from hub_materializations.sql.binding import SqlBinding

# For each type: values as SQL, and the JSON that stands for them.
VALUES: dict[str, list[tuple[str, str]]] = {
    "smallint": [("'-32768'", "-32768"), ("0", "0")],
    "integer": [("2147483647", "2147483647")],
    "bigint": [("9223372036854775807", "9223372036854775807"), ("-1", "-1")],
    "oid": [("4294967295", "4294967295")],
    "numeric": [
        ("'NaN'", '"NaN"'),
        ("'Infinity'", '"Infinity"'),
        ("'-Infinity'", '"-Infinity"'),
        ("2.50", '"2.50"'),
        ("123456789012345678901234567890123456789", '"123456789012345678901234567890123456789"'),
        ("0.000000000000000000000000000001", '"0.000000000000000000000000000001"'),
    ],
    "numeric(10,2)": [("2.5", '"2.50"')],
    "real": [("0.1", "0.1"), ("'NaN'", '"NaN"'), ("'-Infinity'", '"-Infinity"')],
    "double precision": [("0.1", "0.1"), ("1e308", "1e+308"), ("'NaN'", '"NaN"'), ("'-0'", "-0.0")],
    "money": [("'-1.50'", '"-1.50"'), ("'1234567.89'", '"1234567.89"')],
    "boolean": [("true", "true"), ("false", "false")],
    "text": [("E'a\\n\"\\\\'", '"a\\n\\"\\\\"'), ("''", '""'), ("'null'", '"null"')],
    "varchar(5)": [("'ab'", '"ab"')],
    "char(5)": [("'ab'", '"ab   "')],
    "name": [("'ab'", '"ab"')],
    '"char"': [("'x'", '"x"')],
    "bytea": [("'\\xdeadbeef'", '"3q2+7w=="'), ("''", '""')],
    "date": [
        ("'2024-02-29'", '"2024-02-29"'),
        ("'infinity'", '"infinity"'),
        ("'0044-03-15 BC'", '"0044-03-15 BC"'),
        ("'5874897-12-31'", '"5874897-12-31"'),
    ],
    "timestamp": [
        ("'2024-01-01 00:00:00.123456'", '"2024-01-01T00:00:00.123456"'),
        ("'-infinity'", '"-infinity"'),
        ("'0044-03-15 01:02:03 BC'", '"0044-03-15T01:02:03 BC"'),
        ("'294276-12-31 23:59:59.999999'", '"294276-12-31T23:59:59.999999"'),
    ],
    "timestamptz": [
        ("'2024-01-01 00:00:00.1+02'", '"2023-12-31T22:00:00.1Z"'),
        ("'infinity'", '"infinity"'),
        ("'0044-03-15 01:02:03+00 BC'", '"0044-03-15T01:02:03Z BC"'),
    ],
    "time": [("'24:00:00'", '"24:00:00"'), ("'01:02:03.5'", '"01:02:03.5"')],
    "timetz": [("'12:00:00+02'", '"12:00:00+02"')],
    "interval": [
        ("'1 year 2 months 3 days 4 hours 5 minutes 6.7 seconds'", '"P1Y2M3DT4H5M6.7S"'),
        ("'-1 day'", '"P-1D"'),
        ("'0'", '"PT0S"'),
    ],
    "uuid": [("'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"')],
    "json": [
        ("""'{"a": 1.0,"a":2}'""", '{"a": 1.0,"a":2}'),
        ("""E'{\\n "a":\\r 1}'""", '{  "a":  1}'),
        ("'1e400'", "1e400"),
    ],
    "jsonb": [("""'{"a": [1, null, "x\\ny"]}'""", '{"a": [1, null, "x\\ny"]}'), ("'null'", "null")],
    "bit(3)": [("B'101'", '"101"')],
    "varbit": [("B'10101'", '"10101"')],
    "inet": [("'10.0.0.1/8'", '"10.0.0.1/8"')],
    "cidr": [("'10.0.0.0/8'", '"10.0.0.0/8"')],
    "macaddr": [("'08:00:2b:01:02:03'", '"08:00:2b:01:02:03"')],
    "point": [("'(1,2)'", '"(1,2)"')],
    "polygon": [("'((0,0),(1,1),(1,0))'", '"((0,0),(1,1),(1,0))"')],
    "box": [("'((0,0),(1,1))'", '"(1,1),(0,0)"')],
    "pg_lsn": [("'0/16B3748'", '"0/16B3748"')],
    "macaddr8": [("'08:00:2b:01:02:03:04:05'", '"08:00:2b:01:02:03:04:05"')],
    "line": [("'{1,2,3}'", '"{1,2,3}"')],
    "lseg": [("'[(0,0),(1,1)]'", '"[(0,0),(1,1)]"')],
    "path": [("'((0,0),(1,1))'", '"((0,0),(1,1))"')],
    "circle": [("'<(0,0),5>'", '"<(0,0),5>"')],
    "tid": [("'(1,2)'", '"(1,2)"')],
    "xid": [("'4294967295'", "4294967295")],
    "cid": [("'7'", "7")],
    "tsquery": [("'fat & !rat'", "\"'fat' & !'rat'\"")],
    "jsonpath": [("'$.a[*]'", '"$.\\"a\\"[*]"')],
    "regtype": [("'int4'", '"integer"')],
    "int2vector": [("'1 2'", '"1 2"')],
    "pg_snapshot": [("'10:20:10,14'", '"10:20:10,14"')],
    "boolean[]": [("'{t,f,NULL}'", "[true,false,null]")],
    "numeric[]": [("'{1.50,NaN}'", '["1.50","NaN"]')],
    "bytea[]": [("array['\\xdead'::bytea, null]", '["3q0=",null]')],
    "uuid[]": [
        ("'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'", '["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]'),
    ],
    "date[]": [("'{infinity,2024-02-29}'", '["infinity","2024-02-29"]')],
    "interval[]": [("array['1 day'::interval]", '["P1D"]')],
    "int8range": [("'[1,9223372036854775807)'", '{"lower":1,"upper":9223372036854775807,"bounds":"[)"}')],
    "daterange": [("'[2024-01-01,infinity)'", '{"lower":"2024-01-01","upper":"infinity","bounds":"[)"}')],
    "tsrange": [
        (
            "'(2024-01-01 10:00:00,)'",
            '{"lower":"2024-01-01T10:00:00","upper":null,"bounds":"()"}',
        )
    ],
    "int4range[]": [("array['[1,3)'::int4range]", '[{"lower":1,"upper":3,"bounds":"[)"}]')],
    "halfvec(2)": [("'[1,2.5]'", "[1,2.5]")],
    "xid8": [("'18446744073709551615'", '"18446744073709551615"')],
    "tsvector": [("'a:1 ''b c'':2'", "\"'a':1 'b c':2\"")],
    "regclass": [("'pg_class'", '"pg_class"')],
    "integer[]": [
        ("'{1,NULL,3}'", "[1,null,3]"),
        ("'{}'", "[]"),
        ("'{{1,2},{3,4}}'", "[[1,2],[3,4]]"),
        ("'[0:2]={1,2,3}'", "[1,2,3]"),
    ],
    "text[]": [
        ("""'{a,"b,c",NULL,"q\\"x","","NULL","\\\\"}'""", '["a","b,c",null,"q\\"x","","NULL","\\\\"]'),
        ("'{{a},{b}}'", '[["a"],["b"]]'),
    ],
    "double precision[]": [("'{1.5,NaN}'", '[1.5,"NaN"]')],
    "timestamptz[]": [("""'{"2024-01-01 00:00:00+00"}'""", '["2024-01-01T00:00:00Z"]')],
    "jsonb[]": [("""array['{"a": 1}'::jsonb]""", '[{"a": 1}]')],
    "box[]": [("'{(1,1),(0,0);(3,3),(2,2)}'", '["(1,1),(0,0)","(3,3),(2,2)"]')],
    "int4range": [
        ("'[1,5)'", '{"lower":1,"upper":5,"bounds":"[)"}'),
        ("'empty'", '{"lower":null,"upper":null,"bounds":"empty"}'),
        ("'(,3]'", '{"lower":null,"upper":4,"bounds":"()"}'),
    ],
    "numrange": [("'(,3.5]'", '{"lower":null,"upper":"3.5","bounds":"(]"}')],
    "tstzrange": [
        (
            "'[2024-01-01 00:00:00+00,infinity)'",
            '{"lower":"2024-01-01T00:00:00Z","upper":"infinity","bounds":"[)"}',
        )
    ],
    "int4multirange": [
        (
            "'{[1,3),[5,7)}'",
            '[{"lower":1,"upper":3,"bounds":"[)"},{"lower":5,"upper":7,"bounds":"[)"}]',
        ),
        ("'{}'", "[]"),
    ],
    "mood": [("'ok'", '"ok"'), ("E'it''s \"fine\"'", '"it\'s \\"fine\\""')],
    "mood[]": [("""'{ok,"it''s \\"fine\\""}'""", '["ok","it\'s \\"fine\\""]')],
    "address": [
        ("""row('Main "St", \\ 1', 5, array[1,2])""", '{"street":"Main \\"St\\", \\\\ 1","no":5,"n":[1,2]}'),
        ("row(null, null, null)", '{"street":null,"no":null,"n":null}'),
        ("row('', 0, '{}')", '{"street":"","no":0,"n":[]}'),
    ],
    "address[]": [("array[row('a b', 1, null)::address]", '[{"street":"a b","no":1,"n":null}]')],
    "document": [("""'{"a": 1}'""", '{"a": 1}')],
    "amount": [("1.5", '"1.50"')],
    "hstore": [("""'"a"=>"1", "b \\"c"=>NULL'""", '{"a":"1","b \\"c":null}'), ("''", "{}")],
    "citext": [("'Ab'", '"Ab"')],
    "ltree": [("'a.b'", '"a.b"')],
    "vector(3)": [("'[1,2.5,3]'", "[1,2.5,3]")],
}

OWN_TYPES = (
    "create type mood as enum ('ok', E'it''s \"fine\"')",
    "create type address as (street text, no int, n int[])",
    "create domain document as jsonb",
    "create domain amount as numeric(10,2) check (value > 0)",
    "create extension hstore",
    "create extension citext",
    "create extension ltree",
)
SINCE = {"xid8": 13, "pg_snapshot": 13, "int4multirange": 14}
VECTORS = ("vector(3)", "halfvec(2)")


def of_this_server(source: Any) -> dict[str, list[tuple[str, str]]]:
    """Makes the types of our own. The types that this server has, with the values that it takes."""
    source.run(*OWN_TYPES)
    absent = {name for name, since in SINCE.items() if source.server.version < since}
    if source.rows("select 1 from pg_available_extensions where name = 'vector'"):
        source.run("create extension vector")
    else:
        absent.update(VECTORS)
    found = {name: values for name, values in VALUES.items() if name not in absent}
    if source.server.version < 14:
        found["numeric"] = [each for each in VALUES["numeric"] if "Infinity" not in each[0]]
    return found


@pytest.mark.postgres_also(17)
@pytest.mark.anyio
async def test_63_to_68_every_type_reads_the_same_by_snapshot_and_stream(source: Any) -> None:
    given = of_this_server(source)
    columns = [f"c{number} {name}" for number, name in enumerate(given)]
    source.run(f"create table t (id int primary key, {', '.join(columns)})")
    count = max(len(values) for values in given.values())
    types = list(given)

    def insert(first: int) -> None:
        for index in range(count + 1):
            names, values = ["id"], [str(first + index)]
            for number, name in enumerate(types):
                if index < len(given[name]):
                    names.append(f"c{number}")
                    values.append(f"{given[name][index][0]}::{name}")
            source.run(f"insert into t ({', '.join(names)}) values ({', '.join(values)})")

    insert(0)
    async with source.capturing() as out:
        await source.copied(out, "public.t")
        insert(100)
        source.run("update t set id = id + 100 where id >= 100")
        await source.caught_up(out)
    lines: dict[int, bytes] = {}
    for batch in out.batches(source.collection("public.t")):
        for line in batch.lines():
            if b"c0" in line:
                lines[int(line.split(b",")[0].split(b":")[1])] = line.split(b",", 1)[1]
    for index in range(count + 1):
        expected = ",".join(
            f'"c{number}":{given[name][index][1] if index < len(given[name]) else "null"}'
            for number, name in enumerate(types)
        )
        assert lines[index].decode() == expected + "}"
        assert lines[100 + index] == lines[index]
        assert lines[200 + index] == lines[index]


@pytest.mark.anyio
async def test_every_type_has_a_schema_that_says_what_its_json_means(source: Any) -> None:
    columns = [f'"{name}" {name}' for name in of_this_server(source) if name != '"char"']
    source.run(
        f"create table t (id int primary key, {', '.join(columns)})".replace('"varchar(5)"', '"varchar"')
    )
    found = {each.schema.collection: each.schema for each in await source.capture().discover(source.task)}
    types = {column.name: column.type for column in found[source.collection("public.t")].columns()}
    kinds = {name: column.kind for name, column in types.items()}
    assert kinds["numeric(10,2)"] == "decimal"
    assert (types["numeric(10,2)"].precision, types["numeric(10,2)"].scale) == (10, 2)
    assert (types["amount"].precision, types["amount"].scale) == (10, 2)
    assert kinds["timestamptz"] == "timestamptz"
    assert kinds["timestamp"] == "timestamp"
    assert kinds["jsonb"] == kinds["document"] == "json"
    assert types["integer[]"].items is not None
    assert types["integer[]"].items.bits == 32
    assert types["address"].properties is not None
    assert list(types["address"].properties) == ["street", "no", "n"]
    assert kinds["bytea"] == "bytes"
    assert types["varchar"].length == 5


@pytest.mark.anyio
async def test_69_a_latin1_database_is_read_as_utf8(postgres_server: Any, source: Any) -> None:
    name = f"{source.name}_latin1"
    with temporary_database(postgres_server, name, "encoding latin1 template template0 locale 'C'") as dsn:
        latin = type(source)(postgres_server, name, dsn)
        with psycopg.connect(dsn, autocommit=True, client_encoding="UTF8") as connection:
            connection.execute("create table marks (id text primary key)")
            connection.execute("create table t (id text primary key, b text)")
            connection.execute("insert into t values ('é', 'ü')")
            async with latin.capturing() as out:
                await latin.copied(out, "public.t")
                connection.execute("insert into t values ('ö', 'ÿ')")
                await latin.caught_up(out)
        assert latin.replica(out, "public.t").rows == {
            ("é",): {"id": "é", "b": "ü"},
            ("ö",): {"id": "ö", "b": "ÿ"},
        }


@pytest.mark.anyio
async def test_hostile_names_stay_names(source: Any) -> None:
    table, column = 'we"ird/ta.ble%', "c\"'); import os; %b{x}\n"
    quoted_table, quoted_column = ('"' + name.replace('"', '""') + '"' for name in (table, column))
    source.run(
        'create schema "S p"',
        f'create table "S p".{quoted_table} (id int primary key, {quoted_column} text)',
        f"insert into \"S p\".{quoted_table} values (1, 'a')",
    )
    async with source.capturing(tables=["*.*"]) as out:
        await out.until(lambda: any(record.doc.get(column) == "a" for record in out.records()))
        await source.caught_up(out)
        source.run(f"insert into \"S p\".{quoted_table} values (2, 'b')")
        await source.caught_up(out)
    found = [record for record in out.records() if record.meta["table"] == table]
    assert [record.doc for record in found] == [{"id": 1, column: "a"}, {"id": 2, column: "b"}]
    assert found[0].op == READ
    assert {record.collection for record in found} == {f'{source.task}/S p.we"ird%2Fta%2Eble%25'}


@pytest.mark.anyio
async def test_names_that_differ_in_case_only_or_are_as_long_as_can_be_stay_apart(source: Any) -> None:
    names = ["Orders", "orders", "ORDERS", "n" * 63, "n" * 62 + "m", "😀" * 15, "two\nlines", "*", "o?ders"]
    for number, name in enumerate(names):
        source.run(
            f'create table "{name}" ("Id" int primary key, "id" text, "ID" text)',
            f"insert into \"{name}\" values ({number}, 'a', 'b')",
        )
    async with source.capturing() as out:
        await source.copied(out, *[f"public.{name}" for name in ("orders", "ORDERS")])
        for number, name in enumerate(names):
            source.run(f'update "{name}" set "ID" = \'{number}\'')
        await source.caught_up(out)
    last = {record.meta["table"]: record for record in out.records() if record.meta["table"] != "marks"}
    assert {name: record.doc for name, record in last.items()} == {
        name: {"Id": number, "id": "a", "ID": str(number)} for number, name in enumerate(names)
    }
    assert len({record.collection for record in last.values()}) == len(names)


@pytest.mark.anyio
async def test_sixteen_hundred_columns(source: Any) -> None:
    columns = ", ".join(f"c{number} int default {number}" for number in range(1599))
    source.run(f"create table t (id int primary key, {columns})", "insert into t (id) values (1)")
    async with source.capturing() as out:
        await source.copied(out, "public.t")
        source.run("insert into t (id) values (2)")
        await source.caught_up(out)
    first, second = (
        json.loads(line) for batch in out.batches(source.collection("public.t")) for line in batch.lines()
    )
    assert len(first) == 1600
    assert first | {"id": 2} == second


BACK = {
    # What a sink holds as JSON is put together again by these; `c` is the sink's column.
    "money": "c::money",
    "jsonb[]": "(select array_agg(e::jsonb) from json_array_elements(c) e)",
    "box[]": "(select array_agg(e::box) from unnest(c) e)",
    "int4range": "case c->>'bounds' when 'empty' then 'empty' "
    "else int4range((c->>'lower')::int, (c->>'upper')::int, c->>'bounds') end",
    "numrange": "numrange((c->>'lower')::numeric, (c->>'upper')::numeric, c->>'bounds')",
    "tstzrange": "tstzrange((c->>'lower')::timestamptz, (c->>'upper')::timestamptz, c->>'bounds')",
    "int4multirange": "(select coalesce(range_agg(int4range((e->>'lower')::int, (e->>'upper')::int, e->>'bounds')), '{}') "
    "from json_array_elements(c) e)",
    "address": "json_populate_record(null::address, c)",
    "address[]": "(select array_agg(json_populate_record(null::address, e)) from json_array_elements(c) e)",
    "tsrange": "tsrange((c->>'lower')::timestamp, (c->>'upper')::timestamp, c->>'bounds')",
    "daterange": "daterange((c->>'lower')::date, (c->>'upper')::date, c->>'bounds')",
    "int8range": "int8range((c->>'lower')::bigint, (c->>'upper')::bigint, c->>'bounds')",
    "int4range[]": "(select array_agg(int4range((e->>'lower')::int, (e->>'upper')::int, e->>'bounds')) "
    "from json_array_elements(c) e)",
    "halfvec(2)": "c::halfvec(2)",
    "hstore": "(select coalesce(hstore(array_agg(key), array_agg(value)), '') from json_each_text(c))",
    "vector(3)": "c::vector(3)",
}
LOST_ON_THE_WAY = {
    ("integer[]", "'[0:2]={1,2,3}'"): "lower bounds of arrays",
    ("jsonb", "'null'"): "a JSON null is no other null in a document",
    ("json", """E'{\\n "a":\\r 1}'"""): "line ends outside strings become spaces",
}


@pytest.mark.postgres_also(17)
@pytest.mark.anyio
async def test_every_value_comes_back_from_a_postgres_sink_as_it_was(source: Any) -> None:
    given = of_this_server(source)
    source.run("create schema back")
    types = list(given)
    columns = [f"c{number} {name}" for number, name in enumerate(types)]
    source.run(f"create table t (id int primary key, {', '.join(columns)})")
    for index in range(max(len(values) for values in given.values()) + 1):
        there = [(number, name) for number, name in enumerate(types) if index < len(given[name])]
        names = ", ".join(["id", *[f"c{number}" for number, _ in there]])
        values = ", ".join([str(index), *[f"{given[name][index][0]}::{name}" for _, name in there]])
        source.run(f"insert into t ({names}) values ({values})")
    async with source.capturing(tables=["public.t"]) as out:
        await source.copied(out, "public.t")
    collection = source.collection("public.t")
    bound = Binding(collection, "t", SqlBinding(source=collection))
    async with PostgresMaterialization(dsn=Secret(source.dsn), schema="back").open(TaskName("back")) as sink:
        await sink.restore()
        for schema in out.schemas(collection):
            await sink.describe(bound, schema)
        for batch in out.batches(collection):
            await sink.write(bound, batch)
        await sink.commit(Cursor({"j": Place(1, 1)}))
    wrong = []
    for number, name in enumerate(types):
        back = BACK.get(name, f"c::text::{name}")
        found = source.rows(
            f"select id, a.c{number}::text, case when c is not null then ({back})::text end "
            f"from public.t a join (select id, c{number} c from back.t) b using (id) order by id"
        )
        for index, was, now in found:
            value = given[name][index][0] if index < len(given[name]) else "null"
            if was != now and (name, value) not in LOST_ON_THE_WAY:
                wrong.append((name, was, now))
    assert wrong == []


@pytest.mark.anyio
async def test_postgis_values_are_ewkb_and_come_back_with_their_srid(source: Any) -> None:
    try:
        older = PostgresServer(version=15)
    except PostgresMissing as error:
        pytest.skip(str(error))
    with older, temporary_database(older, "places") as dsn:
        places = type(source)(older, "places", dsn)
        if not places.rows("select 1 from pg_available_extensions where name = 'postgis'"):
            pytest.skip("PostGIS is not installed: apt-get install postgresql-15-postgis-3")
        places.run(
            "create extension postgis",
            "create table marks (id text primary key)",
            "create table t (id int primary key, g geometry, p geography(point, 4326), many geometry[])",
        )
        row = "({}, 'SRID=3857;POINT Z (1 2 3)', 'POINT(8.5 47.4)', array['LINESTRING(0 0, 1 1)'::geometry, null])"
        places.run(f"insert into t values {row.format(1)}")
        async with places.capturing() as out:
            await places.copied(out, "public.t")
            places.run(f"insert into t values {row.format(2)}")
            await places.caught_up(out)
        first, second = (record.doc for record in out.records(places.collection("public.t")))
        assert {**first, "id": 2} == second
        ((texts,),) = places.rows(
            "select array[st_asewkt(decode('{g}', 'base64')::geometry), "
            "st_asewkt(decode('{p}', 'base64')::geography), "
            "st_asewkt(decode('{m}', 'base64')::geometry)]".format(
                g=first["g"], p=first["p"], m=first["many"][0]
            )
        )
        assert texts == ["SRID=3857;POINT(1 2 3)", "SRID=4326;POINT(8.5 47.4)", "LINESTRING(0 0,1 1)"]
