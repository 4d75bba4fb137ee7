"""How long alerts are remembered when they are over."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, func, select

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import Alert, Outbox, Silence

#: As long as the hours of metrics: an alert beside the one of a year ago.
RETAIN: Final = timedelta(days=400)
#: Rows of each table that one call lets go of.
_BATCH: Final = 1_000


def tidy(ledger: Ledger, databases: Collection[str], *, now: datetime) -> None:
    """Let go of alerts of these databases that were resolved 400 days ago, with their messages, and of such silences.

    An alert of which a message still waits is kept. A clock that is ahead of the ledger's makes nothing old. Bounded,
    one transaction; may be run twice, and killed anywhere.
    """
    waits = (
        select(Outbox.id)
        .where(Outbox.alert_id == Alert.id, Outbox.delivered_at.is_(None), Outbox.next_attempt_at.is_not(None))
        .exists()
    )
    with ledger.session() as session:
        until = min(now, session.scalars(select(func.now())).one()) - RETAIN
        # By ``since``, which is never later than the end: it has an index.
        alerts = select(Alert.id).where(
            Alert.database.in_(databases),
            Alert.since < until,
            Alert.state == "resolved",
            Alert.resolved_at < until,
            ~waits,
        )
        session.execute(delete(Alert).where(Alert.id.in_(alerts.limit(_BATCH))))
        silences = select(Silence.id).where(Silence.ends_at < until)
        session.execute(delete(Silence).where(Silence.id.in_(silences.limit(_BATCH))))
