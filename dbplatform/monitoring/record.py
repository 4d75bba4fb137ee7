"""The history of metrics in the ledger: written collection by collection, read back for differences and charts.

A collection is kept for two days as it was measured. Of longer ago there are steps of five minutes for two weeks, and
of an hour for thirteen months, each with average, least and greatest value: a day beside the same day a year ago.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import MetricCollection, MetricHistory
from dbplatform.monitoring.metrics import KINDS, Metric, Metrics, kind_of

RETAIN = timedelta(days=2)
#: Steps in seconds, and how long they are kept.
STEPS = {300: timedelta(days=14), 3600: timedelta(days=400)}
#: Among the counters of a collection that alerts are judged on.
JUDGED = "judged"
#: A chart needs no more; the newest are given.
MOST_POINTS = 50_000
#: Rows that one call lets go of, and steps that it makes: what is left is done at the next one.
_BATCH = 5_000
_STEPS_AT_ONCE = 288


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One value in the history of a metric: as measured, or the average of a step with its least and greatest."""

    at: datetime
    value: float
    sample: float | None = None
    least: float | None = None
    greatest: float | None = None

    def as_json(self) -> dict[str, Any]:
        """One entry of ``history``."""
        least = self.value if self.least is None else self.least
        greatest = self.value if self.greatest is None else self.greatest
        return {"at": self.at.isoformat(), "value": self.value, "least": least, "greatest": greatest}


def record(ledger: Ledger, metrics: Metrics) -> None:
    """Keep a collection. One transaction: all of it or nothing."""
    with ledger.session() as session:
        session.add(
            MetricCollection(
                database=metrics.database,
                at=metrics.at,
                counters=dict(metrics.counters),
                absent=dict(metrics.absent),
                unmeasured=dict(metrics.unmeasured),
                missing=list(metrics.missing),
                measured={name: _kept(metric) for name, metric in metrics.values.items()},
                worst={name: [dict(row) for row in rows] for name, rows in metrics.worst.items()},
            )
        )


def step_ended(previous: datetime | None, now: datetime) -> bool:
    """Whether a step has ended between two collections: then there is something to ``tidy``."""
    return previous is None or _begin(previous, min(STEPS)) != _begin(now, min(STEPS))


# A step is made when it has ended, from all that was measured in it; made again, it is the same.
_FIRST_OPEN = text("""
    select min(at) from ledger.metric_collection
    where database = :database and at >= coalesce(
        (select max(at) + make_interval(secs => :step) from ledger.metric_history
         where database = :database and step_s = :step), '-infinity')
""")
_MAKE_STEPS = text("""
    insert into ledger.metric_history (database, step_s, at, measured)
    select :database, :step, at, jsonb_object_agg(name, jsonb_build_array(average, least, greatest, number))
    from (select date_bin(make_interval(secs => :step), c.at, 'epoch') as at, m.key as name,
                 avg((m.value ->> 'value')::float) as average, min((m.value ->> 'value')::float) as least,
                 max((m.value ->> 'value')::float) as greatest, count(*) as number
          from ledger.metric_collection c, jsonb_each(c.measured) m
          where c.database = :database and c.at >= :since and c.at < :until
          group by 1, 2) s
    group by at
    on conflict (database, step_s, at) do update set measured = excluded.measured
""")


def tidy(ledger: Ledger, database: str, *, now: datetime) -> None:
    """Make the steps of a database that have ended by ``now``, and let go of what is older than it is kept.

    Bounded: a day of five-minute steps, twelve days of hours and 5,000 rows at a call. A clock that is ahead of the
    ledger's makes nothing old. One transaction; may be run twice, and killed anywhere.
    """
    with ledger.session() as session:
        now = min(now, session.scalars(select(func.now())).one())
        made = [_make_steps(session, database, step, now) for step in STEPS]
        _let_go(session, MetricCollection, min(now - RETAIN, *made), database)
        for step, kept in STEPS.items():
            _let_go(session, MetricHistory, now - kept, database, MetricHistory.step_s == step)


def _make_steps(session: Session, database: str, step: int, now: datetime) -> datetime:
    """Until when all steps are made now."""
    first = session.execute(_FIRST_OPEN, {"database": database, "step": step}).scalar_one()
    if first is None:
        return now
    since = _begin(first, step)
    until = min(_begin(now, step), since + timedelta(seconds=step * _STEPS_AT_ONCE))
    if since < until:
        session.execute(_MAKE_STEPS, {"database": database, "step": step, "since": since, "until": until})
    return until


def _begin(at: datetime, step: int) -> datetime:
    """When the step began that holds this moment."""
    return at - timedelta(seconds=at.timestamp() % step)


def _let_go(session: Session, model: Any, until: datetime, database: str, *conditions: Any) -> None:
    old = select(model.at).where(model.database == database, model.at < until, *conditions)
    last = session.scalars(old.order_by(model.at).limit(1).offset(_BATCH)).first() or until
    session.execute(delete(model).where(model.database == database, model.at < min(last, until), *conditions))


def latest(ledger: Ledger, database: str, *, judged: bool = False) -> Metrics | None:
    """The collection of a database that was recorded last, as it was measured; None when there is none yet.

    With ``judged`` the last one that alerts were judged on, if there is any: what was counted since is not judged yet.
    """
    newest = select(MetricCollection).where(MetricCollection.database == database)
    newest = newest.order_by(MetricCollection.id.desc()).limit(1)
    of_alerts = newest.where(MetricCollection.counters.has_key(JUDGED))
    with ledger.session() as session:
        collection = session.scalars(of_alerts).first() if judged else None
        collection = collection or session.scalars(newest).first()
    return _metrics(collection) if collection is not None else None


