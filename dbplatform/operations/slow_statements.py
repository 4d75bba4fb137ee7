"""The statements of a declared database that take long: over a window of time, their plans, their log."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError
from dbplatform.ledger.ledger import Ledger
from dbplatform.monitoring import slow_log, windows
from dbplatform.monitoring.explain import LOCK_TIMEOUT_MS, STATEMENT_TIMEOUT_MS, Plan, explain
from dbplatform.monitoring.metrics import Metric, Metrics, kind_of
from dbplatform.monitoring.probes.statements import NAME
from dbplatform.monitoring.slow_log import LoggingPlan
from dbplatform.monitoring.statements import Statement
from dbplatform.monitoring.words import value_words
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import connect

#: As ``pg_stat_statements`` counts them: 64 bits with a sign.
_QUERYID = re.compile(r"-?[0-9]{1,19}")
_METRIC = "slow_statement_s"
_WINDOW = timedelta(hours=1)
#: What the seed documents call slow.
MIN_MEAN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowStatements:
    """The statements of a window that take long on average, or that something stands out in."""

    database: str
    since: datetime
    min_mean_s: float
    statements: Sequence[Statement]
    reason: str | None
    """Why nothing is known, where that is so."""

    def as_json(self) -> dict[str, Any]:
        """The document of ``slow-queries --json``."""
        return {
            "database": self.database,
            "since": self.since.isoformat(),
            "min_mean_seconds": self.min_mean_s,
            "statements": [statement.as_json() for statement in self.statements],
            "reason": self.reason,
        }


def slow_statements(
    platform: Platform,
    declared: Declared,
    metrics: Metrics,
    *,
    window: timedelta = _WINDOW,
    min_mean_s: float = MIN_MEAN_S,
) -> SlowStatements:
    """Those of the last ``window`` whose mean is at least ``min_mean_s``, or in which something stands out.

    One that is no longer slow leaves the list with the window. ``metrics`` is a collection that was just made.
    """
    reason, now = metrics.unmeasured.get(NAME), datetime.now(UTC)
    return known_slow(platform.ledger, declared.name, reason=reason, now=now, window=window, min_mean_s=min_mean_s)


def known_slow(
    ledger: Ledger,
    database: str,
    *,
    reason: str | None,
    now: datetime,
    window: timedelta = _WINDOW,
    min_mean_s: float = MIN_MEAN_S,
) -> SlowStatements:
    """The same from the ledger alone; ``reason``: why the last collection read no statements, where that is so."""
    found = windows.statements_of(ledger, database, since=now - window, now=now)
    shown = [one for one in found if one.mean_s >= min_mean_s or one.findings]
    if reason is None and not found:
        reason = "no statement has ended between two collections of this window; measure again after some work"
    return SlowStatements(
        database=database,
        since=now - window,
        min_mean_s=min_mean_s,
        statements=shown[: windows.MOST_SHOWN],
        reason=reason,
    )


def added(platform: Platform, declared: Declared, metrics: Metrics) -> Metrics:
    """The collection with the mean of the slowest statement of the last hour that was called often enough."""
    if metrics.statements is None:
        reason = metrics.unmeasured.get(NAME, "statements were not read")
        return replace(metrics, unmeasured={**metrics.unmeasured, _METRIC: reason})
    least = kind_of(_METRIC).min_sample
    found = windows.statements_of(platform.ledger, declared.name, since=metrics.at - _WINDOW, now=metrics.at)
    often = [one for one in found if one.count.calls >= least]
    if not often:
        reason = f"no statement was called {least:,.0f} times in the last {value_words(3600, 'seconds')}"
        return replace(metrics, absent={**metrics.absent, _METRIC: reason})
    slowest = max(often, key=lambda one: one.mean_s)
    metric = Metric(
        name=_METRIC,
        value=slowest.mean_s,
        unit="seconds",
        sample=slowest.count.calls,
        labels={"queryid": str(slowest.queryid)},
        detail=slowest.text[:200],
    )
    return replace(metrics, values={**metrics.values, _METRIC: metric})


class UnknownStatement(UsageError):
    """No statement {queryid} of {database} is known."""


def explained(
    platform: Platform,
    declared: Declared,
    query: str,
    *,
    analyze: bool = False,
    may_write: bool = False,
    as_reader: bool = False,
    timeout_ms: int = STATEMENT_TIMEOUT_MS,
    most_bytes: int | None = None,
) -> Plan:
    """The plan of a statement: its SQL, or the number that ``slow_statements`` shows. Raises as ``explain``."""
    if _QUERYID.fullmatch(query.strip()):
        known = windows.text_of(platform.ledger, declared.name, int(query))
        if known is None:
            hint = f"See: dbplatform slow-queries {declared.name}"
            raise UnknownStatement(queryid=query, database=declared.name, hint=hint)
        query = known
    with connect(
        platform.target(declared),
        work="explain",
        statement_timeout_ms=timeout_ms,
        lock_timeout_ms=LOCK_TIMEOUT_MS,
    ) as connection:
        return explain(
            connection,
            query,
            analyze=analyze,
            may_write=may_write,
            as_reader=as_reader,
            timeout_ms=timeout_ms,
            most_bytes=most_bytes,
        )


def log_plan(platform: Platform, declared: Declared, *, undo: bool, min_duration: str) -> LoggingPlan:
    """What has to be set so that slow statements are logged, or put back. Reads only."""
    with connect(platform.target(declared), work="slow log") as connection:
        if undo:
            return slow_log.plan_undo(connection, platform.ledger, declared.name)
        return slow_log.plan_logging(connection, declared.name, min_duration=min_duration)


def log_apply(platform: Platform, declared: Declared, plan: LoggingPlan, *, undo: bool) -> None:
    """Make the changes of a plan, recorded in the ledger."""
    apply = slow_log.apply_undo if undo else slow_log.apply_logging
    with (
        platform.ledger.operation(declared.name, "slow log") as summary,
        connect(platform.target(declared), work="slow log") as connection,
    ):
        summary["changes"] = [change.sql for change in plan.changes]
        apply(connection, platform.ledger, plan)
