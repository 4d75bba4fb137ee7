"""Removes old backups. The newest proven one is never removed, and nothing at all while backing up is in trouble.

A pruned backup first stops being one in the ledger, then loses its name, then its files: killed at any point, nothing
that is half gone is listed, and the next prune or backup clears the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dbplatform import progress
from dbplatform.backups.catalogue import Backup, list_backups, mark_pruned, mark_removed, status_of
from dbplatform.backups.files import remove_backup
from dbplatform.backups.holding import held
from dbplatform.backups.policy import BackupPolicy, RetainPolicy
from dbplatform.backups.proof import is_fresh, newest_proven, proven_snapshot
from dbplatform.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A backup that stays, and why."""

    backup: Backup
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """What would be removed. With a ``refusal``, the sentence that says why nothing may be, that is nothing."""

    database: str
    keep: tuple[Kept, ...]
    prune: tuple[Backup, ...]
    refusal: str | None

    def as_json(self) -> dict[str, Any]:
        """The document of ``backup prune --dry-run --json``."""
        return {
            "database": self.database,
            "refusal": self.refusal,
            "keep": [{**kept.backup.as_json(), "reasons": list(kept.reasons)} for kept in self.keep],
            "prune": [backup.as_json() for backup in self.prune],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneReport:
    """What was removed."""

    database: str
    pruned: tuple[str, ...]
    in_use: tuple[str, ...]
    """Left alone this time: a restore, a drill or a verification reads them."""
    refusal: str | None

    def as_json(self) -> dict[str, Any]:
        """The document of ``backup prune --json``."""
        return {
            "database": self.database,
            "refusal": self.refusal,
            "pruned": list(self.pruned),
            "in_use": list(self.in_use),
        }


def plan_prune(ledger: Ledger, database: str, policy: BackupPolicy, *, now: datetime) -> PrunePlan:
    """Which backups the policy no longer wants; only reads, the files of the newest proven backup too.

    Refuses while the newest attempt is not complete, when nothing is proven, when the files of the newest proven
    backup are not what was written, and when its proof is older than ``drill.max_age`` or of the future. Attempts that
    failed or still run count for nothing. A backup of a part stays as long as an older one of everything, and stands
    for no day.
    """
    backups = [backup for backup in list_backups(ledger, database) if backup.kind == "logical"]
    complete = [backup for backup in backups if backup.status == "complete"]
    reasons = kept_for([backup for backup in complete if backup.whole and backup.damage is None], policy.retain)
    reasons |= {backup.id: ["damaged, for a closer look"] for backup in complete if backup.damage is not None}
    proven = newest_proven(ledger, database)
    if proven is not None:
        reasons.setdefault(proven.id, []).append("newest proven")
    reasons |= _partial(complete, set(reasons))
    refusal = _refusal(ledger, database, backups, policy, now)
    return PrunePlan(
        database=database,
        keep=tuple(
            Kept(backup=b, reasons=tuple(reasons.get(b.id, ["nothing is pruned now"])))
            for b in complete
            if refusal or b.id in reasons
        ),
        prune=() if refusal else tuple(b for b in complete if b.id not in reasons),
        refusal=refusal,
    )


def apply_prune(ledger: Ledger, plan: PrunePlan, policy: BackupPolicy, *, now: datetime) -> PruneReport:
    """Remove what the plan names, as far as a plan made now agrees; and what a killed prune left behind.

    A backup that is being read is left alone. Reports ``prune <database>: begun, marked, removed`` for each. Can be
    run twice.
    """
    database = plan.database
    for backup in list_backups(ledger, database, pruned=True, left=True):
        if backup.status == "pruned" and backup.kind == "logical":
            remove_backup(backup)
            mark_removed(ledger, backup.id)
    current = plan_prune(ledger, database, policy, now=now)
    wanted = {backup.id for backup in plan.prune}
    pruned: list[str] = []
    in_use: list[str] = []
    for backup in current.prune:
        if backup.id not in wanted:
            continue
        _step(database, "begun")
        (pruned if prune_one(ledger, backup) else in_use).append(backup.id)
    return PruneReport(database=database, pruned=tuple(pruned), in_use=tuple(in_use), refusal=current.refusal)


def prune_one(ledger: Ledger, backup: Backup) -> bool:
    """Remove one complete backup; whether nobody was reading it. Reports ``prune <database>: marked, removed``."""
    with held(ledger, backup.lock) as mine:
        if not mine or status_of(ledger, backup) != "complete":
            return False
        mark_pruned(ledger, backup.id)
        _step(backup.database, "marked")
        remove_backup(backup)
        mark_removed(ledger, backup.id)
        _step(backup.database, "removed")
    return True


def _refusal(
    ledger: Ledger, database: str, backups: Sequence[Backup], policy: BackupPolicy, now: datetime
) -> str | None:
    newest = backups[0] if backups else None
    if newest is not None and newest.status != "complete":
        words = "failed" if newest.status == "failed" else "has not finished"
        return f"The newest backup {newest.id} {words}: nothing is pruned."
    proven = newest_proven(ledger, database)
    if proven is None or proven.proven_at is None:
        return f"No backup of {database} is proven: nothing is pruned. Prove one: dbplatform drill {database}"
    if not is_fresh(proven.proven_at, policy.drill.max_age, now=now):
        return (
            f"The newest proof, of {proven.id}, is older than {policy.drill.max_age}, or of the future: "
            f"nothing is pruned. Make a new one: dbplatform drill {database}"
        )
    if proven_snapshot(ledger, database) is None:
        return (
            f"The files of the newest proven backup {proven.id} are not what was written: nothing is pruned. "
            f"See which: dbplatform backup verify {database} {proven.id}"
        )
    return None


def kept_for(complete: Sequence[Backup], retain: RetainPolicy) -> dict[str, list[str]]:
    """Why each is kept: the newest of the last so many days, ISO weeks and months that have one, in UTC."""
    reasons: dict[str, list[str]] = {}
    periods: tuple[tuple[str, int, Callable[[datetime], str]], ...] = (
        ("daily", retain.daily, lambda t: f"{t:%Y-%m-%d}"),
        ("weekly", retain.weekly, lambda t: f"{t:%G-W%V}"),
        ("monthly", retain.monthly, lambda t: f"{t:%Y-%m}"),
    )
    newest_first = sorted(
        ((b.taken_at.astimezone(UTC), b.id) for b in complete if b.taken_at is not None), reverse=True
    )
    for word, count, period_of in periods:
        seen: set[str] = set()
        for taken_at, id in newest_first:
            period = period_of(taken_at)
            if period in seen:
                continue
            if len(seen) == count:
                break
            seen.add(period)
            reasons.setdefault(id, []).append(f"{word} {period}")
    return reasons


def _partial(complete: Sequence[Backup], kept: set[str]) -> dict[str, list[str]]:
    """Backups of a part stand for no day: each stays as long as an older one of everything does."""
    times = [b.taken_at for b in complete if b.whole and b.id in kept and b.taken_at is not None]
    oldest = min(times, default=None)
    return {
        b.id: [f"{b.scope} alone; a backup of everything that is older stays"]
        for b in complete
        if not b.whole and (oldest is None or (b.taken_at is not None and b.taken_at >= oldest))
    }


def _step(database: str, fact: str) -> None:
    progress.report(f"prune {database}: {fact}", done=1, total=1, unit="step")
