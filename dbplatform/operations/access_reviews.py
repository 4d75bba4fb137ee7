"""The access review of a declared database: who may do what now, and what is other than when somebody last reviewed it.

A review is an entry of the audit log, which the ledger refuses to alter; it holds each right as it was read.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import select

from dbplatform.declaration.loading import Declared
from dbplatform.errors import WorkError
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


class NotRead(WorkError):
    """Who may do what in {database} could not be read whole, and is not reviewed: {unread}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastReview:
    """Who has reviewed the access last, and the rights that there were."""

    by: str
    at: datetime
    comment: str
    rights: AbstractSet[str]

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
        """The rights that the last review did not see, all where there was none; none while not all are known."""
        return () if self.access.unread else tuple(sorted(self._now - self._then))

    @property
    def lost(self) -> tuple[str, ...]:
        """The rights that are no more; none while not all are known."""
        return () if self.access.unread else tuple(sorted(self._then - self._now))

    @property
    def _now(self) -> AbstractSet[str]:
        return frozenset(self.access.rights)

    @property
    def _then(self) -> AbstractSet[str]:
        return self.last.rights if self.last else frozenset()

    @property
    def waits(self) -> bool:
        """Whether nobody has reviewed what is now, as far as anybody can tell."""
        return self.last is None or bool(self.access.unread or self.gained or self.lost)

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


def signature(found: Reviewed, *, by: str, comment: str) -> tuple[str, str]:
    """The name and the words under which this can be noted. Raises ``NotRead`` and ``NoReview``."""
    if found.access.unread:
        unread = "; ".join(f"{what}: {why}" for what, why in found.access.unread.items())
        database = found.access.database
        again = f"Mend that, and look again: dbplatform roles review {database}"
        raise NotRead(database=database, unread=unread, hint=again)
    return (
        said("a name: who has read it", by, 200),
        said("a comment: what was found, and what is done about it", comment, 4_000),
    )


def note_review(platform: Platform, found: Reviewed, *, by: str, comment: str) -> Reviewed:
    """Note in the audit log that somebody has reviewed just this, and what was found. Raises as ``signature`` does."""
    by, comment = signature(found, by=by, comment=comment)
    database = found.access.database
    with platform.ledger.session() as session:
        note(session, _ACT, by, database=database, comment=comment, **found.access.kept)
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
        rights = access.in_words(row.details)
        return LastReview(by=row.subject, at=row.at.astimezone(UTC), comment=row.details["comment"], rights=rights)
