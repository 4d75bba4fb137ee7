"""Alerts as the rest of the platform reads them, and the word of a person who has seen one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from sqlalchemy import func, select

from dbplatform.alerting.errors import AlreadyResolved, UnknownAlert
from dbplatform.alerting.healing import Begun, begun_by
from dbplatform.alerting.silences import SilenceRecord, covering, in_force
from dbplatform.alerting.states import Severity, State
from dbplatform.ledger.acting import note
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import Alert, Outbox

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
    advice: str
    preceded_by: str
    """What was changed shortly before it began: its likely cause."""
    runbook: str
    """Where its page can be read."""
    silenced_until: datetime | None
    """Until then nobody is told that it fires."""

    @property
    def shown_state(self) -> Literal["pending", "firing", "acknowledged", "silenced", "resolved"]:
        """The state as people speak of it: one that fires may be silenced, or acknowledged."""
        if self.state != "firing":
            return self.state
        if self.silenced_until is not None:
            return "silenced"
        return "firing" if self.acknowledged_at is None else "acknowledged"

    def as_json(self) -> dict[str, Any]:
        """One entry of ``alerts`` of the contract."""
        return {
            "id": self.id,
            "database": self.database,
            "key": self.key,
            "metric": self.metric,
            "labels": dict(self.labels),
            "state": self.shown_state,
            "severity": self.severity,
            "since": self.since.isoformat(),
            "fired_at": self.fired_at.isoformat() if self.fired_at else None,
            "resolved_at": self.resolved_at.isoformat() if self.resolved_at else None,
            "acknowledged_by": self.acknowledged_by,
            "acknowledged_at": self.acknowledged_at.isoformat() if self.acknowledged_at else None,
            "value": self.value if self.value is not None and math.isfinite(self.value) else None,
            "limit": self.limit,
            "cause": self.cause,
            "preceded_by": self.preceded_by,
            "advice": self.advice,
            "runbook": self.runbook,
            "silenced_until": self.silenced_until.isoformat() if self.silenced_until else None,
        }


def alerts_json(alerts: Iterable[AlertRecord]) -> dict[str, Any]:
    """The document of ``alerts list --json``."""
    return {"alerts": [alert.as_json() for alert in alerts]}


def list_alerts(
    ledger: Ledger, database: str | None = None, *, resolved: bool = False, now: datetime | None = None
) -> tuple[AlertRecord, ...]:
    """The open alerts (pending and firing) of a database, or of all; with ``resolved`` the past ones, too.

    Newest first, at most ``MOST_LISTED``; silences are those that hold at ``now``, by default this moment.
    """
    now = now or datetime.now(UTC)
    statement = select(Alert).order_by(Alert.since.desc(), Alert.id.desc()).limit(MOST_LISTED)
    if database is not None:
        statement = statement.where(Alert.database == database)
    if not resolved:
        statement = statement.where(Alert.state != "resolved")
    with ledger.session() as session:
        silences = in_force(session, database, now)
        return tuple(
            _record(alert, covering(silences, alert.database, alert.metric, now))
            for alert in session.scalars(statement)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One alert with the messages about it: how many were taken, by channel, and how many still wait."""

    alert: AlertRecord
    taken: Mapping[str, int]
    waiting: Mapping[str, int]
    began: Sequence[Begun] = ()
    """The work that it began by itself."""

    @property
    def ends_at(self) -> datetime | None:
        """When it was over; none while it is open."""
        return self.alert.resolved_at

    def as_json(self) -> dict[str, Any]:
        """One entry of ``alerts history``."""
        return {
            **self.alert.as_json(),
            "messages_taken": dict(self.taken),
            "messages_waiting": dict(self.waiting),
            "began": [one.as_json() for one in self.began],
        }


def history(ledger: Ledger, database: str | None, *, since: datetime, now: datetime) -> tuple[Episode, ...]:
    """The alerts that fired since a moment, newest first, and who was told; at most ``MOST_LISTED``."""
    alerts = [
        one
        for one in list_alerts(ledger, database, resolved=True, now=now)
        if one.fired_at is not None and (one.resolved_at is None or one.resolved_at >= since)
    ]
    messages = (
        select(Outbox.alert_id, Outbox.channel, Outbox.delivered_at.is_not(None), func.count())
        .where(Outbox.alert_id.in_([one.id for one in alerts]))
        .group_by(Outbox.alert_id, Outbox.channel, Outbox.delivered_at.is_not(None))
    )
    counts: dict[bool, dict[int | None, dict[str, int]]] = {True: {}, False: {}}
    with ledger.session() as session:
        for alert_id, channel, taken, count in session.execute(messages):
            counts[taken].setdefault(alert_id, {})[channel] = count
        began = begun_by(session, [one.id for one in alerts])
    return tuple(
        Episode(
            alert=one,
            taken=counts[True].get(one.id, {}),
            waiting=counts[False].get(one.id, {}),
            began=began.get(one.id, ()),
        )
        for one in alerts
    )


def acknowledge(ledger: Ledger, alert_id: int, *, by: str, now: datetime, dry_run: bool = False) -> AlertRecord:
    """Note that somebody has seen an open alert; the first word counts, a second one changes nothing.

    It goes on to fire, to grow worse and to be resolved as before, and is not told again in between. With ``dry_run``
    the answer is the same and nothing is kept. Raises ``UnknownAlert`` and ``AlreadyResolved``.
    """
    with ledger.session() as session:
        alert = session.get(Alert, alert_id, with_for_update=True)
        if alert is None:
            raise UnknownAlert(id=alert_id, hint="See the open ones: dbplatform alerts list")
        if alert.state == "resolved":
            raise AlreadyResolved(id=alert_id, metric=alert.metric, database=alert.database)
        silences = in_force(session, alert.database, now)
        if alert.acknowledged_at is None:
            alert.acknowledged_by, alert.acknowledged_at = by, now
            if not dry_run:
                note(session, "acknowledge alert", f"{alert.id}: {alert.metric}", database=alert.database, by=by)
        found = _record(alert, covering(silences, alert.database, alert.metric, now))
        if dry_run:
            session.expunge(alert)
        return found


def _record(alert: Alert, silence: SilenceRecord | None) -> AlertRecord:
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
        advice=alert.advice,
        preceded_by=alert.preceded_by,
        runbook=alert.runbook,
        silenced_until=silence.ends_at if silence is not None else None,
    )
