"""An archive goes once its own content says that each row is old enough; nothing else goes, and no row comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dbplatform.archiving import errors
from dbplatform.archiving.catalogue import list_archives
from dbplatform.archiving.expire import ExpiryReport, plan_expiry
from dbplatform.archiving.replay import replay
from dbplatform.ledger.archives import Erasure, RemovedArchive
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.archiving_support import (
    DATABASE,
    LATER,
    NOW,
    ORDERS,
    archive,
    ask,
    at,
    copies,
    expire,
    fill,
    flip,
    killed,
    only,
    policy,
    prove,
    restore,
)
from dbplatform_tests.postgres.test_archiving_children import FAMILY
from dbplatform_tests.postgres.test_archiving_erase import stored

#: The newest of ORDERS that is old at NOW is of 26 May 2026.
KEPT = policy(keep="6 months")


def plan(target: Target, ledger: Ledger, now: datetime = LATER) -> ExpiryReport:
    with connect(target, work="test") as connection:
        return plan_expiry(connection, ledger, KEPT, database=DATABASE, now=now)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def copied(database: Target) -> Iterator[Callable[[], Target]]:
    with copies(database) as copy:
        yield copy


def test_a_plan_tells_the_newest_row_of_each_archive_and_changes_nothing(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    newest = ask(database, "select max(at) from orders where at < '2026-06-01'")
    archive(database, ledger, tmp_path, KEPT)
    (age,) = plan(database, ledger).archives
    assert (age.newest, age.due, age.problem) == (newest, True, None)
    assert not plan(database, ledger, NOW).due
    assert (len(files(tmp_path)), stored(ledger, Erasure)) == (1, [])


def test_an_expired_archive_goes_and_the_ledger_keeps_what_it_was(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    archive(database, ledger, tmp_path, KEPT)
    old = only(ledger)
    assert expire(database, ledger, tmp_path, KEPT, NOW).due == ()
    assert len(files(tmp_path)) == 1
    report = expire(database, ledger, tmp_path, KEPT)
    assert [one.entry.id for one in report.due] == [old.id]
    assert (files(tmp_path), list_archives(ledger, DATABASE)) == ([], [])
    (gone,) = stored(ledger, RemovedArchive)
    assert (gone.id, gone.rows, gone.sha256, gone.replaced_by) == (old.id, 700, old.sha256, None)
    assert gone.removed_at is not None
    assert gone.newest < report.before
    (erasure,) = stored(ledger, Erasure)
    assert (erasure.cause, erasure.rows, erasure.before) == ("expired", 700, report.before)
    assert ask(database, "select count(*) from orders") == 300
    assert expire(database, ledger, tmp_path, KEPT).archives == ()


def test_a_file_with_one_younger_row_stays_whole(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, ORDERS)
    archive(database, ledger, tmp_path, KEPT)
    newest = plan(database, ledger).archives[0].newest
    assert newest is not None
    assert expire(database, ledger, tmp_path, KEPT, newest.replace(month=11)).due == ()
    assert only(ledger).rows == 700


def test_a_damaged_file_stays_and_is_named(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, ORDERS)
    archive(database, ledger, tmp_path, KEPT)
    flip(Path(only(ledger).location))
    report = expire(database, ledger, tmp_path, KEPT)
    assert report.due == ()
    assert "SHA-256 differs" in report.problems[0]
    assert (len(files(tmp_path)), only(ledger).status) == (1, "deleted")


def test_archives_of_others_restored_ones_and_unfinished_ones_stay(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    archive(database, ledger, tmp_path, policy(name="others"))
    assert expire(database, ledger, tmp_path, KEPT).archives == ()
    restore(database, ledger, only(ledger).id)
    archive(database, ledger, tmp_path, KEPT)
    [mine] = [entry for entry in list_archives(ledger, DATABASE) if entry.name == "old"]
    restore(database, ledger, mine.id)
    assert expire(database, ledger, tmp_path, KEPT).archives == ()
    with pytest.raises(errors.NotProven):
        archive(database, ledger, tmp_path, KEPT, recheck=lambda: None)
    assert expire(database, ledger, tmp_path, KEPT).archives == ()
    assert len(files(tmp_path)) == 3


def test_what_an_older_copy_brings_back_is_erased_again_and_a_younger_row_with_the_key_is_not(
    database: Target, ledger: Ledger, tmp_path: Path, copied: Callable[[], Target]
) -> None:
    fill(database, ORDERS)
    before = copied()
    fill(before, "update orders set at = '2027-01-01' where id = 5")
    with at("verify", lambda: fill(database, "update orders set note = 'late' where id = 6")):
        archive(database, ledger, tmp_path, KEPT)
    expire(database, ledger, tmp_path, KEPT)
    with connect(before, work="test") as connection:
        assert replay(connection, ledger, DATABASE).rows == {"public.orders": 698}
    assert ask(before, "select array_agg(id order by id) from orders where id <= 700") == [5, 6], (
        "one is younger, the other never left"
    )
    with connect(database, work="test") as connection:
        assert replay(connection, ledger, DATABASE).rows == {}


def test_rows_that_left_along_go_with_their_parents(
    database: Target, ledger: Ledger, tmp_path: Path, copied: Callable[[], Target]
) -> None:
    fill(database, FAMILY)
    before = copied()
    kept = policy(keep="6 months", children="archive")
    archive(database, ledger, tmp_path, kept)
    expire(database, ledger, tmp_path, kept)
    assert (files(tmp_path), list_archives(ledger, DATABASE)) == ([], [])
    assert len(stored(ledger, RemovedArchive)) == 3
    with connect(before, work="test") as connection:
        assert replay(connection, ledger, DATABASE).rows == {
            "public.line_notes": 70,
            "public.lines": 140,
            "public.orders": 700,
        }


@pytest.mark.parametrize("type_", ["date", "timestamp", "timestamptz"])
def test_a_date_is_over_when_its_day_is(database: Target, ledger: Ledger, tmp_path: Path, type_: str) -> None:
    fill(database, f"create table orders (id int primary key, at {type_})")
    fill(database, "insert into orders values (1, '2026-03-10')")
    archive(database, ledger, tmp_path, KEPT)
    noon = datetime(2026, 9, 10, 12, tzinfo=UTC)
    assert bool(plan(database, ledger, noon).due) is (type_ != "date")
    assert plan(database, ledger, datetime(2026, 9, 11, 0, 1, tzinfo=UTC)).due


@pytest.mark.parametrize("at_", ["-infinity", "0044-03-15 BC"])
def test_a_time_outside_the_calendar_is_never_due(database: Target, ledger: Ledger, tmp_path: Path, at_: str) -> None:
    fill(database, f"create table orders (id int primary key, at timestamp); insert into orders values (1, '{at_}')")  # noqa: S608
    archive(database, ledger, tmp_path, KEPT)
    assert plan(database, ledger).due == ()


@pytest.mark.parametrize("point", cases("decided", "erase removed", sample=("decided",)))
def test_an_expiry_killed_here_is_finished_by_the_next_one(
    database: Target, ledger: Ledger, tmp_path: Path, point: str
) -> None:
    fill(database, ORDERS)
    archive(database, ledger, tmp_path, KEPT)
    killed("expire", database, ledger, tmp_path, prove(database), point, 0, declared=KEPT)
    assert list_archives(ledger, DATABASE) == []
    expire(database, ledger, tmp_path, KEPT)
    assert files(tmp_path) == []
    (gone,), (erasure,) = stored(ledger, RemovedArchive), stored(ledger, Erasure)
    assert None not in (gone.removed_at, erasure.done_at)
    assert ask(database, "select count(*) from orders") == 300
