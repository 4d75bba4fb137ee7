"""Maintenance of a declared database: looked at by anybody, done under the writer lock, recorded in the ledger."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from dbplatform.backups.holding import unhurried
from dbplatform.declaration.loading import Declared
from dbplatform.maintenance import record
from dbplatform.maintenance.apply import Run, new_pace
from dbplatform.maintenance.model import KINDS, QUICK, Kind, Plan, Report
from dbplatform.maintenance.pace import unseen
from dbplatform.maintenance.plan import plan_maintenance
from dbplatform.monitoring.health import Health
from dbplatform.operations import watching
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.locks import lent

#: What is typed, and the kinds of work that it stands for.
MODES: dict[str, tuple[Kind, ...]] = {"quick": QUICK, "full": KINDS, **{kind: (kind,) for kind in KINDS}}
_LOCK_TIMEOUT_MS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What ``optimize health`` shows: the score, and what would be done."""

    health: Health
    plan: Plan

    def as_json(self) -> dict[str, Any]:
        """The document of ``optimize health --json``: that of ``health``, with the plan."""
        return {**self.health.as_json(), **self.plan.as_json()}


def plan(
    platform: Platform, declared: Declared, mode: str, *, table: Relation | None = None, count: bool = True
) -> Plan:
    """What would be done; only reads. Without ``count`` bloat is only estimated.

    Raises ``NothingToMeasure``, ``OnStandby`` and ``TableMissing``.
    """
    target = watching.existing(platform, declared)
    with connect(target, work="optimize", lock_timeout_ms=_LOCK_TIMEOUT_MS) as connection:
        found = plan_maintenance(
            connection,
            target,
            declared.database.maintenance,
            database=declared.name,
            kinds=MODES[mode],
            table=table,
            may_count=lambda: count,
        )
        notices = unseen(connection, declared.name) if found.items else ()
    return replace(found, not_possible=(*found.not_possible, *notices))


def look(platform: Platform, declared: Declared, *, table: Relation | None = None) -> Looked:
    """The score of the database as it is now, and what ``full`` would do. Raises as ``plan``."""
    health = watching.score(declared, watching.measure(platform, declared))
    return Looked(health=health, plan=plan(platform, declared, "full", table=table))


def apply(
    platform: Platform,
    declared: Declared,
    mode: str,
    *,
    table: Relation | None = None,
    run_id: str | None = None,
    in_window: bool = True,
) -> Report:
    """Do what is due, the most urgent first, within window, budget and limits; recorded in the ledger item by item.

    The writer lock is held without a transaction, and others may have it while a pause lasts. Locks: see each item.
    Raises ``LockNotAcquired``, ``OnStandby``, ``TableMissing`` and ``QueryRefused``; what fails for one item is told in
    the report.
    """
    policy, kinds = declared.database.maintenance, MODES[mode]
    target = platform.target(declared)
    ledger, name = platform.ledger, declared.name
    with (
        platform.writer(declared, f"optimize {mode}") as connection,
        connect(target, work="optimize watch") as watcher,
        ledger.operation(name, "optimize", run_id=run_id) as summary,
    ):
        unhurried(connection)
        unhurried(watcher)
        summary.update(mode=mode)
        # The assets of one run share its budget.
        spent = record.spent(ledger, run_id) if run_id is not None else (0.0, 0)
        id_ = record.begin(ledger, name, mode=mode, run_id=run_id, now=datetime.now(UTC))
        report = Run(
            connection=connection,
            watcher=watcher,
            target=target,
            policy=policy,
            database=name,
            kinds=kinds,
            pace=new_pace(policy, resting=lambda: lent(connection), in_window=in_window, spent=spent),
            keep=lambda outcome: record.keep(ledger, id_, outcome),
            changing=lambda item: record.changing(ledger, id_, item),
            table=table,
        ).to_the_end()
        record.end(ledger, id_, report, now=datetime.now(UTC))
        summary.update({key: value for key, value in report.as_json().items() if key not in ("items", "not_possible")})
        return report
