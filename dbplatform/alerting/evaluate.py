"""Observations become alerts and messages in the ledger: the change and what must be told of it in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dbplatform import progress
from dbplatform.alerting.messages import body, message_key, title
from dbplatform.alerting.policy import NotifyPolicy, channels_for
from dbplatform.alerting.states import AlertState, Event, EventKind, Observation, Severity, State, advance
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import Alert, Outbox
from dbplatform.postgres.locks import lock_key

#: Where nothing is declared, the first bad observation fires: the source has waited as long as it wants.
_AT_ONCE = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One alert that began to fire, grew worse or was resolved, and how many messages were put into the outbox."""

    alert_id: int
    key: str
    kind: EventKind
    severity: Severity
    messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What one evaluation changed."""

    database: str
    changes: tuple[Change, ...]


def evaluate(
    ledger: Ledger,
    database: str,
    observations: Sequence[Observation],
    channels: Sequence[NotifyPolicy],
    *,
    now: datetime,
    hold: Mapping[str, timedelta] | None = None,
) -> Evaluation:
    """Bring the alerts of a database up to what was observed at ``now`` (aware).

    ``hold`` says for each key how long it must be bad before it fires; a key that is not in it fires at once. An alert
    whose key is not among the observations stays as it is. One whose source is gone for good (a threshold that is no
    longer declared) is resolved by an observation of its key without severity.

    One transaction in the ledger, and an advisory lock of the database's alerts in it: of two processes at once, the
    second finds what the first has told. ``deliver`` sends. Raises ValueError when a key is observed twice.
    """
    twice = [key for key, count in Counter(one.key for one in observations).items() if count > 1]
    if twice:
        raise ValueError(f"the key {twice[0]!r} is observed twice")
    task, changes = f"alerts {database}", list[Change]()
    with ledger.session() as session:
        session.execute(select(func.pg_advisory_xact_lock(lock_key(f"alerts/{database}"))))
        known = _open_alerts(session, database)
        progress.report(task, done=0, total=2, unit="steps")
        for one in observations:
            change = _observe(session, database, known.get(one.key), one, channels, now, (hold or {}).get(one.key))
            if change is not None:
                changes.append(change)
        session.flush()
        progress.report(task, done=1, total=2, unit="steps")
    progress.report(task, done=2, total=2, unit="steps")
    return Evaluation(database=database, changes=tuple(changes))


def _open_alerts(session: Session, database: str) -> dict[str, Alert]:
    statement = select(Alert).where(Alert.database == database, Alert.state != "resolved").with_for_update()
    return {alert.key: alert for alert in session.scalars(statement)}


def _observe(
    session: Session,
    database: str,
    alert: Alert | None,
    observation: Observation,
    channels: Sequence[NotifyPolicy],
    now: datetime,
    hold: timedelta | None,
) -> Change | None:
    before = _state(alert) if alert is not None else None
    after, events = advance(before, observation, now, hold=_AT_ONCE if hold is None else hold)
    if after is None:
        if alert is not None:
            session.delete(alert)
        return None
    if alert is None:
        alert = Alert(database=database, key=observation.key)
        session.add(alert)
    # What was wrong stays readable when it is over; an observation from before the last one says nothing of now.
    if observation.severity is not None and (before is None or now >= before.seen_at):
        _describe(alert, observation)
    _keep(alert, after, now)
    if not events:
        return None
    session.flush()
    (event,) = events
    messages = _tell(session, alert, event, observation, channels, now)
    return Change(alert_id=alert.id, key=observation.key, kind=event.kind, severity=event.severity, messages=messages)


def _state(alert: Alert) -> AlertState:
    return AlertState(
        state=cast("State", alert.state),
        severity=cast("Severity", alert.severity),
        told=cast("Severity | None", alert.told),
        change=alert.change,
        since=alert.since,
        critical_since=alert.critical_since,
        seen_at=alert.seen_at,
    )


def _keep(alert: Alert, state: AlertState, now: datetime) -> None:
    if state.state == "firing" and alert.fired_at is None:
        alert.fired_at = now
    if state.state == "resolved":
        alert.resolved_at = now
    alert.state, alert.severity, alert.told, alert.change = state.state, state.severity, state.told, state.change
    alert.since, alert.critical_since, alert.seen_at = state.since, state.critical_since, state.seen_at


def _describe(alert: Alert, observation: Observation) -> None:
    alert.metric, alert.labels, alert.value = observation.metric, dict(observation.labels), observation.value
    alert.limit_words, alert.cause = observation.limit, observation.cause


def _tell(
    session: Session,
    alert: Alert,
    event: Event,
    observation: Observation,
    channels: Sequence[NotifyPolicy],
    now: datetime,
) -> int:
    """Put one message per channel into the outbox. Who was told that it fires is told that it is over."""
    if event.kind == "firing":
        takers = channels_for(channels, event.severity)
    else:
        told = set(session.scalars(select(Outbox.channel).where(Outbox.alert_id == alert.id)))
        takers = tuple(name for name in dict.fromkeys(one.url_env for one in channels) if name in told)
    key = message_key(alert.database, alert.id, event.change, now)
    for channel in takers:
        session.add(
            Outbox(
                alert_id=alert.id,
                change=event.change,
                kind=event.kind,
                channel=channel,
                message_key=key,
                title=title(alert, event),
                body=body(alert, event, observation, key, now),
                severity=event.severity,
                created_at=now,
                next_attempt_at=now,
            )
        )
    return len(takers)
