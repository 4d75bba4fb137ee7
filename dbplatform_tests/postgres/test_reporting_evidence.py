"""What a report reads of a run and of its past, from a real ledger."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.quality_history import QualityHistory
from dbplatform.quality.record import RunOfAnotherDatabase, UnknownRun
from dbplatform.reporting.comparison import compare
from dbplatform.reporting.errors import RunNotFinished
from dbplatform.reporting.evidence import HISTORY_RUNS, load_evidence
from dbplatform_tests.web.report_samples import START, Made, put_run

DAY = timedelta(days=1)


def test_each_check_is_compared_with_its_own_last_result_not_with_the_last_run(ledger: Ledger) -> None:
    put_run(ledger, "all", [Made(name="a", status="failed", failed_rows=3), Made(name="b", table="public.other")])
    put_run(ledger, "one table", [Made(name="b", table="public.other")], started_at=START + DAY)
    put_run(ledger, "now", [Made(name="a"), Made(name="b", table="public.other")], started_at=START + 2 * DAY)
    run = load_evidence(ledger, "now")
    assert run.previous == ("one table", START + DAY)
    assert [check.name for check in compare(run).fixed] == ["a"]
    assert run.gone == ()


def test_a_check_that_is_no_longer_made_is_named(ledger: Ledger) -> None:
    put_run(ledger, "before", [Made(name="a"), Made(name="dropped"), Made(name="x", table="public.not_in_this_run")])
    put_run(ledger, "now", [Made(name="a")], started_at=START + DAY)
    assert load_evidence(ledger, "now").gone == (("public.flights", "dropped"),)


def test_runs_that_started_later_and_other_databases_do_not_count(ledger: Ledger) -> None:
    put_run(ledger, "now", [Made(name="a", status="failed", failed_rows=3)])
    put_run(ledger, "later", [Made(name="a")], started_at=START + DAY)
    put_run(ledger, "elsewhere", [Made(name="a")], database="other", started_at=START - DAY)
    put_run(ledger, "unfinished", [Made(name="a")], started_at=START - DAY, seconds=None)
    run = load_evidence(ledger, "now")
    assert run.previous is None
    assert [point.run_id for point in run.checks[0].history] == ["now"]


def test_history_is_oldest_first_and_bounded(ledger: Ledger) -> None:
    for age in range(HISTORY_RUNS + 3):
        status = "errored" if age == 1 else "failed"
        made = Made(name="a", status=status, failed_rows=age, value=0.5)
        put_run(ledger, f"run {age}", [made], started_at=START - age * DAY, row_counts={"public.flights": age})
    run = load_evidence(ledger, "run 0")
    history = run.checks[0].history
    assert [point.failed_rows for point in history] == [*range(HISTORY_RUNS - 1, 1, -1), None, 0]
    assert history[-2].status == "errored"
    assert history[-2].value is None
    assert [point.rows for point in run.tables[0].row_counts] == list(range(HISTORY_RUNS - 1, -1, -1))


def test_twenty_failed_rows_are_read_in_their_order_and_the_total_stays_exact(ledger: Ledger) -> None:
    rows = [{"id": n, "value": None} for n in range(50)]
    made = Made(name="a", status="failed", failed_rows=123_456, kept_rows=50, rows=rows)
    put_run(ledger, "now", [made, Made(name="b")])
    check, passed = load_evidence(ledger, "now").checks
    assert [row["id"] for row in check.samples] == list(range(20))
    assert (check.failed_rows, check.kept_rows) == (123_456, 50)
    assert passed.samples == ()


def test_failing_tables_and_checks_come_first(ledger: Ledger) -> None:
    put_run(
        ledger,
        "now",
        [
            Made(name="fine", table="public.a"),
            Made(name="z passed", table="public.z"),
            Made(name="accepted", table="public.z", status="accepted", failed_rows=99),
            Made(name="warned", table="public.z", status="failed", severity="warn", failed_rows=999),
            Made(name="errored", table="public.z", status="errored", failed_rows=None),
            Made(name="few", table="public.z", status="failed", failed_rows=1),
            Made(name="many", table="public.z", status="failed", failed_rows=5),
            Made(name="a passed", table="public.z"),
        ],
    )
    worst, clean = load_evidence(ledger, "now").tables
    assert [check.name for check in worst.checks] == [
        *("many", "few", "errored", "warned", "accepted", "z passed", "a passed")
    ]
    assert clean.table == "public.a"


def test_a_table_that_could_not_be_read_has_no_row_count(ledger: Ledger) -> None:
    put_run(
        ledger,
        "now",
        [Made(name="a", status="errored", failed_rows=None)],
        row_counts={"public.flights": None, "public.empty": 0},
    )
    counts = {table.table: (table.row_count, len(table.checks)) for table in load_evidence(ledger, "now").tables}
    assert counts == {"public.flights": (None, 1), "public.empty": (0, 0)}


def test_unfinished_unknown_and_foreign_runs_are_refused(ledger: Ledger) -> None:
    put_run(ledger, "going on", [Made(name="a")], seconds=None)
    put_run(ledger, "of flights", [Made(name="a")])
    with pytest.raises(RunNotFinished, match="no verdict yet"):
        load_evidence(ledger, "going on")
    with pytest.raises(UnknownRun):
        load_evidence(ledger, "nobody's")
    with pytest.raises(RunOfAnotherDatabase, match="'flights', not 'other'"):
        load_evidence(ledger, "of flights", database="other")


def test_a_check_that_compares_with_its_past_has_what_was_expected_until_this_run(ledger: Ledger) -> None:
    put_run(ledger, "now", [Made(name="usual", type="anomaly", failed_rows=None, value=5.0), Made(name="plain")])
    with ledger.session() as session:
        for day, low, high in ((-2, None, None), (-1, 1.0, 9.0), (1, 1.0, 9.0)):
            for name in ("usual", "plain"):
                session.add(
                    QualityHistory(
                        database="flights",
                        table_name="public.flights",
                        name=name,
                        type="anomaly",
                        run_id=f"run {day}",
                        at=START + day * DAY,
                        status="passed",
                        value=5.0,
                        low=low,
                        high=high,
                        seconds=1.0,
                    )
                )
    found = {check.name: check for check in load_evidence(ledger, "now").checks}
    band = [(point.value, point.low, point.high) for point in found["usual"].band]
    assert band == [(5.0, None, None), (5.0, 1.0, 9.0)]
    assert found["plain"].band == ()
