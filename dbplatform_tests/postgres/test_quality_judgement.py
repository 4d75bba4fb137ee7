"""Severity, tolerance, where, blocking, owner and acceptance hold for each type of check, however it is answered."""

from __future__ import annotations

from datetime import date
from typing import Any

import psycopg
import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform.quality import record
from dbplatform.quality.checks import CHECK_TYPES
from dbplatform.quality.checks.base import Blaming, Filtered, Tolerant
from dbplatform.quality.checks.options import Acceptance
from dbplatform.quality.engine import check_table, run_table
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import CheckResult
from dbplatform_tests.postgres.quality_support import kept_database

__all__ = ["kept_database"]

#: One failing check of each type on the table ``t``: 100 rows, of which 10 fail; half of these have ``ok``.
FAILING: dict[str, dict[str, Any]] = {
    "not_null": {"not_null": "a"},
    "unique": {"unique": "u"},
    "accepted_values": {"accepted_values": {"column": "n", "values": list(range(1, 91))}},
    "range": {"range": {"column": "n", "max": 90}},
    "matches": {"matches": {"column": "s", "regex": "^good"}},
    "length": {"length": {"column": "s", "min": 4}},
    "relationship": {"relationship": {"column": "n", "to": "public.known.n"}},
    "null_ratio": {"null_ratio": {"column": "a", "max": 0.05}},
    "mean": {"mean": {"column": "n", "max": 1}},
    "sum": {"sum": {"column": "n", "max": 1}},
    "row_count": {"row_count": {"max": 1}},
    "freshness": {"freshness": {"column": "at", "max_age": "1 day"}},
    "schema": {"schema": {"columns": {"n": "text"}}},
    "sql": {"sql": {"rows": "select * from t where n > 90"}},
}
TYPES = sorted(FAILING)
FOR_EVER = {"date": "9999-12-31", "reason": "the supplier mends it"}


@pytest.fixture(scope="module")
def table(kept_database: Target) -> Target:
    with psycopg.connect(kept_database.url) as session:
        session.execute(
            """
            create table t (id int primary key, n int, a int, u int, s text, at timestamptz, ok bool);
            insert into t
            select i, i, case when i <= 90 then i end, case when i <= 90 then i else 1000 + i / 11 end,
                   case when i <= 90 then 'good' else 'bad' end, '2020-01-01', i % 2 = 0
            from generate_series(1, 100) i;
            update t set u = 2000 + id % 2 where id > 90;
            create table known (n int);
            insert into known select generate_series(1, 90);
            analyze t, known;
            """
        )
    return kept_database


#: What each of them is declared with: one check for each, all of them judged in one run.
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "told": {"severity": "warn", "owner": "team:ops", "blocking": True},
    "blocking": {"blocking": True},
    "accepted": {"blocking": True, "accepted_until": FOR_EVER},
    "over": {"blocking": True, "accepted_until": {"date": "2020-01-01", "reason": "once"}},
}
TOLERANCES = {"less": (9, "failed"), "as_many": (10, "passed"), "lower": ("9.99%", "failed"), "same": ("10%", "passed")}
WHERE = {"some": "ok", "none": "n < 0"}

Judged = dict[tuple[str, str], CheckResult]


def declared(kind: str, **options: Any) -> dict[str, Any]:
    return {**FAILING[kind], **options}


@pytest.fixture(scope="module", params=[False, True], ids=["server", "stream"])
def judged(table: Target, request: pytest.FixtureRequest) -> Judged:
    """The outcome of each type with each of its options, by type and option."""
    checks: dict[tuple[str, str], dict[str, Any]] = {}
    for kind in TYPES:
        wanted = dict(OPTIONS)
        if issubclass(CHECK_TYPES[kind], Tolerant):
            wanted |= {name: {"tolerance": tolerance} for name, (tolerance, _) in TOLERANCES.items()}
        if issubclass(CHECK_TYPES[kind], Filtered):
            wanted |= {name: {"where": where} for name, where in WHERE.items()}
        for name, options in wanted.items():
            checks[kind, name] = declared(kind, name=f"{kind}_{name}", **options)
    with connect(table, work="test") as connection:
        policy = TablePolicy(table="t", checks=list(checks.values()))
        found = {result.name: result for result in run_table(connection, policy, stream=request.param).checks}
    return {key: found["_".join(key)] for key in checks}


def test_each_type_of_check_is_here() -> None:
    assert set(FAILING) == set(CHECK_TYPES) - {"anomaly"}


