"""Live tables of a declared database, recorded in the ledger."""

from __future__ import annotations

from dbplatform.declaration.loading import Declared
from dbplatform.live.install import LivePlan, Masked, apply_live, plan_live
from dbplatform.operations.platform import Platform
from dbplatform.postgres.catalog import table_exists
from dbplatform.postgres.connection import AutocommitConnection, connect, snapshot
from dbplatform.quality.masks import Masks


def plan(platform: Platform, declared: Declared) -> LivePlan:
    """Which tables would be made live, or no longer; only reads."""
    with connect(platform.target(declared), work="live plan") as connection:
        masked = _masked(connection, declared)
        return plan_live(connection, declared.database.live, database=declared.name, masked=masked)


def apply(platform: Platform, declared: Declared, *, run_id: str | None = None) -> LivePlan:
    """Make the declared tables live and no others, under the writer lock; recorded when there was something to do."""
    with platform.writer(declared, "live") as connection:
        live, masked = declared.database.live, _masked(connection, declared)
        planned = plan_live(connection, live, database=declared.name, masked=masked)
        if not planned.actions:
            return apply_live(connection, live, database=declared.name, masked=masked)
        with platform.ledger.operation(declared.name, "live", run_id=run_id) as summary:
            report = apply_live(connection, live, database=declared.name, masked=masked)
            summary.update(report.as_json())
            return report


def _masked(connection: AutocommitConnection, declared: Declared) -> Masked:
    """What is masked of the live tables, on them or on any of their family."""
    masks = Masks.declared(declared.database.quality)
    with snapshot(connection) as reading:
        return {
            (policy.table, column)
            for policy in declared.database.live
            if table_exists(reading, policy.table)
            for column in masks.of(reading, policy.table)
        }
