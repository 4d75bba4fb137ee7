"""The access review of a declared database: who may do what now, and what is other than when somebody last reviewed it.

A review is an entry of the audit log, which the ledger refuses to alter; it holds each right as it was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import select

from dbplatform.declaration.loading import Declared
from dbplatform.ledger.access import AuditEntry
from dbplatform.ledger.acting import note
from dbplatform.ledger.ledger import Ledger
from dbplatform.monitoring import collect
from dbplatform.monitoring.audits import access
from dbplatform.monitoring.audits.access import Access
from dbplatform.operations import watching
from dbplatform.operations.platform import Platform
from dbplatform.operations.reviews import said

_ACT: Final = "review access"


@dataclass(frozen=True, slots=True, kw_only=True)
class LastReview:
    """Who has reviewed the access last, and the rights that there were."""

    by: str
    at: datetime
    comment: str
    rights: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """``last_review``."""
        return {"by": self.by, "at": self.at, "comment": self.comment}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """The access as it is, beside the last review of it."""

    access: Access
    last: LastReview | None

    @property
    def gained(self) -> tuple[str, ...]:
        """The rights that the last review did not see; all of them where there was none."""
        return tuple(sorted(set(self.access.rights) - set(self.last.rights if self.last else ())))

    @property
    def lost(self) -> tuple[str, ...]:
        """The rights that are no more."""
        return tuple(sorted(set(self.last.rights) - set(self.access.rights))) if self.last else ()

    @property
    def waits(self) -> bool:
        """Whether nobody has reviewed what is now."""
        return self.last is None or bool(self.gained or self.lost)

    def as_json(self) -> dict[str, Any]:
        """The document of ``roles review --json``."""
        return {
            **self.access.as_json(),
            "last_review": self.last.as_json() if self.last else None,
            "gained": list(self.gained),
            "lost": list(self.lost),
        }


def review_access(platform: Platform, declared: Declared) -> Reviewed:
    """Read who may do what, catalogs only. Raises ``NothingToMeasure``, ``VariableNotSet`` and ``CannotConnect``."""
    with collect.session(watching.existing(platform, declared)) as connection:
        found = access.review(connection, database=declared.name, now=datetime.now(UTC))
    return Reviewed(access=found, last=last_review(platform.ledger, declared.name))


def note_review(platform: Platform, found: Reviewed, *, by: str, comment: str) -> Reviewed:
    """Note in the audit log that somebody has reviewed just this, and what was found. Raises ``NoReview``."""
    by, comment = (
        said("a name: who has read it", by, 200),
        said("a comment: what was found, and what is done about it", comment, 4_000),
    )
    database = found.access.database
    with platform.ledger.session() as session:
        note(session, _ACT, by, database=database, comment=comment, rights=list(found.access.rights))
    return Reviewed(access=found.access, last=last_review(platform.ledger, database))


def last_review(ledger: Ledger, database: str) -> LastReview | None:
    """The newest note of a review of the access to a database."""
    statement = (
        select(AuditEntry)
        .where(AuditEntry.act == _ACT, AuditEntry.database == database)
        .order_by(AuditEntry.at.desc(), AuditEntry.id.desc())
        .limit(1)
    )
    with ledger.session() as session:
        row = session.scalar(statement)
        if row is None:
            return None
        details = row.details
        return LastReview(
            by=row.subject, at=row.at.astimezone(UTC), comment=details["comment"], rights=details["rights"]
        )
