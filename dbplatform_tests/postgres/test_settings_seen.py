"""Settings that change are seen by the watch, and named where an alert tells what was changed shortly before."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import Operation
from dbplatform.monitoring.settings import record_settings
from dbplatform.operations.preceding import preceding
from dbplatform.postgres.connection import Target
from dbplatform_tests.by_hand import by_hand
from dbplatform_tests.postgres.test_monitoring_collect import NOW, look


def seen(database: Target, ledger: Ledger, minutes: int) -> int:
    return record_settings(ledger, "flights", look(database).settings, at=NOW + timedelta(minutes=minutes))


def before(ledger: Ledger, minutes: int) -> str:
    with ledger.session() as session:
        return preceding(session, "flights", NOW + timedelta(minutes=minutes))


def of_database(database: Target, change: str) -> None:
    by_hand(database, f"do $$ begin execute format('alter database %I {change}', current_database()); end $$")


def test_an_alert_names_the_setting_that_changed_before_it(database: Target, ledger: Ledger) -> None:
    assert seen(database, ledger, 0) == 0, "nobody knows when the first ones were set"
    of_database(database, "set random_page_cost = 1.5")
    assert seen(database, ledger, 1) == 1
    assert seen(database, ledger, 2) == 0
    changed = "the setting random_page_cost from its default to 1.5"
    assert before(ledger, 4) == f"Changed shortly before: {changed} (seen 3 min before)."
    of_database(database, "reset random_page_cost")
    assert seen(database, ledger, 5) == 1
    assert before(ledger, 5).startswith(
        "Changed shortly before: the setting random_page_cost from 1.5 to its default (seen less than a minute before)"
    )
    assert before(ledger, 4) == f"Changed shortly before: {changed} (seen 3 min before).", "what came later is no cause"
    assert before(ledger, 6 * 60 + 6) == ""


def test_a_change_of_the_server_and_a_migration_are_told_in_their_order(database: Target, ledger: Ledger) -> None:
    seen(database, ledger, 0)
    of_database(database, "set random_page_cost = 1.5")
    seen(database, ledger, 1)
    with ledger.session() as session:
        at = NOW + timedelta(minutes=2)
        session.add(
            Operation(
                id=uuid4(),
                database="flights",
                kind="migrate",
                status="succeeded",
                actor="ann",
                started_at=at,
                summary={},
            )
        )
    assert before(ledger, 3).startswith("Changed shortly before: migrate (1 min before, by ann), the setting random_")


def test_what_may_hold_a_secret_is_never_read(database: Target, ledger: Ledger) -> None:
    of_database(database, "set my.token = ''secret''")
    found = look(database).settings
    assert "server_version" in found
    assert not {"my.token", "primary_conninfo", "archive_command", "port"} & found.keys()
    assert "secret" not in found.values()
