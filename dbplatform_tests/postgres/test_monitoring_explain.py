"""Plans: nothing runs that was not asked for, what writes is rolled back, and one statement is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from dbplatform.monitoring.explain import NeedsValues, NotExplained, Plan, PlanTooLarge, TookTooLong, Writes, explain
from dbplatform.postgres.connection import Target, connect

if TYPE_CHECKING:
    from dbplatform_tests.second_server import SecondServer

pytest_plugins = ("dbplatform_tests.second_server",)


@pytest.fixture(params=["own", "15"])
def target(request: pytest.FixtureRequest) -> Target:
    """A table of 20,000 rows without an index, on each server."""
    if request.param == "own":
        found: Target = request.getfixturevalue("database")
    else:
        second: SecondServer = request.getfixturevalue("second_server")
        second.run("drop database if exists explained", "create database explained")
        found = Target("explained", second.url("explained"))
    with psycopg.connect(found.url) as connection:
        connection.execute("create table t (a int, b text)")
        connection.execute("insert into t select g, 'x' from generate_series(1, 20000) g")
    return found


def plan(target: Target, query: str, **options: bool) -> Plan:
    with connect(target, work="explain", statement_timeout_ms=500) as connection:
        return explain(connection, query, timeout_ms=500, **options)


def bounded(target: Target, query: str, most_bytes: int) -> Plan:
    with connect(target, work="explain") as connection:
        return explain(connection, query, most_bytes=most_bytes)


def rows(target: Target) -> int:
    with psycopg.connect(target.url) as connection:
        (count,) = connection.execute("select count(*) from t").fetchone() or (0,)
    return int(count)


def test_a_plan_is_told_without_running_even_of_what_writes(target: Target) -> None:
    assert "Seq Scan on t" in plan(target, "select * from t where a = 7;").text
    found = plan(target, "delete from t")
    assert (found.analyzed, found.generic, rows(target)) == (False, False, 20_000)
    assert found.document["Plan"]["Node Type"] == "ModifyTable"


def test_a_statement_with_parameters_has_the_plan_for_any_value(target: Target) -> None:
    found = plan(target, "select * from t where a = $1 and b = $2 limit $3")
    assert found.generic
    assert "(a = $1)" in found.text
    assert plan(target, "select now() - interval $1").generic, "as pg_stat_statements writes it"
    with pytest.raises(NeedsValues):
        plan(target, "select * from t where a = $1", analyze=True)


def test_measured_is_what_reads_and_the_whole_table_read_for_one_row_is_pointed_out(target: Target) -> None:
    found = plan(target, "select * from t where a = 7", analyze=True)
    assert found.analyzed
    assert found.document["Plan"]["Actual Rows"] == 1
    assert "an index on its filter may help" in found.notes[0]


def test_what_writes_is_measured_only_where_that_is_said_and_rolled_back(target: Target) -> None:
    with pytest.raises(Writes):
        plan(target, "delete from t", analyze=True)
    with pytest.raises(Writes):
        plan(target, "with gone as (delete from t returning a) select count(*) from gone", analyze=True)
    found = plan(target, "delete from t", analyze=True, may_write=True)
    assert found.document["Plan"]["Plans"][0]["Actual Rows"] == 20_000
    assert rows(target) == 20_000


@pytest.mark.parametrize("second", ["delete from t", "commit", "commit; delete from t"])
def test_a_second_statement_is_refused(target: Target, second: str) -> None:
    for options in ({}, {"analyze": True}, {"analyze": True, "may_write": True}):
        with pytest.raises(NotExplained, match="multiple commands"):
            plan(target, f"select 1; {second}", **options)
    with pytest.raises(NotExplained):
        plan(target, f"select $1::int; {second}")
    assert rows(target) == 20_000


@pytest.mark.parametrize("query", ["", "drop table t", "(analyze) delete from t", "analyze delete from t", "selec 1"])
def test_what_is_no_statement_with_a_plan_is_refused_with_postgresqls_reason(target: Target, query: str) -> None:
    with pytest.raises(NotExplained):
        plan(target, query)
    assert rows(target) == 20_000


def test_a_plan_is_counted_before_it_comes(target: Target) -> None:
    whole = bounded(target, "select * from t where a = 7", 1_000_000)
    assert whole == plan(target, "select * from t where a = 7")
    assert bounded(target, "select * from t where a = $1", 1_000_000).generic
    for query in (
        "select * from t where b = repeat('y', 5000)",
        "select * from t where b = repeat('y', 5000) and a = $1",
    ):
        with pytest.raises(PlanTooLarge, match="at most 5,000"):
            bounded(target, query, 5_000)
    with pytest.raises(NotExplained) as refused:
        bounded(target, "select * from t where a = repeat('y', 5000)::int", 5_000)
    assert isinstance(refused.value.__cause__, psycopg.errors.InvalidTextRepresentation)
    assert len(str(refused.value.__cause__)) < 500


def test_a_statement_that_runs_too_long_is_ended(target: Target) -> None:
    with pytest.raises(TookTooLong, match=r"after 0\.5 s"):
        plan(target, "select pg_sleep(60)", analyze=True)
