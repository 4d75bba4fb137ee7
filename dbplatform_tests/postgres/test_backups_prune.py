"""Pruning keeps what the policy says and the newest proven backup, and removes nothing while anything is in doubt."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from dbplatform.backups.catalogue import (
    Backup,
    complete,
    find_backup,
    list_backups,
    mark_damaged,
    new_attempt,
    reading,
    register,
)
from dbplatform.backups.files import describe_files
from dbplatform.backups.manifest import Locale, Manifest, Source, write_manifest
from dbplatform.backups.policy import BackupPolicy
from dbplatform.backups.proof import proven_snapshot
from dbplatform.backups.prune import apply_prune, plan_prune
from dbplatform.ledger.backups import BackupRecord
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.backups_support import KEEP_ONE, NAME, flip_byte, hidden, killed_at, statuses, visible

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def make(ledger: Ledger, tmp_path: Path) -> Callable[..., Backup]:
    """Complete backups of any age, with a file each, without a database."""

    def complete_backup(age: timedelta, *, proven: bool = False, status: str = "complete") -> Backup:
        taken_at = NOW - age
        backup = new_attempt(NAME, str(tmp_path), now=taken_at)
        register(ledger, backup, run_id=None)
        if status == "complete":
            (backup.folder / "dump").mkdir(parents=True)
            (backup.folder / "dump" / "toc.dat").write_text(f"the data of {backup.id}")
            manifest = Manifest(
                id=backup.id,
                database=NAME,
                started_at=taken_at,
                finished_at=taken_at,
                source=_source(taken_at),
                program="17.10",
                program_major=17,
                compression="none",
                warnings=(),
                tables=(),
                files=describe_files(backup.folder, task="test"),
            )
            complete(ledger, backup.id, manifest, write_manifest(manifest, backup.folder))
        with ledger.session() as session:
            session.execute(
                update(BackupRecord)
                .where(BackupRecord.id == backup.id)
                .values(status=status, proven_at=NOW - timedelta(days=1) if proven else None)
            )
        return next(b for b in list_backups(ledger, NAME) if b.id == backup.id)

    return complete_backup


def _source(taken_at: datetime) -> Source:
    return Source(
        database=NAME,
        database_oid=1,
        system_identifier="7",
        server_version="17.10",
        server_major=17,
        snapshot="10:20:10,11",
        wal_lsn="0/0",
        taken_at=taken_at,
        database_bytes=1,
        owner="postgres",
        locale=Locale(encoding="UTF8", provider="libc", collate="C", ctype="C", locale=None, rules=None),
        settings={},
        extensions=(),
        roles=(),
    )


def days(number: float) -> timedelta:
    return timedelta(days=number)


def policy(**retain: int) -> BackupPolicy:
    return BackupPolicy.model_validate({"retain": retain})


def test_the_newest_of_each_day_week_and_month_stays(ledger: Ledger, make: Callable[..., Backup]) -> None:
    firsts = [datetime(2025, 12, 1, tzinfo=UTC), *(datetime(2026, month, 1, tzinfo=UTC) for month in range(1, 12))]
    ages = {*range(24), *((NOW - first).days + more for first in firsts for more in (1, 2))}
    for age in ages:
        make(days(age), proven=age == 0)
    second_of_today = make(timedelta(hours=1))
    plan = plan_prune(ledger, NAME, policy(daily=7, weekly=4, monthly=12), now=NOW)
    kept = sorted(kept.backup.taken_at.date().isoformat() for kept in plan.keep if kept.backup.taken_at)
    # 2026-11-21 is a Saturday; weeks end on Sundays, of which the 15th, 8th and 1st are older than 7 days or not.
    assert kept == [
        "2025-12-31", "2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31", "2026-06-30",
        "2026-07-31", "2026-08-31", "2026-09-30", "2026-10-31", "2026-11-01", "2026-11-08",
        *[f"2026-11-{day}" for day in range(15, 22)],
    ]  # fmt: skip
    assert second_of_today.id in {backup.id for backup in plan.prune}
    assert len(plan.keep) + len(plan.prune) == len(ages) + 1
    newest = next(kept for kept in plan.keep if "newest proven" in kept.reasons)
    assert newest.reasons == ("daily 2026-11-21", "weekly 2026-W47", "monthly 2026-11", "newest proven")


def test_a_gap_does_not_make_old_backups_go(ledger: Ledger, make: Callable[..., Backup]) -> None:
    old = [make(days(300 + age), proven=age == 0) for age in range(3)]
    plan = plan_prune(ledger, NAME, policy(daily=3, weekly=0, monthly=0), now=NOW)
    assert {kept.backup.id for kept in plan.keep} == {backup.id for backup in old}


def test_the_newest_proven_backup_stays_however_old(
    ledger: Ledger, make: Callable[..., Backup], tmp_path: Path
) -> None:
    proven = make(days(30), proven=True)
    older = make(days(40), proven=True)
    middle = make(days(20))
    newest = make(days(0))
    plan = plan_prune(ledger, NAME, KEEP_ONE, now=NOW)
    assert [backup.id for backup in plan.prune] == [middle.id, older.id]
    report = apply_prune(ledger, plan, KEEP_ONE, now=NOW)
    assert report.pruned == (middle.id, older.id)
    assert visible(tmp_path) == {proven.id, newest.id}
    assert hidden(tmp_path) == set()
    assert {backup.id for backup in list_backups(ledger, NAME)} == {proven.id, newest.id}
    assert apply_prune(ledger, plan, KEEP_ONE, now=NOW).pruned == (), "it can be run twice"


@pytest.mark.parametrize("status", ["failed", "running"])
def test_nothing_is_pruned_while_the_newest_attempt_is_not_complete(
    ledger: Ledger, make: Callable[..., Backup], tmp_path: Path, status: str
) -> None:
    old = [make(days(age), proven=True) for age in (3, 2, 1)]
    plan = plan_prune(ledger, NAME, KEEP_ONE, now=NOW)
    assert len(plan.prune) == 2
    make(days(0), status=status)
    assert plan_prune(ledger, NAME, KEEP_ONE, now=NOW).prune == ()
    report = apply_prune(ledger, plan, KEEP_ONE, now=NOW)
    assert report.pruned == (), "what was planned before is looked at again"
    assert report.refusal is not None
    assert visible(tmp_path) == {backup.id for backup in old}


def test_attempts_that_failed_count_for_nothing(ledger: Ledger, make: Callable[..., Backup]) -> None:
    make(days(2), proven=True)
    make(days(1), status="failed")
    make(days(0))
    plan = plan_prune(ledger, NAME, policy(daily=2, weekly=0, monthly=0), now=NOW)
    assert len(plan.keep) == 2
    assert plan.prune == ()


def test_a_damaged_backup_takes_no_others_place(ledger: Ledger, make: Callable[..., Backup]) -> None:
    good = make(days(2), proven=True)
    older = make(days(3))
    damaged = make(days(1))
    mark_damaged(ledger, damaged.id, ["toc.dat is missing"])
    plan = plan_prune(ledger, NAME, KEEP_ONE, now=NOW)
    assert [backup.id for backup in plan.prune] == [older.id]
    reasons = {kept.backup.id: kept.reasons for kept in plan.keep}
    assert reasons[good.id][0] == "daily 2026-11-19"
    assert reasons[damaged.id] == ("damaged, for a closer look",)


def test_nothing_is_pruned_when_nothing_is_proven(ledger: Ledger, make: Callable[..., Backup]) -> None:
    for age in range(5):
        make(days(age))
    plan = plan_prune(ledger, NAME, KEEP_ONE, now=NOW)
    assert plan.prune == ()
    assert plan.refusal == f"No backup of {NAME} is proven: nothing is pruned. Prove one: dbplatform drill {NAME}"
    assert plan_prune(ledger, "other", KEEP_ONE, now=NOW).refusal is not None


def test_nothing_is_pruned_on_an_old_proof(ledger: Ledger, make: Callable[..., Backup]) -> None:
    make(days(1), proven=True)
    make(days(0), proven=True)
    assert len(plan_prune(ledger, NAME, KEEP_ONE, now=NOW).prune) == 1
    plan = plan_prune(ledger, NAME, KEEP_ONE, now=NOW + days(8))
    assert plan.prune == ()
    assert "older than 8 days" in (plan.refusal or "")


@pytest.mark.parametrize("off", [days(3650), days(-3650), days(-2)], ids=["ahead", "years behind", "days behind"])
def test_a_clock_that_jumps_removes_nothing_until_it_is_right_again(
    ledger: Ledger, make: Callable[..., Backup], tmp_path: Path, off: timedelta
) -> None:
    old, proven, newest = make(days(30), proven=True), make(days(20), proven=True), make(days(0))
    plan = plan_prune(ledger, NAME, KEEP_ONE, now=NOW + off)
    assert plan.refusal is not None
    assert "or of the future" in plan.refusal
    assert apply_prune(ledger, plan, KEEP_ONE, now=NOW + off).pruned == ()
    assert visible(tmp_path) == {old.id, proven.id, newest.id}
    apply_prune(ledger, plan_prune(ledger, NAME, KEEP_ONE, now=NOW), KEEP_ONE, now=NOW)
    assert visible(tmp_path) == {proven.id, newest.id}


def test_a_clock_that_is_a_little_ahead_keeps_the_newest_proven_backup(
    ledger: Ledger, make: Callable[..., Backup], tmp_path: Path
) -> None:
    old, proven, newest = make(days(30), proven=True), make(days(20), proven=True), make(days(0))
    now = NOW + days(3)
    assert apply_prune(ledger, plan_prune(ledger, NAME, KEEP_ONE, now=now), KEEP_ONE, now=now).pruned == (old.id,)
    assert visible(tmp_path) == {proven.id, newest.id}


def test_nothing_is_pruned_when_the_proven_files_have_changed(
    ledger: Ledger, make: Callable[..., Backup], tmp_path: Path
) -> None:
    make(days(2))
    proven = make(days(1), proven=True)
    make(days(0))
    plan = plan_prune(ledger, NAME, KEEP_ONE, now=NOW)
    assert len(plan.prune) == 1
    assert proven_snapshot(ledger, NAME) is not None
    flip_byte(proven.dump / "toc.dat")
    assert proven_snapshot(ledger, NAME) is None
    report = apply_prune(ledger, plan, KEEP_ONE, now=NOW)
    assert report.pruned == ()
    assert "are not what was written" in (report.refusal or "")
    assert len(visible(tmp_path)) == 3


def test_a_backup_that_is_being_read_is_left_alone(ledger: Ledger, make: Callable[..., Backup]) -> None:
    old = make(days(1))
    make(days(0), proven=True)
    plan = plan_prune(ledger, NAME, KEEP_ONE, now=NOW)
    with reading(ledger, old):
        report = apply_prune(ledger, plan, KEEP_ONE, now=NOW)
    assert (report.pruned, report.in_use) == ((), (old.id,))
    assert apply_prune(ledger, plan, KEEP_ONE, now=NOW).pruned == (old.id,)


def test_the_proof_is_of_the_newest_data(ledger: Ledger, make: Callable[..., Backup]) -> None:
    make(days(3), proven=True)
    newest = make(days(1), proven=True)
    make(days(0))
    proof = proven_snapshot(ledger, NAME)
    assert proof is not None
    assert proof.backup_id == newest.id
    assert (proof.snapshot, proof.system_identifier, proof.database_oid) == ("10:20:10,11", "7", 1)
    assert proof.taken_at == NOW - days(1)
    assert proven_snapshot(ledger, "other") is None


@pytest.mark.parametrize("fact", cases("begun", "marked", "removed", sample=("marked",)))
def test_killed_here_what_is_half_gone_is_not_listed_and_the_next_prune_clears_it(
    ledger: Ledger, make: Callable[..., Backup], tmp_path: Path, database: Target, server_url: str, fact: str
) -> None:
    with ledger.session() as session:
        old = make(days(1))
        newest = make(days(0))
        session.execute(update(BackupRecord).where(BackupRecord.id == newest.id).values(proven_at=datetime.now(UTC)))
    killed_at(
        "prune", f"prune {NAME}: {fact}", database=database, ledger=ledger, folder=tmp_path, server_url=server_url
    )
    assert statuses(ledger) == ["complete" if fact == "begun" else "pruned", "complete"]
    now = datetime.now(UTC)
    apply_prune(ledger, plan_prune(ledger, NAME, KEEP_ONE, now=now), KEEP_ONE, now=now)
    assert statuses(ledger) == ["pruned", "complete"]
    assert visible(tmp_path) == {newest.id}
    assert hidden(tmp_path) == set()
    assert find_backup(ledger, NAME).id == newest.id
    assert old.id not in {backup.id for backup in list_backups(ledger, NAME)}
