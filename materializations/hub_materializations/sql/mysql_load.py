"""LOAD DATA LOCAL without a file: the server is sent the bytes at hand, and nothing else that it may ask for.

The hard thing is that the protocol lets the server name the file, in answer to any statement. So this
connection never opens one: it sends the text that `load` was given, under the one name that `load` uses, and ends
itself when it is asked for anything else.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pymysql
from msgspec import Raw
from pymysql.connections import Connection, MySQLResult
from pymysql.constants import CR

from .csv_text import csv_text
from .reduce import Load

NAME = "hub"
"""What the file is called in the statement. There is none."""

PACKET_BYTES = 1 << 20

FORMAT = (
    "CHARACTER SET utf8mb4 FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"' ESCAPED BY '\\\\' "
    "LINES TERMINATED BY '\\n'"
)
"""How `load_text` writes rows."""

_NULL = Raw(b"NULL")


class Loaded(NamedTuple):
    """What the server says of a load. With LOCAL it never fails for a row, it warns."""

    rows: int
    warnings: int


class LoadingConnection(Connection):
    """A connection that can load text, and that no server can make read a file."""

    _offered: bytes | None = None

    def load(self, statement: str, text: bytes) -> Loaded:
        """Run a LOAD DATA LOCAL INFILE of the file `NAME`."""
        self._offered = text
        try:
            with self.cursor() as cursor:
                rows = cursor.execute(statement)
                result: Any = self._result
                return Loaded(int(rows), int(result.warning_count))
        finally:
            self._offered = None

    def _read_query_result(self, unbuffered: bool = False) -> int:
        assert not unbuffered, "every result is read at once"
        self._result = None
        result: Any = _Result(self)
        result.read()
        self._result = result
        if result.server_status is not None:
            self.server_status = result.server_status
        return int(result.affected_rows)

    def send_offered(self, name: bytes) -> None:
        """Answer a wish for a file."""
        text, self._offered = self._offered, None
        if text is None or name != NAME.encode():
            self._force_close()  # type: ignore[attr-defined]
            raise pymysql.err.OperationalError(
                CR.CR_MALFORMED_PACKET, f"the server asked for the file {name!r}, which it was not offered"
            )
        for start in range(0, len(text), PACKET_BYTES):
            self.write_packet(text[start : start + PACKET_BYTES])
        self.write_packet(b"")


class _Result(MySQLResult):
    def _read_load_local_packet(self, first_packet: Any) -> None:
        connection: Any = self.connection
        connection.send_offered(first_packet.get_all_data()[1:])
        answer = connection._read_packet()
        self._read_ok_packet(answer)  # type: ignore[attr-defined]


def load_text(load: Load) -> bytes:
    """The rows as `FORMAT` has it. Bytes are in base64."""
    text = csv_text(load.rows)
    # JSON's null is a word to the server, whose own is NULL; most loads have neither.
    return csv_text(_with_nulls(load)) if b"null" in text else text


def _with_nulls(load: Load) -> list[tuple[Any, ...]]:
    columns = [
        [_NULL if cell is None else cell for cell in column] if None in column else column
        for column in zip(*load.rows, strict=True)
    ]
    return list(zip(*columns, strict=True))
