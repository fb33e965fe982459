"""A real MariaDB for the tests and the benchmarks: own data directory, free port.

The server comes from the system's packages (`mariadb-server`); it runs as the user `mysql` where the
tests run as root.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import pymysql

from hub.errors import FatalError

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
_POLL_S = 0.05


class MariaDBMissing(FatalError):
    """No MariaDB on this machine. The message says how to get it."""


class MariaDBServer:
    """A MariaDB server that lives as long as the `with` block, with the user `hub` and the database `hub`."""

    user = "hub"
    password = "hub"
    database = "hub"

    def __init__(self) -> None:
        found = shutil.which("mariadbd") or shutil.which("mysqld")
        install = shutil.which("mariadb-install-db")
        if found is None or install is None:
            raise MariaDBMissing("there is no MariaDB here; install the package mariadb-server")
        self._server, self._install = found, install
        self.path = Path(tempfile.mkdtemp(prefix="hub-mariadb-"))
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    def connect(self, **options: Any) -> pymysql.connections.Connection[Any]:
        """A connection with autocommit."""
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user=self.user,
            password=self.password,
            database=self.database,
            charset="utf8mb4",
            autocommit=True,
            **options,
        )

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        shutil.rmtree(self.path, ignore_errors=True)

    def _start(self) -> None:
        identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("mysql")
            identity = {"user": user.pw_uid, "group": user.pw_gid}
            os.chown(self.path, user.pw_uid, user.pw_gid)
        data = self.path / "data"
        # Of its own: a server that starts deletes the temporary tables in it, also those of one that runs, which dies of it.
        temporary = self.path / "tmp"
        temporary.mkdir()
        if identity:
            os.chown(temporary, identity["user"], identity["group"])
        done = subprocess.run(
            [self._install, "--no-defaults", f"--datadir={data}", f"--tmpdir={temporary}",
             "--auth-root-authentication-method=normal", "--skip-test-db"],
            capture_output=True, check=False, **identity,
        )  # fmt: skip
        if done.returncode:
            raise FatalError(f"mariadb-install-db failed:\n{done.stderr.decode(errors='replace')}")
        init = self.path / "init.sql"
        init.write_text(
            f"CREATE DATABASE IF NOT EXISTS {self.database};\n"
            f"CREATE USER IF NOT EXISTS '{self.user}'@'%' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO '{self.user}'@'%';\n"
        )
        init.chmod(0o644)
        log = (self.path / "log").open("wb")
        with contextlib.closing(log):
            self._process = subprocess.Popen(
                [self._server, "--no-defaults", f"--datadir={data}", f"--tmpdir={temporary}", f"--port={self.port}", "--bind-address=127.0.0.1",
                 f"--socket={self.path / 'socket'}", f"--pid-file={self.path / 'pid'}", f"--init-file={init}",
                 "--innodb-flush-log-at-trx-commit=0", "--local-infile=1"],
                stdout=log, stderr=log, **identity,
            )  # fmt: skip
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.connect(connect_timeout=1).close()
                break
            except pymysql.err.Error as error:
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > deadline:
                    text = (self.path / "log").read_text(errors="replace")[-2000:]
                    raise FatalError(f"MariaDB did not start:\n{text}") from error
                time.sleep(_POLL_S)
