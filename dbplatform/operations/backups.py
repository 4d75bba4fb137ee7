"""Backups of a declared database: taken, proven by a restore, restored, pruned."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dbplatform.backups import catalogue, create, proof, prune, restore, verify
from dbplatform.backups import drill as drills
from dbplatform.backups.catalogue import Backup
from dbplatform.backups.drill import DrillReport
from dbplatform.backups.policy import BackupPolicy
from dbplatform.declaration.loading import Declared
from dbplatform.operations.gates import not_declared
from dbplatform.operations.platform import Platform
from dbplatform.operations.scratch import drill_server
from dbplatform.postgres.connection import Target
from dbplatform.postgres.programs import find_programs

__all__ = ["Backup", "DrillReport"]


def take(platform: Platform, declared: Declared, *, run_id: str | None = None) -> Backup:
    """Back the database up: one snapshot, dumped, counted and hashed; listed as complete when all of it is there."""
    policy = policy_of(declared)
    return create.create_backup(
        platform.target(declared),
        folder_of(platform, policy),
        policy,
        platform.ledger,
        database=declared.name,
        programs=find_programs(),
        run_id=run_id,
    )


def newest(platform: Platform, declared: Declared) -> Backup:
    """The newest complete backup; raises ``UnknownBackup``."""
    return catalogue.find_backup(platform.ledger, declared.name)


def known(platform: Platform, declared: Declared) -> tuple[Backup, ...]:
    """Every attempt that was not pruned, the newest first."""
    return catalogue.list_backups(platform.ledger, declared.name)


def examine(platform: Platform, declared: Declared, backup_id: str | None) -> verify.Verification:
    """Read a backup from end to end; by default the newest complete one."""
    backup = catalogue.find_backup(platform.ledger, declared.name, backup_id)
    return verify.verify_backup(backup, platform.ledger, programs=find_programs())


def prove(platform: Platform, declared: Declared, *, run_id: str | None = None) -> DrillReport:
    """Restore the newest complete backup on a scratch server, compare it with what was dumped, drop it again."""
    policy = policy_of(declared)
    backup = catalogue.find_backup(platform.ledger, declared.name)
    server, room = drill_server(platform, declared)
    return drills.drill(
        backup,
        platform.ledger,
        server,
        programs=find_programs(),
        jobs=policy.logical.jobs,
        room=room,
        run_id=run_id,
    )


def plan_restore(
    platform: Platform, declared: Declared, *, backup_id: str | None, into: str, replace: str | None
) -> Backup:
    """Look at all that a restore needs; the backup that it would restore. Only reads."""
    backup = catalogue.find_backup(platform.ledger, declared.name, backup_id)
    server = _beside(platform.target(declared), into)
    restore.check_restore(backup, server, into, platform.ledger, replace=replace)
    return backup


def bring_back(
    platform: Platform, declared: Declared, backup: Backup, *, into: str, replace: str | None
) -> restore.RestoreReport:
    """Restore into the database ``into`` on the server of the declared one, compared before it gets its name."""
    policy = declared.database.backups or BackupPolicy()
    server = platform.target(declared)
    with platform.ledger.operation(declared.name, "restore") as summary:
        report = restore.restore_backup(
            backup,
            _beside(server, into),
            into,
            platform.ledger,
            programs=find_programs(),
            jobs=policy.logical.jobs,
            replace=replace,
        )
        summary.update(report.as_json())
        return report


def plan_prune(platform: Platform, declared: Declared) -> prune.PrunePlan:
    """What the retention would remove; nothing while the newest proof is missing or too old."""
    return prune.plan_prune(platform.ledger, declared.name, policy_of(declared), now=datetime.now(UTC))


def apply_prune(platform: Platform, declared: Declared, planned: prune.PrunePlan) -> prune.PruneReport:
    """Remove what is planned, each backup checked again."""
    with platform.ledger.operation(declared.name, "prune") as summary:
        report = prune.apply_prune(platform.ledger, planned, policy_of(declared), now=datetime.now(UTC))
        summary.update(report.as_json())
        return report


def folder_of(platform: Platform, policy: BackupPolicy) -> Path:
    """Where the backups lie: the declared folder, seen from the project; by default ``backups`` in its home."""
    return platform.project.root / policy.destination if policy.destination else platform.home.backups


def newest_proof(platform: Platform, declared: Declared) -> proof.ProvenSnapshot | None:
    """The snapshot of the newest backup that a restore has proven, its files read again."""
    return proof.proven_snapshot(platform.ledger, declared.name)


def _beside(target: Target, name: str) -> Target:
    """The same server, but not the database that is about to be replaced."""
    other = "postgres" if conninfo_to_dict(target.url).get("dbname") == name else None
    return Target(target.name, make_conninfo(target.url, dbname=other)) if other else target


def policy_of(declared: Declared) -> BackupPolicy:
    """What is declared of backups; raises ``NotDeclared``."""
    if declared.database.backups is None:
        raise not_declared(declared, "backups", "backups")
    return declared.database.backups
