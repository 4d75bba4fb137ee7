"""A database comes back as it was at any moment that its WAL covers; any other moment is refused before work begins."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dbplatform.backups.catalogue import Backup
from dbplatform.backups.errors import DatabaseExists, ReplaceMismatch
from dbplatform.backups.physical.errors import (
    NoPhysicalBackup,
    RestorePointTaken,
    TargetOutside,
    UnknownRestorePoint,
)
from dbplatform.backups.physical.past import read_pasts
from dbplatform.backups.physical.points import create_restore_point
from dbplatform.backups.physical.recover import check_recovery
from dbplatform.backups.physical.server import read_server
from dbplatform.backups.physical.targets import Window, windows
from dbplatform.backups.physical.wal import parse_lsn
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.programs import find_programs
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.backups_support import databases, named_database, new_name
from dbplatform_tests.postgres.physical_support import NAME, Archiving, archiving, ledger_of

POINT = "before the sale"


@dataclass(frozen=True, kw_only=True)
class History:
    """A server's past, told once for all tests here: rows 1 to 40, ten at a time."""

    server: Archiving
    began: datetime
    """Before anything."""
    full: Backup
    """Before the first row."""
    lsn: int
    """Behind row 10."""
    point: str
    """Behind row 20, in the segment ``segment``."""
    segment: str
    incremental: Backup
    """Behind row 30."""
    times: tuple[datetime, ...]
    """When each row was committed."""

    def window(self) -> Window:
        pasts = read_pasts(self.server.ledger, NAME, self.server.archive)
        [window] = windows(self.server.ledger, pasts, find_programs())
        return window


@pytest.fixture(scope="module")
def history(server_url: str, ledger_template: str) -> Iterator[History]:
    with ledger_of(server_url, ledger_template) as ledger, archiving(ledger) as server:
        server.run("create publication everything for all tables")
        server.run(
            "create subscription never connection 'dbname=nowhere' publication everything with (connect = false, "
            "slot_name = none)"
        )
        server.run(f"alter database {NAME} set statement_timeout = '1min'")
        began = datetime.now(UTC)
        full = server.base()
        server.write(10)
        [(lsn,)] = server.run("select pg_current_wal_lsn()::text")
        server.write(10)
        with connect(server.shop, work="test") as connection:
            found = read_server(connection, server.shop)
            create_restore_point(connection, server.ledger, found, database=NAME, name=POINT)
        segment = server.switch()
        server.write(10)
        incremental = server.base(incremental=3)
        server.write(10)
        server.switch()
        yield History(
            server=server, began=began, full=full, lsn=parse_lsn(lsn), point=POINT, segment=segment,
            incremental=incremental, times=tuple(server.commit_times()),
        )  # fmt: skip


@pytest.mark.parametrize(("seconds", "moments"), cases((0, 2), (180, 10), sample=[0]))
def test_a_restored_database_holds_exactly_the_rows_committed_before_the_moment(
    history: History, seconds: int, moments: int
) -> None:
    server = history.server
    if seconds:
        server.write(0, seconds=seconds)
        server.switch()
    times = server.commit_times()
    found, expected = [], []
    for _ in range(moments):
        moment = times[0] + random.random() * (times[-1] - times[0])
        found.append(server.recovered(time=moment))
        expected.append(server.committed_before(moment))
    assert found == expected


def test_the_moment_of_a_commit_is_the_first_without_it(history: History) -> None:
    assert history.server.recovered(time=history.times[34]) == set(range(1, 35))


def test_a_position_brings_back_what_was_committed_until_then(history: History) -> None:
    assert history.server.recovered(lsn=history.lsn) == set(range(1, 11))


def test_a_restore_point_brings_back_what_was_committed_until_then(history: History) -> None:
    assert history.server.recovered(restore_point=POINT) == set(range(1, 21))


def test_a_restore_point_has_a_name_of_its_own(history: History) -> None:
    server = history.server
    with connect(server.shop, work="test") as connection:
        found = read_server(connection, server.shop)
        with pytest.raises(RestorePointTaken):
            create_restore_point(connection, server.ledger, found, database=NAME, name=POINT)
    with pytest.raises(UnknownRestorePoint, match="after the sale") as unknown:
        server.plan(restore_point="after the sale")
    assert POINT in (unknown.value.hint or "")


