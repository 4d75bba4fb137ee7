"""Who has read a report and what they said of it, and which failing reports nobody has read.

A review belongs to what was read: a report that is written anew, with other results, waits for a review again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from sqlalchemy import ColumnElement, exists, select

from dbplatform.errors import UsageError
from dbplatform.ledger.acting import Way, note
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import QualityRun, Report
from dbplatform.ledger.reports import ReportReview

_REVIEWER_CHARACTERS, _COMMENT_CHARACTERS = 200, 4_000


class NothingToReview(UsageError):
    """There is no report of run {run_id} to review."""


class NoReview(UsageError):
    """A review needs {what}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One review. ``current`` unless the report was written anew since, with other results."""

    id: int
    run_id: str
    reviewer: str
    comment: str
    way: Way
    reviewed_at: datetime
    current: bool

    def as_json(self) -> dict[str, object]:
        """One entry of ``reviews``."""
        return {
            "id": self.id,
            "run_id": self.run_id,
            "by": self.reviewer,
            "comment": self.comment,
            "way": self.way,
            "at": self.reviewed_at.isoformat(),
            "current": self.current,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A failing report that nobody has reviewed."""

    run_id: str
    database: str
    started_at: datetime
    finished_at: datetime
    verdict: str


def review(
    ledger: Ledger, run_id: str, *, by: str, comment: str, way: Way, and_earlier: bool = False, dry_run: bool = False
) -> list[Review]:
    """Note a review of a report, with ``and_earlier`` also of every older failing one of its database that waits.

    One transaction in the ledger. Each call adds to the history. Raises ``NothingToReview`` and ``NoReview``.
    """
    by, comment = said("a name: who has read it", by, _REVIEWER_CHARACTERS), said(
        "a comment: what was found, and what is done about it", comment, _COMMENT_CHARACTERS
    )  # fmt: skip
    with ledger.session() as session:
        asked = select(Report).where(Report.run_id == run_id, Report.removed_at.is_(None)).with_for_update()
        report = session.scalar(asked)
        if report is None:
            raise NothingToReview(run_id=run_id, hint="See which there are: dbplatform report list.")
        chosen = [report]
        if and_earlier:
            begun = select(QualityRun.started_at).where(QualityRun.run_id == run_id).scalar_subquery()
            waiting = (
                select(Report)
                .join(QualityRun, QualityRun.run_id == Report.run_id)
                .where(unreviewed(), Report.database == report.database, QualityRun.started_at < begun)
                .order_by(QualityRun.started_at.desc())
            )
            chosen += session.scalars(waiting).all()
        made = [
            ReportReview(run_id=one.run_id, sha256=one.sha256, reviewer=by, comment=comment, way=way) for one in chosen
        ]
        if dry_run:
            now = datetime.now(UTC)
            return [
                Review(id=0, run_id=one.run_id, reviewer=by, comment=comment, way=way, reviewed_at=now, current=True)
                for one in made
            ]
        session.add_all(made)
        session.flush()
        for one in made:
            session.refresh(one)
            note(session, "review report", by, database=report.database, run_id=one.run_id, way=way, comment=comment)
        return [_review(one, current=True) for one in made]


def reviews_of(ledger: Ledger, run_ids: Sequence[str]) -> dict[str, list[Review]]:
    """The reviews of each of these runs' reports, oldest first; runs without one are left out."""
    found: dict[str, list[Review]] = {}
    statement = (
        select(ReportReview, ReportReview.sha256 == Report.sha256)
        .outerjoin(Report, Report.run_id == ReportReview.run_id)
        .where(ReportReview.run_id.in_(run_ids))
        .order_by(ReportReview.reviewed_at, ReportReview.id)
    )
    with ledger.session() as session:
        for row, current in session.execute(statement):
            found.setdefault(row.run_id, []).append(_review(row, current=bool(current)))
    return found


def waiting(ledger: Ledger, database: str) -> list[Waiting]:
    """The failing reports of a database that nobody has reviewed, oldest first."""
    statement = (
        select(QualityRun)
        .join(Report, Report.run_id == QualityRun.run_id)
        .where(unreviewed(), Report.database == database)
        .order_by(QualityRun.started_at)
    )
    with ledger.session() as session:
        return [
            Waiting(
                run_id=run.run_id,
                database=run.database,
                started_at=run.started_at.astimezone(UTC),
                finished_at=run.finished_at.astimezone(UTC),
                verdict=run.verdict or "errored",
            )
            for run in session.scalars(statement)
            if run.finished_at is not None
        ]


def reviewed() -> ColumnElement[bool]:
    """For a query over ``Report``: somebody has reviewed what it says now."""
    same = (ReportReview.run_id == Report.run_id, ReportReview.sha256 == Report.sha256)
    return exists(select(ReportReview.id).where(*same))


def unreviewed() -> ColumnElement[bool]:
    """For a query over ``Report`` and ``QualityRun``: it did not pass, is there, and nobody has reviewed it."""
    return QualityRun.verdict.in_(("failed", "errored")) & Report.removed_at.is_(None) & ~reviewed()


def said(what: str, text: str, most: int) -> str:
    """The text without what surrounds it; what PostgreSQL cannot hold is left out."""
    said = text.replace("\0", "").strip()
    if not said:
        raise NoReview(what=what, hint="It must not be empty.")
    if len(said) > most:
        raise NoReview(what=what, hint=f"It may have {most:,} characters, and has {len(said):,}.")
    return said


def _review(row: ReportReview, *, current: bool) -> Review:
    return Review(
        id=row.id,
        run_id=row.run_id,
        reviewer=row.reviewer,
        comment=row.comment,
        way=cast("Way", row.way),
        reviewed_at=row.reviewed_at.astimezone(UTC),
        current=current,
    )
