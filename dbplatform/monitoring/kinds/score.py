"""The metric that sums up the others."""

from __future__ import annotations

from dbplatform.monitoring.kind import Kind, manual

HEALTH_SCORE = Kind(
    name="health_score",
    unit="count",
    meaning="The health of the database from 0 to 100: 100 less the points of each breached limit.",
    advice="dbplatform health DATABASE names each deduction with what helps, the heaviest first.",
    document=manual("monitoring.html"),
    warn="< 80",
    critical="< 60",
    sample_unit="limits that could be judged",
    min_sample=5,
    min_sample_critical=5,
    source="record",
)
