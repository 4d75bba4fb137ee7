"""From the outbox to the receivers: every message until it is taken, in order, and once.

Changes of one database that were noticed at one moment go out as one message. A message is marked in the transaction
that claimed it, so two processes never send the same one, and a killed process leaves it to the next. Killed between
the receiver's answer and the commit, the message is sent again: no protocol with a foreign receiver can exclude that.
Its last line, the message key, is the same then, so that a receiver can tell. The same holds for a receiver that takes
a message and answers too late.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, Update, and_, exists, func, or_, select, tuple_, update
from sqlalchemy.orm import Session, aliased

from dbplatform import progress
from dbplatform.alerting.errors import ChannelFailed
from dbplatform.alerting.messages import message_key, proof_text, together
from dbplatform.alerting.policy import NotifyPolicy
from dbplatform.alerting.sending import Message, Send, send_by_apprise
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import Alert, Outbox

FIRST_WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(minutes=15)
MOST_AT_ONCE = 100
#: So many changes are told in one message.
MOST_TOGETHER = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try to send one message about one or more changes; ``error`` is none when the receiver took it."""

    channel: str
    message_key: str
    changes: int
    error: str | None

    @property
    def delivered(self) -> bool:
        """Whether the receiver took it."""
        return self.error is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What one call of ``deliver`` did, and how many messages of these channels still wait."""

    attempts: tuple[Attempt, ...]
    waiting: int


def deliver(
    ledger: Ledger,
    channels: Sequence[NotifyPolicy],
    *,
    now: datetime,
    send: Send = send_by_apprise,
    limit: int = MOST_AT_ONCE,
    quiet: Collection[tuple[str, str]] = (),
) -> Delivery:
    """Send the messages that are due to these channels at ``now`` (aware), at most ``limit``, oldest first.

    The URL is read from the channel's variable at this moment. A message that is not taken is tried again after 10 s,
    20 s and so on up to 15 min, for ever; its error is kept. A channel that fails is left alone until the next call,
    and its later messages of an alert wait for the earlier ones. Of the databases and channels in ``quiet`` warnings
    wait; one that a later message of its alert has overtaken is never sent. One transaction in the ledger per message,
    open while it is sent. Messages of channels that are no longer declared stay where they are.
    """
    names = {channel.url_env for channel in channels}
    attempts: list[Attempt] = []
    while len(attempts) < limit:
        up = names - {one.channel for one in attempts if not one.delivered}
        attempt = _next(ledger, up, quiet, now, send, number=len(attempts) + 1)
        if attempt is None:
            break
        attempts.append(attempt)
        progress.report("alerts recorded", done=len(attempts), unit="messages")
    return Delivery(attempts=tuple(attempts), waiting=_waiting(ledger, names))


def prove_channel(ledger: Ledger, url_env: str, *, now: datetime, send: Send = send_by_apprise) -> Attempt:
    """Send a test message through the outbox to one channel, now and once: a test that fails is not tried again."""
    with ledger.session() as session:
        row = Outbox(
            change=0,
            kind="test",
            channel=url_env,
            message_key="",
            title="",
            body="",
            severity="warning",
            created_at=now,
        )
        session.add(row)
        session.flush()
        row.message_key = message_key("test", row.id, 0, now)
        row.title, row.body = proof_text(url_env, row.message_key)
        return _try([row], now, send)


def _next(
    ledger: Ledger,
    names: Iterable[str],
    quiet: Collection[tuple[str, str]],
    now: datetime,
    send: Send,
    *,
    number: int,
) -> Attempt | None:
    with ledger.session() as session:
        rows = _claim(session, names, quiet, now)
        if not rows:
            return None
        progress.report("alerts claimed", done=number, unit="messages")
        attempt = _try(rows, now, send)
        progress.report("alerts sent", done=number, unit="messages")
        for row in rows:
            if attempt.delivered:
                session.execute(_overtaken_by(row))
            else:
                row.next_attempt_at = now + wait_after(row.attempts)
    return attempt


def _claim(session: Session, names: Iterable[str], quiet: Collection[tuple[str, str]], now: datetime) -> list[Outbox]:
    """The oldest due message, and those that were noticed with it: same channel, database and moment."""
    first = session.scalars(_due(now, quiet).where(Outbox.channel.in_(sorted(names))).limit(1)).first()
    if first is None:
        return []
    database = select(Alert.database).where(Alert.id == first.alert_id).scalar_subquery()
    beside = (
        _due(now, quiet)
        .where(
            Outbox.id > first.id,
            Outbox.channel == first.channel,
            Outbox.kind == first.kind,
            Outbox.created_at == first.created_at,
            Outbox.alert_id.in_(select(Alert.id).where(Alert.database == database)),
        )
        .limit(MOST_TOGETHER - 1)
    )
    return [first, *session.scalars(beside)]


def _due(now: datetime, quiet: Collection[tuple[str, str]]) -> Select[Outbox]:
    """Due messages that no other process holds and that no earlier one of their alert and channel precedes.

    Of those in ``quiet`` the ones that can wait do, and hold back none that cannot.
    """
    earlier = aliased(Outbox)
    return (
        select(Outbox)
        .where(
            Outbox.delivered_at.is_(None),
            # One that is due much later than any wait was put there by a clock that was wrong.
            or_(Outbox.next_attempt_at <= now, Outbox.next_attempt_at > now + LONGEST_WAIT),
            ~exists().where(
                earlier.alert_id == Outbox.alert_id,
                earlier.channel == Outbox.channel,
                earlier.delivered_at.is_(None),
                earlier.next_attempt_at.is_not(None),
                earlier.id < Outbox.id,
                ~_waits(earlier, quiet),
            ),
            ~_waits(Outbox, quiet),
        )
        .order_by(Outbox.id)
        .with_for_update(of=Outbox, skip_locked=True)
    )


def _waits(message: type[Outbox], quiet: Collection[tuple[str, str]]) -> ColumnElement[bool]:
    database = select(Alert.database).where(Alert.id == message.alert_id).scalar_subquery()
    return and_(message.severity == "warning", tuple_(database, message.channel).in_(sorted(quiet)))


def _overtaken_by(taken: Outbox) -> Update:
    """What waits of the same alert and channel from before: told now, it would speak of what is no longer so."""
    return (
        update(Outbox)
        .where(
            Outbox.alert_id == taken.alert_id,
            Outbox.channel == taken.channel,
            Outbox.id < taken.id,
            Outbox.delivered_at.is_(None),
        )
        .values(next_attempt_at=None, last_error="a later message of the alert was taken first")
    )


def _try(rows: Sequence[Outbox], now: datetime, send: Send) -> Attempt:
    """Send one message about all of them, and note in each row how that went."""
    first = rows[0]
    title, body = together(rows)
    severity = "critical" if any(row.severity == "critical" for row in rows) else first.severity
    message = Message(key=first.message_key, kind=first.kind, severity=severity, title=title, body=body)
    error, delivered_at = None, None
    try:
        url = os.environ.get(first.channel)
        if not url:
            raise ChannelFailed(reason=f"the environment variable {first.channel} is not set")
        send(url, message)
        delivered_at = now
    except ChannelFailed as failure:
        error = failure.message
    for row in rows:
        row.attempts, row.delivered_at, row.last_error = row.attempts + 1, delivered_at, error
    return Attempt(channel=first.channel, message_key=first.message_key, changes=len(rows), error=error)


def wait_after(attempts: int) -> timedelta:
    """How long after that many tries the next one is due: doubled each time, up to the longest wait."""
    return min(FIRST_WAIT * (1 << min(attempts - 1, 20)), LONGEST_WAIT)


def _waiting(ledger: Ledger, names: Iterable[str]) -> int:
    statement = select(func.count()).where(
        Outbox.delivered_at.is_(None), Outbox.channel.in_(sorted(names)), Outbox.next_attempt_at.is_not(None)
    )
    with ledger.session() as session:
        return session.scalars(statement).one()
