"""Partitions of a declared database, recorded in the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from pydantic import ValidationError

from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError
from dbplatform.operations.gates import not_declared
from dbplatform.operations.platform import Platform
from dbplatform.partitioning.apply import PartitionReport, apply_partitions
from dbplatform.partitioning.plan import PartitionPlan, plan_partitions
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.catalog import require_table
from dbplatform.postgres.connection import AnyConnection, connect
from dbplatform.postgres.identifiers import Relation


class UnsuitableStart(UsageError):
    """The start {start!r} does not suit {table}: {reason}."""


def plan(
    platform: Platform, declared: Declared, *, only: Relation | None = None, start: str | None = None
) -> PartitionPlan:
    """Which partitions are missing; only reads. ``start``: see ``apply``."""
    policies = _policies(declared, only, start)
    with connect(platform.target(declared), work="partition plan") as connection, placed(declared, connection, only):
        return plan_partitions(connection, policies, now=datetime.now(UTC), again=start is not None)


def apply(
    platform: Platform,
    declared: Declared,
    *,
    only: Relation | None = None,
    start: str | None = None,
    run_id: str | None = None,
) -> PartitionReport:
    """Make the missing partitions, under the writer lock; recorded when there was something to do.

    With ``start`` they reach back to there, and what was retired is made again.
    """
    policies = _policies(declared, only, start)
    again = start is not None
    now = datetime.now(UTC)
    with platform.writer(declared, "partition") as connection, placed(declared, connection, only):
        planned = plan_partitions(connection, policies, now=now, again=again)
        if planned.is_empty:
            return apply_partitions(connection, policies, now=now, again=again)
        with platform.ledger.operation(declared.name, "partition", run_id=run_id) as summary:
            report = apply_partitions(connection, policies, now=now, again=again)
            summary.update(report.as_json())
            return report


def _policies(declared: Declared, only: Relation | None, start: str | None) -> Sequence[PartitionPolicy]:
    policies = declared.database.partitioned_tables
    if not policies:
        raise not_declared(declared, "partitioned tables", "partitioned_tables")
    chosen = [policy for policy in policies if only is None or policy.table == only]
    return chosen if start is None else [_from(policy, start) for policy in chosen]


def _from(policy: PartitionPolicy, start: str) -> PartitionPolicy:
    written = int(start) if isinstance(policy.interval, int) and start.lstrip("-").isdigit() else start
    try:
        return PartitionPolicy.model_validate({**policy.model_dump(), "start": written})
    except ValidationError as error:
        reason = str(error.errors()[0]["ctx"]["error"]) if "ctx" in error.errors()[0] else error.errors()[0]["msg"]
        hint = "Write a date, an interval back from now, or a number for a table that is partitioned by numbers."
        raise UnsuitableStart(start=start, table=str(policy.table), reason=reason, hint=hint) from None


@contextmanager
def placed(declared: Declared, connection: AnyConnection, only: Relation | None) -> Iterator[None]:
    """A missing table is shown where it is declared."""
    for index, policy in enumerate(declared.database.partitioned_tables):
        if only is None or policy.table == only:
            with declared.written_at("partitioned_tables", index, "table"):
                require_table(connection, policy.table)
    with declared.written_at("partitioned_tables"):
        yield
