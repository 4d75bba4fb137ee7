"""Metrics and health of a declared database, kept in the ledger."""

from __future__ import annotations

from datetime import UTC, datetime

from dbplatform.declaration.loading import Declared
from dbplatform.monitoring import health, record, thresholds
from dbplatform.monitoring.collect import collect
from dbplatform.monitoring.metrics import Metrics
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import connect


def measure(platform: Platform, declared: Declared) -> Metrics:
    """One collection, recorded: counters are differences to the one before. Takes no lock on any table."""
    previous = record.latest(platform.ledger, declared.name)
    with connect(platform.target(declared), work="metrics") as connection:
        metrics = collect(connection, database=declared.name, now=datetime.now(UTC), previous=previous)
    record.record(platform.ledger, metrics)
    return metrics


def judge(platform: Platform, declared: Declared) -> health.Health:
    """A new collection, scored by the default thresholds. Raises ``NothingMeasured``."""
    return health.score(measure(platform, declared), thresholds.thresholds_in_force(()))
