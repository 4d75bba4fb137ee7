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
    "sql": {"sql": {"name": "sql", "rows": "select * from t where n > 90"}},
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


def declared(kind: str, **options: Any) -> TablePolicy:
    return TablePolicy(table="t", checks=[{**FAILING[kind], **options}])


def judged(table: Target, stream: bool, kind: str, **options: Any) -> CheckResult:
    with connect(table, work="test") as connection:
        (found,) = run_table(connection, declared(kind, **options), stream=stream).checks
    return found


def test_each_type_of_check_is_here() -> None:
    assert set(FAILING) == set(CHECK_TYPES) - {"anomaly"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_the_options_of_each_type_hold_in_the_server_and_in_the_stream(table: Target, kind: str, stream: bool) -> None:
    plain = judged(table, stream, kind)
    assert (plain.status, plain.severity, plain.blocking, plain.owner) == ("failed", "error", False, None)
    assert not plain.blocks
    told = judged(table, stream, kind, severity="warn", owner="team:ops", blocking=True)
    assert (told.status, told.severity, told.blocking, told.owner) == ("failed", "warn", True, "team:ops")
    assert not told.blocks, "a warning stops nothing"
    assert judged(table, stream, kind, blocking=True).blocks
    accepted = judged(table, stream, kind, blocking=True, accepted_until=FOR_EVER)
    assert (accepted.status, accepted.failed_rows) == ("accepted", plain.failed_rows)
    assert accepted.message.endswith(". Accepted until 9999-12-31: the supplier mends it")
    assert not accepted.blocks
    over = judged(table, stream, kind, blocking=True, accepted_until={"date": "2020-01-01", "reason": "once"})
    assert over.status == "failed"
    assert over.message.endswith(". Its acceptance ran out on 2020-01-01: once")
    assert over.blocks
    if issubclass(CHECK_TYPES[kind], Blaming):
        assert plain.failed_rows == 10
    if issubclass(CHECK_TYPES[kind], Tolerant):
        for tolerance, status in ((9, "failed"), (10, "passed"), ("9.99%", "failed"), ("10%", "passed")):
            tolerant = judged(table, stream, kind, tolerance=tolerance)
            assert (tolerant.status, tolerant.failed_rows) == (status, 10), tolerance
    if issubclass(CHECK_TYPES[kind], Filtered):
        some = judged(table, stream, kind, where="ok")
        assert some.considered_rows == 50
        if issubclass(CHECK_TYPES[kind], Blaming):
            assert some.failed_rows == 5
        none = judged(table, stream, kind, where="n < 0")
        assert none.considered_rows == 0
        assert none.failed_rows in (0, None)


def test_an_accepted_failure_keeps_its_rows_and_the_run_passes(table: Target, ledger: Ledger) -> None:
    (found,) = check_table(table, ledger, "shop", "run-1", declared("range", accepted_until=FOR_EVER)).checks
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
