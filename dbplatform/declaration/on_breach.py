"""What may be begun by itself when an alert of a metric fires: the metric and the work, each by its name."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter

from dbplatform.monitoring.metrics import KINDS

#: The work that may be begun: what it does is safe at any hour, or keeps to its own window and limits.
WORK = (
    "maintenance/analyze",
    "maintenance/vacuum",
    "maintenance/reindex",
    "maintenance/repack",
    "maintenance/autovacuum",
    "maintenance/statistics",
    "maintenance/cleanup",
    "backup",
    "restore_drill",
)


def _metric(name: str) -> str:
    if name not in KINDS:
        raise ValueError(f"{name!r} is no metric; the metrics are {', '.join(KINDS)}")
    return name


def _work(name: str) -> str:
    if name not in WORK:
        raise ValueError(f"{name!r} cannot be begun by an alert; write one of {', '.join(WORK)}")
    return name


#: The name of a metric.
MetricName = Annotated[str, AfterValidator(_metric)]
#: Work by the key of its asset, below the database.
WorkName = Annotated[str, AfterValidator(_work)]

_ON_BREACH = TypeAdapter(dict[MetricName, WorkName])


def checked(value: Any) -> dict[str, str]:
    """The work by its metric; each mistake is told at its own line."""
    return _ON_BREACH.validate_python(value)


def never_fires(metrics: Iterable[str], limited: Collection[str]) -> str | None:
    """The first of the metrics that has no limit: neither one that experts use nor one of the declared ones."""
    without = (name for name in metrics if not (KINDS[name].warn or KINDS[name].critical))
    return next((name for name in without if name not in limited), None)
