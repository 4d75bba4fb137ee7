"""Archives of a declared database. Rows leave it only behind a proven backup that holds them: the gate is here."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from dbplatform import machines
from dbplatform.archiving import catalogue, restore, whole
from dbplatform.archiving import partitions as archived_partitions
from dbplatform.archiving.apply import ArchiveReport, apply_archive
from dbplatform.archiving.errors import ArchiveDamaged
from dbplatform.archiving.pace import BRISK, GENTLE
from dbplatform.archiving.plan import ArchivePlan, plan_archive
from dbplatform.archiving.policy import ArchivePolicy, TableDestination
from dbplatform.archiving.proof import ProvenSnapshot
from dbplatform.archiving.records import deleted_rows
from dbplatform.archiving.tables import TablePlace, url_of
from dbplatform.backups.policy import BackupPolicy
from dbplatform.backups.proof import is_fresh
from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError, WorkError
from dbplatform.operations import backups
from dbplatform.operations.gates import not_declared
from dbplatform.operations.platform import Platform
from dbplatform.partitioning.bounds import Bounds
from dbplatform.partitioning.due import condition_of, read_due
from dbplatform.postgres.clock import agreed_now
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection, Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.storage.place import S3_SCHEME, Place, place_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What lies in the archives of one name now, and not in the table; the newest first."""

    archives: tuple[catalogue.ArchiveEntry, ...]

    @property
    def rows(self) -> int:
        """How many rows they hold for the table."""
        return sum(entry.deleted_rows for entry in self.archives)

    @property
    def newest(self) -> catalogue.ArchiveEntry | None:
        """The one that was made last."""
        return self.archives[0] if self.archives else None


class ArchivedRowsDamaged(WorkError):
    """{rows} rows of {table} were archived, and {reason}."""


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
    """The rows that are as declared, and how many of them a proven backup holds; only reads."""
    index = declared.database.archives.index(policy)
    proof = proof_of(platform, declared, policy.table)
    with (
        connect(platform.target(declared), work="archive plan") as connection,
        declared.written_at("archives", index, "table"),
    ):
        now = agreed_now(connection)
        if policy.by == "rows":
            return plan_archive(connection, policy, now=now, proof=proof)
        cutoff, slices = _due(connection, declared, policy, None, now=now)
        return archived_partitions.plan_partitions(
            connection, policy, slices, platform.ledger, database=declared.name, cutoff=cutoff, now=now, proof=proof
        )


def apply(
    platform: Platform,
    declared: Declared,
    policy: ArchivePolicy,
    *,
    bounds: Bounds | None = None,
    run_id: str | None = None,
) -> ArchiveReport:
    """Move what is as declared and proven into a file, read it back, then delete exactly those rows.

    By partition: write what is due, or the one partition with these ``bounds``, into files and read them back;
    retirement lets the partitions go. Under the writer lock; recorded unless it is refused or there is nothing to do.
    Times are the server's: what is erased later is looked for by them. Raises ``NotProven`` where no fresh proof holds
    the table, and ``ClocksApart``.
    """
    production = declared.database.connection.environment == "production"
    with platform.writer(declared, "archive") as connection, ExitStack() as stack:
        now, place = agreed_now(connection), place_of(platform, declared, policy)
        proof = proof_of(platform, declared, policy.table)

        @cache
        def recorded() -> dict[str, Any]:
            return stack.enter_context(platform.ledger.operation(declared.name, "archive", run_id=run_id))

        if policy.by == "partition":
            cutoff, slices = _due(connection, declared, policy, bounds, now=now)
            report = archived_partitions.archive_partitions(
                connection,
                policy,
                slices,
                platform.ledger,
                place,
                database=declared.name,
                cutoff=cutoff,
                proof=proof,
                now=now,
                begins=recorded,
            )
        else:
            report = apply_archive(
                connection,
                policy,
                platform.ledger,
                place,
                database=declared.name,
                proof=proof,
                recheck=lambda: proof_of(platform, declared, policy.table),
                now=now,
                begins=recorded,
                throttle=replace(
                    GENTLE if production else BRISK,
                    most_lag_bytes=policy.max_replica_lag_mb * 2**20,
                    most_wal_per_s=policy.max_wal_mb_per_s * 2**20 if policy.max_wal_mb_per_s else None,
                    window=policy.window,
                    budget_bytes=policy.budget,
                ),
            )
        if recorded.cache_info().currsize:
            recorded().update(report.as_json())
        return report


