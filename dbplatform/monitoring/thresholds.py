"""What people write about limits, the limits that hold where they write nothing, and the judgement over a collection.

A value is judged only on evidence: one that could not be measured, that was read in part, or that stands on too small
a sample is *not judged*. That is neither good nor bad: an alert that fires goes on, and none begins.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, field_validator, model_validator

from dbplatform.monitoring.errors import TwoThresholds
from dbplatform.monitoring.kind import Kind, Severity, Unit
from dbplatform.monitoring.metrics import KINDS, Metric, Metrics, kind_of
from dbplatform.monitoring.words import value_words
from dbplatform.postgres.words import Interval, Policy

_LIMIT = re.compile(r"(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?)\s*(%|[A-Za-z]+(?:\s*\d+\s*[A-Za-z]+)*)?")
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_SIZES = {"b": 1, "bytes": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}
_UNIT_WORDS: Mapping[Unit, str] = {
    "ratio": "a number from 0 to 1, or per cent: '>= 75%'",
    "seconds": "seconds, or PostgreSQL's words: '> 5 min'",
    "bytes": "bytes, or PostgreSQL's sizes: '> 50MB'",
    "count": "a plain number: '> 0'",
    "per_second": "a plain number: '> 100'",
    "bytes_per_second": "bytes, or PostgreSQL's sizes, for each second: '> 5MB'",
}


@dataclass(frozen=True, slots=True)
class Limit:
    """``< 0.90``: the comparison that means a breach, in the unit of its metric, and as it was written."""

    operator: str
    value: float
    unit: Unit | None
    """The unit that was written with the number; none for a plain number."""
    words: str

    @classmethod
    def parse(cls, text: str) -> Limit:
        """``< 0.95``, ``>= 75%``, ``> 5 min`` or ``> 1GB``; raises ValueError with a sentence."""
        match = _LIMIT.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no limit; write a comparison and a number, as in '< 0.95' or '> 5 min'")
        comparison, number, suffix = match.groups()
        value, unit = _quantity(text, number, suffix)
        return cls(comparison, value, unit, f"{comparison} {number}{suffix or ''}")

    def breached_by(self, value: float) -> bool:
        """Whether the value is beyond the limit."""
        return _COMPARE[self.operator](value, self.value)

    @property
    def falls(self) -> bool:
        """Whether smaller values are the worse ones."""
        return self.operator.startswith("<")

    def __str__(self) -> str:
        return self.words


def _quantity(text: str, number: str, suffix: str | None) -> tuple[float, Unit | None]:
    if suffix is None:
        return float(number), None
    if suffix == "%":
        return float(number) / 100, "ratio"
    if suffix.lower() in _SIZES:
        return float(number) * _SIZES[suffix.lower()], "bytes"
    try:
        return Interval.parse(f"{number}{suffix}").timedelta.total_seconds(), "seconds"
    except ValueError:
        raise ValueError(
            f"{text!r} has no unit that is known; write per cent, a size such as 50MB or a time such as 5 min"
        ) from None


def _limit(value: Any) -> Any:
    if value is None or isinstance(value, Limit):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no limit; write a comparison and a number in quotes, as in '< 0.95'")
    return Limit.parse(value)


def _hold(value: Any) -> Interval:
    if isinstance(value, Interval):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no time; write a number with its unit, such as 5m, or 0s for at once")
    interval = Interval.parse(value)
    if interval.months:
        raise ValueError(f"{value!r} has months, whose length varies; write days, hours, minutes or seconds")
    return interval


_TEXT = WithJsonSchema({"type": "string"})
LimitWords = Annotated[Limit, BeforeValidator(_limit), PlainSerializer(str), _TEXT]
HoldWords = Annotated[Interval, BeforeValidator(_hold), PlainSerializer(str), _TEXT]


class ThresholdPolicy(Policy):
    """The limits of one metric, and for how long they must be breached before anyone is told."""

    metric: str = Field(description=f"One of {', '.join(KINDS)}.")
    warn: LimitWords | None = Field(default=None, description="The limit of a warning, as in '< 0.95'.")
    critical: LimitWords | None = Field(default=None, description="The limit of a critical alert, as in '< 0.90'.")
    for_: HoldWords = Field(
        default=Interval.parse("5 minutes"),
        alias="for",
        json_schema_extra={"default": "5 minutes"},
        description="How long the limit must be breached without a pause before an alert fires; 0s: at once, which is "
        "the default of metrics that count since the previous collection (deadlocks, archiver_failures, temp_files).",
    )
    keep_firing_for: HoldWords = Field(
        default=Interval.parse("2 minutes"),
        json_schema_extra={"default": "2 minutes"},
        description="How long the limit must be kept without a pause before an alert is over; 0s: at once.",
    )

    @model_validator(mode="before")
    @classmethod
    def _at_once(cls, entry: Any) -> Any:
        """What is counted anew at each look would hold for five minutes only if it happened in each of them."""
        kind = KINDS.get(str(entry.get("metric"))) if isinstance(entry, dict) else None
        return {"for": "0s", **entry} if kind is not None and kind.counts else entry

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        if metric not in KINDS:
            raise ValueError(f"{metric!r} is no metric; the metrics are {', '.join(KINDS)}")
        return metric

    @field_validator("warn", "critical")
    @classmethod
    def _in_the_unit(cls, limit: Limit | None, info: Any) -> Limit | None:
        metric = info.data.get("metric")
        if limit is None or metric is None:
            return limit
        unit = KINDS[metric].unit
        if (
            limit.unit not in (None, "bytes" if unit == "bytes_per_second" else unit)
            or (unit == "ratio" and not 0 <= limit.value <= 1)
            or limit.value < 0
        ):
            raise ValueError(f"'{limit}' is no limit of {metric}; write {_UNIT_WORDS[unit]}")
        return limit

    @model_validator(mode="after")
    def _one_way(self) -> ThresholdPolicy:
        warn, critical = self.warn, self.critical
        if warn is None and critical is None:
            raise ValueError("a threshold needs warn, critical or both, as in warn: '< 0.95'")
        if warn is not None and critical is not None:
            if warn.falls != critical.falls:
                raise ValueError(f"warn '{warn}' and critical '{critical}' must point the same way")
            milder = critical.value > warn.value if warn.falls else critical.value < warn.value
            if milder:
                raise ValueError(f"critical '{critical}' is milder than warn '{warn}'; exchange them")
        return self

    @property
    def kind(self) -> Kind:
        """The metric that is limited."""
        return KINDS[self.metric]


@cache
def default_thresholds() -> tuple[ThresholdPolicy, ...]:
    """The limits that experts use, for every metric that has them; each look at a database asks several times."""
    return tuple(
        ThresholdPolicy.model_validate(
            {"metric": kind.name, "warn": kind.warn, "critical": kind.critical},
        )
        for kind in KINDS.values()
        if kind.warn or kind.critical
    )


def thresholds_in_force(declared: Sequence[ThresholdPolicy]) -> tuple[ThresholdPolicy, ...]:
    """The declared limits, and the default ones of the other metrics. Raises ``TwoThresholds``."""
    by_metric = {policy.metric: policy for policy in default_thresholds()}
    seen: set[str] = set()
    for policy in declared:
        if policy.metric in seen:
            raise TwoThresholds(metric=policy.metric, hint="Write warn and critical in one entry.")
        seen.add(policy.metric)
        by_metric[policy.metric] = policy
    return tuple(by_metric[name] for name in KINDS if name in by_metric)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What one threshold says of one collection; ``severity`` is none where its limits are kept.

    ``value`` is none when the database has nothing to measure. ``limit`` is the one that is breached, otherwise the
    mildest one. ``cause`` is a sentence for people.
    """

    metric: str
    severity: Severity | None
    value: float | None
    limit: str
    cause: str
    labels: Mapping[str, str]
    policy: ThresholdPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgements:
    """All thresholds over one collection: those that could be judged, and why the others could not."""

    judged: tuple[Judgement, ...]
    not_judged: Mapping[str, str]


