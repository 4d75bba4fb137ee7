"""The health of every declared database, as the ledger has it. Looks at the ledger alone, and starts nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from dbplatform.declaration.loading import Declared
from dbplatform.errors import WorkError
from dbplatform.ledger.ledger import Ledger
from dbplatform.monitoring import health, record
from dbplatform.monitoring.errors import NothingMeasured
from dbplatform.monitoring.health import Deduction, Grade, grade_of
from dbplatform.monitoring.kinds.score import HEALTH_SCORE
from dbplatform.monitoring.thresholds import judge
from dbplatform.operations import watching
from dbplatform.operations.platform import Platform


class FleetUnknown(WorkError):
    """The health of the databases is not known: the ledger does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseHealth:
    """The score of one database when it was measured last, or why there is none."""

    database: str
    score: int | None
    grade: Grade | None
    worst: Deduction | None
    measured_at: datetime | None
    limit: str
    """The mildest limit of its score that is breached, else the mildest one."""
    below: bool
    """Whether the score is beyond that limit."""
    reason: str | None
    """Why there is no score."""

    def as_json(self) -> dict[str, Any]:
        """One entry of ``databases``."""
        return {
            "database": self.database,
            "score": self.score,
            "grade": self.grade,
            "worst": self.worst.as_json() if self.worst else None,
            "measured_at": self.measured_at,
            "limit": self.limit,
            "below": self.below,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All of them, the worst first; those without a score at the end."""

    databases: Sequence[DatabaseHealth]

    @property
    def score(self) -> int | None:
        """That of the worst database: a mean would hide it."""
        return min((one.score for one in self.databases if one.score is not None), default=None)

    @property
    def below(self) -> bool:
        """Whether a database is below the limit of its score."""
        return any(one.below for one in self.databases)

    def as_json(self) -> dict[str, Any]:
        """The document of ``health --json`` without a database."""
        return {
            "score": self.score,
            "grade": grade_of(self.score) if self.score is not None else None,
            "databases": [one.as_json() for one in self.databases],
        }


def fleet(platform: Platform) -> Fleet:
    """Every declared database that holds, by what was recorded last. Raises ``FleetUnknown``."""
    ledger = platform.existing_ledger()
    try:
        found = [_health(ledger, declared) for declared in platform.declarations.databases]
    except SQLAlchemyError as error:
        raise FleetUnknown(hint="See why: dbplatform doctor") from error
    return Fleet(databases=sorted(found, key=lambda one: (one.score is None, one.score or 0, one.database)))


def _health(ledger: Ledger | None, declared: Declared) -> DatabaseHealth:
    limits = watching.limits(declared)
    of_score = next(policy for policy in limits if policy.metric == HEALTH_SCORE.name)
    mildest = str(of_score.warn or of_score.critical)
    metrics = record.latest(ledger, declared.name) if ledger is not None else None
    try:
        if metrics is None:
            raise NothingMeasured("it was not measured yet")
        found = watching.score(declared, metrics)
    except NothingMeasured as error:
        return DatabaseHealth(
            database=declared.name,
            score=None,
            grade=None,
            worst=None,
            measured_at=metrics.at if metrics is not None else None,
            limit=mildest,
            below=False,
            reason=error.message,
        )
    judged = judge(health.added(metrics, limits), [of_score]).judged
    return DatabaseHealth(
        database=declared.name,
        score=found.score,
        grade=found.grade,
        worst=found.deductions[0] if found.deductions else None,
        measured_at=metrics.at,
        limit=judged[0].limit if judged else mildest,
        below=any(one.severity is not None for one in judged),
        reason=None,
    )
