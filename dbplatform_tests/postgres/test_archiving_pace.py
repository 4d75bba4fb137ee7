"""Rows leave at the declared hours, in the declared measure, and make way for others; the next run goes on."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from dbplatform.archiving import pace
from dbplatform.archiving.catalogue import list_archives
from dbplatform.archiving.pace import Pace, Throttle
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.daily_window import Window
from dbplatform.postgres.pressure import waiting_for_us
from dbplatform_tests.postgres.archiving_support import DATABASE, ORDERS, archive, ask, fill, only, policy, restore
from dbplatform_tests.postgres.test_archiving_children import FAMILY

NIGHT, DAY = datetime(2026, 7, 1, 23, tzinfo=UTC), datetime(2026, 7, 2, 12, tzinfo=UTC)
AT_NIGHT = Throttle(batch_rows=70, pause_s=0, rest=0, window=Window.parse("22:00-05:00"))


def test_outside_its_window_nothing_is_read_or_written(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, ORDERS)
    report = archive(database, ledger, tmp_path, throttle=AT_NIGHT, time_of_day=lambda: DAY)
    assert (report.archives, report.stopped) == ((), "it is outside the window 22:00-05:00 UTC")
    assert (ask(database, "select count(*) from orders"), list(tmp_path.iterdir())) == (1000, [])
    assert archive(database, ledger, tmp_path, throttle=AT_NIGHT, time_of_day=lambda: NIGHT).deleted == 700


def test_a_window_that_closes_ends_the_run_behind_a_batch_and_the_next_one_goes_on(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    times = iter([NIGHT] * 5)
    report = archive(database, ledger, tmp_path, throttle=AT_NIGHT, time_of_day=lambda: next(times, DAY))
    assert report.deleted == 1000 - ask(database, "select count(*) from orders")
    assert 0 < report.deleted < 700
    assert report.deleted % 70 == 0
    assert (report.stopped, only(ledger).status) == ("it is outside the window 22:00-05:00 UTC", "verified")
    assert archive(database, ledger, tmp_path, throttle=AT_NIGHT, time_of_day=lambda: DAY).deleted == report.deleted
    done = archive(database, ledger, tmp_path, throttle=AT_NIGHT, time_of_day=lambda: NIGHT)
    assert (done.deleted, done.stopped, len(list_archives(ledger, DATABASE))) == (700, None, 1)
    assert restore(database, ledger, only(ledger).id).restored == 700


def test_a_budget_spreads_the_rows_over_runs_with_all_that_leaves_along(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, FAMILY)
    declared = policy(children="archive")
    thrifty = Throttle(batch_rows=70, pause_s=0, rest=0, budget_bytes=8000)
    runs = 0
    while True:
        report = archive(database, ledger, tmp_path, declared, throttle=thrifty)
        runs += 1
        if report.stopped is None:
            break
        assert report.stopped == "the budget of 8,000 bytes is spent"
        assert ask(database, "select count(*) from lines where order_id not in (select id from orders)") == 0
    assert 3 <= runs <= 8
    assert ask(database, "select (select count(*) from orders), (select count(*) from lines)") == (300, 61)
    assert len(list_archives(ledger, DATABASE)) == 3


def test_the_next_batch_waits_until_the_server_has_written_its_wal_slowly_enough(
    database: Target, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, ORDERS)
    written = iter(range(0, 10**9, 3000))
    monkeypatch.setattr(pace, "wal_written", lambda _: next(written))
    slept: list[float] = []
    slow = Throttle(batch_rows=350, pause_s=0, rest=0, most_wal_per_s=1000)
    archive(database, ledger, tmp_path, throttle=slow, sleep=slept.append, clock=lambda: 0.0)
    assert [seconds for seconds in slept if seconds] == [3.0], "3,000 bytes at 1,000 a second, between two batches"


def test_the_servers_own_wal_is_what_is_looked_at(database: Target) -> None:
    with connect(database, work="test") as connection:
        before = pace.wal_written(connection)
        fill(database, ORDERS)
        assert pace.wal_written(connection) > before


def test_a_session_that_waits_for_a_batch_is_seen_and_halves_the_next(database: Target) -> None:
    fill(database, ORDERS)
    with connect(database, work="test") as connection, psycopg.connect(database.url) as other:
        with connection.transaction():
            connection.execute("delete from orders where id = 1")
            assert waiting_for_us(connection) == 0
            other_thread = threading.Thread(target=other.execute, args=("update orders set note = 'x' where id = 1",))
            other_thread.start()
            while not waiting_for_us(connection):
                pass
        other_thread.join()
    pacing = Pace(
        throttle=Throttle(batch_rows=100, pause_s=0), sleep=lambda _: None, clock=lambda: 0.0, now=lambda: DAY
    )
    pacing.succeeded(0.01, waiting=1)
    assert (pacing.rows, pacing.successes) == (50, 0)
