"""What each check has measured over time: kept beside its results, read for anomalies and for charts.

Bounded however often checks run. Of each check are kept: the newest 2,000 values; of older ones the last of each
hour, for 100 days; then the last of each day, for 800 days. What is thinned out is thinned out once a day, when a
table is recorded for the first time on that day. A check by period has a value for each period, which late rows may
still change.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import case, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.quality_history import QualityHistory
from dbplatform.quality.anomaly.points import Memory, Point
from dbplatform.quality.checks.anomaly import Anomaly
from dbplatform.quality.checks.base import Status
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import CheckResult, TableResult

NEWEST_KEPT = 2_000
_THIN = text("""
    delete from ledger.quality_history h using (
        select name, at, row_number() over (partition by name order by at desc) as newest,
               row_number() over (partition by name, date_trunc('hour', at, 'UTC') order by at desc) as of_hour,
               row_number() over (partition by name, date_trunc('day', at, 'UTC') order by at desc) as of_day
        from ledger.quality_history where database = :database and table_name = :table
    ) as old
    where h.database = :database and h.table_name = :table and h.name = old.name and h.at = old.at
      and (
          old.at < :now - interval '800 days'
          or old.newest > :newest and (old.of_hour > 1 or old.of_day > 1 and old.at < :now - interval '100 days')
      )
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendPoint:
    """One value of a check, for a chart: without a range nothing was expected of it."""

    at: datetime
    run_id: str
    status: Status
    value: float | None
    failed_rows: int | None
    considered_rows: int | None
    expected: float | None
    low: float | None
    high: float | None


def trends(
    ledger: Ledger, database: str, table: str, *, checks: Collection[str] | None = None, newest: int = 100
) -> dict[str, list[TrendPoint]]:
    """The newest values of each check of a table (``schema.table``), oldest first, with the range that was expected."""
    place = func.row_number().over(partition_by=QualityHistory.name, order_by=QualityHistory.at.desc()).label("place")
    numbered = select(QualityHistory, place).where(
        QualityHistory.database == database, QualityHistory.table_name == table
    )
    if checks is not None:
        numbered = numbered.where(QualityHistory.name.in_(checks))
    rows = numbered.subquery()
    found: dict[str, list[TrendPoint]] = {}
    with ledger.session() as session:
        for row in session.execute(select(rows).where(rows.c.place <= newest).order_by(rows.c.name, rows.c.at)):
            found.setdefault(row.name, []).append(
                TrendPoint(
                    at=row.at,
                    run_id=row.run_id,
                    status=cast("Status", row.status),
                    value=row.value,
                    failed_rows=row.failed_rows,
                    considered_rows=row.considered_rows,
                    expected=row.expected,
                    low=row.low,
                    high=row.high,
                )
            )
    return found


def remembering(ledger: Ledger, database: str, policy: TablePolicy, *, run_id: str | None = None) -> TablePolicy:
    """The same checks, those that compare with the past with their past, that of the run ``run_id`` left out."""
    names = [check.name for check in policy.checks if isinstance(check, Anomaly)]
    if not names:
        return policy
    points: dict[str, list[Point]] = {name: [] for name in names}
    accepted: dict[str, set[datetime]] = {name: set() for name in names}
    wanted = select(QualityHistory).where(
        QualityHistory.database == database,
        QualityHistory.table_name == str(policy.table),
        QualityHistory.name.in_(names),
        QualityHistory.value.is_not(None),
        QualityHistory.status != "errored",
    )
    with ledger.session() as session:
        for row in session.scalars(wanted.order_by(QualityHistory.at)):
            known = row.status == "accepted" and row.expected is not None
            if known:
                accepted[row.name].add(row.at)
            if row.run_id != run_id and row.value is not None:
                points[row.name].append(Point(at=row.at, value=row.value, rows=row.considered_rows, accepted=known))
    checks = [
        check.remembering(Memory(points=tuple(points[check.name]), accepted=frozenset(accepted[check.name])))
        if isinstance(check, Anomaly)
        else check
        for check in policy.checks
    ]
    return policy.model_copy(update={"checks": checks})


def keep(session: Session, database: str, run_id: str, at: datetime, result: TableResult) -> None:
    """Keep the values of a table that was checked at ``at``, in the transaction of its results.

    What the same run has measured before of the same checks is replaced.
    """
    of_table = (QualityHistory.database == database, QualityHistory.table_name == result.table)
    names = [check.name for check in result.checks]
    newest = session.scalar(select(func.max(QualityHistory.at)).where(*of_table))
    of_run = (QualityHistory.run_id == run_id, QualityHistory.name.in_(names))
    session.execute(delete(QualityHistory).where(*of_table, *of_run))
    rows = [
        {"database": database, "table_name": result.table, "run_id": run_id, "seconds": result.seconds, **values}
        for check in result.checks
        for values in _values(check, at)
    ]
    if rows:
        kept = insert(QualityHistory)
        changed: dict[str, Any] = {
            name: kept.excluded[name]
            for name in ("value", "failed_rows", "considered_rows", "seconds", "expected", "low", "high")
        }
        # Somebody has accepted it: it stays so when a later run sees it again. A value of which nothing was expected is
        # accepted, too, but by nobody.
        known = (QualityHistory.status == "accepted") & QualityHistory.expected.is_not(None)
        stays = known & (kept.excluded.status == "failed")
        changed["status"] = case((stays, QualityHistory.status), else_=kept.excluded.status)
        keys = ["database", "table_name", "name", "at"]
        session.execute(kept.on_conflict_do_update(index_elements=keys, set_=changed), rows)
    if newest is None or newest.date() != at.date():
        session.execute(_THIN, {"database": database, "table": result.table, "now": at, "newest": NEWEST_KEPT})


def _values(check: CheckResult, at: datetime) -> list[dict[str, object]]:
    """The one value of a check, or those of all its periods."""
    common = {"name": check.name, "type": check.type}
    if not check.judged:
        return [
            {
                **common,
                "at": at,
                "status": check.status,
                "value": check.value,
                "failed_rows": check.failed_rows,
                "considered_rows": check.considered_rows,
                "expected": None,
                "low": None,
                "high": None,
            }
        ]
    return [
        {
            **common,
            "at": one.point.at,
            "status": _status(check, one.anomalous, learning=one.expected is None),
            "value": one.point.value,
            "failed_rows": None,
            "considered_rows": one.point.rows,
            "expected": one.expected,
            "low": one.low,
            "high": one.high,
        }
        for one in check.judged
    ]


def _status(check: CheckResult, anomalous: bool, *, learning: bool) -> Status:
    if anomalous:
        return "accepted" if check.status == "accepted" else "failed"
    return "accepted" if learning else "passed"
