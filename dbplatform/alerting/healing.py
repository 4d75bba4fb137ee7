"""Work that an alert begins by itself: once for each episode, with pauses that grow, and what became of it.

Decided here, in the ledger, is that it begins; whoever runs the work asks for ``going_on`` and says what became of it
(``seen``). Both can be asked again at any time: an episode begins its work once, whoever asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, cast

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from dbplatform.ledger.healing import Healing
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import Alert

Outcome = Literal["succeeded", "failed"]

#: The pause after the first time; each time within the last week doubles it, up to a day.
_PAUSE, _LONGEST_PAUSE, _REMEMBERED = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
#: Work of which nothing is seen for so long is asked for no more.
_GIVEN_UP = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """Work that an alert has begun."""

    database: str
    work: str
    key: str
    alert_id: int
    begun_at: datetime
    run_id: str | None
    outcome: Outcome | None

    def as_json(self) -> dict[str, Any]:
        """One entry of ``began`` of ``alerts history``."""
        return {
            "work": self.work,
            "begun_at": self.begun_at.isoformat(),
            "run_id": self.run_id,
            "outcome": self.outcome,
        }

    def __str__(self) -> str:
        return f"{self.work} {self.outcome or 'goes on'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Work that an alert would begin, and why not now."""

    database: str
    work: str
    metric: str
    reason: str

    def __str__(self) -> str:
        return f"{self.work} of {self.database}, wanted by {self.metric}, waits: {self.reason}"


def begin(
    ledger: Ledger, database: str, on_breach: Mapping[str, str], *, now: datetime, waiting: Mapping[str, str]
) -> list[Held]:
    """Note the work that each firing alert of these metrics begins at ``now`` (aware); what is held back, and why.

    ``waiting`` has the reason for each work that has to wait, whatever fires. One transaction for each database.
    """
    held: list[Held] = []
    with ledger.session() as session:
        alerts = session.scalars(
            select(Alert)
            .where(Alert.database == database, Alert.state == "firing", Alert.key.in_(on_breach))
            .order_by(Alert.id)
            .with_for_update()
        ).all()
        for alert in alerts:
            work = on_breach[alert.key]
            if session.get(Healing, (alert.id, work)) is not None:
                continue
            reason = waiting.get(work) or _pause(session, database, work, now)
            if reason is not None:
                held.append(Held(database=database, work=work, metric=alert.key, reason=reason))
                continue
            key = f"{database}/{alert.id}/{alert.since:%Y-%m-%dT%H:%M:%S}/{work}"
            session.execute(
                insert(Healing)
                .values(alert_id=alert.id, work=work, database=database, key=key, begun_at=now)
                .on_conflict_do_nothing()
            )
    return held


def _pause(session: Session, database: str, work: str, now: datetime) -> str | None:
    """Why the work has to wait for other episodes before; None where it need not."""
    times, last = session.execute(
        select(func.count(), func.max(Healing.begun_at)).where(
            Healing.database == database, Healing.work == work, Healing.begun_at > now - _REMEMBERED
        )
    ).one()
    if last is None:
        return None
    until = last + min(_PAUSE * 2 ** (times - 1), _LONGEST_PAUSE)
    if now >= until:
        return None
    often = "once" if times == 1 else f"{times} times"
    return f"it has begun {often} in the last seven days, and rests until {until:%Y-%m-%d %H:%M} UTC"


def going_on(ledger: Ledger, *, now: datetime) -> list[Begun]:
    """The work that was begun and has not been seen to end; but for what nothing was seen of for a day."""
    statement = select(Healing).where(
        Healing.outcome.is_(None), Healing.run_id.is_not(None) | (Healing.begun_at > now - _GIVEN_UP)
    )
    with ledger.session() as session:
        return [_begun(one) for one in session.scalars(statement.order_by(Healing.begun_at))]


def seen(ledger: Ledger, begun: Begun, *, run_id: str, outcome: Outcome | None) -> None:
    """Keep the run of the work, and how it ended."""
    with ledger.session() as session:
        row = session.get(Healing, (begun.alert_id, begun.work))
        if row is not None:
            row.run_id, row.outcome = run_id, outcome


def begun_by(session: Session, alert_ids: Sequence[int]) -> dict[int, list[Begun]]:
    """What each of these alerts has begun, oldest first."""
    found: dict[int, list[Begun]] = {}
    statement = select(Healing).where(Healing.alert_id.in_(alert_ids)).order_by(Healing.begun_at)
    for one in session.scalars(statement):
        found.setdefault(one.alert_id, []).append(_begun(one))
    return found


def _begun(row: Healing) -> Begun:
    return Begun(
        database=row.database,
        work=row.work,
        key=row.key,
        alert_id=row.alert_id,
        begun_at=row.begun_at,
        run_id=row.run_id,
        outcome=cast("Outcome | None", row.outcome),
    )
