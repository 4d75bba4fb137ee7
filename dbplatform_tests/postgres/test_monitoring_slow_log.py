"""The server's log of slow statements: planned, set, and put back as it was, whatever happened in between."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import select

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import SettingChange
from dbplatform.monitoring.slow_log import PREFIX, LoggingPlan, apply_logging, apply_undo, plan_logging, plan_undo
from dbplatform.postgres.connection import Target, connect
from dbplatform_tests.postgres.embedded_support import wait_until
from dbplatform_tests.postgres.test_monitoring_collect import run

pytest_plugins = ("dbplatform_tests.postgres.monitoring_servers",)


@pytest.fixture(autouse=True)
def cleared(target: Target) -> None:
    """The shared database and server as they came."""
    run(target, "alter database postgres reset all", "alter system reset all", "select pg_reload_conf()")


def planned(target: Target, **options: str) -> LoggingPlan:
    with connect(target, work="slow log") as connection:
        return plan_logging(connection, "flights", **options)


def applied(target: Target, ledger: Ledger, plan: LoggingPlan) -> None:
    with connect(target, work="slow log") as connection:
        apply_logging(connection, ledger, plan)


def undone(target: Target, ledger: Ledger) -> LoggingPlan:
    with connect(target, work="slow log") as connection:
        plan = plan_undo(connection, ledger, "flights")
        apply_undo(connection, ledger, plan)
    return plan


def shown(target: Target, *settings: str) -> list[str]:
    """What a new session has."""
    with psycopg.connect(target.url) as connection:
        rows = [connection.execute("select current_setting(%s)", (one,)).fetchone() for one in settings]
    return [row[0] for row in rows if row is not None]


_SETTINGS = ("log_min_duration_statement", "log_statement")


def test_slow_statements_are_logged_for_the_database_alone_and_as_before_after_the_undo(
    target: Target, ledger: Ledger
) -> None:
    before = shown(target, *_SETTINGS)
    plan = planned(target)
    assert [change.sql for change in plan.changes] == [
        'alter database "postgres" set "log_min_duration_statement" = \'1s\'',
        'alter database "postgres" set "log_statement" = \'mod\'',
    ]
    assert "log_line_prefix" in plan.left[0], "the embedded server's prefix says enough"
    applied(target, ledger, plan)
    assert shown(target, *_SETTINGS) == ["1s", "mod"]
    assert planned(target).changes == ()
    assert len(undone(target, ledger).changes) == 2
    assert shown(target, *_SETTINGS) == before
    assert undone(target, ledger).changes == ()


def test_what_was_before_the_first_change_comes_back_after_many(target: Target, ledger: Ledger) -> None:
    run(target, "alter database postgres set log_min_duration_statement = '5s'")
    for limit in ("1s", "2s", "500ms"):
        applied(target, ledger, planned(target, min_duration=limit))
    undone(target, ledger)
    assert shown(target, *_SETTINGS) == ["5s", "none"]
    with ledger.session() as session:
        kept = session.execute(select(SettingChange.setting, SettingChange.before, SettingChange.after)).all()
    assert sorted(kept) == [("log_min_duration_statement", "5s", "500ms"), ("log_statement", None, "mod")]


def test_what_somebody_has_changed_since_is_left_to_them(target: Target, ledger: Ledger) -> None:
    applied(target, ledger, planned(target))
    run(target, "alter database postgres set log_statement = 'all'")
    plan = undone(target, ledger)
    assert [change.setting for change in plan.changes] == ["log_min_duration_statement"]
    assert "somebody has changed it" in plan.left[0]
    assert shown(target, "log_statement") == ["all"]


def test_a_change_that_was_killed_before_it_was_made_is_undone_as_well(target: Target, ledger: Ledger) -> None:
    with ledger.session() as session:
        session.add(SettingChange(database="flights", scope="database", setting="log_statement", after="mod"))
    undone(target, ledger)
    assert shown(target, "log_statement") == ["none"]


@pytest.mark.parametrize(
    ("prefix", "enough"),
    [
        ("%m [%p] %q%u@%d %a ", False),  # says who, and not from which machine
        ("%m [%p] %u %d %a %h ", True),
        ("%n [%p] %u %d %a %r ", True),
        ("%t [%p] %u %d %h ", False),
    ],
)
def test_a_prefix_is_left_only_where_it_names_the_client_and_its_program_too(
    target: Target, prefix: str, enough: bool
) -> None:
    run(target, f"alter system set log_line_prefix = '{prefix}'", "select pg_reload_conf()")
    wait_until(lambda: shown(target, "log_line_prefix") == [prefix])
    plan = planned(target)
    assert [change.after for change in plan.changes if change.scope == "server"] == ([] if enough else [PREFIX])
    assert bool(plan.left) == enough


def test_a_prefix_that_does_not_say_who_is_set_for_the_server_and_put_back(target: Target, ledger: Ledger) -> None:
    run(target, "alter system set log_line_prefix = '%t '", "select pg_reload_conf()")
    plan = planned(target)
    assert [(change.scope, change.before, change.after) for change in plan.changes][-1] == ("server", "%t ", PREFIX)
    applied(target, ledger, plan)
    with connect(target, work="look") as connection:
        seen = connection.execute("select setting from pg_file_settings where name = 'log_line_prefix'").fetchall()
        assert (PREFIX,) in seen
    undone(target, ledger)
    with connect(target, work="look") as connection:
        seen = connection.execute("select setting from pg_file_settings where name = 'log_line_prefix'").fetchall()
        assert (PREFIX,) not in seen
        assert ("%t ",) in seen