def measured_since(ledger: Ledger, database: str, names: Collection[str], *, since: datetime) -> frozenset[str]:
    """Which of these metrics were measured from ``since`` on, as far as whole hours tell."""
    of_hours = select(MetricHistory).where(
        MetricHistory.database == database, MetricHistory.step_s == max(STEPS), MetricHistory.at >= since
    )
    with ledger.session() as session:
        return frozenset(
            name
            for name in names
            if session.scalar(select(of_hours.where(MetricHistory.measured.has_key(name)).exists()))
        )


def history(ledger: Ledger, database: str, name: str, *, since: datetime) -> tuple[Point, ...]:
    """The values of one metric from ``since`` (aware) on, oldest first; at most the newest ``MOST_POINTS``.

    As measured for the last two days, and in steps before. Raises ``UnknownMetric``.
    """
    kind_of(name)
    points: list[Point] = []
    with ledger.session() as session:
        until = _raw(session, database, name, since, points)
        for step in STEPS:
            until = _steps(session, database, name, step, since, until, points)
    return tuple(sorted(points, key=lambda point: point.at)[-MOST_POINTS:])


def series(
    ledger: Ledger, database: str, names: Sequence[str], *, since: datetime, most: int
) -> Mapping[str, tuple[Point, ...]]:
    """The values of several metrics as measured from ``since`` (aware) on, oldest first, by one statement.

    Of more than ``most`` collections every second, third and so on is left out, never the newest. Raises
    ``UnknownMetric``.
    """
    values = [MetricCollection.measured[kind_of(name).name]["value"].as_float() for name in names]
    statement = (
        select(MetricCollection.at, *values)
        .where(MetricCollection.database == database, MetricCollection.at >= since)
        .order_by(MetricCollection.at.desc())
        .limit(MOST_POINTS)
    )
    with ledger.session() as session:
        rows = session.execute(statement).all()
    rows = rows[:: -(-len(rows) // most) or 1][::-1]
    return {
        name: tuple(Point(at=row[0], value=row[place]) for row in rows if row[place] is not None)
        for place, name in enumerate(names, 1)
    }


# One step into the index for each database, however many collections it has.
_NEWEST = text("""
    select c.database, c.at, c.measured
    from unnest(cast(:databases as text[])) as d(name)
    cross join lateral (select database, at, measured from ledger.metric_collection
                        where database = d.name order by id desc limit 1) c
""")


def newest_values(ledger: Ledger, databases: Sequence[str]) -> dict[str, tuple[datetime, dict[str, float]]]:
    """When each of these databases was measured last, and the values of then; one statement."""
    with ledger.session() as session:
        rows = session.execute(_NEWEST, {"databases": list(databases)}).all()
    return {
        database: (at, {name: float(measured[name]["value"]) for name in KINDS if name in measured})
        for database, at, measured in rows
    }


def _raw(session: Session, database: str, name: str, since: datetime, into: list[Point]) -> datetime | None:
    value = MetricCollection.measured[name]
    rows = session.execute(
        select(MetricCollection.at, value["value"].as_float(), value["sample"].as_float())
        .where(
            MetricCollection.database == database, MetricCollection.at >= since, MetricCollection.measured.has_key(name)
        )
        .order_by(MetricCollection.at.desc())
        .limit(MOST_POINTS)
    ).all()
    into += [Point(at=at, value=measured, sample=sample) for at, measured, sample in rows]
    return session.scalars(
        select(func.min(MetricCollection.at)).where(MetricCollection.database == database)
    ).one_or_none()


def _steps(
    session: Session, database: str, name: str, step: int, since: datetime, until: datetime | None, into: list[Point]
) -> datetime | None:
    """The steps that lie wholly before what is there in more detail; returns where these begin."""
    end = None if until is None else until - timedelta(seconds=step)
    of_database = (MetricHistory.database == database, MetricHistory.step_s == step)
    rows = session.execute(
        select(MetricHistory.at, MetricHistory.measured[name])
        .where(*of_database, MetricHistory.at >= since, MetricHistory.measured.has_key(name))
        .where(*([MetricHistory.at <= end] if end is not None else []))
        .order_by(MetricHistory.at.desc())
        .limit(MOST_POINTS)
    ).all()
    into += [Point(at=at, value=average, least=least, greatest=greatest) for at, (average, least, greatest, _) in rows]
    first = session.scalars(select(func.min(MetricHistory.at)).where(*of_database)).one_or_none()
    return min((at for at in (first, until) if at is not None), default=None)


def _kept(metric: Metric) -> dict[str, Any]:
    return {
        "value": metric.value,
        "sample": metric.sample,
        "labels": dict(metric.labels),
        "detail": metric.detail,
        "complete": metric.complete,
    }


def _metrics(collection: MetricCollection) -> Metrics:
    return Metrics(
        database=collection.database,
        at=collection.at,
        # A name that this version does not know was written by another one: it is left alone.
        values={
            name: Metric(name=name, unit=kind_of(name).unit, **collection.measured[name])
            for name in KINDS
            if name in collection.measured
        },
        absent=collection.absent,
        unmeasured=collection.unmeasured,
        counters=cast("dict[str, float]", collection.counters),
        missing=tuple(collection.missing),
        worst=collection.worst,
    )
