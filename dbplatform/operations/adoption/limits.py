"""Limits by what was measured: where experts have none, twice what is usual here; what breaches theirs today is told.

One look says nothing of tomorrow: a limit that is breached already is proposed as a comment, never loosened in silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dbplatform.monitoring.collect import collect, session
from dbplatform.monitoring.metrics import Metric, Metrics, kind_of
from dbplatform.monitoring.thresholds import Judgement, default_thresholds, judge
from dbplatform.monitoring.words import value_words
from dbplatform.postgres.connection import Target

_MB = 1 << 20
#: Their alerts are about what the platform itself has not done yet.
_NOT_YET = ("backup_age_s", "drill_age_s", "recovery_time_s", "health_score")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One entry of ``thresholds``."""

    metric: str
    warn: str
    critical: str | None
    evidence: str
    active: bool
    """False: a comment, because the limit in force is breached now."""

    def as_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "warn": self.warn,
            "critical": self.critical,
            "evidence": self.evidence,
            "active": self.active,
        }


def limits(target: Target, *, database: str, now: Any) -> tuple[tuple[Limit, ...], tuple[str, ...]]:
    """Measure once, and propose; and what could not be measured for want of rights. Only reads: see ``collect``."""
    with session(target) as connection:
        connection.execute("set default_transaction_read_only = on")
        found = collect(connection, database=database, now=now)
    return proposed(found), tuple(f"Not measured for want of a right: {right}" for right in found.missing)


def proposed(found: Metrics) -> tuple[Limit, ...]:
    """The limits for what was measured. Pure."""
    breached = [one for one in judge(found, default_thresholds()).judged if one.severity is not None]
    return (*_usual(found), *(_breached(one) for one in breached if one.metric not in _NOT_YET))


def _usual(found: Metrics) -> Iterator[Limit]:
    """Of metrics whose limit only this database can tell."""
    large = found.values.get("database_bytes")
    if large is not None:
        least = max(1, round(large.value / _MB))
        yield Limit(
            metric="database_bytes",
            warn=f"> {2 * least}MB",
            critical=f"> {4 * least}MB",
            evidence=f"measured: {value_words(large.value, large.unit)}; twice and four times that",
            active=True,
        )
    hits = found.values.get("index_hit_ratio")
    if hits is not None and _enough(hits) and hits.value > 0.9:
        warn = 100 * max(0.5, 1 - 2 * max(1 - hits.value, 0.02))
        yield Limit(
            metric="index_hit_ratio",
            warn=f"< {warn:.0f}%",
            critical=None,
            evidence=f"measured: {value_words(hits.value, hits.unit)} of {hits.sample:,.0f} reads; twice the misses",
            active=True,
        )


def _enough(metric: Metric) -> bool:
    return metric.sample is not None and metric.sample >= max(1_000, kind_of(metric.name).min_sample)


def _breached(one: Judgement) -> Limit:
    """Half as bad again as it is today."""
    falls = one.limit.startswith("<")
    value = one.value or 0
    ratio = one.policy.kind.unit == "ratio"
    number = max(0.0, value - abs(value) / 2) if falls else value * 1.5
    words = f"{100 * min(1.0, number):.0f}%" if ratio else f"{number:.0f}"
    return Limit(
        metric=one.metric,
        warn=f"{'<' if falls else '>'} {words}",
        critical=None,
        evidence=f"{one.cause}: beyond the experts' limit {one.limit} now, so that its alert fires ({one.severity})",
        active=False,
    )
