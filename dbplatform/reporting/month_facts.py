"""How the facts of a month are gathered: from the ledger alone, so that it can be done when the database is gone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, select

from dbplatform.alerting import record as alerts
from dbplatform.alerting.record import AlertRecord
from dbplatform.capacity.trend import Sample
from dbplatform.ledger.backups import BackupRecord, DrillRecord
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import Operation
from dbplatform.monitoring import record, windows
from dbplatform.monitoring.metrics import kind_of
from dbplatform.monitoring.statements import Statement
from dbplatform.reporting.care import care_runs, skipped
from dbplatform.reporting.month import (
    AlertCourse,
    Course,
    Month,
    Safety,
    StatementCourse,
    Work,
)
from dbplatform.reporting.periods import Period

#: The metrics whose course over the month is shown, in their order.
FOLLOWED: Final = (
    "health_score", "database_bytes", "table_bloat_ratio", "index_bloat_ratio", "dead_tuple_ratio", "slow_statement_s",
    "cache_hit_ratio", "connections_used_ratio", "xid_age_ratio",
)  # fmt: skip
_WEEK: Final = timedelta(days=7)
_STATEMENTS, _LEAST_CALLS = 8, 20


def month_of(ledger: Ledger, database: str, period: Period, *, now: datetime, backups_wanted: bool) -> Month:
    """Gather them; reads the ledger alone. Without ``backups_wanted`` no day misses one."""
    until = min(period.ends_at, now)
    runs = care_runs(ledger, database, period)
    kept = windows.first_window(ledger, database)
    return Month(
        database=database,
        period=period,
        until=until,
        runs=len(runs),
        stopped=tuple((run.at, run.stopped) for run in runs if run.stopped is not None),
        care=tuple(item for run in runs for item in run.items),
        skipped=skipped(runs),
        work=_work(_operations(ledger, database, period)),
        courses=tuple(_courses(ledger, database, period)),
        statements=_statements(ledger, database, period, until, now),
        statements_since=kept if kept is not None and kept - period.starts_at > timedelta(hours=1) else None,
        alerts=_alerts(ledger, database, period, until, now),
        safety=_safety(ledger, database, period, until, backups_wanted),
    )


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC)


def _operations(ledger: Ledger, database: str, period: Period) -> Sequence[Operation]:
    statement = (
        select(Operation)
        .where(Operation.database == database, Operation.started_at >= period.starts_at)
        .where(Operation.started_at < period.ends_at, Operation.kind != "optimize")
        .order_by(Operation.started_at)
    )
    with ledger.session() as session:
        return session.scalars(statement).all()


def _work(operations: Iterable[Operation]) -> tuple[Work, ...]:
    by_kind: dict[str, list[Operation]] = {}
    for one in operations:
        by_kind.setdefault(one.kind, []).append(one)
    found = []
    for kind, those in by_kind.items():
        bad = [one for one in those if one.status == "failed"]
        found.append(
            Work(
                kind=kind.replace("_", " "),
                times=len(those),
                failed=len(bad),
                seconds=sum((one.finished_at - one.started_at).total_seconds() for one in those if one.finished_at),
                last_at=_utc(those[-1].started_at),
                error=str(bad[-1].summary.get("error", "")) if bad else None,
            )
        )
    return tuple(sorted(found, key=lambda one: (-one.failed, -one.times, one.kind)))


def _courses(ledger: Ledger, database: str, period: Period) -> Iterable[Course]:
    for name in FOLLOWED:
        points = [
            one for one in record.history(ledger, database, name, since=period.starts_at) if one.at < period.ends_at
        ]
        if len(points) < 2:
            continue
        day = timedelta(days=1)
        yield Course(
            kind=kind_of(name),
            first=_mean(one.value for one in points if one.at < points[0].at + day),
            last=_mean(one.value for one in points if one.at > points[-1].at - day),
            least=min(one.value if one.least is None else one.least for one in points),
            greatest=max(one.value if one.greatest is None else one.greatest for one in points),
            samples=tuple(Sample(one.at, one.value) for one in points),
        )


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known)


def _statements(
    ledger: Ledger, database: str, period: Period, until: datetime, now: datetime
) -> tuple[StatementCourse, ...]:
    def between(since: datetime, end: datetime) -> dict[int, Statement]:
        found = windows.statements_of(ledger, database, since=since, now=now, until=end)
        return {one.queryid: one for one in found}

    # An hour more, so that the steps of hours are read, which reach back furthest.
    whole = between(min(period.starts_at, now - timedelta(days=3)), until)
    early = between(period.starts_at, period.starts_at + _WEEK)
    late = between(max(period.starts_at, until - _WEEK), until)
    total = sum(one.count.ms for one in whole.values())
    return tuple(
        StatementCourse(
            statement=one,
            share=one.count.ms / total if total else 0.0,
            early=_often(early.get(one.queryid)),
            late=_often(late.get(one.queryid)),
        )
        for one in list(whole.values())[:_STATEMENTS]
    )


def _often(statement: Statement | None) -> float | None:
    """Its mean, where it was called often enough to have one."""
    return statement.mean_s if statement is not None and statement.count.calls >= _LEAST_CALLS else None


def _alerts(ledger: Ledger, database: str, period: Period, until: datetime, now: datetime) -> tuple[AlertCourse, ...]:
    by_metric: dict[str, list[AlertRecord]] = {}
    for episode in alerts.history(ledger, database, since=period.starts_at, now=now):
        alert = episode.alert
        if alert.fired_at is not None and alert.fired_at < period.ends_at:
            by_metric.setdefault(alert.metric, []).append(alert)
    found = [
        AlertCourse(
            metric=metric,
            episodes=len(those),
            seconds=sum(
                (min(one.resolved_at or until, until) - max(one.since, period.starts_at)).total_seconds()
                for one in those
            ),
            severity="critical" if any(one.severity == "critical" for one in those) else "warning",
            open=tuple(one for one in those if one.state != "resolved"),
            last_cause=those[0].cause,
        )
        for metric, those in by_metric.items()
    ]
    return tuple(sorted(found, key=lambda one: (not one.open, one.severity != "critical", -one.seconds)))


def _safety(ledger: Ledger, database: str, period: Period, until: datetime, wanted: bool) -> Safety:
    whole = (BackupRecord.database == database, BackupRecord.scope == "everything")
    with ledger.session() as session:
        made = session.scalars(select(BackupRecord).where(*whole, *_begun(BackupRecord.started_at, period))).all()
        drills = session.scalars(
            select(DrillRecord).where(DrillRecord.database == database, *_begun(DrillRecord.started_at, period))
        ).all()
        complete = select(BackupRecord).where(*whole, BackupRecord.status == "complete")
        newest = session.scalars(complete.order_by(BackupRecord.started_at.desc()).limit(1)).first()
        proven = select(BackupRecord.proven_at).where(*whole, BackupRecord.proven_at.is_not(None))
        proven_at = session.scalars(proven.order_by(BackupRecord.proven_at.desc()).limit(1)).first()
    good = [one for one in made if one.status in ("complete", "pruned") and one.finished_at is not None]
    days = {_utc(one.started_at).date() for one in good}
    ended = [day.date() for day in period.days() if day + timedelta(days=1) <= until] if wanted else []
    passed = [one for one in drills if one.status == "proven"]
    failed = [one for one in drills if one.status in ("not proven", "errored")]
    times = sorted(one.rto_seconds for one in passed if one.rto_seconds is not None)
    lost = [one.rpo_seconds for one in passed if one.rpo_seconds is not None]
    return Safety(
        complete=len(good),
        failed=sum(one.status == "failed" for one in made),
        days_without=sum(day not in days for day in ended),
        bytes=newest.bytes if newest is not None else None,
        newest_at=_utc(newest.started_at) if newest is not None else None,
        proven_at=_utc(proven_at) if proven_at is not None else None,
        drills=len(drills),
        drills_failed=len(failed),
        failed_at=max((_utc(one.started_at) for one in failed), default=None),
        rto_s=(times[0], times[-1]) if times else None,
        rpo_s=max(lost) if lost else None,
        damage=newest.damage if newest is not None else None,
    )


def _begun(column: Any, period: Period) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """For a query: what began in the period."""
    return column >= period.starts_at, column < period.ends_at
