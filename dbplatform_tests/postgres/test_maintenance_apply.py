"""Maintenance beside production: it gives way, waits, stops in time, and cleans up behind a run that was killed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from dbplatform.errors import LockNotAcquired
from dbplatform.maintenance.errors import QueryRefused
from dbplatform.maintenance.model import Outcome, Report
from dbplatform.postgres.connection import AutocommitConnection, SessionLost, Target, connect
from dbplatform.postgres.exact import Bloat, measure
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.locks import advisory_lock, lent
from dbplatform_tests.postgres.embedded_support import wait_until
from dbplatform_tests.postgres.maintenance_support import OFF, item, maintain, outcome, pace, planned, policy

_WAITING = """
    select count(*) from pg_stat_activity where application_name = 'dbplatform maintenance' and wait_event_type = 'Lock'
      and query like %s
"""
#: It does nothing while anybody waits for a lock.
CAREFUL = policy(limits={"waiting_sessions": 0, "pause": "1 hour"})
_INVALID = "select indexrelid::regclass::text from pg_index where not indisvalid order by 1"

_VICTIM = """
import sys
from dbplatform.postgres.connection import Target
from dbplatform_tests.postgres.maintenance_support import maintain
maintain(Target("victim", sys.argv[1]), kinds=["reindex"])
"""


@pytest.fixture
def items(database: Target) -> Target:
    """A table with a bloated index."""
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute(f"create table item (a int primary key, b text) {OFF}".encode())
        session.execute("insert into item select i, md5(i::text) from generate_series(1, 50000) i")
        session.execute("delete from item where a % 5 <> 0")
        session.execute("select pg_stat_force_next_flush()")
        session.execute("vacuum analyze item")
    return database


@contextmanager
def open_transaction(database: Target, statement: str) -> Iterator[psycopg.Connection]:
    """A transaction that keeps its snapshot and its locks until the end of the block."""
    with psycopg.connect(database.url, application_name="a client") as session:
        session.execute("set transaction isolation level repeatable read")
        session.execute(statement.encode())
        yield session
        session.rollback()


@contextmanager
def in_background(database: Target, *kinds: str, **given: object) -> Iterator[list[Report]]:
    """A run in a thread, which has ended when the block has."""
    reports: list[Report] = []
    thread = threading.Thread(target=lambda: reports.append(maintain(database, kinds=kinds, **given)))  # type: ignore[arg-type]
    thread.start()
    try:
        yield reports
    finally:
        thread.join()


def wait_for(database: Target, statement: str) -> None:
    """Return once maintenance waits for a lock in a statement like this."""
    with psycopg.connect(database.url, autocommit=True) as watcher:
        wait_until(lambda: watcher.execute(_WAITING, (f"%{statement}%",)).fetchone() == (1,))


def test_seed_004_writers_go_on_while_an_index_is_rebuilt_where_reindex_database_stops_them(items: Target) -> None:
    with open_transaction(items, "select from item limit 1") as client, in_background(items, "reindex") as reports:
        wait_for(items, "REINDEX")
        with psycopg.connect(items.url, autocommit=True) as writer:
            writer.execute("set lock_timeout = '5s'")
            writer.execute("insert into item values (1, 'written while its index was rebuilt')")
        client.rollback()
    assert outcome(reports[0], "reindex", "public.item_pkey").state == "done"

    with psycopg.connect(items.url) as by_hand, psycopg.connect(items.url, autocommit=True) as writer:
        # What the document types, table by table: REINDEX DATABASE locks each like this until it is through with it.
        by_hand.execute("reindex table item")
        writer.execute("set lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            writer.execute("insert into item values (2, 'in vain')")
        by_hand.rollback()


def test_what_a_rebuild_that_was_ended_left_is_dropped_by_the_next_run(items: Target) -> None:
    with (
        open_transaction(items, "select from item limit 1"),
        psycopg.connect(items.url, autocommit=True) as watcher,
    ):
        process = subprocess.Popen([sys.executable, "-c", _VICTIM, items.url])
        try:
            wait_for(items, "REINDEX")
            process.kill()
        finally:
            process.wait()
        # The server notices by itself that the client is gone, and frees what it held.
        alive = "select count(*) from pg_stat_activity where application_name = 'dbplatform maintenance'"
        wait_until(lambda: watcher.execute(alive.encode()).fetchone() == (0,))
        assert watcher.execute(_INVALID.encode()).fetchall() == [("item_pkey_ccnew",)]

    assert item(planned(items, kinds=["reindex"]), "reindex", "public.item_pkey_ccnew").priority == 90
    report = maintain(items, kinds=["reindex"])

    assert [(one.item.verb, one.state) for one in report.outcomes] == [("drop", "done"), ("reindex", "done")]
    assert outcome(report, "reindex", "public.item_pkey_ccnew").after == {"there": False}
    with psycopg.connect(items.url) as watcher:
        assert watcher.execute(_INVALID.encode()).fetchall() == []


def test_an_invalid_index_of_a_toast_table_is_dropped_too(database: Target) -> None:
    with psycopg.connect(database.url, autocommit=True) as by_hand:
        by_hand.execute(f"create table note (body text) {OFF}".encode())
        row = by_hand.execute(
            "select i.indexrelid::regclass::text from pg_class c join pg_index i on i.indrelid = c.reltoastrelid "
            "where c.relname = 'note'"
        ).fetchone()
        assert row is not None
        with (
            psycopg.connect(database.url, autocommit=True) as victim,
            open_transaction(database, f"select from {row[0].rpartition('_index')[0]} limit 1"),
        ):
            victim.execute("set lock_timeout = '50ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                victim.execute(f"reindex index concurrently {row[0]}".encode())
        assert by_hand.execute(_INVALID.encode()).fetchall() == [(f"{row[0]}_ccnew",)]
        assert [one.state for one in maintain(database, kinds=["reindex"]).outcomes] == ["done"]
        assert by_hand.execute(_INVALID.encode()).fetchall() == []


def test_an_invalid_index_that_no_rebuild_left_is_not_touched(items: Target) -> None:
    with psycopg.connect(items.url, autocommit=True) as by_hand:
        by_hand.execute("insert into item values (-1, 'twice'), (-2, 'twice')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            by_hand.execute("create unique index concurrently item_b on item (b)")
        maintain(items, kinds=["reindex"])
        assert by_hand.execute(_INVALID.encode()).fetchall() == [("item_b",)]


def test_a_rebuild_gives_way_to_who_waits_for_it_and_leaves_nothing_behind(items: Target) -> None:
    gentle = policy(limits={"lock_timeout": "1 s"})
    gentle_pace = pace(gentle, sleep=lambda _: None)
    with (
        open_transaction(items, "select from item limit 1") as client,
        in_background(items, "reindex", of=gentle, with_pace=gentle_pace) as reports,
    ):
        wait_for(items, "REINDEX")
        with psycopg.connect(items.url, autocommit=True) as other:
            # It waits for the rebuild, as a change of the schema would, behind which every writer waits.
            other.execute("set lock_timeout = '30s'")
            other.execute("analyze item")
        client.rollback()
    found = outcome(reports[0], "reindex", "public.item_pkey")
    assert found.state in ("done", "left"), "it is tried again, and may come through then"
    with psycopg.connect(items.url) as watcher:
        assert watcher.execute(_INVALID.encode()).fetchall() == []


def test_an_index_that_another_role_builds_is_not_waited_for_and_what_it_builds_is_no_remains(items: Target) -> None:
    with psycopg.connect(items.url, autocommit=True) as by_hand:
        by_hand.execute("create role owner_of_items login password 'only for tests'")
        by_hand.execute("alter table item owner to owner_of_items")
        owner = Target(
            items.name, psycopg.conninfo.make_conninfo(items.url, user="owner_of_items", password="only for tests")
        )
        try:
            with (
                open_transaction(items, "select from item limit 1") as client,
                psycopg.connect(items.url, autocommit=True, application_name="dbplatform maintenance") as builder,
            ):
                building = threading.Thread(target=lambda: builder.execute("reindex index concurrently item_pkey"))
                building.start()
                wait_for(items, "reindex index concurrently")
                report = maintain(owner, kinds=["reindex"], with_pace=pace(policy(), sleep=lambda _: None))
                client.rollback()
                building.join()
            [found] = report.outcomes
            assert (found.item.verb, found.state) == ("reindex", "left")
            assert found.words == "another session builds an index on its table, or vacuums it"
            assert by_hand.execute(_INVALID.encode()).fetchall() == []
        finally:
            by_hand.execute("drop owned by owner_of_items cascade")
            by_hand.execute("drop role owner_of_items")


def test_work_is_ended_when_the_session_that_looks_on_is_lost_and_so_is_the_run(items: Target) -> None:
    def lose() -> None:
        wait_for(items, "REINDEX")
        with psycopg.connect(items.url, autocommit=True) as by_hand:
            by_hand.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'dbplatform watcher' "
                "and datname = current_database()"
            )

    kept: list[Outcome] = []
    short = policy(budget={"time": "20 seconds"})
    with open_transaction(items, "select from item limit 1"):
        losing = threading.Thread(target=lose)
        losing.start()
        # What the rebuild left would come next.
        with pytest.raises(SessionLost):
            maintain(items, short, kinds=["reindex"], kept=kept)
        losing.join()
    assert [(one.state, one.words) for one in kept] == [
        ("left", "the session that looks on was lost, and it was ended")
    ]


def test_a_table_that_another_session_has_locked_is_left_and_told(database: Target) -> None:
    with psycopg.connect(database.url, autocommit=True) as by_hand:
        by_hand.execute(f"create table item (a int) {OFF}".encode())
        by_hand.execute("insert into item select generate_series(1, 10000)")
        by_hand.execute("delete from item")
        by_hand.execute("select pg_stat_force_next_flush()")
    gentle = policy(limits={"lock_timeout": "100 ms"})
    with open_transaction(database, "lock table item in share update exclusive mode"):
        kept: list[Outcome] = []
        report = maintain(database, gentle, kinds=["vacuum"], with_pace=pace(gentle, sleep=lambda _: None), kept=kept)
    found = outcome(report, "vacuum", "public.item")
    assert (found.state, found.words) == ("left", "another session holds a lock on it")
    assert kept == list(report.outcomes)
    assert outcome(maintain(database, kinds=["vacuum"]), "vacuum", "public.item").state == "done"


def test_a_vacuum_that_could_remove_nothing_names_who_needs_the_rows(database: Target) -> None:
    with psycopg.connect(database.url, autocommit=True) as by_hand:
        by_hand.execute(f"create table item (a int) {OFF}".encode())
        by_hand.execute("insert into item select generate_series(1, 10000)")
        with open_transaction(database, "select from item limit 1"):
            by_hand.execute("delete from item where a <= 5000")
            by_hand.execute("select pg_stat_force_next_flush()")
            found = outcome(maintain(database, kinds=["vacuum"]), "vacuum", "public.item")
    assert found.state == "left", "it is still due"
    assert found.after["dead_rows"] == 5000
    assert "its dead rows are kept for backend" in found.words
    assert "(a client)" in found.words


def test_a_run_begins_nothing_once_its_budget_is_spent_and_says_what_is_left(database: Target) -> None:
    with psycopg.connect(database.url, autocommit=True) as by_hand:
        for name in ("first", "second"):
            by_hand.execute(f"create table {name} (a int) {OFF}".encode())
        by_hand.execute("insert into first select generate_series(1, 1000)")
        by_hand.execute("insert into second select generate_series(1, 90000)")
        by_hand.execute("select pg_stat_force_next_flush()")
    small = policy(budget={"size": "8kB"})
    report = maintain(database, small, kinds=["analyze"])
    assert [(str(one.item.subject), one.state) for one in report.outcomes] == [
        ("public.first", "done"),
        ("public.second", "left"),
    ]
    assert report.stopped == "the budget of 8,192 bytes is spent"
    assert outcome(maintain(database, kinds=["analyze"]), "analyze", "public.second").state == "done"


def test_nothing_begins_outside_the_window(items: Target) -> None:
    night = policy(window="22:00-05:00")
    noon = pace(night, now=datetime(2026, 11, 22, 12, tzinfo=UTC))
    report = maintain(items, night, kinds=["reindex"], with_pace=noon)
    assert [one.state for one in report.outcomes] == ["left"]
    assert report.stopped == "it is outside the window 22:00-05:00 UTC"
    midnight = pace(night, now=datetime(2026, 11, 23, 0, tzinfo=UTC))
    assert [one.state for one in maintain(items, night, kinds=["reindex"], with_pace=midnight).outcomes] == ["done"]


def test_nothing_is_read_to_be_counted_outside_the_window(items: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(items.url, autocommit=True) as by_hand:
        by_hand.execute("create extension pgstattuple")
    read: list[str] = []

    def measured(connection: AutocommitConnection, relation: Relation) -> Bloat:
        read.append(str(relation))
        return measure(connection, relation)

    monkeypatch.setattr("dbplatform.maintenance.catalog.measure", measured)
    night = policy(window="22:00-05:00")
    report = maintain(items, night, kinds=["reindex"], with_pace=pace(night))
    assert [(one.state, one.item.evidence["counted"]) for one in report.outcomes] == [("left", False)]
    assert read == []
    midnight = pace(night, now=datetime(2026, 11, 23, 0, tzinfo=UTC))
    assert [one.state for one in maintain(items, night, kinds=["reindex"], with_pace=midnight).outcomes] == ["done"]
    assert "public.item_pkey" in read


@contextmanager
def a_client_waits(items: Target) -> Iterator[Callable[[], None]]:
    """A session that waits for a lock, until what is given is called."""
    asked = "select count(*) from pg_stat_activity where application_name = 'writer' and wait_event = 'relation'"
    with (
        open_transaction(items, "lock table item in share row exclusive mode") as holder,
        psycopg.connect(items.url, application_name="writer") as writer,
        psycopg.connect(items.url, autocommit=True) as watcher,
    ):
        waiting = threading.Thread(target=lambda: writer.execute("insert into item values (-1, 'late')"))
        waiting.start()
        wait_until(lambda: watcher.execute(asked.encode()).fetchone() == (1,))

        def served() -> None:
            holder.rollback()
            waiting.join()
            writer.commit()

        yield served


def test_it_pauses_while_sessions_wait_for_locks_and_goes_on_when_they_do_not(items: Target) -> None:
    slept: list[float] = []
    with a_client_waits(items) as served:

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                served()

        report = maintain(items, CAREFUL, kinds=["reindex"], with_pace=pace(CAREFUL, sleep=sleep))
    assert slept == [1.0, 1.0, 1.0]
    assert [one.state for one in report.outcomes] == ["done"]


def test_while_it_pauses_another_writer_of_the_platform_may_work(items: Target) -> None:
    with (
        connect(items, work="optimize") as working,
        connect(items, work="migrate") as another,
        advisory_lock(working),
        a_client_waits(items) as served,
    ):

        def sleep(_: float) -> None:
            served()
            with advisory_lock(another, wait_ms=0):
                another.execute("alter table item drop constraint item_pkey")

        paused = replace(pace(CAREFUL, sleep=sleep), resting=lambda: lent(working))
        report = maintain(items, CAREFUL, kinds=["reindex"], with_pace=paused, connection=working)
        with pytest.raises(LockNotAcquired), advisory_lock(another, wait_ms=0):
            another.execute("select")
    assert [(one.state, one.words) for one in report.outcomes] == [("not needed", "it is no longer due")]


def test_a_writer_that_has_begun_in_a_pause_and_goes_on_ends_the_run(items: Target) -> None:
    with (
        connect(items, work="optimize") as working,
        connect(items, work="migrate") as another,
        ExitStack() as writing,
        advisory_lock(working),
        a_client_waits(items) as served,
    ):

        def sleep(_: float) -> None:
            writing.enter_context(advisory_lock(another, wait_ms=0))
            served()

        paused = replace(pace(CAREFUL, sleep=sleep), resting=lambda: lent(working, wait_ms=0))
        report = maintain(items, CAREFUL, kinds=["reindex"], with_pace=paused, connection=working)
    assert [one.state for one in report.outcomes] == ["left"]
    assert report.stopped is not None
    assert report.stopped.startswith("others began to write while it paused: Another session holds the writer lock")


def test_a_pause_that_lasts_too_long_ends_the_run(items: Target) -> None:
    careful = policy(limits={"active_sessions": 1, "pause": "10 s"})
    ticks = iter(range(10_000))
    with psycopg.connect(items.url) as one, psycopg.connect(items.url) as two:
        threads = [threading.Thread(target=_busy, args=(session,)) for session in (one, two)]
        for thread in threads:
            thread.start()
        with psycopg.connect(items.url, autocommit=True) as watcher:
            asked = "select count(*) from pg_stat_activity where query = 'select pg_sleep(600)' and state = 'active'"
            wait_until(lambda: watcher.execute(asked.encode()).fetchone() == (2,))
        report = maintain(
            items,
            careful,
            kinds=["reindex"],
            with_pace=pace(careful, sleep=lambda _: None, clock=lambda: float(next(ticks))),
        )
        for session in (one, two):
            session.cancel_safe()
        for thread in threads:
            thread.join()
    assert [one.state for one in report.outcomes] == ["left"]
    assert report.stopped is not None
    assert "sessions are at work (active_sessions: 1), for 10 seconds" in report.stopped
    assert report.paused_s >= 10


def _busy(session: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.QueryCanceled):
        session.execute("select pg_sleep(600)")


def test_declared_queries_are_timed_before_and_after(items: Target) -> None:
    timed = policy(
        queries=[
            {"name": "one_item", "sql": "select * from item where a = 5"},
            {"name": "writes", "sql": "select count(*) from item;"},
        ]
    )
    report = maintain(items, timed, kinds=["reindex"])
    assert [one.name for one in report.queries] == ["one_item", "writes"]
    assert all((one.before_ms or 0) > 0 and (one.after_ms or 0) > 0 for one in report.queries)


def test_a_query_that_does_not_run_is_refused_before_anything_is_changed(items: Target) -> None:
    for wrong in ("select * from nowhere", "delete from item"):
        kept: list[Outcome] = []
        with pytest.raises(QueryRefused, match="The query wrong of maintenance does not run"):
            maintain(items, policy(queries=[{"name": "wrong", "sql": wrong}]), kinds=["reindex"], kept=kept)
        assert kept == []


def test_bloat_that_only_the_new_statistics_show_is_mended_in_the_same_run(database: Target) -> None:
    with psycopg.connect(database.url, autocommit=True) as by_hand:
        by_hand.execute(f"create table item (a int primary key) {OFF}".encode())
        by_hand.execute("insert into item select generate_series(1, 50000)")
        by_hand.execute("delete from item where a % 5 <> 0")
        by_hand.execute("select pg_stat_force_next_flush()")
    assert [one.subject for one in planned(database, kinds=["reindex"]).not_possible] == ["public.item_pkey"]
    report = maintain(database)
    assert {(one.item.kind, one.state) for one in report.outcomes if str(one.item.table) == "public.item"} == {
        ("analyze", "done"),
        ("vacuum", "done"),
        ("reindex", "done"),
    }


def test_a_second_run_has_nothing_to_do(items: Target) -> None:
    maintain(items)
    again = maintain(items)
    assert [one.as_json() for one in again.outcomes] == []
