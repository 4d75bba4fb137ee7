"""Who has read a report about a time (capacity, maintenance), and what they said of it.

As with the reports of checks, a review belongs to what was read: a report that is written anew waits again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

from sqlalchemy import select

from dbplatform.ledger.acting import Way, note
from dbplatform.ledger.capacity import PeriodReport, PeriodReview
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.reviews import NothingToReview, Review, said


def review(ledger: Ledger, report_id: str, *, by: str, comment: str, way: Way, dry_run: bool = False) -> Review:
    """Note a review of such a report. One transaction; each call adds one. Raises ``NothingToReview``, ``NoReview``."""
    by, comment = (
        said("a name: who has read it", by, 200),
        said("a comment: what was found, and what is done about it", comment, 4_000),
    )
    with ledger.session() as session:
        report = session.get(PeriodReport, report_id, with_for_update=True)
        if report is None:
            raise NothingToReview(run_id=report_id, hint="See which there are: dbplatform report list --kind capacity.")
        made = PeriodReview(
            report_id=report_id,
            sha256=report.sha256,
            reviewer=by,
            comment=comment,
            way=way,
            reviewed_at=datetime.now(UTC),
        )
        if not dry_run:
            session.add(made)
            session.flush()
            note(session, "review report", by, database=report.database, report=report_id, way=way, comment=comment)
        return _review(made, current=True)


def reviews_of(ledger: Ledger, report_ids: Sequence[str]) -> dict[str, list[Review]]:
    """The reviews of each of these reports, oldest first; reports without one are left out."""
    found: dict[str, list[Review]] = {}
    statement = (
        select(PeriodReview, PeriodReview.sha256 == PeriodReport.sha256)
        .join(PeriodReport, PeriodReport.id == PeriodReview.report_id)
        .where(PeriodReview.report_id.in_(report_ids))
        .order_by(PeriodReview.reviewed_at, PeriodReview.id)
    )
    with ledger.session() as session:
        for row, current in session.execute(statement):
            found.setdefault(row.report_id, []).append(_review(row, current=bool(current)))
    return found


def _review(row: PeriodReview, *, current: bool) -> Review:
    return Review(
        id=row.id or 0,
        run_id=row.report_id,
        reviewer=row.reviewer,
        comment=row.comment,
        way=cast("Way", row.way),
        reviewed_at=row.reviewed_at.astimezone(UTC),
        current=current,
    )
