"""The errors that only the service can meet, and what every part of it says of the ledger's databases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from sqlalchemy import ARRAY, ColumnElement, Text, cast, func, select, true
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, aliased

from dbplatform.errors import UsageError, WorkError
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import QualityRun, Report
from dbplatform.operations import recorded
from dbplatform.operations.reviews import unreviewed
from dbplatform.reporting.store import ReportEntry, newest_reports


class PageNotFound(UsageError):
    """There is nothing at {path}."""


class BadRequest(UsageError):
    """The parameter {name} cannot be used: {problem}."""


class NoSuchDatabase(UsageError):
    """No database {name!r} is declared here, and nothing is recorded of one."""


class NotMeasured(UsageError):
    """The database {name} was not measured yet."""


class WritingRefused(UsageError):
    """Nothing was noted: {why}."""


class NotLetIn(UsageError):
    """Nobody is let in without a token, or by the proxy: {why}."""


class NotAllowed(UsageError):
    """{who} may read, and not act."""


class TooMany(WorkError):
    """Too many requests from {who}; the next one is answered in {seconds:.1f} s."""


class TooLarge(UsageError):
    """The request is larger than {bytes:,} bytes."""


class TooSlow(UsageError):
    """The request was not complete after {seconds:.0f} s."""


class Busy(WorkError):
    """Others have statements explained right now."""


class DatabaseGone(WorkError):
    """The database {database} was there, and is not any more, or its server is stopped."""


class NothingToAsk(UsageError):
    """The database {database} is not there, or not declared here, so nothing can be explained."""


class LedgerBehind(WorkError):
    """The ledger's schema is older than this version: it lacks {missing}."""


class NobodyMayCome(UsageError):
    """Nobody could be let in on {host}: there is no valid token, and no proxy to trust."""


class PortTaken(WorkError):
    """{what} cannot listen on {host}:{port}: {reason}."""


class ReportChanged(WorkError):
    """The report {location} is not what was written: its file is missing, or its SHA-256 differs from the ledger's."""


class LedgerSilent(WorkError):
    """The ledger does not answer: {reason}."""

    @classmethod
    def because(cls, error: SQLAlchemyError) -> Self:
        """Say in words what went wrong, without the driver's text: it could name hosts and users."""
        state = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
        if state in ("42P01", "3F000"):
            return cls(
                reason="its schema is not applied", hint="Run any verb that writes, such as dbplatform migrate apply."
            )
        if state == "53100":
            return cls(reason="the disk of its server is full", hint="Make room there; nothing was noted of this.")
        return cls(reason="its server cannot be reached", hint="See whether it runs: dbplatform server status.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseState:
    """A database as the ledger knows it; a verdict only from a run that ended."""

    name: str
    verdict: str | None
    run_id: str | None
    started_at: datetime | None
    finished_at: datetime | None
    unfinished_since: datetime | None
    """The start of a newer run without a verdict: it still goes on, or its process was ended."""
    report: ReportEntry | None
    """The newest one, which may be of an older run."""
    unreviewed: int
    """How many failing reports wait for a review."""


def databases(ledger: Ledger) -> list[DatabaseState]:
    """Every database that something was recorded for, by name; five statements, however many there are."""
    names = recorded.databases(ledger)
    reports = newest_reports(ledger, names)
    with ledger.session() as session:
        newest, finished = _newest(session, names), _newest(session, names, QualityRun.verdict.is_not(None))
        waiting = select(Report.database, func.count()).join(QualityRun, QualityRun.run_id == Report.run_id)
        waits = dict(session.execute(waiting.where(unreviewed()).group_by(Report.database)).all())
    return [_state(name, newest.get(name), finished.get(name), reports.get(name), waits.get(name, 0)) for name in names]


def _state(
    name: str, newest: QualityRun | None, finished: QualityRun | None, report: ReportEntry | None, unreviewed: int
) -> DatabaseState:
    return DatabaseState(
        name=name,
        verdict=finished.verdict if finished else None,
        run_id=finished.run_id if finished else None,
        started_at=finished.started_at.astimezone(UTC) if finished else None,
        finished_at=finished.finished_at.astimezone(UTC) if finished and finished.finished_at else None,
        unfinished_since=newest.started_at.astimezone(UTC) if newest and newest.verdict is None else None,
        report=report,
        unreviewed=unreviewed,
    )


def _newest(session: Session, names: Sequence[str], *conditions: ColumnElement[bool]) -> dict[str, QualityRun]:
    """The newest run of each database, by one step into the index for each."""
    each = func.unnest(cast(list(names), ARRAY(Text))).table_valued("name").render_derived()
    one = select(QualityRun).where(QualityRun.database == each.c.name, *conditions)
    found = aliased(QualityRun, one.order_by(QualityRun.started_at.desc()).limit(1).lateral())
    return {run.database: run for run in session.scalars(select(found).select_from(each).join(found, true()))}
