"""Archives of a declared database. Rows leave it only behind a proven backup that holds them: the gate is here."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from dbplatform.archiving import catalogue, restore
from dbplatform.archiving.apply import ArchiveReport, apply_archive
from dbplatform.archiving.delete import GENTLE, Throttle
from dbplatform.archiving.plan import ArchivePlan, plan_archive
from dbplatform.archiving.policy import ArchivePolicy
from dbplatform.archiving.proof import ProvenSnapshot
from dbplatform.backups.policy import BackupPolicy
from dbplatform.backups.proof import is_fresh
from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError
from dbplatform.operations import backups
from dbplatform.operations.gates import not_declared
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import connect
from dbplatform.postgres.identifiers import Relation

#: Away from production nobody is disturbed by a delete without pauses.
_BRISK = Throttle(pause_s=0.0)


class UnknownArchiveName(UsageError):
    """The database {database} declares no archive {name!r}."""


def policies(declared: Declared, name: str | None = None) -> list[ArchivePolicy]:
    """The declared archives, or the one of that name."""
    declared_archives = declared.database.archives
    if not declared_archives:
        raise not_declared(declared, "archives", "archives")
    chosen = [policy for policy in declared_archives if name in (None, policy.name)]
    if not chosen:
        names = ", ".join(policy.name for policy in declared_archives)
        raise UnknownArchiveName(database=declared.name, name=name, hint=f"Declared are: {names}.")
    return chosen


def plan(platform: Platform, declared: Declared, policy: ArchivePolicy) -> ArchivePlan:
    """The rows that are old enough, and how many of them a proven backup holds; only reads."""
    index = declared.database.archives.index(policy)
    with (
        connect(platform.target(declared), work="archive plan") as connection,
        declared.written_at("archives", index, "table"),
    ):
        return plan_archive(connection, policy, now=datetime.now(UTC), proof=_proof(platform, declared, policy))


def apply(platform: Platform, declared: Declared, policy: ArchivePolicy, *, run_id: str | None = None) -> ArchiveReport:
    """Move what is old enough and proven into a file, read it back, then delete exactly those rows.

    Under the writer lock. Raises ``NotProven`` where no fresh proof holds the table.
    """
    production = declared.database.connection.environment == "production"
    with (
        platform.writer(declared, "archive") as connection,
        platform.ledger.operation(declared.name, "archive", run_id=run_id) as summary,
    ):
        report = apply_archive(
            connection,
            policy,
            platform.ledger,
            folder_of(platform, policy),
            database=declared.name,
            proof=_proof(platform, declared, policy),
            recheck=lambda: _proof(platform, declared, policy),
            now=datetime.now(UTC),
            throttle=GENTLE if production else _BRISK,
        )
        summary.update(report.as_json())
        return report


def known(platform: Platform, declared: Declared) -> list[catalogue.ArchiveEntry]:
    """Every archive of the database, as the ledger has it."""
    return catalogue.list_archives(platform.ledger, declared.name)


def examine(platform: Platform, declared: Declared, archive_id: str) -> catalogue.ArchiveVerification:
    """Read an archive's file from end to end."""
    return catalogue.verify_archive(platform.ledger, declared.name, archive_id)


def bring_back(
    platform: Platform, declared: Declared, archive_id: str, *, into: Relation | None = None
) -> restore.RestoreReport:
    """Put archived rows back into their table, or into another one."""
    with (
        platform.writer(declared, "archive restore") as connection,
        platform.ledger.operation(declared.name, "archive_restore") as summary,
    ):
        report = restore.restore_archive(connection, platform.ledger, archive_id, database=declared.name, into=into)
        summary.update(report.as_json())
        return report


def folder_of(platform: Platform, policy: ArchivePolicy) -> Path:
    """Where the files of an archive lie."""
    return policy.folder(base=platform.project.root, default=platform.home.archives)


def _proof(platform: Platform, declared: Declared, policy: ArchivePolicy) -> ProvenSnapshot | None:
    """The newest proof of this database, when it is fresh enough and holds the table; its files are read again."""
    proof = backups.newest_proof(platform, declared)
    max_age = (declared.database.backups or BackupPolicy()).drill.max_age
    if proof is None or not is_fresh(proof.proven_at, max_age, now=datetime.now(UTC)):
        return None
    if str(policy.table) not in proof.tables:
        return None
    return ProvenSnapshot(
        backup_id=proof.backup_id,
        snapshot=proof.snapshot,
        system_identifier=int(proof.system_identifier),
        database_oid=proof.database_oid,
        taken_at=proof.taken_at,
    )
