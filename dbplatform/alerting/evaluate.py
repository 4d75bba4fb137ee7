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
from dbplatform.alerting.policy import NotifyPolicy
from dbplatform.alerting.silences import in_force
from dbplatform.alerting.states import AlertState, Event, EventKind, Observation, Severity, State, advance
from dbplatform.alerting.telling import Preceding, tell_firing, tell_resolved
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import Alert
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
    keep: Mapping[str, timedelta] | None = None,
    preceding: Preceding = lambda *_: "",
) -> Evaluation:
    """Bring the alerts of a database up to what was observed at ``now`` (aware), and the outbox up to the alerts.

    ``hold`` says for each key how long it must be bad before it fires, ``keep`` how long it must be good before it is
    resolved; a key that is in neither does so at once. An alert whose key is not among the observations stays as it is.
    One whose source is gone for good (a threshold that is no longer declared) is resolved by an observation of its key
    without severity. ``preceding`` is asked for the likely cause of what is told for the first time.

    One transaction in the ledger, and an advisory lock of the database's alerts in it: of two processes at once, the
    second finds what the first has told. ``deliver`` sends. Raises ValueError when a key is observed twice.
    """
    twice = [key for key, count in Counter(one.key for one in observations).items() if count > 1]
    if twice:
        raise ValueError(f"the key {twice[0]!r} is observed twice")
    task = f"alerts {database}"
    with ledger.session() as session:
        session.execute(select(func.pg_advisory_xact_lock(lock_key(f"alerts/{database}"))))
        known = _open_alerts(session, database)
        progress.report(task, done=0, total=2, unit="steps")
        events = dict[str, Event]()
        for one in observations:
            holds, keeps = (hold or {}).get(one.key, _AT_ONCE), (keep or {}).get(one.key, _AT_ONCE)
            event = _observe(session, database, known, one, now, holds, keeps)
            if event is not None:
                events[one.key] = event
        session.flush()
        words = {one.key: one.cause for one in observations}
        over = [known[key] for key, event in events.items() if event.kind == "resolved"]
        messages = {alert.id: tell_resolved(session, alert, words[alert.key], channels, now) for alert in over}
        firing = [alert for alert in known.values() if alert.state == "firing"]
        silences = in_force(session, database, now)
        messages |= tell_firing(session, firing, channels, silences, preceding, now)
        progress.report(task, done=1, total=2, unit="steps")
    progress.report(task, done=2, total=2, unit="steps")
    changes = (
        Change(
            alert_id=known[key].id,
            key=key,
            kind=event.kind,
            severity=event.severity,
            messages=messages.get(known[key].id, 0),
        )
        for key, event in events.items()
    )
    return Evaluation(database=database, changes=tuple(changes))


def _open_alerts(session: Session, database: str) -> dict[str, Alert]:
    statement = select(Alert).where(Alert.database == database, Alert.state != "resolved").with_for_update()
    return {alert.key: alert for alert in session.scalars(statement)}


def _observe(
    session: Session,
    database: str,
    known: dict[str, Alert],
    observation: Observation,
    now: datetime,
    hold: timedelta,
    keep: timedelta,
) -> Event | None:
    """Bring one alert up to its observation; one that begins is added to those known, one that was nothing leaves."""
    alert = known.get(observation.key)
    before = _state(alert) if alert is not None else None
    after, events = advance(before, observation, now, hold=hold, keep=keep)
    if after is None:
        if alert is not None:
            session.delete(known.pop(observation.key))
        return None
    if alert is None:
        alert = known[observation.key] = Alert(database=database, key=observation.key)
        alert.owners, alert.preceded_by = [], ""
        session.add(alert)
    # What was wrong stays readable when it is over; an observation from before the last one says nothing of now.
    if observation.severity is not None and (before is None or now >= before.seen_at):
        _describe(alert, observation)
    _keep(alert, after, now)
    return events[0] if events else None


def _state(alert: Alert) -> AlertState:
    return AlertState(
        state=cast("State", alert.state),
        severity=cast("Severity", alert.severity),
        told=cast("Severity | None", alert.told),
        change=alert.change,
        since=alert.since,
        critical_since=alert.critical_since,
        seen_at=alert.seen_at,
        good_since=alert.good_since,
    )


def _keep(alert: Alert, state: AlertState, now: datetime) -> None:
    if state.state == "firing" and alert.fired_at is None:
        alert.fired_at = now
    if state.state == "resolved":
        alert.resolved_at = now
    alert.state, alert.severity, alert.told, alert.change = state.state, state.severity, state.told, state.change
    alert.since, alert.critical_since, alert.seen_at = state.since, state.critical_since, state.seen_at
    alert.good_since = state.good_since


def _describe(alert: Alert, observation: Observation) -> None:
    alert.metric, alert.labels, alert.value = observation.metric, dict(observation.labels), observation.value
    alert.limit_words, alert.cause, alert.advice = observation.limit, observation.cause, observation.advice
    alert.owners, alert.runbook = list(observation.owners), observation.runbook
