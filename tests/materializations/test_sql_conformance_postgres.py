"""The PostgreSQL materialization through the conformance kit."""

from __future__ import annotations

import pytest

from hub.testing.postgres import PostgresServer
from tests.materializations.sql_conformance import BulkConformance, Made
from tests.materializations.sql_subjects import PostgresSubject


class TestPostgres(BulkConformance):
    module = "hub_materializations.sql.postgres_driver"

    @pytest.fixture
    def made(self, postgres_server: PostgresServer) -> Made:
        return lambda name: PostgresSubject(postgres_server, name)
