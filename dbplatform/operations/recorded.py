"""What the ledger has recorded of a database: what was done on it, and how far its partitions reach."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import exists, func, literal, null, select, union, union_all

from dbplatform.ledger.advice import AdviceRecord
from dbplatform.ledger.backups import BackupRecord
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import Operation, QualityRun
from dbplatform.ledger.monitoring import Alert, MetricCollection, Watch

_ERROR_CHARACTERS: Final = 300
#: Far more than a location has databases with partitions made one by one.
_OPERATIONS_READ: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """An operation, or a run of checks (kind ``check``)."""

    kind: str
    status: str
    """``running``, ``succeeded``, ``failed``; of checks ``running`` or the verdict. One that was killed is running."""
    run_id: str | None
    by: str
    origin: str
    started_at: datetime
    finished_at: datetime | None
    error: str | None
    in_dagster: bool
    """Its run can be seen in the Dagster UI."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionHorizon:
    """Until when the partitions of a table reach, as whoever made some last has seen it."""

    table: str
    until: datetime | None
    numbers: int | None
    """Of a table by numbers: how many were left then."""
    partitions: int
    default_rows: int
    looked_at: datetime


def databases(ledger: Ledger) -> tuple[str, ...]:
    """Every database that something was recorded for, by name."""
    each = union(select(Operation.database), select(QualityRun.database), select(Watch.database))
    with ledger.session() as session:
        return tuple(sorted(session.scalars(each)))


def begun(ledger: Ledger) -> frozenset[str]:
    """The databases on which something was done, or measured by the watch, which looks for those to be made, too."""
    watched = select(Watch.database).where(Watch.measured_at.is_not(None))
    with ledger.session() as session:
        return frozenset(session.scalars(union(select(Operation.database), select(QualityRun.database), watched)))


def has_begun(ledger: Ledger, database: str) -> bool:
    """Whether anything was done on it, or measured: it is there, or was."""
    done = (exists().where(kind.database == database) for kind in (Operation, QualityRun, MetricCollection))
    measured = exists().where(Watch.database == database, Watch.measured_at.is_not(None))
    with ledger.session() as session:
        return any(session.scalar(select(one)) for one in (*done, measured))


def is_known(ledger: Ledger, database: str) -> bool:
    """Whether anything was recorded for it."""
    kinds = (Operation, QualityRun, Watch, MetricCollection, Alert, BackupRecord, AdviceRecord)
    with ledger.session() as session:
        return any(session.scalar(select(exists().where(kind.database == database))) for kind in kinds)


def runs(ledger: Ledger, database: str, *, running: bool = False, limit: int = 50, offset: int = 0) -> tuple[Run, ...]:
    """What was done on a database, the newest first; ``running``: only what has no end yet."""
    operations = select(
        Operation.kind,
        Operation.status,
        Operation.run_id,
        Operation.actor.label("by"),
        Operation.origin,
        Operation.started_at,
        Operation.finished_at,
        Operation.summary["error"].as_string().label("error"),
        (Operation.actor == "dagster").label("in_dagster"),
    ).where(Operation.database == database)
    checks = select(
        literal("check"),
        func.coalesce(QualityRun.verdict, "running"),
        QualityRun.run_id,
        literal(""),
        literal(""),
        QualityRun.started_at,
        QualityRun.finished_at,
        null(),
        QualityRun.in_dagster,
    ).where(QualityRun.database == database)
    if running:
        operations = operations.where(Operation.status == "running")
        checks = checks.where(QualityRun.verdict.is_(None))
    both = union_all(operations, checks).subquery()
    newest = select(both).order_by(both.c.started_at.desc(), both.c.kind, both.c.run_id).limit(limit).offset(offset)
    with ledger.session() as session:
        return tuple(
            Run(
                kind=row.kind,
                status=row.status,
                run_id=row.run_id,
                by=row.by,
                origin=row.origin,
                started_at=row.started_at.astimezone(UTC),
                finished_at=row.finished_at.astimezone(UTC) if row.finished_at else None,
                error=_first_line(row.error),
                in_dagster=row.in_dagster,
            )
            for row in session.execute(newest)
        )


def horizons(ledger: Ledger, database: str) -> tuple[PartitionHorizon, ...]:
    """How far the partitions of each table reach, by what made some of them last; tables by name."""
    made = (
        select(Operation.finished_at, Operation.summary["tables"])
        .where(Operation.database == database, Operation.kind == "partition", Operation.status == "succeeded")
        .order_by(Operation.started_at.desc())
        .limit(_OPERATIONS_READ)
    )
    found: dict[str, PartitionHorizon] = {}
    with ledger.session() as session:
        for at, tables in session.execute(made):
            for table in tables or ():
                found.setdefault(table["table"], _horizon(table, at.astimezone(UTC)))
    return tuple(found[name] for name in sorted(found))


def _horizon(table: dict[str, Any], at: datetime) -> PartitionHorizon:
    days = table.get("horizon_days")
    return PartitionHorizon(
        table=table["table"],
        until=None if days is None else at + timedelta(days=days),
        numbers=table.get("horizon_numbers"),
        partitions=table["existing"],
        default_rows=table["default_rows"],
        looked_at=at,
    )


def _first_line(text: str | None) -> str | None:
    """Enough to know what happened; all of it is in the ledger and in the run."""
    return text.strip().partition("\n")[0][:_ERROR_CHARACTERS] if text else None
