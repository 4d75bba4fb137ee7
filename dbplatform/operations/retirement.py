"""Where partitions and archives meet: an old partition leaves its table once the declared archives have its rows.

It is a step of its own, apart from making partitions, so that neither holds the other up or rolls it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dbplatform.archiving import partitions as archived_partitions
from dbplatform.declaration.loading import Declared
from dbplatform.operations import archives
from dbplatform.operations.gates import not_declared
from dbplatform.operations.partitions import placed
from dbplatform.operations.platform import Platform
from dbplatform.partitioning.bounds import Bounds
from dbplatform.partitioning.due import condition_of
from dbplatform.partitioning.fates import Expected, Kept, RetirementReport
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.partitioning.retire import apply_retirement, plan_retirement
from dbplatform.postgres.clock import agreed_now
from dbplatform.postgres.connection import AutocommitConnection, connect
from dbplatform.postgres.identifiers import Relation


def plan(platform: Platform, declared: Declared, *, only: Relation | None = None) -> RetirementReport:
    """Which partitions are due, and what would become of each; only reads."""
    policies = _policies(declared, only)
    with (
        connect(platform.target(declared), work="partition retire") as connection,
        placed(declared, connection, only),
    ):
        return plan_retirement(connection, policies, _Archives(platform, declared), now=agreed_now(connection))


def apply(
    platform: Platform, declared: Declared, *, only: Relation | None = None, run_id: str | None = None
) -> RetirementReport:
    """Retire what is due, under the writer lock; recorded when there was something to do."""
    policies, answers = _policies(declared, only), _Archives(platform, declared)
    with platform.writer(declared, "partition retire") as connection, placed(declared, connection, only):
        now = agreed_now(connection)
        for policy in policies:
            answers.dropped(connection, policy)  # what a killed run could not tell the ledger
        if plan_retirement(connection, policies, answers, now=now).is_empty:
            return apply_retirement(connection, policies, answers, now=now)
        with platform.ledger.operation(declared.name, "retire", run_id=run_id) as summary:
            report = apply_retirement(connection, policies, answers, now=now)
            summary.update(report.as_json())
            return report


@dataclass(frozen=True, slots=True)
class _Archives:
    """The ``Archivist`` of a declared database."""

    platform: Platform
    declared: Declared

    def expects(self, policy: PartitionPolicy, bounds: Bounds, rows: int) -> tuple[Expected, str]:
        declared_archives = [one for one in self.declared.database.archives if one.table == policy.table]
        if not declared_archives:
            return "detach", "its rows are in no archive"
        by_partition = next((archive for archive in declared_archives if archive.by == "partition"), None)
        if by_partition is None:
            return "waiting", "its rows are not all archived yet"
        where = condition_of(policy, bounds)
        listed = archived_partitions.listed_rows(self.platform.ledger, self.declared.name, by_partition, where)
        if listed >= rows:
            return "drop", f"its {rows:,} rows are archived"
        return "waiting", f"{listed:,} of its {rows:,} rows are archived"

    def release(
        self, connection: AutocommitConnection, policy: PartitionPolicy, partition: Relation, bounds: Bounds
    ) -> Kept:
        standing = archived_partitions.release(
            connection,
            self.platform.ledger,
            partition,
            database=self.declared.name,
            table=policy.table,
            where=condition_of(policy, bounds),
            ask_proof=lambda: archives.proof_of(self.platform, self.declared, policy.table),
        )
        return Kept(rows=standing.rows, kept=standing.archived, problems=standing.problems)

    def dropped(self, connection: AutocommitConnection, policy: PartitionPolicy) -> None:
        database, ledger = self.declared.name, self.platform.ledger
        archived_partitions.settle(connection, ledger, database=database, table=policy.table)


def _policies(declared: Declared, only: Relation | None) -> Sequence[PartitionPolicy]:
    policies = [policy for policy in declared.database.partitioned_tables if policy.retain]
    if not policies:
        raise not_declared(declared, "partitioned tables with retain", "partitioned_tables")
    return [policy for policy in policies if only is None or policy.table == only]
