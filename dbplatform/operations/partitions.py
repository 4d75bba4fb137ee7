"""Partitions of a declared database, recorded in the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import ValidationError

from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError
from dbplatform.operations.gates import not_declared
from dbplatform.operations.platform import Platform
from dbplatform.partitioning.apply import PartitionReport, apply_partitions
from dbplatform.partitioning.bounds import Point, Step
from dbplatform.partitioning.plan import PartitionPlan, horizon_json, plan_partitions
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How far the partitions of a table reach: ``enough``, ``short`` of half of what is kept ready, or ``over``."""

    table: Relation
    horizon: Point
    default: Relation | None
    default_rows: int
    verdict: Literal["enough", "short", "over"]

    @property
    def words(self) -> str:
        """One sentence."""
        found = horizon_json(self.horizon)
        left = (
            f"{found['horizon_numbers']:,} numbers" if "horizon_numbers" in found else f"{found['horizon_days']:,} days"
        )
        if self.verdict == "over":
            into = f"go into {self.default}" if self.default else "are refused"
            return f"New rows of {self.table} find no partition and {into}: dbplatform partition apply makes it."
        rows = f" {self.default} holds {self.default_rows:,} rows." if self.default_rows else ""
        return f"The partitions of {self.table} run out in {left}.{rows}"

    def as_json(self) -> dict[str, Any]:
        """What a check publishes."""
        return {"table": str(self.table), **horizon_json(self.horizon), "default_rows": self.default_rows}


def reach(platform: Platform, declared: Declared, policy: PartitionPolicy) -> Reach:
    """Whether the partitions of one table run out; only reads."""
    with (
        connect(platform.target(declared), work="partition check") as connection,
        placed(declared, connection, policy.table),
    ):
        [table] = plan_partitions(connection, [policy], now=datetime.now(UTC)).tables
    nothing = table.horizon - table.horizon
    half = policy.premake * _width(policy.interval) / 2
    verdict: Literal["enough", "short", "over"] = "short" if table.horizon < half else "enough"
    return Reach(
        table=policy.table,
        horizon=table.horizon,
        default=table.default,
        default_rows=table.default_rows,
        verdict="over" if table.horizon == nothing else verdict,
    )


def _width(interval: Step) -> Any:
    return interval if isinstance(interval, int) else timedelta(days=interval.approximate_days)


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
        said = error.errors()[0]
        reason, _, hint = str(said.get("ctx", {}).get("error", said["msg"])).partition("; ")
        hint = f"{hint[:1].upper()}{hint[1:]}." if hint else "Write a date, or how far back: 13 months."
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