def test_an_incremental_backup_rests_on_the_full_one(history: History) -> None:
    plan = history.server.plan(time=history.times[35])
    assert [backup.id for backup, _ in plan.chain] == [history.full.id, history.incremental.id]
    assert history.server.recovered(backup_id=history.incremental.id) == set(range(1, 31))


def test_moments_that_cannot_be_reached_are_refused_with_those_that_can(history: History) -> None:
    server, window = history.server, history.window()
    assert window.start == history.full.taken_at
    assert window.end >= history.times[39]
    for moment, why in (
        ({"time": history.began}, "before the first base backup"),
        ({"time": datetime.now(UTC) + timedelta(days=1)}, "lies in the future"),
        ({"time": window.end + timedelta(microseconds=1)}, "no commit behind it is archived"),
        ({"lsn": window.start_lsn - 1}, "before the first base backup"),
        ({"lsn": window.end_lsn}, "no WAL behind it is archived"),
    ):
        begun = time.process_time()
        with pytest.raises(TargetOutside, match=why) as refused:
            server.plan(**moment)
        assert str(window) in refused.value.message
        assert "\n" not in refused.value.message
        assert time.process_time() - begun < 5
    assert server.plan(time=window.end).base.id == history.incremental.id
    assert server.plan(lsn=window.start_lsn).base.id == history.full.id


def test_a_moment_behind_a_missing_segment_is_refused_and_one_before_it_is_not(history: History) -> None:
    server, missing = history.server, f"the WAL file {history.segment} is missing"
    [archived] = server.wal(server.system).glob(f"{history.segment}-*")
    aside = archived.rename(server.root / archived.name)
    try:
        for number in (5, 25):
            with pytest.raises(TargetOutside, match=missing):
                server.plan(time=history.times[number])
        pasts = read_pasts(server.ledger, NAME, server.archive)
        found = windows(server.ledger, pasts, find_programs())
        assert [window.broken_at for window in found] == [None, history.segment]
        with pytest.raises(TargetOutside) as refused:
            server.plan(time=history.times[25])
        assert all(str(window) in refused.value.message for window in found)
        # The base backup behind the gap needs nothing from before it.
        assert server.plan(time=history.times[35]).base.id == history.incremental.id
    finally:
        aside.rename(archived)


def test_a_live_database_is_only_replaced_when_its_name_is_said_again(history: History) -> None:
    server = history.server
    plan = server.plan(time=history.times[5])
    for said, error in ((None, DatabaseExists), ("other", ReplaceMismatch)):
        with pytest.raises(error):
            check_recovery(plan, server.server, NAME, replace=said, room=None)
    assert server.run("select count(*) >= 40 from numbered") == [(True,)]


def test_what_was_recovered_is_isolated_and_nothing_is_left_of_the_recovery(history: History) -> None:
    server, name = history.server, new_name()
    archived = sorted(server.wal(server.system).iterdir())
    with named_database(server.server.url, name):
        report = server.recover(name, time=history.times[5])
        with psycopg.connect(make_conninfo(server.server.url, dbname=name)) as connection:
            assert connection.execute("show statement_timeout").fetchone() == ("1min",)
            subscriptions = connection.execute(
                "select from pg_subscription where subdbid = (select oid from pg_database where datname = "
                "current_database())"
            )
            assert subscriptions.fetchall() == []
    assert {table.table for table in report.tables} == {"public.numbered", "public.quiet"}
    assert all(table.match for table in report.tables)
    assert list(server.place.iterdir()) == []
    assert databases(server.server.url) == []
    assert sorted(server.wal(server.system).iterdir()) == archived


def test_the_past_of_a_lost_server_comes_back_on_another_one(history: History, server_url: str) -> None:
    name = new_name()
    elsewhere = replace(history.server, server=Target("elsewhere", server_url))
    with named_database(server_url, name):
        elsewhere.recover(name, time=history.times[6])
        with psycopg.connect(make_conninfo(server_url, dbname=name)) as connection:
            assert connection.execute("select count(*) from numbered").fetchone() == (6,)


def test_what_was_never_backed_up_has_no_past(ledger: Ledger, history: History) -> None:
    with pytest.raises(NoPhysicalBackup):
        replace(history.server, ledger=ledger).plan(time=history.times[6])
