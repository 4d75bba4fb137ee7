"""Metrics and health of a declared database, kept in the ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dbplatform.declaration.loading import Declared
from dbplatform.errors import WorkError
from dbplatform.monitoring import collect, exact, health, record, thresholds, windows
from dbplatform.monitoring.exact import Bloat
from dbplatform.monitoring.metrics import Metrics
from dbplatform.monitoring.sessions import SessionState, sessions
from dbplatform.operations import pooling, recoverability, slow_statements
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation

#: What was measured so long ago still says how the database is.
FRESH = timedelta(minutes=1)


class NothingToMeasure(WorkError):
    """The database {database} is not there yet."""


def measure(platform: Platform, declared: Declared, *, judged: bool = False) -> Metrics:
    """One collection, and the metrics of its pooler, its statements and its backups, recorded: counters are differences
    to the one before.

    Where alerts are ``judged`` on it, to the one before that they were judged on: whoever measures in between takes no
    deadlock away from them.

    Takes no lock on any table for longer than its size is read. A database on the embedded server is neither started
    nor created for it. Raises ``NothingToMeasure``, ``VariableNotSet`` and ``CannotConnect``.
    """
    target = _target(platform, declared)
    ledger, name = platform.ledger, declared.name
    previous = record.latest(ledger, name, judged=judged)
    known = windows.known_statements(ledger, name)
    with collect.session(target) as connection:
        metrics = collect.collect(
            connection, database=name, now=datetime.now(UTC), previous=previous, known_statements=known
        )
    if metrics.statements is not None:
        windows.record_statements(ledger, name, metrics.statements)
    if judged:
        metrics = replace(metrics, counters={**metrics.counters, record.JUDGED: 1.0})
    for added in (pooling.added, slow_statements.added, recoverability.added):
        metrics = added(platform, declared, metrics)
    record.record(ledger, metrics)
    if record.step_ended(previous.at if previous else None, metrics.at):
        record.tidy(ledger, name, now=metrics.at)
        windows.tidy_statements(ledger, name, now=metrics.at)
    return metrics


def sessions_of(platform: Platform, declared: Declared) -> tuple[SessionState, ...]:
    """Who is connected to the database now. Raises as ``measure``."""
    with collect.session(_target(platform, declared)) as connection:
        return sessions(connection)


def exact_bloat(platform: Platform, declared: Declared, relation: Relation) -> Bloat:
    """How much of a table or index is unused, counted: it is read, for as long as that takes. Raises as ``measure``."""
    with connect(_target(platform, declared), work="exact", lock_timeout_ms=collect.LOCK_TIMEOUT_MS) as connection:
        return exact.measure(connection, relation)


def _target(platform: Platform, declared: Declared) -> Target:
    target = platform.existing_target(declared)
    if target is None:
        raise NothingToMeasure(database=declared.name, hint=f"Make it: dbplatform run {declared.name}")
    return target


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
