"""Removes old base backups and the WAL that no moment of the recovery window needs any more.

What the retention keeps of dumps it keeps of base backups, and with each one all that it rests on. The newest proven
one never goes, and nothing at all while backing up is in trouble. WAL is kept from the base backup with which the
window begins: an older one that is kept can be restored to its own end alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dbplatform import progress
from dbplatform.backups.catalogue import Backup, list_backups
from dbplatform.backups.errors import BackupDamaged
from dbplatform.backups.files import check_files
from dbplatform.backups.holding import held
from dbplatform.backups.physical.archive import WalArchive, WalFile
from dbplatform.backups.physical.base import chain_of
from dbplatform.backups.physical.errors import BaseBackupRunning
from dbplatform.backups.physical.manifest import load_physical
from dbplatform.backups.physical.server import key_of
from dbplatform.backups.physical.wal import HISTORY, Segments, parse_lsn
from dbplatform.backups.policy import BackupPolicy, PhysicalPolicy
from dbplatform.backups.proof import is_fresh
from dbplatform.backups.prune import Kept, kept_for, prune_one
from dbplatform.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalPrunePlan:
    """What would be removed of one server. With a ``refusal``, the sentence that says why, that is nothing."""

    system: str
    keep: tuple[Kept, ...]
    prune: tuple[Backup, ...]
    wal: tuple[WalFile, ...]
    refusal: str | None

    def as_json(self) -> dict[str, Any]:
        """The document of ``backup prune --kind physical --dry-run --json``."""
        return {
            "system_identifier": self.system,
            "refusal": self.refusal,
            "keep": [{**kept.backup.as_json(), "reasons": list(kept.reasons)} for kept in self.keep],
            "prune": [backup.as_json() for backup in self.prune],
            "wal": [file.name for file in self.wal],
        }


def plan_prune(
    ledger: Ledger, system: str, archive: WalArchive, policy: BackupPolicy, *, now: datetime
) -> PhysicalPrunePlan:
    """What the policy no longer wants of one server; only reads, the files of the newest proven base backup too.

    Refuses while the newest attempt is not complete, when nothing is proven, when the files of the newest proven one
    are not what was written, and when its proof is older than ``drill.max_age`` or of the future.
    """
    backups = list_backups(ledger, key_of(system))
    complete = [backup for backup in backups if backup.status == "complete"]
    good = [backup for backup in complete if backup.damage is None and backup.taken_at is not None]
    reasons = kept_for(good, policy.retain)
    reasons |= {backup.id: ["damaged, for a closer look"] for backup in complete if backup.damage is not None}
    proven = next((backup for backup in good if backup.proven_at is not None), None)
    if proven is not None:
        reasons.setdefault(proven.id, []).append("newest proven")
    window = (policy.physical or PhysicalPolicy()).recovery_window
    # Where all are younger, the oldest: every moment since lies in the window.
    begins = next((b for b in good if b.taken_at and b.taken_at <= now - window.timedelta), good[-1] if good else None)
    if begins is not None:
        reasons.setdefault(begins.id, []).append(f"the recovery window of {window} begins with it")
    for backup in good:
        if backup.id in reasons:
            with suppress(BackupDamaged):
                for link, _ in chain_of(ledger, backup)[:-1]:
                    reasons.setdefault(link.id, []).append(f"{backup.id} rests on it")
    refusal = _refusal(backups, proven, policy, now)
    return PhysicalPrunePlan(
        system=system,
        keep=tuple(
            Kept(backup=backup, reasons=tuple(reasons.get(backup.id, ["nothing is pruned now"])))
            for backup in complete
            if refusal or backup.id in reasons
        ),
        prune=() if refusal else tuple(backup for backup in complete if backup.id not in reasons),
        wal=() if refusal or begins is None else _before(begins, archive),
        refusal=refusal,
    )


def apply_prune(
    ledger: Ledger, plan: PhysicalPrunePlan, archive: WalArchive, policy: BackupPolicy, *, now: datetime
) -> PhysicalPrunePlan:
    """Remove what the plan names, as far as a plan made now agrees; what was removed, as a plan.

    Base backups before the WAL, and of the WAL the oldest first, so that a kill leaves no gap. One that is being read
    is left alone. Reports ``prune <server>: marked, removed``. Raises ``BaseBackupRunning`` and ``StorageFailed``.
    """
    with held(ledger, f"base backup {plan.system}") as mine:
        if not mine:
            raise BaseBackupRunning(server=key_of(plan.system), hint="Prune when it has finished.")
        current = plan_prune(ledger, plan.system, archive, policy, now=now)
        wanted, files = {backup.id for backup in plan.prune}, set(plan.wal)
        # Children first: what another one rests on stays as long as that one.
        pruned = tuple(backup for backup in current.prune if backup.id in wanted and prune_one(ledger, backup))
        removed = tuple(file for file in current.wal if file in files)
        for done, file in enumerate(removed):
            progress.report(f"prune {key_of(plan.system)}", done=done, total=len(removed), unit="WAL files")
            archive.store.remove(file.object)
    return PhysicalPrunePlan(system=plan.system, keep=current.keep, prune=pruned, wal=removed, refusal=current.refusal)


def _before(begins: Backup, archive: WalArchive) -> tuple[WalFile, ...]:
    """The WAL that a recovery from ``begins`` or a later base backup does not read, the oldest first."""
    source = load_physical(begins).source
    segments = Segments(source.segment_bytes)
    first = segments.number(parse_lsn(source.start_lsn))
    found = []
    for name, file in archive.files().items():
        if not HISTORY.fullmatch(name):
            timeline, number = segments.parse(name[:24])
            if number < first and timeline <= source.timeline_id:
                found.append((number, name, file))
    return tuple(file for _, _, file in sorted(found, key=lambda one: one[:2]))


def _refusal(backups: Sequence[Backup], proven: Backup | None, policy: BackupPolicy, now: datetime) -> str | None:
    newest = backups[0] if backups else None
    if newest is not None and newest.status != "complete":
        words = "failed" if newest.status == "failed" else "has not finished"
        return f"The newest base backup {newest.id} {words}: nothing is pruned."
    if proven is None or proven.proven_at is None:
        return "No base backup of the server is proven: nothing is pruned. Prove one: dbplatform drill --kind physical"
    if not is_fresh(proven.proven_at, policy.drill.max_age, now=now):
        age = policy.drill.max_age
        return f"The newest proof, of {proven.id}, is older than {age}, or of the future: nothing is pruned."
    with suppress(BackupDamaged):
        if not check_files(proven, load_physical(proven)):
            return None
    return f"The files of the newest proven base backup {proven.id} are not what was written: nothing is pruned."
