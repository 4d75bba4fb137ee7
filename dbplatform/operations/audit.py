"""The audit log: every change by whom, by which way, from where and with which run. Reads the ledger alone.

It has two sources: the operations, which the ledger records before they begin, and the entries of smaller acts, which
stand in the transaction of what they changed and which the ledger refuses to alter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import String, cast, literal, null, select, union_all

from dbplatform.ledger.access import AuditEntry
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import Operation

MOST: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change: an act, which is done when it is noted, or an operation, which has a status."""

    at: datetime
    actor: str
    way: str
    origin: str
    """The name of the machine or the address; empty of operations before the ledger's version 31."""
    act: str
    database: str | None
    subject: str
    run_id: str | None
    status: str
    """``done`` of an act; ``running``, ``succeeded`` or ``failed`` of an operation."""
    details: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """One entry of ``changes``."""
        return {
            "at": self.at.isoformat(),
            "actor": self.actor,
            "way": self.way,
            "origin": self.origin,
            "act": self.act,
            "database": self.database,
            "subject": self.subject,
            "run_id": self.run_id,
            "status": self.status,
            "details": dict(self.details),
        }


def changes(
    ledger: Ledger, database: str | None = None, *, since: datetime, limit: int = 50, offset: int = 0
) -> tuple[Change, ...]:
    """What was changed from ``since`` (aware) on, the newest first: of one database, or of all and of the platform."""
    acts = select(
        AuditEntry.at,
        AuditEntry.actor,
        AuditEntry.way,
        AuditEntry.origin,
        AuditEntry.act,
        AuditEntry.database,
        AuditEntry.subject,
        AuditEntry.run_id,
        literal("done").label("status"),
        AuditEntry.details,
        cast(AuditEntry.id, String).label("id"),
    ).where(AuditEntry.at >= since)
    operations = select(
        Operation.started_at,
        Operation.actor,
        null(),
        Operation.origin,
        Operation.kind,
        Operation.database,
        literal(""),
        Operation.run_id,
        Operation.status,
        # What an operation did is long: it is in its report, and in the ledger.
        literal({}, AuditEntry.details.type),
        cast(Operation.id, String),
    ).where(Operation.started_at >= since)
    if database is not None:
        acts = acts.where(AuditEntry.database == database)
        operations = operations.where(Operation.database == database)
    both = union_all(acts, operations).subquery()
    statement = select(both).order_by(both.c.at.desc(), both.c.id.desc()).limit(min(limit, MOST)).offset(offset)
    with ledger.session() as session:
        return tuple(
            Change(
                at=row.at.astimezone(UTC),
                actor=row.actor,
                way=row.way or ("dagster" if row.run_id else "command line"),
                origin=row.origin,
                act=row.act,
                database=row.database,
                subject=row.subject,
                run_id=row.run_id,
                status=row.status,
                details=row.details,
            )
            for row in session.execute(statement)
        )
