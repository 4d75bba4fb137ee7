"""Maintenance in the ledger: each run, and each item of work as soon as it is known what became of it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select, update

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.maintenance import MaintenanceItem, MaintenanceRun
from dbplatform.maintenance.model import Item, Outcome, Report


def begin(ledger: Ledger, database: str, *, mode: str, run_id: str | None, now: datetime) -> uuid.UUID:
    """A run that has begun."""
    id_ = uuid.uuid4()
    with ledger.session() as session:
        session.add(MaintenanceRun(id=id_, database=database, mode=mode, run_id=run_id, started_at=now, report={}))
    return id_


def changing(ledger: Ledger, id_: uuid.UUID, item: Item) -> None:
    """A setting is about to be changed: killed before the item is kept, the run's report has its undo."""
    noted = {"changing": item.as_json()}
    with ledger.session() as session:
        session.execute(update(MaintenanceRun).where(MaintenanceRun.id == id_).values(report=noted))


def keep(ledger: Ledger, id_: uuid.UUID, outcome: Outcome) -> None:
    """What became of one item."""
    item = outcome.item
    with ledger.session() as session:
        session.add(
            MaintenanceItem(
                maintenance_id=id_,
                kind=item.kind,
                verb=item.verb,
                subject=str(item.subject),
                priority=item.priority,
                reason=item.reason,
                statement="; ".join(item.statements),
                undo=item.undo,
                state=outcome.state,
                words=outcome.words,
                before=dict(item.evidence),
                after=dict(outcome.after),
                bytes=item.bytes,
                seconds=outcome.seconds,
            )
        )
        if item.verb == "set":
            session.execute(update(MaintenanceRun).where(MaintenanceRun.id == id_).values(report={}))


def end(ledger: Ledger, id_: uuid.UUID, report: Report, *, now: datetime) -> None:
    """A run that has ended."""
    document = {name: value for name, value in report.as_json().items() if name != "items"}
    with ledger.session() as session:
        session.execute(
            update(MaintenanceRun)
            .where(MaintenanceRun.id == id_)
            .values(finished_at=now, stopped=report.stopped, report=document)
        )


def spent(ledger: Ledger, run_id: str) -> tuple[float, int]:
    """The seconds and bytes that one Dagster run has taken of its budget, by the assets that it has maintained."""
    with ledger.session() as session:
        seconds = session.scalars(
            select(MaintenanceRun.report["seconds"].as_float()).where(
                MaintenanceRun.run_id == run_id, MaintenanceRun.finished_at.is_not(None)
            )
        ).all()
        size = session.scalar(
            select(func.coalesce(func.sum(MaintenanceItem.bytes), 0))
            .join(MaintenanceRun, MaintenanceRun.id == MaintenanceItem.maintenance_id)
            .where(MaintenanceRun.run_id == run_id, MaintenanceItem.state.in_(("done", "failed")))
        )
    return sum(seconds), int(size or 0)


def runs(ledger: Ledger, database: str, *, since: datetime) -> Sequence[MaintenanceRun]:
    """The runs of a database that began since then, the newest first."""
    with ledger.session() as session:
        return session.scalars(
            select(MaintenanceRun)
            .where(MaintenanceRun.database == database, MaintenanceRun.started_at >= since)
            .order_by(MaintenanceRun.started_at.desc())
        ).all()


def items(ledger: Ledger, id_: uuid.UUID) -> Sequence[MaintenanceItem]:
    """The items of a run, in the order in which they were dealt with."""
    with ledger.session() as session:
        return session.scalars(
            select(MaintenanceItem).where(MaintenanceItem.maintenance_id == id_).order_by(MaintenanceItem.id)
        ).all()
