"""Which messages an alert owes to which channels at this moment, put into the outbox.

It does not ask what has just changed but what each channel was told: so an alert that began in a silence or in quiet
hours is told when they end, and a channel that was declared later hears of what fires. Each channel hears of an episode
that it fires, that it grew worse, in between that it still fires, and that it is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dbplatform.alerting.messages import firing_body, message_key, resolved_body, title
from dbplatform.alerting.policy import NotifyPolicy, channels_for, one_per_variable
from dbplatform.alerting.silences import SilenceRecord, covering
from dbplatform.alerting.states import EventKind, Severity, reaches
from dbplatform.ledger.monitoring import Alert, Outbox

#: What was changed shortly before this time, in words; empty where nothing was. In the session of the ledger that asks.
Preceding = Callable[[Session, datetime], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """The last message that one channel has about an alert that fires."""

    severity: Severity
    taken_at: datetime | None
    """None: it still waits."""


def tell_firing(
    session: Session,
    alerts: Sequence[Alert],
    channels: Sequence[NotifyPolicy],
    silences: Iterable[SilenceRecord],
    preceding: Preceding,
    now: datetime,
) -> dict[int, int]:
    """Bring every channel up to what fires; the number of new messages by alert. The alerts have their numbers."""
    silences = tuple(silences)
    told = _told(session, [alert.id for alert in alerts])
    return {
        alert.id: _tell(session, alert, channels, told.get(alert.id, {}), preceding, now)
        for alert in alerts
        if covering(silences, alert.database, alert.metric, now) is None
    }


def tell_resolved(session: Session, alert: Alert, words: str, channels: Sequence[NotifyPolicy], now: datetime) -> int:
    """Tell each channel that was told that it fires that it is over; the number of new messages."""
    heard = set(_told(session, [alert.id]).get(alert.id, {}))
    takers = [one for one in one_per_variable(channels) if one.url_env in heard]
    key = message_key(alert.database, alert.id, alert.change, now)
    severity = cast("Severity", alert.told)
    for channel in takers:
        body = resolved_body(alert, words, key, now)
        _put(session, alert, "resolved", severity, channel, key, body, now)
    return len(takers)


def _tell(
    session: Session,
    alert: Alert,
    channels: Sequence[NotifyPolicy],
    told: Mapping[str, _Told],
    preceding: Preceding,
    now: datetime,
) -> int:
    severity = cast("Severity", alert.told)
    due, again = [], []
    for channel in channels_for(channels, severity, alert.owners):
        last = told.get(channel.url_env)
        if channel.is_quiet(severity, now):
            continue
        if last is None or not reaches(last.severity, severity):
            due.append(channel)
        elif _is_to_repeat(alert, channel, last, now):
            again.append(channel)
    if not due and not again:
        return 0
    if again:
        # A message of its own number, because each channel takes each change once.
        alert.change += 1
    if not told and not alert.preceded_by:
        alert.preceded_by = preceding(session, alert.since)
    key = message_key(alert.database, alert.id, alert.change, now)
    grown = any(not reaches(one.severity, severity) for one in told.values())
    for channel in [*due, *again]:
        body = firing_body(alert, key, grown=grown, again=channel in again)
        _put(session, alert, "firing", severity, channel, key, body, now)
    return len(due) + len(again)


def _is_to_repeat(alert: Alert, channel: NotifyPolicy, last: _Told, now: datetime) -> bool:
    """What was not even taken is not told again, and neither is what somebody has seen."""
    if channel.repeat_interval is None or alert.acknowledged_at is not None or last.taken_at is None:
        return False
    return now - last.taken_at >= channel.repeat_interval.timedelta


def _told(session: Session, alert_ids: Sequence[int]) -> dict[int, dict[str, _Told]]:
    """By alert and channel: the last message that it fires."""
    if not alert_ids:
        return {}
    about = (Outbox.alert_id.in_(alert_ids), Outbox.kind == "firing")
    newest = select(func.max(Outbox.id)).where(*about).group_by(Outbox.alert_id, Outbox.channel)
    statement = select(Outbox.alert_id, Outbox.channel, Outbox.severity, Outbox.delivered_at).where(
        Outbox.id.in_(newest)
    )
    found: dict[int, dict[str, _Told]] = {}
    for alert_id, channel, severity, delivered_at in session.execute(statement):
        assert alert_id is not None
        found.setdefault(alert_id, {})[channel] = _Told(severity=cast("Severity", severity), taken_at=delivered_at)
    return found


def _put(
    session: Session,
    alert: Alert,
    kind: EventKind,
    severity: Severity,
    channel: NotifyPolicy,
    key: str,
    body: str,
    now: datetime,
) -> None:
    session.add(
        Outbox(
            alert_id=alert.id,
            change=alert.change,
            kind=kind,
            channel=channel.url_env,
            message_key=key,
            title=title(alert, kind),
            body=body,
            severity=severity,
            created_at=now,
            next_attempt_at=now,
        )
    )
