"""Backups of a declared database: taken, proven by a restore, restored, pruned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dbplatform import machines
from dbplatform.archiving.replay import replay
from dbplatform.backups import catalogue, create, extract, proof, prune, restore, verify
from dbplatform.backups import drill as drills
from dbplatform.backups import rebuild as rebuilding
from dbplatform.backups import table as restore_table
from dbplatform.backups.catalogue import Backup
from dbplatform.backups.destination import Destination
from dbplatform.backups.drill import DrillReport
from dbplatform.backups.errors import UnknownBackup
from dbplatform.backups.policy import BackupPolicy
from dbplatform.backups.scope import scope_of
from dbplatform.declaration.loading import Declared
from dbplatform.operations.gates import not_declared
from dbplatform.operations.platform import Platform
from dbplatform.operations.scratch import drill_server
from dbplatform.postgres.clock import agreed_now
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.programs import find_programs
from dbplatform.storage.place import S3_SCHEME
from dbplatform.storage.store import ServerSideEncryption

__all__ = ["Backup", "DrillReport", "scope_of"]


def take(platform: Platform, declared: Declared, *, only: Sequence[str] = (), run_id: str | None = None) -> Backup:
    """Back the database up: one snapshot, dumped, counted and hashed; listed as complete when all of it is there.

    ``only``: ``schema``, ``data``, or tables; such a backup proves nothing of the database.
    """
    policy = policy_of(declared)
    return create.create_backup(
        platform.target_as(declared, "backup"),
        destination_of(platform, declared),
        policy,
        platform.ledger,
        database=declared.name,
        programs=find_programs(),
        scope=scope_of(only),
        run_id=run_id,
    )


def newest(platform: Platform, declared: Declared) -> Backup:
    """The newest complete backup; raises ``UnknownBackup``."""
    return found(platform, declared)


def found(platform: Platform, declared: Declared, backup_id: str | None = None) -> Backup:
    """The backup of that id, by default the newest complete one of everything.

    What the ledger does not know is looked for at the destination: it may be younger than its backups. Raises
    ``UnknownBackup``, ``NotRestorable`` or ``StorageFailed``.
    """
    try:
        return catalogue.find_backup(platform.ledger, declared.name, backup_id)
    except UnknownBackup:
        if declared.database.backups is None or not rebuild(platform, declared):
            raise
        return catalogue.find_backup(platform.ledger, declared.name, backup_id)


def known(platform: Platform, declared: Declared) -> tuple[Backup, ...]:
    """Every attempt that was not pruned, the newest first; with an empty ledger, what lies at the destination."""
    if declared.database.backups is not None and not catalogue.list_backups(
        platform.ledger, declared.name, pruned=True
    ):
        rebuild(platform, declared)
    return catalogue.list_backups(platform.ledger, declared.name)


def rebuild(platform: Platform, declared: Declared) -> tuple[str, ...]:
    """Take up every backup at the destination that the ledger does not know; their ids."""
    return rebuilding.rebuild(platform.ledger, destination_of(platform, declared), declared.name)


def examine(platform: Platform, declared: Declared, backup_id: str | None) -> verify.Verification:
    """Read a backup from end to end; by default the newest complete one."""
    backup = found(platform, declared, backup_id)
    return verify.verify_backup(backup, platform.ledger, programs=find_programs(), work=work_of(platform))


def prove(platform: Platform, declared: Declared, *, run_id: str | None = None) -> DrillReport:
    """Restore the newest complete backup on a scratch server, compare it with what was dumped, check it, drop it."""
    from dbplatform.operations import drill_checks

    policy = policy_of(declared)
    backup = found(platform, declared)
    server, room = drill_server(platform, declared)
    return drills.drill(
        backup,
        platform.ledger,
        server,
        programs=find_programs(),
        jobs=policy.logical.jobs,
        room=room,
        work=work_of(platform),
        run_id=run_id,
        examine=drill_checks.examination(platform, declared, at=backup.taken_at),
    )


def plan_restore(
    platform: Platform, declared: Declared, *, backup_id: str | None, into: str, replace: str | None
) -> Backup:
    """Look at all that a restore needs; the backup that it would restore. Only reads.

    The files of one in a bucket are compared when the restore fetches them, which is before it changes anything.
    """
    backup = found(platform, declared, backup_id)
    server = beside(platform.target(declared), into)
    restore.check_restore(backup, server, into, platform.ledger, replace=replace, compare_files=not backup.in_bucket)
    return backup


def bring_back(
    platform: Platform,
    declared: Declared,
    backup: Backup,
    *,
    into: str,
    replace: str | None,
    run_id: str | None = None,
    before_renamed: Callable[[], None] = lambda: None,
) -> restore.RestoreReport:
    """Restore into the database ``into`` on the server of the declared one, compared before it gets its name.

    Rows that were erased on purpose since the backup are erased again before that.
    """
    policy = declared.database.backups or BackupPolicy()
    server = platform.target(declared)
    with platform.ledger.operation(declared.name, "restore", run_id=run_id) as summary:
        report = restore.restore_backup(
            backup,
            beside(server, into),
            into,
            platform.ledger,
            programs=find_programs(),
            jobs=policy.logical.jobs,
            replace=replace,
            work=work_of(platform),
            before_named=lambda restored: erase_again(platform, declared, restored),
            before_renamed=before_renamed,
        )
        summary.update(report.as_json())
        return report


def plan_table(
    platform: Platform,
    declared: Declared,
    table: Relation,
    *,
    backup_id: str | None,
    aside: str | None,
    into: str | None,
) -> Backup:
    """Look at what the restore of one table needs; the backup that it would come from. Only reads."""
    backup = found(platform, declared, backup_id)
    restore_table.check_table(backup, platform.target(declared), table, aside=aside, into=into)
    return backup


def bring_back_table(
    platform: Platform,
    declared: Declared,
    backup: Backup,
    table: Relation,
    *,
    aside: str | None,
    into: str | None,
    run_id: str | None = None,
) -> restore_table.TableReport:
    """Restore one table: in its place, into a new schema, or into a new database. Under the writer lock.

    Rows of it that were erased on purpose since the backup are erased again before it gets there.
    """
    policy = declared.database.backups or BackupPolicy()
    with (
        platform.writer(declared, "restore"),
        platform.ledger.operation(declared.name, "restore_table", run_id=run_id) as summary,
    ):
        report = restore_table.restore_table(
            backup,
            platform.target(declared),
            table,
            platform.ledger,
            programs=find_programs(),
            jobs=policy.logical.jobs,
            aside=aside,
            into=into,
            work=work_of(platform),
            before_named=lambda restored: erase_again(platform, declared, restored, since=backup.taken_at),
        )
        summary.update(report.as_json())
        return report


def write_roles(platform: Platform, declared: Declared, backup_id: str | None, file: Path) -> Backup:
    """Write the roles that lie beside a backup into a new file, as SQL; the backup. Raises ``NoRoles``."""
    backup = found(platform, declared, backup_id)
    extract.write_globals(backup, platform.ledger, file)
    return backup


def plan_prune(platform: Platform, declared: Declared) -> prune.PrunePlan:
    """What the retention would remove; nothing while the newest proof is missing or too old."""
    return prune.plan_prune(platform.ledger, declared.name, policy_of(declared), now=datetime.now(UTC))


def apply_prune(platform: Platform, declared: Declared, planned: prune.PrunePlan) -> prune.PruneReport:
    """Remove what is planned, each backup checked again; recorded when there is something to remove.

    Raises ``ClocksApart`` where the ledger's server contradicts this machine's clock.
    """
    policy = policy_of(declared)
    with connect(platform.ledger.target, work="prune") as connection:
        now = agreed_now(connection)
    if not planned.prune:
        return prune.apply_prune(platform.ledger, planned, policy, now=now)
    with platform.ledger.operation(declared.name, "prune") as summary:
        report = prune.apply_prune(platform.ledger, planned, policy, now=now)
        summary.update(report.as_json())
        return report


def destination_of(platform: Platform, declared: Declared) -> Destination:
    """Where the backups lie: the declared bucket, or folder as seen from the project; by default one in its home.

    Raises ``OnOneMachine``.
    """
    policy = policy_of(declared)
    root = policy.destination or str(platform.home.backups)
    if not root.startswith(S3_SCHEME):
        root = str((platform.project.root / root).absolute())
        hint = "Declare a bucket: backups: {destination: s3://bucket/prefix}."
        machines.refuse_on_one(f"The backups of {declared.name}", root, hint=hint)
    method = policy.server_side_encryption
    return Destination(
        root=root,
        work=work_of(platform),
        encryption=ServerSideEncryption(method=method, kms_key_id=policy.kms_key_id) if method else None,
    )


def made_in(platform: Platform, declared: Declared) -> Path:
    """The folder on this host in which its backups are made: the disk that has to have room."""
    destination = destination_of(platform, declared)
    if destination.in_bucket or policy_of(declared).encrypt_to:
        return destination.work
    return Path(destination.location())


def work_of(platform: Platform) -> Path:
    """The folder for what is on its way to a destination, or back."""
    return platform.home.backups / ".work"


def newest_proof(platform: Platform, declared: Declared) -> proof.ProvenSnapshot | None:
    """The snapshot of the newest backup that a restore has proven, its files read again."""
    return proof.proven_snapshot(platform.ledger, declared.name)


def erase_again(
    platform: Platform, declared: Declared, restored: Target, *, since: datetime | None = None
) -> dict[str, int]:
    """Erase in a restored database what was erased on purpose since the backup; so many rows by table.

    ``since`` says when it was taken, where the rows of one table alone are restored, and not what the copy has seen.
    """
    with connect(restored, work="erase again") as connection:
        return replay(connection, platform.ledger, declared.name, since=since).rows


def beside(target: Target, name: str) -> Target:
    """The same server, but not the database that is about to be replaced."""
    other = "postgres" if conninfo_to_dict(target.url).get("dbname") == name else None
    return Target(target.name, make_conninfo(target.url, dbname=other)) if other else target


def policy_of(declared: Declared) -> BackupPolicy:
    """What is declared of backups; raises ``NotDeclared``."""
    if declared.database.backups is None:
        raise not_declared(declared, "backups", "backups")
    return declared.database.backups
