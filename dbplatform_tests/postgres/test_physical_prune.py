"""Old base backups and WAL go; every moment of the recovery window stays, and whatever a kept backup rests on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from dbplatform.backups.catalogue import Backup, list_backups, mark_proven
from dbplatform.backups.physical.base import reading_chain
from dbplatform.backups.physical.errors import TargetOutside
from dbplatform.backups.physical.past import read_pasts
from dbplatform.backups.physical.prune import PhysicalPrunePlan, apply_prune, plan_prune
from dbplatform.backups.physical.server import key_of
from dbplatform.backups.physical.targets import windows
from dbplatform.backups.policy import BackupPolicy
from dbplatform.ledger.backups import BackupRecord
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.programs import find_programs
from dbplatform_tests.postgres.physical_support import NAME, Archiving, archiving

POLICY = BackupPolicy.model_validate(
    {
        "retain": {"daily": 1, "weekly": 0, "monthly": 0},
        "physical": {"wal_archive": True, "recovery_window": "1 day"},
        "drill": {"max_age": "8 days"},
    }
)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A full backup, an incremental one on it, and a full one that is proven; ten rows behind each."""

    server: Archiving
    first: Backup
    second: Backup
    third: Backup

    def plan(self, *, days: float = 0) -> PhysicalPrunePlan:
        """As it would be in so many days."""
        now = datetime.now(UTC) + timedelta(days=days)
        archive = self.server.archive(self.server.system)
        return plan_prune(self.server.ledger, self.server.system, archive, POLICY, now=now)

    def apply(self, plan: PhysicalPrunePlan, *, days: float = 0) -> PhysicalPrunePlan:
        now = datetime.now(UTC) + timedelta(days=days)
        archive = self.server.archive(self.server.system)
        return apply_prune(self.server.ledger, plan, archive, POLICY, now=now)


@pytest.fixture
def kept(ledger: Ledger) -> Iterator[Kept]:
    with archiving(ledger) as server:
        made = []
        for incremental in (0, 1, 0):
            made.append(server.base(incremental=incremental))
            server.write(10)
            server.switch()
        mark_proven(ledger, made[2].id)
        yield Kept(server=server, first=made[0], second=made[1], third=made[2])


def test_what_leaves_the_window_goes_and_what_is_in_it_stays(kept: Kept) -> None:
    server = kept.server
    now = kept.plan()
    assert [one.backup.id for one in now.keep] == [kept.third.id, kept.first.id]
    assert [backup.id for backup in now.prune] == [kept.second.id]
    # Of the WAL only what was before the first base backup.
    assert {file.name[-1] for file in now.wal} <= {"1"}

    later = kept.plan(days=2)
    assert [one.backup.id for one in later.keep] == [kept.third.id]
    assert [backup.id for backup in later.prune] == [kept.second.id, kept.first.id]
    assert len(later.wal) >= 4
    # What a recovery is reading stays, and so does its WAL's window.
    with reading_chain(server.ledger, [kept.first]):
        assert [backup.id for backup in kept.apply(later, days=2).prune] == [kept.second.id]
    assert [backup.id for backup in kept.apply(kept.plan(days=2), days=2).prune] == [kept.first.id]
    assert {path.name for path in (server.backups / key_of(server.system)).iterdir()} == {kept.third.id, "wal"}

    [window] = windows(server.ledger, read_pasts(server.ledger, NAME, server.archive), find_programs())
    assert (window.start, window.broken_at) == (kept.third.taken_at, None)
    times = server.commit_times()
    assert server.recovered(time=times[24]) == set(range(1, 25))
    with pytest.raises(TargetOutside, match="before the first base backup"):
        server.plan(time=times[14])
    assert kept.apply(kept.plan(days=2), days=2).prune == ()


def test_a_kept_incremental_backup_keeps_what_it_rests_on(kept: Kept) -> None:
    server = kept.server
    mark_proven(server.ledger, kept.second.id)
    with server.ledger.session() as session:
        session.get_one(BackupRecord, kept.third.id).proven_at = None
    reasons = {one.backup.id: one.reasons for one in kept.plan(days=2).keep}
    assert set(reasons) == {kept.first.id, kept.second.id, kept.third.id}
    assert f"{kept.second.id} rests on it" in reasons[kept.first.id]


def test_nothing_is_pruned_while_anything_is_in_doubt(kept: Kept) -> None:
    server = kept.server
    (kept.third.folder / "base.tar.zst").rename(server.root / "aside")
    assert "not what was written" in (kept.plan(days=2).refusal or "")
    (server.root / "aside").rename(kept.third.folder / "base.tar.zst")
    assert "is older than 8 days" in (kept.plan(days=30).refusal or "")
    assert "or of the future" in (kept.plan(days=-2).refusal or "")
    with server.ledger.session() as session:
        session.get_one(BackupRecord, kept.third.id).proven_at = None
    assert "No base backup of the server is proven" in (kept.plan(days=2).refusal or "")
    mark_proven(server.ledger, kept.third.id)
    with server.ledger.session() as session:
        record = session.get_one(BackupRecord, kept.third.id)
        record.status, record.proven_at = "failed", None
    refused = kept.plan(days=2)
    assert "failed: nothing is pruned" in (refused.refusal or "")
    assert (refused.prune, refused.wal) == ((), ())
    assert kept.apply(refused, days=2).prune == ()
    assert len(list_backups(server.ledger, key_of(server.system))) == 3