def judge(metrics: Metrics, thresholds: Iterable[ThresholdPolicy]) -> Judgements:
    """Hold the collection against the thresholds. Pure."""
    judged: list[Judgement] = []
    not_judged: dict[str, str] = {}
    for policy in thresholds:
        name = policy.metric
        if name in metrics.values:
            answer = _judge(metrics.values[name], policy)
        elif name in metrics.absent:
            answer = _nothing_there(metrics.absent[name], policy)
        else:
            answer = metrics.unmeasured.get(name, "it was not collected")
        if isinstance(answer, str):
            not_judged[name] = answer
        else:
            judged.append(answer)
    return Judgements(judged=tuple(judged), not_judged=not_judged)


def _judge(metric: Metric, policy: ThresholdPolicy) -> Judgement | str:
    kind = kind_of(metric.name)
    sample = metric.sample if metric.sample is not None else float("inf")
    levels: tuple[tuple[Severity, Limit | None, float], ...] = (
        ("critical", policy.critical, kind.min_sample_critical),
        ("warning", policy.warn, kind.min_sample),
    )
    for severity, limit, enough in levels:
        if limit is not None and limit.breached_by(metric.value) and sample >= enough:
            return _judgement(metric, policy, severity, limit)
    if sample < kind.min_sample:
        return f"{sample:,.0f} {kind.sample_unit} are too few to judge; {kind.min_sample:,.0f} are enough"
    if not metric.complete:
        return metric.detail or "a part of it could not be read"
    return _judgement(metric, policy, None, policy.warn or policy.critical)


def _judgement(metric: Metric, policy: ThresholdPolicy, severity: Severity | None, limit: Limit | None) -> Judgement:
    about = f": {metric.detail}" if metric.detail else ""
    return Judgement(
        metric=metric.name,
        severity=severity,
        value=metric.value,
        limit=str(limit),
        cause=f"{metric.name} is {value_words(metric.value, metric.unit)}{about}",
        labels=metric.labels,
        policy=policy,
    )


def _nothing_there(reason: str, policy: ThresholdPolicy) -> Judgement:
    return Judgement(
        metric=policy.metric,
        severity=None,
        value=None,
        limit=str(policy.warn or policy.critical),
        cause=f"{policy.metric} has nothing to measure: {reason}",
        labels={},
        policy=policy,
    )
