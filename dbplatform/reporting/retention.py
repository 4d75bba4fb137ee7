"""Reports that are older than is declared go. The newest one of a database stays, and so does a failing one unread.

What is due is marked in the ledger first, then its files are removed, then its record: a killed prune goes on where it
stopped, and nothing names a file that is not there. Results, their history and reviews stay in the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import aliased

from dbplatform.declaration.loading import Declared
from dbplatform.ledger.models import QualityRun, Report
from dbplatform.maintenance.cleanup.leftovers import Leftover, Part
from dbplatform.operations import reviews
from dbplatform.operations.gates import not_declared
from dbplatform.operations.platform import Platform
from dbplatform.reporting.store import remove_files, store_at_destination

#: What old reports are called in a clean-up.
REPORTS = "reports"


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A report that is, or was, to be removed."""

    run_id: str
    started_at: datetime
    location: str
    destination: str | None

    def as_json(self) -> dict[str, Any]:
        """One entry of ``reports``."""
        return {"run_id": self.run_id, "started_at": self.started_at.isoformat(), "location": self.location}


def plan_prune(platform: Platform, declared: Declared, *, now: datetime) -> list[Due]:
    """The reports of a database that are due at ``now`` (aware), oldest first; only reads.

    Raises ``NotDeclared`` where nothing says how long they are kept.
    """
    policy = declared.database.reports
    if policy is None or policy.retain is None:
        raise not_declared(declared, "time for which reports are kept", "reports: {retain: 12 months}")
    statement = (
        select(Report, QualityRun.started_at)
        .join(QualityRun, QualityRun.run_id == Report.run_id)
        .where(Report.database == declared.name)
        .where(or_(Report.removed_at.is_not(None), _due(declared.name, now - policy.retain.relativedelta)))
        .order_by(QualityRun.started_at, QualityRun.run_id)
    )
    with platform.ledger.session() as session:
        return [
            Due(
                run_id=report.run_id,
                started_at=started_at,
                location=report.location,
                destination=report.destination,
            )
            for report, started_at in session.execute(statement)
        ]


def apply_prune(platform: Platform, declared: Declared, planned: list[Due], *, now: datetime) -> list[Due]:
    """Remove what was planned and is still due; recorded when there is something. Returns what was removed.

    Raises ``StorageFailed``; the next call goes on.
    """
    policy = declared.database.reports
    if not planned or policy is None or policy.retain is None:
        return []
    before = now - policy.retain.relativedelta
    with platform.ledger.operation(declared.name, "prune reports") as summary:
        removed = [due for due in planned if _remove(platform, declared.name, due, before)]
        summary["reports"] = [due.as_json() for due in removed]
        return removed


def _remove(platform: Platform, database: str, due: Due, before: datetime) -> bool:
    with platform.ledger.session() as session:
        marked = (
            update(Report)
            .where(Report.run_id == due.run_id, Report.location == due.location)
            .where(or_(Report.removed_at.is_not(None), _still_due(database, before)))
            .values(removed_at=func.coalesce(Report.removed_at, func.now()))
            .returning(Report.run_id)
        )
        if session.scalar(marked) is None:
            return False
    remove_files(store_at_destination(due.destination, platform.home.reports), due.location)
    with platform.ledger.session() as session:
        report = session.get(Report, due.run_id)
        if report is not None and report.removed_at is not None:
            session.delete(report)
    return True


def _still_due(database: str, before: datetime) -> ColumnElement[bool]:
    due = select(Report.run_id).join(QualityRun, QualityRun.run_id == Report.run_id).where(_due(database, before))
    return Report.run_id.in_(due)


def _due(database: str, before: datetime) -> ColumnElement[bool]:
    """Of a report beside its run: old, not the newest, and nobody has yet to read it."""
    newest_report, newest_run = aliased(Report), aliased(QualityRun)
    newest = (
        select(newest_run.run_id)
        .join(newest_report, newest_report.run_id == newest_run.run_id)
        .where(newest_report.database == database, newest_report.removed_at.is_(None))
        .order_by(newest_run.started_at.desc(), newest_run.run_id.desc())
        .limit(1)
        .scalar_subquery()
    )
    return (QualityRun.started_at < before) & (QualityRun.run_id != newest) & ~reviews.unreviewed()


def cleanup_part(platform: Platform, declared: Declared) -> list[Part]:
    """Old reports as a part of the clean-up; none where nothing says how long they are kept."""
    policy, now = declared.database.reports, datetime.now(UTC)
    if policy is None or policy.retain is None:
        return []

    def find() -> list[Leftover]:
        due = plan_prune(platform, declared, now=now)
        reason = f"{len(due)} older than {policy.retain}; the newest stays, and failing ones that nobody has reviewed"
        return [Leftover(kind=REPORTS, name=declared.name, reason=reason)] if due else []

    def remove(_: Leftover) -> bool:
        return bool(apply_prune(platform, declared, plan_prune(platform, declared, now=now), now=now))

    return [Part(kind=REPORTS, find=find, remove=remove)]
