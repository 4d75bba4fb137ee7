"""A check that cannot run has errored, alone; no value of a declaration becomes SQL that was not meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from dbplatform.postgres.catalog import TableMissing
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.quality.attempt import ChecksInterrupted
from dbplatform.quality.checks.keys import Unique
from dbplatform.quality.engine import run_table
from dbplatform.quality.examination import examined
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import CheckResult
from dbplatform_tests.postgres.quality_support import emptied, kept_database

__all__ = ["emptied", "kept_database"]

GOOD: list[Any] = [{"not_null": "id"}, {"unique": "id"}, {"range": {"column": "n", "max": 5, "name": "small"}}]


@pytest.fixture
def connection(emptied: Target) -> Iterator[AutocommitConnection]:
    with connect(emptied, work="test") as session:
        session.execute("create table t (id int primary key, n int, s text, j json)")
        session.execute("insert into t select i, i % 11, 'x' || i from generate_series(1, 110) i")
        yield session


def beside_good_ones(connection: AutocommitConnection, bad: Any, **options: Any) -> CheckResult:
    """The result of a check that runs among good ones, which must not notice it."""
    found = run_table(connection, TablePolicy(table="t", checks=[GOOD[0], bad, *GOOD[1:]]), **options)
    assert [check.status for check in (found.checks[0], *found.checks[2:])] == ["passed", "passed", "failed"]
    assert [check.failed_rows for check in (found.checks[0], *found.checks[2:])] == [0, 0, 50]
    assert found.row_count == 110
    assert connection.execute("select count(*) from t").fetchone() == (110,)
    return found.checks[1]


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        ({"not_null": "idd"}, 'column t.idd does not exist. Perhaps you meant to reference the column "t.id".'),
        ({"matches": {"column": "s", "regex": "("}}, "invalid regular expression"),
        ({"matches": {"column": "n", "regex": "x"}}, "operator does not exist: integer !~ unknown"),
        ({"range": {"column": "n", "min": "abc"}}, "invalid input syntax for type integer"),
        ({"accepted_values": {"column": "n", "values": ["x"]}}, "invalid input syntax for type integer"),
        ({"length": {"column": "n", "min": 1}}, "function length(integer) does not exist"),
        ({"mean": {"column": "s", "min": 1}}, "function avg(text) does not exist"),
        ({"freshness": {"column": "n", "max_age": "1 day"}}, "function isfinite(integer) does not exist"),
        ({"unique": "j"}, "could not identify an equality operator for type json"),
        ({"unique": ["id", "nope"]}, "column t.nope does not exist"),
        ({"relationship": {"column": "id", "to": "nowhere.id"}}, 'relation "public.nowhere" does not exist'),
        ({"relationship": {"column": "id", "to": "t.s"}}, "operator does not exist: text = integer"),
        ({"not_null": "s", "where": "n >"}, "syntax error"),
        ({"not_null": "s", "where": "n"}, "must be type boolean"),
        ({"not_null": "s", "where": "count(*) > 1"}, "aggregate functions are not allowed"),
        ({"not_null": "s", "where": "generate_series(1, 2) > 1"}, "set-returning functions are not allowed"),
        ({"not_null": "s", "where": "1 / (id - 50) > 0"}, "division by zero"),
        ({"unique": "s", "where": "1 / (id - 50) > 0"}, "division by zero"),
        ({"mean": {"column": "n", "min": 1, "where": "1 / (id - 50) > 0"}}, "division by zero"),
        ({"sql": {"name": "q", "rows": "select * from nowhere"}}, "does not exist"),
        ({"sql": {"name": "q", "rows": "select 1 / (id - 50) as x from t"}}, "division by zero"),
    ],
)
def test_a_check_that_cannot_run_errs_alone_in_the_words_of_postgresql(
    connection: AutocommitConnection, check: Any, reason: str
) -> None:
    found = beside_good_ones(connection, check)
    assert found.status == "errored"
    assert reason in found.message
    assert found.failed_rows is None


def test_a_wrong_expression_errs_on_an_empty_table_too(connection: AutocommitConnection) -> None:
    connection.execute("truncate t")
    policy = TablePolicy(table="t", checks=[{"matches": {"column": "s", "regex": "["}}, {"not_null": "s"}])
    assert [check.status for check in run_table(connection, policy).checks] == ["errored", "passed"]


@pytest.mark.parametrize(
    "where",
    [
        "true) or (true",
        "true); drop table t; --",
        "true; drop table t",
        "true)) from t; drop table t; --",
        "true) filter (where (true",
        "true), (true",
        "true, true",
        "true from t union select true",
        "true /*",
        "true -- ) or (",
        "true order by 1",
        "true as x",
        "'",
        "$$",
        '"',
        "*",
        "%s",
        "{}",
    ],
)
def test_where_is_one_condition_or_it_errs(connection: AutocommitConnection, where: str) -> None:
    found = beside_good_ones(connection, {"accepted_values": {"column": "s", "values": ["x1"]}, "where": where})
    expected = ("failed", 109) if where == "true -- ) or (" else ("errored", None)
    assert (found.status, found.failed_rows) == expected


@pytest.mark.parametrize(
    "rows",
    [
        "select 1) as a, (select 2",
        "select * from t) as a; drop table t; select * from (select 1",
        "select 1; select 2",
        "delete from t returning *",
        "with gone as (delete from t returning *) select * from gone",
        "analyze delete from t",
        "(analyze) delete from t",
        "select 1 into x",
        "select set_config('transaction_read_only', 'off', false), lo_create(0)",
        "select delete_all()",
        "drop table t",
        "copy t to stdout",
        "select 1 /*",
        "commit",
    ],
)
def test_a_query_is_one_reading_query_or_it_errs(connection: AutocommitConnection, rows: str) -> None:
    connection.execute(
        "create function delete_all() returns int language plpgsql as $$ begin delete from t; return 1; end $$"
    )
    found = beside_good_ones(connection, {"sql": {"name": "q", "rows": rows}})
    assert found.status == "errored"
    assert connection.execute("show transaction_read_only").fetchone() == ("off",)


NASTY = "x'); drop table t; -- \\'; drop table t; /* %s %(a)s {} {0} $1 $$ \""


@pytest.mark.parametrize(
    ("check", "status"),
    [
        ({"accepted_values": {"column": "s", "values": [NASTY]}}, "failed"),
        ({"range": {"column": "s", "min": NASTY}}, "passed"),
        ({"matches": {"column": "s", "regex": "x'; drop table t; -- \\\\ %s {}"}}, "failed"),
        ({"not_null": '"x""; drop table t; -- %s {}"'}, "errored"),
        ({"unique": ['"x""; drop table t; -- %s {}"']}, "errored"),
        ({"relationship": {"column": "s", "to": '"t""; drop table t; --"."x"'}}, "errored"),
        ({"relationship": {"column": "s", "to": 't."s"" ; drop table t; --"'}}, "errored"),
        ({"schema": {"columns": {"s": NASTY}}}, "errored"),
        ({"schema": {"columns": {"s": "text from t; drop table t; --"}}}, "errored"),
        ({"schema": {"columns": {"s": "text -- x"}}}, "passed"),
        ({"schema": {"columns": {'"x""; drop table t; --"': "text"}}}, "failed"),
        ({"not_null": "s", "owner": NASTY}, "passed"),
    ],
)
def test_no_value_of_a_declaration_becomes_sql(connection: AutocommitConnection, check: Any, status: str) -> None:
    assert beside_good_ones(connection, check).status == status


def test_a_name_with_an_injection_as_table_is_only_a_missing_table(connection: AutocommitConnection) -> None:
    with pytest.raises(TableMissing):
        run_table(connection, TablePolicy(table='"t; drop table t; --"', checks=GOOD))
    assert connection.execute("select count(*) from t").fetchone() == (110,)


def test_a_statement_over_its_time_errs_alone(connection: AutocommitConnection) -> None:
    slow = {"sql": {"name": "slow", "rows": "select pg_sleep(60)"}}
    found = beside_good_ones(connection, slow, statement_timeout_ms=300)
    assert found.status == "errored"
    assert "statement timeout" in found.message
    assert connection.execute("show statement_timeout").fetchone() == ("0",)


def test_a_table_that_may_not_be_read_errs_every_check(connection: AutocommitConnection, emptied: Target) -> None:
    role = f"reader_{emptied.name}"
    connection.execute(f"create role {role}".encode())
    connection.execute(f"set role {role}".encode())
    found = run_table(connection, TablePolicy(table="t", checks=[*GOOD, {"row_count": {"min": 0}}]))
    connection.execute("reset role")
    connection.execute(f"drop role {role}".encode())
    assert {check.status for check in found.checks} == {"errored"}
    assert "permission denied" in found.checks[0].message
    assert found.row_count is None


def test_a_check_that_may_not_have_seen_all_rows_says_so(connection: AutocommitConnection, emptied: Target) -> None:
    """A defect in a row that a policy hides is none that could be found: that has to be told with the verdict."""
    role = f"reader_{emptied.name}"
    connection.execute(
        "create table kinds (kind text); insert into kinds values ('a'), ('b');"
        "create table o (n int, kind text); insert into o values (1, 'a'), (null, 'b');"
        "alter table o enable row level security; create policy known on o using (n is not null);"
        "alter table kinds enable row level security"
    )
    checks: list[Any] = [
        {"not_null": "n"},
        {"row_count": {"min": 1}},
        {"relationship": {"column": "kind", "to": "kinds.kind"}},
        {"schema": {"columns": {"n": "int"}}},
        {"not_null": "missing"},
    ]
    owner = run_table(connection, TablePolicy(table="o", checks=checks))
    assert not any("Row-level security" in check.message for check in owner.checks)
    connection.execute(
        f"create role {role}; grant usage on schema public to {role}; grant select on o, kinds to {role}".encode()
    )
    try:
        connection.execute(f"set role {role}".encode())
        found = run_table(connection, TablePolicy(table="o", checks=checks)).checks
    finally:
        connection.execute(f"reset role; drop owned by {role}; drop role {role}".encode())
    assert [check.status for check in found] == ["passed", "passed", "failed", "passed", "errored"]
    said = f"Row-level security of o applies to the role {role}: rows that it hides were not seen."
    assert [check.message.endswith(said) for check in found] == [True, True, False, False, False]
    assert f"Row-level security of o and kinds applies to the role {role}" in found[2].message


def test_a_lost_connection_ends_the_run_with_an_error_of_its_own(connection: AutocommitConnection) -> None:
    policy = TablePolicy(
        table="t", checks=[{"sql": {"name": "q", "rows": "select pg_terminate_backend(pg_backend_pid())"}}, *GOOD]
    )
    with pytest.raises(ChecksInterrupted, match="while t was checked"):
        run_table(connection, policy)


def test_all_checks_see_the_same_moment(
    connection: AutocommitConnection, emptied: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer commits a violation of everything between the first scan and the checks after it."""
    checks = [
        {"row_count": {"max": 110}},
        {"unique": "s"},
        {"relationship": {"column": "n", "to": "other.n"}},
        {"sql": {"name": "q", "rows": "select * from t where s = 'x1'", "tolerance": 1}},
    ]
    connection.execute("create table other as select distinct n from t")
    asked = Unique.own
    written: list[int] = []

    def write_then_ask(self: Unique, *arguments: Any) -> Any:
        with psycopg.connect(emptied.url) as writer:
            writer.execute("insert into t (id, n, s) values (999, 999, 'x1')")
        written.append(1)
        return asked(self, *arguments)

    monkeypatch.setattr(Unique, "own", write_then_ask)
    with examined(connection, TablePolicy(table="t", checks=checks)) as examination:
        assert {check.status for check in examination.result.checks} == {"passed"}
    assert written == [1]
    monkeypatch.undo()
    after = run_table(connection, TablePolicy(table="t", checks=checks))
    assert {check.status for check in after.checks} == {"failed"}


def test_no_check_named_still_counts_the_rows(connection: AutocommitConnection) -> None:
    found = run_table(connection, TablePolicy(table="t", checks=GOOD), only=set())
    assert (found.row_count, found.checks) == (110, ())


def test_a_statement_that_takes_longer_than_its_table_declares_is_an_error_of_its_check(
    connection: AutocommitConnection,
) -> None:
    slow = {"sql": {"name": "slow", "rows": "select pg_sleep(60)"}}
    policy = TablePolicy(table="t", statement_timeout="1s", checks=[slow, {"not_null": "id"}])
    found = run_table(connection, policy).checks
    assert [check.status for check in found] == ["errored", "passed"]
    assert "statement timeout" in found[0].message
    connection.execute("set statement_timeout to 200")
    assert run_table(connection, TablePolicy(table="t", checks=[slow])).checks[0].status == "errored", "the shorter one"


def test_a_statement_may_take_an_hour_where_nothing_is_declared() -> None:
    assert TablePolicy(table="t", checks=[{"not_null": "id"}]).statement_timeout_ms == 3_600_000
