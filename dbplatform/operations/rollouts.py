"""How far a roll-out is, in the ledger: begun, gone on with, and what became of each database.

The migration history of each database has the truth; here is what a person, or the next command, wants to know of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select, update

from dbplatform.backups.holding import held
from dbplatform.ledger.acting import current
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.rollouts import Rollout, RolloutDatabase

MOST_LISTED = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One database of a roll-out."""

    database: str
    canary: bool
    state: str
    version: str | None
    seconds: float | None
    ended_at: datetime | None
    reason: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    proven_at: datetime | None

    def as_json(self) -> dict[str, Any]:
        """One of ``databases``."""
        return {
            "database": self.database,
            "canary": self.canary,
            "state": self.state,
            "version": self.version,
            "seconds": self.seconds,
            "ended_at": self.ended_at,
            "reason": self.reason or None,
            "before": dict(self.before) or None,
            "after": dict(self.after) or None,
            "proven_at": self.proven_at,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A roll-out as the ledger has it."""

    id: int
    scope: str
    target: str | None
    status: str
    """As in the ledger, or ``killed``."""
    reason: str
    actor: str
    started_at: datetime
    finished_at: datetime | None
    stages: tuple[Stage, ...]

    def count(self, state: str) -> int:
        """How many databases are in this state."""
        return sum(stage.state == state for stage in self.stages)

    def as_json(self) -> dict[str, Any]:
        """One of ``rollouts``."""
        return {
            "rollout": self.id,
            "scope": self.scope,
            "target": self.target,
            "status": self.status,
            "reason": self.reason or None,
            "actor": self.actor,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "databases": [stage.as_json() for stage in self.stages],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one database is found like when a roll-out begins, or goes on."""

    database: str
    canary: bool
    version: str | None
    in_force: str
    """What is applied, as a digest (``MigrationPlan.in_force``)."""
    is_there: bool
    """Whether nothing is pending."""


def lock_of(scope: str, target: str | None) -> str:
    """The lock in the ledger that whoever works at this roll-out holds."""
    return f"roll-out of {scope} to {target or 'the newest version'}"


def unfinished(ledger: Ledger, scope: str, target: str | None) -> Record | None:
    """The roll-out of this choice that is not over; at most one."""
    statement = select(Rollout.id).where(
        Rollout.scope == scope, func.coalesce(Rollout.target, "") == (target or ""), Rollout.status != "succeeded"
    )
    with ledger.session() as session:
        found = session.scalars(statement).first()
    return None if found is None else read(ledger, found)


def take_up(ledger: Ledger, scope: str, target: str | None, found: Sequence[Found], left_out: Mapping[str, str]) -> int:
    """Go on with the roll-out that is not over, or begin one; its id. For whoever holds its lock. One transaction.

    What an earlier command worked at, and is ``left_out`` of this one for the reason given, is untouched by it.
    A canary counts as proven, and as watched for so long, only with what was applied when it was looked at.
    """
    open_ = unfinished(ledger, scope, target)
    actor = current()
    with ledger.session() as session:
        if open_ is None:
            rollout = Rollout(scope=scope, target=target, actor=actor.name, origin=actor.origin, status="running")
            session.add(rollout)
        else:
            rollout = session.get_one(Rollout, open_.id)
            rollout.status, rollout.reason, rollout.finished_at = "running", "", None
            rollout.actor, rollout.origin = actor.name, actor.origin
        session.flush()
        for one in found:
            stage = session.get(RolloutDatabase, (rollout.id, one.database))
            if stage is None:
                stage = RolloutDatabase(rollout_id=rollout.id, database=one.database, after={})
                session.add(stage)
            stage.canary, stage.version = one.canary, one.version
            stage.state, stage.reason = "done" if one.is_there else "untouched", ""
            as_seen = stage.after.get("in_force") == one.in_force
            stage.proven_at = stage.proven_at if one.is_there and as_seen else None
            if one.canary and not as_seen:
                stage.ended_at = None
        others = RolloutDatabase.database.not_in([one.database for one in found])
        for stage in session.scalars(
            select(RolloutDatabase).where(
                RolloutDatabase.rollout_id == rollout.id, others, RolloutDatabase.state != "done"
            )
        ):
            why = left_out.get(stage.database, "is not among these databases any more")
            stage.state, stage.reason = "untouched", f"left out: it {why}"
        return rollout.id


def note(ledger: Ledger, rollout: int, database: str, **values: Any) -> None:
    """Keep what became of one database."""
    statement = update(RolloutDatabase).where(
        RolloutDatabase.rollout_id == rollout, RolloutDatabase.database == database
    )
    with ledger.session() as session:
        session.execute(statement.values(**values))


def end(ledger: Ledger, rollout: int, status: str, reason: str = "") -> None:
    """Note that nobody works at it any more; a database at which somebody did was stopped."""
    with ledger.session() as session:
        session.execute(
            update(Rollout).where(Rollout.id == rollout).values(status=status, reason=reason, finished_at=func.now())
        )
        at_work = (RolloutDatabase.rollout_id == rollout, RolloutDatabase.state == "running")
        session.execute(update(RolloutDatabase).where(*at_work).values(state="stopped"))


def read(ledger: Ledger, rollout: int) -> Record:
    """One roll-out, its canaries first."""
    with ledger.session() as session:
        found = session.get_one(Rollout, rollout)
        rows = session.scalars(
            select(RolloutDatabase)
            .where(RolloutDatabase.rollout_id == rollout)
            .order_by(RolloutDatabase.canary.desc(), RolloutDatabase.database)
        ).all()
    return _record(found, rows)


def listed(ledger: Ledger) -> list[Record]:
    """The newest roll-outs; one that is ``running`` while nobody holds its lock was killed."""
    with ledger.session() as session:
        ids = session.scalars(select(Rollout.id).order_by(Rollout.id.desc()).limit(MOST_LISTED)).all()
    return [_seen(ledger, read(ledger, id_)) for id_ in ids]


def _seen(ledger: Ledger, record: Record) -> Record:
    if record.status != "running":
        return record
    with held(ledger, lock_of(record.scope, record.target), shared=True) as free:
        return replace(record, status="killed") if free else record


def _record(found: Rollout, rows: Sequence[RolloutDatabase]) -> Record:
    return Record(
        id=found.id,
        scope=found.scope,
        target=found.target,
        status=found.status,
        reason=found.reason,
        actor=found.actor,
        started_at=found.started_at,
        finished_at=found.finished_at,
        stages=tuple(
            Stage(
                database=row.database,
                canary=row.canary,
                state=row.state,
                version=row.version,
                seconds=row.seconds,
                ended_at=row.ended_at,
                reason=row.reason,
                before=row.before,
                after=row.after,
                proven_at=row.proven_at,
            )
            for row in rows
        ),
    )


def now() -> datetime:
    """This moment."""
    return datetime.now(UTC)
