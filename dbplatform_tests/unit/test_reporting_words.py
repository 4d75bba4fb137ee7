"""Numbers, verdicts and summaries in words."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from dbplatform.reporting.evidence import CheckEvidence
from dbplatform.reporting.words import duration, headline, measured, number, percent, summary_lines, utc, value_text
from dbplatform_tests.web.report_samples import check_evidence, run_evidence, table_evidence


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),  # noqa: RUF001
        (0, "0"),
        (336_776, "336,776"),
        (9_007_199_254_740_993, "9,007,199,254,740,993"),
        (336_776.0, "336,776"),
        (12.639070257304708, "12.639"),
        (0.0245, "0.0245"),
        (-4.5, "-4.5"),
        (123_456.78, "123,456.8"),
        (0.00000123456, "1.235e-06"),
        (float("nan"), "not a number"),
        (float("-inf"), "-∞"),
    ],
)
def test_number_reads_as_a_person_writes_it(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (7_032, 336_776, "2.09 %"),
        (0, 10, "0 %"),
        (10, 10, "100 %"),
        (1, 1_000_000, "< 0.01 %"),
        (999_999, 1_000_000, "> 99.99 %"),
        (1, 0, None),
        (1, None, None),
    ],
)
def test_percent_is_never_rounded_to_nothing_or_to_all(part: int, whole: int | None, text: str | None) -> None:
    assert percent(part, whole) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0042, "4 ms"),
        (0.9996, "1.0 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min 00 s"),
        (245, "4 min 05 s"),
        (7_380, "2 h 03 min"),
        (-7_380, "-2 h 03 min"),
        (406_747_148.7, "4,707.7 days"),
    ],
)
def test_duration_changes_its_unit_with_its_length(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_times_are_told_in_utc() -> None:
    moment = datetime(2026, 11, 21, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert utc(moment) == "2026-11-20 23:30:00 UTC"
    assert utc(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02 00:00:00 UTC"


def test_a_long_value_is_cut_and_says_how_long_it_is() -> None:
    assert value_text("x" * 900) == "x" * 200 + "… (900 characters)"
    assert value_text({"a": [1, None]}) == '{"a": [1, null]}'
    assert value_text(True) == "true"


@pytest.mark.parametrize(
    ("statuses", "text"),
    [
        ([["passed", "passed"], ["passed"]], "All 3 checks passed on 2 tables"),
        ([["passed"]], "The only check passed on 1 table"),
        ([["failed", "passed"], ["passed"]], "1 of 3 checks failed on 1 of 2 tables"),
        ([["failed", "errored"]], "1 of 2 checks failed and 1 could not be judged on 1 of 1 table"),
        ([["errored", "passed"]], "1 of 2 checks could not be judged on 1 of 1 table"),
        ([["accepted", "passed"]], "1 of 2 checks passed, 1 not judged yet"),
        ([["accepted until", "passed"]], "1 of 2 checks passed, 1 failure accepted"),
        (
            [["failed", "accepted until", "accepted until", "accepted"]],
            "1 of 4 checks failed on 1 of 1 table, 2 failures accepted, 1 not judged yet",
        ),
        ([[]], "No check ran, so nothing is proven"),
        ([], "No check ran, so nothing is proven"),
    ],
)
def test_headline_counts_what_failed_and_what_could_not_be_judged(statuses: list[list[str]], text: str) -> None:
    tables = [
        table_evidence(f"public.t{n}", [_check(f"c{m}", status) for m, status in enumerate(each)])
        for n, each in enumerate(statuses)
    ]
    assert headline(run_evidence(tables)) == text


def _check(name: str, status: str) -> CheckEvidence:
    word, _, until = status.partition(" ")
    return check_evidence(name=name, status=word, accepted_until=date(2026, 12, 31) if until else None)


def test_what_nobody_accepted_is_not_called_accepted() -> None:
    checks = [_check("rows_as_usual", "accepted"), _check("known", "accepted until")]
    lines = summary_lines(run_evidence([table_evidence("t", checks)]))
    assert [line.split(":")[0].strip() for line in lines[2:]] == ["NOT JUDGED rows_as_usual", "ACCEPTED known"]


def test_a_freshness_is_told_as_an_age_and_any_other_value_as_a_number() -> None:
    assert measured(check_evidence(name="a", type="freshness", value=406_747_148.7)) == "4,707.7 days"
    assert measured(check_evidence(name="a", type="mean", value=406_747_148.7)) == "406,747,148.7"
    assert measured(check_evidence(name="a", type="freshness", value=None)) == number(None)


def test_summary_does_not_say_a_number_twice() -> None:
    check = check_evidence(name="a", status="failed", failed_rows=1_204, message="x is null in 1,204 rows.")
    assert summary_lines(run_evidence([table_evidence("t", [check])]))[-1] == "    FAILED a: x is null in 1,204 rows."


def test_summary_tells_table_by_table_what_did_not_pass() -> None:
    flights = [
        check_evidence(name="gone", status="failed", failed_rows=7_032, considered_rows=336_776, message="no\nplane"),
        check_evidence(name="late", status="failed", severity="warn", failed_rows=None, message="too old"),
        check_evidence(name="broken", status="errored", failed_rows=None, message="no such column"),
        check_evidence(name="fine"),
    ]
    run = run_evidence([table_evidence("public.flights", flights), table_evidence("public.gone", [], row_count=None)])
    assert summary_lines(run) == [
        "flights: errored. 2 of 4 checks failed and 1 could not be judged on 1 of 2 tables.",
        "  public.flights: 1 of 4 checks passed, 336,776 rows",
        "    FAILED gone: 7,032 of 336,776 rows (2.09 %): no plane",
        "    FAILED (warn) late: too old",
        "    ERRORED broken: no such column",
        "  public.gone: 0 of 0 checks passed, rows not counted",
    ]
