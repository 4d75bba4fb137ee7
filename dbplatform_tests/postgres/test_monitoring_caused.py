"""Each metric is caused, on each PostgreSQL of this machine, and then found; one server and one database for all."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from dbplatform.monitoring.collect import collect, session
from dbplatform.monitoring.metrics import Metrics
from dbplatform.monitoring.probes.collecting import FIRST_COLLECTION
from dbplatform.postgres import exact
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform_tests.postgres.embedded_support import wait_until
from dbplatform_tests.postgres.test_monitoring_collect import NOW, run, watcher

pytest_plugins = ("dbplatform_tests.postgres.monitoring_servers",)

_SMALL = (1 << 20, 256 << 10)


def look(target: Target, previous: Metrics | None = None) -> Metrics:
    """One collection, a minute after the previous one, that estimates small tables, too."""
    now = previous.at + timedelta(minutes=1) if previous else NOW
    with session(target) as connection:
        return collect(connection, database="flights", now=now, previous=previous, bloat_bytes=_SMALL)


def value(found: Metrics, name: str) -> float:
    return found.values[name].value


@contextmanager
def opened(target: Target, *statements: str, **options: Any) -> Iterator[psycopg.Connection]:
    """A session in which these statements were run, in one transaction unless it is autocommit."""
    with psycopg.connect(target.url, **options) as connection:
        for statement in statements:
            connection.execute(statement.encode())
        try:
            yield connection
        finally:
            connection.rollback()


@contextmanager
def running(target: Target, statement: str) -> Iterator[psycopg.Connection]:
    """A session that is busy with a statement, which is cancelled at the end."""
    with psycopg.connect(target.url, autocommit=True, application_name="busy") as connection:

        def work() -> None:
            with contextlib.suppress(psycopg.errors.QueryCanceled):
                connection.execute(statement.encode())

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield connection
        finally:
            connection.cancel_safe()
            thread.join()


@pytest.fixture
def table(target: Target) -> Iterator[str]:
    """The name of a table of this test, which does not exist yet and is gone afterwards."""
    yield "subject"
    run(target, "drop table if exists subject")


def test_sessions_are_counted_by_what_they_do(target: Target) -> None:
    before = look(target)
    with (
        opened(target, autocommit=True),
        opened(target, "select 1"),
        opened(target, "select 1"),
        running(target, "select pg_sleep(60)"),
    ):
        wait_until(lambda: value(look(target), "connections_active") == value(before, "connections_active") + 1)
        found = look(target)
        assert value(found, "connections_idle") == value(before, "connections_idle") + 1
        assert value(found, "connections_idle_in_transaction") == 2
        assert value(found, "connections_waiting") == 1, "pg_sleep waits, too"
        assert "busy" in found.values["longest_statement_s"].detail
        assert value(found, "longest_statement_s") > 0


def test_a_wait_for_a_lock_is_as_long_as_it_is_and_names_both_sides(target: Target, table: str) -> None:
    run(target, "create table subject (a int)")
    with opened(target, "lock table subject in access exclusive mode") as holder:
        before = look(target)
        with running(target, "select * from subject") as waiter:
            wait_until(lambda: value(look(target), "blocked_sessions") == 1)
            found = look(target)
            assert value(found, "longest_lock_wait_s") > 0
            assert value(found, "connections_waiting") == 1
            assert value(found, "locks") > value(before, "locks") >= 1
            (blocked,) = found.worst["blocked"]
            assert (blocked["pid"], blocked["blocked_by"]) == (waiter.info.backend_pid, [holder.info.backend_pid])
            assert (blocked["relation"], blocked["mode"]) == ("subject", "AccessShareLock")


def test_a_table_that_is_locked_is_not_waited_for(target: Target, table: str) -> None:
    run(target, "create table subject (a int primary key)", "insert into subject select generate_series(1, 1000)")
    with opened(target, "lock table subject in access exclusive mode"):
        found = look(target)
    assert {"tables_bytes", "indexes_bytes", "dead_tuple_ratio"} <= found.values.keys()


def test_transactions_are_counted_by_the_second_and_by_how_they_end(target: Target) -> None:
    before = look(target)
    with psycopg.connect(target.url) as connection:
        for _ in range(60):
            connection.execute("select 1")
            connection.rollback()
        for _ in range(60):
            connection.execute("select 1")
            connection.commit()
        connection.execute("select pg_stat_force_next_flush()")
    found = look(target, before)
    assert value(found, "rollbacks_per_s") == pytest.approx(1.0)
    assert value(found, "commits_per_s") >= 1.0
    assert 0 < value(found, "rollback_ratio") <= 0.5
    assert (found.values["rollback_ratio"].sample or 0) >= 120


def test_a_sort_that_spills_is_counted_in_temporary_files(target: Target) -> None:
    before = look(target)
    run(
        target,
        "set work_mem = '64kB'",
        "select count(*) from (select g from generate_series(1, 100000) g order by -g offset 0) s",
    )
    found = look(target, before)
    assert value(found, "temp_files") >= 1
    assert value(found, "temp_bytes") > 500_000


def test_a_table_past_its_own_limit_is_due_for_vacuum_until_it_comes(target: Target, table: str) -> None:
    run(
        target,
        "create table subject (a int) with (autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0)",
        "insert into subject select generate_series(1, 1000)",
        "vacuum subject",
        "delete from subject where a <= 101",
    )
    found = look(target)
    assert value(found, "vacuum_due_tables") == 1
    assert found.values["vacuum_age_s"].labels == {"table": "public.subject"}
    assert found.values["vacuum_age_s"].sample == 101
    assert 0 < value(found, "vacuum_age_s") < 3600
    run(target, "vacuum subject")
    again = look(target)
    assert (value(again, "vacuum_due_tables"), value(again, "vacuum_age_s")) == (0, 0)


def test_a_table_that_changed_is_due_for_analyze_until_it_comes(target: Target, table: str) -> None:
    run(target, "create table subject (a int)", "analyze subject", "insert into subject select generate_series(1, 500)")
    found = look(target)
    assert value(found, "analyze_due_tables") == 1
    assert found.values["analyze_age_s"].labels == {"table": "public.subject"}
    assert found.values["analyze_age_s"].detail == "public.subject has 500 changed rows"
    run(target, "analyze subject")
    assert value(look(target), "analyze_due_tables") == 0


def test_a_table_that_was_mostly_deleted_is_bloated_as_much_as_is_counted_exactly(target: Target, table: str) -> None:
    run(
        target,
        "create table subject (a int, b text)",
        "insert into subject select g, repeat('x', 100) from generate_series(1, 40000) g",
        "analyze subject",
    )
    assert value(look(target), "table_bloat_ratio") < 0.1
    run(target, "delete from subject where a % 4 <> 0", "vacuum (analyze) subject")
    metric = look(target).values["table_bloat_ratio"]
    assert metric.labels == {"table": "public.subject"}
    run(target, "create extension if not exists pgstattuple")
    with connect(target, work="exact") as connection:
        counted = exact.measure(connection, Relation("public", "subject"))
    assert metric.value == pytest.approx(counted.ratio, abs=0.1)
    assert metric.value == pytest.approx(0.75, abs=0.1)


def test_an_index_whose_entries_are_gone_is_bloated_until_it_is_built_anew(target: Target, table: str) -> None:
    run(
        target,
        "create table subject (a int)",
        "insert into subject select generate_series(1, 60000)",
        "create index subject_a on subject (a)",
        "analyze subject",
    )
    assert value(look(target), "index_bloat_ratio") < 0.2
    run(target, "delete from subject where a % 5 <> 0", "vacuum (analyze) subject")
    metric = look(target).values["index_bloat_ratio"]
    assert (metric.labels, metric.value > 0.6) == ({"index": "public.subject_a"}, True)
    run(target, "create extension if not exists pgstattuple")
    with connect(target, work="exact") as connection:
        counted = exact.measure(connection, Relation("public", "subject_a"))
    assert metric.value == pytest.approx(counted.ratio, abs=0.15)
    run(target, "reindex index concurrently subject_a")
    assert value(look(target), "index_bloat_ratio") < 0.2


def test_bloat_that_may_not_be_estimated_is_unmeasured_and_the_grant_mends_it(target: Target, table: str) -> None:
    run(
        target,
        "create table subject (a int, b text)",
        "insert into subject select g, repeat('x', 100) from generate_series(1, 20000) g",
        "vacuum (analyze) subject",
    )
    with watcher(target, "pg_monitor") as role:
        found = look(role)
        assert "public.subject" in found.unmeasured["table_bloat_ratio"]
        (missing,) = [one for one in found.missing if "public.subject" in one]
        run(target, missing[missing.index("GRANT") : missing.index(";")])
        assert "table_bloat_ratio" in look(role).values


def test_an_index_that_nothing_uses_is_told_and_one_that_a_constraint_needs_is_not(target: Target, table: str) -> None:
    run(
        target,
        "create table subject (a int, b text)",
        "insert into subject select g, md5(g::text) || repeat(md5(g::text), 11) from generate_series(1, 30000) g",
        "create index subject_unused on subject (b)",
        "alter table subject add constraint subject_needed unique (a, b)",
    )
    metric = look(target).values["unused_indexes"]
    assert (metric.value, metric.labels) == (1, {"index": "public.subject_unused"})
    assert [row["name"] for row in look(target).worst["unused_indexes"]] == ["public.subject_unused"]
    run(target, "set enable_seqscan = off", "select a from subject where b = 'x'")
    assert value(look(target), "unused_indexes") == 0


def test_scans_by_an_index_are_told_from_those_of_the_whole_table(target: Target, table: str) -> None:
    run(
        target,
        "create table subject (a int primary key)",
        "insert into subject select generate_series(1, 20000)",
        "analyze subject",
    )
    before = look(target)
    scans = ["select count(*) from subject"] * 2 + ["select a from subject where a = 7"] * 6
    run(target, "set max_parallel_workers_per_gather = 0", "set enable_indexonlyscan = on", *scans)
    found = look(target, before)
    by_index = found.counters["index_scans"] - before.counters["index_scans"]
    whole = found.counters["seq_scans"] - before.counters["seq_scans"]
    assert by_index >= 6
    assert value(found, "index_use_ratio") == pytest.approx(by_index / (by_index + whole))
    assert found.values["index_use_ratio"].sample == by_index + whole >= 8
    assert 0 <= value(found, "index_hit_ratio") <= 1
    assert "public.subject" in [row["name"] for row in found.worst["largest_tables"]]


def test_what_grows_is_told_in_bytes_and_by_the_second(target: Target, table: str) -> None:
    before = look(target)
    run(
        target,
        "create table subject (a int, b text)",
        "insert into subject select g, repeat('x', 1000) from generate_series(1, 5000) g",
        "create index on subject (a)",
    )
    found = look(target, before)
    grown = value(found, "database_bytes") - value(before, "database_bytes")
    assert value(found, "database_growth") == pytest.approx(grown / 60)
    assert value(found, "tables_bytes") > value(before, "tables_bytes") + 4_000_000, "before anybody analyzed it"
    assert value(found, "indexes_bytes") > value(before, "indexes_bytes")
    assert value(found, "wal_per_s") > 5_000_000 / 60
    assert value(found, "wal_bytes") >= 16 << 20


def test_lists_have_ten_entries_however_many_tables_there_are(target: Target) -> None:
    many = "do $$ begin for i in 1..15 loop execute format('{}', i); end loop; end $$"
    run(target, many.format("create table many_%s as select 1 as a"), many.format("update many_%s set a = 2"))
    found = look(target)
    run(target, many.format("drop table many_%s"))
    assert len(found.worst["dead_rows"]) == 10
    assert all(len(rows) <= 10 for rows in found.worst.values())


def test_a_shared_row_lock_uses_a_multixact_id(target: Target, table: str) -> None:
    run(target, "create table subject (a int)", "insert into subject values (1)")
    before = value(look(target), "multixact_age_ratio")
    lock = "select * from subject for key share"
    with opened(target, lock), opened(target, lock):
        assert value(look(target), "multixact_age_ratio") * 2**31 >= before * 2**31 + 1


def test_a_checkpoint_that_a_person_asks_for_is_told_from_one_by_time(target: Target) -> None:
    before = look(target)
    run(target, "checkpoint")
    wait_until(lambda: value(look(target, before), "checkpoints_requested") >= 1)
    found = look(target, before)
    assert value(found, "checkpoints_timed") == 0
    assert value(found, "checkpoint_write_s") >= 0


@pytest.mark.drill
def test_a_checkpoint_whose_time_has_come_is_counted_as_such(target: Target) -> None:
    run(target, "alter system set checkpoint_timeout = '30s'", "select pg_reload_conf()")
    try:
        before = look(target)
        run(target, "create table for_checkpoint as select 1 as a", "drop table for_checkpoint")
        wait_until(lambda: value(look(target, before), "checkpoints_timed") >= 1)
        assert value(look(target, before), "checkpoints_requested") == 0
    finally:
        run(target, "alter system reset checkpoint_timeout", "select pg_reload_conf()")


def test_files_that_the_archiver_does_not_take_are_counted(target: Target) -> None:
    before = value(look(target), "archiver_queue_files")
    run(target, "create table for_queue as select 1 as a", "select pg_switch_wal()", "drop table for_queue")
    wait_until(lambda: value(look(target), "archiver_queue_files") > before)


def test_a_slot_that_is_away_keeps_wal_until_it_is_lost(target: Target) -> None:
    run(target, "select pg_create_physical_replication_slot('away', true)")
    try:
        first = look(target)
        assert (value(first, "slots_inactive"), value(first, "slots_lost")) == (1, 0)
        assert first.values["slots_inactive"].labels == {"slot": "away"}
        for _ in range(3):
            run(target, "create table filler as select 1 as a", "select pg_switch_wal()", "drop table filler")
        assert value(look(target), "slot_retained_bytes") > 16 << 20
        run(target, "alter system set max_slot_wal_keep_size = '1MB'", "select pg_reload_conf()", "checkpoint")
        wait_until(lambda: value(look(target), "slots_lost") == 1)
        assert look(target).values["slots_lost"].labels == {"slot": "away"}
    finally:
        run(target, "select pg_drop_replication_slot('away')", "alter system reset max_slot_wal_keep_size")
    assert "slots_lost" in look(target).absent


def test_a_server_that_was_restarted_makes_no_difference(target: Target) -> None:
    before = look(target)
    started = {**before.counters, "postmaster_start": before.counters["postmaster_start"] - 60}
    found = look(target, replace(before, counters=started))
    for name in ("deadlocks", "commits_per_s", "wal_per_s", "checkpoints_timed"):
        assert found.unmeasured[name] == FIRST_COLLECTION


def test_pg_monitor_alone_measures_everything_on_this_version(target: Target) -> None:
    run(target, "create extension if not exists pg_stat_statements")
    with watcher(target, "pg_monitor") as role:
        first = look(role)
        found = look(role, first)
        assert found.unmeasured.keys() <= {"cache_hit_ratio", "rollback_ratio", "index_hit_ratio", "index_use_ratio"}
        assert found.missing == ()
        assert found.statements is not None
        assert all("metrics" not in text for text in found.statements.texts.values()), "its own ones are left out"


def test_statements_are_read_without_values_and_known_texts_not_again(target: Target) -> None:
    run(target, "create extension if not exists pg_stat_statements", "select 'secret word'::text as marked")
    run(target, "create role for_statements password 'secret word'", "drop role for_statements")
    first = look(target).statements
    assert first is not None
    assert "select $1::text as marked" in first.texts.values()
    assert "secret word" not in str(first.texts)
    with session(target) as connection:
        again = collect(connection, database="x", now=NOW, known_statements=list(first.texts)).statements
    assert again is not None
    assert not first.texts.keys() & again.texts.keys()
    assert first.counts.keys() <= again.counts.keys()
