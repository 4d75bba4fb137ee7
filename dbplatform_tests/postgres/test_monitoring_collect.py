"""Every metric is caused on a real server and then found; what cannot be measured is never called well.

One module, because each metric is one short claim.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbplatform.monitoring import collect as collecting
from dbplatform.monitoring.collect import collect
from dbplatform.monitoring.metrics import KINDS, Metrics
from dbplatform.monitoring.probes.collecting import Probe
from dbplatform.monitoring.thresholds import default_thresholds, judge
from dbplatform.postgres.connection import AutocommitConnection, Target

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
# One version pushes what a session counted by this function, older ones within half a second.
_FLUSH = "select pg_stat_force_next_flush()"
#: Shares that say nothing where nothing happened between two collections, and statements without the extension.
NOTHING_HAPPENED = {"cache_hit_ratio", "rollback_ratio", "index_hit_ratio", "index_use_ratio", "statements"}


def look(target: Target, previous: Metrics | None = None, *, now: datetime = NOW) -> Metrics:
    """One collection by a session of its own."""
    with collecting.session(target) as connection:
        return collect(connection, database="flights", now=now, previous=previous)


def until(happened: Callable[[], bool]) -> None:
    """Poll for an event; the bound is only there so that a broken test ends."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "the event did not come"
        time.sleep(0.01)


def run(target: Target, *statements: str) -> None:
    """Each statement by itself; what the session counted is seen by others afterwards."""
    with psycopg.connect(target.url, autocommit=True) as session:
        for statement in (*statements, _FLUSH):
            session.execute(statement.encode())


@contextmanager
def watcher(target: Target, *roles: str) -> Iterator[Target]:
    """The same database as seen by a user that has these roles and no other right."""
    name = f"watcher {uuid.uuid4().hex[:8]}"
    with psycopg.connect(target.url, autocommit=True) as owner:
        owner.execute(sql.SQL("create role {} login password 'secret'").format(sql.Identifier(name)))
        for role in roles:
            owner.execute(sql.SQL("grant {} to {}").format(sql.Identifier(role), sql.Identifier(name)))
        try:
            yield Target("flights", make_conninfo(target.url, user=name, password="secret"))
        finally:
            owner.execute(sql.SQL("drop owned by {}; drop role {}").format(*[sql.Identifier(name)] * 2))


def severity(found: Metrics, name: str) -> str | None:
    """What the default thresholds say of a metric, which they must be able to judge."""
    (judgement,) = [one for one in judge(found, default_thresholds()).judged if one.metric == name]
    return judgement.severity


def test_every_metric_is_measured_absent_or_not_measured_and_never_in_two_places(database: Target) -> None:
    first = look(database)
    second = look(database, first, now=NOW + timedelta(minutes=1))
    for found in (first, second):
        places = [*found.values, *found.absent, *found.unmeasured]
        assert sorted(set(places) - {"statements"}) == sorted(k.name for k in KINDS.values() if k.source == "server")
        assert len(places) == len(set(places))
    assert second.unmeasured.keys() <= NOTHING_HAPPENED
    assert second.missing == ()


