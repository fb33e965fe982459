"""A writer that does everything a source can do, at random, on keys of its own.

It knows what it wrote, and forgets all of it when the server is gone: whether a commit was the last thing that
happened, only the server can say.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable

import psycopg
from psycopg import errors

HUGE_ROWS = 8_000

SCHEMA = (
    "create table account (id bigint primary key, amount numeric(12,2), note text)",
    "create table item (id bigint, part int, body text, primary key (id, part))",
    "create table big (id bigint primary key, payload text, n int)",
    "alter table big alter payload set storage external",
    "create table event (n bigint, body text)",
    "alter table event replica identity full",
    "create table morph (id bigint primary key, v text)",
    "insert into account values (1, 1, 'first')",
    "insert into item values (1, 1, 'first')",
    "insert into big values (1, 'first', 0)",
    "insert into event values (1, 'first')",
    "insert into morph values (1, 'first')",
    "create publication witness for table account, item, big, event",
    "select pg_create_logical_replication_slot('witness', 'pgoutput')",
)

BUSY = (errors.LockNotAvailable, errors.DeadlockDetected, errors.QueryCanceled, errors.UndefinedTable)


class Writer(threading.Thread):
    """Random transactions on keys of its own, until told to stop. Forgets what it knew when the server is gone."""

    def __init__(self, dsn: str, number: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._dsn = dsn
        self._number = number
        self._random = random.Random(seed)
        self._first = (number + 1) * 1_000_000_000
        self._next = self._first
        self.stopping = threading.Event()
        self.done: Counter[str] = Counter()
        self.failure: BaseException | None = None
        self._kinds: dict[Callable[[psycopg.Connection], None], int] = {
            self._small: 60,
            self._savepoints: 10,
            self._huge: 1,
            self._prepare: 5,
            self._finish_prepared: 5,
            self._rows_of_nobody: 10,
            self._new_column: 1 if number == 0 else 0,
            self._reshape: 2 if number == 0 else 0,
            self._truncate: 1 if number == 1 else 0,
        }

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True, connect_timeout=5) as connection:
                    connection.execute("set lock_timeout = '300ms'")
                    self._learn(connection)
                    while not self.stopping.is_set():
                        self._turn(connection)
            except psycopg.OperationalError:
                self.stopping.wait(0.05)
            except BaseException as error:
                self.failure = error
                return

    def finish(self) -> None:
        self.stopping.set()
        self.join()
        assert self.failure is None, self.failure
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            self._learn(connection)
            while self._prepared:
                self._finish_prepared(connection)
            # A new column shows with the next row only.
            connection.execute("insert into account values (%s, 0, 'last')", (self._key(),))
            connection.execute("insert into item values (%s, 0, 'last')", (self._key(),))
            connection.execute("insert into event values (%s, 'last')", (self._key(),))

    def _turn(self, connection: psycopg.Connection) -> None:
        (kind,) = self._random.choices(list(self._kinds), list(self._kinds.values()))
        try:
            kind(connection)
        except BUSY:
            if connection.closed:
                raise
            self.done["gave way"] += 1
            self._learn(connection)
        else:
            self.done[kind.__name__.strip("_")] += 1

    def _learn(self, connection: psycopg.Connection) -> None:
        bounds = (self._first, self._first + 999_999_999)
        query = "select id from {} where id between %s and %s"
        self._accounts = [i for (i,) in connection.execute(query.format("account"), bounds)]
        self._bigs = [i for (i,) in connection.execute(query.format("big"), bounds)]
        self._prepared = [
            gid
            for (gid,) in connection.execute(
                "select gid from pg_prepared_xacts where gid like %s", (f"w{self._number}-%",)
            )
        ]

    def _key(self) -> int:
        self._next += 1
        return self._next

    def _text(self) -> str:
        return self._random.choice(("", "plain", "é ß 漢 😀", 'quote " \\ tab\t\nnew\x01\x02\x03', "x" * 300))

    def _small(self, connection: psycopg.Connection) -> None:
        is_kept = self._random.random() > 0.1
        with connection.transaction(force_rollback=not is_kept):
            for _ in range(self._random.choice((1, 1, 2, 5, 30))):
                self._change(connection)
        if not is_kept:
            self._learn(connection)

    def _savepoints(self, connection: psycopg.Connection) -> None:
        with connection.transaction():
            self._change(connection)
            with connection.transaction(force_rollback=True):
                for _ in range(self._random.choice((1, 20, 400))):
                    connection.execute("insert into event values (%s, 'void')", (self._key(),))
            with connection.transaction():
                self._change(connection)
                with connection.transaction(force_rollback=True):
                    connection.execute("insert into account values (%s, 0, 'void')", (self._key(),))
            self._change(connection)

    def _huge(self, connection: psycopg.Connection) -> None:
        first = self._key()
        self._next += HUGE_ROWS
        is_kept = self._random.random() > 0.4
        with connection.transaction(force_rollback=not is_kept):
            connection.execute(
                "insert into account select g, g %% 100, repeat('h', 50) from generate_series(%s::bigint, %s) g",
                (first, first + HUGE_ROWS - 1),
            )
            connection.execute(
                "delete from account where id > %s and id < %s", (first + 50, first + HUGE_ROWS)
            )
        if is_kept:
            self._accounts += range(first, first + 51)

    def _prepare(self, connection: psycopg.Connection) -> None:
        if len(self._prepared) > 2:
            return
        gid = f"w{self._number}-{self._key()}"
        connection.execute("begin")
        try:
            connection.execute("insert into account values (%s, 1.50, 'prepared')", (self._key(),))
            for part in range(self._random.choice((1, 3, 500))):
                connection.execute("insert into item values (%s, %s, 'prepared')", (self._key(), part))
            connection.execute(f"prepare transaction '{gid}'")
        except BUSY:
            connection.execute("rollback")
            raise
        self._prepared.append(gid)

    def _finish_prepared(self, connection: psycopg.Connection) -> None:
        if self._prepared:
            word = self._random.choice(("commit", "commit", "rollback"))
            connection.execute(f"{word} prepared '{self._prepared.pop(0)}'")
            self._learn(connection)

    def _rows_of_nobody(self, connection: psycopg.Connection) -> None:
        connection.execute("insert into event values (%s, %s)", (self._key(), self._text()))

    def _new_column(self, connection: psycopg.Connection) -> None:
        """A new form in the middle of a transaction. The oldest addition goes when there are many.

        Not of a table that is truncated as well: to somebody who was away, both together look like a rewrite, after
        which rows are read again and the log need not hold every change."""
        table = self._random.choice(("account", "event"))
        key = self._key()
        with connection.transaction():
            self._change(connection)
            names = [
                name
                for (name,) in connection.execute(
                    "select attname from pg_attribute where attrelid = %s::regclass and attname like 'c\\_%%' "
                    "and not attisdropped order by attnum",
                    (table,),
                )
            ]
            if len(names) > 4:
                connection.execute(f"alter table {table} drop column {names[0]}")
            connection.execute(f"alter table {table} add column c_{key} int")
            if table == "account":
                connection.execute(f"insert into account (id, amount, c_{key}) values (%s, 1, 7)", (key,))
                self._accounts.append(key)
            self._change(connection)

    def _reshape(self, connection: psycopg.Connection) -> None:
        """What rewrites a table without a word in the stream."""
        key = self._key()
        connection.execute("insert into morph (id, v) values (%s, 'before')", (key,))
        statements = self._random.choice(
            (
                (f"alter table morph add column d_{key} int default {key % 1000}",),
                (f"alter table morph alter v type text using v || '{key % 10}'",),
                ("truncate morph",),
                ("drop table morph", "create table morph (id bigint primary key, v text)"),
                (
                    f"create table late_{key} (id bigint primary key)",
                    f"insert into late_{key} values (1), (2)",
                ),
            )
        )
        with connection.transaction():
            for statement in statements:
                connection.execute(statement)
            connection.execute("insert into morph (id, v) values (%s, 'after')", (self._key(),))
        connection.execute("update morph set v = 'since' where id = %s", (self._next,))

    def _truncate(self, connection: psycopg.Connection) -> None:
        with connection.transaction():
            connection.execute("truncate big, item")
            connection.execute("insert into item values (%s, 0, 'first')", (self._key(),))
        self._bigs = []

    def _change(self, connection: psycopg.Connection) -> None:
        key = self._key()
        kinds = ("insert", "update", "delete", "rekey", "big", "toast", "item", "upsert")
        (kind,) = self._random.choices(kinds, (4, 4, 1, 1, 1, 2, 2, 1))
        account = self._random.choice(self._accounts) if self._accounts else None
        if kind == "big" or (kind == "toast" and not self._bigs):
            payload = self._random.randbytes(2000).hex()
            connection.execute("insert into big values (%s, %s, 0)", (key, payload))
            self._bigs.append(key)
        elif kind == "toast":
            connection.execute("update big set n = n + 1 where id = %s", (self._random.choice(self._bigs),))
        elif kind == "item":
            connection.execute("insert into item values (%s, 1, %s), (%s, 2, null)", (key, self._text(), key))
            connection.execute("update item set part = 3 where id = %s and part = 2", (key,))
        elif kind == "insert" or account is None:
            connection.execute("insert into account values (%s, %s, %s)", (key, key % 977, self._text()))
            self._accounts.append(key)
        elif kind == "update":
            connection.execute("update account set amount = amount + 1 where id = %s", (account,))
        elif kind == "upsert":
            connection.execute(
                "insert into account values (%s, 5, 'new') on conflict (id) do update set note = %s",
                (account, self._text()),
            )
        elif kind == "delete":
            connection.execute("delete from account where id = %s", (account,))
            self._accounts.remove(account)
        else:
            connection.execute("update account set id = %s where id = %s", (key, account))
            self._accounts[self._accounts.index(account)] = key
