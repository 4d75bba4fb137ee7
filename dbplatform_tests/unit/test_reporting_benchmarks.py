"""The page of benchmarks from runs made in memory: every verdict, every plot, nothing that could act."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dbplatform.benchmarking.model import Report, Result
from dbplatform.benchmarking.statistics import Comparison, not_comparable
from dbplatform.reporting import benchmark_charts
from dbplatform.reporting.benchmarks import headline, render, state

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
NASTY = "<script>alert(1)</script>"


def comparison(verdict: Any, change: float = 0.2) -> Comparison:
    return Comparison(verdict=verdict, change=change, low=change - 0.05, high=change + 0.05, noise=0.02, rounds=40)


def result(name: str, **options: Any) -> Result:
    given: dict[str, Any] = {
        "kind": "query", "clients": 1, "identity": "i", "values": "v", "place": "primary", "typical_ms": 1.25,
        "a": tuple(1.0 + 0.01 * place for place in range(40)), "b": tuple(1.2 for _ in range(40)), "p95_ms": 1.4,
    }  # fmt: skip
    return Result(name=name, **{**given, **options})


def report(*results: Result, **options: Any) -> Report:
    given: dict[str, Any] = {
        "id": "11111111-1111-1111-1111-111111111111", "database": "shop", "started_at": START,
        "finished_at": START + timedelta(seconds=70), "kind": "compare", "sides": ("as it is", "work_mem = 64MB"),
        "surroundings": {"version": "17.10", "place": "primary", "settings": {"work_mem": "4MB"}, "rows": {"t": 7}},
    }  # fmt: skip
    return Report(results=results, **{**given, **options})


EVERYTHING = report(
    result("worse", comparison=comparison("worse")),
    result("better", comparison=comparison("better", -0.4)),
    result("same", comparison=comparison("no difference", 0.0)),
    result("noisy", comparison=comparison("too noisy", 0.1)),
    result("far", comparison=comparison("worse", 40.0)),
    result("other", comparison=not_comparable("its statement is another one")),
    result("late", target_ms=0.5),
    result("in_time", kind="script", clients=4, typical_ms=None, p95_ms=None, target_ms=50.0),
    result("broken", a=(), b=(), error=NASTY),
    notes=(NASTY,),
)


def test_the_page_says_every_verdict_and_draws_it() -> None:
    page = render(EVERYTHING, [])
    for words in ("Worse", "Better", "No difference", "Too noisy", "Not comparable", "Not run", "missed", "met"):
        assert words in page
    assert headline(EVERYTHING) == (
        "9 benchmarks: 2 worse, 1 better, 1 no difference, 1 too noisy to say, 1 not comparable, 1 target missed, "
        "1 could not be run"
    )
    assert page.count('class="span') == 5
    assert page.count('<figure class="rounds">') == 8
    assert "nan" not in page


def test_the_page_needs_nothing_else_and_lets_nothing_act() -> None:
    page = render(EVERYTHING, [])
    assert NASTY not in page
    assert re.findall(r"<script|<img|<iframe|\son\w+=|https?://(?!www\.w3\.org/2000/svg)", page) == []
    assert "prefers-color-scheme:dark" in page
    assert render(EVERYTHING, []) == page


def test_a_plain_run_shows_the_medians_of_the_runs_before_it() -> None:
    now = report(result("a"), kind="run", sides=("as it is", "yardstick"))
    before = [replace(now, started_at=START - timedelta(days=day)) for day in (1, 2)]
    assert "Median in ms over the last 3 runs" in render(now, [now, *before])
    assert "Median in ms" not in render(now, [now])
    assert state(now) == "passed"


def test_a_pool_is_shown_by_its_size() -> None:
    pool = {
        "mode": "pool of 5", "size": 5, "callers": 9, "per_second": 1234.5, "wait_p50_ms": 0.5, "wait_p95_ms": 2.0,
        "call_p50_ms": 3.0, "refused": 1, "comparison": comparison("better", -0.5).as_json(),
    }  # fmt: skip
    direct = {**pool, "mode": "a connection each", "size": 0, "per_second": 100.0, "comparison": None}
    shown = report(kind="pool", pool=(direct, pool), sides=("select_1", "a pool"))
    assert headline(shown) == "Most gets through with pool of 5: 1,234 calls a second"
    assert "9 callers, 1 refused" in render(shown, [])


@pytest.mark.parametrize("change", [-0.99, -0.5, 0.0, 1.0, 50.0])
def test_a_change_is_drawn_within_its_picture(change: float) -> None:
    drawn = benchmark_charts.span(comparison("worse", change))
    assert drawn is not None
    assert 0 <= drawn.low <= drawn.at <= drawn.high <= drawn.width


def test_a_report_comes_back_from_its_document() -> None:
    for one in EVERYTHING.results:
        again = Result.from_json(one.as_json())
        assert again.as_json() == one.as_json()
