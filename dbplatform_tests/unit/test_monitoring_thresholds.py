"""What a threshold accepts, and what it says of a collection."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from dbplatform.monitoring.errors import TwoThresholds, UnknownMetric
from dbplatform.monitoring.metrics import KINDS, Metric, Metrics, kind_of
from dbplatform.monitoring.thresholds import (
    Judgement,
    ThresholdPolicy,
    default_thresholds,
    judge,
    thresholds_in_force,
)
from dbplatform.monitoring.words import value_words


def threshold(**written: Any) -> ThresholdPolicy:
    return ThresholdPolicy.model_validate(written)


def metrics(*values: Metric, **places: Any) -> Metrics:
    return Metrics(
        database="flights",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        values={value.name: value for value in values},
        **places,
    )


def measured(name: str, value: float, **about: Any) -> Metric:
    return Metric(name=name, value=value, unit=KINDS[name].unit, **about)


def only(found: Metrics, policy: ThresholdPolicy) -> Judgement:
    (judgement,) = judge(found, [policy]).judged
    return judgement


def test_the_threshold_of_the_contract_is_read() -> None:
    policy = threshold(metric="cache_hit_ratio", warn="< 0.95", critical="< 0.90", **{"for": "5m"})
    assert policy.warn is not None
    assert policy.critical is not None
    assert (policy.warn.value, policy.critical.value) == (0.95, 0.90)
    assert policy.for_.timedelta == timedelta(minutes=5)
    assert policy.model_dump(by_alias=True) == {
        "metric": "cache_hit_ratio",
        "warn": "< 0.95",
        "critical": "< 0.90",
        "for": "300 seconds",
        "keep_firing_for": "120 seconds",
    }


@pytest.mark.parametrize(
    ("metric", "written", "value"),
    [
        ("connections_used_ratio", ">= 75%", 0.75),
        ("connections_used_ratio", ">0.8", 0.8),
        ("longest_transaction_s", "> 300", 300),
        ("longest_transaction_s", "> 5 min", 300),
        ("longest_transaction_s", "> 1 h 30 min", 5400),
        ("replication_lag_bytes", "> 50MB", 50 * 1024**2),
        ("database_bytes", ">= 1.5 TB", 1.5 * 1024**4),
        ("invalid_indexes", "> 0", 0),
    ],
)
def test_a_limit_is_written_in_the_words_of_its_unit(metric: str, written: str, value: float) -> None:
    policy = threshold(metric=metric, warn=written)
    assert policy.warn is not None
    assert policy.warn.value == value


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"metric": "cache_hits", "warn": "< 1"}, "the metrics are cache_hit_ratio, connections_used_ratio"),
        ({"metric": "cache_hit_ratio"}, "needs warn, critical or both"),
        ({"metric": "cache_hit_ratio", "warn": "0.95"}, "is no limit"),
        ({"metric": "cache_hit_ratio", "warn": 0.95}, "in quotes"),
        ({"metric": "cache_hit_ratio", "warn": "= 0.95"}, "is no limit"),
        ({"metric": "cache_hit_ratio", "warn": "< 95"}, "a number from 0 to 1"),
        ({"metric": "cache_hit_ratio", "warn": "< 5 min"}, "a number from 0 to 1"),
        ({"metric": "longest_transaction_s", "warn": "> 5MB"}, "PostgreSQL's words"),
        ({"metric": "longest_transaction_s", "warn": "> 5 parsecs"}, "no unit that is known"),
        ({"metric": "replication_lag_bytes", "warn": "> 5%"}, "PostgreSQL's sizes"),
        ({"metric": "deadlocks", "warn": "> -1"}, "a plain number"),
        ({"metric": "cache_hit_ratio", "warn": "< 0.95", "critical": "> 0.9"}, "the same way"),
        ({"metric": "cache_hit_ratio", "warn": "< 0.90", "critical": "< 0.95"}, "milder"),
        ({"metric": "deadlocks", "warn": "> 5", "critical": "> 1"}, "milder"),
        ({"metric": "deadlocks", "warn": "> 5", "for": "1 month"}, "months"),
        ({"metric": "deadlocks", "warn": "> 5", "for": 5}, "with its unit"),
        ({"metric": "deadlocks", "warn": "> 5", "for_": "5m"}, "Extra inputs"),
        ({"metric": "deadlocks", "warn": "> 5", "during": "5m"}, "Extra inputs"),
    ],
)
def test_a_mistake_is_one_sentence_with_what_is_allowed(written: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as mistake:
        threshold(**written)
    (error,) = mistake.value.errors()
    assert said in error["msg"]


def test_an_editor_is_told_what_may_be_written() -> None:
    schema = ThresholdPolicy.model_json_schema()
    assert set(schema["properties"]) == {"metric", "warn", "critical", "for", "keep_firing_for"}
    assert schema["required"] == ["metric"]
    assert schema["properties"]["for"]["default"] == "5 minutes"


def test_no_waiting_at_all_can_be_declared() -> None:
    assert threshold(metric="deadlocks", warn="> 0", **{"for": "0s"}).for_.timedelta == timedelta(0)


@pytest.mark.parametrize(
    ("metric", "held"),
    [("deadlocks", 0), ("archiver_failures", 0), ("temp_bytes", 0), ("connections_waiting", 300), ("wal_per_s", 300)],
)
def test_what_is_counted_anew_at_each_look_is_told_at_once(metric: str, held: int) -> None:
    assert threshold(metric=metric, warn="> 0").for_.timedelta == timedelta(seconds=held)
    assert threshold(metric=metric, warn="> 0", **{"for": "1m"}).for_.timedelta == timedelta(minutes=1)


def test_every_default_threshold_is_one_that_a_person_could_write() -> None:
    defaults = {policy.metric: policy for policy in default_thresholds()}
    assert set(defaults) == {
        "health_score",
        "cache_hit_ratio",
        "connections_used_ratio",
        "longest_transaction_s",
        "idle_in_transaction_s",
        "dead_tuple_ratio",
        "replication_lag_s",
        "replication_lag_bytes",
        "xid_age_ratio",
        "multixact_age_ratio",
        "sequence_used_ratio",
        "table_bloat_ratio",
        "index_bloat_ratio",
        "longest_lock_wait_s",
        "slow_statement_s",
        "pool_used_ratio",
        "pool_wait_s",
        "archiver_failure_age_s",
        "backup_age_s",
        "drill_age_s",
        "recovery_time_s",
    }
    assert all(policy.warn and policy.critical for policy in defaults.values())


def test_a_declared_threshold_takes_the_place_of_the_default_one() -> None:
    declared = threshold(metric="cache_hit_ratio", warn="< 0.5")
    in_force = {policy.metric: policy for policy in thresholds_in_force([declared])}
    assert in_force["cache_hit_ratio"] is declared
    assert len(in_force) == len(default_thresholds())


def test_two_thresholds_of_one_metric_are_refused() -> None:
    declared = threshold(metric="cache_hit_ratio", warn="< 0.5")
    with pytest.raises(TwoThresholds):
        thresholds_in_force([declared, declared])


def test_an_unknown_metric_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(UnknownMetric) as error:
        kind_of("uptime")
    assert error.value.hint is not None
    assert "xid_age_ratio" in error.value.hint


def test_a_breach_of_both_limits_is_critical_and_names_its_limit() -> None:
    policy = threshold(metric="connections_used_ratio", warn=">= 75%", critical=">= 90%")
    worst = only(metrics(measured("connections_used_ratio", 0.91, detail="91 of 100 are in use")), policy)
    assert (worst.severity, worst.limit) == ("critical", ">= 90%")
    assert worst.cause == "connections_used_ratio is 91 %: 91 of 100 are in use"
    assert only(metrics(measured("connections_used_ratio", 0.75)), policy).severity == "warning"
    assert only(metrics(measured("connections_used_ratio", 0.74)), policy).severity is None


def test_a_bad_ratio_on_little_data_is_not_judged() -> None:
    (policy,) = [one for one in default_thresholds() if one.metric == "cache_hit_ratio"]
    answer = judge(metrics(measured("cache_hit_ratio", 0.58, sample=9_999)), [policy])
    assert answer.judged == ()
    assert answer.not_judged == {"cache_hit_ratio": "9,999 blocks are too few to judge; 10,000 are enough"}
    assert only(metrics(measured("cache_hit_ratio", 0.58, sample=10_000)), policy).severity == "critical"


@pytest.mark.parametrize(
    ("ratio", "dead", "severity"),
    [(0.5, 50_000, "warning"), (0.5, 100_000, "critical"), (0.2, 200_000, "warning"), (0.05, 200_000, None)],
)
def test_dead_rows_are_critical_only_when_they_are_many(ratio: float, dead: int, severity: str | None) -> None:
    (policy,) = [one for one in default_thresholds() if one.metric == "dead_tuple_ratio"]
    assert only(metrics(measured("dead_tuple_ratio", ratio, sample=dead)), policy).severity == severity


def test_what_could_not_be_measured_is_not_judged() -> None:
    policy = threshold(metric="deadlocks", warn="> 0")
    assert judge(metrics(unmeasured={"deadlocks": "canceled"}), [policy]).not_judged == {"deadlocks": "canceled"}
    assert judge(metrics(), [policy]).not_judged == {"deadlocks": "it was not collected"}


def test_where_there_is_nothing_to_measure_all_is_well() -> None:
    policy = threshold(metric="replication_lag_s", warn="> 5s")
    judgement = only(metrics(absent={"replication_lag_s": "no replica"}), policy)
    assert (judgement.severity, judgement.value) == (None, None)
    assert "no replica" in judgement.cause


def test_a_value_read_in_part_can_be_bad_but_never_good() -> None:
    policy = threshold(metric="sequence_used_ratio", warn=">= 75%")
    good = metrics(measured("sequence_used_ratio", 0.1, complete=False, detail="3 of 5 may not be read"))
    assert judge(good, [policy]).not_judged == {"sequence_used_ratio": "3 of 5 may not be read"}
    assert only(metrics(measured("sequence_used_ratio", 0.8, complete=False)), policy).severity == "warning"


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.973, "ratio", "97.3 %"),
        (12, "seconds", "12 s"),
        (5400, "seconds", "1.5 h"),
        (172_800, "seconds", "2 d"),
        (53_477_376, "bytes", "51 MB"),
        (100, "bytes", "100 bytes"),
        (1234, "count", "1,234"),
    ],
)
def test_values_are_told_in_words(value: float, unit: Any, words: str) -> None:
    assert value_words(value, unit) == words
