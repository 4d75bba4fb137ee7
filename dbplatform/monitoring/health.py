"""The health score: 100 less the points of each breached threshold, every deduction explained.

What could not be judged takes no points and is listed beside the score, so that 100 is never silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from dbplatform.monitoring.errors import NothingMeasured
from dbplatform.monitoring.kinds.score import HEALTH_SCORE
from dbplatform.monitoring.metrics import Metric, Metrics, Severity
from dbplatform.monitoring.thresholds import Judgement, ThresholdPolicy, judge

Grade = Literal["A", "B", "C", "D", "F"]
_NAMED = 3
_GRADES: tuple[tuple[int, Grade], ...] = ((90, "A"), (80, "B"), (70, "C"), (60, "D"), (0, "F"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Deduction:
    """The points that one breached threshold takes, with what was measured and what to do."""

    metric: str
    severity: Severity
    value: float
    limit: str
    points: int
    cause: str
    advice: str
    document: str
    """The page that explains the metric."""
    sample: float | None = None
    """The evidence that the value stands on, in ``sample_unit``; none: it needs no minimum."""
    sample_unit: str | None = None

    def as_json(self) -> dict[str, Any]:
        """One entry of ``deductions`` of the contract."""
        return {
            "metric": self.metric,
            "severity": self.severity,
            "value": self.value,
            "limit": self.limit,
            "points": self.points,
            "cause": self.cause,
            "advice": self.advice,
            "document": self.document,
            "sample": self.sample,
            "sample_unit": self.sample_unit,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The score of one collection; ``not_judged`` has the reason of every threshold that says nothing.

    ``judged`` is how many limits could be held against a measured value.
    """

    score: int
    grade: Grade
    deductions: tuple[Deduction, ...]
    judged: int
    not_judged: Mapping[str, str]
    metrics: Metrics

    def as_json(self) -> dict[str, Any]:
        """The document of ``health --json`` of the contract."""
        return {
            "database": self.metrics.database,
            "at": self.metrics.at.isoformat(),
            "score": self.score,
            "grade": self.grade,
            "deductions": [deduction.as_json() for deduction in self.deductions],
            "judged": self.judged,
            "metrics": {name: metric.as_json() for name, metric in self.metrics.values.items()},
            "not_judged": dict(self.not_judged),
            "missing": list(self.metrics.missing),
        }


def score(metrics: Metrics, thresholds: Iterable[ThresholdPolicy]) -> Health:
    """The health by these thresholds (``thresholds_in_force``). Pure.

    Below 80 (grade C) wants care, below 60 (F) is critical. Raises ``NothingMeasured`` when not one threshold could be
    held against a measured value: a score of nothing would be a lie.
    """
    judgements = judge(metrics, (policy for policy in thresholds if policy.metric != HEALTH_SCORE.name))
    judged = sum(judgement.value is not None for judgement in judgements.judged)
    if not judged:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(judgements.not_judged.items())[:3])
        raise NothingMeasured(database=metrics.database, hint=" ".join((*metrics.missing, reasons)) or None)
    deductions = sorted(
        (_deduction(judgement, judgement.severity, metrics) for judgement in judgements.judged if judgement.severity),
        key=lambda deduction: -deduction.points,
    )
    points = max(0, 100 - sum(deduction.points for deduction in deductions))
    return Health(
        score=points,
        grade=grade_of(points),
        deductions=tuple(deductions),
        judged=judged,
        not_judged=judgements.not_judged,
        metrics=metrics,
    )


def grade_of(points: int) -> Grade:
    """A from 90 on, B from 80, C from 70, D from 60, otherwise F."""
    return next(grade for least, grade in _GRADES if points >= least)


def added(metrics: Metrics, thresholds: Iterable[ThresholdPolicy]) -> Metrics:
    """The collection with its score as a metric: it has a history, a limit and an alert like any other. Pure."""
    name = HEALTH_SCORE.name
    try:
        found = score(metrics, thresholds)
    except NothingMeasured as error:
        return replace(metrics, unmeasured={**metrics.unmeasured, name: error.message.rstrip(".")})
    detail = ", ".join(f"{one.metric} -{one.points}" for one in found.deductions[:_NAMED]) or "no limit is breached"
    more = len(found.deductions) - _NAMED
    metric = Metric(
        name=name,
        value=found.score,
        unit=HEALTH_SCORE.unit,
        sample=found.judged,
        detail=f"grade {found.grade}: {detail}{f' and {more} more' if more > 0 else ''}",
    )
    return replace(metrics, values={**metrics.values, name: metric})


def _deduction(judgement: Judgement, severity: Severity, metrics: Metrics) -> Deduction:
    kind = judgement.policy.kind
    assert judgement.value is not None
    return Deduction(
        metric=judgement.metric,
        severity=severity,
        value=judgement.value,
        limit=judgement.limit,
        points=kind.points[severity == "critical"],
        cause=judgement.cause,
        advice=kind.advice,
        document=kind.document,
        sample=metrics.values[judgement.metric].sample,
        sample_unit=kind.sample_unit,
    )
