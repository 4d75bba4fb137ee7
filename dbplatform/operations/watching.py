"""Metrics and health of a declared database, kept in the ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dbplatform.alerting import tidying
from dbplatform.declaration.loading import Declared
from dbplatform.errors import WorkError
from dbplatform.monitoring import collect, health, record, settings, thresholds, windows
from dbplatform.monitoring.metrics import Metrics
from dbplatform.monitoring.probes.collecting import FIRST_COLLECTION, NONE_OF_THEM
from dbplatform.monitoring.probes.replication import LAGS
from dbplatform.monitoring.sessions import SessionState, sessions
from dbplatform.operations import daily_sizes, heartbeats, pooling, recoverability, slow_statements
from dbplatform.operations.platform import Platform
from dbplatform.postgres import exact
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.exact import Bloat
from dbplatform.postgres.identifiers import Relation

#: What was measured so long ago still says how the database is.
FRESH = timedelta(minutes=1)
_KNOWN_FOR = timedelta(days=30)


class NothingToMeasure(WorkError):
    """The database {database} is not there yet."""


def measure(platform: Platform, declared: Declared, *, judged: bool = False) -> Metrics:
    """One collection, the metrics of its pooler, its statements and its backups, and its score, recorded.

    Counters are differences to the collection before. Where alerts are ``judged`` on it, to the one before that they
    were judged on: whoever measures in between takes no deadlock away from them.

    Takes no lock on any table for longer than its size is read. A database on the embedded server is neither started
    nor created for it. Raises ``NothingToMeasure``, ``VariableNotSet`` and ``CannotConnect``.
    """
    target = existing(platform, declared)
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
    metrics = health.added(metrics, limits(declared))
    record.record(ledger, metrics)
    settings.record_settings(ledger, name, metrics.settings, at=metrics.at)
    if record.step_ended(previous.at if previous else None, metrics.at):
        record.tidy(ledger, name, now=metrics.at)
        windows.tidy_statements(ledger, name, now=metrics.at)
        tidying.tidy(ledger, (name, heartbeats.PLATFORM), now=metrics.at)
        daily_sizes.keep_when_due(platform, declared, target, metrics)
    return metrics


def sessions_of(platform: Platform, declared: Declared) -> tuple[SessionState, ...]:
    """Who is connected to the database now. Raises as ``measure``."""
    with collect.session(existing(platform, declared)) as connection:
        return sessions(connection)


def exact_bloat(platform: Platform, declared: Declared, relation: Relation) -> Bloat:
    """How much of a table or index is unused, counted: it is read, for as long as that takes. Raises as ``measure``."""
    with connect(existing(platform, declared), work="exact", lock_timeout_ms=collect.LOCK_TIMEOUT_MS) as connection:
        return exact.measure(connection, relation)


def existing(platform: Platform, declared: Declared) -> Target:
    """Where the database is. Raises ``NothingToMeasure`` where it is still to be made, and ``VariableNotSet``."""
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


def unmeasured(platform: Platform, declared: Declared, metrics: Metrics) -> dict[str, str]:
    """The limits that a collection says nothing of although it should, with the reason.

    Not where too little has happened yet, and of default limits only those that were measured once in a month: what
    never could be is told by ``health``, which knows the ``GRANT``.
    """
    mine = {policy.metric for policy in declared.database.thresholds}
    reasons = {
        policy.metric: metrics.unmeasured[policy.metric]
        for policy in limits(declared)
        if not metrics.unmeasured.get(policy.metric, FIRST_COLLECTION).startswith((FIRST_COLLECTION, NONE_OF_THEM))
    }
    others = [name for name in reasons if name not in mine]
    since = metrics.at - _KNOWN_FOR
    known = record.measured_since(platform.ledger, declared.name, others, since=since) if others else frozenset()
    # Of these a part is missing where a replica is, not where a right is.
    of_replicas = {
        name: metrics.values[name].detail
        for name in LAGS
        if name in metrics.values and not metrics.values[name].complete
    }
    return {name: reason for name, reason in reasons.items() if name in mine or name in known} | of_replicas


def limits(declared: Declared) -> tuple[thresholds.ThresholdPolicy, ...]:
    """The declared thresholds, and the default ones of the other metrics."""
    return thresholds.thresholds_in_force(declared.database.thresholds)


def limits_of(platform: Platform, name: str) -> tuple[thresholds.ThresholdPolicy, ...]:
    """Those of a database by its name; of one that is declared no more, the default ones."""
    found = platform.declarations.by_name.get(name)
    return limits(found) if found is not None else thresholds.default_thresholds()


def score(declared: Declared, metrics: Metrics) -> health.Health:
    """The health that a collection shows. Raises ``NothingMeasured``."""
    return health.score(metrics, limits(declared))
