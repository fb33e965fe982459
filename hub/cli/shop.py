"""A small shop in PostgreSQL, and a customer rush: what the demo and the benchmarks write.

`python -m hub.cli.shop DSN SECONDS` writes random inserts, updates, deletes and key changes, in
transactions of one to a few tables, and prints how many it made.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import dataclass

import psycopg

SCHEMA = """
create table customers (
    id bigint primary key,
    name text not null,
    email text,
    vip boolean not null default false,
    joined date not null
);
create table orders (
    id bigint primary key,
    customer_id bigint not null,
    amount numeric(12,2) not null,
    status text not null,
    note jsonb,
    placed_at timestamptz not null
);
create table items (
    order_id bigint,
    line int,
    sku text not null,
    quantity int not null,
    primary key (order_id, line)
);
create table pulse (id bigint primary key, at timestamptz not null default now());
"""

TABLES = ("customers", "orders", "items")

_FILL = """
insert into customers
select i, 'Customer ' || i, 'user' || i || '@example.com', i % 50 = 0, date '2020-01-01' + (i % 2000)
from generate_series(1, {customers}) i;
insert into orders
select i, 1 + i % {customers}, (i * 7 % 100000) / 100.0, (array['new','paid','sent','done'])[1 + i % 4],
       jsonb_build_object('n', i, 'tags', jsonb_build_array('a', 'b')), timestamptz '2026-01-01 00:00:00+00' + i * interval '1 second'
from generate_series(1, {orders}) i;
insert into items
select i, 1, 'SKU-' || (i % 500), 1 + i % 5 from generate_series(1, {items}) i;
"""


@dataclass
class Written:
    """What a rush has written."""

    transactions: int = 0
    rows: int = 0


def create(connection: psycopg.Connection, rows: int = 100_000) -> int:
    """Make the tables with `rows` rows in all: a tenth customers, half orders, the rest items."""
    parts = {"customers": rows // 10, "orders": rows // 2, "items": rows - rows // 10 - rows // 2}
    connection.execute(SCHEMA)
    connection.execute(_FILL.format(**parts).encode())
    connection.execute("analyze")
    return rows


class Rush:
    """Random changes, one transaction a call, from a seed. Keys it makes start at `first`."""

    def __init__(self, connection: psycopg.Connection, *, seed: int = 1, first: int = 10_000_000) -> None:
        self._connection = connection
        self._random = random.Random(seed)
        self._next = first
        self._known = list(range(1, 1000))
        self.written = Written()

    def transaction(self) -> None:
        """One source transaction, of one to five statements."""
        with self._connection.transaction(), self._connection.pipeline():
            for _ in range(self._random.choice((1, 1, 1, 2, 3, 5))):
                self._random.choices(
                    (self._order, self._update, self._delete, self._customer, self._rekey), (5, 5, 1, 2, 1)
                )[0]()
        self.written.transactions += 1

    def _run(self, statement: str, parameters: tuple[object, ...], rows: int = 1) -> None:
        self._connection.execute(statement.encode(), parameters)
        self.written.rows += rows

    def _order(self) -> None:
        key = self._next
        self._next += 1
        self._known.append(key)
        amount = self._random.randrange(1, 1_000_000) / 100
        self._run(
            "insert into orders values (%s, %s, %s, 'new', %s, now())",
            (key, self._random.randrange(1, 10_000), f"{amount:.2f}", json.dumps({"n": key, "é": "ü\n"})),
        )
        lines = self._random.randrange(1, 4)
        for line in range(1, lines + 1):
            self._run(
                "insert into items values (%s, %s, %s, 1)", (key, line, f"SKU-{self._random.randrange(500)}")
            )

    def _update(self) -> None:
        key = self._random.choice(self._known)
        self._run("update orders set status = 'paid', amount = amount + 1 where id = %s", (key,))
        self._run("update items set quantity = quantity + 1 where order_id = %s", (key,))

    def _delete(self) -> None:
        key = self._known.pop(self._random.randrange(len(self._known)))
        self._run("delete from items where order_id = %s", (key,))
        self._run("delete from orders where id = %s", (key,))

    def _customer(self) -> None:
        self._run(
            "insert into customers values (%s, %s, null, true, current_date) "
            "on conflict (id) do update set vip = not customers.vip, name = excluded.name",
            (self._random.randrange(1, 20_000), f"Name {self._random.random()}"),
        )

    def _rekey(self) -> None:
        key = self._random.choice(self._known)
        self._known.remove(key)
        self._known.append(self._next)
        self._run("update orders set id = %s where id = %s", (self._next, key))
        self._next += 1


def main(dsn: str, seconds: float, seed: int = 1) -> Written:
    """Write for so many seconds."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        rush = Rush(connection, seed=seed)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            rush.transaction()
    return rush.written


if __name__ == "__main__":
    done = main(sys.argv[1], float(sys.argv[2]))
    print(json.dumps({"transactions": done.transactions, "rows": done.rows}))
