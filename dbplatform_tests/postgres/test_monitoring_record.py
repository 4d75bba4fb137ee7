"""The history of metrics: what was recorded is read back as it was, old samples go, and models and schema agree."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Column, inspect, select

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import SCHEMA
from dbplatform.ledger.monitoring import (
    Alert,
    MetricCollection,
    MetricHistory,
    Outbox,
    SettingChange,
    StatementCounts,
    StatementText,
    StatementWindow,
)
from dbplatform.migrations.engine import MigrationPolicy, apply_migrations
from dbplatform.monitoring.errors import UnknownMetric
from dbplatform.monitoring.metrics import Metric, Metrics
from dbplatform.monitoring.record import RETAIN, STEPS, history, latest, record, tidy
from dbplatform.operations.platform import LEDGER_HISTORY, apply_ledger_schema
from dbplatform.postgres.connection import Target, connect

SCHEMA_FILES = Path(__file__).parents[2] / "dbplatform" / "ledger" / "schema"
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
    worst={"dead_rows": [{"name": "public.flights", "dead": 20_000, "live": 20_000}]},
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


def recorded(ledger: Ledger, at: datetime, value: float, database: str = "flights") -> None:
    metric = Metric(name="connections_active", value=value, unit="count")
    record(ledger, Metrics(database=database, at=at, values={"connections_active": metric}))


def test_what_is_older_than_two_days_is_kept_in_steps_and_its_peaks_stay(ledger: Ledger) -> None:
    old = NOW - RETAIN - timedelta(hours=2)
    for minute, value in ((0, 1.0), (1, 2.0), (4, 9.0), (5, 3.0), (61, 4.0)):
        recorded(ledger, old + timedelta(minutes=minute), value)
    recorded(ledger, NOW, 5.0)
    tidy(ledger, "flights", now=NOW)
    points = history(ledger, "flights", "connections_active", since=old)
    assert [(point.at, point.value, point.least, point.greatest) for point in points] == [
        (old, 4.0, 1.0, 9.0),
        (old + timedelta(minutes=5), 3.0, 3.0, 3.0),
        (old + timedelta(minutes=60), 4.0, 4.0, 4.0),
        (NOW, 5.0, None, None),
    ]
    with ledger.session() as session:
        assert session.scalars(select(MetricCollection.at)).all() == [NOW]


def test_what_is_older_than_two_weeks_is_kept_by_the_hour_and_goes_after_thirteen_months(ledger: Ledger) -> None:
    days = {"gone": STEPS[3600] + timedelta(days=1), "by hour": STEPS[300] + timedelta(days=1)}
    for age in days.values():
        for minute in (0, 30):
            recorded(ledger, NOW - age + timedelta(minutes=minute), float(minute))
    for _ in range(6):  # a day of five-minute steps at a call
        tidy(ledger, "flights", now=NOW)
    (point,) = history(ledger, "flights", "connections_active", since=NOW - timedelta(days=1000))
    assert (point.at, point.value, point.greatest) == (NOW - days["by hour"], 15.0, 30.0)


def test_tidying_again_changes_nothing_and_touches_no_other_database(ledger: Ledger) -> None:
    for name in ("flights", "other"):
        recorded(ledger, NOW - timedelta(days=3), 1.0, name)

    def kept() -> list[tuple[str, int, datetime]]:
        with ledger.session() as session:
            rows = session.execute(select(MetricHistory.database, MetricHistory.step_s, MetricHistory.at)).all()
            return sorted((name, step, at) for name, step, at in rows)

    tidy(ledger, "flights", now=NOW)
    first = kept()
    tidy(ledger, "flights", now=NOW)
    assert kept() == first
    assert {name for name, _, _ in first} == {"flights"}
    with ledger.session() as session:
        assert session.scalars(select(MetricCollection.database)).all() == ["other"]


def test_a_step_that_has_not_ended_is_not_made(ledger: Ledger) -> None:
    recorded(ledger, NOW, 1.0)
    tidy(ledger, "flights", now=NOW + timedelta(minutes=4))
    with ledger.session() as session:
        assert session.scalars(select(MetricHistory.at)).all() == []
    tidy(ledger, "flights", now=NOW + timedelta(minutes=5))
    with ledger.session() as session:
        assert session.execute(select(MetricHistory.step_s, MetricHistory.at)).all() == [(300, NOW)]


def test_a_clock_that_is_ahead_makes_nothing_old(ledger: Ledger) -> None:
    record(ledger, replace(COLLECTION, at=datetime.now(UTC)))
    record(ledger, replace(COLLECTION, at=datetime.now(UTC) + timedelta(days=400)))
    tidy(ledger, "flights", now=datetime.now(UTC) + timedelta(days=400))
    with ledger.session() as session:
        assert len(session.scalars(select(MetricCollection.id)).all()) == 2


def test_a_ledger_of_before_keeps_its_samples(database: Target, tmp_path: Path) -> None:
    schema = tmp_path / "schema"
    shutil.copytree(SCHEMA_FILES, schema)
    later = [file for file in schema.iterdir() if int(file.name[1:].split("__")[0]) >= 20]
    for file in later:
        file.unlink()
    policy = MigrationPolicy(history_table=LEDGER_HISTORY)
    with connect(database, work="ledger") as connection:
        apply_migrations(connection, schema, policy, database="the ledger")
        connection.execute(
            "insert into ledger.metric_collection (database, at, counters, absent, unmeasured, missing) "
            "values ('flights', %s, '{}', '{}', '{}', '[]')",
            (NOW,),
        )
        connection.execute(
            "insert into ledger.metric_sample select id, database, 'deadlocks', at, 2, 60, '{}', 'two', true "
            "from ledger.metric_collection"
        )
    apply_ledger_schema(database)
    ledger = Ledger(database)
    newest = latest(ledger, "flights")
    ledger.engine.dispose()
    assert newest is not None
    assert newest.values == {"deadlocks": Metric(name="deadlocks", value=2, unit="count", sample=60, detail="two")}


def test_the_schema_is_what_the_models_say(ledger: Ledger) -> None:
    inspector = inspect(ledger.engine)

    def described(column: Column[object]) -> tuple[str, str, bool]:
        return column.name, column.type.compile(ledger.engine.dialect), bool(column.nullable)

    for model in (
        MetricCollection,
        MetricHistory,
        StatementCounts,
        StatementText,
        StatementWindow,
        SettingChange,
        Alert,
        Outbox,
    ):
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