def test_a_collection_takes_eight_statements_with_the_one_that_opens_its_session(
    database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(database, "create extension pg_stat_statements")
    asked: list[object] = []
    execute = psycopg.Cursor.execute

    def counted(cursor: psycopg.Cursor, statement: object, *parameters: object, **options: object) -> object:
        asked.append(statement)
        return execute(cursor, statement, *parameters, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(psycopg.Cursor, "execute", counted)
    found = look(database)
    assert found.statements is not None
    assert len(asked) == 8


def test_the_session_bounds_its_statements_and_its_waits(database: Target) -> None:
    with collecting.session(database) as connection:
        row = connection.execute("select current_setting('lock_timeout'), current_setting('statement_timeout')")
        assert row.fetchone() == ("500ms", "5s")


def test_the_sessions_that_measure_do_not_count_themselves(database: Target) -> None:
    with collecting.session(database) as other, other.transaction():
        other.execute("select 1")
        found = look(database).values
        names = ("connections_active", "connections_idle", "connections_idle_in_transaction", "locks")
        assert {name: found[name].value for name in names} == dict.fromkeys(names, 0)
        assert found["longest_transaction_s"].value == 0


def test_blocks_read_from_outside_lower_the_hit_ratio_by_the_difference(database: Target) -> None:
    run(database, "create table t as select repeat('x', 500) from generate_series(1, 20000)")
    first = look(database)
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute("select set_config('enable_seqscan', 'on', false)")
        for _ in range(3):
            session.execute("select count(*) from t")
        session.execute(_FLUSH)
    second = look(database, first, now=NOW + timedelta(minutes=1))
    hits = second.counters["blks_hit"] - first.counters["blks_hit"]
    reads = second.counters["blks_read"] - first.counters["blks_read"]
    assert second.values["cache_hit_ratio"].value == pytest.approx(hits / (hits + reads))
    assert second.values["cache_hit_ratio"].sample == hits + reads > 3_000
    assert "in the last 1 min" in second.values["cache_hit_ratio"].detail


def test_statistics_that_were_reset_make_no_difference(database: Target) -> None:
    first = look(database)
    first = replace(first, counters={**first.counters, "deadlocks": 5.0})
    assert "deadlocks" in look(database, first, now=NOW + timedelta(minutes=1)).unmeasured
    first = look(database)
    run(database, "select pg_stat_reset()")
    second = look(database, first, now=NOW + timedelta(minutes=1))
    assert {"deadlocks", "temp_bytes"} <= second.unmeasured.keys()
    assert "since the statistics began" in str(second.values.get("cache_hit_ratio") or second.unmeasured)


def test_a_clock_that_went_back_makes_no_difference(database: Target) -> None:
    first = look(database)
    assert "deadlocks" in look(database, first, now=NOW - timedelta(minutes=1)).unmeasured


def test_a_sort_that_spills_is_counted_in_temporary_bytes(database: Target) -> None:
    first = look(database)
    run(
        database,
        "set work_mem = '64kB'",
        "select count(*) from (select g from generate_series(1, 200000) g order by -g offset 0) s",
    )
    second = look(database, first, now=NOW + timedelta(minutes=1))
    assert second.values["temp_bytes"].value > 1_000_000
    assert second.values["temp_bytes"].sample == 60
    third = look(database, second, now=NOW + timedelta(minutes=2))
    assert third.values["temp_bytes"].value == 0


def test_a_deadlock_is_counted(database: Target) -> None:
    run(database, "create table t (id int primary key, n int)", "insert into t values (1, 0), (2, 0)")
    first = look(database)
    with psycopg.connect(database.url) as one, psycopg.connect(database.url) as other:
        for session, row in ((one, 1), (other, 2)):
            session.execute("set deadlock_timeout = '10ms'")
            session.execute("update t set n = 1 where id = %s", (row,))

        def cross() -> None:
            with contextlib.suppress(psycopg.errors.DeadlockDetected):
                one.execute("update t set n = 1 where id = 2")
            one.rollback()

        thread = threading.Thread(target=cross)
        thread.start()
        with contextlib.suppress(psycopg.errors.DeadlockDetected):
            other.execute("update t set n = 1 where id = 1")
        other.rollback()
        thread.join()
        for session in (one, other):
            session.execute(_FLUSH)
            session.commit()
    second = look(database, first, now=NOW + timedelta(minutes=1))
    assert second.values["deadlocks"].value == 1


def test_open_sessions_are_counted_against_what_may_be_opened(database: Target) -> None:
    before = look(database).values["connections_used_ratio"]
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(psycopg.connect(database.url))
        after = look(database).values["connections_used_ratio"]
    assert before.sample is not None
    assert after.sample is not None
    assert after.sample >= before.sample + 5 - 1
    with psycopg.connect(database.url) as session:
        row = session.execute(
            "select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
            " - coalesce(current_setting('reserved_connections', true)::int, 0)"
        ).fetchone()
    assert row is not None
    assert after.value == pytest.approx(after.sample / row[0])


def test_an_open_transaction_and_its_idling_are_as_old_as_they_are(database: Target) -> None:
    with psycopg.connect(database.url, application_name="forgetful") as session:
        session.execute("select 1")
        first = look(database)
        row = session.execute(
            "select extract(epoch from clock_timestamp() - xact_start) from pg_stat_activity "
            "where pid = pg_backend_pid()"
        ).fetchone()
        assert row is not None
        assert 0 < first.values["longest_transaction_s"].value <= row[0]
        assert "forgetful" in first.values["longest_transaction_s"].detail
        assert 0 < first.values["idle_in_transaction_s"].value <= row[0]
        assert "forgetful" in first.values["idle_in_transaction_s"].detail
    after = look(database)
    assert (after.values["longest_transaction_s"].value, after.values["idle_in_transaction_s"].value) == (0, 0)


def test_a_transaction_that_works_is_long_and_not_idle(database: Target) -> None:
    with psycopg.connect(database.url, autocommit=True) as session:
        worker = threading.Thread(target=_canceled_sleep, args=(session,))
        worker.start()
        until(lambda: look(database).values["longest_transaction_s"].value > 0)
        assert look(database).values["idle_in_transaction_s"].value == 0
        session.cancel()
        worker.join()


def _canceled_sleep(session: psycopg.Connection) -> None:
    with contextlib.suppress(psycopg.errors.QueryCanceled):
        session.execute("select pg_sleep(60)")


def test_a_session_that_waits_for_another_is_blocked(database: Target) -> None:
    run(database, "create table t (a int)")
    assert look(database).values["blocked_sessions"].value == 0
    with psycopg.connect(database.url) as holder:
        holder.execute("lock table t in access exclusive mode")
        with psycopg.connect(database.url, autocommit=True) as waiter:
            thread = threading.Thread(target=waiter.execute, args=("select * from t",))
            thread.start()
            until(lambda: look(database).values["blocked_sessions"].value == 1)
            detail = look(database).values["blocked_sessions"].detail
            assert detail == f"most wait for backend {holder.info.backend_pid}"
            holder.rollback()
            thread.join()


def test_the_table_with_the_worst_share_of_dead_rows_is_named(database: Target) -> None:
    assert look(database).values["dead_tuple_ratio"].value == 0
    run(
        database,
        "create table small (a int) with (autovacuum_enabled = off)",
        'create table "Big" (a int) with (autovacuum_enabled = off)',
        "insert into small select generate_series(1, 9000)",
        "delete from small",
        'insert into "Big" select generate_series(1, 40000)',
        'delete from "Big" where a <= 20000',
    )
    found = look(database)
    metric = found.values["dead_tuple_ratio"]
    assert metric.labels == {"table": 'public."Big"'}
    assert metric.value == pytest.approx(0.5)
    assert metric.sample == 20_000
    assert severity(found, "dead_tuple_ratio") == "warning"
    run(database, 'vacuum "Big"')
    assert look(database).values["dead_tuple_ratio"].value == 0


def test_the_size_of_the_database_grows_with_its_rows(database: Target) -> None:
    before = look(database).values["database_bytes"].value
    run(database, "create table t as select repeat('x', 1000) from generate_series(1, 5000)")
    assert look(database).values["database_bytes"].value > before + 4_000_000


def test_an_invalid_index_is_found_and_one_being_built_is_not(database: Target) -> None:
    run(database, "create table t (a int)", "insert into t values (1), (1)")
    assert look(database).values["invalid_indexes"].value == 0
    with psycopg.connect(database.url) as writer, psycopg.connect(database.url, autocommit=True) as builder:
        writer.execute("insert into t values (2)")
        thread = threading.Thread(target=builder.execute, args=("create index concurrently being_built on t (a)",))
        thread.start()
        with psycopg.connect(database.url, autocommit=True) as observer:
            invalid = "select from pg_index where not indisvalid"
            until(lambda: observer.execute(invalid).fetchone() is not None)
        assert look(database).values["invalid_indexes"].value == 0
        writer.commit()
        thread.join()
    with contextlib.suppress(psycopg.errors.UniqueViolation):
        run(database, "create unique index concurrently t_a on t (a)")
    found = look(database).values["invalid_indexes"]
    assert (found.value, found.labels) == (1, {"index": "public.t_a"})


@pytest.mark.parametrize(
    ("statements", "ratio"),
    [
        (["create sequence s maxvalue 101", "select setval('s', 81)"], 0.8),
        (["create table t (id smallint generated always as identity)", "select setval('t_id_seq', 32767)"], 1.0),
        # A big sequence behind a small column ends with the column.
        (
            ["create sequence s", "create table t (id int default nextval('s'))", "alter sequence s owned by t.id",
             "select setval('s', 1932735283)"],
            0.9,
        ),
        (["create sequence s increment -1 minvalue -100 maxvalue 0 start 0", "select setval('s', -80)"], 0.8),
        (["create sequence s minvalue 100 maxvalue 200", "select setval('s', 150)"], 0.5),
    ],
)  # fmt: skip
def test_a_sequence_near_its_end_is_found(database: Target, statements: list[str], ratio: float) -> None:
    run(database, "create sequence other as int", "select nextval('other')", *statements)
    metric = look(database).values["sequence_used_ratio"]
    assert metric.value == pytest.approx(ratio, abs=1e-6)
    assert metric.labels.keys() == {"sequence"}


def test_a_sequence_that_begins_again_has_no_end(database: Target) -> None:
    run(database, "create sequence s maxvalue 10 cycle", "select setval('s', 10)")
    run(database, "create sequence endless", "select nextval('endless')")
    assert look(database).absent["sequence_used_ratio"] == "no sequence comes to an end"
    run(database, "create sequence unused as int")
    assert look(database).absent["sequence_used_ratio"] == "no sequence has been used yet"


def test_the_age_of_transaction_ids_is_that_of_the_oldest_database(database: Target) -> None:
    with psycopg.connect(database.url, autocommit=True) as session:
        for _ in range(50):
            session.execute("select pg_current_xact_id()")
        found = look(database).values["xid_age_ratio"]
        row = session.execute("select max(age(datfrozenxid)) from pg_database").fetchone()
    assert row is not None
    assert 50 <= found.value * 2**31 <= row[0]
    assert found.labels.keys() == {"database"}


def test_a_slot_whose_replica_is_away_holds_wal_back(database: Target) -> None:
    name = f"away_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute("select pg_create_physical_replication_slot(%s, true)", (name,))
        try:
            session.execute("create table t as select repeat('x', 1000) from generate_series(1, 2000)")
            found = look(database)
        finally:
            session.execute("select pg_drop_replication_slot(%s)", (name,))
    assert found.values["replication_lag_bytes"].value > 1_000_000
    assert found.values["replication_lag_bytes"].detail == f"slot {name}"
    assert "not connected" in found.unmeasured["replication_lag_s"]


def test_a_replica_without_a_slot_that_is_gone_is_missed_for_a_day_and_never_called_well(database: Target) -> None:
    first = look(database)
    assert "replication_lag_s" in first.absent
    remembered = {"slotless_replicas": 2.0, "slotless_replicas_at": NOW.timestamp()}
    before = replace(first, counters={**first.counters, **remembered})
    second = look(database, before, now=NOW + timedelta(minutes=1))
    third = look(database, second, now=NOW + timedelta(minutes=2))
    for found in (second, third):
        for name in ("replication_lag_s", "replication_lag_bytes"):
            assert "2 of 2 replicas" in found.unmeasured[name]
            assert name in judge(found, default_thresholds()).not_judged
    assert "replication_lag_s" in look(database, third, now=NOW + timedelta(days=1, minutes=3)).absent


def test_pg_monitor_alone_is_enough_but_for_sequences_which_are_named_with_the_grant(database: Target) -> None:
    run(database, 'create schema "S x"', 'create sequence "S x".s maxvalue 10', """select setval('"S x".s', 9)""")
    with (
        psycopg.connect(database.url, application_name="forgetful") as session,
        watcher(database, "pg_monitor") as role,
    ):
        session.execute("select 1")
        first = look(role)
        second = look(role, first, now=NOW + timedelta(minutes=1))
        assert second.unmeasured.keys() <= {"sequence_used_ratio", *NOTHING_HAPPENED}
        assert second.values["longest_transaction_s"].value > 0
        (missing,) = second.missing
        session.rollback()
        session.execute(missing.split(": ", 1)[1].encode())
        session.execute(sql.SQL("grant usage on schema {} to public").format(sql.Identifier("S x")))
        session.commit()
        granted = look(role, second, now=NOW + timedelta(minutes=2))
    assert granted.missing == ()
    assert granted.values["sequence_used_ratio"].value == pytest.approx(8 / 9)


def test_without_rights_nothing_is_called_well_and_the_grant_is_told(database: Target) -> None:
    run(database, "create table t (a int)")
    with watcher(database) as role:
        found = look(role)
        hidden = {
            "connections_used_ratio",
            "longest_transaction_s",
            "idle_in_transaction_s",
            "blocked_sessions",
            "invalid_indexes",
            "replication_lag_s",
            "replication_lag_bytes",
        }
        assert hidden <= found.unmeasured.keys()
        (missing,) = found.missing
        run(database, missing.split(": ", 1)[1])
        granted = look(role)
    assert granted.missing == ()
    assert not hidden & granted.unmeasured.keys()


def test_sequences_that_may_be_read_in_part_are_never_called_well(database: Target) -> None:
    run(database, "create sequence hidden as int", "create sequence s maxvalue 101", "select setval('s', 11)")
    run(database, "select nextval('hidden')", "grant select on sequence s to pg_monitor")
    with watcher(database, "pg_monitor") as role:
        good = look(role)
        run(database, "select setval('s', 91)")
        bad = look(role)
    assert not good.values["sequence_used_ratio"].complete
    assert "1 of 2" in judge(good, default_thresholds()).not_judged["sequence_used_ratio"]
    assert severity(bad, "sequence_used_ratio") == "critical"


def test_a_server_that_counts_nothing_is_not_called_well(database: Target) -> None:
    with psycopg.connect(database.url) as session:
        session.execute(sql.SQL("alter database {} set track_counts = off").format(sql.Identifier(session.info.dbname)))
    found = look(database)
    for name in ("cache_hit_ratio", "deadlocks", "temp_bytes", "dead_tuple_ratio"):
        assert "track_counts" in found.unmeasured[name]


def test_a_probe_that_takes_too_long_leaves_its_metrics_unmeasured_and_the_others_go_on(
    database: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(connection: AutocommitConnection, into: object) -> None:
        connection.execute("select pg_sleep(60)")

    monkeypatch.setattr(collecting, "PROBES", (Probe(("database_bytes",), slow), *collecting.PROBES[:1]))
    with collecting.session(database, statement_timeout_ms=200) as connection:
        found = collect(connection, database="flights", now=NOW)
    assert "statement timeout" in found.unmeasured["database_bytes"]
    assert "connections_active" in found.values


def test_a_server_that_is_too_slow_is_not_asked_for_long(database: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "DEADLINE_S", -1.0)
    found = look(database)
    assert "too slow" in found.unmeasured["database_bytes"]
    assert "xid_age_ratio" in found.values
    assert not found.values.keys() & found.unmeasured.keys()


def test_a_sequence_that_is_locked_is_not_waited_for(database: Target) -> None:
    run(database, "create sequence s as int", "select nextval('s')")
    with psycopg.connect(database.url) as holder:
        holder.execute("alter sequence s increment 2")
        found = look(database)
        holder.rollback()
    assert "lock timeout" in found.unmeasured["sequence_used_ratio"]
    assert "database_bytes" in found.values
