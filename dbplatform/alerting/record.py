"""Alerts as the rest of the platform reads them, and the word of a person who has seen one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import select

from dbplatform.alerting.errors import AlreadyResolved, UnknownAlert
from dbplatform.alerting.states import Severity, State
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import Alert

MOST_LISTED = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRecord:
    """One alert, as the ledger has it."""

    id: int
    database: str
    key: str
    metric: str
    labels: Mapping[str, str]
    state: State
    severity: Severity
    since: datetime
    fired_at: datetime | None
    resolved_at: datetime | None
    acknowledged_by: str | None
    acknowledged_at: datetime | None
    value: float | None
    limit: str
    cause: str

    def as_json(self) -> dict[str, Any]:
        """One entry of ``alerts`` of the contract."""
        return {
            "id": self.id,
            "database": self.database,
            "key": self.key,
            "metric": self.metric,
            "labels": dict(self.labels),
            "state": self.state,
            "severity": self.severity,
            "since": self.since.isoformat(),
            "fired_at": self.fired_at.isoformat() if self.fired_at else None,
            "resolved_at": self.resolved_at.isoformat() if self.resolved_at else None,
            "acknowledged_by": self.acknowledged_by,
            "acknowledged_at": self.acknowledged_at.isoformat() if self.acknowledged_at else None,
            "value": self.value if self.value is not None and math.isfinite(self.value) else None,
            "limit": self.limit,
            "cause": self.cause,
        }


def alerts_json(alerts: Iterable[AlertRecord]) -> dict[str, Any]:
    """The document of ``alerts list --json``."""
    return {"alerts": [alert.as_json() for alert in alerts]}


def list_alerts(ledger: Ledger, database: str | None = None, *, resolved: bool = False) -> tuple[AlertRecord, ...]:
    """The open alerts (pending and firing) of a database, or of all; with ``resolved`` the past ones, too.

    Newest first, at most ``MOST_LISTED``.
    """
    statement = select(Alert).order_by(Alert.since.desc(), Alert.id.desc()).limit(MOST_LISTED)
    if database is not None:
        statement = statement.where(Alert.database == database)
    if not resolved:
        statement = statement.where(Alert.state != "resolved")
    with ledger.session() as session:
        return tuple(_record(alert) for alert in session.scalars(statement))


def acknowledge(ledger: Ledger, alert_id: int, *, by: str, now: datetime, dry_run: bool = False) -> AlertRecord:
    """Note that somebody has seen an open alert; the first word counts, a second one changes nothing.

    It goes on to fire, to grow worse and to be resolved as before. With ``dry_run`` the answer is the same and nothing
    is kept. Raises ``UnknownAlert`` and ``AlreadyResolved``.
    """
    with ledger.session() as session:
        alert = session.get(Alert, alert_id, with_for_update=True)
        if alert is None:
            raise UnknownAlert(id=alert_id, hint="See the open ones: dbplatform alerts list")
        if alert.state == "resolved":
            raise AlreadyResolved(id=alert_id, metric=alert.metric, database=alert.database)
        if alert.acknowledged_at is None:
            alert.acknowledged_by, alert.acknowledged_at = by, now
        found = _record(alert)
        if dry_run:
            session.expunge(alert)
        return found


def _record(alert: Alert) -> AlertRecord:
    return AlertRecord(
        id=alert.id,
        database=alert.database,
        key=alert.key,
        metric=alert.metric,
        labels=alert.labels,
        state=cast("State", alert.state),
        severity=cast("Severity", alert.severity),
        since=alert.since,
        fired_at=alert.fired_at,
        resolved_at=alert.resolved_at,
        acknowledged_by=alert.acknowledged_by,
        acknowledged_at=alert.acknowledged_at,
        value=alert.value,
        limit=alert.limit_words,
        cause=alert.cause,
    )
