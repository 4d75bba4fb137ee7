"""Since when a check fails, and what the ledger knows of the time before."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.reporting import causes
from dbplatform.reporting.causes import Cause
from dbplatform.reporting.comparison import since
from dbplatform.reporting.evidence import load_evidence
from dbplatform_tests.web.report_samples import MIGRATION, START, Made, put_operation, put_run, put_surroundings

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
GOOD, BAD = Made(name="a"), Made(name="a", status="failed", failed_rows=3)


def only_cause(ledger: Ledger, run_id: str) -> Cause:
    [cause] = load_evidence(ledger, run_id).causes
    return cause


def told(cause: Cause) -> list[str]:
    return [f"{fact.kind}: {fact.words}" for fact in cause.facts]


def test_a_failure_older_than_the_charts_still_knows_when_it_began(ledger: Ledger) -> None:
    put_run(ledger, "good", [GOOD], started_at=START - 40 * DAY)
    for age in range(30, -1, -1):
        put_run(ledger, f"bad {age}", [BAD], started_at=START - age * DAY)
    [check] = load_evidence(ledger, "bad 0").checks
    assert check.onset is not None
    assert check.onset.first.run_id == "bad 30"
    assert check.onset.last_good is not None
    assert check.onset.last_good.run_id == "good"
    assert since(check) == "for 31 runs, since 2026-10-22 02:00:00 UTC (run bad 30)"


def test_a_search_that_ends_before_a_good_run_says_or_earlier(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    for age in range(4):
        put_run(ledger, f"bad {age}", [BAD], started_at=START - age * DAY)
    whole = load_evidence(ledger, "bad 0").checks[0]
    monkeypatch.setattr(causes, "_SEARCHED_RUNS", 3)
    cut = load_evidence(ledger, "bad 0").checks[0]
    assert since(whole) == "for 4 runs, since 2026-11-18 02:00:00 UTC (run bad 3)"
    assert since(cut) == "for 3 runs or more, since 2026-11-19 02:00:00 UTC (run bad 2) or earlier"


def test_a_check_that_never_passed_has_no_cause_and_one_that_passes_no_onset(ledger: Ledger) -> None:
    put_run(ledger, "now", [BAD, Made(name="b")])
    run = load_evidence(ledger, "now")
    assert run.causes == ()
    assert [check.onset is None for check in run.checks] == [False, True]


def test_what_was_done_between_the_last_pass_and_the_first_failure_is_told_in_its_order(ledger: Ledger) -> None:
    put_run(ledger, "good", [GOOD], started_at=START - DAY, row_counts={"public.flights": 100})
    put_run(ledger, "bad", [BAD], row_counts={"public.flights": 90})
    put_run(ledger, "still", [BAD], started_at=START + DAY, row_counts={"public.flights": 80})
    put_surroundings(ledger, "good", {"work_mem": "4MB", "jit": "off"})
    put_surroundings(ledger, "bad", {"work_mem": "64MB", "shared_buffers": "1GB"}, [MIGRATION])
    put_surroundings(ledger, "still", {"work_mem": "1MB"}, [{**MIGRATION, "script": "V8__later.sql"}])
    seed = {"profile": "dev", "loaded_rows": 7}
    put_operation(ledger, "seed", START - DAY - HOUR, seed)  # before the last good run
    put_operation(ledger, "seed", START + HOUR, seed)  # after the first bad one
    put_operation(ledger, "seed", START - HOUR, seed, run_id="0123456789ab")
    put_operation(ledger, "base backup", START - HOUR, {})
    put_operation(ledger, "archive", START - 2 * HOUR, {"name": "old", "table": "public.flights", "deleted_rows": 0})
    put_operation(ledger, "restore", START - 2 * HOUR, {}, status="running")
    applied = {"migrations": [{"script": "V7__tail_numbers.sql", "seconds": 1.0}]}
    put_operation(ledger, "migrate", START - 3 * HOUR, applied)  # the history of migrations tells it
    put_operation(ledger, "seed", START - HOUR, seed, database="other")

    cause = only_cause(ledger, "still")

    assert (cause.last_good.run_id, cause.first.run_id) == ("good", "bad")
    assert told(cause) == [
        f"migration: 7 {MIGRATION['description']} (V7__tail_numbers.sql), by deploy",
        "operation: backup restored (it has not ended, or was killed)",
        "operation: seed dev: 7 rows loaded",
        "setting: jit: off → its default",
        "setting: shared_buffers: its default → 1GB (configuration file)",
        "setting: work_mem: 4MB → 64MB (configuration file)",
        "rows: public.flights: 100 → 90 rows (-10)",
    ]
    assert cause.facts[2].run_id == "0123456789ab"
    assert cause.not_known is None


def test_a_check_that_is_declared_otherwise_is_named_as_such(ledger: Ledger) -> None:
    put_run(ledger, "good", [Made(name="a", tolerance="5%", sql="select 1")], started_at=START - DAY)
    put_run(ledger, "bad", [Made(name="a", status="failed", failed_rows=3, tolerance="1%", sql="select 2")])
    assert told(only_cause(ledger, "bad")) == ["check: a on public.flights: its tolerance and SQL changed"]


def test_runs_of_an_earlier_version_tell_what_is_not_known_and_claim_nothing(ledger: Ledger) -> None:
    put_run(ledger, "good", [GOOD], started_at=START - DAY)
    put_run(ledger, "bad", [BAD])
    put_surroundings(ledger, "bad", {"work_mem": "4MB"})
    put_operation(ledger, "migrate", START - HOUR, {"migrations": [{"script": "V7__x.sql", "seconds": 0.1}]})
    cause = only_cause(ledger, "bad")
    assert told(cause) == ["operation: migrations applied: V7__x.sql"]
    assert cause.not_known == "Settings and the history of migrations were not kept with run good."


def test_checks_that_began_to_fail_together_share_what_happened_before(ledger: Ledger) -> None:
    names = ("a", "b", "c")
    put_run(ledger, "good", [Made(name=name) for name in names], started_at=START - 2 * DAY)
    put_run(
        ledger,
        "first",
        [Made(name="a", status="failed"), Made(name="b", status="errored"), Made(name="c")],
        started_at=START - DAY,
    )
    put_run(ledger, "now", [Made(name=name, status="failed") for name in names])
    found = load_evidence(ledger, "now").causes
    assert [(cause.first.run_id, [name for _, name in cause.checks]) for cause in found] == [
        ("now", ["c"]),
        ("first", ["a", "b"]),
    ]
