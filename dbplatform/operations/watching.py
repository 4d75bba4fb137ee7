"""Metrics and health of a declared database, kept in the ledger."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dbplatform.declaration.loading import Declared
from dbplatform.errors import WorkError
from dbplatform.monitoring import health, record, thresholds
from dbplatform.monitoring.collect import collect
from dbplatform.monitoring.metrics import Metrics
from dbplatform.operations import recoverability
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import connect

#: What was measured so long ago still says how the database is.
FRESH = timedelta(minutes=1)


class NothingToMeasure(WorkError):
    """The database {database} is not there yet."""


def measure(platform: Platform, declared: Declared) -> Metrics:
    """One collection, and the metrics of its backups, recorded: counters are differences to the one before.

    Takes no lock on any table. A database on the embedded server is neither started nor created for it. Raises
    ``NothingToMeasure``, ``VariableNotSet`` and ``CannotConnect``.
    """
    target = platform.existing_target(declared)
    if target is None:
        raise NothingToMeasure(database=declared.name, hint=f"Make it: dbplatform run {declared.name}")
    previous = record.latest(platform.ledger, declared.name)
    with connect(target, work="metrics") as connection:
        metrics = collect(connection, database=declared.name, now=datetime.now(UTC), previous=previous)
    metrics = recoverability.added(platform, declared, metrics)
    record.record(platform.ledger, metrics)
    return metrics


def measured(platform: Platform, declared: Declared) -> Metrics:
    """The newest collection where that is fresh, else a new one."""
    latest = record.latest(platform.ledger, declared.name)
    if latest is not None and timedelta(0) <= datetime.now(UTC) - latest.at <= FRESH:
        return latest
    return measure(platform, declared)


def limits(declared: Declared) -> tuple[thresholds.ThresholdPolicy, ...]:
    """The declared thresholds, and the default ones of the other metrics."""
    return thresholds.thresholds_in_force(declared.database.thresholds)


def score(declared: Declared, metrics: Metrics) -> health.Health:
    """The health that a collection shows. Raises ``NothingMeasured``."""
    return health.score(metrics, limits(declared))
