"""Work that alerts begin: once for each episode, with pauses that grow, and what became of it in the history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from dbplatform.alerting import healing
from dbplatform.alerting.evaluate import evaluate
from dbplatform.alerting.record import history
from dbplatform.alerting.states import Observation
from dbplatform.ledger.ledger import Ledger

_START = datetime(2027, 1, 1, tzinfo=UTC)
_WORK = {"dead_tuple_ratio": "maintenance/vacuum"}


def observe(ledger: Ledger, severity: Any, hours: float, metric: str = "dead_tuple_ratio") -> None:
    observation = Observation(key=metric, metric=metric, severity=severity, cause=f"{metric} is {severity}")
    evaluate(ledger, "shop", [observation], [], now=_START + timedelta(hours=hours))


def begin(ledger: Ledger, hours: float, reason: str | None = None) -> list[str]:
    """What is held back; what goes on is asked for apart."""
    found = healing.begin(
        ledger,
        "shop",
        _WORK,
        now=_START + timedelta(hours=hours),
        waiting={"maintenance/vacuum": reason} if reason else {},
    )
    return [one.reason for one in found]


def begun(ledger: Ledger, hours: float) -> list[healing.Begun]:
    return healing.going_on(ledger, now=_START + timedelta(hours=hours))


def end(ledger: Ledger, hours: float, outcome: healing.Outcome = "succeeded") -> None:
    for one in begun(ledger, hours):
        healing.seen(ledger, one, run_id=f"run of {one.alert_id}", outcome=outcome)


def test_an_alert_begins_its_work_once_however_long_it_fires(ledger: Ledger) -> None:
    observe(ledger, "warning", 0)
    assert begin(ledger, 0) == []
    [first] = begun(ledger, 0)
    assert (first.work, first.run_id) == ("maintenance/vacuum", None)
    # Until its run is seen it is asked for again, by the same key; then not any more.
    assert begin(ledger, 0.1) == []
    assert [one.key for one in begun(ledger, 0.1)] == [first.key]
    end(ledger, 0.1)
    observe(ledger, "critical", 5)
    assert (begin(ledger, 5), begun(ledger, 5)) == ([], [])


def test_another_metric_and_an_alert_that_does_not_fire_begin_nothing(ledger: Ledger) -> None:
    observe(ledger, "warning", 0, metric="xid_age_ratio")
    observe(ledger, "warning", 0)
    observe(ledger, None, 1)
    assert (begin(ledger, 1), begun(ledger, 1)) == ([], [])


def test_what_comes_again_waits_longer_each_time_and_a_day_at_most(ledger: Ledger) -> None:
    began_at: list[int] = []
    for hours in range(24 * 3):
        observe(ledger, "warning", hours)
        begin(ledger, hours)
        if begun(ledger, hours):
            began_at.append(hours)
            end(ledger, hours)
        observe(ledger, None, hours + 0.1)
    pauses = [after - before for before, after in pairwise(began_at)]
    assert pauses == [1, 2, 4, 8, 16, 24]


def test_a_pause_is_told_with_its_end(ledger: Ledger) -> None:
    observe(ledger, "warning", 0)
    begin(ledger, 0)
    end(ledger, 0)
    observe(ledger, None, 0.2)
    observe(ledger, "warning", 0.5)
    [reason] = begin(ledger, 0.5)
    assert reason == "it has begun once in the last seven days, and rests until 2027-01-01 01:00 UTC"


def test_what_has_to_wait_begins_when_it_may(ledger: Ledger) -> None:
    observe(ledger, "warning", 0)
    assert begin(ledger, 0, reason="it is frozen") == ["it is frozen"]
    assert begun(ledger, 0) == []
    assert begin(ledger, 30) == []
    assert len(begun(ledger, 30)) == 1


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_the_history_tells_what_an_alert_began(ledger: Ledger, outcome: healing.Outcome) -> None:
    observe(ledger, "warning", 0)
    begin(ledger, 0)
    end(ledger, 0, outcome)
    [episode] = history(ledger, "shop", since=_START, now=_START + timedelta(hours=1))
    [told] = episode.as_json()["began"]
    assert (told["work"], told["outcome"]) == ("maintenance/vacuum", outcome)
    assert told["run_id"].startswith("run of ")


def test_a_run_that_never_came_is_given_up_after_a_day(ledger: Ledger) -> None:
    observe(ledger, "warning", 0)
    begin(ledger, 0)
    assert len(begun(ledger, 23)) == 1
    assert begun(ledger, 25) == []
