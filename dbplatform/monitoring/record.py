"""The history of metrics in the ledger: written collection by collection, read back for differences and charts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import MetricCollection, MetricSample
from dbplatform.monitoring.metrics import KINDS, Metric, Metrics, kind_of

RETAIN_DAYS = 30
#: A chart needs no more; the newest are given.
MOST_POINTS = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One value in the history of a metric."""

    at: datetime
    value: float
    sample: float | None


def record(ledger: Ledger, metrics: Metrics, *, retain_days: int = RETAIN_DAYS) -> None:
    """Keep a collection, and let go of those of the same database that are older than ``retain_days`` before it.

    A clock that is ahead of the ledger's makes nothing old. One transaction: all of it or nothing.
    """
    with ledger.session() as session:
        session.execute(
            delete(MetricCollection).where(
                MetricCollection.database == metrics.database,
                MetricCollection.at < func.least(metrics.at, func.now()) - timedelta(days=retain_days),
            )
        )
        collection = MetricCollection(
            database=metrics.database,
            at=metrics.at,
            counters=dict(metrics.counters),
            absent=dict(metrics.absent),
            unmeasured=dict(metrics.unmeasured),
            missing=list(metrics.missing),
        )
        session.add(collection)
        session.flush()
        rows = [
            {
                "collection_id": collection.id,
                "name": metric.name,
                "database": metrics.database,
                "at": metrics.at,
                "value": metric.value,
                "sample": metric.sample,
                "labels": dict(metric.labels),
                "detail": metric.detail,
                "complete": metric.complete,
            }
            for metric in metrics.values.values()
        ]
        if rows:
            session.execute(insert(MetricSample), rows)


def latest(ledger: Ledger, database: str) -> Metrics | None:
    """The collection of a database that was recorded last, as it was measured; None when there is none yet."""
    with ledger.session() as session:
        collection = session.scalars(
            select(MetricCollection)
            .where(MetricCollection.database == database)
            .order_by(MetricCollection.id.desc())
            .limit(1)
        ).first()
        return _metrics(session, collection) if collection is not None else None


def history(ledger: Ledger, database: str, name: str, *, since: datetime) -> tuple[Point, ...]:
    """The values of one metric from ``since`` (aware) on, oldest first; at most the newest ``MOST_POINTS``.

    Raises ``UnknownMetric``.
    """
    kind_of(name)
    statement = (
        select(MetricSample.at, MetricSample.value, MetricSample.sample)
        .where(MetricSample.database == database, MetricSample.name == name, MetricSample.at >= since)
        .order_by(MetricSample.at.desc())
        .limit(MOST_POINTS)
    )
    with ledger.session() as session:
        rows = session.execute(statement).all()
    return tuple(Point(at=at, value=value, sample=sample) for at, value, sample in reversed(rows))


def _metrics(session: Session, collection: MetricCollection) -> Metrics:
    samples = {
        sample.name: sample
        for sample in session.scalars(select(MetricSample).where(MetricSample.collection_id == collection.id))
    }
    return Metrics(
        database=collection.database,
        at=collection.at,
        # A name that this version does not know was written by another one: it is left alone.
        values={name: _metric(samples[name]) for name in KINDS if name in samples},
        absent=collection.absent,
        unmeasured=collection.unmeasured,
        counters=cast("dict[str, float]", collection.counters),
        missing=tuple(collection.missing),
    )


def _metric(sample: MetricSample) -> Metric:
    return Metric(
        name=sample.name,
        value=sample.value,
        unit=kind_of(sample.name).unit,
        sample=sample.sample,
        labels=sample.labels,
        detail=sample.detail,
        complete=sample.complete,
    )