@pytest.mark.parametrize("kind", TYPES)
def test_severity_owner_and_blocking_are_what_was_declared(judged: Judged, kind: str) -> None:
    plain, told = judged[kind, "plain"], judged[kind, "told"]
    assert (plain.status, plain.severity, plain.blocking, plain.owner) == ("failed", "error", False, None)
    assert (told.status, told.severity, told.blocking, told.owner) == ("failed", "warn", True, "team:ops")
    assert not plain.blocks
    assert not told.blocks, "a warning stops nothing"
    assert judged[kind, "blocking"].blocks


@pytest.mark.parametrize("kind", TYPES)
def test_an_accepted_failure_counts_the_same_and_blocks_nothing_until_its_day(judged: Judged, kind: str) -> None:
    plain, accepted, over = judged[kind, "plain"], judged[kind, "accepted"], judged[kind, "over"]
    assert (accepted.status, accepted.failed_rows) == ("accepted", plain.failed_rows)
    assert accepted.message.endswith(". Accepted until 9999-12-31: the supplier mends it")
    assert not accepted.blocks
    assert over.status == "failed"
    assert over.message.endswith(". Its acceptance ran out on 2020-01-01: once")
    assert over.blocks


def test_so_many_rows_or_percent_are_tolerated_and_no_more(judged: Judged) -> None:
    tolerant = {kind for kind in TYPES if issubclass(CHECK_TYPES[kind], Tolerant)}
    assert tolerant == {"not_null", "unique", "accepted_values", "range", "matches", "length", "relationship", "sql"}
    for kind in tolerant:
        for name, (_, status) in TOLERANCES.items():
            assert (judged[kind, name].status, judged[kind, name].failed_rows) == (status, 10), (kind, name)


def test_where_says_which_rows_are_looked_at(judged: Judged) -> None:
    filtered = {kind for kind in TYPES if issubclass(CHECK_TYPES[kind], Filtered)}
    assert filtered == set(TYPES) - {"schema", "sql"}
    for kind in filtered:
        some, none = judged[kind, "some"], judged[kind, "none"]
        assert (some.considered_rows, none.considered_rows) == (50, 0), kind
        assert none.failed_rows in (0, None)
        if issubclass(CHECK_TYPES[kind], Blaming):
            assert (judged[kind, "plain"].failed_rows, some.failed_rows) == (10, 5), kind


def test_an_accepted_failure_keeps_its_rows_and_the_run_passes(table: Target, ledger: Ledger) -> None:
    (found,) = check_table(
        table, ledger, "shop", "run-1", TablePolicy(table="t", checks=[declared("range", accepted_until=FOR_EVER)])
    ).checks
    assert (found.status, found.failed_rows, found.kept_rows) == ("accepted", 10, 10)
    assert record.finish_run(ledger, "run-1") == "passed"
    (kept,) = record.load_run(ledger, "run-1").tables[0].checks
    assert (kept.status, kept.accepted_until, kept.accepted_reason) == (
        "accepted",
        date(9999, 12, 31),
        "the supplier mends it",
    )
    assert kept.as_json()["accepted_until"] == "9999-12-31"


def test_an_acceptance_holds_before_its_day_and_says_when_it_is_about_to_end() -> None:
    acceptance = Acceptance(date(2026, 3, 10), "known")
    assert acceptance.holds(date(2026, 3, 9))
    assert not acceptance.holds(date(2026, 3, 10))
    assert acceptance.words(date(2026, 3, 9)) == "Accepted until 2026-03-10 (in 1 day): known"
    assert acceptance.words(date(2026, 2, 24)) == "Accepted until 2026-03-10 (in 14 days): known"
    assert acceptance.words(date(2026, 2, 23)) == "Accepted until 2026-03-10: known"
    assert acceptance.words(date(2026, 3, 10)) == "Its acceptance ran out on 2026-03-10: known"


def test_the_day_is_that_of_utc_by_the_clock_of_the_server(table: Target) -> None:
    with connect(table, work="test") as connection:
        ((today, tomorrow),) = connection.execute(
            "select (now() at time zone 'UTC')::date, (now() at time zone 'UTC')::date + 2"
        ).fetchall()
        connection.execute("set time zone 'Pacific/Kiritimati'")
        policy = TablePolicy(
            table="t",
            checks=[
                {**FAILING["range"], "name": "ended", "accepted_until": {"date": today, "reason": "x"}},
                {**FAILING["range"], "name": "holds", "accepted_until": {"date": tomorrow, "reason": "x"}},
            ],
        )
        assert [found.status for found in run_table(connection, policy).checks] == ["failed", "accepted"]


def test_a_check_that_cannot_run_is_not_accepted(table: Target) -> None:
    check = {"not_null": "nope", "accepted_until": FOR_EVER}
    with connect(table, work="test") as connection:
        (found,) = run_table(connection, TablePolicy(table="t", checks=[check])).checks
    assert found.status == "errored"
    assert "Accepted" not in found.message
