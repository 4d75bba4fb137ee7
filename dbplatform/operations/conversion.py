"""Online conversion of a declared table, under the writer lock, recorded in the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError
from dbplatform.operations.gates import not_declared
from dbplatform.operations.platform import Platform
from dbplatform.partitioning.conversion.convert import ConversionReport, convert
from dbplatform.partitioning.conversion.plan import plan_conversion
from dbplatform.partitioning.conversion.undo import plan_undo, undo
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.connection import connect
from dbplatform.postgres.identifiers import Relation


class TableNotDeclared(UsageError):
    """{table} is not among the partitioned_tables of {database}."""


def plan(platform: Platform, declared: Declared, table: Relation, *, back: bool = False) -> dict[str, Any]:
    """The document of a dry run: what is left to do, or to take back. Only reads."""
    policy = _policy(declared, table)
    with connect(platform.target(declared), work="partition convert") as connection, _placed(declared, policy):
        if back:
            return plan_undo(connection, policy).as_json(connection)
        return plan_conversion(connection, policy, now=datetime.now(UTC)).as_json(connection)


def apply(platform: Platform, declared: Declared, table: Relation, *, back: bool = False) -> ConversionReport:
    """Convert the table, or take that back; recorded unless it is refused or there is nothing to do."""
    policy = _policy(declared, table)
    now = datetime.now(UTC)
    with platform.writer(declared, "partition convert") as connection, _placed(declared, policy):
        if back:
            plan_undo(connection, policy)
        elif plan_conversion(connection, policy, now=now).is_done:
            return convert(connection, policy, now=now)
        with platform.ledger.operation(declared.name, "unconvert" if back else "convert") as summary:
            report = undo(connection, policy) if back else convert(connection, policy, now=now)
            summary.update(report.as_json())
            return report


def _policy(declared: Declared, table: Relation) -> PartitionPolicy:
    policies = declared.database.partitioned_tables
    if not policies:
        raise not_declared(declared, "partitioned tables", "partitioned_tables")
    for policy in policies:
        if policy.table == table:
            return policy
    raise TableNotDeclared(
        table=str(table),
        database=declared.name,
        hint=f"Declare it there, with column and interval. Declared: {', '.join(str(one.table) for one in policies)}.",
    )


@contextmanager
def _placed(declared: Declared, policy: PartitionPolicy) -> Iterator[None]:
    """A refusal is shown where the table is declared."""
    index = declared.database.partitioned_tables.index(policy)
    with declared.written_at("partitioned_tables", index, "table"):
        yield
