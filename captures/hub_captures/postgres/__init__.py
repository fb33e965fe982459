"""The `postgres` capture: changes of PostgreSQL tables by logical replication, beside a snapshot in chunks."""

from hub_captures.postgres.capture import PostgresCapture

__all__ = ["PostgresCapture"]
