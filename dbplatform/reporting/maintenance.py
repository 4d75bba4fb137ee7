"""The maintenance report of a month: for the person who has to decide something from it.

First what waits for a decision, then what stands behind it. Facts of the month: ``month``; what to decide:
``decisions``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError
from dbplatform.monitoring.words import value_words
from dbplatform.operations.capacity import Capacity, capacity
from dbplatform.operations.platform import Platform
from dbplatform.reporting import periods, plots
from dbplatform.reporting.capacity import limit_title
from dbplatform.reporting.decisions import Decision, decisions
from dbplatform.reporting.month import GAINS, CareItem, Course, Month
from dbplatform.reporting.month_facts import month_of
from dbplatform.reporting.page import environment
from dbplatform.reporting.periods import Period, PeriodEntry, write_period
from dbplatform.reporting.publish import destination_of
from dbplatform.reporting.words import counted, duration


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthReport:
    """A month with what follows from it. ``capacity`` is as of now; none with the reason where it is not known."""

    month: Month
    decisions: tuple[Decision, ...]
    capacity: Capacity | None
    no_capacity: str | None
    written_at: datetime

    @property
    def period(self) -> Period:
        return self.month.period

    def as_json(self) -> dict[str, Any]:
        """The document of ``report maintenance --json``, and of the file beside the page."""
        month = self.month
        return {
            "database": month.database,
            "month": month.period.name,
            "starts_at": month.period.starts_at.isoformat(),
            "ends_at": month.period.ends_at.isoformat(),
            "until": month.until.isoformat(),
            "decisions": [one.as_json() for one in self.decisions],
            "maintenance": {
                "runs": month.runs,
                "done": len(month.done),
                "gained_bytes": sum(one.gained_bytes for one in month.done),
                "items": [_item(one) for one in month.care],
                "skipped": [
                    {"kind": one.kind, "subject": one.subject, "reason": one.reason, "hint": one.hint,
                     "times": one.times, "state": one.state, "last_at": one.last_at.isoformat()}
                    for one in month.skipped
                ],
                "stopped": [{"at": at.isoformat(), "why": why} for at, why in month.stopped],
            },
            "work": [
                {"kind": one.kind, "times": one.times, "failed": one.failed, "seconds": one.seconds, "error": one.error,
                 "last_at": one.last_at.isoformat()}
                for one in month.work
            ],
            "metrics": {
                one.kind.name: {"first": one.first, "last": one.last, "least": one.least, "greatest": one.greatest}
                for one in month.courses
            },
            "statements": [
                {**one.statement.as_json(), "share": one.share, "mean_seconds_first_week": one.early,
                 "mean_seconds_last_week": one.late}
                for one in month.statements
            ],
            "alerts": [
                {"metric": one.metric, "episodes": one.episodes, "seconds": one.seconds, "severity": one.severity,
                 "open": [alert.id for alert in one.open], "cause": one.last_cause}
                for one in month.alerts
            ],
            "backups": {
                "complete": month.safety.complete, "failed": month.safety.failed,
                "days_without": month.safety.days_without, "bytes": month.safety.bytes,
                "newest_at": month.safety.newest_at.isoformat() if month.safety.newest_at else None,
                "proven_at": month.safety.proven_at.isoformat() if month.safety.proven_at else None,
                "drills": month.safety.drills, "drills_failed": month.safety.drills_failed,
                "rto_seconds": list(month.safety.rto_s) if month.safety.rto_s else None,
                "rpo_seconds": month.safety.rpo_s,
            },
            "capacity": self.capacity.as_json() if self.capacity else None,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenMonth:
    """A report that was written, and what it says."""

    month: MonthReport
    entry: PeriodEntry

    @property
    def decisions(self) -> tuple[Decision, ...]:
        return self.month.decisions


def publish_maintenance(
    platform: Platform, declared: Declared, *, month: str | None, now: datetime | None = None
) -> WrittenMonth:
    """Write the report of a month (``2026-10``; by default the last whole one), or of what there is of it.

    Capacity is measured; where the database cannot be reached the report says so. Raises ``UnknownMonth``,
    ``MonthToCome`` and ``ReportNotWritten``.
    """
    now = now or datetime.now(UTC)
    report = gather(platform, declared, periods.month(month, now=now), now=now)
    entry = write_period(
        platform.ledger,
        declared.name,
        "maintenance",
        report.period,
        page=render_maintenance(report),
        document=report.as_json(),
        decisions=len(report.decisions),
        folder=platform.home.reports,
        destination=destination_of(platform, declared),
    )
    return WrittenMonth(month=report, entry=entry)


def gather(platform: Platform, declared: Declared, period: Period, *, now: datetime) -> MonthReport:
    """The facts of the month, capacity as of now, and what is to be decided."""
    wanted = declared.database.backups is not None
    month = month_of(platform.ledger, declared.name, period, now=now, backups_wanted=wanted)
    found, reason = None, None
    try:
        found = capacity(platform, declared)
    except PlatformError as error:
        reason = error.message
    return MonthReport(
        month=month,
        decisions=decisions(platform, declared, month, found, now=now),
        capacity=found,
        no_capacity=reason,
        written_at=now,
    )


def render_maintenance(report: MonthReport) -> str:
    """The whole page; it needs nothing else. The same facts give the same text, byte for byte."""
    month = report.month
    return (
        environment()
        .get_template("maintenance.html.j2")
        .render(
            report=report,
            month=month,
            headline=headline(report),
            courses=[
                (one, plots.history_plot(one.samples, one.kind.unit, since=month.period.starts_at, until=month.until))
                for one in month.courses
            ],
            change=change,
            facts=facts,
            mean=mean,
            title=limit_title,
            size=lambda value: value_words(value, "bytes"),
            amount=plots.amount,
        )
    )


def headline(report: MonthReport) -> str:
    """What the month comes to, in one sentence without its full stop."""
    urgent = sum(one.urgency == "now" for one in report.decisions)
    if not report.decisions:
        return "Nothing waits for a decision"
    words = f"{counted(len(report.decisions), 'decision')} {'waits' if len(report.decisions) == 1 else 'wait'}"
    return f"{words}, {urgent} of them now" if urgent else words


def change(course: Course) -> str:
    """What became of a metric from the first to the last day, in words."""
    unit = course.kind.unit
    if course.first == course.last:
        return "as it was"
    difference = course.last - course.first
    sign = "+" if difference > 0 else "-"
    if unit == "ratio":
        return f"{sign}{abs(difference) * 100:.2g} points"
    return f"{sign}{plots.amount(abs(difference), unit)}"


def mean(seconds: float) -> str:
    """The time of a call, which may be a part of a millisecond."""
    return duration(seconds) if seconds >= 0.01 else f"{seconds * 1000:.2g} ms"


def facts(item: CareItem) -> list[tuple[str, str, str]]:
    """What a piece of care changed: name, before, after."""
    units = {"bytes": "bytes", "index_bytes": "bytes", "bloat": "ratio"}
    found = []
    for name, words in GAINS.items():
        if name in item.before and name in item.after and item.before[name] != item.after[name]:
            unit: Any = units.get(name, "count")
            found.append((words, value_words(item.before[name], unit), value_words(item.after[name], unit)))
    return found


def _item(item: CareItem) -> dict[str, Any]:
    return {
        "at": item.at.isoformat(), "kind": item.kind, "subject": item.subject, "state": item.state, "words": item.words,
        "reason": item.reason, "seconds": item.seconds, "before": dict(item.before), "after": dict(item.after),
    }  # fmt: skip
