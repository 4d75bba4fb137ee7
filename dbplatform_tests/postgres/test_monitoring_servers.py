"""Metrics of a whole server, caused on each PostgreSQL of this machine: archiver, replica, transaction ids."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from dbplatform.monitoring.metrics import Metrics
from dbplatform.monitoring.thresholds import default_thresholds, judge
from dbplatform.postgres.connection import Target
from dbplatform.postgres.embedded.account import account_for
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform_tests.postgres.embedded_support import programs_of, replica, wait_until
from dbplatform_tests.postgres.test_monitoring_collect import NOTHING_HAPPENED, NOW, look, run

pytest_plugins = ("dbplatform_tests.postgres.monitoring_servers",)


def severity(found: Metrics, name: str) -> str | None:
    (judgement,) = [one for one in judge(found, default_thresholds()).judged if one.metric == name]
    return judgement.severity


def later(target: Target, previous: Metrics, **passed: float) -> Metrics:
    return look(target, previous, now=NOW + timedelta(**passed))


def test_this_version_answers_every_question(target: Target) -> None:
    first = look(target)
    second = later(target, first, minutes=1)
    assert second.unmeasured.keys() <= NOTHING_HAPPENED
    assert second.absent.keys() <= {
        "sequence_used_ratio",
        "replication_lag_s",
        "replication_lag_bytes",
        "archiver_failure_age_s",
        "recovery_conflicts",
        "slots_inactive",
        "slots_lost",
        "slot_retained_bytes",
        "table_bloat_ratio",
        "index_bloat_ratio",
    }


def test_an_archiver_that_fails_is_found_and_one_that_works_again_is_still_told_of(target: Target) -> None:
    before = look(target)
    run(target, "create table for_archive as select 1 as a", "select pg_switch_wal()")
    wait_until(lambda: (later(target, before, minutes=1).values["archiver_failures"].value) >= 1)
    failing = later(target, before, minutes=1)
    assert 0 <= failing.values["archiver_failure_age_s"].value < 3600
    assert severity(failing, "archiver_failure_age_s") == "critical"

    run(target, "alter system set archive_command = 'true'", "select pg_reload_conf()")
    wait_until(lambda: archived(target) > 0)
    mended = later(target, failing, minutes=2)
    again = later(target, mended, minutes=3)
    assert again.values["archiver_failures"].value == 0
    assert severity(again, "archiver_failure_age_s") == "critical"


def archived(target: Target) -> int:
    with psycopg.connect(target.url) as session:
        row = session.execute("select archived_count from pg_stat_archiver").fetchone()
        assert row is not None
        return int(row[0])


def test_a_replica_that_is_paused_lags_and_one_that_is_away_holds_wal(server: EmbeddedServer, target: Target) -> None:
    try:
        with replica(server) as standby:
            wait_until(lambda: look(target).values["replication_lag_bytes"].detail == "replica replica")
            lag_s(target)
            # A standby knows how late it is from the first commit on that it has replayed.
            wait_until(lambda: has(standby, "tick"))
            run(standby, "select pg_wal_replay_pause()")
            run(target, "create table wide as select repeat('x', 1000) as x from generate_series(1, 5000)")
            wait_until(lambda: look(target).values["replication_lag_bytes"].value > 4_000_000)
            wait_until(lambda: lag_s(target) > 0.5)

            behind = look(standby)
            assert behind.values["replication_lag_bytes"].value > 4_000_000
            assert behind.values["replication_lag_s"].value > 0
            assert "standby" in behind.absent["dead_tuple_ratio"]
            again = look(standby, behind, now=NOW + timedelta(minutes=1))
            assert again.unmeasured.keys() <= NOTHING_HAPPENED
            assert again.values["recovery_conflicts"].value == 0

            run(standby, "select pg_wal_replay_resume()")
            wait_until(lambda: look(target).values["replication_lag_bytes"].value == 0)
            assert severity(look(target), "replication_lag_bytes") is None
            wait_until(lambda: look(standby).values["replication_lag_s"].value == 0)
            # A replica that streams is judged beside a slot that nobody reads, but not called well for it.
            run(target, "select pg_create_physical_replication_slot('abandoned', true)")
            wait_until(lambda: "abandoned is not connected" in look(target).values["replication_lag_s"].detail)
            assert not look(target).values["replication_lag_s"].complete
            run(target, "select pg_drop_replication_slot('abandoned')")

            run(standby, "alter system set primary_slot_name = ''", "select pg_reload_conf()")
            wait_until(lambda: look(target).counters["slotless_replicas"] == 1)
            with_one = look(target)
            run(standby, "alter system set primary_conninfo = ''", "select pg_reload_conf()")
            wait_until(lambda: "replication_lag_bytes" in look(standby).unmeasured)
            alone = look(standby)
            assert (alone.values["replication_lag_s"].value > 0, alone.values["replication_lag_s"].complete) == (
                True,
                False,
            )
            assert "receives no WAL" in alone.values["replication_lag_s"].detail
            wait_until(lambda: look(target).counters["slotless_replicas"] == 0)
            missed = later(target, with_one, minutes=1)
            assert "1 of 1 replicas" in missed.values["replication_lag_bytes"].detail
            assert later(target, missed, minutes=2).counters["slotless_replicas"] == 1, "it is not forgotten"
        wait_until(lambda: look(target).values["replication_lag_bytes"].detail == "slot replica")
        run(target, "create table more as select repeat('x', 1000) as x from generate_series(1, 2000)")
        away = look(target)
        assert away.values["replication_lag_bytes"].value > 1_000_000
        assert away.unmeasured["replication_lag_s"] == "the replica of the slot replica is not connected"
    finally:
        wait_until(lambda: not_active(target))
        run(target, "select pg_drop_replication_slot('replica')")


def test_a_read_that_replay_does_not_wait_for_is_counted_as_a_conflict(server: EmbeddedServer, target: Target) -> None:
    run(target, "create table read_there as select generate_series(1, 1000) as a")
    try:
        with replica(server) as standby:
            run(standby, "alter system set max_standby_streaming_delay = 0", "select pg_reload_conf()")
            wait_until(lambda: has(standby, "read_there"))
            before = look(standby)
            with psycopg.connect(standby.url) as reader:
                reader.execute("begin isolation level repeatable read")
                reader.execute("select count(*) from read_there")
                run(target, "delete from read_there", "vacuum read_there")
                with pytest.raises(psycopg.OperationalError, match="conflict with recovery"):
                    reader.execute("select pg_sleep(60)")
            wait_until(lambda: later(standby, before, minutes=1).values["recovery_conflicts"].value >= 1)
    finally:
        wait_until(lambda: not_active(target))
        run(target, "select pg_drop_replication_slot('replica')", "drop table read_there")


def lag_s(target: Target) -> float:
    """How late the replica is; WAL goes on, because PostgreSQL measures at what is written."""
    run(target, "create table if not exists tick (a int)", "insert into tick values (1)")
    metric = look(target).values.get("replication_lag_s")
    return metric.value if metric is not None else 0.0


def has(target: Target, table: str) -> bool:
    with psycopg.connect(target.url) as session:
        return session.execute("select to_regclass(%s)", (table,)).fetchone() != (None,)


def not_active(target: Target) -> bool:
    with psycopg.connect(target.url) as session:
        return session.execute("select from pg_replication_slots where active").fetchone() is None


def test_transaction_ids_beyond_half_of_their_limit_are_a_warning(server: EmbeddedServer) -> None:
    programs, data = programs_of(server), server.status().data_directory
    account = account_for(data)
    server.stop()
    next_id = 1_200_000_000
    advanced = account.run([programs.path("pg_resetwal"), f"--next-transaction-id={next_id}", data], programs=programs)
    assert advanced.returncode == 0, advanced.stderr
    segment = data / "pg_xact" / f"{next_id // 1_048_576:04X}"
    segment.write_bytes(bytes(262_144))
    account.own(segment)
    server.start()

    found = look(Target("flights", server.url("postgres")))

    assert found.values["xid_age_ratio"].value == pytest.approx(next_id / 2**31, rel=0.001)
    assert severity(found, "xid_age_ratio") == "warning"