def standing(platform: Platform, declared: Declared, policy: ArchivePolicy) -> Standing:
    """Where the rows of an archive are now; its newest file is read from end to end, with those of rows along.

    Older files are read by ``archive verify`` alone, so that the work does not grow with the years. Raises
    ``ArchivedRowsDamaged``.
    """
    with connect(platform.target(declared), work="archive standing") as connection:
        left = {archive_id for archive_id, _, _ in deleted_rows(connection)}
    found = Standing(
        archives=tuple(
            entry
            for entry in known(platform, declared)
            if entry.name == policy.name and entry.parent_id is None and entry.status == "deleted" and entry.id in left
        )
    )
    newest = found.newest
    if newest is not None:
        try:
            with connect(platform.target(declared), work="archive standing") as connection:
                for entry in (newest, *catalogue.along(platform.ledger, newest)):
                    catalogue.require_whole(entry, connection)
        except ArchiveDamaged as damage:
            raise ArchivedRowsDamaged(
                rows=newest.deleted_rows,
                table=newest.table,
                reason=damage.message[0].lower() + damage.message[1:].rstrip("."),
                hint=f"Bring a good copy of the file back, or the rows out of the backup {newest.backup_id}: it held "
                "them.",
            ) from damage
    return found


def known(platform: Platform, declared: Declared) -> list[catalogue.ArchiveEntry]:
    """Every archive of the database, as the ledger has it."""
    return catalogue.list_archives(platform.ledger, declared.name)


def examine(platform: Platform, declared: Declared, archive_id: str) -> catalogue.ArchiveVerification:
    """Read an archive's file from end to end."""
    with connect(platform.target(declared), work="archive verify") as connection:
        return catalogue.verify_archive(platform.ledger, declared.name, archive_id, connection)


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


def archived_whole(
    platform: Platform,
    declared: Declared,
    partition: Relation,
    *,
    of: Relation,
    connection: AutocommitConnection | None = None,
) -> whole.PartitionStanding:
    """Whether every row of ``partition``, a partition of the table ``of`` now or before, is in a verified archive.

    Ask through the ``connection`` that keeps writers away from it (SHARE, or the partition is detached): the answer
    holds as long. Only reads; an empty partition is whole.
    """
    with ExitStack() as stack:
        session = connection or stack.enter_context(connect(platform.target(declared), work="archived whole"))
        return whole.archived_whole(session, platform.ledger, database=declared.name, table=of, partition=partition)


def destination_of(platform: Platform, policy: ArchivePolicy) -> str | TableDestination:
    """Where an archive lies: a table, an absolute folder, or ``s3://bucket/prefix``. Raises ``OnOneMachine``."""
    to = policy.destination(base=platform.project.root, default=platform.home.archives)
    if isinstance(to, str) and not to.startswith(S3_SCHEME):
        hint = "Declare a bucket, or a table: archives: [{to: s3://bucket/prefix}]."
        machines.refuse_on_one(f"The archive {policy.name}", to, hint=hint)
    return to


def place_of(platform: Platform, declared: Declared, policy: ArchivePolicy) -> Place:
    """The same, to write there; what does not go into a folder is written first in one of ours."""
    to, work = destination_of(platform, policy), platform.home.archives / ".uploads"
    if isinstance(to, str):
        return place_at(to, work=work)
    target = (
        Target(to.url_env, url_of(to.url_env)) if to.url_env is not None else platform.target_as(declared, "archive")
    )
    return TablePlace(target=target, table=to.table, variable=to.url_env, work=work)


def _due(
    connection: AnyConnection, declared: Declared, policy: ArchivePolicy, bounds: Bounds | None, *, now: datetime
) -> tuple[datetime | None, list[archived_partitions.Slice]]:
    """The partitions of an archive by partition that are due, and the cutoff where it is a time."""
    [partitioned] = [one for one in declared.database.partitioned_tables if one.table == policy.table]
    cutoff, due = read_due(connection, partitioned, now=now)
    slices = [
        archived_partitions.Slice(partition=one.relation, where=condition_of(partitioned, one.bounds))
        for one in due
        if bounds in (None, one.bounds)
    ]
    return cutoff if isinstance(cutoff, datetime) else None, slices


def proof_of(platform: Platform, declared: Declared, table: Relation) -> ProvenSnapshot | None:
    """The newest proof of this database, when it is fresh enough and holds the table; its files are read again."""
    proof = backups.newest_proof(platform, declared)
    max_age = (declared.database.backups or BackupPolicy()).drill.max_age
    if proof is None or not is_fresh(proof.proven_at, max_age, now=datetime.now(UTC)):
        return None
    if str(table) not in proof.tables:
        return None
    return ProvenSnapshot(
        backup_id=proof.backup_id,
        snapshot=proof.snapshot,
        system_identifier=int(proof.system_identifier),
        database_oid=proof.database_oid,
        taken_at=proof.taken_at,
        timeline_id=proof.timeline_id,
        tables=frozenset(proof.tables),
    )
