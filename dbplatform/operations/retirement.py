"""Where partitions and archives meet: an old partition leaves its table once the declared archives have its rows.

It is a step of its own, apart from making partitions, so that neither holds the other up or rolls it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from dbplatform.declaration.loading import Declared
from dbplatform.operations.gates import not_declared
from dbplatform.operations.partitions import placed
from dbplatform.operations.platform import Platform
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.partitioning.retire import RetirementReport, apply_retirement, plan_retirement
from dbplatform.postgres.connection import connect
from dbplatform.postgres.identifiers import Relation


def plan(platform: Platform, declared: Declared, *, only: Relation | None = None) -> RetirementReport:
    """Which partitions are due, and what would become of each; only reads."""
    policies = _policies(declared, only)
    with (
        connect(platform.target(declared), work="partition retire") as connection,
        placed(declared, connection, only),
    ):
        return plan_retirement(connection, policies, _archived(declared), now=datetime.now(UTC))


def apply(
    platform: Platform, declared: Declared, *, only: Relation | None = None, run_id: str | None = None
) -> RetirementReport:
    """Retire what is due, under the writer lock; recorded when there was something to do."""
    policies, archived = _policies(declared, only), _archived(declared)
    now = datetime.now(UTC)
    with platform.writer(declared, "partition retire") as connection, placed(declared, connection, only):
        if plan_retirement(connection, policies, archived, now=now).is_empty:
            return apply_retirement(connection, policies, archived, now=now)
        with platform.ledger.operation(declared.name, "retire", run_id=run_id) as summary:
            report = apply_retirement(connection, policies, archived, now=now)
            summary.update(report.as_json())
            return report


def _policies(declared: Declared, only: Relation | None) -> Sequence[PartitionPolicy]:
    policies = [policy for policy in declared.database.partitioned_tables if policy.retain]
    if not policies:
        raise not_declared(declared, "partitioned tables with retain", "partitioned_tables")
    return [policy for policy in policies if only is None or policy.table == only]


def _archived(declared: Declared) -> frozenset[Relation]:
    return frozenset(archive.table for archive in declared.database.archives)
