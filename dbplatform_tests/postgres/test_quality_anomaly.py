"""Anomalies from the table to the ledger: what is measured, what is remembered, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.quality import history, record
from dbplatform.quality.anomaly.periods import measured_together
from dbplatform.quality.engine import check_table, run_table
from dbplatform.quality.examination import explained
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import CheckResult, verdict_of
from dbplatform_tests.postgres.quality_support import emptied, kept_database

__all__ = ["emptied", "kept_database"]

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
SALES = """
    create table sales (at {type}, v double precision, k int);
    insert into sales
    select (d + n * interval '1 minute')::{type}, n % 7, n % 10
    from generate_series({today}::timestamptz - interval '{days} days', {today}::timestamptz, interval '1 day') as d,
         generate_series(1, case when extract(isodow from d) > 5 then 20 else 100 + extract(day from d)::int % 3 end) n;
"""


@pytest.fixture
def connection(emptied: Target) -> Iterator[AutocommitConnection]:
    with connect(emptied, work="test") as session:
        yield session


def execute(target: Target, *statements: str) -> None:
    with psycopg.connect(target.url) as session:
        session.execute("set timezone to 'UTC'")
        for statement in statements:
            session.execute(statement.encode())


def sales(target: Target, *, days: int = 60, type_: str = "timestamptz") -> None:
    execute(target, SALES.format(type=type_, days=days, today=f"'{TODAY.isoformat()}'"))


def policy(*options: dict[str, Any], table: str = "sales") -> TablePolicy:
    return TablePolicy(table=table, checks=[{"anomaly": {"metric": "row_count", **one}} for one in options])


def judge(connection: AutocommitConnection, **options: Any) -> CheckResult:
    return run_table(connection, policy(options)).checks[0]


def remember(ledger: Ledger, values: list[float], *, name: str = "anomaly_row_count", every: timedelta) -> None:
    """Values of earlier runs, the newest one step ago."""
    now = datetime.now(UTC)
    with psycopg.connect(ledger.target.url) as session:
        for place, value in enumerate(reversed(values), start=1):
            session.execute(
                "insert into ledger.quality_history"
                " (database, table_name, name, at, run_id, type, status, value, seconds)"
                " values ('shop', 'public.sales', %s, %s, %s, 'anomaly', 'passed', %s, 0)",
                (name, now - place * every, f"old-{place}", value),
            )


def remove(target: Target, first: datetime, end: datetime, *, keep: int = -1) -> None:
    with psycopg.connect(target.url) as session:
        session.execute("delete from sales where at >= %s and at < %s and k <> %s", (first, end, keep))


def day(back: int) -> datetime:
    return TODAY - timedelta(days=back)


# What a run measures of the whole table.


@pytest.mark.parametrize("stream", [True, False])
def test_every_metric_is_measured_in_the_read_that_all_checks_share(
    connection: AutocommitConnection, emptied: Target, stream: bool
) -> None:
    execute(
        emptied,
        "create table sales (at timestamptz, v int, w text)",
        "insert into sales values (now() - interval '2 hours', 1, 'a'), (now() - interval '3 hours', 3, null), "
        "(null, null, 'a'), ('-infinity', 8, 'b'), (now() - interval '1 hour', 5, 'c')",
    )
    declared = policy(
        {},
        {"metric": "null_ratio", "column": "w"},
        {"metric": "mean", "column": "v", "where": "w = 'a'"},
        {"metric": "distinct_values", "column": "w"},
        {"metric": "freshness", "column": "at"},
        {"metric": "freshness", "column": "at", "where": "v = 3", "name": "of_threes"},
    )
    result = run_table(connection, declared, stream=stream)
    values = [check.value for check in result.checks]
    assert values[:4] == [5, 0.2, 1, 3]
    assert values[4:] == pytest.approx([3600, 10800], abs=60)
    assert {check.status for check in result.checks} == {"accepted"}, "nothing is known to compare with"
    assert verdict_of([result]) == "passed"
    ways = {way.check: way.how for way in explained(connection, declared, stream=stream).checks}
    alone = {"anomaly_distinct_values_w"}
    assert {name for name, how in ways.items() if how == "streamed"} == (set(ways) - alone if stream else set())


def test_a_metric_without_a_value_has_errored(connection: AutocommitConnection, emptied: Target) -> None:
    execute(
        emptied, "create table sales (at timestamptz, v float8)", "insert into sales values (null, null), (null, 'nan')"
    )
    mean = judge(connection, metric="mean", column="v")
    assert (mean.status, mean.value) == ("errored", None)
    assert "not a number" in mean.message
    assert judge(connection, metric="freshness", column="at").status == "errored"
    assert judge(connection, metric="mean", column="nope").status == "errored"
    assert judge(connection, metric="mean", column="at").status == "errored"


# What runs remember.


def test_a_check_learns_from_run_to_run_and_says_how_far_it_is(emptied: Target, ledger: Ledger) -> None:
    sales(emptied)
    declared = policy({"seasonality": "none"})
    remember(ledger, [4000.0 + number % 3 for number in range(9)], every=timedelta(days=1))
    learning = check_table(emptied, ledger, "shop", "r1", declared).checks[0]
    assert learning.status == "accepted"
    assert "not judged yet: there are 9 of the 10 values that it needs since" in learning.message
    assert record.finish_run(ledger, "r1") == "passed", "nothing failed"
    remember(ledger, [4000.0] * 4, every=timedelta(days=20))
    judged = check_table(emptied, ledger, "shop", "r2", declared).checks[0]
    assert judged.status == "failed" if judged.value and abs(judged.value - 4000) > 10 else "passed"
    assert judged.as_json()["expected"]["low"] <= 4002


def test_a_jump_fails_with_its_range_and_its_past(emptied: Target, ledger: Ledger) -> None:
    execute(emptied, "create table sales (id int)", "insert into sales select generate_series(1, 500)")
    remember(ledger, [1000.0 + number % 5 for number in range(30)], every=timedelta(days=1))
    found = check_table(emptied, ledger, "shop", "r1", policy({"seasonality": "none"})).checks[0]
    assert found.status == "failed"
    assert found.message.startswith("the number of rows is 500, where 99")
    assert "is expected by 30 values since" in found.message
    (point,) = history.trends(ledger, "shop", "public.sales")["anomaly_row_count"][-1:]
    assert (point.run_id, point.status, point.value, point.considered_rows) == ("r1", "failed", 500, 500)
    assert point.low is not None
    assert point.high is not None
    assert 980 < point.low <= 1000 <= point.high < 1020


def test_a_failed_value_is_no_witness_for_the_next_one(emptied: Target, ledger: Ledger) -> None:
    execute(emptied, "create table sales (id int)", "insert into sales select generate_series(1, 500)")
    remember(ledger, [*[1000.0 + number % 5 for number in range(30)], 500.0, 500.0], every=timedelta(days=1))
    found = check_table(emptied, ledger, "shop", "r1", policy({"seasonality": "none"})).checks[0]
    assert found.status == "failed"
    assert "for 3 values since" in found.message


def test_an_accepted_level_is_normal_after_three_runs_and_a_learning_one_is_no_acceptance(
    emptied: Target, ledger: Ledger
) -> None:
    execute(emptied, "create table sales (id int)", "insert into sales select generate_series(1, 500)")
    remember(ledger, [*[1000.0 + number % 5 for number in range(30)], 500.0, 500.0, 500.0], every=timedelta(days=1))
    until = {"accepted_until": {"date": (TODAY + timedelta(days=30)).date().isoformat(), "reason": "a new system"}}
    first = check_table(emptied, ledger, "shop", "r1", policy({"seasonality": "none", **until})).checks[0]
    assert first.status == "accepted"
    with psycopg.connect(ledger.target.url) as session:
        session.execute(
            "update ledger.quality_history set status = 'accepted', expected = 1000 "
            "where value = 500 and run_id like 'old%'"
        )
    again = check_table(emptied, ledger, "shop", "r2", policy({"seasonality": "none"})).checks[0]
    assert again.status == "passed"


def test_a_run_that_is_repeated_keeps_its_last_value_and_is_no_past_of_itself(emptied: Target, ledger: Ledger) -> None:
    execute(emptied, "create table sales (id int)")
    declared = policy({"seasonality": "none"})
    for _ in range(3):
        check_table(emptied, ledger, "shop", "r1", declared)
        execute(emptied, "insert into sales values (1)")
    assert [point.value for point in history.trends(ledger, "shop", "public.sales")["anomaly_row_count"]] == [2]
    remembered = history.remembering(ledger, "shop", declared, run_id="r1")
    assert remembered.checks[0]._memory.points == ()  # type: ignore[attr-defined]


def test_every_check_leaves_its_value_and_its_rows(emptied: Target, ledger: Ledger) -> None:
    sales(emptied)
    checks = [{"not_null": "v"}, {"mean": {"column": "v", "min": 0}}, {"not_null": "gone"}]
    result = check_table(emptied, ledger, "shop", "r1", TablePolicy(table="sales", checks=checks))
    found = history.trends(ledger, "shop", "public.sales")
    assert {name: (p.status, p.value, p.failed_rows) for name, (p,) in found.items()} == {
        check.name: (check.status, check.value, check.failed_rows) for check in result.checks
    }
    assert found["not_null_v"][0].expected is None
    assert set(history.trends(ledger, "shop", "public.sales", checks=["mean_v"])) == {"mean_v"}
    assert history.trends(ledger, "other", "public.sales") == {}


def test_the_history_of_a_check_is_bounded_and_keeps_the_last_of_each_hour_and_day(
    emptied: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(emptied, "create table sales (id int)")
    monkeypatch.setattr(history, "NEWEST_KEPT", 50)
    with psycopg.connect(ledger.target.url) as session:
        session.execute(
            "insert into ledger.quality_history (database, table_name, name, at, run_id, type, status, value, seconds) "
            "select 'shop', 'public.sales', 'anomaly_row_count', at, 'old', 'anomaly', 'passed', 1, 0 from ("
            "select now() - interval '1 day' - n * interval '20 minutes' from generate_series(1, 600) n union "
            "select now() - interval '200 days' - n * interval '8 hours' from generate_series(1, 30) n union "
            "select now() - interval '900 days') as old(at)"
        )
    check_table(emptied, ledger, "shop", "r1", policy({}))
    points = history.trends(ledger, "shop", "public.sales", newest=10_000)["anomaly_row_count"]
    now = points[-1].at
    assert sum(now - point.at > timedelta(days=800) for point in points) == 0
    old = [point.at for point in points if timedelta(days=100) < now - point.at]
    assert len(old) == len({at.date() for at in old}) >= 10, "one a day"
    late = [point.at for point in points[:-50] if now - point.at < timedelta(days=100)]
    assert len(late) == len({at.strftime("%d %H") for at in late}) > 150, "one an hour"
    assert len(points) < 270


# What the rows themselves remember.


def test_with_a_time_column_a_check_judges_the_last_whole_day_from_the_first_run_on(
    connection: AutocommitConnection, emptied: Target
) -> None:
    sales(emptied)
    good = judge(connection, by="at", seasonality="day_of_week")
    assert good.status == "passed", good.message
    assert good.judged[-1].point.at == day(1), "not today, which goes on"
    assert len(good.judged) == 59, "not the first day, which may have begun before its rows"
    remove(emptied, day(1), day(0), keep=1)
    bad = judge(connection, by="at", seasonality="day_of_week")
    assert bad.status == "failed"
    assert bad.message.startswith(f"the number of rows on {day(1):%Y-%m-%d} is ")
    assert "values of that weekday since" in bad.message


def test_a_day_without_rows_has_none_and_is_found(connection: AutocommitConnection, emptied: Target) -> None:
    sales(emptied)
    remove(emptied, day(1), day(0))
    found = judge(connection, by="at", seasonality="day_of_week")
    assert (found.status, found.value) == ("failed", 0)
    mean = judge(connection, metric="mean", column="v", by="at")
    assert mean.judged[-1].point.at == day(2), "a mean of nothing is no value"
    assert mean.status == "errored", "and what has no value has not passed"
    assert f"no value since that on {day(2):%Y-%m-%d}" in mean.message


@pytest.mark.parametrize("metric", ["mean", "null_ratio"])
def test_a_metric_without_a_value_for_weeks_has_not_passed(metric: str, emptied: Target, ledger: Ledger) -> None:
    sales(emptied)
    declared = policy({"by": "at", "metric": metric, "column": "v", "name": "v"})
    assert check_table(emptied, ledger, "shop", "r1", declared).checks[0].status == "passed"
    remove(emptied, day(30), day(-1))
    assert check_table(emptied, ledger, "shop", "r2", declared).checks[0].status == "errored"
    execute(emptied, "truncate sales")
    assert check_table(emptied, ledger, "shop", "r3", declared).checks[0].status == "errored"


def test_days_that_never_have_rows_are_not_missed(connection: AutocommitConnection, emptied: Target) -> None:
    sales(emptied)
    execute(emptied, "delete from sales where extract(isodow from at) = extract(isodow from now() - interval '1 day')")
    found = judge(connection, metric="mean", column="v", by="at")
    assert found.status == "passed", found.message


def test_a_table_without_a_row_in_the_window_never_passes(emptied: Target, ledger: Ledger) -> None:
    execute(emptied, "create table sales (at timestamptz, v int)")
    declared = policy({"by": "at", "window": "40 days"})
    with psycopg.connect(ledger.target.url) as session:
        for back in range(1, 200):
            session.execute(
                "insert into ledger.quality_history"
                " (database, table_name, name, at, run_id, type, status, value, seconds)"
                " values ('shop', 'public.sales', 'anomaly_row_count_by_at', %s, 'old', 'anomaly', 'failed', 0, 0)",
                (day(back),),
            )
    found = check_table(emptied, ledger, "shop", "r1", declared).checks[0]
    assert found.status == "errored", found.message
    with psycopg.connect(ledger.target.url) as session:
        session.execute("delete from ledger.quality_history where at > %s", (day(100),))
    found = check_table(emptied, ledger, "shop", "r2", declared).checks[0]
    assert (found.status, found.judged) == ("errored", ())


def test_a_table_that_was_emptied_is_found_by_what_was_remembered(emptied: Target, ledger: Ledger) -> None:
    sales(emptied)
    declared = policy({"by": "at", "seasonality": "day_of_week"})
    assert check_table(emptied, ledger, "shop", "r1", declared).checks[0].status == "passed"
    with psycopg.connect(ledger.target.url) as session:
        session.execute("delete from ledger.quality_history where at >= %s", (day(1),))
    execute(emptied, "truncate sales")
    found = check_table(emptied, ledger, "shop", "r2", declared).checks[0]
    assert (found.status, found.value) == ("failed", 0), found.message


def test_days_that_were_archived_since_are_no_fault(emptied: Target, ledger: Ledger) -> None:
    sales(emptied)
    declared = policy({"by": "at", "seasonality": "day_of_week"})
    before = check_table(emptied, ledger, "shop", "r1", declared).checks[0]
    remove(emptied, day(90), day(10) + timedelta(hours=1))
    after = check_table(emptied, ledger, "shop", "r2", declared).checks[0]
    assert after.status == "passed"
    assert [one.point.value for one in after.judged] == [one.point.value for one in before.judged]


def test_a_day_of_learning_that_is_found_anomalous_later_is_accepted_by_nobody(emptied: Target, ledger: Ledger) -> None:
    sales(emptied, days=40)
    remove(emptied, day(20), day(19), keep=1)
    slow = policy({"by": "at", "seasonality": "none", "min_history": 100, "name": "rows"})
    assert check_table(emptied, ledger, "shop", "r1", slow).checks[0].status == "accepted"
    quick = policy({"by": "at", "seasonality": "day_of_week", "min_history": 2, "name": "rows"})
    check_table(emptied, ledger, "shop", "r2", quick)
    points = {point.at: point for point in history.trends(ledger, "shop", "public.sales")["rows"]}
    assert points[day(20)].expected is not None
    assert points[day(20)].status == "failed"


def test_days_that_no_run_has_judged_are_all_judged_and_late_rows_change_them(emptied: Target, ledger: Ledger) -> None:
    sales(emptied)
    declared = policy({"by": "at", "seasonality": "day_of_week"})
    check_table(emptied, ledger, "shop", "r1", declared)
    with psycopg.connect(ledger.target.url) as session:
        session.execute("delete from ledger.quality_history where at >= %s", (day(4),))
    remove(emptied, day(4), day(3))
    found = check_table(emptied, ledger, "shop", "r2", declared).checks[0]
    assert (found.status, found.value) == ("failed", 0), "three days later it is still told"
    assert f"{day(4):%Y-%m-%d}" in found.message
    execute(
        emptied,
        "insert into sales select at + interval '7 days', v, k from sales "
        "where at >= current_date - 11 and at < current_date - 10",
    )
    again = check_table(emptied, ledger, "shop", "r3", declared).checks[0]
    assert again.status == "passed"
    points = {point.at: point for point in history.trends(ledger, "shop", "public.sales")["anomaly_row_count_by_at"]}
    assert points[day(4)].status == "passed"
    assert points[day(4)].value != 0


def test_the_days_are_those_of_the_time_zone_and_of_the_column(
    connection: AutocommitConnection, emptied: Target
) -> None:
    sales(emptied)
    berlin = judge(connection, by="at", time_zone="Asia/Tokyo")
    assert berlin.judged[-1].point.at.hour == 15, "midnight in Tokyo"
    execute(emptied, "alter table sales alter at type date using (at at time zone 'UTC')::date")
    dates = judge(connection, by="at", time_zone="America/New_York", seasonality="day_of_week")
    assert dates.status == "passed", dates.message
    assert dates.value in (20, 100, 101, 102), "a date is the day that it says"
    execute(emptied, "alter table sales alter at type timestamp using at::timestamp")
    assert judge(connection, by="at", seasonality="day_of_week").value == dates.value


def test_hours_lag_where_and_every_metric_by_period(connection: AutocommitConnection, emptied: Target) -> None:
    sales(emptied)
    late = judge(connection, by="at", lag="2 days")
    assert late.judged[-1].point.at == day(3)
    hours = judge(connection, by="at", seasonality="hour_of_day", window="30 days")
    assert hours.judged[-1].point.at.minute == 0
    assert datetime.now(UTC) - hours.judged[-1].point.at < timedelta(hours=3)
    some = judge(connection, by="at", where="k < 5")
    assert some.value is not None
    assert some.value < 60
    assert judge(connection, metric="distinct_values", column="k", by="at").value == 10
    assert judge(connection, metric="null_ratio", column="k", by="at").value == 0
    assert judge(connection, metric="mean", column="v", by="at").value == pytest.approx(3, abs=0.3)


MANY: list[dict[str, Any]] = [
    {"by": "at", "name": "rows"},
    {"by": "at", "lag": "2 days", "window": "40 days", "name": "late"},
    {"by": "at", "seasonality": "day_of_week", "where": "k < 5", "name": "some"},
    {"by": "at", "metric": "mean", "column": "v", "name": "mean"},
    {"by": "at", "metric": "null_ratio", "column": "k", "window": "30 days", "name": "nulls"},
    {"by": "at", "metric": "distinct_values", "column": "k", "name": "values"},
]
HOURS: list[dict[str, Any]] = [
    {"by": "at", "seasonality": "hour_of_day", "name": "hours"},
    {
        "by": "at",
        "seasonality": "hour_of_day",
        "metric": "mean",
        "column": "v",
        "window": "30 days",
        "name": "of_hours",
    },
]


@pytest.mark.parametrize("type_", ["timestamptz", "date"])
def test_checks_by_one_time_column_share_one_query_and_find_what_each_finds_alone(
    connection: AutocommitConnection, emptied: Target, monkeypatch: pytest.MonkeyPatch, type_: str
) -> None:
    sales(emptied, type_=type_)
    remove(emptied, day(9), day(8))
    alone = [run_table(connection, policy(one)).checks[0] for one in MANY + HOURS]
    asked = []

    def counted(*arguments: Any) -> Any:
        asked.append([check.name for check in arguments[1]])
        return measured_together(*arguments)

    monkeypatch.setattr("dbplatform.quality.anomaly.periods.measured_together", counted)
    together = run_table(connection, policy(*MANY, *HOURS, {"by": "at", "time_zone": "Asia/Tokyo", "name": "tokyo"}))
    assert asked == [[one["name"] for one in MANY], [one["name"] for one in HOURS], ["tokyo"]]
    for mine, theirs in zip(together.checks, alone, strict=False):
        assert (mine, mine.judged) == (theirs, theirs.judged)
    ways = {way.check: way.why for way in explained(connection, policy(*HOURS)).checks}
    assert ways["hours"] == "one aggregation of its window, by hour, together with of_hours"


def test_a_shared_query_that_the_data_spoil_is_asked_check_by_check(
    connection: AutocommitConnection, emptied: Target
) -> None:
    sales(emptied)
    result = run_table(connection, policy({"by": "at"}, {"by": "at", "where": "1 / (k - 5) > 0", "name": "spoiled"}))
    assert [check.status for check in result.checks] == ["passed", "errored"]
    assert result.checks[1].message == "division by zero."


def test_what_is_no_time_column_is_an_error_of_its_check_alone(
    connection: AutocommitConnection, emptied: Target
) -> None:
    execute(emptied, "create table sales (at text, t timestamptz)", "insert into sales values ('x', now())")
    result = run_table(connection, policy({"by": "at"}, {"by": "nope"}, {"by": "t"}))
    assert [check.status for check in result.checks] == ["errored", "errored", "accepted"]
    assert "date_trunc" in result.checks[0].message


def test_a_past_that_never_grows_enough_has_errored_at_last(emptied: Target, ledger: Ledger) -> None:
    sales(emptied)
    remember(ledger, [1.0, 2.0, 3.0], every=timedelta(days=150))
    found = check_table(emptied, ledger, "shop", "r1", policy({"seasonality": "none"})).checks[0]
    assert found.status == "errored"
    assert "there are 3 of the 10 values" in found.message
