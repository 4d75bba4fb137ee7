"""What can go wrong with watching a database."""

from __future__ import annotations

from dbplatform.errors import UsageError, WorkError


class UnknownMetric(UsageError):
    """{name!r} is no metric."""


class TwoThresholds(UsageError):
    """The threshold of {metric} is declared twice."""


class NothingMeasured(WorkError):
    """No metric of {database} that has a threshold could be judged, so it has no health score."""


class PoolerSilent(WorkError):
    """PgBouncer did not answer within {seconds:.0f} s."""
