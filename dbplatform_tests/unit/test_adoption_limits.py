"""The limits that `adopt` proposes can be declared, and are not breached by what was measured."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dbplatform.monitoring.metrics import Metric, Metrics, kind_of
from dbplatform.monitoring.thresholds import ThresholdPolicy, default_thresholds, judge
from dbplatform.operations.adoption.limits import proposed
from dbplatform.operations.adoption.writing import threshold


def measured(**values: float) -> Metrics:
    """A collection with all the evidence that a judgement wants."""
    metrics = {name: Metric(name=name, value=value, unit=kind_of(name).unit) for name, value in values.items()}
    return Metrics(database="shop", at=datetime(2026, 1, 1, tzinfo=UTC), values=metrics)


@pytest.mark.parametrize("policy", default_thresholds(), ids=lambda policy: policy.metric)
def test_what_is_breached_is_proposed_as_a_comment_that_could_be_declared(policy: ThresholdPolicy) -> None:
    limit = policy.critical or policy.warn
    assert limit is not None
    value = limit.value / 2 if limit.falls else limit.value * 1.1
    found = measured(**{policy.metric: min(1.0, value) if policy.kind.unit == "ratio" else value})
    for one in proposed(found):
        assert not one.active
        declared = ThresholdPolicy.model_validate(threshold(one))
        assert judge(found, [declared]).judged[0].severity is None


def test_the_size_of_the_database_has_a_limit_by_what_it_is_today() -> None:
    [one] = proposed(measured(database_bytes=3 << 30))
    assert one.active
    assert threshold(one) == {"metric": "database_bytes", "warn": "> 6144MB", "critical": "> 12288MB"}


def test_a_tiny_database_may_grow() -> None:
    [one] = proposed(measured(database_bytes=1_000))
    assert one.warn == "> 2MB"
