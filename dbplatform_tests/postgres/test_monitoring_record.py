"""The history of metrics: what was recorded is read back as it was, old samples go, and models and schema agree."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Column, inspect, select

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import SCHEMA
from dbplatform.ledger.monitoring import Alert, MetricCollection, MetricSample, Outbox
from dbplatform.monitoring.errors import UnknownMetric
from dbplatform.monitoring.metrics import Metric, Metrics
from dbplatform.monitoring.record import history, latest, record

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
COLLECTION = Metrics(
    database="flights",
    at=NOW,
    values={
        "cache_hit_ratio": Metric(
            name="cache_hit_ratio", value=0.97, unit="ratio", sample=12_000, detail="since 12:00"
        ),
        "dead_tuple_ratio": Metric(
            name="dead_tuple_ratio",
            value=0.5,
            unit="ratio",
            sample=20_000,
            labels={"table": "public.flights"},
            complete=False,
        ),
    },
    absent={"replication_lag_s": "no replica"},
    unmeasured={"deadlocks": "needs a second one"},
    counters={"deadlocks": 3.0},
    missing=("GRANT pg_monitor TO watcher;",),
)


def test_the_newest_collection_is_read_back_as_it_was(ledger: Ledger) -> None:
    assert latest(ledger, "flights") is None
    record(ledger, replace(COLLECTION, at=NOW - timedelta(minutes=1), values={}))
    record(ledger, COLLECTION)
    record(ledger, replace(COLLECTION, database="other", at=NOW + timedelta(minutes=1)))
    assert latest(ledger, "flights") == COLLECTION


def test_a_metric_that_was_not_measured_last_is_not_taken_from_before(ledger: Ledger) -> None:
    record(ledger, COLLECTION)
    record(ledger, replace(COLLECTION, at=NOW + timedelta(minutes=1), values={}))
    newest = latest(ledger, "flights")
    assert newest is not None
    assert newest.values == {}


def test_the_history_of_a_metric_is_given_from_old_to_new(ledger: Ledger) -> None:
    for minute in (2, 0, 1):
        metric = replace(COLLECTION.values["cache_hit_ratio"], value=minute / 10)
        record(ledger, replace(COLLECTION, at=NOW + timedelta(minutes=minute), values={"cache_hit_ratio": metric}))
    points = history(ledger, "flights", "cache_hit_ratio", since=NOW + timedelta(minutes=1))
    assert [(point.at, point.value, point.sample) for point in points] == [
        (NOW + timedelta(minutes=1), 0.1, 12_000),
        (NOW + timedelta(minutes=2), 0.2, 12_000),
    ]
    assert history(ledger, "other", "cache_hit_ratio", since=NOW) == ()


def test_the_history_of_no_metric_is_refused(ledger: Ledger) -> None:
    with pytest.raises(UnknownMetric):
        history(ledger, "flights", "uptime", since=NOW)


def test_what_is_older_than_thirty_days_goes_and_only_in_the_same_database(ledger: Ledger) -> None:
    for database, days in (("flights", 31), ("flights", 29), ("other", 31)):
        record(ledger, replace(COLLECTION, database=database, at=NOW - timedelta(days=days)))
    record(ledger, COLLECTION)
    with ledger.session() as session:
        kept = session.execute(select(MetricCollection.database, MetricCollection.at)).all()
        samples = session.scalars(select(MetricSample.at).distinct()).all()
    assert sorted((database, (NOW - at).days) for database, at in kept) == [
        ("flights", 0),
        ("flights", 29),
        ("other", 31),
    ]
    assert len(samples) == 3


def test_a_clock_that_is_ahead_makes_nothing_old(ledger: Ledger) -> None:
    record(ledger, replace(COLLECTION, at=datetime.now(UTC)))
    record(ledger, replace(COLLECTION, at=datetime.now(UTC) + timedelta(days=400)))
    with ledger.session() as session:
        assert len(session.scalars(select(MetricCollection.id)).all()) == 2


def test_the_schema_is_what_the_models_say(ledger: Ledger) -> None:
    inspector = inspect(ledger.engine)

    def described(column: Column[object]) -> tuple[str, str, bool]:
        return column.name, column.type.compile(ledger.engine.dialect), bool(column.nullable)

    for model in (MetricCollection, MetricSample, Alert, Outbox):
        name = model.__tablename__
        there = {
            (column["name"], column["type"].compile(ledger.engine.dialect), column["nullable"])
            for column in inspector.get_columns(name, schema=SCHEMA)
        }
        said = {described(column) for column in model.__table__.columns}
        assert _plain(there) == _plain(said), name


def _plain(columns: set[tuple[str, str, bool]]) -> set[tuple[str, str, bool]]:
    """TEXT and VARCHAR are the same for PostgreSQL."""
    return {(name, type_.replace("VARCHAR", "TEXT"), nullable) for name, type_, nullable in columns}
