"""The MySQL materialization through the conformance kit, against MariaDB."""

from __future__ import annotations

import pytest

from hub.testing.mariadb import MariaDBServer
from tests.materializations.sql_conformance import BulkConformance, Made
from tests.materializations.sql_subjects import MySQLSubject


class TestMySQL(BulkConformance):
    module = "hub_materializations.sql.mysql_driver"

    @pytest.fixture
    def made(self, mariadb_server: MariaDBServer) -> Made:
        return lambda name: MySQLSubject(mariadb_server, name)
