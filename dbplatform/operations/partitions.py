"""Partitions of a declared database, recorded in the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from dbplatform.declaration.loading import Declared
from dbplatform.operations.gates import not_declared
from dbplatform.operations.platform import Platform
from dbplatform.partitioning.apply import PartitionReport, apply_partitions
from dbplatform.partitioning.plan import PartitionPlan, plan_partitions
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.catalog import require_table
from dbplatform.postgres.connection import AnyConnection, connect
from dbplatform.postgres.identifiers import Relation


def plan(platform: Platform, declared: Declared, *, only: Relation | None = None) -> PartitionPlan:
    """Which partitions are missing; only reads."""
    policies = _policies(declared, only)
    with connect(platform.target(declared), work="partition plan") as connection, _placed(declared, connection, only):
        return plan_partitions(connection, policies, now=datetime.now(UTC))


def apply(
    platform: Platform, declared: Declared, *, only: Relation | None = None, run_id: str | None = None
) -> PartitionReport:
    """Make the missing partitions, under the writer lock; recorded when there was something to do."""
    policies = _policies(declared, only)
    now = datetime.now(UTC)
    with platform.writer(declared, "partition") as connection, _placed(declared, connection, only):
        planned = plan_partitions(connection, policies, now=now)
        if planned.is_empty:
            return apply_partitions(connection, policies, now=now)
        with platform.ledger.operation(declared.name, "partition", run_id=run_id) as summary:
            report = apply_partitions(connection, policies, now=now)
            summary.update(report.as_json())
            return report


def _policies(declared: Declared, only: Relation | None) -> Sequence[PartitionPolicy]:
    policies = declared.database.partitioned_tables
    if not policies:
        raise not_declared(declared, "partitioned tables", "partitioned_tables")
    return [policy for policy in policies if only is None or policy.table == only]


@contextmanager
def _placed(declared: Declared, connection: AnyConnection, only: Relation | None) -> Iterator[None]:
    """A missing table is shown where it is declared."""
    for index, policy in enumerate(declared.database.partitioned_tables):
        if only is None or policy.table == only:
            with declared.written_at("partitioned_tables", index, "table"):
                require_table(connection, policy.table)
    with declared.written_at("partitioned_tables"):
        yield
