"""Maintenance as the tests run it: small tables count, and nothing of the server does it before them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from dbplatform.maintenance.apply import Run
from dbplatform.maintenance.model import KINDS, Item, Kind, Outcome, Plan, Report
from dbplatform.maintenance.pace import Pace
from dbplatform.maintenance.plan import plan_maintenance
from dbplatform.maintenance.policy import MaintenancePolicy
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.identifiers import Relation

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
#: Autovacuum leaves the tables of the tests alone.
OFF = "with (autovacuum_enabled = off)"


def policy(**fields: Any) -> MaintenancePolicy:
    """A policy by which small tables are rebuilt, too."""
    due = {"min_size": "64kB", **fields.pop("due", {})}
    return MaintenancePolicy.model_validate({"due": due, **fields})


def pace(of: MaintenancePolicy, *, sleep: Any = time.sleep, clock: Any = time.monotonic, now: datetime = NOW) -> Pace:
    return Pace(policy=of, sleep=sleep, clock=clock, now=lambda: now, started=clock())


def planned(
    database: Target, of: MaintenancePolicy | None = None, kinds: Collection[Kind] = KINDS, table: str | None = None
) -> Plan:
    with connect(database, work="test") as connection:
        only = Relation.parse(table) if table else None
        return plan_maintenance(connection, database, of or policy(), database="shop", kinds=kinds, table=only)


def item(plan: Plan, kind: str, subject: str) -> Item:
    """The one item of that kind and subject."""
    found = [one for one in plan.items if one.kind == kind and str(one.subject) == subject]
    assert len(found) == 1, [(one.kind, str(one.subject), one.reason) for one in plan.items]
    return found[0]


def subjects(plan: Plan, kind: str) -> list[str]:
    return [str(one.subject) for one in plan.items if one.kind == kind]


def maintain(
    database: Target,
    of: MaintenancePolicy | None = None,
    kinds: Collection[Kind] = KINDS,
    *,
    kept: list[Outcome] | None = None,
    with_pace: Pace | None = None,
    connection: AutocommitConnection | None = None,
    changing: Callable[[Item], None] = lambda _: None,
) -> Report:
    """One run to its end."""
    of = of or policy()
    with ExitStack() as stack:
        working = connection or stack.enter_context(connect(database, work="maintenance"))
        watcher = stack.enter_context(connect(database, work="watcher"))
        return Run(
            connection=working,
            watcher=watcher,
            target=database,
            policy=of,
            database="shop",
            kinds=kinds,
            pace=with_pace or pace(of),
            keep=(kept if kept is not None else []).append,
            changing=changing,
        ).to_the_end()


def outcome(report: Report, kind: str, subject: str) -> Outcome:
    found = [one for one in report.outcomes if one.item.kind == kind and str(one.item.subject) == subject]
    assert len(found) == 1, [one.as_json() for one in report.outcomes]
    return found[0]
