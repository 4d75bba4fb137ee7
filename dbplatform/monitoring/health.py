"""The health score: 100 less the points of each breached threshold, every deduction explained.

What could not be judged takes no points and is listed beside the score, so that 100 is never silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dbplatform.monitoring.errors import NothingMeasured
from dbplatform.monitoring.metrics import Metrics, Severity
from dbplatform.monitoring.thresholds import Judgement, ThresholdPolicy, judge

Grade = Literal["A", "B", "C", "D", "F"]
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
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The score of one collection; ``not_judged`` has the reason of every threshold that says nothing."""

    score: int
    grade: Grade
    deductions: tuple[Deduction, ...]
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
            "metrics": {name: metric.as_json() for name, metric in self.metrics.values.items()},
            "not_judged": dict(self.not_judged),
            "missing": list(self.metrics.missing),
        }


def score(metrics: Metrics, thresholds: Iterable[ThresholdPolicy]) -> Health:
    """The health by these thresholds (``thresholds_in_force``). Pure.

    Below 80 (grade C) wants care, below 60 (F) is critical. Raises ``NothingMeasured`` when not one threshold could be
    held against a measured value: a score of nothing would be a lie.
    """
    judgements = judge(metrics, thresholds)
    if not any(judgement.value is not None for judgement in judgements.judged):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(judgements.not_judged.items())[:3])
        raise NothingMeasured(database=metrics.database, hint=" ".join((*metrics.missing, reasons)) or None)
    deductions = sorted(
        (_deduction(judgement, judgement.severity) for judgement in judgements.judged if judgement.severity),
        key=lambda deduction: -deduction.points,
    )
    points = max(0, 100 - sum(deduction.points for deduction in deductions))
    return Health(
        score=points,
        grade=next(grade for least, grade in _GRADES if points >= least),
        deductions=tuple(deductions),
        not_judged=judgements.not_judged,
        metrics=metrics,
    )


def _deduction(judgement: Judgement, severity: Severity) -> Deduction:
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
    )
