"""The score: what takes points, what does not, and what it looks like to a machine."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from dbplatform.monitoring.errors import NothingMeasured
from dbplatform.monitoring.health import added, score
from dbplatform.monitoring.metrics import KINDS, Metric, Metrics
from dbplatform.monitoring.thresholds import default_thresholds, judge, thresholds_in_force


def collection(values: dict[str, float], **places: Any) -> Metrics:
    return Metrics(
        database="flights",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        values={
            name: Metric(name=name, value=value, unit=KINDS[name].unit, sample=1_000_000)
            for name, value in values.items()
        },
        **places,
    )


WELL = {"cache_hit_ratio": 0.99, "connections_used_ratio": 0.1, "longest_transaction_s": 2.0}


def test_a_database_that_keeps_all_limits_has_100() -> None:
    health = score(collection(WELL), default_thresholds())
    assert (health.score, health.grade, health.deductions) == (100, "A", ())


@pytest.mark.parametrize(
    ("bad", "points", "grade"),
    [
        ({"cache_hit_ratio": 0.95}, 90, "A"),
        ({"cache_hit_ratio": 0.5}, 75, "C"),
        ({"cache_hit_ratio": 0.95, "longest_transaction_s": 400}, 80, "B"),
        ({"cache_hit_ratio": 0.5, "longest_transaction_s": 400}, 65, "D"),
        ({"xid_age_ratio": 0.8}, 50, "F"),
        ({"xid_age_ratio": 0.8, "connections_used_ratio": 0.95, "sequence_used_ratio": 0.99}, 0, "F"),
    ],
)
def test_each_breach_takes_its_points(bad: dict[str, float], points: int, grade: str) -> None:
    health = score(collection(WELL | bad), default_thresholds())
    assert (health.score, health.grade) == (points, grade)


def test_a_deduction_is_explained() -> None:
    health = score(collection(WELL | {"longest_transaction_s": 7200}), default_thresholds())
    (deduction,) = health.deductions
    assert deduction.as_json() == {
        "metric": "longest_transaction_s",
        "severity": "critical",
        "value": 7200,
        "limit": "> 3600s",
        "points": 25,
        "cause": "longest_transaction_s is 2 h",
        "advice": KINDS["longest_transaction_s"].advice,
        "document": KINDS["longest_transaction_s"].document,
        "sample": 1_000_000,
        "sample_unit": None,
    }


def test_the_heaviest_deduction_comes_first() -> None:
    health = score(collection(WELL | {"cache_hit_ratio": 0.95, "xid_age_ratio": 0.9}), default_thresholds())
    assert [deduction.metric for deduction in health.deductions] == ["xid_age_ratio", "cache_hit_ratio"]


def test_what_was_not_measured_takes_no_points_and_is_listed() -> None:
    found = collection(WELL, unmeasured={"sequence_used_ratio": "no rights"}, missing=("GRANT pg_monitor TO watcher;",))
    document = json.loads(json.dumps(score(found, default_thresholds()).as_json()))
    assert document["score"] == 100
    assert document["not_judged"]["sequence_used_ratio"] == "no rights"
    assert document["missing"] == ["GRANT pg_monitor TO watcher;"]


def test_the_document_has_the_fields_of_the_contract() -> None:
    document = score(collection(WELL | {"cache_hit_ratio": 0.5}), thresholds_in_force([])).as_json()
    assert {"score", "grade", "deductions", "metrics"} <= set(document)
    assert {"metric", "value", "limit", "points", "advice"} <= set(document["deductions"][0])
    assert document["metrics"]["cache_hit_ratio"]["value"] == 0.5


def test_a_score_of_nothing_is_refused() -> None:
    found = collection({}, absent={"replication_lag_s": "no replica"}, missing=("GRANT pg_monitor TO watcher;",))
    with pytest.raises(NothingMeasured) as error:
        score(found, default_thresholds())
    assert "GRANT pg_monitor" in str(error.value)


SIX = WELL | {"xid_age_ratio": 0.1, "sequence_used_ratio": 0.1, "longest_lock_wait_s": 0.0}


@pytest.mark.parametrize(
    ("bad", "value", "severity"),
    [({}, 100, None), ({"cache_hit_ratio": 0.5}, 75, "warning"), ({"xid_age_ratio": 0.8}, 50, "critical")],
)
def test_the_score_is_a_metric_with_limits_of_its_own(bad: dict[str, float], value: int, severity: str | None) -> None:
    found = added(collection(SIX | bad), default_thresholds())
    (judged,) = [one for one in judge(found, default_thresholds()).judged if one.metric == "health_score"]
    assert (judged.value, judged.severity) == (value, severity)
    assert "; ".join(bad) in judged.cause, "the cause names the deduction"
    assert score(found, default_thresholds()).score == value, "it takes no points from itself"


def test_a_score_that_stands_on_few_limits_is_shown_and_not_judged() -> None:
    found = added(collection({"cache_hit_ratio": 0.5, "longest_transaction_s": 7200}), default_thresholds())
    assert found.values["health_score"].value == 50
    assert "2 limits that could be judged are too few" in judge(found, default_thresholds()).not_judged["health_score"]


def test_without_a_score_the_metric_is_unmeasured_with_the_reason() -> None:
    found = added(collection({}), default_thresholds())
    assert "could be judged" in found.unmeasured["health_score"]


def test_every_metric_tells_what_it_means_and_what_helps() -> None:
    for kind in KINDS.values():
        assert kind.meaning.endswith(".")
        assert kind.advice.endswith(".")
        assert 0 < kind.points[0] < kind.points[1] <= 100
