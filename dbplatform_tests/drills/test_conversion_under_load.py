"""Converted and undone under eight writers and four readers: no error at any of them, no row lost or doubled."""

from __future__ import annotations

from datetime import UTC, datetime

from dbplatform.partitioning.conversion.convert import convert
from dbplatform.partitioning.conversion.undo import undo
from dbplatform.postgres.connection import Target, connect
from dbplatform_tests.drills.conversion_clients import POLICY, Clients, prepare

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
ROWS = 20_000


def test_clients_of_a_table_that_is_converted_and_undone_notice_nothing(database: Target) -> None:
    prepare(database.url, ROWS)
    clients = Clients(database.url, ROWS)
    with clients.working(), connect(database, work="test") as connection:
        for _ in range(2):
            assert convert(connection, POLICY, now=NOW).state == "converted"
            assert undo(connection, POLICY).state == "plain"
        assert convert(connection, POLICY, now=NOW).state == "converted"
    assert clients.failures == []
    assert clients.differences() == []
    assert len(clients.committed) > 100
