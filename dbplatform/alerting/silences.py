"""Silences: for a time nobody is told that something fires, because somebody works on it or has planned it.

The alerts go on: they fire, grow worse and are resolved in the ledger, and who had been told of one is told of its end.
What still fires when the silence ends is told then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from dbplatform.alerting.errors import AlreadyOver, SilenceTooLong, UnknownSilence
from dbplatform.ledger.acting import note
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import Silence

LONGEST = timedelta(days=31)
_MOST_LISTED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceRecord:
    """One silence; ``database`` and ``metric`` are none where it holds for all."""

    id: int
    database: str | None
    metric: str | None
    starts_at: datetime
    ends_at: datetime
    reason: str
    created_by: str

    def covers(self, database: str, metric: str, now: datetime) -> bool:
        """Whether it silences the metric of the database at the time ``now`` (aware)."""
        return (
            self.starts_at <= now < self.ends_at and self.database in (None, database) and self.metric in (None, metric)
        )

    def as_json(self) -> dict[str, Any]:
        """One entry of ``silences``."""
        return {
            "id": self.id,
            "database": self.database,
            "metric": self.metric,
            "starts_at": self.starts_at.isoformat(),
            "ends_at": self.ends_at.isoformat(),
            "reason": self.reason,
            "created_by": self.created_by,
        }


def silence(
    ledger: Ledger,
    *,
    database: str | None,
    metric: str | None,
    length: timedelta,
    reason: str,
    by: str,
    now: datetime,
    dry_run: bool = False,
) -> SilenceRecord:
    """Silence a metric (a check, a job) of a database, or all of either, from ``now`` on for ``length``.

    It ends by itself. With ``dry_run`` the answer is the same, with the number 0, and nothing is kept. Raises
    ``SilenceTooLong`` beyond 31 days: what is to be silent for good is a threshold to change.
    """
    if length > LONGEST:
        raise SilenceTooLong(days=length.days, hint="Change the threshold, or leave it out of the declaration.")
    row = Silence(database=database, metric=metric, starts_at=now, ends_at=now + length, reason=reason, created_by=by)
    if dry_run:
        row.id = 0
        return _record(row)
    with ledger.session() as session:
        session.add(row)
        session.flush()
        until = row.ends_at.isoformat()
        note(session, "silence", metric or "everything", database=database, id=row.id, until=until, reason=reason)
        return _record(row)


def end_silence(ledger: Ledger, silence_id: int, *, now: datetime, dry_run: bool = False) -> SilenceRecord:
    """End a silence before its time; what still fires is told at the next look.

    Raises ``UnknownSilence`` and ``AlreadyOver``.
    """
    with ledger.session() as session:
        row = session.get(Silence, silence_id, with_for_update=True)
        if row is None:
            raise UnknownSilence(id=silence_id, hint="See them: dbplatform alerts silence list")
        if row.ends_at <= now:
            raise AlreadyOver(id=silence_id, at=f"{row.ends_at:%Y-%m-%d %H:%M}")
        if not dry_run:
            # One that has hardly begun keeps a moment, because an end must lie behind its start.
            row.ends_at = max(now, row.starts_at + timedelta(microseconds=1))
            note(session, "end silence", row.metric or "everything", database=row.database, id=row.id)
        return _record(row)


def list_silences(ledger: Ledger, *, now: datetime, past: bool = False) -> tuple[SilenceRecord, ...]:
    """The silences that hold or are to come, newest first; with ``past`` the others, too. At most 200."""
    statement = select(Silence).order_by(Silence.starts_at.desc(), Silence.id.desc()).limit(_MOST_LISTED)
    if not past:
        statement = statement.where(Silence.ends_at > now)
    with ledger.session() as session:
        return tuple(_record(row) for row in session.scalars(statement))


def in_force(session: Session, database: str | None, now: datetime) -> tuple[SilenceRecord, ...]:
    """The silences that hold at the time ``now`` for a database, or for some of its metrics; of all, without one."""
    statement = select(Silence).where(Silence.starts_at <= now, Silence.ends_at > now)
    if database is not None:
        statement = statement.where(or_(Silence.database.is_(None), Silence.database == database))
    return tuple(_record(row) for row in session.scalars(statement))


def covering(silences: Iterable[SilenceRecord], database: str, metric: str, now: datetime) -> SilenceRecord | None:
    """The silence of the metric that lasts longest; none where it is not silent."""
    found = [one for one in silences if one.covers(database, metric, now)]
    return max(found, key=lambda one: one.ends_at, default=None)


def _record(row: Silence) -> SilenceRecord:
    return SilenceRecord(
        id=row.id,
        database=row.database,
        metric=row.metric,
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        reason=row.reason,
        created_by=row.created_by,
    )
